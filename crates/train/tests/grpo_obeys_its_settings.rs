//! Every setting of a GRPO stage reaches what it is about: seen in the logs and checkpoints of short stages.
#![allow(clippy::unwrap_used)]

mod small;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use minke_eval::Verdict;
use minke_train::grpo::GroupRecord;
use minke_train::{Silent, execute, metric};
use safetensors::SafeTensors;
use serde_json::Value;

/// Stages from the same base: one in which much is set, and one step at each of two temperatures.
const STAGES: &str = r#"
[[stage]]
kind = "grpo"
name = "zero"
from = "base"
steps = 3
questions_per_step = 24
group_size = 8
minibatches = 2
max_tokens = [[0, 12], [1, 48]]
learning_rate = { adamw = 1e-3 }
schedule = [{ from = 1.0, steps = 1 }, { from = 0.5, to = 0.5, steps = 1 }, { from = 0.0, to = 0.0 }]
rewards = { accuracy = 1.0, format = 0.25 }
kl_beta = 0.0
bias_gamma = 0.01
checkpoint_every = 1
[[stage]]
kind = "grpo"
name = "cool"
from = "base"
steps = 2
questions_per_step = 24
group_size = 8
max_tokens = [[0, 48]]
temperature = 0.6
learning_rate = { adamw = 1e-3 }
kl_beta = 0.05
reference_every = 1
[[stage]]
kind = "grpo"
name = "plain"
from = "base"
steps = 1
questions_per_step = 24
group_size = 8
max_tokens = [[0, 48]]
learning_rate = { adamw = 1e-3 }
kl_beta = 0.0
[[stage]]
kind = "grpo"
name = "again"
from = "base"
steps = 1
questions_per_step = 24
group_size = 4
max_tokens = [[0, 48]]
learning_rate = { adamw = 1e-3 }
kl_beta = 0.0
resample = 2
"#;

/// The folder of the run, made once for all tests; that of the last time goes.
static RUN: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("grpo_obeys_its_settings");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    execute(&small::config(STAGES), &folder, &small::device(), None, &mut Silent).unwrap();
    folder
});

fn metrics(stage: &str) -> Vec<Value> {
    small::lines(&small::stage(&RUN, stage).join("metrics.jsonl"))
}

fn groups(stage: &str, step: u64) -> Vec<GroupRecord> {
    let lines = small::lines(&small::stage(&RUN, stage).join("rollouts.jsonl"));
    let all = lines.into_iter().map(|line| serde_json::from_value::<GroupRecord>(line).unwrap());
    let of_step: Vec<GroupRecord> = all.filter(|group| group.step == step).collect();
    assert_eq!(of_step.len(), 24);
    of_step
}

/// The weights of a checkpoint of the stage `zero`, by name.
fn weights(step: u64) -> BTreeMap<String, Vec<f32>> {
    let folder = small::stage(&RUN, "zero").join(format!("checkpoints/step-{step:08}"));
    tensors(&folder.join("weights.safetensors"))
}

fn tensors(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(path).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    all.tensors().into_iter().map(|(name, view)| (name, values(view.data()))).collect()
}

const BIAS: &str = "e_score_correction_bias";

