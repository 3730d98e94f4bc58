//! Rejection sampling keeps answers that the grader calls right, well formed, each once, few per question.
#![allow(clippy::unwrap_used)]

mod small;

use std::collections::HashMap;

use minke_eval::{Split, Verdict};
use minke_text::RepetitionRule;
use minke_train::data::read_examples;

#[test]
fn what_is_kept_is_right_well_formed_and_distinct() {
    let run = small::run(
        r#"
        [[stage]]
        kind = "reject"
        name = "kept"
        from = "base"
        questions = 100
        samples = 6
        keep = 2
        max_tokens = 48
        questions_per_step = 30
        prompt = "forced_thought"
        engine = { max_sequences = 64, cache_tokens = 8192 }
        "#,
    );
    let folder = small::stage(run.path(), "kept");
    let kept = read_examples(&folder.join("data.jsonl")).unwrap();
    assert!(kept.len() >= 10, "only {} answers were kept: the base is too weak for this test", kept.len());

    let task = &small::config("").tasks[0].task;
    let mut by_question: HashMap<&str, Vec<&str>> = HashMap::new();
    for example in &kept {
        // The question alone says which problem it is.
        let problem = minke_eval::tasks::Countdown::parse(&example.question).unwrap();
        let thought = minke_text::split("", &example.completion);
        assert_eq!(task.grade(&problem, &thought.content).unwrap(), Verdict::Right, "{example:?}");
        assert!(thought.format_ok, "{example:?}");
        by_question.entry(&example.question).or_default().push(&example.completion);
    }
    let held_out: Vec<u64> = task.problem_set(Split::Test, 1, 200).iter().map(|problem| problem.id).collect();
    assert!(kept.iter().all(|example| !held_out.contains(&example.id)), "a held-out problem was used");
    for completions in by_question.values_mut() {
        completions.sort_unstable();
        let before = completions.len();
        completions.dedup();
        assert_eq!(completions.len(), before, "kept twice: {completions:?}");
    }
    let metrics = small::lines(&folder.join("metrics.jsonl"));
    assert_eq!(metrics.len(), 4);
    let counted: u64 = metrics.iter().map(|line| line["kept"].as_u64().unwrap()).sum();
    assert_eq!(counted, kept.len() as u64);
}

#[test]
fn loops_are_found_whatever_stands_around_them() {
    let has_loop = |token_ids: &[u32]| RepetitionRule::TRAINING.matches(token_ids);
    let looping = [[5, 6, 7, 8].repeat(3), vec![9, 9]].concat();
    assert!(has_loop(&looping));
    assert!(has_loop(&[vec![1, 2], looping].concat()));
    assert!(!has_loop(&[5, 6, 7, 8].repeat(2)));
    // Short repetitions are what sums look like.
    assert!(!has_loop(&[1, 2, 1, 2, 1, 2]));
    assert!(!has_loop(&(0..60).collect::<Vec<u32>>()));
    assert!(!has_loop(&[]));
}
