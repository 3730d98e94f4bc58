//! Where each rollout of a stage lies in its file, and the search for those that somebody wants to read.
//!
//! The index has some bytes for each rollout; texts stay in the file and are read from their place.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Result, Seek, SeekFrom};
use std::path::Path;

use minke_eval::Verdict;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::follow::Sink;
use super::table::count_damaged;

/// Most groups in one answer.
const FOUND: usize = 200;
/// Most bytes of the file that one answer searches for a text; who asks goes on from there.
const SEARCHED_BYTES: u64 = 48 << 20;
/// Characters of a question in a list.
const EXCERPT: usize = 240;

/// What is known of the groups of a stage's `rollouts.jsonl`.
#[derive(Debug, Default)]
pub(super) struct Index {
    groups: Vec<Group>,
    rollouts: Vec<Entry>,
    tasks: Vec<String>,
    /// How often the file began anew.
    pub restarts: u64,
    /// Lines that are damaged: how many, and the number of the first.
    pub damaged: Option<(usize, usize)>,
}

/// A line of the file.
#[derive(Clone, Copy, Debug)]
struct Group {
    place: Place,
    step: u64,
    id: u64,
    task: u32,
    /// Its rollouts: the first, and one behind the last.
    rollouts: (u32, u32),
}

/// Where a line lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    offset: u64,
    bytes: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    verdict: Verdict,
    truncated: bool,
    tokens: u32,
    reward: f32,
    advantage: f32,
}

/// What the index takes from a line; texts are passed over.
#[derive(Deserialize)]
struct GroupLine<'a> {
    step: u64,
    #[serde(borrow)]
    task: Cow<'a, str>,
    id: u64,
    rollouts: Vec<RolloutLine>,
}

#[derive(Deserialize)]
struct RolloutLine {
    verdict: Verdict,
    truncated: bool,
    tokens: u32,
    // Not finite is written as null.
    reward: Option<f32>,
    advantage: Option<f32>,
}

/// Which rollouts somebody wants to read. The default asks for all, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolloutQuery {
    /// Of this step.
    pub step: Option<u64>,
    /// To this problem.
    pub problem: Option<u64>,
    /// With this verdict.
    pub verdict: Option<Verdict>,
    /// Cut off, or not.
    pub truncated: Option<bool>,
    /// With this text in the question or in the answer; capitals of ASCII count as small letters.
    pub text: Option<String>,
    /// From the first step on, not from the newest back.
    pub oldest_first: bool,
    /// From the group of this number on, in that order; where the answer before ended.
    pub from: Option<usize>,
    /// Groups in the answer, up to 200.
    pub limit: usize,
}

/// What a query found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// Groups in the file, as far as it was read.
    pub groups: usize,
    /// Rollouts in them.
    pub rollouts: usize,
    /// Groups that fit without regard to the text.
    pub fitting: usize,
    /// Groups that fit, in order.
    pub found: Vec<FoundGroup>,
    /// Where to go on; none at the end.
    pub next: Option<usize>,
}

/// A group that fits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FoundGroup {
    /// Its number in the file.
    pub group: usize,
    /// The step.
    pub step: u64,
    /// Name of the task.
    pub task: String,
    /// The problem's id. A text, because browsers have no whole numbers of this size.
    pub problem: String,
    /// The beginning of the question.
    pub question: String,
    /// Its rollouts.
    pub rollouts: Vec<Brief>,
}

/// A rollout in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Brief {
    /// What the grader said.
    pub verdict: Verdict,
    /// Whether the cap cut it off.
    pub truncated: bool,
    /// Length in tokens.
    pub tokens: u32,
    /// The sum of the rewards.
    pub reward: Option<f32>,
    /// How much better than its group.
    pub advantage: Option<f32>,
    /// Whether it is what was asked for.
    pub fits: bool,
}

/// A group with all that was said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupAnswer {
    /// Its number in the file.
    pub group: usize,
    /// The line of the file, as [`GroupRecord`](crate::grpo::GroupRecord) has it; the problem's id is a text.
    pub record: Value,
}

impl Index {
    pub fn len(&self) -> (usize, usize) {
        (self.groups.len(), self.rollouts.len())
    }

    /// Where a group lies.
    pub fn place(&self, number: usize) -> Option<Place> {
        self.groups.get(number).map(|group| group.place)
    }

