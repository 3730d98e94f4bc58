//! What a request brings back: events while it is worked on, and the reply that they add up to.

use minke_engine::{Finish, Token};
use minke_text::{FunctionCall, ReasoningEvent, ToolEvent};
use minke_weights::PolicyVersion;

/// A piece of an answer, told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The next piece of the thought.
    Reasoning(String),
    /// The next piece of the text for the person.
    Content(String),
    /// All content so far was the thought: it was closed without having been opened. Calls so far are none.
    ContentWasReasoning,
    /// A call of this tool begins.
    Call(String),
    /// The next piece of the arguments of the call that began last, in JSON.
    Arguments(String),
    /// The answer ended inside the call that began last: its arguments are not whole.
    Incomplete,
}

impl From<ReasoningEvent> for Piece {
    fn from(event: ReasoningEvent) -> Self {
        match event {
            ReasoningEvent::Reasoning(text) => Self::Reasoning(text),
            ReasoningEvent::Content(text) => Self::Content(text),
            ReasoningEvent::ContentWasReasoning => Self::ContentWasReasoning,
        }
    }
}

impl From<ToolEvent> for Piece {
    fn from(event: ToolEvent) -> Self {
        match event {
            ToolEvent::Content(text) => Self::Content(text),
            ToolEvent::Call(name) => Self::Call(name),
            ToolEvent::Arguments(text) => Self::Arguments(text),
            ToolEvent::Incomplete => Self::Incomplete,
        }
    }
}

/// What one step brought to one request.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Event {
    /// Counts and times so far.
    pub usage: Usage,
    /// Which version of a policy answers, if the model is one.
    pub policy_version: Option<PolicyVersion>,
    /// The token of this step; none while the prompt is computed.
    pub token: Option<Token>,
    /// New pieces of text; none while the prompt is computed, or while a character or a tag is incomplete.
    pub pieces: Vec<Piece>,
    /// Set in the event in which the thought was closed by the program and not by the model.
    pub thought_closed: Option<ThoughtLimit>,
    /// Set in the last event.
    pub finish: Option<FinishReason>,
}

/// Why a thought was closed by the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThoughtLimit {
    /// It had as many tokens as it was allowed.
    Budget,
    /// It was one span of tokens over and over.
    Repetition,
}

/// Why an answer ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended it.
    Stop,
    /// This one of the request's stop strings came.
    StopString(String),
    /// It reached its largest number of tokens, the model's context or the size of the cache.
    Length,
    /// It was cancelled; also what a reply says to which the last event has not come.
    #[default]
    Cancelled,
    /// The model computed values that are not finite numbers.
    NotFinite,
    /// What its sampling forbids left no token.
    NothingAllowed,
    /// The constraint on its tokens panicked.
    ConstraintPanicked,
}

impl From<Finish> for FinishReason {
    fn from(finish: Finish) -> Self {
        match finish {
            Finish::Stop(_) => Self::Stop,
            Finish::Length => Self::Length,
            Finish::Cancelled => Self::Cancelled,
            Finish::NotFinite => Self::NotFinite,
            Finish::NothingAllowed => Self::NothingAllowed,
            Finish::ConstraintPanicked => Self::ConstraintPanicked,
        }
    }
}

/// Counts and times of one request.
///
/// # Units
/// tokens, and seconds since the request was submitted
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt whose keys and values were found in the cache.
    pub cached_tokens: usize,
    /// Tokens of the prompt that are in the cache, found or computed; all of them when the first token comes.
    pub prefilled_tokens: usize,
    /// Tokens behind the prompt, thought included.
    pub completion_tokens: usize,
    /// Tokens of the thought.
    pub reasoning_tokens: usize,
    /// Time until the first token.
    pub prompt_seconds: f64,
    /// Time from the first token to the last one of the thought.
    pub reasoning_seconds: f64,
    /// Time until this event.
    pub seconds: f64,
}

/// The sum of the events of a request.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Reply {
    /// The thought; none if there was none.
    pub reasoning: Option<String>,
    /// The answer.
    pub content: String,
    /// The tools that it calls: names and arguments.
    pub calls: Vec<FunctionCall>,
    /// Why it ended.
    pub finish: FinishReason,
    /// Why the thought was closed, if the model did not do it.
    pub thought_closed: Option<ThoughtLimit>,
    /// Counts and times.
    pub usage: Usage,
}

impl Reply {
    /// Adds what a step brought.
    pub fn add(&mut self, event: &Event) {
        for piece in &event.pieces {
            match piece {
                Piece::Reasoning(text) => self.reasoning.get_or_insert_default().push_str(text),
                Piece::Content(text) => self.content.push_str(text),
                Piece::ContentWasReasoning => {
                    self.reasoning = Some(std::mem::take(&mut self.content));
                    self.calls.clear();
                }
                Piece::Call(name) => {
                    self.calls.push(FunctionCall { name: name.clone(), arguments: String::new() });
                }
                Piece::Arguments(text) => {
                    if let Some(call) = self.calls.last_mut() {
                        call.arguments.push_str(text);
                    }
                }
                Piece::Incomplete => {}
            }
        }
        self.thought_closed = self.thought_closed.or(event.thought_closed);
        if let Some(finish) = &event.finish {
            self.finish = finish.clone();
        }
        self.usage = event.usage;
    }
}
