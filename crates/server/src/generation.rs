//! One kind of request and one kind of event, into which and out of which every dialect translates.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use minke_chat::{ChatModel, Event, FinishReason, Piece, PolicyVersion, Request, SamplingOptions, Ticket, Usage};
use minke_engine::{Token, TokenLogProb};
use minke_text::{FunctionCall, GrammarSource, Message, Tool, ToolChoice};
use tokio::sync::Notify;

use crate::error::ApiError;

/// What a client asks for, in whatever dialect.
#[derive(Clone, Debug)]
pub(crate) struct GenerationRequest {
    pub input: Input,
    /// Sampling, length, thinking budget. The seed is drawn where the client gives none.
    pub options: SamplingOptions,
    pub seed: Option<u64>,
    pub stop: Vec<String>,
    /// Answers to one prompt.
    pub n: usize,
    pub top_log_probs: Option<usize>,
    /// What an answer must be; none for any text.
    pub format: Option<GrammarSource>,
}

impl GenerationRequest {
    pub(crate) fn new(input: Input) -> Self {
        Self {
            input,
            options: SamplingOptions::default(),
            seed: None,
            stop: Vec::new(),
            n: 1,
            top_log_probs: None,
            format: None,
        }
    }
}

/// What an answer continues.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Conversation(Conversation),
    /// A text, as ids.
    Tokens(Vec<u32>),
}

/// Messages, and what the model may do with them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conversation {
    pub messages: Vec<Message>,
    pub tools: Vec<Tool>,
    pub tool_choice: ToolChoice,
    /// Whether one answer may call several tools.
    pub parallel_tool_calls: bool,
    /// Whether the model is to think; none leaves it to the template.
    pub thinking: Option<bool>,
}

/// A token of an answer, with log-probabilities at temperature 1.
#[derive(Clone, Debug)]
pub(crate) struct TokenReport {
    pub id: u32,
    pub log_prob: f32,
    pub top: Vec<TokenLogProb>,
    /// Whether it belongs to the thought.
    pub thinks: bool,
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    Stop,
    StopString(String),
    Length,
    /// It calls tools.
    ToolCalls,
}

/// What came for one of the answers since the last time.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    pub choice: usize,
    pub pieces: Vec<Piece>,
    pub tokens: Vec<TokenReport>,
    pub usage: Usage,
    /// Which version of a policy answers, if the model is one.
    pub policy_version: Option<PolicyVersion>,
    pub end: Option<Result<Finish, ApiError>>,
}

/// What the engine's thread puts in and a connection takes out. It grows by texts alone while nobody takes: a client that does
/// not read costs little.
#[derive(Default)]
struct Mailbox {
    updates: Mutex<VecDeque<Update>>,
    filled: Notify,
}

impl Mailbox {
    fn put(&self, update: Update) {
        let mut updates = self.updates.lock().unwrap_or_else(PoisonError::into_inner);
        match updates.iter_mut().find(|waiting| waiting.choice == update.choice) {
            Some(waiting) => {
                update.pieces.into_iter().for_each(|piece| append(&mut waiting.pieces, piece));
                waiting.tokens.extend(update.tokens);
                (waiting.usage, waiting.policy_version) = (update.usage, update.policy_version);
                waiting.end = update.end;
            }
            None => updates.push_back(update),
        }
        drop(updates);
        self.filled.notify_one();
    }

