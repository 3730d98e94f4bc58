//! Ollama's API: `/api/chat`, `/api/generate`, `/api/tags`, `/api/show`, `/api/ps`, `/api/version`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use minke_chat::{Piece, Thinking as ModelThinks, Usage};
use minke_text::{FunctionCall, GrammarSource, Message, ToolCall};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::chat::role;
use super::fields::{
    BodyCall, Rest, Sampling, effort_thinks, ignored, null_is_default, one_or_many, take_fields, tools,
};
use crate::app::{App, Caller, Served};
use crate::error::{ApiError, Dialect};
use crate::generation::{Answer, Conversation, Finish, GenerationRequest, Input, Update};
use crate::http::{JsonBody, json as json_response, json_with_ignored, refusal};
use crate::stream::{StreamFormat, respond};

/// A request for the next message of a conversation.
#[derive(Debug, Deserialize)]
pub(crate) struct ChatBody {
    model: String,
    #[serde(default, deserialize_with = "null_is_default")]
    messages: Vec<BodyMessage>,
    #[serde(default, deserialize_with = "null_is_default")]
    tools: Vec<Value>,
    format: Option<Value>,
    #[serde(default, deserialize_with = "null_is_default")]
    options: Options,
    stream: Option<bool>,
    think: Option<Value>,
    #[serde(flatten)]
    rest: Rest,
}

/// A request for the continuation of a text.
#[derive(Debug, Deserialize)]
pub(crate) struct GenerateBody {
    model: String,
    #[serde(default, deserialize_with = "null_is_default")]
    prompt: String,
    #[serde(default, deserialize_with = "null_is_default")]
    system: String,
    #[serde(default, deserialize_with = "null_is_default")]
    raw: bool,
    format: Option<Value>,
    #[serde(default, deserialize_with = "null_is_default")]
    options: Options,
    stream: Option<bool>,
    think: Option<Value>,
    #[serde(default, deserialize_with = "null_is_default")]
    images: Vec<Value>,
    #[serde(flatten)]
    rest: Rest,
}

/// Refuses images.
fn no_images(images: &[Value], param: &str) -> Result<(), ApiError> {
    let message = "images cannot be read: this model reads text";
    if images.is_empty() { Ok(()) } else { Err(ApiError::field(param, message)) }
}

#[derive(Debug, Deserialize)]
struct BodyMessage {
    role: String,
    #[serde(default, deserialize_with = "null_is_default")]
    content: String,
    thinking: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    images: Vec<Value>,
    #[serde(default, deserialize_with = "null_is_default")]
    tool_calls: Vec<BodyCall>,
    #[serde(alias = "name")]
    tool_name: Option<String>,
    tool_call_id: Option<String>,
}

/// How to sample.
#[derive(Debug, Default, Deserialize)]
struct Options {
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    seed: Option<i64>,
    #[serde(rename = "repeat_penalty")]
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    #[serde(default, deserialize_with = "one_or_many")]
    stop: Vec<String>,
    /// Most tokens; below zero for as many as there is room for.
    num_predict: Option<i64>,
    #[serde(flatten)]
    rest: Rest,
}

/// Fields that change no answer here: the context is as long as memory allows, and the model stays loaded.
const HARMLESS: &[&str] = &["keep_alive"];
const HARMLESS_OPTIONS: &[&str] =
    &["num_ctx", "num_batch", "num_thread", "num_gpu", "num_keep", "use_mmap", "main_gpu"];

impl Options {
    /// Sets what is said.
    ///
    /// # Errors
    /// The first option that cannot be obeyed.
    fn apply(mut self, request: &mut GenerationRequest) -> Result<Vec<String>, ApiError> {
        let max_tokens = self.num_predict.and_then(|tokens| u64::try_from(tokens).ok());
        let sampling = take_fields!(self => Sampling {
            temperature, top_p, top_k, min_p, seed, repetition_penalty, presence_penalty, frequency_penalty, stop,
        });
        Sampling { max_tokens, ..sampling }.apply(request)?;
        let unknown = ignored(&self.rest, HARMLESS_OPTIONS);
        Ok(unknown.into_iter().map(|name| format!("options.{name}")).collect())
    }
}

