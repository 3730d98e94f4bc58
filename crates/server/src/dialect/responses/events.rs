//! A response as a stream of events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use minke_chat::Piece;
use minke_text::Message;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::object::{ItemKind, OutputItem, OutputPart, ResponseObject, ResponseState, Status};
use crate::app::{App, Caller};
use crate::error::ApiError;
use crate::generation::{Answer, Finish, Update};
use crate::kept::KeptFormat;
use crate::stream::{StreamFormat, typed_event};

/// An event of a stream.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResponseEvent)]
pub(crate) struct Event<'a> {
    #[serde(flatten)]
    what: What<'a>,
    sequence_number: u64,
}

/// What an event tells.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResponseEventKind)]
#[serde(tag = "type")]
enum What<'a> {
    #[serde(rename = "response.created")]
    Created { response: ResponseObject<'a> },
    #[serde(rename = "response.in_progress")]
    InProgress {
        response: ResponseObject<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        progress: Option<Progress>,
    },
    #[serde(rename = "response.completed")]
    Completed { response: ResponseObject<'a> },
    #[serde(rename = "response.incomplete")]
    Incomplete { response: ResponseObject<'a> },
    #[serde(rename = "response.failed")]
    Failed { response: ResponseObject<'a> },
    #[serde(rename = "response.output_item.added")]
    ItemAdded { output_index: usize, item: OutputItem<'a> },
    #[serde(rename = "response.output_item.done")]
    ItemDone { output_index: usize, item: OutputItem<'a> },
    #[serde(rename = "response.content_part.added")]
    PartAdded {
        #[serde(flatten)]
        place: Place<'a>,
        part: OutputPart<'a>,
    },
    #[serde(rename = "response.content_part.done")]
    PartDone {
        #[serde(flatten)]
        place: Place<'a>,
        part: OutputPart<'a>,
    },
    #[serde(rename = "response.reasoning_text.delta")]
    ReasoningDelta {
        #[serde(flatten)]
        place: Place<'a>,
        delta: &'a str,
    },
    #[serde(rename = "response.reasoning_text.done")]
    ReasoningDone {
        #[serde(flatten)]
        place: Place<'a>,
        text: &'a str,
    },
    #[serde(rename = "response.output_text.delta")]
    TextDelta {
        #[serde(flatten)]
        place: Place<'a>,
        delta: &'a str,
        /// Always empty.
        logprobs: Vec<Value>,
    },
    #[serde(rename = "response.output_text.done")]
    TextDone {
        #[serde(flatten)]
        place: Place<'a>,
        text: &'a str,
        /// Always empty.
        logprobs: Vec<Value>,
    },
    #[serde(rename = "response.function_call_arguments.delta")]
    ArgumentsDelta {
        #[serde(flatten)]
        place: Place<'a>,
        delta: &'a str,
    },
    #[serde(rename = "response.function_call_arguments.done")]
    ArgumentsDone {
        #[serde(flatten)]
        place: Place<'a>,
        name: &'a str,
        arguments: &'a str,
    },
}

/// What was read and written so far.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResponseProgress)]
struct Progress {
    prompt_tokens: usize,
    cached_tokens: usize,
    prefilled_tokens: usize,
    completion_tokens: usize,
    reasoning_tokens: usize,
    seconds: f64,
}

/// Where the last item stands.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = ResponsePlace)]
struct Place<'a> {
    item_id: &'a str,
    output_index: usize,
    content_index: usize,
}

/// A stream of events.
pub(super) struct Stream {
    object: ResponseState,
    /// Number of the next event.
    number: u64,
    include_progress: bool,
    /// When progress was told last.
    told: Option<Instant>,
}

/// Shortest time between two tellings of progress while a prompt is read, and while an answer is written.
const PROGRESS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

/// Writes the next event.
fn send(number: &mut u64, what: What<'_>) -> String {
    let event = Event { what, sequence_number: *number };
    *number += 1;
    typed_event(&event)
}

impl Stream {
    pub(super) fn new(object: ResponseState, include_progress: bool) -> Self {
        Self { object, number: 0, include_progress, told: None }
    }

    fn progress(&mut self) -> String {
        let usage = &self.object.usage;
        let pause = if usage.completion_tokens == 0 { PROGRESS.0 } else { PROGRESS.1 };
        if !self.include_progress || self.told.is_some_and(|told| told.elapsed() < pause) {
            return String::new();
        }
        self.told = Some(Instant::now());
        let progress = Progress {
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.cached_tokens,
            prefilled_tokens: usage.prefilled_tokens,
            completion_tokens: usage.completion_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            seconds: usage.seconds,
        };
        let response = self.object.head();
        send(&mut self.number, What::InProgress { response, progress: Some(progress) })
    }

    /// Ends the item that is open and begins another.
    fn open(&mut self, kind: ItemKind) -> String {
        let mut out = self.close(Status::Completed);
        self.object.add(kind);
        let output_index = self.object.items.len() - 1;
        let item = &self.object.items[output_index];
        out += &send(&mut self.number, What::ItemAdded { output_index, item: item.object() });
        if !matches!(item.kind, ItemKind::Call { .. }) {
            let place = Place { item_id: &item.id, output_index, content_index: 0 };
            out += &send(&mut self.number, What::PartAdded { place, part: item.part() });
        }
        out
    }

    fn is_open(&self, wanted: fn(&ItemKind) -> bool) -> bool {
        self.object.items.last().is_some_and(|item| item.status == Status::InProgress && wanted(&item.kind))
    }

    /// Adds to the item that is open.
    fn delta(&mut self, delta: &str) -> String {
        let output_index = self.object.items.len().saturating_sub(1);
        let Some(item) = self.object.items.last_mut() else { return String::new() };
        item.text.push_str(delta);
        let place = Place { item_id: &item.id, output_index, content_index: 0 };
        let what = match item.kind {
            ItemKind::Reasoning => What::ReasoningDelta { place, delta },
            ItemKind::Message => What::TextDelta { place, delta, logprobs: Vec::new() },
            ItemKind::Call { .. } => What::ArgumentsDelta { place, delta },
        };
        send(&mut self.number, what)
    }

    /// Ends the item that is open.
    fn close(&mut self, status: Status) -> String {
        let output_index = self.object.items.len().saturating_sub(1);
        let Some(item) = self.object.items.last_mut().filter(|item| item.status == Status::InProgress) else {
            return String::new();
        };
        item.status = status;
        let (item, number) = (&*item, &mut self.number);
        let (place, text) = (Place { item_id: &item.id, output_index, content_index: 0 }, item.text.as_str());
        let part = || What::PartDone { place, part: item.part() };
        let told = match &item.kind {
            ItemKind::Reasoning => send(number, What::ReasoningDone { place, text }) + &send(number, part()),
            ItemKind::Message => {
                send(number, What::TextDone { place, text, logprobs: Vec::new() }) + &send(number, part())
            }
            ItemKind::Call { name, .. } => send(number, What::ArgumentsDone { place, name, arguments: text }),
        };
        told + &send(number, What::ItemDone { output_index, item: item.object() })
    }

    fn piece(&mut self, piece: Piece) -> String {
        match piece {
            Piece::Reasoning(text) => {
                let begin = match self.is_open(|kind| matches!(kind, ItemKind::Reasoning)) {
                    true => String::new(),
                    false => self.open(ItemKind::Reasoning),
                };
                begin + &self.delta(&text)
            }
            Piece::Content(text) => {
                let begin = match self.is_open(|kind| matches!(kind, ItemKind::Message)) {
                    true => String::new(),
                    false => self.open(ItemKind::Message),
                };
                begin + &self.delta(&text)
            }
            // What was sent cannot be taken back.
            Piece::ContentWasReasoning | Piece::Incomplete => String::new(),
            Piece::Call(name) => {
                let call = self.object.call(name);
                self.open(call)
            }
            Piece::Arguments(text) => self.delta(&text),
        }
    }
}

impl StreamFormat for Stream {
    fn start(&mut self) -> String {
        let created = send(&mut self.number, What::Created { response: self.object.object() });
        created + &self.keepalive()
    }

    fn update(&mut self, update: Update) -> String {
        self.object.usage = update.usage;
        let mut out: String = update.pieces.into_iter().map(|piece| self.piece(piece)).collect();
        if let Some(Ok(finish)) = &update.end {
            if self.object.items.is_empty() {
                out += &self.open(ItemKind::Message);
            }
            out += &self.close(if *finish == Finish::Length { Status::Incomplete } else { Status::Completed });
            self.object.end(Some(finish));
        } else {
            out += &self.progress();
        }
        out
    }

    fn finish(&mut self) -> String {
        let response = self.object.object();
        let what = match self.object.status {
            Status::Incomplete => What::Incomplete { response },
            _ => What::Completed { response },
        };
        send(&mut self.number, what)
    }

    fn error(&mut self, error: &ApiError) -> String {
        self.object.fail(error);
        send(&mut self.number, What::Failed { response: self.object.object() })
    }

    fn keepalive(&mut self) -> String {
        send(&mut self.number, What::InProgress { response: self.object.head(), progress: None })
    }
}

impl KeptFormat for Stream {
    fn id(&self) -> &str {
        &self.object.id
    }

    fn object(&self) -> Value {
        serde_json::to_value(self.object.object()).unwrap_or_default()
    }

    fn message(&self) -> Message {
        self.object.message()
    }

    fn cancel(&mut self) {
        self.object.cancelled();
    }
}

/// A stream whose response is kept when it has ended, if it is to be.
pub(super) struct Keeping {
    pub format: Stream,
    pub conversation: Vec<Message>,
    pub caller: Caller,
    pub store: bool,
    pub app: Arc<App>,
}

impl Keeping {
    /// The response of an answer that is whole.
    pub(super) fn whole(&mut self, answer: Answer) -> ResponseObject<'_> {
        self.format.object.whole(answer);
        self.keep();
        self.format.object.object()
    }

    fn keep(&mut self) {
        if self.store {
            let conversation = std::mem::take(&mut self.conversation);
            self.app.kept.keep(&self.format, self.caller.tenant, conversation);
        }
    }
}

impl StreamFormat for Keeping {
    fn start(&mut self) -> String {
        self.format.start()
    }

    fn update(&mut self, update: Update) -> String {
        self.format.update(update)
    }

    fn finish(&mut self) -> String {
        let out = self.format.finish();
        self.keep();
        out
    }

    fn error(&mut self, error: &ApiError) -> String {
        self.format.error(error)
    }

    fn keepalive(&mut self) -> String {
        self.format.keepalive()
    }
}