    fn entries(&self, group: &Group) -> &[Entry] {
        &self.rollouts[group.rollouts.0 as usize..group.rollouts.1 as usize]
    }

    /// The groups that may fit a query, to be read from the file.
    pub fn search(&self, query: &RolloutQuery) -> Search {
        let fits = |entry: &Entry| {
            query.verdict.is_none_or(|verdict| entry.verdict == verdict)
                && query.truncated.is_none_or(|truncated| entry.truncated == truncated)
        };
        let group_fits = |group: &Group| {
            query.step.is_none_or(|step| group.step == step)
                && query.problem.is_none_or(|id| group.id == id)
                && (self.entries(group).iter().any(fits) || (query.verdict, query.truncated) == (None, None))
        };
        let all: Vec<usize> = (0..self.groups.len()).filter(|&i| group_fits(&self.groups[i])).collect();
        let fitting = all.len();
        let behind = |&i: &usize| match query.from {
            None => true,
            Some(from) if query.oldest_first => i >= from,
            Some(from) => i <= from,
        };
        let candidates: Box<dyn Iterator<Item = usize>> = match query.oldest_first {
            true => Box::new(all.into_iter().filter(behind)),
            false => Box::new(all.into_iter().rev().filter(behind)),
        };
        let limit = query.limit.clamp(1, FOUND);
        let text = query.text.as_deref().filter(|text| !text.is_empty()).map(str::to_ascii_lowercase);
        // Without a text the first ones are it; one more says whether there are more.
        let most = if text.is_some() { usize::MAX } else { limit + 1 };
        let candidate = |i: usize| {
            let group = &self.groups[i];
            let brief = |entry: &Entry| Brief {
                verdict: entry.verdict,
                truncated: entry.truncated,
                tokens: entry.tokens,
                reward: finite(entry.reward),
                advantage: finite(entry.advantage),
                fits: fits(entry),
            };
            let found = FoundGroup {
                group: i,
                step: group.step,
                task: self.tasks[group.task as usize].clone(),
                problem: group.id.to_string(),
                question: String::new(),
                rollouts: self.entries(group).iter().map(brief).collect(),
            };
            (group.place, found)
        };
        let mut bytes = 0;
        let in_budget = |(place, _): &(Place, FoundGroup)| {
            let within = bytes < SEARCHED_BYTES;
            bytes += u64::from(place.bytes);
            within
        };
        let candidates = candidates.take(most).map(candidate);
        let taken: Vec<(Place, FoundGroup)> = candidates.take_while(in_budget).collect();
        let (groups, rollouts) = self.len();
        let last = taken.last().map(|(_, found)| found.group);
        let next = last.filter(|_| bytes >= SEARCHED_BYTES).and_then(|last| match query.oldest_first {
            true => Some(last + 1).filter(|next| *next < groups),
            false => last.checked_sub(1),
        });
        let answer = Found { groups, rollouts, fitting, found: Vec::new(), next };
        Search { candidates: taken, limit, text, answer }
    }
}

fn finite(value: f32) -> Option<f32> {
    value.is_finite().then_some(value)
}

impl Sink for Index {
    fn restart(&mut self) {
        *self = Self { restarts: self.restarts + 1, ..Self::default() };
    }

    fn line(&mut self, offset: u64, number: usize, text: &[u8]) {
        let bytes = u32::try_from(text.len());
        let (Ok(line), Ok(bytes)) = (serde_json::from_slice::<GroupLine<'_>>(text), bytes) else {
            count_damaged(&mut self.damaged, number);
            return;
        };
        let task = match self.tasks.iter().position(|task| *task == line.task) {
            Some(task) => task,
            None => {
                self.tasks.push(line.task.into_owned());
                self.tasks.len() - 1
            }
        };
        let first = self.rollouts.len() as u32;
        self.rollouts.extend(line.rollouts.iter().map(|rollout| Entry {
            verdict: rollout.verdict,
            truncated: rollout.truncated,
            tokens: rollout.tokens,
            reward: rollout.reward.unwrap_or(f32::NAN),
            advantage: rollout.advantage.unwrap_or(f32::NAN),
        }));
        self.groups.push(Group {
            place: Place { offset, bytes },
            step: line.step,
            id: line.id,
            task: task as u32,
            rollouts: (first, self.rollouts.len() as u32),
        });
    }
}

