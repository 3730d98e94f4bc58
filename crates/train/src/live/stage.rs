//! A stage of a run that is watched: its logs, its scores, how far it is.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use minke_eval::Interval;
use serde::Serialize;
use serde_json::Value;

use super::follow::Follower;
use super::rollouts::Index;
use super::table::Table;
use super::{Amiss, Growth, Known, Series};
use crate::grpo::Tally;
use crate::{Error, Result, metric, report, scores};

/// Steps whose mean time says how long the rest will take.
const TIMED: usize = 20;
/// Seconds without a new line, and how many times the time of a step, after which a stage is no longer called running.
const QUIET_S: f64 = 60.0;
const QUIET_STEPS: f64 = 5.0;

/// A stage and what was read of it.
pub(super) struct Stage {
    name: String,
    kind: String,
    /// How many steps it has, where its settings say so.
    total: Option<u64>,
    format_is_rewarded: bool,
    folder: PathBuf,
    metrics: (Follower, Table),
    timings: (Follower, Table),
    rollouts_file: Follower,
    pub rollouts: Index,
    /// Lines of the metrics that the tally has seen, of which reading of the file.
    tallied: (u64, usize),
    tally: Tally,
    /// When `eval.json` was written, and what it says.
    scores: (Option<SystemTime>, Vec<Score>, Option<String>),
    finished: bool,
}

/// Where a stage stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StageState {
    /// It has not begun.
    Waiting,
    /// Lines come.
    Running,
    /// No line has come for much longer than a step takes: the run was ended, or waits.
    Quiet,
    /// It is finished.
    Finished,
}

/// A stage and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageReading {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Where it stands.
    pub state: StageState,
    /// Steps done.
    pub steps: u64,
    /// Steps of the stage, if that is known.
    pub total: Option<u64>,
    /// Seconds of all steps.
    pub seconds: f64,
    /// Mean seconds of the last steps.
    pub step_seconds: Option<f64>,
    /// Seconds until its end at that speed.
    pub left_seconds: Option<f64>,
    /// Seconds since its files were written to.
    pub quiet_seconds: Option<f64>,
    /// The newest line of metrics.
    pub newest: Value,
    /// See [`Known`].
    pub generation: u64,
    /// Lines of `metrics.jsonl`.
    pub metrics: usize,
    /// Lines of `timings.jsonl`.
    pub timings: usize,
    /// Groups and rollouts that can be read.
    pub groups: usize,
    /// See [`groups`](Self::groups).
    pub rollouts: usize,
    /// Share of `rollouts.jsonl` that was read.
    pub read: f64,
    /// Why the reward may not rise, of reinforcement learning.
    pub amiss: Vec<Amiss>,
    /// Held-out scores.
    pub scores: Vec<Score>,
    /// What cannot be read, a sentence for each file.
    pub broken: Vec<String>,
}

/// A held-out score of a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Name of the task.
    pub task: String,
    /// The side of the task that its problems are on.
    pub side: &'static str,
    /// How the model was asked.
    pub mode: String,
    /// Problems that were scored.
    pub problems: usize,
    /// Share of right answers, with its interval over problems.
    pub pass_at_1: Interval,
    /// The share that a blind search solves with as many attempts, if there is something to search.
    pub blind: Option<f64>,
    /// The largest k, and the chance that one of k answers is right.
    pub pass_at_k: Option<(usize, f64)>,
    /// Mean length of an answer in tokens.
    pub mean_tokens: Option<f64>,
    /// Share of answers that were cut off.
    pub truncated: Option<f64>,
}

