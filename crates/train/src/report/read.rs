//! What does a run's folder say? Its files, read leniently: a stage that has not begun is empty, and of a line that is
//! half-written only the line is lost.

use std::path::Path;

use minke_eval::{TaskReport, Transcript, Verdict};
use serde_json::Value;

use crate::grpo::GroupRecord;
use crate::{Error, Result};

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
}

impl StageFiles {
    /// Returns a metric over steps.
    pub fn curve(&self, name: &str) -> Vec<(f64, f64)> {
        self.metrics.iter().filter_map(|line| Some((line["step"].as_f64()?, line[name].as_f64()?))).collect()
    }

    /// Returns the names of all metrics that begin like this, in order.
    pub fn metric_names(&self, prefix: &str) -> Vec<String> {
        let keys = self.metrics.iter().filter_map(Value::as_object).flat_map(|line| line.keys());
        let names: std::collections::BTreeSet<&String> = keys.filter(|key| key.starts_with(prefix)).collect();
        names.into_iter().cloned().collect()
    }
}

/// Returns what the folder of a run says.
///
/// # Errors
/// If it holds no `run.json`, or that is broken.
pub fn run(folder: &Path) -> Result<RunFiles> {
    let path = folder.join("run.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
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
    let scores: Vec<TaskReport> = std::fs::read_to_string(folder.join("eval.json"))
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let mut transcripts = rollouts_to_read(&folder);
    let held_out = scores.iter().filter(|report| !report.transcripts.is_empty());
    transcripts.extend(held_out.map(|report| (format!("held-out {}", report.task), report.transcripts.clone())));
    let (metrics, timings) = (lines(&folder.join("metrics.jsonl")), lines(&folder.join("timings.jsonl")));
    StageFiles { kind: text("kind"), name, metrics, timings, scores, transcripts }
}

/// Returns every whole line of a log.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Returns rollouts of the first and the last step, right ones and wrong ones.
fn rollouts_to_read(folder: &Path) -> Vec<(String, Vec<Transcript>)> {
    let text = std::fs::read_to_string(folder.join("rollouts.jsonl")).unwrap_or_default();
    let groups: Vec<GroupRecord> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
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
                Some(Transcript { question, text, verdict, tokens: rollout.tokens })
            });
            picked.extend(matching.take(SHOWN));
        }
        (format!("step {step}"), picked)
    };
    steps.into_iter().map(pick).collect()
}
