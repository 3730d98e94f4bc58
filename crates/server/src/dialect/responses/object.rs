//! The response: what it is as JSON, and how it comes to be.

use std::sync::Arc;

use minke_chat::Usage;
use minke_text::{FunctionCall, Message, ToolCall};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::request::Body;
use crate::app::{App, now};
use crate::dialect::fields::Effort;
use crate::error::ApiError;
use crate::generation::{Answer, Finish};

/// A response, as it is so far.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Response)]
pub(crate) struct ResponseObject<'a> {
    id: &'a str,
    object: &'static str,
    /// Seconds since 1970.
    created_at: u64,
    status: Status,
    error: Option<&'a ResponseError>,
    incomplete_details: Option<IncompleteDetails>,
    output: Vec<OutputItem<'a>>,
    #[serde(flatten)]
    settings: &'a Settings,
    /// Null until the end.
    usage: Option<UsageCounts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ResponseStatus)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    InProgress,
    Completed,
    Incomplete,
    Failed,
    Cancelled,
}

#[derive(Debug, Serialize, ToSchema)]
struct ResponseError {
    code: &'static str,
    message: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct IncompleteDetails {
    reason: &'static str,
}

/// What is the same from beginning to end: what the request said.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResponseSettings)]
struct Settings {
    model: String,
    background: bool,
    instructions: Option<String>,
    max_output_tokens: Option<u64>,
    metadata: Value,
    parallel_tool_calls: bool,
    previous_response_id: Option<String>,
    reasoning: ReasoningSetting,
    store: bool,
    temperature: Option<f32>,
    text: TextSetting,
    tool_choice: Value,
    tools: Vec<Value>,
    top_p: Option<f32>,
    truncation: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
struct ReasoningSetting {
    effort: Option<Effort>,
    summary: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct TextSetting {
    format: Value,
}

/// An item of the output.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum OutputItem<'a> {
    Reasoning {
        id: &'a str,
        /// Always empty: the thought itself is shown.
        summary: Vec<Value>,
        content: Vec<OutputPart<'a>>,
        status: Status,
    },
    Message {
        id: &'a str,
        role: &'static str,
        status: Status,
        content: Vec<OutputPart<'a>>,
    },
    FunctionCall {
        id: &'a str,
        call_id: &'a str,
        name: &'a str,
        arguments: &'a str,
        status: Status,
    },
}

/// A part of an item.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum OutputPart<'a> {
    ReasoningText {
        text: &'a str,
    },
    OutputText {
        text: &'a str,
        /// Always empty.
        annotations: Vec<Value>,
        /// Always empty.
        logprobs: Vec<Value>,
    },
}

/// Counts of tokens.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResponseUsage)]
struct UsageCounts {
    input_tokens: usize,
    input_tokens_details: InputDetails,
    output_tokens: usize,
    output_tokens_details: OutputDetails,
    total_tokens: usize,
}

#[derive(Debug, Serialize, ToSchema)]
struct InputDetails {
    /// Of which the cache had what they stand for.
    cached_tokens: usize,
}

#[derive(Debug, Serialize, ToSchema)]
struct OutputDetails {
    reasoning_tokens: usize,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResponseTimings)]
struct Timings {
    prompt_seconds: f64,
    reasoning_seconds: f64,
    seconds: f64,
}

/// A response while it comes to be.
pub(super) struct ResponseState {
    app: Arc<App>,
    pub id: String,
    created: u64,
    settings: Settings,
    pub status: Status,
    reason: Option<&'static str>,
    error: Option<ResponseError>,
    pub items: Vec<Item>,
    pub usage: Usage,
    ended: bool,
}

/// An item while it comes to be.
pub(super) struct Item {
    pub id: String,
    pub kind: ItemKind,
    pub text: String,
    pub status: Status,
}

pub(super) enum ItemKind {
    Reasoning,
    Message,
    Call { name: String, call_id: String },
}

impl Item {
    pub(super) fn part(&self) -> OutputPart<'_> {
        let text = &self.text;
        match self.kind {
            ItemKind::Reasoning => OutputPart::ReasoningText { text },
            _ => OutputPart::OutputText { text, annotations: Vec::new(), logprobs: Vec::new() },
        }
    }

    pub(super) fn object(&self) -> OutputItem<'_> {
        let (id, status) = (self.id.as_str(), self.status);
        let begun = !self.text.is_empty() || status != Status::InProgress;
        let content = begun.then(|| self.part()).into_iter().collect();
        match &self.kind {
            ItemKind::Reasoning => OutputItem::Reasoning { id, summary: Vec::new(), content, status },
            ItemKind::Message => OutputItem::Message { id, role: "assistant", status, content },
            ItemKind::Call { name, call_id } => {
                OutputItem::FunctionCall { id, call_id, name, arguments: &self.text, status }
            }
        }
    }
}

