//! Reports on a model whose every probability is known: its next token depends on the last one alone, because its
//! layers add nothing to the embedding.
#![allow(clippy::unwrap_used)]

mod world;

use minke_engine::{EngineConfig, Replicas};
use minke_eval::metrics::pass_at_k;
use minke_eval::{EvalConfig, Evaluator, Problem, TaskReport, Verdict};
use minke_text::ChatTemplate;
use world::{EIGHTS, OTHERS, SEVEN, SEVENS, World, world};

trait Evaluate {
    fn evaluate(&self, problems: &[Problem], config: &EvalConfig) -> minke_eval::Result<TaskReport>;
}

impl Evaluate for World {
    fn evaluate(&self, problems: &[Problem], config: &EvalConfig) -> minke_eval::Result<TaskReport> {
        let sizes = EngineConfig::default().with_pages(64).with_max_sequences(40).with_chunk_tokens(100);
        let sizes = sizes.exact();
        let mut engines = Replicas::new(&self.device, self.model.config(), &sizes).unwrap();
        let template = ChatTemplate::r1_unforced();
        let (model, tokenizer) = (&self.model, &self.tokenizer);
        let mut evaluator = Evaluator { engines: &mut engines, model, tokenizer, template: &template };
        let mut told = (0, 0);
        let report = evaluator.evaluate("sums", &self.task, problems, config, &mut |done, total| {
            assert!(told.0 <= done && done <= total && (told.1 == 0 || told.1 == total), "{done} of {total}");
            told = (done, total);
        });
        assert!(report.is_err() || told.0 == told.1, "{} of {}", told.0, told.1);
        report
    }
}

const CONFIG: EvalConfig = EvalConfig {
    samples: 16,
    temperature: 1.0,
    top_p: 1.0,
    max_tokens: 20,
    force_thought: false,
    greedy: true,
    seed: 3,
    shots: None,
};

/// Fails unless a share of `n` independent events is within four standard errors of its probability.
#[track_caller]
fn assert_likely(share: f64, probability: f64, n: usize) {
    let error = (probability * (1.0 - probability) / n as f64).sqrt();
    assert!((share - probability).abs() <= 4.0 * error, "{share} is not {probability} within {error}");
}

#[test]
fn scores_are_those_of_the_known_probabilities() {
    let world = world();
    let report = world.evaluate(&world.problems, &CONFIG).unwrap();
    let (n, answers) = (world.problems.len(), world.problems.len() * CONFIG.samples);
    assert_eq!((report.task.as_str(), report.problems, report.unusable), ("sums", n, 0));
    assert!(report.counts.iter().zip(&world.problems).all(|(count, p)| count.id == p.id && count.samples == 16));

    let right = |range: std::ops::Range<usize>| report.counts[range].iter().map(|c| c.right).sum::<usize>();
    let (sevens, eights) = (right(0..SEVENS), right(SEVENS..SEVENS + EIGHTS));
    assert_likely(sevens as f64 / (16 * SEVENS) as f64, SEVEN, 16 * SEVENS);
    assert_likely(eights as f64 / (16 * EIGHTS) as f64, 1.0 - SEVEN, 16 * EIGHTS);
    assert_eq!(right(SEVENS + EIGHTS..n), 0);
    let mean = (sevens + eights) as f64 / answers as f64;
    assert!((report.pass_at_1.mean - mean).abs() < 1e-12);
    assert!(report.pass_at_1.low < mean && mean < report.pass_at_1.high);
    for &(k, value) in &report.pass_at_k {
        let chances: f64 = report.counts.iter().map(|count| pass_at_k(16, count.right, k)).sum();
        assert!((value - chances / n as f64).abs() < 1e-12);
    }
    assert_eq!(report.pass_at_k.iter().map(|(k, _)| *k).collect::<Vec<_>>(), [1, 2, 4, 8, 16]);
    // Greedy says 7.
    let greedy = report.greedy.unwrap();
    assert!((greedy.mean - SEVENS as f64 / n as f64).abs() < 1e-12);

    assert_likely(report.format_rate, 0.75, answers);
    assert_likely(report.attempts.unwrap(), 0.75, answers);
    assert_eq!(report.truncated, Some(0.0));
    // A thought of one token, four with tags and answer, five with the end; two without a thought.
    assert_likely((report.mean_tokens.unwrap() - 2.0) / 3.0, 0.75, answers);
    assert_eq!((report.thought_tokens_right, report.thought_tokens_wrong), (Some(1.0), Some(1.0)));
    let wrong_thoughts = (SEVENS as f64 * 0.4 + EIGHTS as f64 * 0.6 + OTHERS as f64) / n as f64;
    assert_likely(report.false_claims.unwrap(), wrong_thoughts, (0.75 * answers as f64) as usize);

    assert!(report.transcripts.iter().any(|t| t.verdict == Verdict::Right));
    for transcript in &report.transcripts {
        let problem = world.problems.iter().find(|problem| problem.question == transcript.question).unwrap();
        let answer = transcript.text.rsplit('>').next().unwrap();
        assert_eq!(world.task.grade(problem, answer).unwrap(), transcript.verdict, "{transcript:?}");
    }
}

