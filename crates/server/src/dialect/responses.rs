//! OpenAI's responses: `POST /v1/responses`, and `GET`, `DELETE` and `POST .../cancel` of those that are kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use minke_chat::{Piece, Usage};
use minke_text::{FunctionCall, Message, Role, ToolCall};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::chat::role;
use super::fields::{
    Content, Rest, Sampling, drop_nonce, effort_thinks, ignored, null_is_default, response_format, take_fields,
    tool_choice, tools,
};
use crate::app::{App, Caller, now};
use crate::error::{ApiError, Dialect, Kind};
use crate::generation::{Answer, Conversation, Finish, GenerationRequest, Input, Update};
use crate::http::{JsonBody, json as json_response, json_with_ignored, name_ignored, refusal};
use crate::kept::{Kept, KeptFormat};
use crate::stream::{StreamFormat, event, respond};

/// A request.
#[derive(Debug, Deserialize)]
pub(crate) struct Body {
    model: Option<String>,
    input: Option<BodyInput>,
    instructions: Option<String>,
    previous_response_id: Option<String>,
    max_output_tokens: Option<u64>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    seed: Option<i64>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    repetition_penalty: Option<f32>,
    #[serde(default, deserialize_with = "null_is_default")]
    stream: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    stream_options: StreamOptions,
    store: Option<bool>,
    #[serde(default, deserialize_with = "null_is_default")]
    background: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    reasoning: Reasoning,
    #[serde(default, deserialize_with = "null_is_default")]
    text: TextSettings,
    #[serde(default, deserialize_with = "null_is_default")]
    tools: Vec<Value>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    metadata: Option<Value>,
    #[serde(flatten)]
    rest: Rest,
}

