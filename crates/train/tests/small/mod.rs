//! A run small enough for a test: an MLA + MoE model of 0.1M parameters on two-number Countdown.
#![allow(clippy::unwrap_used, dead_code)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use minke_tensor::Device;
use minke_train::{Observer, RunConfig, StepView, execute};
use serde_json::Value;

/// The beginning of a run: model, task, and a base that has seen enough to be right now and then.
pub const BASE: &str = r#"
name = "small"
seed = 5
[model]
model_type = "deepseek_v3"
hidden_size = 48
num_hidden_layers = 2
num_attention_heads = 3
num_key_value_heads = 3
intermediate_size = 96
moe_intermediate_size = 32
n_routed_experts = 4
n_shared_experts = 1
num_experts_per_tok = 2
n_group = 1
topk_group = 1
norm_topk_prob = true
routed_scaling_factor = 1.0
scoring_func = "sigmoid"
topk_method = "noaux_tc"
first_k_dense_replace = 1
q_lora_rank = 24
kv_lora_rank = 16
qk_nope_head_dim = 12
qk_rope_head_dim = 8
v_head_dim = 12
num_nextn_predict_layers = 0
max_position_embeddings = 192
rope_theta = 10000.0
rms_norm_eps = 1e-6
initializer_range = 0.05
tie_word_embeddings = false
[tokenizer]
vocab_size = 320
documents = 500
[[task]]
name = "make"
family = "countdown"
counts = [2]
largest_number = 9
smallest_target = 2
largest_target = 18
[[stage]]
kind = "pretrain"
name = "base"
steps = 120
mixture = [{ task = "make", styles = { bare = 0.3, noisy = 0.7 } }]
training = { batch_tokens = 1024, mtp_weight = 0.0, checkpoint_every = 1000 }
"#;

pub fn device() -> Device {
    Device::open("cpu", 2).unwrap()
}

/// Does a run: the base and the given stages. Returns its folder.
pub fn run(stages: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    execute(&config(stages), folder.path(), &device(), None, &mut Watch { stop: None }).unwrap();
    folder
}

pub fn config(stages: &str) -> RunConfig {
    RunConfig::from_toml(&format!("{BASE}{stages}")).unwrap()
}

/// Stops a run after so many steps of a stage.
pub struct Watch {
    pub stop: Option<(&'static str, u64)>,
}

impl Observer for Watch {
    fn step(&mut self, view: &StepView<'_>) -> ControlFlow<()> {
        match self.stop {
            Some((stage, step)) if stage == view.stage && step == view.step => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

pub fn stage(run: &Path, name: &str) -> PathBuf {
    run.join("stages").join(name)
}

/// The lines of a log.
pub fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
