//! The file of an evaluation's answers: a line about the evaluation, then a line for every answer, appended as they come.
//! An evaluation that was killed goes on with it, and ends with the same bytes as one that was not.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Answer, Error, EvalConfig, Result};

/// What a file of answers is about: its first line. Answers are only added by an evaluation that is the same in all of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Version of the program that grades.
    pub minke: String,
    /// Name of the task.
    pub task: String,
    /// Hash of the files of its problems.
    pub data: String,
    /// How many of them are asked, from the first on.
    pub problems: usize,
    /// Answers to each.
    pub samples: usize,
    /// Who answers: the name of the model, or of the file of given answers.
    pub model: String,
    /// Hash of the files of the weights, or of that file.
    pub model_sha256: String,
    /// How the model is asked; nothing for given answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<EvalConfig>,
    /// Hash of all prompts; nothing for given answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<String>,
}

/// A file of answers that is being written.
pub struct Results {
    path: PathBuf,
    file: File,
    header: Header,
    answers: Vec<Answer>,
}

impl Results {
    /// Opens the file of an evaluation, or begins it. Half a line at its end, as a killed process leaves it, is cut off.
    ///
    /// # Errors
    /// If the file cannot be read or written, another process writes it, it is of another evaluation, or a line is damaged.
    pub fn open(path: &Path, header: Header) -> Result<Self> {
        let io = |action| move |source| Error::Write { action, path: path.into(), source };
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path).map_err(io("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(bad(
                    path,
                    "is being written by another process; wait for it, or give another --out".into(),
                ));
            }
            Err(TryLockError::Error(error)) => return Err(io("lock")(error)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("read"))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(io("write"))?;
        file.seek(SeekFrom::End(0)).map_err(io("write"))?;
        let mut results = Self { path: path.into(), file, header, answers: Vec::new() };
        if whole == 0 {
            results.append_line(&results.header.clone())?;
            return Ok(results);
        }
        let (there, answers) = parse(path, &bytes[..whole])?;
        if let Some(difference) = difference(&there, &results.header) {
            let advice = "give another folder with --out, or move the file away";
            return Err(bad(path, format!("has answers of another evaluation: {difference}; {advice}")));
        }
        results.answers = answers;
        Ok(results)
    }

    /// The answers of a file, with what it is about; half a line at its end does not count.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is damaged.
    pub fn read(path: &Path) -> Result<(Header, Vec<Answer>)> {
        let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        parse(path, &bytes[..whole])
    }

    /// The answers so far.
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// Which answers are there: the problem and the number.
    pub fn done(&self) -> HashSet<(String, usize)> {
        self.answers.iter().map(|answer| (answer.id.clone(), answer.sample)).collect()
    }

    /// Appends an answer: it reaches the operating system at once, and no kill takes it back.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn append(&mut self, answer: Answer) -> Result<()> {
        self.append_line(&answer)?;
        self.answers.push(answer);
        Ok(())
    }

    /// Brings the lines into the order of the problems, whatever order they came in, and returns the answers.
    ///
    /// # Errors
    /// If an answer is of a problem that is not asked, or one is missing; if the file cannot be replaced.
    pub fn finish<'a>(mut self, problems: impl Iterator<Item = &'a str>) -> Result<Vec<Answer>> {
        let places: HashMap<&str, usize> = problems.enumerate().map(|(place, name)| (name, place)).collect();
        if let Some(stray) = self.answers.iter().find(|answer| !places.contains_key(answer.id.as_str())) {
            return Err(bad(&self.path, format!("has an answer to {:?}, which is not asked", stray.id)));
        }
        let expected = self.header.problems * self.header.samples;
        if self.answers.len() != expected {
            let have = self.answers.len();
            return Err(bad(&self.path, format!("has {have} of {expected} answers; go on with the same command")));
        }
        let order = |answer: &Answer| (places[answer.id.as_str()], answer.sample);
        if !self.answers.is_sorted_by_key(order) {
            self.answers.sort_by_key(order);
            let header = line(&self.header);
            minke_sys::atomic::replace_with(&self.path, |to| {
                let lines = std::iter::once(header).chain(self.answers.iter().map(line));
                lines.into_iter().try_for_each(|line| to.write_all(&line)).map_err(|source| Error::Write {
                    action: "write",
                    path: self.path.clone(),
                    source,
                })
            })?;
        }
        Ok(self.answers)
    }

    fn append_line(&mut self, row: &impl Serialize) -> Result<()> {
        let failed = |source| Error::Write { action: "write", path: self.path.clone(), source };
        self.file.write_all(&line(row)).map_err(failed)
    }
}

fn line(row: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(row).expect("invariant: rows are plain JSON");
    line.push(b'\n');
    line
}

fn parse(path: &Path, bytes: &[u8]) -> Result<(Header, Vec<Answer>)> {
    let mut lines = bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    let damaged =
        |(i, reason): (usize, String)| bad(path, format!("line {}: {reason}; repair it, or move the file away", i + 1));
    let header =
        lines.next().ok_or_else(|| bad(path, "is empty; it should have the answers of an evaluation".into()))?;
    let header = serde_json::from_slice(header.1).map_err(|error| damaged((header.0, error.to_string())))?;
    let mut seen = HashSet::new();
    let answer = |(i, line): (usize, &[u8])| {
        let answer: Answer = serde_json::from_slice(line).map_err(|error| damaged((i, error.to_string())))?;
        if !seen.insert((answer.id.clone(), answer.sample)) {
            let (id, sample) = (&answer.id, answer.sample);
            return Err(damaged((i, format!("sample {sample} of {id} is there already"))));
        }
        Ok(answer)
    };
    Ok((header, lines.map(answer).collect::<Result<_>>()?))
}

/// The first thing in which two evaluations differ, in words.
fn difference(there: &Header, here: &Header) -> Option<String> {
    let flat = |header: &Header| {
        let mut fields = Vec::new();
        flatten("", &serde_json::to_value(header).expect("invariant: a header is plain JSON"), &mut fields);
        fields
    };
    let (there, here) = (flat(there), flat(here));
    let value = |fields: &[(String, String)], key: &str| {
        fields.iter().find(|(name, _)| name == key).map_or("nothing".to_owned(), |(_, value)| value.clone())
    };
    let keys = there.iter().chain(&here).map(|(key, _)| key);
    let mut differing = keys.filter(|key| value(&there, key) != value(&here, key));
    differing.next().map(|key| format!("{key} is {} there and {} here", value(&there, key), value(&here, key)))
}

fn flatten(prefix: &str, value: &Value, fields: &mut Vec<(String, String)>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let gap = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{gap}{key}"), value, fields);
            }
        }
        other => fields.push((prefix.to_owned(), other.to_string())),
    }
}

fn bad(path: &Path, reason: String) -> Error {
    Error::BadFile { path: path.into(), reason }
}
