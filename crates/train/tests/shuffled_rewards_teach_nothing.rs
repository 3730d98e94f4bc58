//! The control: with rewards dealt out anew within each group, advantages do not depend on the answers.
#![allow(clippy::unwrap_used)]

mod small;

use minke_train::grpo::GroupRecord;

/// The mean advantage of right answers, over groups that were learned from, and how many those are.
fn advantage_of_right_answers(shuffle: bool) -> (f64, usize) {
    let run = small::run(&format!(
        r#"
        [[stage]]
        kind = "grpo"
        name = "zero"
        from = "base"
        steps = 3
        questions_per_step = 40
        group_size = 8
        max_tokens = [[0, 48]]
        learning_rate = {{ adamw = 1e-9 }}
        kl_beta = 0.0
        shuffle_rewards = {shuffle}
        engine = {{ max_sequences = 64, cache_tokens = 8192 }}
        "#
    ));
    let text = std::fs::read_to_string(small::stage(run.path(), "zero").join("rollouts.jsonl")).unwrap();
    let groups: Vec<GroupRecord> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(groups.len(), 120);
    let learned = groups.iter().filter(|group| group.rollouts.iter().any(|rollout| rollout.advantage != 0.0));
    let right: Vec<f64> = learned
        .flat_map(|group| &group.rollouts)
        .filter(|rollout| rollout.verdict == minke_eval::Verdict::Right)
        .map(|rollout| f64::from(rollout.advantage))
        .collect();
    (right.iter().sum::<f64>() / right.len() as f64, right.len())
}

#[test]
fn advantages_of_right_answers_vanish() {
    let (with_signal, n) = advantage_of_right_answers(false);
    assert!(n >= 40, "only {n} right answers: the base is too weak for this test");
    assert!(with_signal > 0.8, "{with_signal}");
    let (shuffled, n) = advantage_of_right_answers(true);
    // Independent draws of deviation about 1: four standard errors.
    assert!(shuffled.abs() < 4.0 / (n as f64).sqrt(), "{shuffled} over {n} right answers");
}
