//! Trains a tiny model on two-number Countdown, pre-training and then GRPO, and prints what each stage came to:
//! `cargo run --release --package minke --example train_tiny -- FOLDER`. Stopped and started again, it goes on.

use std::ops::ControlFlow;
use std::path::PathBuf;

use minke::train::{Observer, StepView, execute};
use minke::{Device, RunConfig};

const RUN: &str = r#"
name = "tiny"
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
[[stage]]
kind = "grpo"
name = "zero"
from = "base"
steps = 20
questions_per_step = 8
group_size = 8
max_tokens = [[0, 64]]
learning_rate = { adamw = 0.0005 }
"#;

struct Progress;

impl Observer for Progress {
    fn step(&mut self, view: &StepView<'_>) -> ControlFlow<()> {
        if view.step.is_multiple_of(20) {
            println!("{} {}/{}", view.stage, view.step, view.total);
        }
        ControlFlow::Continue(())
    }

    fn stage_finished(&mut self, stage: &str) {
        println!("{stage} is finished");
    }
}

fn main() -> minke::Result<()> {
    let folder: PathBuf = std::env::args().nth(1).unwrap_or_else(|| "out/tiny".into()).into();
    let device = Device::open("cpu", 2)?;
    execute(&RunConfig::from_toml(RUN)?, &folder, &device, None, &mut Progress)?;
    println!("the model: {}", folder.join("stages/zero/model").display());
    Ok(())
}
