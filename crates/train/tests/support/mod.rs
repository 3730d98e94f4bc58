//! A run that is small enough for a test and has everything: MLA, experts, multi-token prediction, every kind of stage.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::BTreeMap;
use std::path::Path;

use minke_tensor::{Comm, Device};
use minke_train::{Ranks, RunConfig};

pub fn device() -> Device {
    Device::open("cpu", 2).unwrap()
}

/// The run and its model, without tasks and stages.
pub const HEAD: &str = r#"
name = "test"
seed = 7
[tokenizer]
vocab_size = 320
documents = 500
[model]
model_type = "deepseek_v3"
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 64
max_position_embeddings = 256
q_lora_rank = 16
kv_lora_rank = 16
qk_nope_head_dim = 8
qk_rope_head_dim = 8
v_head_dim = 16
n_routed_experts = 4
n_shared_experts = 1
num_experts_per_tok = 2
moe_intermediate_size = 16
first_k_dense_replace = 1
n_group = 1
topk_group = 1
norm_topk_prob = true
routed_scaling_factor = 1.0
num_nextn_predict_layers = 1
"#;

/// Two tasks.
pub const TASKS: &str = r#"
[[task]]
name = "countdown"
family = "countdown"
[[task]]
name = "sums"
family = "arithmetic"
"#;

/// A student for distillation.
pub const STUDENT: &str = r#"
[stage.model]
model_type = "qwen2"
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
intermediate_size = 32
max_position_embeddings = 256
"#;

pub fn run(stages: &str) -> RunConfig {
    RunConfig::from_toml(&format!("{HEAD}{TASKS}{stages}")).unwrap()
}

/// The same run in bf16.
pub fn run_in_bf16(stages: &str) -> RunConfig {
    RunConfig::from_toml(&format!("precision = \"bf16\"\n{HEAD}{TASKS}{stages}")).unwrap()
}

/// Every file that the seed determines, by its path in the folder.
pub fn determined(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![out.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(out).unwrap().to_string_lossy().into_owned();
            // Seconds differ, and with them the lengths that `state.json` has of their log.
            let of_machine = ["timings.jsonl", "state.json", "SHA256SUMS", "run.json", ".lock"];
            if path.is_dir() {
                folders.push(path);
            } else if !of_machine.iter().any(|end| name.ends_with(end)) {
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// Fails with the first file that differs.
pub fn assert_same(ours: &BTreeMap<String, Vec<u8>>, theirs: &BTreeMap<String, Vec<u8>>) {
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(ours), names(theirs));
    let different: Vec<&String> = ours.keys().filter(|name| ours[*name] != theirs[*name]).collect();
    assert!(different.is_empty(), "these files differ: {different:?}");
}

/// The values of a metric, line by line.
pub fn metric(out: &Path, stage: &str, name: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(out.join("stages").join(stage).join("metrics.jsonl")).unwrap();
    let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()[name].as_f64();
    text.lines().filter_map(line).collect()
}

/// Does the same work as so many ranks, each a thread with a device of its own, in `stages` stages within which `experts` share
/// out the experts; returns what each found.
pub fn on_ranks<T: Send>([count, experts, stages]: [usize; 3], work: impl Fn(Ranks, &Device) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let start = |comm| {
            scope.spawn(|| work(Ranks::sharing(comm, experts, stages).unwrap(), &Device::open("cpu", 1).unwrap()))
        };
        let threads: Vec<_> = Comm::threads(count).into_iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