/// A text, or a list of items.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum BodyInput {
    Text(String),
    Items(Vec<Value>),
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct StreamOptions {
    /// Whether `response.in_progress` comes again and again, with what was read and written so far.
    #[serde(default)]
    include_progress: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Reasoning {
    effort: Option<String>,
    /// Tokens of the thought.
    max_tokens: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct TextSettings {
    format: Option<Value>,
}

/// Fields that change no answer here.
const HARMLESS: &[&str] = &[
    "user",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "include",
    "truncation",
    "client_metadata",
];

/// The messages that items stand for, and the types of those that were left out.
fn messages(items: Vec<Value>) -> Result<(Vec<Message>, Vec<String>), ApiError> {
    let (mut messages, mut skipped) = (Vec::<Message>::new(), Vec::new());
    for (i, item) in items.into_iter().enumerate() {
        let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let content = |name: &str| {
            let value = item.get(name).cloned().unwrap_or_default();
            let content = serde_json::from_value::<Content>(value.clone()).unwrap_or(Content::Other(value));
            content.text(&format!("input[{i}].{name}"))
        };
        // What one answer of the model consists of comes as several items.
        let kind = text("type");
        match kind.as_str() {
            "" | "message" => {
                let role = role(&text("role"), &format!("input[{i}].role"))?;
                let content = content("content")?;
                match messages.last_mut().filter(|last| role == Role::Assistant && is_open(last)) {
                    Some(last) => last.content = Some(content),
                    None => messages.push(Message { role, ..Message::user(content) }),
                }
            }
            "reasoning" => {
                let thought = content("content")?;
                if !thought.is_empty() {
                    let message = Message { content: None, ..Message::assistant("") };
                    messages.push(Message { reasoning_content: Some(thought), ..message });
                }
            }
            "function_call" | "custom_tool_call" | "local_shell_call" => {
                let arguments = match kind.as_str() {
                    "function_call" => text("arguments"),
                    "custom_tool_call" => json!({"input": text("input")}).to_string(),
                    _ => item.get("action").cloned().unwrap_or_default().to_string(),
                };
                let name = if kind == "local_shell_call" { "local_shell".into() } else { text("name") };
                let function = FunctionCall { name, arguments };
                let call = ToolCall { id: Some(text("call_id")), kind: "function".into(), function };
                match messages.last_mut().filter(|last| last.role == Role::Assistant) {
                    Some(last) => last.tool_calls.push(call),
                    None => messages.push(Message::calls(vec![call])),
                }
            }
            "function_call_output" | "custom_tool_call_output" | "local_shell_call_output" => {
                let id = text("call_id");
                messages.push(Message { tool_call_id: Some(id), ..Message::tool(content("output")?) });
            }
            other => skipped.push(format!("input[{i}] ({other})")),
        }
    }
    for message in &mut messages {
        if message.content.is_none() && message.tool_calls.is_empty() {
            message.content = Some(String::new());
        }
    }
    Ok((messages, skipped))
}

/// Whether a message is a thought whose answer has not come yet.
fn is_open(message: &Message) -> bool {
    message.role == Role::Assistant && message.content.is_none() && message.tool_calls.is_empty()
}

impl Body {
    /// The request, and the names of what is ignored. `before` is the conversation that it goes on with.
    ///
    /// # Errors
    /// The first field that cannot be obeyed.
    fn request(&mut self, before: Vec<Message>) -> Result<(GenerationRequest, Vec<String>), ApiError> {
        let mut ignored = ignored(&self.rest, HARMLESS);
        let (input, skipped) = match self.input.take() {
            Some(BodyInput::Text(text)) => (vec![Message::user(text)], Vec::new()),
            Some(BodyInput::Items(items)) => messages(items)?,
            None => (Vec::new(), Vec::new()),
        };
        ignored.extend(skipped);
        let instructions = self.instructions.as_ref().map(Message::system);
        let mut messages: Vec<Message> = instructions.into_iter().chain(before).chain(input).collect();
        drop_nonce(&mut messages);
        let (tools, skipped) = tools(self.tools.clone())?;
        ignored.extend(skipped);
        // A choice of one of the tools that were left out is no choice.
        let choice = self.tool_choice.clone().filter(|choice| {
            let kind = choice.get("type").and_then(Value::as_str);
            choice.is_string() || kind.is_none_or(|kind| kind == "function")
        });
        let thinking = match &self.reasoning.effort {
            Some(effort) => effort_thinks(effort, "reasoning.effort")?,
            None => None,
        };
        let conversation = Conversation {
            messages,
            tool_choice: tool_choice(choice, &tools)?,
            tools,
            parallel_tool_calls: self.parallel_tool_calls.unwrap_or(true),
            thinking,
        };
        let mut request = GenerationRequest::new(Input::Conversation(conversation));
        let (max_tokens, this) = (self.max_output_tokens, &mut *self);
        let (temperature, top_p) = (this.temperature, this.top_p);
        let sampling = take_fields!(this => Sampling {
            top_k, min_p, seed, presence_penalty, frequency_penalty, repetition_penalty,
        });
        Sampling { temperature, top_p, max_tokens, ..sampling }.apply(&mut request)?;
        let budget = self.reasoning.max_tokens;
        request.options.think_budget = budget.map(|budget| usize::try_from(budget).unwrap_or(usize::MAX));
        request.format = response_format(self.text.format.take())?;
        Ok((request, ignored))
    }
}

/// `POST /v1/responses`
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    JsonBody(body): JsonBody<Body>,
) -> Response {
    answer(&app, caller, body).await.unwrap_or_else(|error| refusal(&error, Dialect::OpenAi))
}

async fn answer(app: &Arc<App>, caller: Caller, mut body: Body) -> Result<Response, ApiError> {
    let model = app.check_model(body.model.as_deref())?.name.clone();
    let before = match &body.previous_response_id {
        Some(id) => app.kept.conversation(id, caller.tenant).ok_or_else(|| unknown(id, "previous_response_id"))?,
        None => Vec::new(),
    };
    let (request, ignored) = body.request(before)?;
    let conversation = match &request.input {
        Input::Conversation(conversation) => conversation.messages.clone(),
        Input::Tokens(_) => Vec::new(),
    };
    let store = body.store.unwrap_or(true);
    if body.background && !store {
        return Err(ApiError::field("background", "a response in the background must be kept: leave store out"));
    }
    let mut generation = app.generate(vec![request], caller).await?;
    let ignored = [ignored, std::mem::take(&mut generation.notes)].concat();
    let stream = body.stream;
    let object = ResponseObject::new(app, model, &body);
    let format = Stream { object, number: 0, include_progress: body.stream_options.include_progress, told: None };
    if body.background {
        let kept = app.kept.begin(&app.streaming, caller.tenant, conversation, generation, Box::new(format));
        if stream {
            let mut response = kept.follow(&app.streaming, 0);
            name_ignored(&mut response, &ignored);
            return Ok(response);
        }
        return Ok(json_with_ignored(&kept.object(), &ignored));
    }
    let format = Keeping { format, conversation, caller, store, app: app.clone() };
    if stream {
        return Ok(respond(&app.streaming, generation, format, &ignored));
    }
    let mut format = format;
    let answer = generation.whole().await?.pop().unwrap_or_default();
    format.format.object.whole(answer);
    format.keep();
    Ok(json_with_ignored(&format.format.object.value(), &ignored))
}

fn unknown(id: &str, param: &str) -> ApiError {
    let message = format!("there is no response {id:?} here: it was not stored, or others took its place since");
    ApiError { param: Some(param.to_owned()), ..ApiError::new(Kind::NotFound, message) }
}

/// How a response that is kept is read.
#[derive(Debug, Deserialize)]
pub(crate) struct Reading {
    #[serde(default)]
    stream: bool,
    /// Number of the last event that was seen.
    starting_after: Option<u64>,
}

fn kept(app: &App, caller: Caller, id: &str) -> Result<Arc<Kept>, ApiError> {
    app.kept.find(id, caller.tenant).ok_or_else(|| unknown(id, "response_id"))
}

/// `GET /v1/responses/{id}`
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(reading): Query<Reading>,
) -> Response {
    match kept(&app, caller, &id) {
        Ok(kept) if reading.stream => {
            kept.follow(&app.streaming, reading.starting_after.map_or(0, |number| number + 1))
        }
        Ok(kept) => json_response(StatusCode::OK, &kept.object()),
        Err(error) => refusal(&error, Dialect::OpenAi),
    }
}

