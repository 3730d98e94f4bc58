//! Speed of rollouts: many sequences decoded together from a model of the size of the embedded one.
//!
//! `cargo bench -p minke-engine --bench rollout -- [batch] [tokens] [threads]` prints one line of JSON.

use std::time::Instant;

use minke_engine::{EngineConfig, Replicas, SamplingParams};
use minke_model::Transformer;
use minke_spec::{ModelConfig, Placement};
use minke_tensor::Device;

fn config() -> ModelConfig {
    let json = serde_json::json!({
        "model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "hidden_size": 96, "num_hidden_layers": 4, "intermediate_size": 256, "vocab_size": 640,
        "num_attention_heads": 4, "num_key_value_heads": 4, "q_lora_rank": 48, "kv_lora_rank": 48,
        "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "rope_theta": 10000.0,
        "max_position_embeddings": 1024, "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1,
        "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 96,
        "first_k_dense_replace": 1, "moe_layer_freq": 1, "n_group": 1, "topk_group": 1, "topk_method": "noaux_tc",
        "scoring_func": "sigmoid", "norm_topk_prob": true, "routed_scaling_factor": 1.0,
        "num_nextn_predict_layers": 1, "initializer_range": 0.05,
    });
    ModelConfig::from_value(json).expect("the shape is valid").config
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let number = |i: usize, otherwise: usize| arguments.get(i).and_then(|v| v.parse().ok()).unwrap_or(otherwise);
    let (batch, tokens, threads) = (number(0, 64), number(1, 128), number(2, 2));
    let config = config();
    let device = Device::open("cpu", threads).expect("the system gives threads");
    let model = Transformer::random(&device, &config, &Placement::single(), 1).expect("the family is implemented");
    let settings = EngineConfig::default()
        .with_pages(batch * (tokens + 64).div_ceil(32))
        .with_max_sequences(batch)
        .exact()
        .with_prefix_cache(false);
    let mut replicas = Replicas::new(&device, &config, &settings).expect("the cache fits");
    for round in 0..3 {
        for prompt in 0..batch as u32 / 8 {
            let params = SamplingParams::default().with_seed(u64::from(prompt)).with_max_tokens(tokens);
            let ids: Vec<u32> = (0..14).map(|i| 10 + (i * 7 + prompt) % 600).collect();
            replicas.submit(&ids, &params, 8).expect("the prompt fits");
        }
        let start = Instant::now();
        let done = replicas.run(&model, |_| {}).expect("the model is finite");
        let seconds = start.elapsed().as_secs_f64();
        let generated: usize = done.iter().map(|c| c.token_ids.len()).sum();
        if round > 0 {
            println!(
                "{}",
                serde_json::json!({"batch": batch, "threads": threads, "tokens": generated, "seconds": seconds,
                    "tokens_per_s": generated as f64 / seconds, "us_per_step": seconds * 1e6 / tokens as f64})
            );
        }
    }
}
