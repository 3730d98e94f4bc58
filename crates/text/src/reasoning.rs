//! Which part of what the model says is thought, and which is the answer?
//!
//! R1's convention: `<think>`, newline, reasoning, newline, `</think>`, blank line, answer. The opening tag usually stands
//! in the prompt already, so that only the closing one comes back: a parser therefore starts in the state of the rendered
//! prompt. An answer has one thought: the first `<think>` opens it, the first `</think>` after that closes it, and every
//! further tag is removed without effect. Newlines around the reasoning and in front of the answer belong to the
//! convention, not to the text, and are removed too.

use crate::{THINK_CLOSE, THINK_OPEN};

/// A piece of text, told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReasoningEvent {
    /// The next piece of the thought.
    Reasoning(String),
    /// The next piece of the answer.
    Content(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Before,
    Inside,
    After,
}

/// Tells thought and answer apart while the text arrives; how it is cut into pieces changes neither.
///
/// ```
/// use minke_text::{ReasoningEvent::*, ReasoningParser};
/// let mut parser = ReasoningParser::new("<｜User｜>Hi<｜Assistant｜>");
/// assert_eq!(parser.push("<think>\nA greeting.\n</th"), [Reasoning("A greeting.".into())]);
/// assert_eq!(parser.push("ink>\n"), []);
/// assert_eq!(parser.push("\nHello!"), [Content("Hello!".into())]);
/// assert_eq!(parser.finish(), []);
/// ```
#[derive(Clone, Debug)]
pub struct ReasoningParser {
    state: State,
    /// What was read since the last tag that counted and has not been given out.
    held: String,
    /// Whether anything was given out since then: only before that are newlines dropped.
    started: bool,
}

impl ReasoningParser {
    /// A parser for the continuation of this rendered prompt: inside the thought if the prompt ends with `<think>`, after it
    /// if it ends with `</think>`.
    pub fn new(prompt: &str) -> Self {
        let state = match (opens_thought(prompt), closes_thought(prompt)) {
            (true, _) => State::Inside,
            (_, true) => State::After,
            _ => State::Before,
        };
        ReasoningParser { state, held: String::new(), started: false }
    }

    /// Whether the next text belongs to the thought.
    pub fn is_thinking(&self) -> bool {
        self.state == State::Inside
    }

    /// The pieces that this text completes.
    pub fn push(&mut self, text: &str) -> Vec<ReasoningEvent> {
        let mut events = Vec::new();
        for c in text.chars() {
            self.held.push(c);
            if c == '>' {
                self.take_tag(&mut events);
            }
        }
        self.give_out(self.decided(), &mut events);
        events
    }

    /// The pieces that were held back in case a tag would come.
    pub fn finish(mut self) -> Vec<ReasoningEvent> {
        let mut events = Vec::new();
        self.close_part(&mut events);
        events
    }

    /// Removes the tag with which `held` ends, if it does, and acts on it.
    fn take_tag(&mut self, events: &mut Vec<ReasoningEvent>) {
        let tag = match [THINK_OPEN, THINK_CLOSE].into_iter().find(|tag| self.held.ends_with(tag)) {
            Some(tag) => tag,
            None => return,
        };
        self.held.truncate(self.held.len() - tag.len());
        let next = match (self.state, tag) {
            (State::Before, THINK_OPEN) => State::Inside,
            (State::Inside, THINK_CLOSE) => State::After,
            _ => return,
        };
        if self.state == State::Before {
            // Space in front of the thought is no answer, and half a tag could meet its other half behind the thought.
            self.held.truncate(self.decided());
        }
        self.close_part(events);
        self.state = next;
        self.started = false;
    }

    fn close_part(&mut self, events: &mut Vec<ReasoningEvent>) {
        let end = match self.state {
            State::Inside => self.held.trim_end_matches(is_newline).len(),
            State::Before | State::After => self.held.len(),
        };
        self.give_out(end, events);
        self.held.clear();
    }