    fn take(&self) -> Option<Update> {
        self.updates.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// Adds a piece, to the last one if it goes on with it.
fn append(pieces: &mut Vec<Piece>, piece: Piece) {
    match (pieces.last_mut(), piece) {
        (Some(Piece::Reasoning(last)), Piece::Reasoning(text))
        | (Some(Piece::Content(last)), Piece::Content(text))
        | (Some(Piece::Arguments(last)), Piece::Arguments(text)) => last.push_str(&text),
        (_, piece) => pieces.push(piece),
    }
}

/// Turns the events of the engine's thread into updates of one answer.
pub(crate) struct Sink {
    mailbox: Arc<Mailbox>,
    choice: usize,
    reports: bool,
    reasoning_tokens: usize,
    calls: bool,
    /// Whether the last call is not whole.
    incomplete: bool,
    usage: Usage,
    ended: bool,
}

impl Sink {
    #[cfg(test)]
    pub(crate) fn put(&mut self, update: Update) {
        self.ended |= update.end.is_some();
        self.mailbox.put(update);
    }

    pub(crate) fn take(&mut self, event: minke_chat::Result<Event>) {
        if self.ended {
            return;
        }
        let update = match event {
            Ok(event) => self.update(event),
            Err(error) => Update {
                choice: self.choice,
                pieces: Vec::new(),
                tokens: Vec::new(),
                usage: self.usage,
                policy_version: None,
                end: Some(Err(error.into())),
            },
        };
        self.ended = update.end.is_some();
        self.mailbox.put(update);
    }

    fn update(&mut self, event: Event) -> Update {
        let thinks = event.usage.reasoning_tokens > self.reasoning_tokens;
        self.reasoning_tokens = event.usage.reasoning_tokens;
        self.usage = event.usage;
        for piece in &event.pieces {
            match piece {
                Piece::Call(_) => self.calls = true,
                Piece::Incomplete => self.incomplete = true,
                Piece::ContentWasReasoning => (self.calls, self.incomplete) = (false, false),
                Piece::Reasoning(_) | Piece::Content(_) | Piece::Arguments(_) => {}
            }
        }
        let report = |token: Token| TokenReport {
            id: token.token_id,
            log_prob: token.log_prob,
            top: token.top_log_probs,
            thinks,
        };
        Update {
            choice: self.choice,
            pieces: event.pieces,
            tokens: event.token.filter(|_| self.reports).map(report).into_iter().collect(),
            usage: event.usage,
            policy_version: event.policy_version,
            end: event.finish.map(|finish| self.end(finish)),
        }
    }

    fn end(&self, finish: FinishReason) -> Result<Finish, ApiError> {
        match finish {
            // The rest of the call is missing, whatever the model meant.
            FinishReason::Stop if self.incomplete => Ok(Finish::Length),
            FinishReason::Stop if self.calls => Ok(Finish::ToolCalls),
            FinishReason::Stop => Ok(Finish::Stop),
            FinishReason::StopString(stop) => Ok(Finish::StopString(stop)),
            FinishReason::Length => Ok(Finish::Length),
            FinishReason::Cancelled => Err(ApiError::new(crate::error::Kind::Unavailable, "the answer was cancelled")),
            FinishReason::NotFinite => Err(ApiError::internal(
                "the model computed values that are not finite numbers; its files may be damaged",
            )),
            FinishReason::NothingAllowed => {
                Err(ApiError::internal("no token is left that format, bias and vocabulary allow together"))
            }
            other => Err(ApiError::internal(format!("the answer ended unexpectedly: {other:?}"))),
        }
    }
}

impl Drop for Sink {
    /// The engine's thread ended without a last event.
    fn drop(&mut self) {
        self.take(Err(minke_chat::Error::Stopped));
    }
}

/// Lists of events, each of which comes at once.
pub(crate) type Batches = Vec<Vec<Event>>;

/// The events for a request.
type Answers = dyn Fn(&ChatModel, &Request) -> Batches + Send + Sync;

/// What answers a request in place of the engine, for tests and fuzzing.
pub(crate) struct Script(Box<Answers>);

impl Script {
    pub(crate) fn new(answers: impl Fn(&ChatModel, &Request) -> Batches + Send + Sync + 'static) -> Self {
        Self(Box::new(answers))
    }

    /// Gives a sink the events for a request, while others work in between.
    pub(crate) fn answer(&self, model: &ChatModel, request: &Request, mut sink: Sink) {
        let batches = (self.0)(model, request);
        tokio::spawn(async move {
            for events in batches {
                events.into_iter().for_each(|event| sink.take(Ok(event)));
                tokio::task::yield_now().await;
            }
        });
    }
}

/// Answers that are being generated. Dropped, it cancels those that have not ended.
pub(crate) struct Generation {
    mailbox: Arc<Mailbox>,
    tickets: Vec<Ticket>,
    unfinished: usize,
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
    /// What of the requests is not obeyed to the letter.
    pub notes: Vec<String>,
}

impl Generation {
    /// Answers whose events go to the sinks, one for each.
    pub(crate) fn new(n: usize, reports: bool) -> (Self, Vec<Sink>) {
        let mailbox = Arc::<Mailbox>::default();
        let sink = |choice| Sink {
            mailbox: mailbox.clone(),
            choice,
            reports,
            reasoning_tokens: 0,
            calls: false,
            incomplete: false,
            usage: Usage::default(),
            ended: false,
        };
        let sinks = (0..n).map(sink).collect();
        (Self { mailbox, tickets: Vec::new(), unfinished: n, prompt_tokens: 0, notes: Vec::new() }, sinks)
    }

    /// Keeps what cancels an answer.
    pub(crate) fn hold(&mut self, ticket: Ticket) {
        self.tickets.push(ticket);
    }

    /// Waits for what comes next; nothing comes behind the end of the last answer.
    pub(crate) async fn next(&mut self) -> Option<Update> {
        while self.unfinished > 0 {
            if let Some(update) = self.mailbox.take() {
                self.unfinished -= usize::from(update.end.is_some());
                return Some(update);
            }
            self.mailbox.filled.notified().await;
        }
        None
    }

    /// Waits for the end of all answers.
    ///
    /// # Errors
    /// The first error of any of them.
    pub(crate) async fn whole(mut self) -> Result<Vec<Answer>, ApiError> {
        let mut answers = vec![Answer::default(); self.unfinished];
        while let Some(update) = self.next().await {
            let choice = update.choice;
            answers[choice].add(update)?;
        }
        Ok(answers)
    }
}

/// An answer that is whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub reasoning: Option<String>,
    pub content: String,
    pub calls: Vec<FunctionCall>,
    pub tokens: Vec<TokenReport>,
    pub usage: Usage,
    pub policy_version: Option<PolicyVersion>,
    pub finish: Option<Finish>,
}

impl Answer {
    /// Adds an update.
    ///
    /// # Errors
    /// The error that it ends with.
    pub(crate) fn add(&mut self, update: Update) -> Result<(), ApiError> {
        for piece in update.pieces {
            match piece {
                Piece::Reasoning(text) => self.reasoning.get_or_insert_default().push_str(&text),
                Piece::Content(text) => self.content.push_str(&text),
                Piece::ContentWasReasoning => {
                    self.reasoning = Some(std::mem::take(&mut self.content));
                    self.calls.clear();
                }
                Piece::Call(name) => self.calls.push(FunctionCall { name, arguments: String::new() }),
                Piece::Arguments(text) => {
                    if let Some(call) = self.calls.last_mut() {
                        call.arguments.push_str(&text);
                    }
                }
                Piece::Incomplete => {}
            }
        }
        self.tokens.extend(update.tokens);
        (self.usage, self.policy_version) = (update.usage, update.policy_version);
        if let Some(end) = update.end {
            self.finish = Some(end?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_joins_what_nobody_has_taken() {
        let (generation, _sinks) = Generation::new(2, false);
        let update = |choice, pieces: &[Piece]| Update {
            choice,
            pieces: pieces.to_vec(),
            tokens: Vec::new(),
            usage: Usage::default(),
            policy_version: None,
            end: None,
        };
        for _ in 0..1000 {
            generation.mailbox.put(update(1, &[Piece::Content("ab".into())]));
        }
        generation.mailbox.put(update(0, &[Piece::Reasoning("x".into())]));
        generation.mailbox.put(update(1, &[Piece::Call("f".into()), Piece::Arguments("{".into())]));
        let first = generation.mailbox.take().unwrap();
        assert_eq!((first.choice, first.pieces.len()), (1, 3));
        assert_eq!(first.pieces[0], Piece::Content("ab".repeat(1000)));
        assert_eq!(generation.mailbox.take().unwrap().choice, 0);
        assert!(generation.mailbox.take().is_none());
    }
}
