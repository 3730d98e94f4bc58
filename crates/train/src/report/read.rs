//! The files of a run's folder, as far as they go: a stage that has not begun is empty, and a last line that is still being
//! written is left out. What is broken is named.

use std::path::Path;

use minke_eval::{TaskReport, Transcript, Verdict};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::grpo::GroupRecord;
use crate::{Error, Result, metric, scores};

/// Rollouts shown of one step, of each verdict.
const SHOWN: usize = 3;

/// A run as its files tell it.
pub struct RunFiles {
    /// `run.json`.
    pub run: Value,
    /// The stages in the order of the run.
    pub stages: Vec<StageFiles>,
}

/// A stage as its files tell it.
#[derive(Default)]
pub struct StageFiles {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// `metrics.jsonl`.
    pub metrics: Vec<Value>,
    /// `timings.jsonl`.
    pub timings: Vec<Value>,
    /// `eval.json`.
    pub scores: Vec<TaskReport>,
    /// Rollouts to read: where they come from, and they themselves.
    pub transcripts: Vec<(String, Vec<Transcript>)>,
    /// Whether the format of answers is rewarded.
    pub format_is_rewarded: bool,
    /// What cannot be read, one sentence for each file.
    pub broken: Vec<String>,
}

impl StageFiles {
    /// A metric over steps.
    pub fn curve(&self, name: &str) -> Vec<(f64, f64)> {
        self.metrics.iter().filter_map(|line| Some((line[metric::STEP].as_f64()?, line[name].as_f64()?))).collect()
    }

    /// The names of all metrics that begin like this, in order.
    pub fn metric_names(&self, prefix: &str) -> Vec<String> {
        let keys = self.metrics.iter().filter_map(Value::as_object).flat_map(|line| line.keys());
        let names: std::collections::BTreeSet<&String> = keys.filter(|key| key.starts_with(prefix)).collect();
        names.into_iter().cloned().collect()
    }
}

/// What the folder of a run says.
///
/// # Errors
/// If it holds no `run.json`, or that is broken.
pub fn run(folder: &Path) -> Result<RunFiles> {
    let path = folder.join("run.json");
    let text = std::fs::read_to_string(&path).map_err(Error::read(&path))?;
    let run: Value = serde_json::from_str(&text)
        .map_err(|error| Error::BadFile { path, reason: format!("not the record of a run: {error}") })?;
    let listed = run["config"]["stage"].as_array().cloned().unwrap_or_default();
    let stages = listed.iter().map(|stage| read_stage(folder, stage)).collect();
    Ok(RunFiles { run, stages })
}

fn read_stage(folder: &Path, config: &Value) -> StageFiles {
    let text = |key: &str| config[key].as_str().unwrap_or_default().to_string();
    let name = text("name");
    let folder = folder.join("stages").join(&name);
    let mut broken = Vec::new();
    let scores = scores::read(&folder).unwrap_or_else(|error| {
        broken.push(scores::reason(&error));
        Vec::new()
    });
    let metrics = lines(&folder, "metrics.jsonl", &mut broken);
    let timings = lines(&folder, "timings.jsonl", &mut broken);
    let mut transcripts = rollouts_to_read(&lines(&folder, "rollouts.jsonl", &mut broken));
    let held_out = scores.iter().filter(|report| !report.transcripts.is_empty());
    transcripts.extend(held_out.map(|report| (format!("held-out {}", report.task), report.transcripts.clone())));
    let format_is_rewarded = config["rewards"]["format"].as_f64().is_some_and(|weight| weight > 0.0);
    StageFiles { kind: text("kind"), name, metrics, timings, scores, transcripts, format_is_rewarded, broken }
}

/// The lines of a log; none if there is no such file. A last line without its end is still being written.
fn lines<T: DeserializeOwned>(folder: &Path, file: &str, broken: &mut Vec<String>) -> Vec<T> {
    let text = match std::fs::read_to_string(folder.join(file)) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                broken.push(format!("{file}: {error}"));
            }
            return Vec::new();
        }
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut bad = Vec::new();
    let line = |(i, line)| serde_json::from_str(line).map_err(|_| bad.push(i + 1)).ok();
    let lines = whole.lines().enumerate().filter_map(line).collect();
    if let [first, ..] = bad[..] {
        broken.push(format!("{file}: lines that are damaged and left out: {}, the first is line {first}", bad.len()));
    }
    lines
}

/// Rollouts of the first and the last step, right ones and wrong ones.
fn rollouts_to_read(groups: &[GroupRecord]) -> Vec<(String, Vec<Transcript>)> {
    let (Some(first), Some(last)) = (groups.first(), groups.last()) else { return Vec::new() };
    let mut steps = vec![first.step, last.step];
    steps.dedup();
    let pick = |step: u64| {
        let mut picked = Vec::new();
        for verdict in [Verdict::Right, Verdict::Wrong] {
            // One of each group, so that several questions are seen.
            let of_step = groups.iter().filter(|group| group.step == step);
            let matching = of_step.filter_map(|group| {
                let rollout = group.rollouts.iter().find(|rollout| rollout.verdict == verdict)?;
                let (question, text) = (group.question.clone(), rollout.text.clone());
                Some(Transcript { question, text, verdict, tokens: Some(rollout.tokens) })
            });
            picked.extend(matching.take(SHOWN));
        }
        (format!("step {step}"), picked)
    };
    steps.into_iter().map(pick).collect()
}
