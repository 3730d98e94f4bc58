//! What a line of a problem file means, format by format. A field that is unknown or missing is an error with its line.

use std::path::Path;

use minke_text::{Message, Role};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::tasks::Gold;
use crate::verify::code::{CodeProblem, Tests};
use crate::{Error, Result};

/// The formats of problem files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetFormat {
    /// GSM8K: lines with `question` and a worked `answer` that ends in `#### 18`.
    Gsm8k,
    /// SVAMP: one list, of `Body`, `Question` and `Answer`.
    Svamp,
    /// HumanEval: lines with the head of a function as `prompt`, and a `test`.
    HumanEval,
    /// MBPP: lines with a `text` and a `test_list`.
    Mbpp,
    /// Lines with `question`, `prompt` or `messages`, an `answer`, and maybe an `id` and a `cluster`.
    Jsonl,
}

/// A problem as its file has it.
pub(super) struct Given {
    /// Where it stands, from 1: a line, or a place in the list.
    pub place: usize,
    /// What the file calls it; its place if it has no name.
    pub name: String,
    /// What it is not independent of.
    pub cluster: Option<String>,
    /// Messages before the question.
    pub context: Vec<Message>,
    /// What is asked.
    pub text: String,
    /// Whether `text` is all that is asked, so that no instruction is added.
    pub is_whole: bool,
    /// What its grader needs.
    pub gold: Gold,
    /// How it is solved, if the file says so.
    pub solution: Option<String>,
}

/// Problems with these numbers are those that few-shot prompts of MBPP show.
pub(super) const MBPP_SHOTS: std::ops::RangeInclusive<u64> = 2..=4;
/// Problems with these numbers are for the test, as MBPP is published.
pub(super) const MBPP_TEST: std::ops::RangeInclusive<u64> = 11..=510;
/// Problems with these numbers are for validation, as MBPP is published.
pub(super) const MBPP_VALIDATION: std::ops::RangeInclusive<u64> = 511..=600;

impl SetFormat {
    /// The formats that have a name of their own as a task.
    pub const PUBLISHED: [Self; 4] = [Self::Gsm8k, Self::Svamp, Self::HumanEval, Self::Mbpp];

    /// The name, as it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gsm8k => "gsm8k",
            Self::Svamp => "svamp",
            Self::HumanEval => "humaneval",
            Self::Mbpp => "mbpp",
            Self::Jsonl => "jsonl",
        }
    }

    /// Whether a program is asked for.
    pub fn asks_for_code(self) -> bool {
        matches!(self, Self::HumanEval | Self::Mbpp)
    }

    /// The format that the fields of a file's first problem have.
    pub fn recognize(text: &str) -> Self {
        if text.trim_start().starts_with('[') {
            return Self::Svamp;
        }
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let first: serde_json::Value = serde_json::from_str(first).unwrap_or_default();
        let is_worked = |answer: &str| answer.contains("####");
        match () {
            () if first.get("entry_point").is_some() => Self::HumanEval,
            () if first.get("test_list").is_some() => Self::Mbpp,
            () if first["question"].is_string() && first["answer"].as_str().is_some_and(is_worked) => Self::Gsm8k,
            () => Self::Jsonl,
        }
    }

    /// The problems of a file's text.
    pub(super) fn read(self, path: &Path, text: &str) -> Result<Vec<Given>> {
        let bad = |reason: String| Error::BadFile { path: path.into(), reason };
        let given = match self {
            Self::Gsm8k => lines(path, text, Gsm8kLine::given),
            Self::HumanEval => lines(path, text, HumanEvalLine::given),
            Self::Mbpp => lines(path, text, MbppLine::given),
            Self::Jsonl => lines(path, text, JsonlLine::given),
            Self::Svamp => {
                let rows: Vec<SvampRow> = serde_json::from_str(text).map_err(|error| bad(unknown(self, &error)))?;
                let given = |(i, row): (usize, SvampRow)| {
                    row.given(i + 1).map_err(|reason| bad(format!("problem {}: {reason}", i + 1)))
                };
                rows.into_iter().enumerate().map(given).collect()
            }
        }?;
        if given.is_empty() { Err(bad("has no problems".into())) } else { Ok(given) }
    }
}

fn unknown(format: SetFormat, error: &serde_json::Error) -> String {
    format!("is not {} as it is published: {error}", format.name())
}

