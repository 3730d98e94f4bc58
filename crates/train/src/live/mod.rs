//! A run that is watched while it goes on: what its folder says, kept up to date as the files grow.
//!
//! The JSONL files are the truth and nothing else is asked, so a run may be watched from its own process, from another one,
//! or when it is over, and what goes wrong here never reaches the run. [`LiveRun::poll`] takes in what was appended since the
//! last call; the other functions answer from memory, and read rollouts from their place in the file.

mod follow;
mod rollouts;
mod stage;
mod table;

use std::path::{Component, Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

pub use rollouts::{Brief, Found, FoundGroup, GroupAnswer, RolloutQuery};
pub use stage::{Score, StageReading, StageState};
pub use table::{Lines, Series};

use crate::grpo::Finding;
use crate::{Error, Result};
use stage::Stage;

/// Most bytes of a file that one call of [`LiveRun::poll`] takes in.
const POLLED_BYTES: u64 = 8 << 20;

/// The folder of a run, watched.
pub struct LiveRun {
    folder: PathBuf,
    state: RwLock<State>,
}

/// What is known of a run.
struct State {
    /// `run.json`.
    record: Value,
    /// When that file was written and how long it was.
    written: Option<(SystemTime, u64)>,
    stages: Vec<Stage>,
}

/// What a run is and how far it is.
#[derive(Clone, Debug, Serialize)]
pub struct RunReading {
    /// Its name.
    pub name: String,
    /// Seed, precision, commit and machine, as far as they are recorded.
    pub facts: Vec<(String, String)>,
    /// The stages in the order of the run.
    pub stages: Vec<StageReading>,
}

impl LiveRun {
    /// Begins to watch a folder. It may be one in which a run has yet to begin.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let state = State { record: Value::Null, written: None, stages: Vec::new() };
        Self { folder: folder.into(), state: RwLock::new(state) }
    }

    /// Takes in what was written since the last call, some megabytes of each file at most. `changed` says whether anything was
    /// new, `more` whether files are longer than what was read: then the next call should follow at once.
    ///
    /// # Errors
    /// If a file is there and cannot be read, or `run.json` is not the record of a run.
    pub fn poll(&self) -> Result<Growth> {
        let mut growth = Growth::default();
        let record = self.read_record()?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((record, written)) = record {
            let stages: Vec<Stage> = listed(&record).map(|config| Stage::new(&self.folder, config)).collect();
            // A run that goes on writes the same record again: what was read of its stages stays.
            let same =
                stages.len() == state.stages.len() && stages.iter().zip(&state.stages).all(|(new, old)| new.is_as(old));
            if !same {
                state.stages = stages;
            }
            state.record = record;
            state.written = Some(written);
            growth.changed = true;
        }
        for stage in &mut state.stages {
            growth.add(stage.poll(POLLED_BYTES)?);
        }
        Ok(growth)
    }

    /// What the run is, and how far it is.
    pub fn reading(&self) -> RunReading {
        self.with(|state| {
            let record = &state.record;
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let facts = [
                ("seed", &record["seed"]),
                ("precision", &record["config"]["precision"]),
                ("version", &record["version"]),
                ("commit", &record["commit"]),
                ("instructions", &record["machine"]["isa"]),
                ("threads", &record["machine"]["threads"]),
            ];
            let facts = facts.iter().filter(|(_, value)| !value.is_null());
            RunReading {
                name: record["name"].as_str().unwrap_or("run").to_owned(),
                facts: facts.map(|(name, value)| ((*name).to_owned(), text(value))).collect(),
                stages: state.stages.iter().map(Stage::reading).collect(),
            }
        })
    }

    /// The settings of the run, as `run.json` has them.
    pub fn config(&self) -> Value {
        self.with(|state| state.record["config"].clone())
    }

    /// The lines of a stage's metrics and timings behind those that are known already; none of no such stage.
    pub fn series(&self, stage: &str, known: Known) -> Option<Series> {
        self.with(|state| Some(find(state, stage)?.series(known)))
    }

    /// The rollouts of a stage that a query asks for; none of no such stage.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn rollouts(&self, stage: &str, query: &RolloutQuery) -> Result<Option<Found>> {
        // The file is read outside of the lock: a search keeps nobody waiting.
        let Some((search, path)) = self.with(|state| {
            let stage = find(state, stage)?;
            Some((stage.rollouts.search(query), stage.rollouts_path()))
        }) else {
            return Ok(None);
        };
        search.run(&path).map(Some).map_err(Error::read(&path))
    }

    /// A group of rollouts of a stage by its number in the file; none if there is none.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn group(&self, stage: &str, number: usize) -> Result<Option<GroupAnswer>> {
        let Some((place, path)) = self.with(|state| {
            let stage = find(state, stage)?;
            Some((stage.rollouts.place(number)?, stage.rollouts_path()))
        }) else {
            return Ok(None);
        };
        rollouts::read_group(&path, number, place).map(Some).map_err(Error::read(&path))
    }

    fn with<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// `run.json`, if it changed.
    fn read_record(&self) -> Result<Option<(Value, (SystemTime, u64))>> {
        let path = self.folder.join("run.json");
        let read = || {
            let data = std::fs::metadata(&path)?;
            let written = (data.modified()?, data.len());
            if self.with(|state| state.written) == Some(written) {
                return Ok(None);
            }
            Ok(Some((std::fs::read(&path)?, written)))
        };
        let read: std::io::Result<_> = read();
        let text = match read {
            // The run has not begun.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            other => other.map_err(Error::read(&path))?,
        };
        let Some((text, written)) = text else { return Ok(None) };
        let bad = |error| Error::BadFile { path: path.clone(), reason: format!("not the record of a run: {error}") };
        Ok(Some((serde_json::from_slice(&text).map_err(bad)?, written)))
    }
}

