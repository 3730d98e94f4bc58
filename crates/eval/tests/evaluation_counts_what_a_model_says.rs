//! Reports on a model whose every probability is known: its next token depends on the last one alone, because its
//! layers add nothing to the embedding.
#![allow(clippy::unwrap_used)]

use minke_engine::{EngineConfig, Replicas};
use minke_eval::metrics::pass_at_k;
use minke_eval::tasks::Arithmetic;
use minke_eval::{EvalConfig, Evaluator, Problem, Task, TaskReport, Verdict};
use minke_model::Transformer;
use minke_spec::{ModelConfig, Placement};
use minke_tensor::{Device, Tensor};
use minke_text::{ASSISTANT, ChatTemplate, EOS, THINK_CLOSE, THINK_OPEN, Tokenizer, TrainOptions};

/// What follows a token, with which probability. Three quarters think for one token, `a`; the answer is 7 or 8.
const NEXT: [(&str, &[(&str, f32)]); 7] = [
    (ASSISTANT, &[(THINK_OPEN, 0.75), ("7", 0.25)]),
    (THINK_OPEN, &[("a", 1.0)]),
    ("\n", &[("a", 1.0)]),
    ("a", &[(THINK_CLOSE, 1.0)]),
    (THINK_CLOSE, &[("7", 0.6), ("8", 0.4)]),
    ("7", &[(EOS, 1.0)]),
    ("8", &[(EOS, 1.0)]),
];
const SEVEN: f64 = 0.25 + 0.75 * 0.6;

struct World {
    device: Device,
    tokenizer: Tokenizer,
    model: Transformer,
    task: Task,
    /// Problems whose answer is 7, is 8, is something else: that many of each.
    problems: Vec<Problem>,
}

const SEVENS: usize = 30;
const EIGHTS: usize = 20;
const OTHERS: usize = 10;

fn world() -> World {
    let device = Device::open("cpu", 2).unwrap();
    let options = TrainOptions { vocab_size: 263, added_tokens: Vec::new() };
    let tokenizer = Tokenizer::train(["compute"].iter(), &options).unwrap();
    let id = |token: &str| match *tokenizer.encode(token) {
        [id] => id as usize,
        ref ids => panic!("{token:?} is {ids:?}, not one token"),
    };
    let width = 264;
    let config = format!(
        r#"{{"model_type": "llama", "vocab_size": {width}, "hidden_size": {width}, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 8, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 128, "rope_theta": 10000.0, "tie_word_embeddings": false, "hidden_act": "silu"}}"#
    );
    let config = ModelConfig::from_json(&config).unwrap().config;
    let model = Transformer::new::<_, minke_model::Error>(&config, &Placement::single(), |spec, shape| {
        let mut values = vec![0.0; shape.iter().product()];
        match spec.name.as_str() {
            "model.embed_tokens.weight" => (0..width).for_each(|i| values[i * width + i] = 1.0),
            "lm_head.weight" => {
                // The norm makes the one of the embedding the square root of the width.
                let scale = 1.0 / (width as f32).sqrt();
                for (token, followers) in NEXT {
                    for (next, p) in followers {
                        values[id(next) * width + id(token)] = (30.0 + p.ln()) * scale;
                    }
                }
            }
            name if name.ends_with("norm.weight") => values.fill(1.0),
            _ => {}
        }
        Ok(Tensor::from_slice(&device, shape, &values))
    })
    .unwrap();

    let task = Task::Arithmetic(Arithmetic { operations: (1, 2), largest_operand: 20, largest_value: 99 });
    let all: Vec<Problem> = task.test_set(1, 2000);
    let with = |answers: &[&str], count: usize| {
        let is = |problem: &&Problem, answer: &str| task.grade(problem, answer) == Verdict::Right;
        let chosen = |problem: &&Problem| match answers {
            [answer] => is(problem, answer),
            _ => !is(problem, "7") && !is(problem, "8"),
        };
        let found: Vec<Problem> = all.iter().filter(chosen).take(count).cloned().collect();
        assert_eq!(found.len(), count);
        found
    };
    let problems = [with(&["7"], SEVENS), with(&["8"], EIGHTS), with(&[], OTHERS)].concat();
    World { device, tokenizer, model, task, problems }
}

impl World {
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
        assert_eq!(told.0, told.1);
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
    assert_likely(report.attempts, 0.75, answers);
    assert_eq!(report.truncated, 0.0);
    // A thought of one token, four with tags and answer, five with the end; two without a thought.
    assert_likely((report.mean_tokens - 2.0) / 3.0, 0.75, answers);
    assert_eq!((report.thought_tokens_right, report.thought_tokens_wrong), (Some(1.0), Some(1.0)));
    let wrong_thoughts = (SEVENS as f64 * 0.4 + EIGHTS as f64 * 0.6 + OTHERS as f64) / n as f64;
    assert_likely(report.false_claims.unwrap(), wrong_thoughts, (0.75 * answers as f64) as usize);

    assert!(report.transcripts.iter().any(|t| t.verdict == Verdict::Right));
    for transcript in &report.transcripts {
        let problem = world.problems.iter().find(|problem| problem.question == transcript.question).unwrap();
        let answer = transcript.text.rsplit('>').next().unwrap();
        assert_eq!(world.task.grade(problem, answer), transcript.verdict, "{transcript:?}");
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
        let (consensus, single) = (report.cons_at_k.mean * n, report.pass_at_1.mean * n);
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
    assert_eq!((report.format_rate, report.mean_tokens, report.truncated), (1.0, 4.0, 0.0));
    assert_eq!((report.thought_tokens_right, report.thought_tokens_wrong), (Some(1.0), Some(1.0)));
    let report = world.evaluate(&world.problems, &EvalConfig { max_tokens: 2, ..forced }).unwrap();
    assert_eq!((report.pass_at_1.mean, report.truncated, report.format_rate), (0.0, 1.0, 0.0));
    // Under the cap only bare answers are whole, and those say 7.
    let report = world.evaluate(&world.problems, &EvalConfig { max_tokens: 2, ..CONFIG }).unwrap();
    assert_likely(report.truncated, 0.75, 16 * world.problems.len());
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