impl ResponseState {
    pub(super) fn new(app: &Arc<App>, model: String, body: Body) -> Self {
        let settings = Settings {
            model,
            background: body.background,
            instructions: body.instructions,
            max_output_tokens: body.max_output_tokens,
            metadata: body.metadata.unwrap_or_else(|| json!({})),
            parallel_tool_calls: body.parallel_tool_calls.unwrap_or(true),
            previous_response_id: body.previous_response_id,
            reasoning: ReasoningSetting { effort: body.reasoning.effort, summary: None },
            store: body.store.unwrap_or(true),
            temperature: body.temperature,
            text: TextSetting { format: body.text.format.unwrap_or_else(|| json!({"type": "text"})) },
            tool_choice: body.tool_choice.unwrap_or_else(|| json!("auto")),
            tools: body.tools,
            top_p: body.top_p,
            truncation: "disabled",
        };
        Self {
            app: app.clone(),
            id: app.id("resp_"),
            created: now(),
            settings,
            status: Status::InProgress,
            reason: None,
            error: None,
            items: Vec::new(),
            usage: Usage::default(),
            ended: false,
        }
    }

    pub(super) fn object(&self) -> ResponseObject<'_> {
        ResponseObject { output: self.items.iter().map(Item::object).collect(), ..self.head() }
    }

    /// Without its output, for events that say no more than that it goes on.
    pub(super) fn head(&self) -> ResponseObject<'_> {
        let usage = &self.usage;
        let counts = UsageCounts {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputDetails { cached_tokens: usage.cached_tokens },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputDetails { reasoning_tokens: usage.reasoning_tokens },
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
        };
        let timings = Timings {
            prompt_seconds: usage.prompt_seconds,
            reasoning_seconds: usage.reasoning_seconds,
            seconds: usage.seconds,
        };
        ResponseObject {
            id: &self.id,
            object: "response",
            created_at: self.created,
            status: self.status,
            error: self.error.as_ref(),
            incomplete_details: self.reason.map(|reason| IncompleteDetails { reason }),
            output: Vec::new(),
            settings: &self.settings,
            usage: self.ended.then_some(counts),
            timings: self.ended.then_some(timings),
        }
    }

    pub(super) fn add(&mut self, kind: ItemKind) -> &mut Item {
        let prefix = match kind {
            ItemKind::Reasoning => "rs_",
            ItemKind::Message => "msg_",
            ItemKind::Call { .. } => "fc_",
        };
        let id = self.app.id(prefix);
        self.items.push(Item { id, kind, text: String::new(), status: Status::InProgress });
        let last = self.items.len() - 1;
        &mut self.items[last]
    }

    /// The kind of an item that calls a tool.
    pub(super) fn call(&self, name: String) -> ItemKind {
        ItemKind::Call { name, call_id: self.app.id("call_") }
    }

    /// Fills in an answer that is whole.
    pub(super) fn whole(&mut self, answer: Answer) {
        if let Some(thought) = answer.reasoning {
            self.add(ItemKind::Reasoning).text = thought;
        }
        if !answer.content.is_empty() || answer.calls.is_empty() {
            self.add(ItemKind::Message).text = answer.content;
        }
        for call in answer.calls {
            let kind = self.call(call.name);
            self.add(kind).text = call.arguments;
        }
        self.usage = answer.usage;
        self.end(answer.finish.as_ref());
        let status = self.status;
        let last = self.items.len() - 1;
        for (i, item) in self.items.iter_mut().enumerate() {
            item.status = if i == last { status } else { Status::Completed };
        }
    }

    pub(super) fn end(&mut self, finish: Option<&Finish>) {
        self.ended = true;
        match finish {
            Some(Finish::Length) => (self.status, self.reason) = (Status::Incomplete, Some("max_output_tokens")),
            _ => self.status = Status::Completed,
        }
    }

    pub(super) fn fail(&mut self, error: &ApiError) {
        self.ended = true;
        self.status = Status::Failed;
        self.error = Some(ResponseError { code: error.code(), message: error.message.clone() });
    }

    /// The response was cancelled.
    pub(super) fn cancelled(&mut self) {
        if !self.ended {
            self.ended = true;
            self.status = Status::Cancelled;
        }
    }

    /// What the model said, as a message of the conversation that goes on.
    pub(super) fn message(&self) -> Message {
        let text = |wanted: fn(&ItemKind) -> bool| {
            self.items.iter().find(|item| wanted(&item.kind)).map(|item| item.text.clone())
        };
        let tool_calls = self.items.iter().filter_map(|item| match &item.kind {
            ItemKind::Call { name, call_id } => {
                let function = FunctionCall { name: name.clone(), arguments: item.text.clone() };
                Some(ToolCall { id: Some(call_id.clone()), kind: "function".into(), function })
            }
            _ => None,
        });
        let message = Message {
            content: text(|kind| matches!(kind, ItemKind::Message)),
            reasoning_content: text(|kind| matches!(kind, ItemKind::Reasoning)),
            tool_calls: tool_calls.collect(),
            ..Message::assistant("")
        };
        let empty = message.content.is_none() && message.tool_calls.is_empty();
        if empty { Message { content: Some(String::new()), ..message } } else { message }
    }
}