#[test]
fn advantages_are_relative_to_the_group() {
    let mut learned = 0;
    for group in groups("zero", 1) {
        let rewards: Vec<f64> = group.rollouts.iter().map(|rollout| f64::from(rollout.reward)).collect();
        let n = rewards.len() as f64;
        let mean = rewards.iter().sum::<f64>() / n;
        let deviation = (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        for rollout in &group.rollouts {
            let expected = if deviation == 0.0 { 0.0 } else { (f64::from(rollout.reward) - mean) / deviation };
            assert!((f64::from(rollout.advantage) - expected).abs() < 1e-5, "{expected}: {group:?}");
        }
        learned += usize::from(deviation > 0.0);
    }
    assert!(learned > 3, "{learned} groups have advantages: the base is too weak for this test");
}

#[test]
fn each_part_of_the_reward_has_its_own_weight() {
    let mut seen = [0; 4];
    for rollout in groups("zero", 1).iter().flat_map(|group| &group.rollouts) {
        let right = u8::from(rollout.verdict == Verdict::Right);
        assert_eq!(rollout.reward, f32::from(right) + 0.25 * f32::from(rollout.format), "{rollout:?}");
        seen[usize::from(2 * right + rollout.format)] += 1;
    }
    assert!(seen[1] > 0 && seen[2] > 0, "wrong in good form, and right without: {seen:?}");
}

#[test]
fn every_minibatch_is_an_update_from_groups_of_its_own() {
    for (step, line) in metrics("zero").iter().enumerate() {
        let groups = groups("zero", step as u64);
        let with_advantage: Vec<&GroupRecord> =
            groups.iter().filter(|group| group.rollouts.iter().any(|rollout| rollout.advantage != 0.0)).collect();
        let rollouts: usize = with_advantage.iter().map(|group| group.rollouts.len()).sum();
        assert!(with_advantage.len() > 1, "step {step} has one group to learn from");
        assert_eq!(line[metric::LEARNED].as_u64(), Some(rollouts as u64), "{line}");
    }
    let state = small::stage(&RUN, "zero").join("checkpoints/step-00000003/state.json");
    let state: Value = serde_json::from_str(&std::fs::read_to_string(state).unwrap()).unwrap();
    assert_eq!(state["updates"], 6, "two of every step");
}

#[test]
fn groups_without_advantages_make_room_for_others() {
    let lines = small::lines(&small::stage(&RUN, "again").join("rollouts.jsonl"));
    let groups: Vec<GroupRecord> = lines.into_iter().map(|line| serde_json::from_value(line).unwrap()).collect();
    let learned = groups.iter().filter(|group| group.rollouts.iter().any(|rollout| rollout.advantage != 0.0)).count();
    // Of 24 groups some were flat, and so were some of those that came in their place.
    let flat_at_first = groups[..24].iter().filter(|group| group.rollouts.iter().all(|r| r.advantage == 0.0)).count();
    assert!(flat_at_first > 0 && learned > 24 - flat_at_first && learned <= 24, "{flat_at_first}, {learned}");
    assert!(groups.len() > 24 && groups.len() <= 72);
    let line = &metrics("again")[0];
    assert_eq!(line[metric::GROUPS].as_u64(), Some(groups.len() as u64), "{line}");
    assert_eq!(line[metric::LEARNED].as_u64(), Some(4 * learned as u64), "{line}");
    assert_eq!(line[metric::RATIO_EXACT].as_f64(), Some(1.0), "{line}");
    let flat = (groups.len() - learned) as f64 / groups.len() as f64;
    assert!((line[metric::FRAC_REWARD_ZERO_STD].as_f64().unwrap() - flat).abs() < 1e-12, "{line}");
}

#[test]
fn later_caps_hold() {
    let longest = |step| groups("zero", step).iter().flat_map(|g| &g.rollouts).map(|r| r.tokens).max().unwrap();
    assert_eq!(longest(0), 12);
    assert!((13..=48).contains(&longest(1)) && (13..=48).contains(&longest(2)), "{} {}", longest(1), longest(2));
}

#[test]
fn the_schedule_reaches_the_optimizer() {
    let rates: Vec<f64> = metrics("zero").iter().map(|line| line[metric::LEARNING_RATE].as_f64().unwrap()).collect();
    assert_eq!(rates, [1e-3, 5e-4, 0.0]);
    // At the rate 0 nothing moves but the biases, which have a step size of their own.
    let (before, after) = (weights(2), weights(3));
    assert!(metrics("zero")[2][metric::GRAD_NORM].as_f64().unwrap() > 0.0);
    for (name, values) in &before {
        assert_eq!(values == &after[name], !name.ends_with(BIAS), "{name}");
    }
    // And before that everything moved, so that this test can fail.
    let start = tensors(&small::stage(&RUN, "base").join("model/model.safetensors"));
    assert!(start["model.norm.weight"] != before["model.norm.weight"]);
}

#[test]
fn biases_move_by_gamma() {
    let (before, after) = (weights(2), weights(3));
    let mut moved = 0;
    for (name, values) in before.iter().filter(|(name, _)| name.ends_with(BIAS)) {
        for (before, after) in values.iter().zip(&after[name]) {
            // Two updates, each by gamma, up or down, or not at all.
            let steps = f64::from(after - before) / 0.01;
            assert!((steps - steps.round()).abs() < 1e-3 && steps.abs() < 2.001, "{name} moved by {steps} gamma");
            moved += usize::from(steps.round() != 0.0);
        }
    }
    assert!(moved > 0, "no bias moved");
}

#[test]
fn rollouts_trainer_and_reference_have_the_temperature_of_the_stage() {
    for line in metrics("cool") {
        // Trainer and sampler at different temperatures would not agree on any token.
        assert_eq!(line[metric::RATIO_EXACT].as_f64(), Some(1.0), "{line}");
        // The reference is the policy itself in every step: at the same temperature there is no divergence.
        assert_eq!(line[metric::KL].as_f64(), Some(0.0), "{line}");
    }
    // The same policy on the same questions: colder draws are surer.
    let entropy = |stage: &str| metrics(stage)[0][metric::ENTROPY].as_f64().unwrap();
    assert!(entropy("cool") < 0.8 * entropy("plain"), "{} and {}", entropy("cool"), entropy("plain"));
}