/// What a poll brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Whether anything was new.
    pub changed: bool,
    /// Whether there is more to read already.
    pub more: bool,
}

impl Growth {
    fn add(&mut self, other: Self) {
        self.changed |= other.changed;
        self.more |= other.more;
    }
}

/// How much of a stage's series somebody has already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Of which reading of the files; see [`Series::generation`].
    pub generation: u64,
    /// Lines of `metrics.jsonl`.
    pub metrics: usize,
    /// Lines of `timings.jsonl`.
    pub timings: usize,
}

/// The stages that a record lists. A name that is not one name within a folder leads elsewhere, and is passed over.
fn listed(record: &Value) -> impl Iterator<Item = &Value> {
    let is_name = |name: &str| {
        let mut parts = Path::new(name).components();
        matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
    };
    let stages = record["config"]["stage"].as_array().into_iter().flatten();
    stages.filter(move |stage| stage["name"].as_str().is_some_and(is_name))
}

fn find<'a>(state: &'a State, name: &str) -> Option<&'a Stage> {
    state.stages.iter().find(|stage| stage.name() == name)
}

/// What is amiss with a stage now and how often it was, in the words of the run's own advice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Amiss {
    /// What.
    pub reason: &'static str,
    /// What to do.
    pub advice: &'static str,
    /// In how many steps, in the first one and in the last one.
    pub steps: u64,
    /// See [`steps`](Self::steps).
    pub first: u64,
    /// See [`steps`](Self::steps).
    pub last: u64,
    /// In how many steps up to the newest one without a break.
    pub streak: u64,
    /// Whether that is long enough for advice.
    pub now: bool,
}

impl From<Finding> for Amiss {
    fn from(finding: Finding) -> Self {
        let Finding { reason, steps, first, last, streak } = finding;
        Self {
            reason: reason.name(),
            advice: reason.advice(),
            steps,
            first,
            last,
            streak,
            now: finding.asks_for_advice(),
        }
    }
}