impl Stage {
    /// A stage as its settings in `run.json` describe it.
    pub fn new(run: &Path, config: &Value) -> Self {
        let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
        let name = text("name");
        let folder = run.join("stages").join(&name);
        let log = |file: &str| Follower::new(folder.join(file));
        let number = |key: &str| config[key].as_u64();
        let asked = || Some(number("questions")?.div_ceil(number("questions_per_step").filter(|count| *count > 0)?));
        let format_is_rewarded = config["rewards"]["format"].as_f64().is_some_and(|weight| weight > 0.0);
        Self {
            kind: text("kind"),
            total: number("steps").or_else(asked),
            format_is_rewarded,
            metrics: (log("metrics.jsonl"), Table::default()),
            timings: (log("timings.jsonl"), Table::default()),
            rollouts_file: log("rollouts.jsonl"),
            rollouts: Index::default(),
            tallied: (0, 0),
            tally: Tally::default(),
            scores: (None, Vec::new(), None),
            finished: false,
            name,
            folder,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn rollouts_path(&self) -> PathBuf {
        self.rollouts_file.path().to_owned()
    }

    /// Whether it is the same stage with the same settings that matter here.
    pub fn is_as(&self, other: &Self) -> bool {
        let of = |stage: &Self| (stage.name.clone(), stage.kind.clone(), stage.total, stage.format_is_rewarded);
        of(self) == of(other)
    }

    /// Takes in what is new.
    pub fn poll(&mut self, most: u64) -> Result<Growth> {
        let mut growth = Growth::default();
        let mut take = |polled: std::io::Result<Growth>, file: &Follower| {
            growth.add(polled.map_err(Error::read(file.path()))?);
            Ok::<(), Error>(())
        };
        take(self.metrics.0.poll(most, &mut self.metrics.1), &self.metrics.0)?;
        take(self.timings.0.poll(most, &mut self.timings.1), &self.timings.0)?;
        take(self.rollouts_file.poll(most, &mut self.rollouts), &self.rollouts_file)?;
        self.count();
        growth.changed |= self.read_scores();
        let finished = self.folder.join("done.json").is_file();
        growth.changed |= std::mem::replace(&mut self.finished, finished) != finished;
        Ok(growth)
    }

    /// Brings the tally of reasons up to date.
    fn count(&mut self) {
        let table = &self.metrics.1;
        if self.kind != "grpo" {
            return;
        }
        if self.tallied.0 != table.restarts {
            (self.tallied, self.tally) = ((table.restarts, 0), Tally::default());
        }
        for line in self.tallied.1..table.len() {
            self.tally.step(table.step(line), |name| table.number(line, name), self.format_is_rewarded);
        }
        self.tallied.1 = table.len();
    }

    /// Reads `eval.json` if it changed; whether it did.
    fn read_scores(&mut self) -> bool {
        let written = std::fs::metadata(self.folder.join(scores::FILE)).and_then(|data| data.modified()).ok();
        if written == self.scores.0 {
            return false;
        }
        let (scores, broken) = match scores::read(&self.folder) {
            Ok(reports) => (reports, None),
            Err(error) => (Vec::new(), Some(scores::reason(&error))),
        };
        let score = |report: minke_eval::TaskReport| Score {
            side: report.side.name(),
            mode: report::mode(&report),
            problems: report.problems,
            pass_at_1: report.pass_at_1,
            blind: report.search.map(|search| search.blind),
            pass_at_k: report.pass_at_k.last().copied().filter(|(k, _)| *k > 1),
            mean_tokens: report.mean_tokens,
            truncated: report.truncated,
            task: report.task,
        };
        self.scores = (written, scores.into_iter().map(score).collect(), broken);
        true
    }

    /// The lines that somebody does not have yet.
    pub fn series(&self, known: Known) -> Series {
        let generation = self.generation();
        let known = if known.generation == generation { known } else { Known::default() };
        Series {
            generation,
            metrics: self.metrics.1.lines(known.metrics),
            timings: self.timings.1.lines(known.timings),
        }
    }

    fn generation(&self) -> u64 {
        self.metrics.1.restarts + self.timings.1.restarts + self.rollouts.restarts
    }

    /// What it is and how far it is.
    pub fn reading(&self) -> StageReading {
        let (metrics, timings) = (&self.metrics.1, &self.timings.1);
        let times: Vec<f64> = timings.newest_of(metric::STEP_TIME).take(TIMED).map(f64::from).collect();
        let step_seconds = (!times.is_empty()).then(|| times.iter().sum::<f64>() / times.len() as f64);
        let steps = metrics.steps_done();
        let written =
            [&self.metrics.0, &self.timings.0, &self.rollouts_file].into_iter().filter_map(Follower::modified);
        let since = |time: SystemTime| SystemTime::now().duration_since(time).map_or(0.0, |since| since.as_secs_f64());
        let quiet_seconds = written.max().map(since);
        let quiet_at = QUIET_S.max(QUIET_STEPS * step_seconds.unwrap_or(0.0));
        let state = match quiet_seconds {
            _ if self.finished => StageState::Finished,
            None => StageState::Waiting,
            Some(quiet) if quiet > quiet_at => StageState::Quiet,
            Some(_) => StageState::Running,
        };
        // Steps may be repeated after values that were not finite.
        let left = |total: u64| Some(total.saturating_sub(steps) as f64 * step_seconds?);
        let (groups, rollouts) = self.rollouts.len();
        let (read, length) = self.rollouts_file.progress();
        let damaged = [
            ("metrics.jsonl", metrics.damaged),
            ("timings.jsonl", timings.damaged),
            ("rollouts.jsonl", self.rollouts.damaged),
        ];
        let named = damaged.into_iter().filter_map(|(file, damaged)| Some((file, damaged?)));
        let broken = named.map(|(file, (count, first))| {
            format!("{file}: lines that are damaged and left out: {count}, the first is line {first}")
        });
        StageReading {
            name: self.name.clone(),
            kind: self.kind.clone(),
            state,
            steps,
            total: if self.finished { Some(steps) } else { self.total },
            seconds: timings.sum(metric::STEP_TIME),
            step_seconds,
            left_seconds: self.total.filter(|_| state == StageState::Running).and_then(left),
            quiet_seconds,
            newest: metrics.newest.clone().map_or(Value::Null, Value::Object),
            generation: self.generation(),
            metrics: metrics.len(),
            timings: timings.len(),
            groups,
            rollouts,
            read: if length == 0 { 1.0 } else { read as f64 / length as f64 },
            amiss: self.tally.findings().map(Amiss::from).collect(),
            scores: self.scores.1.clone(),
            broken: broken.chain(self.scores.2.clone()).collect(),
        }
    }
}
