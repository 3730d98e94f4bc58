//! A small model with experts that trains on a stream in which few tokens are most of the text.

use minke_model::{Batch, LossWeights, Targets, Transformer};
use minke_spec::draw::{Domain, draw};
use minke_spec::{ModelConfig, Placement};
use minke_tensor::{Device, Pass, backward};
use minke_train::Result;
use minke_train::optimizer::{LearningRates, OptimizerConfig};
use minke_train::trainer::Trainer;

/// Steps of a training.
pub const STEPS: u64 = 1000;
const EXPERTS: usize = 16;
const VOCABULARY: usize = 128;
const SEQUENCES: u64 = 8;
const LENGTH: usize = 64;
const RATES: LearningRates = LearningRates { muon: None, adamw: 2e-4 };

fn config() -> ModelConfig {
    let json = serde_json::json!({
        "model_type": "deepseek_v3", "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "q_lora_rank": 24, "kv_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
        "v_head_dim": 16, "intermediate_size": 96, "first_k_dense_replace": 1, "n_routed_experts": EXPERTS,
        "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_group": 1, "topk_group": 1,
        "norm_topk_prob": true, "routed_scaling_factor": 1.0, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
        "vocab_size": VOCABULARY, "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": LENGTH,
        "initializer_range": 0.05, "tie_word_embeddings": false, "num_nextn_predict_layers": 0,
    });
    ModelConfig::from_value(json).expect("the configuration is valid").config
}

/// The sequences of a step: half of the tokens repeat the one before the last, the others are drawn by Zipf's law,
/// so that every fifth is the most frequent one.
fn sequences(step: u64) -> Vec<Vec<u32>> {
    let weights: Vec<f64> = (1..=VOCABULARY).map(|rank| 1.0 / rank as f64).collect();
    let total: f64 = weights.iter().sum();
    let mut stream = draw(1, Domain::Data, &[step]);
    let mut sequence = || {
        let mut tokens: Vec<u32> = Vec::new();
        while tokens.len() < LENGTH {
            let mut left = stream.uniform() * total;
            let drawn = weights.iter().position(|weight| {
                left -= weight;
                left < 0.0
            });
            let drawn = drawn.unwrap_or(VOCABULARY - 1) as u32;
            let repeated = tokens.len().checked_sub(2).filter(|_| stream.chance(0.5));
            tokens.push(repeated.map_or(drawn, |place| tokens[place]));
        }
        tokens
    };
    (0..SEQUENCES).map(|_| sequence()).collect()
}

/// Trains on the stream, without a balance loss, with the bias moved by `gamma`, and returns for every step V3's maximal
/// violation: by how much the fullest expert exceeds the mean load, as a share of the mean.
pub fn violations(device: &Device, gamma: f32) -> Result<Vec<f64>> {
    let model = Transformer::random(device, &config(), &Placement::single(), 1)?;
    let mut trainer = Trainer::new(device, model, RATES, OptimizerConfig::default(), false);
    let mut found = Vec::new();
    for step in 0..STEPS {
        let rows = sequences(step);
        let batch = Batch::packed(device, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let counts = vec![1.0; batch.rows()];
        let targets = Targets::next_tokens(device, &batch, &counts, Targets::count(&batch, &counts));
        let factors = LossWeights { mtp: 0.0, balance: 0.0 };
        let (losses, output) = trainer.model.loss(Pass::recording(device), &batch, &targets, factors)?;
        backward(device, &losses.total, &mut trainer.gradients)?;
        trainer.apply(f64::from(losses.next), RATES)?;
        trainer.balance_experts(&output.loads, gamma);
        let load = &output.loads[0].tokens;
        let mean = load.iter().sum::<u64>() as f64 / load.len() as f64;
        found.push(load.iter().copied().max().unwrap_or(0) as f64 / mean - 1.0);
    }
    Ok(found)
}

/// The mean of the second half.
pub fn end(violations: &[f64]) -> f64 {
    let half = &violations[violations.len() / 2..];
    half.iter().sum::<f64>() / half.len() as f64
}