/// What Ollama calls a format: the word `json`, or a schema.
fn format(value: Option<Value>) -> Result<Option<GrammarSource>, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(word)) if word.is_empty() => Ok(None),
        Some(Value::String(word)) if word == "json" => Ok(Some(GrammarSource::JsonObject)),
        Some(schema @ Value::Object(_)) => Ok(Some(GrammarSource::JsonSchema(schema))),
        Some(_) => Err(ApiError::field("format", "format can be \"json\" or a JSON schema")),
    }
}

/// Whether to think: a switch, or an effort.
fn think(value: Option<Value>) -> Result<Option<bool>, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(on)) => Ok(Some(on)),
        Some(Value::String(effort)) => effort_thinks(&effort, "think"),
        Some(_) => Err(ApiError::field("think", "think can be true, false or an effort")),
    }
}

/// The name as Ollama's clients write it, without the tag that they add.
fn model_name(name: &str) -> &str {
    name.strip_suffix(":latest").unwrap_or(name)
}

impl BodyMessage {
    fn message(self, i: usize) -> Result<Message, ApiError> {
        no_images(&self.images, &format!("messages[{i}].images"))?;
        let tool_calls: Vec<ToolCall> = self.tool_calls.into_iter().map(ToolCall::from).collect();
        let content = if self.content.is_empty() && !tool_calls.is_empty() { None } else { Some(self.content) };
        let role = role(&self.role, &format!("messages[{i}].role"))?;
        let reasoning_content = self.thinking.filter(|thought| !thought.is_empty());
        let (tool_call_id, name) = (self.tool_call_id, self.tool_name);
        Ok(Message { role, content, reasoning_content, tool_calls, tool_call_id, name })
    }
}

/// `POST /api/chat`
pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    JsonBody(body): JsonBody<ChatBody>,
) -> Response {
    let request = || -> Result<_, ApiError> {
        let ignored = ignored(&body.rest, HARMLESS);
        let messages: Vec<Message> =
            body.messages.into_iter().enumerate().map(|(i, message)| message.message(i)).collect::<Result<_, _>>()?;
        let (tools, skipped) = tools(body.tools)?;
        let thinking = think(body.think)?;
        let conversation =
            Conversation { messages, tools, thinking, parallel_tool_calls: true, ..Conversation::default() };
        let mut request = GenerationRequest::new(Input::Conversation(conversation));
        let unknown = body.options.apply(&mut request)?;
        request.format = format(body.format)?;
        Ok((request, [ignored, skipped, unknown].concat()))
    };
    answer(&app, caller, &body.model, body.stream, request(), Shape::Chat).await
}

/// `POST /api/generate`
pub(crate) async fn generate(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    JsonBody(body): JsonBody<GenerateBody>,
) -> Response {
    let (own, model, stream) = (app.clone(), body.model.clone(), body.stream);
    let request = move || -> Result<_, ApiError> {
        let ignored = ignored(&body.rest, HARMLESS);
        no_images(&body.images, "images")?;
        let input = if body.raw {
            let tokenizer = &own.served()?.worker.model().tokenizer;
            Input::Tokens(tokenizer.encode_prompt(&body.prompt))
        } else {
            let system = Some(body.system).filter(|system| !system.is_empty()).map(Message::system);
            let messages = system.into_iter().chain([Message::user(body.prompt)]).collect();
            Input::Conversation(Conversation { messages, thinking: think(body.think)?, ..Conversation::default() })
        };
        let mut request = GenerationRequest::new(input);
        let unknown = body.options.apply(&mut request)?;
        request.format = format(body.format)?;
        Ok((request, [ignored, unknown].concat()))
    };
    let request = app.blocking(request).await;
    answer(&app, caller, &model, stream, request, Shape::Generate).await
}

