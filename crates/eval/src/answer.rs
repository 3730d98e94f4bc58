//! An answer to a problem, graded: what evaluations count and files of results have, one row each.

use std::collections::HashSet;

use minke_engine::{Completion, Finish};
use minke_text::{THINK_CLOSE, THINK_OPEN, Thought, Tokenizer, split};
use serde::{Deserialize, Serialize};

use crate::{Problem, Prompt, Result, Task, Verdict};

/// An answer with its grade.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// What its file calls the problem.
    pub id: String,
    /// What the problem is not independent of; nothing if it is on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<u64>,
    /// Which of the answers to it, from 0.
    pub sample: usize,
    /// What came back, thought included.
    pub text: String,
    /// The grader's verdict.
    pub verdict: Verdict,
    /// The form under which equal answers are counted together; nothing for no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vote: Option<String>,
    /// Whether it is exactly one thought and then an answer.
    pub format: bool,
    /// Attempts that the thought shows, if its task has such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<usize>,
    /// Of those, the ones that the thought shows for a second time or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<usize>,
    /// Whether the thought ends by claiming success, if its task has such claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims_success: Option<bool>,
    /// How it was drawn; nothing for an answer that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drawn: Option<Drawn>,
}

/// How an answer was drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drawn {
    /// Seed of its sequence.
    pub seed: u64,
    /// Length in tokens, end token included.
    pub tokens: usize,
    /// Length of its thought in tokens, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thought_tokens: Option<usize>,
    /// Why it ended.
    pub finish: FinishName,
}

/// Why an answer ended, as a file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishName {
    /// By an end token, or a text that ends it.
    Stop,
    /// The cap, or the context, cut it off.
    Length,
    /// The model's logits were not finite.
    NotFinite,
    /// Otherwise.
    Other,
}

impl From<&Finish> for FinishName {
    fn from(finish: &Finish) -> Self {
        match finish {
            Finish::Stop(_) => Self::Stop,
            Finish::Length => Self::Length,
            Finish::NotFinite => Self::NotFinite,
            _ => Self::Other,
        }
    }
}

/// One completion, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Right or wrong.
    pub verdict: Verdict,
    /// The answer, taken apart.
    pub thought: Thought,
    /// Attempts that the thought shows, if its task has such.
    pub attempts: Option<usize>,
    /// Of those, the ones that the thought shows for a second time or more.
    pub repeats: Option<usize>,
    /// Whether the thought ends by claiming success, if its task has such claims.
    pub claims_success: Option<bool>,
}

/// Judges a completion of a prompt, for rewards and evaluations alike.
///
/// # Paper
/// - R1 2.2.2 (accuracy by rule, format)
///
/// # Errors
/// As [`Task::grade`].
pub fn judge(task: &Task, problem: &Problem, prompt: &str, completion: &str) -> Result<Judged> {
    let thought = split(prompt, completion);
    let reasoning = thought.reasoning.as_deref().unwrap_or("");
    let attempts = task.attempts(reasoning);
    let repeats = |attempts: &Vec<&str>| attempts.len() - attempts.iter().collect::<HashSet<_>>().len();
    Ok(Judged {
        verdict: task.grade(problem, &thought.content)?,
        repeats: attempts.as_ref().map(repeats),
        attempts: attempts.map(|attempts| attempts.len()),
        claims_success: task.claims_success(reasoning),
        thought,
    })
}

impl Answer {
    /// The graded form of a text that another program gave.
    ///
    /// # Errors
    /// As [`Task::grade`].
    pub fn given(task: &Task, problem: &Problem, sample: usize, text: String) -> Result<Self> {
        Ok(Self::judged(task, problem, "", sample, text)?.0)
    }

    /// The graded form of a completion.
    pub(crate) fn drawn(
        task: &Task,
        problem: &Problem,
        prompt: &Prompt,
        (sample, seed): (usize, u64),
        completion: &Completion,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let text = tokenizer.decode(&completion.token_ids, true);
        let (answer, has_thought) = Self::judged(task, problem, &prompt.text, sample, prompt.cut(&text).to_owned())?;
        let thought_tokens = has_thought.then(|| thought_tokens(tokenizer, &completion.token_ids));
        let (tokens, finish) = (completion.token_ids.len(), FinishName::from(&completion.finish));
        Ok(Self { drawn: Some(Drawn { seed, tokens, thought_tokens, finish }), ..answer })
    }

    /// An answer, and whether it has a thought.
    fn judged(task: &Task, problem: &Problem, prompt: &str, sample: usize, text: String) -> Result<(Self, bool)> {
        let Judged { verdict, thought, attempts, repeats, claims_success } = judge(task, problem, prompt, &text)?;
        let vote = task.answer_key(problem, &thought.content);
        let (id, format) = (problem.name.clone(), thought.format_ok);
        let cluster = (problem.cluster != problem.id).then_some(problem.cluster);
        let answer =
            Self { id, cluster, sample, text, verdict, vote, format, attempts, repeats, claims_success, drawn: None };
        Ok((answer, thought.reasoning.is_some()))
    }

    /// Whether it is right.
    pub fn is_right(&self) -> bool {
        self.verdict == Verdict::Right
    }
}

/// How many tokens of a completion belong to its thought, without the tags.
fn thought_tokens(tokenizer: &Tokenizer, token_ids: &[u32]) -> usize {
    let position = |token: &str| {
        let id = tokenizer.id_of(token)?;
        token_ids.iter().position(|&other| other == id)
    };
    let end = position(THINK_CLOSE).unwrap_or(token_ids.len());
    let start = position(THINK_OPEN).map_or(0, |open| open + 1);
    end.saturating_sub(start)
}