/// A search that knows which lines to read.
pub(super) struct Search {
    candidates: Vec<(Place, FoundGroup)>,
    limit: usize,
    /// In small letters.
    text: Option<String>,
    /// Without what is found; `next` leads behind the candidates, if not all were taken.
    answer: Found,
}

/// What a list shows of a line that fits.
#[derive(Deserialize)]
struct Texts<'a> {
    #[serde(borrow)]
    question: Cow<'a, str>,
    #[serde(borrow)]
    rollouts: Vec<RolloutText<'a>>,
}

#[derive(Deserialize)]
struct RolloutText<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
}

impl Search {
    /// Reads the lines, and keeps those that have the text.
    pub fn run(self, path: &Path) -> Result<Found> {
        let Self { candidates, limit, text, mut answer } = self;
        if candidates.is_empty() {
            return Ok(answer);
        }
        // As it stands in the file: a line end is a backslash and an n, for instance.
        let written = text.as_ref().map(|text| {
            let quoted = Value::from(text.as_str()).to_string();
            quoted[1..quoted.len() - 1].to_owned()
        });
        let mut file = File::open(path)?;
        let mut lowered = Vec::new();
        for (place, mut found) in candidates {
            if answer.found.len() == limit {
                answer.next = Some(found.group);
                break;
            }
            let line = read_line(&mut file, place)?;
            if let Some(written) = &written {
                lowered.clear();
                lowered.extend_from_slice(&line);
                lowered.make_ascii_lowercase();
                if !std::str::from_utf8(&lowered).is_ok_and(|line| line.contains(written)) {
                    continue;
                }
            }
            // The file was cut in this moment, or the text is in the names of the fields.
            let Ok(texts) = serde_json::from_slice::<Texts<'_>>(&line) else { continue };
            if let Some(text) = &text {
                let has = |part: &str| part.to_ascii_lowercase().contains(text);
                if !has(&texts.question) {
                    let fitting = found.rollouts.iter_mut().zip(&texts.rollouts);
                    fitting.for_each(|(brief, rollout)| brief.fits &= has(&rollout.text));
                    if !found.rollouts.iter().any(|brief| brief.fits) {
                        continue;
                    }
                }
            }
            found.question = excerpt(&texts.question);
            answer.found.push(found);
        }
        Ok(answer)
    }
}

fn excerpt(question: &str) -> String {
    match question.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &question[..end]),
        None => question.to_owned(),
    }
}

fn read_line(file: &mut File, place: Place) -> Result<Vec<u8>> {
    let mut line = vec![0; place.bytes as usize];
    file.seek(SeekFrom::Start(place.offset))?;
    file.read_exact(&mut line)?;
    Ok(line)
}

/// The group that lies at a place.
pub(super) fn read_group(path: &Path, number: usize, place: Place) -> Result<GroupAnswer> {
    let line = read_line(&mut File::open(path)?, place)?;
    let mut record: Value = serde_json::from_slice(&line)?;
    record["id"] = record["id"].to_string().into();
    Ok(GroupAnswer { group: number, record })
}

#[cfg(test)]
mod tests {
    use super::super::follow::Follower;
    use super::*;