async fn answer(
    app: &Arc<App>,
    caller: Caller,
    model: &str,
    stream: Option<bool>,
    request: Result<(GenerationRequest, Vec<String>), ApiError>,
    shape: Shape,
) -> Response {
    let answered = async {
        app.check_model(Some(model_name(model)))?;
        let (request, ignored) = request?;
        let mut generation = app.generate(vec![request], caller).await?;
        let ignored = [ignored, std::mem::take(&mut generation.notes)].concat();
        let format = Stream { app: app.clone(), model: model.to_owned(), shape, call: None, usage: Usage::default() };
        // Ollama streams unless it is told not to.
        if stream.unwrap_or(true) {
            return Ok(respond(&app.streaming, generation, format, &ignored));
        }
        let answer = generation.whole().await?.pop().unwrap_or_default();
        Ok(json_with_ignored(&format.whole(answer), &ignored))
    };
    answered.await.unwrap_or_else(|error: ApiError| refusal(&error, Dialect::Ollama))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Chat,
    Generate,
}

/// A stream of lines of JSON.
struct Stream {
    app: Arc<App>,
    model: String,
    shape: Shape,
    /// The call that is being written; Ollama's clients want it whole.
    call: Option<FunctionCall>,
    usage: Usage,
}

/// An answer, or a part of one.
#[derive(Default)]
struct Part {
    content: String,
    thinking: Option<String>,
    calls: Vec<FunctionCall>,
}

impl Stream {
    fn object(&self, part: Part, done: bool) -> Map<String, Value> {
        let mut object = Map::new();
        object.insert("model".into(), json!(self.model));
        object.insert("created_at".into(), json!(Timestamp::now().to_string()));
        let mut message = Map::new();
        let text = if self.shape == Shape::Chat { "content" } else { "response" };
        message.insert(text.into(), json!(part.content));
        if let Some(thinking) = part.thinking {
            message.insert("thinking".into(), json!(thinking));
        }
        if !part.calls.is_empty() {
            let call = |call: &FunctionCall| {
                let arguments = serde_json::from_str::<Map<String, Value>>(&call.arguments).unwrap_or_default();
                json!({"id": self.app.id("call_"), "function": {"name": call.name, "arguments": arguments}})
            };
            message.insert("tool_calls".into(), part.calls.iter().map(call).collect());
        }
        match self.shape {
            Shape::Chat => {
                message.insert("role".into(), json!("assistant"));
                object.insert("message".into(), Value::Object(message));
            }
            Shape::Generate => object.extend(message),
        }
        object.insert("done".into(), json!(done));
        object
    }

    fn last(&self, part: Part, finish: Option<&Finish>, usage: &Usage) -> Value {
        let mut object = self.object(part, true);
        let nanoseconds = |seconds: f64| (seconds.max(0.0) * 1e9) as u64;
        let reason = if finish == Some(&Finish::Length) { "length" } else { "stop" };
        object.insert("done_reason".into(), json!(reason));
        object.insert("total_duration".into(), json!(nanoseconds(usage.seconds)));
        object.insert("load_duration".into(), json!(0));
        object.insert("prompt_eval_count".into(), json!(usage.prompt_tokens));
        object.insert("prompt_eval_duration".into(), json!(nanoseconds(usage.prompt_seconds)));
        object.insert("eval_count".into(), json!(usage.completion_tokens));
        object.insert("eval_duration".into(), json!(nanoseconds(usage.seconds - usage.prompt_seconds)));
        Value::Object(object)
    }

    fn whole(&self, answer: Answer) -> Value {
        let part = Part { content: answer.content, thinking: answer.reasoning, calls: answer.calls };
        self.last(part, answer.finish.as_ref(), &answer.usage)
    }

    fn part(&self, part: Part) -> String {
        line(&Value::Object(self.object(part, false)))
    }

    fn end_call(&mut self) -> String {
        match self.call.take() {
            Some(call) => self.part(Part { calls: vec![call], ..Part::default() }),
            None => String::new(),
        }
    }
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

impl StreamFormat for Stream {
    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn start(&mut self) -> String {
        String::new()
    }