#[test]
fn a_report_is_a_function_of_the_seed() {
    let world = world();
    let report = world.evaluate(&world.problems, &CONFIG).unwrap();
    assert_eq!(report, world.evaluate(&world.problems, &CONFIG).unwrap());
    let other = world.evaluate(&world.problems, &EvalConfig { seed: 4, ..CONFIG }).unwrap();
    assert_ne!(report.counts, other.counts);
    // A problem is answered alike whatever stands beside it.
    let few = world.evaluate(&world.problems[5..9], &CONFIG).unwrap();
    assert_eq!(few.counts, report.counts[5..9]);
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<TaskReport>(&text).unwrap(), report);
}

#[test]
fn consensus_is_the_majoritys_answer() {
    let world = world();
    // Every answer is 7 or 8, so that the majority is known by the number of right ones; a tie goes to what was said first.
    for same in [0..SEVENS, SEVENS..SEVENS + EIGHTS] {
        let report = world.evaluate(&world.problems[same], &CONFIG).unwrap();
        let n = report.problems as f64;
        let with = |right: fn(usize) -> bool| report.counts.iter().filter(|count| right(count.right)).count() as f64;
        let (won, tied) = (with(|right| right > 8), with(|right| right == 8));
        let (consensus, single) = (report.cons_at_k.unwrap().mean * n, report.pass_at_1.mean * n);
        assert!((won - 1e-9..=won + tied + 1e-9).contains(&consensus), "{consensus}: {won} won and {tied} tied");
        // Where 7 is right the majority says it more often than a single answer, where 8 is right more rarely.
        assert!((consensus - single).abs() > 3.0, "{consensus} against {single}: this test cannot fail");
    }
}

#[test]
fn every_problem_has_draws_of_its_own() {
    let world = world();
    let report = world.evaluate(&world.problems, &CONFIG).unwrap();
    // The prompt does not matter to this model: problems with the same answer and the same draws would score alike.
    for same in [0..SEVENS, SEVENS..SEVENS + EIGHTS] {
        let scores: std::collections::BTreeSet<usize> = report.counts[same].iter().map(|count| count.right).collect();
        assert!(scores.len() >= 4, "problems share their draws: {scores:?}");
    }
    // And what a problem draws is its own wherever it stands.
    let mut turned = world.problems.clone();
    turned.reverse();
    let other = world.evaluate(&turned, &CONFIG).unwrap();
    assert!(other.counts.iter().rev().eq(&report.counts));
}

#[test]
fn a_forced_thought_is_thought_and_a_cap_cuts() {
    let world = world();
    let forced = EvalConfig { force_thought: true, ..CONFIG };
    let report = world.evaluate(&world.problems, &forced).unwrap();
    assert_eq!((report.format_rate, report.mean_tokens, report.truncated), (1.0, Some(4.0), Some(0.0)));
    assert_eq!((report.thought_tokens_right, report.thought_tokens_wrong), (Some(1.0), Some(1.0)));
    let report = world.evaluate(&world.problems, &EvalConfig { max_tokens: 2, ..forced }).unwrap();
    assert_eq!((report.pass_at_1.mean, report.truncated, report.format_rate), (0.0, Some(1.0), 0.0));
    // Under the cap only bare answers are whole, and those say 7.
    let report = world.evaluate(&world.problems, &EvalConfig { max_tokens: 2, ..CONFIG }).unwrap();
    assert_likely(report.truncated.unwrap(), 0.75, 16 * world.problems.len());
    assert_eq!(report.thought_tokens_right, None);
}

#[test]
fn gains_are_taken_problem_by_problem() {
    let world = world();
    let before = world.evaluate(&world.problems, &CONFIG).unwrap();
    let mut after = before.clone();
    after.counts.iter_mut().for_each(|count| count.right = (count.right + 4).min(16));
    let gain = after.gain_over(&before).unwrap();
    let gains = before.counts.iter().map(|count| (16 - count.right).min(4) as f64 / 16.0);
    assert!((gain.mean - gains.sum::<f64>() / before.problems as f64).abs() < 1e-12);
    // Far narrower than the scores themselves.
    assert!(gain.high - gain.low < 0.3 * (before.pass_at_1.high - before.pass_at_1.low));
    assert_eq!(before.gain_over(&world.evaluate(&world.problems[1..], &CONFIG).unwrap()), None);
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let world = world();
    for (problems, config) in [
        (&world.problems[..0], CONFIG),
        (&world.problems[..1], CONFIG),
        (&world.problems[..2], EvalConfig { samples: 0, ..CONFIG }),
        (&world.problems[..2], EvalConfig { top_p: 2.0, ..CONFIG }),
    ] {
        let error = world.evaluate(problems, &config).unwrap_err().to_string();
        assert!(error.lines().count() == 1 && error.len() > 20, "{error}");
    }
}
