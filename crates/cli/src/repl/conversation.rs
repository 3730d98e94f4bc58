//! The conversation so far: turns of question and answer, as the model reads them and as a person keeps them.

use minke_chat::Reply;
use minke_text::Message;
use serde::{Deserialize, Serialize};

use crate::ask::finish_reason;

/// A conversation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// Instructions before the first turn; R1 does without.
    pub system: Option<String>,
    /// The turns, the first one first.
    pub turns: Vec<Turn>,
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// What the person said.
    pub question: String,
    /// The thought; kept for the person, the model does not see it again.
    pub reasoning: Option<String>,
    /// The answer, as far as it came.
    pub answer: String,
    /// Why it ended, as in `--json`.
    pub finish: String,
    /// Tokens of the thought.
    pub thought_tokens: usize,
    /// Seconds of the thought.
    pub thought_seconds: f64,
}

impl Turn {
    /// The turn of a question that was answered.
    pub fn new(question: String, reply: Reply) -> Self {
        Self {
            question,
            finish: finish_reason(&reply.finish).into(),
            reasoning: reply.reasoning,
            answer: reply.content,
            thought_tokens: reply.usage.reasoning_tokens,
            thought_seconds: reply.usage.reasoning_seconds,
        }
    }
}

impl Conversation {
    /// What the model reads: the thoughts of earlier turns are left out.
    pub fn messages(&self) -> Vec<Message> {
        let system = self.system.iter().map(Message::system);
        let turn = |turn: &Turn| [Message::user(&turn.question), Message::assistant(&turn.answer)];
        system.chain(self.turns.iter().flat_map(turn)).collect()
    }

    /// The same with another question at the end.
    pub fn asking(&self, question: &str) -> Vec<Message> {
        let mut messages = self.messages();
        messages.push(Message::user(question));
        messages
    }

    /// Everything as Markdown; thoughts can be unfolded.
    pub fn markdown(&self) -> String {
        let mut text = String::from("# Conversation\n");
        if let Some(system) = &self.system {
            text.push_str(&format!("\n## System\n\n{system}\n"));
        }
        for turn in &self.turns {
            text.push_str(&format!("\n## User\n\n{}\n\n## Assistant\n", turn.question));
            if let Some(reasoning) = &turn.reasoning {
                let (tokens, seconds) = (turn.thought_tokens, turn.thought_seconds);
                let summary = format!("<summary>Thought for {seconds:.0} s, {tokens} tokens</summary>");
                text.push_str(&format!("\n<details>{summary}\n\n{reasoning}\n\n</details>\n"));
            }
            text.push_str(&format!("\n{}\n", turn.answer));
            if turn.finish != "stop" {
                text.push_str(&format!("\n*(ended early: {})*\n", turn.finish));
            }
        }
        text
    }
}
