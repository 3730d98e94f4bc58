//! Sets: problems of files. A file is read whole, checked, and known by its hash; one side is for training, the other is
//! held out.

mod format;
mod phrase;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minke_spec::draw::{Domain, draw, hash, hash_name};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use format::SetFormat;
use format::{Given, MBPP_SHOTS, MBPP_TEST, MBPP_VALIDATION};

use super::{Gold, Problem, Split, Verdict};
use crate::verify::code::{Sandbox, SandboxConfig, read_program};
use crate::verify::math;
use crate::{Error, Result};

/// The files of a set, as the TOML of a run or a command line names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetFiles {
    /// What their lines mean.
    pub format: SetFormat,
    /// The only file: one problem in eight is for the test and one for validation, by what it asks; of MBPP those with the
    /// published numbers 11 to 510 and 511 to 600, and the first ten are on no side; HumanEval is for the test as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The file of problems to train on, beside `test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<PathBuf>,
    /// The file of problems to choose by, beside `test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<PathBuf>,
    /// The file of held-out problems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// The file of solved examples for few-shot prompts, of any format that has solutions; by default `train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<PathBuf>,
    /// The hash of all files behind each other, in the order of these keys: filled in when they are read; files with
    /// another one are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl SetFiles {
    /// The files of a set to be graded on: all problems of one file, of MBPP those that are published as held out.
    pub fn held_out(format: SetFormat, path: PathBuf) -> Self {
        let (path, test) = if format == SetFormat::Mbpp { (Some(path), None) } else { (None, Some(path)) };
        Self { format, path, train: None, validation: None, test, examples: None, sha256: None }
    }
}

/// A set of problems that were read from files.
///
/// # Examples
/// ```no_run
/// use minke_eval::{Split, Task, tasks::{ProblemSet, SetFiles, SetFormat}};
/// let files = SetFiles::held_out(SetFormat::Gsm8k, "gsm8k_test.jsonl".into());
/// let task = Task::Set(ProblemSet::read(files)?);
/// assert!(task.problem_set(Split::Test, 0, 10)[0].question.contains("boxed"));
/// # Ok::<(), minke_eval::Error>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "SetFiles", into = "SetFiles")]
pub struct ProblemSet {
    files: SetFiles,
    problems: Arc<Problems>,
}

impl PartialEq for ProblemSet {
    /// By the files and their hash, which all else follows from.
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files
    }
}

#[derive(Debug)]
struct Problems {
    /// By side.
    entries: [Vec<Entry>; Split::ALL.len()],
    /// The side of every problem.
    sides: HashMap<u64, Split>,
    /// Solved problems that few-shot prompts show, in order.
    shots: Vec<Shot>,
    /// Where programs run, if some are asked for.
    sandbox: Option<Sandbox>,
}

/// A problem, what it asks, and how a text without a conversation puts it.
#[derive(Debug)]
struct Entry {
    problem: Problem,
    asked: String,
    head: String,
}

/// A solved problem of the examples.
#[derive(Debug)]
struct Shot {
    asked: String,
    text: String,
}

/// Most bytes of a file.
const LARGEST_FILE: u64 = 1 << 30;

impl ProblemSet {
    /// Reads the files.
    ///
    /// # Errors
    /// If a file cannot be read, or a line is not of the format; if two problems have one name; if a problem is on two
    /// sides; if the files do not have the hash that is given; if programs are asked for and cannot be run here.
    pub fn read(mut files: SetFiles) -> Result<Self> {
        let format = files.format;
        let mut sum = Sha256::new();
        let mut read = |path: &Path| -> Result<String> {
            let text = read_text(path)?;
            sum.update(&text);
            Ok(text)
        };
        let mut given = |path: &Path| -> Result<Vec<Given>> {
            let given = format.read(path, &read(path)?)?;
            check_names(path, &given)?;
            Ok(given)
        };
        let SetFiles { path, train, validation, test, .. } = &files;
        let (sides, published) = match (path, test) {
            (Some(path), None) if train.is_none() && validation.is_none() => {
                let all = given(path)?;
                let published = published_shots(format, &all);
                (sides(format, all), published)
            }
            (None, Some(_)) => {
                let paths = [train, validation, test].map(|path| path.as_deref());
                let mut side = |split: Split| paths[split as usize].map_or(Ok(Vec::new()), &mut given);
                let sides = [side(Split::Train)?, side(Split::Validation)?, side(Split::Test)?];
                check_disjoint(paths, &sides)?;
                let published = published_shots(format, &sides[Split::Test as usize]);
                (sides, published)
            }
            _ => {
                let needs = "needs path; or test, beside it train for training and validation for choices";
                return Err(fault(format, needs.into()));
            }
        };
        let shots = match &files.examples {
            Some(path) => examples(format, path, &read(path)?)?,
            None => published.unwrap_or_else(|| {
                sides[Split::Train as usize].iter().filter_map(|given| Shot::new(format, given)).collect()
            }),
        };
        let found: String = sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if files.sha256.as_ref().is_some_and(|expected| *expected != found) {
            return Err(fault(format, format!("the files have the hash {found}, not the sha256 that is given")));
        }
        files.sha256 = Some(found);
        let entries = sides.map(|side| side.into_iter().map(|given| Entry::new(format, given)).collect::<Vec<_>>());
        let of_side = |split: Split| entries[split as usize].iter().map(move |entry| (entry.problem.id, split));
        let sides = Split::ALL.into_iter().flat_map(of_side).collect();
        let sandbox = format.asks_for_code().then(|| Sandbox::new(SandboxConfig::default())).transpose()?;
        Ok(Self { files, problems: Arc::new(Problems { entries, sides, shots, sandbox }) })
    }

