//! The logs of a stage: append-only JSONL files whose length is known at every checkpoint.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::{Error, Result};

/// Named values of one step, written in the order in which they were set. A number that is not finite becomes `null`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(Vec<(Cow<'static, str>, Value)>);

impl Metrics {
    /// No values.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a value.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> &mut Self {
        self.0.push((name.into(), value.into()));
        self
    }

    /// Appends a value if there is one.
    pub fn set_if(&mut self, name: impl Into<Cow<'static, str>>, value: Option<impl Into<Value>>) -> &mut Self {
        if let Some(value) = value {
            self.set(name, value);
        }
        self
    }

    /// The values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// A number by its name.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.iter().find(|(have, _)| *have == name)?.1.as_f64()
    }

    /// These values followed by others.
    pub(crate) fn followed_by(mut self, others: &Self) -> Self {
        self.0.extend(others.0.iter().cloned());
        self
    }
}

impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A file of JSON lines that only grows; every line reaches the operating system when it is appended.
pub struct Log {
    path: PathBuf,
    /// None where another rank writes the file.
    file: Option<File>,
    bytes: u64,
}

impl Log {
    /// Opens a log, makes it where it is missing, and cuts it to the given length.
    ///
    /// # Errors
    /// If the file cannot be opened, or is shorter than that.
    pub fn open(path: &Path, bytes: u64) -> Result<Self> {
        let open = || {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            let have = file.metadata()?.len();
            if have > bytes {
                file.set_len(bytes)?;
            }
            Ok((file, have))
        };
        let (file, have) = open().map_err(Error::io("open", path))?;
        if have < bytes {
            let reason =
                format!("has {have} bytes, the checkpoint recorded {bytes}; start the stage in another folder");
            return Err(Error::BadFile { path: path.to_path_buf(), reason });
        }
        Ok(Self { path: path.to_path_buf(), file: Some(file), bytes })
    }

    /// Appends one line.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn append(&mut self, line: &impl Serialize) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut text = serde_json::to_vec(line).expect("invariant: lines are plain JSON");
        text.push(b'\n');
        file.write_all(&text).map_err(Error::io("write", &self.path))?;
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// The length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Waits until every line is on the disk.
    ///
    /// # Errors
    /// If the disk reports an error.
    pub fn sync(&self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.sync_data().map_err(Error::io("sync", &self.path)))
    }
}

/// The logs of a stage. All are cut to their recorded length when the stage resumes.
pub struct Logs {
    /// One line per step: only what the seed determines.
    pub metrics: Log,
    /// One line per rollout: only what the seed determines.
    pub rollouts: Log,
    /// One line per step: seconds and what follows from them.
    pub timings: Log,
    /// Samples that a later stage learns from.
    pub data: Log,
}

/// The files of [`Logs`], in its order.
pub(crate) const LOG_FILES: [&str; 4] = ["metrics.jsonl", "rollouts.jsonl", "timings.jsonl", "data.jsonl"];

impl Logs {
    /// Opens the logs in the folder of a stage, cut to these lengths.
    pub(crate) fn open(folder: &Path, bytes: [u64; 4]) -> Result<Self> {
        let open = |i: usize| Log::open(&folder.join(LOG_FILES[i]), bytes[i]);
        Ok(Self { metrics: open(0)?, rollouts: open(1)?, timings: open(2)?, data: open(3)? })
    }

    /// The logs of a rank that leaves them to the first.
    pub(crate) fn elsewhere() -> Self {
        let log = || Log { path: PathBuf::new(), file: None, bytes: 0 };
        Self { metrics: log(), rollouts: log(), timings: log(), data: log() }
    }

    /// The lengths of the logs once all lines are on the disk.
    pub(crate) fn sync(&self) -> Result<[u64; 4]> {
        let all = [&self.metrics, &self.rollouts, &self.timings, &self.data];
        all.iter().try_for_each(|log| log.sync())?;
        Ok(all.map(Log::bytes))
    }
}