/// The problems of a file of JSON lines; empty lines are none.
fn lines<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    given: impl Fn(T, usize) -> std::result::Result<Given, String>,
) -> Result<Vec<Given>> {
    let line = |(i, line): (usize, &str)| {
        let row = serde_json::from_str(line).map_err(|error| error.to_string());
        let bad = |reason: String| Error::BadFile { path: path.into(), reason: format!("line {}: {reason}", i + 1) };
        row.and_then(|row| given(row, i + 1)).map_err(bad)
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(line).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Gsm8kLine {
    question: String,
    answer: String,
}

impl Gsm8kLine {
    fn given(self, place: usize) -> std::result::Result<Given, String> {
        let Some((worked, gold)) = self.answer.rsplit_once("####") else {
            return Err("its answer has no #### with the result behind it".into());
        };
        let gold = gold.trim().replace(',', "");
        if gold.is_empty() {
            return Err("its answer has nothing behind ####".into());
        }
        let solution = format!("{} The answer is {gold}.", without_annotations(worked).trim());
        let mut given = Given::new(place, place.to_string(), self.question, Gold::Math(gold))?;
        given.solution = Some(solution);
        Ok(given)
    }
}

/// A worked solution without the calculator's annotations, such as `<<48/2=24>>`.
fn without_annotations(worked: &str) -> String {
    let mut kept = String::new();
    let mut rest = worked;
    while let Some((before, after)) = rest.split_once("<<") {
        kept.push_str(before);
        rest = after.split_once(">>").map_or("", |(_, behind)| behind);
    }
    kept + rest
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SvampRow {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Body")]
    body: String,
    #[serde(rename = "Question")]
    question: String,
    #[serde(rename = "Answer")]
    answer: serde_json::Number,
    #[serde(rename = "Equation")]
    _equation: String,
    #[serde(rename = "Type")]
    _type: String,
}

impl SvampRow {
    fn given(self, place: usize) -> std::result::Result<Given, String> {
        let body = self.body.trim();
        let end = if body.ends_with(['.', '?', '!', ',']) || body.is_empty() { "" } else { "." };
        let text = format!("{body}{end} {}", self.question.trim());
        Given::new(place, self.id, text.trim_start().to_owned(), Gold::Math(number(&self.answer)))
    }
}

/// A number as a person writes it: `51` for 51.0.
fn number(number: &serde_json::Number) -> String {
    let text = number.to_string();
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HumanEvalLine {
    task_id: String,
    prompt: String,
    entry_point: String,
    canonical_solution: String,
    test: String,
}

impl HumanEvalLine {
    fn given(self, place: usize) -> std::result::Result<Given, String> {
        let (prompt, tests) = (self.prompt.clone(), Tests::Check(self.test));
        let problem = CodeProblem { prompt, entry_point: self.entry_point, tests };
        let mut given = Given::new(place, self.task_id, self.prompt, Gold::Code(problem))?;
        given.solution = Some(self.canonical_solution);
        Ok(given)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MbppLine {
    task_id: u64,
    text: String,
    code: String,
    test_setup_code: String,
    test_list: Vec<String>,
    #[serde(rename = "challenge_test_list")]
    _challenge_test_list: Vec<String>,
}

impl MbppLine {
    fn given(self, place: usize) -> std::result::Result<Given, String> {
        let text = format!("{}\n\n{}", self.text.trim(), self.test_list.join("\n"));
        let problem =
            CodeProblem::asserts(self.test_setup_code, self.test_list).ok_or("its first test calls no function")?;
        let mut given = Given::new(place, self.task_id.to_string(), text, Gold::Code(problem))?;
        given.solution = Some(self.code.replace("\r\n", "\n"));
        Ok(given)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonlLine {
    #[serde(default)]
    id: Option<Text>,
    #[serde(default)]
    cluster: Option<Text>,
    #[serde(default)]
    question: Option<String>,
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    messages: Option<Vec<Message>>,
    answer: Text,
}

/// A text, or a number that is meant as one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Text(String),
    Number(serde_json::Number),
}

impl Text {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(value) => number(&value),
        }
    }
}

impl JsonlLine {
    fn given(self, place: usize) -> std::result::Result<Given, String> {
        let answer = self.answer.into_text();
        if answer.contains("####") {
            return Err("its answer has a #### as GSM8K's have; say --task gsm8k --data FILE".into());
        }
        if answer.trim().is_empty() {
            return Err("its answer is empty".into());
        }
        let (context, text, is_whole) = match (self.question, self.prompt, self.messages) {
            (Some(question), None, None) => (Vec::new(), question, false),
            (None, Some(prompt), None) => (Vec::new(), prompt, true),
            (None, None, Some(messages)) => {
                let (context, text) = conversation(messages)?;
                (context, text, true)
            }
            _ => return Err("needs one of question, prompt and messages, and only one".into()),
        };
        let name = self.id.map_or_else(|| place.to_string(), Text::into_text);
        let solution = Some(format!("The answer is {answer}."));
        let given = Given::new(place, name, text, Gold::Math(answer))?;
        Ok(Given { cluster: self.cluster.map(Text::into_text), context, is_whole, solution, ..given })
    }
}

/// The messages before the last, and the last, which asks.
fn conversation(mut messages: Vec<Message>) -> std::result::Result<(Vec<Message>, String), String> {
    let is_plain = |message: &Message| message.content.is_some() && message.tool_calls.is_empty();
    if let Some(i) = messages.iter().position(|message| !is_plain(message)) {
        return Err(format!("message {} has no text, or calls tools", i + 1));
    }
    match messages.pop() {
        Some(Message { role: Role::User, content: Some(text), .. }) => Ok((messages, text)),
        _ => Err("messages must end with one of the user".into()),
    }
}

impl Given {
    fn new(place: usize, name: String, text: String, gold: Gold) -> std::result::Result<Self, String> {
        if text.trim().is_empty() {
            return Err("it asks nothing".into());
        }
        let (cluster, context, solution) = (None, Vec::new(), None);
        Ok(Self { place, name, cluster, context, text, is_whole: false, gold, solution })
    }

    /// The number that it is called by, as MBPP numbers its problems; 0 if that is no number.
    pub fn number(&self) -> u64 {
        self.name.parse().unwrap_or(0)
    }

    /// What two problems have in common that are one, however they are spaced and capitalized.
    pub fn asked(&self) -> String {
        let context = self.context.iter().filter_map(|message| message.content.as_deref());
        let words: Vec<String> =
            context.chain([self.text.as_str()]).flat_map(str::split_whitespace).map(str::to_lowercase).collect();
        words.join(" ")
    }
}