    /// How much of `held` no later text can turn into a tag or into newlines that are dropped.
    fn decided(&self) -> usize {
        let mut end = self.held.len();
        loop {
            let mut cut = end;
            // One beginning of a tag after the other: when a stray tag between two halves is removed, they meet.
            if let Some(start) = self.held[..cut].rfind('<')
                && [THINK_OPEN, THINK_CLOSE].iter().any(|tag| tag.starts_with(&self.held[start..cut]))
            {
                cut = start;
            }
            if self.state == State::Inside {
                cut = self.held[..cut].trim_end_matches(is_newline).len();
            }
            if cut == end {
                break;
            }
            end = cut;
        }
        let only_space = self.held[..end].trim().is_empty();
        if self.state == State::Before && !self.started && only_space { 0 } else { end }
    }

    fn give_out(&mut self, end: usize, events: &mut Vec<ReasoningEvent>) {
        let given: String = self.held.drain(..end).collect();
        let text = if self.started { given.as_str() } else { given.trim_start_matches(is_newline) };
        if text.is_empty() {
            return;
        }
        self.started = true;
        match (self.state, events.last_mut()) {
            (State::Inside, _) => events.push(ReasoningEvent::Reasoning(text.into())),
            (_, Some(ReasoningEvent::Content(last))) => last.push_str(text),
            _ => events.push(ReasoningEvent::Content(text.into())),
        }
    }
}

/// A finished text, told apart: what graders and format rewards look at.
///
/// ```
/// let thought = minke_text::split("<｜Assistant｜><think>\n", "2+2\n</think>\n\n4");
/// assert_eq!((thought.reasoning.as_deref(), thought.content.as_str()), (Some("2+2"), "4"));
/// assert!(thought.closed && thought.format_ok);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thought {
    /// The thought, without tags and the newlines around it; `None` if none was opened, neither by the prompt nor by the
    /// text.
    pub reasoning: Option<String>,
    /// The answer, without tags and the newlines in front of it.
    pub content: String,
    /// Whether the thought was closed: false too where there is none.
    pub closed: bool,
    /// Whether prompt and text together have exactly one `<think>` and then exactly one `</think>`, with nothing before, a
    /// thought within and an answer after.
    pub format_ok: bool,
}

/// The thought and the answer of a finished text that continues this prompt.
///
/// # Paper
/// R1 2.2.2 (format reward)
pub fn split(prompt: &str, text: &str) -> Thought {
    let mut parser = ReasoningParser::new(prompt);
    let mut events = parser.push(text);
    let state = parser.state;
    events.extend(parser.finish());

    let (mut reasoning, mut content) = (String::new(), String::new());
    for event in events {
        match event {
            ReasoningEvent::Reasoning(piece) => reasoning.push_str(&piece),
            ReasoningEvent::Content(piece) => content.push_str(&piece),
        }
    }
    let opening_ok = match (opens_thought(prompt), text.matches(THINK_OPEN).count()) {
        (true, tags) => tags == 0,
        (false, tags) => tags == 1 && text.trim_start().starts_with(THINK_OPEN),
    };
    let both_filled = !reasoning.trim().is_empty() && !content.trim().is_empty();
    Thought {
        reasoning: (state != State::Before && !closes_thought(prompt)).then_some(reasoning),
        closed: state == State::After && !closes_thought(prompt),
        format_ok: opening_ok && text.matches(THINK_CLOSE).count() == 1 && both_filled,
        content,
    }
}

/// Whether the continuation of this prompt starts inside a thought.
fn opens_thought(prompt: &str) -> bool {
    prompt.trim_end().ends_with(THINK_OPEN)
}

/// Whether the prompt already holds a whole thought, which may be empty: the continuation is all answer.
fn closes_thought(prompt: &str) -> bool {
    prompt.trim_end().ends_with(THINK_CLOSE)
}

fn is_newline(c: char) -> bool {
    matches!(c, '\n' | '\r')
}
