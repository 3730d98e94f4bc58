//! What endpoints answered to a stage. It is no function of the seed, so it is a fact of the run once it is written down: a line of
//! `answers.jsonl` each, which a stage that is started again reads instead of asking.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::record::Log;
use crate::{Error, Result};

/// The first line: a hash of what answers depend on.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    config_hash: String,
}

/// The answers of a stage by what they are to.
pub(crate) struct Answers<K> {
    path: PathBuf,
    log: Log,
    reader: BufReader<File>,
    /// Where the line of each lies.
    lines: BTreeMap<K, u64>,
}

impl<K: Ord> Answers<K> {
    /// The answers so far in the folder of a stage; `key` says what a line is to, and nothing for one that is not wanted. A last line
    /// without its end is cut off: it was being written when the process ended.
    ///
    /// # Errors
    /// If the file cannot be read, belongs to another configuration, or a line of it is broken.
    pub(crate) fn open<R: DeserializeOwned>(
        folder: &Path,
        config_hash: &str,
        mut key: impl FnMut(&R) -> Option<K>,
    ) -> Result<Self> {
        let path = folder.join("answers.jsonl");
        let bad = |reason: String| Error::BadFile { path: path.clone(), reason };
        let (mut lines, mut end) = (BTreeMap::new(), 0);
        if path.exists() {
            let mut reader = BufReader::new(File::open(&path).map_err(Error::read(&path))?);
            let mut line = Vec::new();
            for number in 1u64.. {
                line.clear();
                reader.read_until(b'\n', &mut line).map_err(Error::read(&path))?;
                if line.last() != Some(&b'\n') {
                    break;
                }
                let broken = |error| bad(format!("line {number}: {error}; remove the line, and it is asked for again"));
                if number == 1 {
                    let head: Head = serde_json::from_slice(&line).map_err(broken)?;
                    if head.config_hash != config_hash {
                        return Err(bad(
                            "belongs to another configuration; choose another folder, or remove that of the stage"
                                .into(),
                        ));
                    }
                } else if let Some(key) = key(&serde_json::from_slice(&line).map_err(broken)?) {
                    lines.insert(key, end);
                }
                end += line.len() as u64;
            }
        }
        let mut log = Log::open(&path, end)?;
        if end == 0 {
            log.append(&Head { config_hash: config_hash.to_owned() })?;
        }
        let reader = BufReader::new(File::open(&path).map_err(Error::read(&path))?);
        Ok(Self { path, log, reader, lines })
    }

    /// Writes an answer down.
    pub(crate) fn append(&mut self, key: K, row: &impl Serialize) -> Result<()> {
        let at = self.log.bytes();
        self.log.append(row)?;
        self.lines.insert(key, at);
        Ok(())
    }

    /// Waits until all of them are on the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        self.log.sync()
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(crate) fn has(&self, key: &K) -> bool {
        self.lines.contains_key(key)
    }

    /// The answers in a range, in order.
    pub(crate) fn range<R: DeserializeOwned>(&mut self, range: impl RangeBounds<K>) -> Result<Vec<R>> {
        let places: Vec<u64> = self.lines.range(range).map(|(_, at)| *at).collect();
        places.into_iter().map(|at| self.line(at)).collect()
    }

    /// An answer, if it is there.
    pub(crate) fn read<R: DeserializeOwned>(&mut self, key: &K) -> Result<Option<R>> {
        self.lines.get(key).copied().map(|at| self.line(at)).transpose()
    }

    fn line<R: DeserializeOwned>(&mut self, at: u64) -> Result<R> {
        let path = &self.path;
        self.reader.seek(SeekFrom::Start(at)).map_err(Error::read(path))?;
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).map_err(Error::read(path))?;
        let bad = |error| Error::BadFile {
            path: path.clone(),
            reason: format!("at byte {at}: {error}; start over in another folder"),
        };
        serde_json::from_slice(&line).map_err(bad)
    }
}