    /// Four groups of steps 0, 0, 1, 7, of which one line is damaged, and the file that they lie in.
    fn index() -> (tempfile::TempDir, std::path::PathBuf, Index) {
        let rollout = |verdict: &str, text: &str, truncated: bool| serde_json::json!({ "text": text, "verdict": verdict, "format": 1, "reward": 1.5, "advantage": -0.5, "tokens": 9, "truncated": truncated });
        let group = |step: u64, id: u64, question: &str, rollouts: &[Value]| {
            serde_json::json!({ "step": step, "task": "make", "id": id, "question": question, "rollouts": rollouts })
                .to_string()
        };
        let lines = [
            group(0, u64::MAX, "make 7", &[rollout("right", "Three + FOUR", false), rollout("wrong", "no", true)]),
            group(0, 4, "make 8", &[rollout("wrong", "a\n\"b\"", false)]),
            "{\"step\": 1, \"text\"".to_owned(),
            group(1, 4, "make 8", &[rollout("gold_unusable", "é text", false)]),
            group(7, 5, "MAKE 9 of <b>", &[rollout("right", "four", true), rollout("right", "five", false)]),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rollouts.jsonl");
        std::fs::write(&path, lines.map(|line| line + "\n").concat()).unwrap();
        let mut index = Index::default();
        Follower::new(path.clone()).poll(1 << 20, &mut index).unwrap();
        (folder, path, index)
    }

    fn query() -> RolloutQuery {
        RolloutQuery { limit: 50, ..RolloutQuery::default() }
    }

    #[test]
    fn every_question_finds_its_groups() {
        let (_folder, path, index) = index();
        assert_eq!((index.len(), index.damaged), ((4, 6), Some((1, 3))));
        let text = |text: &str| Some(text.to_owned());
        // The query, the groups that are found, and in how many rollouts the first of them fits.
        for (query, groups, fits) in [
            (query(), &[3, 2, 1, 0][..], 2),
            (RolloutQuery { oldest_first: true, ..query() }, &[0, 1, 2, 3], 2),
            (RolloutQuery { step: Some(0), ..query() }, &[1, 0], 1),
            (RolloutQuery { step: Some(2), ..query() }, &[], 0),
            (RolloutQuery { problem: Some(4), ..query() }, &[2, 1], 1),
            (RolloutQuery { problem: Some(u64::MAX), ..query() }, &[0], 2),
            (RolloutQuery { verdict: Some(Verdict::Right), ..query() }, &[3, 0], 2),
            (RolloutQuery { verdict: Some(Verdict::Right), truncated: Some(true), ..query() }, &[3], 1),
            (RolloutQuery { truncated: Some(true), step: Some(0), ..query() }, &[0], 1),
            (RolloutQuery { text: text("four"), ..query() }, &[3, 0], 1),
            (RolloutQuery { text: text("make 9"), ..query() }, &[3], 2),
            (RolloutQuery { text: text("a\n\"B\""), ..query() }, &[1], 1),
            (RolloutQuery { text: text("é"), ..query() }, &[2], 1),
            (RolloutQuery { text: text("truncated"), ..query() }, &[], 0),
            (RolloutQuery { text: text("four"), truncated: Some(false), ..query() }, &[0], 1),
            (RolloutQuery { from: Some(1), ..query() }, &[1, 0], 1),
            (RolloutQuery { from: Some(3), oldest_first: true, ..query() }, &[3], 2),
        ] {
            let found = index.search(&query).run(&path).unwrap();
            let numbers: Vec<usize> = found.found.iter().map(|group| group.group).collect();
            assert_eq!((numbers.as_slice(), found.next), (groups, None), "{query:?}");
            let first = found.found.first().map_or(0, |group| group.rollouts.iter().filter(|brief| brief.fits).count());
            assert_eq!(first, fits, "{query:?}");
        }
        let found = index.search(&query()).run(&path).unwrap();
        assert_eq!((found.groups, found.rollouts, found.fitting), (4, 6, 4));
        assert_eq!(
            (found.found[0].question.as_str(), found.found[3].problem.as_str()),
            ("MAKE 9 of <b>", "18446744073709551615")
        );
    }

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let (_folder, path, index) = index();
        for oldest_first in [false, true] {
            for text in [None, Some("e".to_owned())] {
                let mut query = RolloutQuery { oldest_first, text, limit: 1, ..query() };
                let mut numbers = Vec::new();
                loop {
                    let found = index.search(&query).run(&path).unwrap();
                    numbers.extend(found.found.iter().map(|group| group.group));
                    query.from = found.next;
                    if found.next.is_none() {
                        break;
                    }
                }
                let expected: Vec<usize> = if oldest_first { vec![0, 1, 2, 3] } else { vec![3, 2, 1, 0] };
                assert_eq!(numbers, expected, "{query:?}");
            }
        }
    }

    #[test]
    fn a_group_comes_as_it_lies_in_the_file() {
        let (_folder, path, index) = index();
        let group = read_group(&path, 0, index.place(0).unwrap()).unwrap();
        assert_eq!(
            (group.record["id"].as_str(), group.record["rollouts"][0]["text"].as_str()),
            (Some("18446744073709551615"), Some("Three + FOUR"))
        );
        assert!(index.place(4).is_none());
        // A file that was cut meanwhile is an error, not a panic.
        std::fs::write(&path, "short").unwrap();
        assert!(read_group(&path, 0, index.place(0).unwrap()).is_err());
        assert!(index.search(&query()).run(&path).is_err());
    }
}
