//! Time and memory of one training step: shapes S and M of a Llama-style decoder and R of DeepSeek-V3's, 4,096 tokens per
//! step, forward, backward and AdamW.
//!
//! `cargo bench -p minke-model --bench training -- [S|M|R] [threads] [steps] [bf16] [recompute]` prints one line of JSON with the
//! median step, the share of the processor that the run got, and the peak resident memory.

use std::time::Instant;

use minke_model::{Batch, LossWeights, Targets, Transformer};
use minke_spec::draw::{Domain, draw};
use minke_spec::{ModelConfig, Placement, Precision};
use minke_tensor::optimize::{AdamW, Update, adamw_step, master};
use minke_tensor::{Device, Gradients, Param, Pass, Tensor, backward};

/// (hidden, layers, feed-forward, vocabulary, sequence)
fn shape(name: &str) -> (usize, usize, usize, usize, usize) {
    match name {
        "M" => (384, 8, 1024, 8192, 512),
        _ => (256, 6, 768, 4096, 256),
    }
}

fn config(name: &str) -> ModelConfig {
    let (hidden, layers, ffn, vocabulary, sequence) = shape(name);
    let heads = hidden / 64;
    let family = match name {
        "R" => serde_json::json!({
            "model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "num_attention_heads": 8,
            "num_key_value_heads": 8, "q_lora_rank": 128, "kv_lora_rank": 64, "qk_nope_head_dim": 32,
            "qk_rope_head_dim": 16, "v_head_dim": 32, "n_routed_experts": 8, "n_shared_experts": 1,
            "num_experts_per_tok": 2, "moe_intermediate_size": 256, "first_k_dense_replace": 1, "moe_layer_freq": 1,
            "n_group": 1, "topk_group": 1, "topk_method": "noaux_tc", "scoring_func": "sigmoid",
            "norm_topk_prob": true, "routed_scaling_factor": 1.0, "num_nextn_predict_layers": 0,
        }),
        _ => serde_json::json!({
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_attention_heads": heads,
            "num_key_value_heads": heads / 2, "head_dim": 64,
        }),
    };
    let mut json = serde_json::json!({
        "hidden_act": "silu", "rms_norm_eps": 1e-6, "hidden_size": hidden, "num_hidden_layers": layers,
        "intermediate_size": ffn, "vocab_size": vocabulary, "rope_theta": 10000.0, "max_position_embeddings": sequence,
        "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1,
    });
    let fields = |value: &serde_json::Value| value.as_object().expect("an object was written").clone();
    json.as_object_mut().expect("an object was written").extend(fields(&family));
    ModelConfig::from_value(json).expect("the shape is valid").config
}

/// A field of `/proc/self/status` in KiB.
fn status_kib(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// The processor seconds of this process so far.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|v| v.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let name = arguments.first().map_or("S", String::as_str);
    let number = |i: usize, otherwise: usize| arguments.get(i).and_then(|v| v.parse().ok()).unwrap_or(otherwise);
    let (threads, steps) = (number(1, 2), number(2, 5));
    let recompute = arguments.iter().any(|a| a == "recompute");
    let precision = if arguments.iter().any(|a| a == "bf16") { Precision::Bf16 } else { Precision::F32 };

    let config = config(name);
    let sequence = config.max_position_embeddings;
    let device = Device::open("cpu", threads).expect("the system gives threads");
    let mut model = Transformer::random(&device, &config, &Placement::single(), 1).expect("the family is implemented");
    model = model.with_precision(&device, precision);
    let zeros = |p: &Param| Tensor::zeros(&device, p.shape().dims());
    let mut state: Vec<_> = model.params().into_iter().map(|p| (master(&device, p), zeros(p), zeros(p))).collect();
    let mut gradients = Gradients::default();
    let mut seconds = Vec::new();
    let mut share = (0.0, 0.0);
    for step in 0..=steps {
        let mut stream = draw(1, Domain::Data, &[step as u64]);
        let ids: Vec<u32> = (0..4096).map(|_| stream.below(config.vocab_size as u64) as u32).collect();
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let rows: Vec<&[u32]> = ids.chunks(sequence).collect();
        let batch = Batch::packed(&device, &rows);
        let counts = vec![1.0; batch.rows()];
        let targets = Targets::next_tokens(&device, &batch, &counts, Targets::count(&batch, &counts));
        let pass = Pass::recording(&device).with_recompute(recompute);
        let factors = LossWeights { mtp: 0.0, balance: 0.0 };
        let loss = model.loss(pass, &batch, &targets, factors).expect("the batch fits").0.total;
        gradients.clear(&device);
        backward(&device, &loss, &mut gradients).expect("the loss was recorded");
        drop(loss);
        let settings = AdamW { lr: 3e-4, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, grad_scale: 1.0 };
        for (param, (master, m, v)) in model.params_mut().into_iter().zip(&mut state) {
            if let Some(gradient) = gradients.get(param).cloned() {
                let update = Update { param, master: master.as_mut(), gradient };
                adamw_step(&device, update, (m, v), &settings, step as u64 + 1);
            }
        }
        if step > 0 {
            seconds.push(start.elapsed().as_secs_f64());
            share = (share.0 + cpu_seconds() - cpu, share.1 + start.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    println!(
        "{}",
        serde_json::json!({
            "shape": name, "precision": precision.name(), "threads": threads, "recompute": recompute, "step_s": median,
            "tokens_per_s": 4096.0 / median, "cpu_share": share.0 / share.1 / threads as f64,
            "peak_rss_mb": status_kib("VmHWM") / 1024,
        })
    );
}
