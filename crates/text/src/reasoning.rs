//! The thought and the answer in what a model generates.
//!
//! R1's convention: `<think>`, newline, reasoning, newline, `</think>`, blank line, answer. The opening tag usually stands
//! in the prompt already, so that only the closing one comes back: a parser therefore starts in the state of the rendered
//! prompt. A response has one thought: the first `<think>` opens it, the first `</think>` after that closes it, and every
//! further tag is removed without effect. A `</think>` without a `<think>` makes all text before it the thought: some
//! templates open it in a way that the prompt does not show, and some models leave the opening tag out. Newlines around the
//! reasoning and in front of the answer belong to the convention, not to the text, and are removed too.
//!
//! A tag that is a token of the vocabulary counts by its id, special or not, and its letters in other tokens are text; one
//! that is not a token counts as text.

use crate::Rendered;
use crate::tags::{THINK_CLOSE, THINK_OPEN, ThinkTag, ThinkTokens};

/// A piece of thought or answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReasoningEvent {
    /// The next piece of the thought.
    Reasoning(String),
    /// The next piece of the answer.
    Content(String),
    /// All content so far was the thought: it was closed without having been opened.
    ContentWasReasoning,
}

impl ReasoningEvent {
    /// Adds the piece to the thought and the answer so far.
    pub fn add_to(&self, reasoning: &mut String, content: &mut String) {
        match self {
            Self::Reasoning(text) => reasoning.push_str(text),
            Self::Content(text) => content.push_str(text),
            Self::ContentWasReasoning => reasoning.push_str(&std::mem::take(content)),
        }
    }
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
    /// Tags that count where they stand in the text.
    text_tags: Vec<ThinkTag>,
    /// What was read since the last tag that counted and has not been given out.
    held: String,
    /// Whether anything was given out since then: only before that are newlines dropped.
    started: bool,
}

impl ReasoningParser {
    /// A parser for the text that continues this rendered prompt: inside the thought if the prompt ends with `<think>`, after
    /// it if it ends with `</think>`.
    pub fn new(prompt: &str) -> Self {
        Self::for_tokens(prompt, &ThinkTokens::default())
    }

    /// The same for a response that comes token by token: tags that are tokens are given to [`ReasoningParser::push_tag`] and
    /// mean nothing in the text.
    pub fn for_tokens(prompt: &str, tokens: &ThinkTokens) -> Self {
        let state = match (opens_thought(prompt), closes_thought(prompt)) {
            (true, _) => State::Inside,
            (_, true) => State::After,
            _ => State::Before,
        };
        let text_tags = ThinkTag::ALL.into_iter().filter(|&tag| tokens.id(tag).is_none()).collect();
        ReasoningParser { state, text_tags, held: String::new(), started: false }
    }

    /// The same behind a rendered prompt: a tag at its end counts only if the template wrote it.
    pub fn for_rendered(prompt: &Rendered, tokens: &ThinkTokens) -> Self {
        Self::for_tokens(prompt.end(), tokens)
    }

    /// Whether the next text belongs to the thought.
    pub fn is_thinking(&self) -> bool {
        self.state == State::Inside
    }

    /// Whether no thought was opened or closed so far, neither by the prompt nor behind it.
    pub fn is_before_thought(&self) -> bool {
        self.state == State::Before
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

    /// The pieces that a tag completes which came as a token.
    pub fn push_tag(&mut self, tag: ThinkTag) -> Vec<ReasoningEvent> {
        let mut events = Vec::new();
        self.apply_tag(tag, &mut events);
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
        let Some(&tag) = self.text_tags.iter().find(|tag| self.held.ends_with(tag.text())) else { return };
        self.held.truncate(self.held.len() - tag.text().len());
        self.apply_tag(tag, events);
    }

    fn apply_tag(&mut self, tag: ThinkTag, events: &mut Vec<ReasoningEvent>) {
        match (self.state, tag) {
            (State::Before, ThinkTag::Open) => {
                // Space in front of the thought is no answer, and half a tag could meet its other half behind the thought.
                self.held.truncate(self.free_of_tags(false));
                self.close_part(events);
                self.state = State::Inside;
            }
            (State::Before, ThinkTag::Close) if self.started || !self.held.trim().is_empty() => {
                if self.started {
                    events.push(ReasoningEvent::ContentWasReasoning);
                }
                self.state = State::Inside;
                self.close_part(events);
                self.state = State::After;
            }
            (State::Inside, ThinkTag::Close) => {
                self.close_part(events);
                self.state = State::After;
            }
            _ => return,
        }
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
        // Before a thought, too, newlines may turn out to be the end of one.
        self.free_of_tags(self.state != State::After)
    }

    fn free_of_tags(&self, of_newlines: bool) -> usize {
        let mut end = self.held.len();
        loop {
            let mut cut = end;
            // One beginning of a tag after the other: when a stray tag between two halves is removed, they meet.
            if let Some(start) = self.held[..cut].rfind('<')
                && self.text_tags.iter().any(|tag| tag.text().starts_with(&self.held[start..cut]))
            {
                cut = start;
            }
            if of_newlines {
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
    /// The thought, without tags and the newlines around it; `None` if none was opened or closed, neither by
    /// the prompt nor by the text.
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
    events.iter().for_each(|event| event.add_to(&mut reasoning, &mut content));
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