/// `POST /v1/responses/{id}/cancel`
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Response {
    match kept(&app, caller, &id) {
        Ok(kept) => {
            kept.cancel().await;
            json_response(StatusCode::OK, &kept.object())
        }
        Err(error) => refusal(&error, Dialect::OpenAi),
    }
}

/// `DELETE /v1/responses/{id}`
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Response {
    match kept(&app, caller, &id) {
        Ok(kept) => {
            kept.cancel().await;
            app.kept.remove(&id);
            json_response(StatusCode::OK, &json!({"id": id, "object": "response", "deleted": true}))
        }
        Err(error) => refusal(&error, Dialect::OpenAi),
    }
}

/// A response as it is so far.
struct ResponseObject {
    app: Arc<App>,
    id: String,
    created: u64,
    /// What is the same from beginning to end.
    settings: Value,
    status: &'static str,
    reason: Option<&'static str>,
    error: Option<Value>,
    items: Vec<Item>,
    usage: Usage,
    ended: bool,
}

/// An item of the output.
struct Item {
    id: String,
    kind: ItemKind,
    text: String,
    status: &'static str,
}

enum ItemKind {
    Reasoning,
    Message,
    Call { name: String, call_id: String },
}

impl Item {
    fn part(&self) -> Value {
        match self.kind {
            ItemKind::Reasoning => json!({"type": "reasoning_text", "text": self.text}),
            _ => json!({"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}),
        }
    }

    fn value(&self) -> Value {
        let parts = if self.text.is_empty() && self.status == "in_progress" { json!([]) } else { json!([self.part()]) };
        match &self.kind {
            ItemKind::Reasoning => {
                json!({"id": self.id, "type": "reasoning", "summary": [], "content": parts, "status": self.status})
            }
            ItemKind::Message => json!({
                "id": self.id, "type": "message", "role": "assistant", "status": self.status, "content": parts,
            }),
            ItemKind::Call { name, call_id } => json!({
                "id": self.id, "type": "function_call", "call_id": call_id, "name": name, "arguments": self.text,
                "status": self.status,
            }),
        }
    }
}

impl ResponseObject {
    fn new(app: &Arc<App>, model: String, body: &Body) -> Self {
        let format = body.text.format.clone().unwrap_or_else(|| json!({"type": "text"}));
        let settings: Value = json!({
            "model": model,
            "background": body.background,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata.clone().unwrap_or_else(|| json!({})),
            "parallel_tool_calls": body.parallel_tool_calls.unwrap_or(true),
            "previous_response_id": body.previous_response_id,
            "reasoning": {"effort": body.reasoning.effort, "summary": null},
            "store": body.store.unwrap_or(true),
            "temperature": body.temperature,
            "text": {"format": format},
            "tool_choice": body.tool_choice.clone().unwrap_or_else(|| json!("auto")),
            "tools": body.tools,
            "top_p": body.top_p,
            "truncation": "disabled",
        });
        Self {
            app: app.clone(),
            id: app.id("resp_"),
            created: now(),
            settings,
            status: "in_progress",
            reason: None,
            error: None,
            items: Vec::new(),
            usage: Usage::default(),
            ended: false,
        }
    }

    /// As JSON.
    fn value(&self) -> Value {
        self.with_output(self.items.iter().map(Item::value).collect())
    }

    /// As JSON without its output, for events that say no more than that it goes on.
    fn head(&self) -> Value {
        self.with_output(json!([]))
    }

    fn with_output(&self, output: Value) -> Value {
        let mut object = Map::new();
        object.insert("id".into(), json!(self.id));
        object.insert("object".into(), json!("response"));
        object.insert("created_at".into(), json!(self.created));
        object.insert("status".into(), json!(self.status));
        object.insert("error".into(), json!(self.error));
        object.insert("incomplete_details".into(), json!(self.reason.map(|reason| json!({"reason": reason}))));
        object.insert("output".into(), output);
        object.extend(self.settings.as_object().cloned().unwrap_or_default());
        let usage = &self.usage;
        if self.ended {
            object.insert(
                "usage".into(),
                json!({
                    "input_tokens": usage.prompt_tokens,
                    "input_tokens_details": {"cached_tokens": usage.cached_tokens},
                    "output_tokens": usage.completion_tokens,
                    "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
                    "total_tokens": usage.prompt_tokens + usage.completion_tokens,
                }),
            );
            object.insert(
                "timings".into(),
                json!({
                    "prompt_seconds": usage.prompt_seconds,
                    "reasoning_seconds": usage.reasoning_seconds,
                    "seconds": usage.seconds,
                }),
            );
        } else {
            object.insert("usage".into(), Value::Null);
        }
        Value::Object(object)
    }

    fn add(&mut self, kind: ItemKind) -> &mut Item {
        let prefix = match kind {
            ItemKind::Reasoning => "rs_",
            ItemKind::Message => "msg_",
            ItemKind::Call { .. } => "fc_",
        };
        let id = self.app.id(prefix);
        self.items.push(Item { id, kind, text: String::new(), status: "in_progress" });
        let last = self.items.len() - 1;
        &mut self.items[last]
    }

    fn call(&mut self, name: String) -> &mut Item {
        let call_id = self.app.id("call_");
        self.add(ItemKind::Call { name, call_id })
    }

    /// Fills in an answer that is whole.
    fn whole(&mut self, answer: Answer) {
        if let Some(thought) = answer.reasoning {
            self.add(ItemKind::Reasoning).text = thought;
        }
        if !answer.content.is_empty() || answer.calls.is_empty() {
            self.add(ItemKind::Message).text = answer.content;
        }
        for call in answer.calls {
            self.call(call.name).text = call.arguments;
        }
        self.usage = answer.usage;
        self.end(answer.finish.as_ref());
        let status = self.status;
        let last = self.items.len() - 1;
        for (i, item) in self.items.iter_mut().enumerate() {
            item.status = if i == last { status } else { "completed" };
        }
    }

    fn end(&mut self, finish: Option<&Finish>) {
        self.ended = true;
        match finish {
            Some(Finish::Length) => (self.status, self.reason) = ("incomplete", Some("max_output_tokens")),
            _ => self.status = "completed",
        }
    }

    fn fail(&mut self, error: &ApiError) {
        self.ended = true;
        self.status = "failed";
        self.error = Some(json!({"code": error.code(), "message": error.message}));
    }

    /// The response was cancelled.
    fn cancelled(&mut self) {
        if !self.ended {
            self.ended = true;
            self.status = "cancelled";
        }
    }

    /// What the model said, as a message of the conversation that goes on.
    fn message(&self) -> Message {
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

/// A stream of events.
struct Stream {
    object: ResponseObject,
    /// Number of the next event.
    number: u64,
    include_progress: bool,
    /// When progress was told last.
    told: Option<Instant>,
}

/// Shortest time between two tellings of progress while a prompt is read, and while an answer is written.
const PROGRESS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

impl Stream {
    fn send(&mut self, name: &'static str, mut data: Value) -> String {
        data["type"] = json!(name);
        data["sequence_number"] = json!(self.number);
        self.number += 1;
        event(Some(name), &data)
    }

    fn whole(&mut self, name: &'static str) -> String {
        let response = self.object.value();
        self.send(name, json!({"response": response}))
    }

    fn progress(&mut self) -> String {
        let usage = &self.object.usage;
        let pause = if usage.completion_tokens == 0 { PROGRESS.0 } else { PROGRESS.1 };
        if !self.include_progress || self.told.is_some_and(|told| told.elapsed() < pause) {
            return String::new();
        }
        self.told = Some(Instant::now());
        let progress = json!({
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "prefilled_tokens": usage.prefilled_tokens,
            "completion_tokens": usage.completion_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "seconds": usage.seconds,
        });
        let response = self.object.head();
        self.send("response.in_progress", json!({"response": response, "progress": progress}))
    }

    /// Where the last item stands, for its events.
    fn place(&self) -> Value {
        let index = self.object.items.len() - 1;
        json!({"item_id": self.object.items[index].id, "output_index": index, "content_index": 0})
    }

    fn is_open(&self, wanted: fn(&ItemKind) -> bool) -> bool {
        self.object.items.last().is_some_and(|item| item.status == "in_progress" && wanted(&item.kind))
    }

    /// Tells of the item that was added last.
    fn added(&mut self) -> String {
        let index = self.object.items.len() - 1;
        let item = self.object.items[index].value();
        let is_call = matches!(self.object.items[index].kind, ItemKind::Call { .. });
        let mut out = self.send("response.output_item.added", json!({"output_index": index, "item": item}));
        if !is_call {
            let mut data = self.place();
            data["part"] = self.object.items[index].part();
            out += &self.send("response.content_part.added", data);
        }
        out
    }

    fn delta(&mut self, name: &'static str, text: String) -> String {
        let mut data = self.place();
        if name == "response.output_text.delta" {
            data["logprobs"] = json!([]);
        }
        data["delta"] = json!(text);
        if let Some(item) = self.object.items.last_mut() {
            item.text.push_str(&text);
        }
        self.send(name, data)
    }

    /// Ends the item that is open.
    fn close(&mut self, status: &'static str) -> String {
        let Some(item) = self.object.items.last_mut().filter(|item| item.status == "in_progress") else {
            return String::new();
        };
        item.status = status;
        let (text, part, value) = (item.text.clone(), item.part(), item.value());
        let (name, field) = match &item.kind {
            ItemKind::Reasoning => ("response.reasoning_text.done", "text"),
            ItemKind::Message => ("response.output_text.done", "text"),
            ItemKind::Call { .. } => ("response.function_call_arguments.done", "arguments"),
        };
        let mut data = self.place();
        data[field] = json!(text);
        if name == "response.output_text.done" {
            data["logprobs"] = json!([]);
        }
        if let Some(ItemKind::Call { name, .. }) = self.object.items.last().map(|item| &item.kind) {
            data["name"] = json!(name);
        }
        let mut out = self.send(name, data);
        if field == "text" {
            let mut data = self.place();
            data["part"] = part;
            out += &self.send("response.content_part.done", data);
        }
        let index = self.object.items.len() - 1;
        out + &self.send("response.output_item.done", json!({"output_index": index, "item": value}))
    }

    fn piece(&mut self, piece: Piece) -> String {
        match piece {
            Piece::Reasoning(text) => {
                let begin = if self.is_open(|kind| matches!(kind, ItemKind::Reasoning)) {
                    String::new()
                } else {
                    let closed = self.close("completed");
                    self.object.add(ItemKind::Reasoning);
                    closed + &self.added()
                };
                begin + &self.delta("response.reasoning_text.delta", text)
            }
            Piece::Content(text) => {
                let begin = if self.is_open(|kind| matches!(kind, ItemKind::Message)) {
                    String::new()
                } else {
                    let closed = self.close("completed");
                    self.object.add(ItemKind::Message);
                    closed + &self.added()
                };
                begin + &self.delta("response.output_text.delta", text)
            }
            // What was sent cannot be taken back.
            Piece::ContentWasReasoning | Piece::Incomplete => String::new(),
            Piece::Call(name) => {
                let closed = self.close("completed");
                self.object.call(name);
                closed + &self.added()
            }
            Piece::Arguments(text) => self.delta("response.function_call_arguments.delta", text),
        }
    }
}

impl StreamFormat for Stream {
    fn start(&mut self) -> String {
        self.whole("response.created") + &self.whole("response.in_progress")
    }

    fn update(&mut self, update: Update) -> String {
        self.object.usage = update.usage;
        let mut out: String = update.pieces.into_iter().map(|piece| self.piece(piece)).collect();
        if let Some(Ok(finish)) = &update.end {
            if self.object.items.is_empty() {
                self.object.add(ItemKind::Message);
                out += &self.added();
            }
            out += &self.close(if *finish == Finish::Length { "incomplete" } else { "completed" });
            self.object.end(Some(finish));
        } else {
            out += &self.progress();
        }
        out
    }

    fn finish(&mut self) -> String {
        let name = if self.object.status == "incomplete" { "response.incomplete" } else { "response.completed" };
        self.whole(name)
    }

    fn error(&mut self, error: &ApiError) -> String {
        self.object.fail(error);
        self.whole("response.failed")
    }

    fn keepalive(&mut self) -> String {
        let response = self.object.head();
        self.send("response.in_progress", json!({"response": response}))
    }
}

impl KeptFormat for Stream {
    fn id(&self) -> &str {
        &self.object.id
    }

    fn object(&self) -> Value {
        self.object.value()
    }

    fn message(&self) -> Message {
        self.object.message()
    }

    fn cancel(&mut self) {
        self.object.cancelled();
    }
}

/// A stream whose response is kept when it has ended, if it is to be.
struct Keeping {
    format: Stream,
    conversation: Vec<Message>,
    caller: Caller,
    store: bool,
    app: Arc<App>,
}

impl Keeping {
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
