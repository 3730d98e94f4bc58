//! The form in which lm-evaluation-harness leaves results, for the tools that read it: `results_*.json` and a
//! `samples_*.jsonl` of every task. What is mapped: shares of right answers as metrics with their standard error, numbers of
//! problems and examples, how the model was asked; of every problem its prompt, its answers, the votes that were read off them
//! (an empty text where none was) and the share of right ones. What that program knows and this one does not is left out:
//! versions of its tasks, its filters, dates, and the configuration of the model.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::tasks::Gold;
use crate::verify::code::{CodeProblem, Tests};
use crate::{Answer, Header, Interval, Problem, Prompt, TaskReport};

/// The metric of the share of right answers.
const PASS_AT_1: &str = "pass@1";

/// The contents of `results_*.json`.
pub fn results(header: &Header, report: &TaskReport) -> Value {
    let task = header.task.as_str();
    let mut scores = Map::new();
    scores.insert("alias".into(), task.into());
    let mut add = |metric: &str, value: f64, interval: Option<&Interval>| {
        scores.insert(format!("{metric},none"), value.into());
        let error = interval.map_or("N/A".into(), |interval| json!((interval.high - interval.mean) / Z));
        scores.insert(format!("{metric}_stderr,none"), error);
    };
    add(PASS_AT_1, report.pass_at_1.mean, Some(&report.pass_at_1));
    for (k, value) in report.pass_at_k.iter().filter(|(k, _)| *k > 1) {
        add(&format!("pass@{k}"), *value, None);
    }
    if let Some(consensus) = report.cons_at_k.as_ref().filter(|_| header.samples > 1) {
        add(&format!("cons@{}", header.samples), consensus.mean, Some(consensus));
    }
    let shots = header.config.as_ref().and_then(|config| config.shots).unwrap_or(0);
    json!({
        "results": { task: scores },
        "group_subtasks": { task: [] },
        "configs": { task: { "task": task, "num_fewshot": shots, "repeats": header.samples,
            "metadata": { "sha256": header.data }, "generation_kwargs": generation(header) } },
        "n-shot": { task: shots },
        "higher_is_better": { task: { PASS_AT_1: true } },
        "n-samples": { task: { "original": header.problems, "effective": report.problems } },
        "config": { "model": "minke", "model_args": header.model, "model_sha256": header.model_sha256 },
        "model_source": "minke",
        "model_name": header.model,
        "lm_eval_version": null,
    })
}

/// The lines of `samples_*.jsonl`, one of every problem. `answers` are in the order of the problems; there is a prompt for each
/// of those unless the answers were given.
pub fn samples(
    header: &Header,
    problems: &[Problem],
    prompts: Option<&[Prompt]>,
    answers: &[Answer],
) -> impl Iterator<Item = Value> {
    let per_problem = answers.chunks(header.samples.max(1));
    problems.iter().zip(per_problem).enumerate().map(move |(i, (problem, answers))| {
        let prompt =
            prompts.and_then(|prompts| prompts.get(i)).map_or(problem.question.as_str(), |prompt| &prompt.text);
        let target = match &problem.gold {
            Gold::Math(gold) => gold.clone(),
            Gold::Code(CodeProblem { tests: Tests::Check(code), entry_point, .. }) => {
                format!("{code}\ncheck({entry_point})")
            }
            Gold::Code(CodeProblem { tests: Tests::Asserts { setup, asserts }, .. }) => {
                format!("{setup}\n{}", asserts.join("\n"))
            }
            Gold::Countdown(_) | Gold::Arithmetic(_) | Gold::Programs(_) => String::new(),
        };
        let doc = json!({ "id": problem.name, "question": problem.question });
        let texts: Vec<&str> = answers.iter().map(|answer| answer.text.as_str()).collect();
        let votes: Vec<&str> = answers.iter().map(|answer| answer.vote.as_deref().unwrap_or_default()).collect();
        let right = answers.iter().filter(|answer| answer.is_right()).count();
        json!({
            "doc_id": i,
            "doc": doc,
            "target": target,
            "arguments": { "gen_args_0": { "arg_0": prompt, "arg_1": generation(header) } },
            "resps": [texts],
            "filtered_resps": votes,
            "filter": "none",
            "metrics": [PASS_AT_1],
            "doc_hash": sha256(&doc.to_string()),
            "prompt_hash": sha256(prompt),
            "target_hash": sha256(&target),
            PASS_AT_1: right as f64 / answers.len().max(1) as f64,
        })
    })
}

/// Half of a 95 % interval over its standard error.
const Z: f64 = 1.959_963_984_540_054;

fn generation(header: &Header) -> Value {
    header.config.as_ref().map_or(Value::Null, |config| {
        json!({ "do_sample": config.temperature > 0.0, "temperature": config.temperature, "top_p": config.top_p,
            "max_gen_toks": config.max_tokens })
    })
}

/// The hash of a text, in hexadecimal digits.
pub fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