    fn update(&mut self, update: Update) -> String {
        self.usage = update.usage;
        let mut out = String::new();
        for piece in update.pieces {
            match piece {
                Piece::Reasoning(text) => out += &self.part(Part { thinking: Some(text), ..Part::default() }),
                Piece::Content(text) => {
                    out += &self.end_call();
                    out += &self.part(Part { content: text, ..Part::default() });
                }
                // What was sent cannot be taken back.
                Piece::ContentWasReasoning | Piece::Incomplete => {}
                Piece::Call(name) => {
                    out += &self.end_call();
                    self.call = Some(FunctionCall { name, arguments: String::new() });
                }
                Piece::Arguments(text) => {
                    if let Some(call) = &mut self.call {
                        call.arguments.push_str(&text);
                    }
                }
            }
        }
        if let Some(Ok(finish)) = &update.end {
            out += &self.end_call();
            out += &line(&self.last(Part::default(), Some(finish), &self.usage));
        }
        out
    }

    fn finish(&mut self) -> String {
        String::new()
    }

    fn error(&mut self, error: &ApiError) -> String {
        line(&error.ollama())
    }

    fn keepalive(&mut self) -> String {
        self.part(Part::default())
    }
}

/// What Ollama tells of a model.
fn details(served: &Served) -> Value {
    let about = &served.worker.model().summary;
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": about.architecture,
        "families": [about.architecture],
        "parameter_size": format!("{:.1}B", about.parameters as f64 / 1e9),
        "quantization_level": about.quantization,
    })
}

fn listed(served: &Served) -> Value {
    let identity = served.worker.model().identity;
    let digest: String = identity.iter().map(|byte| format!("{byte:02x}")).collect();
    let modified = i64::try_from(served.since).ok().and_then(|since| Timestamp::from_second(since).ok());
    json!({
        "name": served.name,
        "model": served.name,
        "modified_at": modified.map(|time| time.to_string()),
        "size": served.worker.model().summary.bytes,
        "digest": digest,
        "details": details(served),
    })
}

/// `GET /api/tags`
pub(crate) async fn tags(State(app): State<Arc<App>>) -> Response {
    let models: Vec<Value> = app.served().into_iter().map(listed).collect();
    json_response(StatusCode::OK, &json!({"models": models}))
}

/// `GET /api/ps`
pub(crate) async fn running(State(app): State<Arc<App>>) -> Response {
    let entry = |served: &Served| {
        let mut entry = listed(served);
        // It stays loaded as long as the server runs.
        entry["expires_at"] = json!("9999-12-31T23:59:59Z");
        entry["size_vram"] = json!(0);
        entry["context_length"] = json!(served.worker.limit());
        entry
    };
    let models: Vec<Value> = app.served().into_iter().map(entry).collect();
    json_response(StatusCode::OK, &json!({"models": models}))
}

/// `GET /api/version`
pub(crate) async fn version() -> Response {
    json_response(StatusCode::OK, &json!({"version": env!("CARGO_PKG_VERSION")}))
}

/// Which model is asked about.
#[derive(Debug, Deserialize)]
pub(crate) struct ShowBody {
    #[serde(alias = "name")]
    model: String,
}

/// `POST /api/show`
pub(crate) async fn show(State(app): State<Arc<App>>, JsonBody(body): JsonBody<ShowBody>) -> Response {
    let served = match app.check_model(Some(model_name(&body.model))) {
        Ok(served) => served,
        Err(error) => return refusal(&error, Dialect::Ollama),
    };
    let model = served.worker.model();
    let about = &model.summary;
    let mut capabilities = vec!["completion", "tools"];
    if about.thinking != ModelThinks::Never {
        capabilities.push("thinking");
    }
    let info = BTreeMap::from([
        ("general.architecture".to_owned(), json!(about.architecture)),
        ("general.parameter_count".to_owned(), json!(about.parameters)),
        (format!("{}.context_length", about.architecture), json!(served.worker.limit())),
    ]);
    json_response(
        StatusCode::OK,
        &json!({
            "modelfile": "",
            "parameters": "",
            "template": model.template.source(),
            "details": details(served),
            "model_info": info,
            "capabilities": capabilities,
        }),
    )
}