    /// What it was read from, with the hash.
    pub fn files(&self) -> &SetFiles {
        &self.files
    }

    /// The hash of the files.
    pub fn sha256(&self) -> &str {
        self.files.sha256.as_deref().expect("invariant: reading fills it in")
    }

    /// The problems of a side, in the order of their file.
    pub fn on_side(&self, split: Split) -> impl ExactSizeIterator<Item = &Problem> {
        self.problems.entries[split as usize].iter().map(|entry| &entry.problem)
    }

    /// The problem as a text to go on with, behind so many solved ones, and where an answer to it ends.
    ///
    /// # Errors
    /// If there are not so many, or the problem is none of this set's.
    pub fn few_shot(&self, problem: &Problem, count: usize) -> Result<(String, &'static [&'static str])> {
        let mut all = self.problems.entries.iter().flatten();
        let entry = all.find(|entry| entry.problem.id == problem.id);
        let entry = entry.ok_or_else(|| fault(self.files.format, format!("has no problem {}", problem.name)))?;
        // A problem is not shown with its own solution.
        let shown: Vec<&str> = self
            .problems
            .shots
            .iter()
            .filter(|shot| shot.asked != entry.asked)
            .take(count)
            .map(|shot| shot.text.as_str())
            .collect();
        if shown.len() < count {
            let advice = "give the file of the training problems as --examples FILE, or ask for fewer";
            let reason = format!("{count} solved examples were asked for, and there are {}; {advice}", shown.len());
            return Err(fault(self.files.format, reason));
        }
        Ok((shown.concat() + &entry.head, phrase::stops(self.files.format)))
    }

    pub(super) fn validate(&self) -> Result<()> {
        let refuse = |reason: &str| Err(fault(self.files.format, reason.into()));
        let [train, _, test] = &self.problems.entries;
        match (train.is_empty(), test.is_empty()) {
            (true, _) => refuse("it has no problem to train on; name a file of them as train, beside test"),
            (_, true) => refuse("it has no problem that is held out; name a file of them as test"),
            (false, false) => Ok(()),
        }
    }

    pub(super) fn problem(&self, seed: u64, split: Split, number: u64) -> Problem {
        let index = [hash_name("file"), split as u64, number];
        draw(seed, Domain::Problem, &index).choose(&self.problems.entries[split as usize]).problem.clone()
    }

    pub(super) fn side(&self, problem: &Problem) -> Split {
        self.problems.sides.get(&problem.id).copied().unwrap_or(Split::Test)
    }

    pub(super) fn grade(&self, problem: &Problem, answer: &str) -> Result<Verdict> {
        match (&problem.gold, &self.problems.sandbox) {
            (Gold::Math(gold), _) => Ok(math::judge(gold, answer)),
            (Gold::Code(gold), Some(sandbox)) => {
                let program = read_program(&gold.prompt, &gold.entry_point, answer);
                Ok(sandbox.judge(gold, &program)?.verdict)
            }
            _ => Ok(Verdict::GoldUnusable),
        }
    }

    pub(super) fn answer_key(&self, problem: &Problem, answer: &str) -> Option<String> {
        match &problem.gold {
            Gold::Math(_) => math::read(answer).map(|answer| answer.text),
            _ => None,
        }
    }
}

impl TryFrom<SetFiles> for ProblemSet {
    type Error = Error;

    fn try_from(files: SetFiles) -> Result<Self> {
        Self::read(files)
    }
}

impl From<ProblemSet> for SetFiles {
    fn from(set: ProblemSet) -> Self {
        set.files
    }
}

impl Entry {
    fn new(format: SetFormat, given: Given) -> Self {
        let question = phrase::question(format, &given);
        let head = phrase::shot(format, &given.text, None);
        // By name and text: two problems of a file may ask the same.
        let asked = given.asked();
        let id = hash(hash_name(&given.name) ^ hash_name(&asked).rotate_left(1));
        let cluster = given.cluster.as_deref().map_or(id, hash_name);
        let problem = Problem { id, name: given.name, cluster, context: given.context, question, gold: given.gold };
        Self { problem, asked, head }
    }
}

impl Shot {
    /// The example that a problem makes; nothing if it is not solved.
    fn new(format: SetFormat, given: &Given) -> Option<Self> {
        let text = phrase::shot(format, &given.text, Some(given.solution.as_deref()?));
        Some(Self { asked: given.asked(), text })
    }
}

/// The examples that a format itself names: MBPP's are three of its problems. HumanEval shows none.
fn published_shots(format: SetFormat, all: &[Given]) -> Option<Vec<Shot>> {
    let is_shown = |given: &&Given| given.name.parse().is_ok_and(|id| MBPP_SHOTS.contains(&id));
    match format {
        SetFormat::Mbpp => Some(all.iter().filter(is_shown).filter_map(|given| Shot::new(format, given)).collect()),
        SetFormat::HumanEval => Some(Vec::new()),
        SetFormat::Gsm8k | SetFormat::Svamp | SetFormat::Jsonl => None,
    }
}

/// The examples of a file of their own, which is recognized.
fn examples(format: SetFormat, path: &Path, text: &str) -> Result<Vec<Shot>> {
    let own = SetFormat::recognize(text);
    if own.asks_for_code() != format.asks_for_code() || format == SetFormat::HumanEval {
        let reason = format!("has {} problems, which are no examples for {}", own.name(), format.name());
        return Err(Error::BadFile { path: path.into(), reason });
    }
    Ok(own.read(path, text)?.iter().filter_map(|given| Shot::new(format, given)).collect())
}

/// The sides of a file without sides of its own.
fn sides(format: SetFormat, all: Vec<Given>) -> [Vec<Given>; Split::ALL.len()] {
    let mut sides: [Vec<Given>; Split::ALL.len()] = Default::default();
    // Some tasks are in the published file of MBPP twice, on two sides, with other tests: the test side has them, then
    // validation.
    let task = |given: &Given| given.asked().split(" assert ").next().map(str::to_owned);
    let numbered = |range: &RangeInclusive<u64>| -> HashSet<_> {
        all.iter().filter(|given| range.contains(&given.number())).map(task).collect()
    };
    let (tested, chosen_by) = (numbered(&MBPP_TEST), numbered(&MBPP_VALIDATION));
    for given in all {
        let side = match (format, given.number()) {
            (SetFormat::HumanEval, _) => Split::Test,
            (SetFormat::Mbpp, number) if MBPP_TEST.contains(&number) => Split::Test,
            (SetFormat::Mbpp, number) if number < *MBPP_TEST.start() || tested.contains(&task(&given)) => continue,
            (SetFormat::Mbpp, number) if MBPP_VALIDATION.contains(&number) => Split::Validation,
            (SetFormat::Mbpp, _) if chosen_by.contains(&task(&given)) => continue,
            (SetFormat::Mbpp, _) => Split::Train,
            (SetFormat::Gsm8k | SetFormat::Svamp | SetFormat::Jsonl, _) => {
                Split::of_hash(hash(hash_name(&given.asked())))
            }
        };
        sides[side as usize].push(given);
    }
    sides
}

/// Refuses two problems of one name: a row of answers would be of both.
fn check_names(path: &Path, given: &[Given]) -> Result<()> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for Given { name, place, .. } in given {
        if let Some(first) = seen.insert(name, *place) {
            let reason = format!("problems {first} and {place} are both called {name:?}; rename one");
            return Err(Error::BadFile { path: path.into(), reason });
        }
    }
    Ok(())
}

/// Refuses a problem that is on two sides, by the file that is further from the test.
fn check_disjoint(paths: [Option<&Path>; Split::ALL.len()], sides: &[Vec<Given>; Split::ALL.len()]) -> Result<()> {
    let mut seen: HashMap<String, (&Path, usize)> = HashMap::new();
    for (path, side) in paths.into_iter().zip(sides).rev() {
        let path = path.unwrap_or(Path::new(""));
        if let Some((given, (other, place))) = side.iter().find_map(|given| Some((given, seen.get(&given.asked())?))) {
            let (here, other) = (given.place, other.display());
            let reason = format!("problem {here} is also problem {place} of the held-out file {other}; remove it here");
            return Err(Error::BadFile { path: path.into(), reason });
        }
        seen.extend(side.iter().map(|given| (given.asked(), (path, given.place))));
    }
    Ok(())
}

fn read_text(path: &Path) -> Result<String> {
    let cannot = |source| Error::Read { path: path.into(), source };
    let bytes = std::fs::metadata(path).map_err(cannot)?.len();
    if bytes > LARGEST_FILE {
        let reason = format!("has {bytes} bytes; a file of problems has at most {LARGEST_FILE}");
        return Err(Error::BadFile { path: path.into(), reason });
    }
    let text = std::fs::read(path).map_err(cannot)?;
    String::from_utf8(text).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::BadFile { path: path.into(), reason: format!("is not UTF-8 from byte {} on", at + 1) }
    })
}

fn fault(format: SetFormat, reason: String) -> Error {
    Error::Task { task: format.name(), reason }
}
