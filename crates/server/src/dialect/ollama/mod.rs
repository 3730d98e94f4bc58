//! Ollama's API: `/api/chat`, `/api/generate`, `/api/tags`, `/api/show`, `/api/ps`, `/api/version`.

pub(crate) mod models;

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use minke_chat::{Piece, Usage};
use minke_text::{FunctionCall, GrammarSource, Message, ToolCall};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::fields::{
    BodyCall, Effort, OneOrMany, Rest, RoleName, Sampling, ignored, null_is_default, one_or_many, take_fields, tools,
};
use crate::app::{App, Caller};
use crate::error::{ApiError, Dialect};
use crate::generation::{Answer, Conversation, Finish, GenerationRequest, Input, Update};
use crate::http::{JsonBody, json_with_ignored, refusal};
use crate::stream::{StreamFormat, respond};

/// A request for the next message of a conversation.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OllamaChatRequest)]
pub(crate) struct ChatBody {
    model: String,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<BodyMessage>>)]
    messages: Vec<BodyMessage>,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<Value>>)]
    tools: Vec<Value>,
    format: Option<Value>,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Options>)]
    options: Options,
    stream: Option<bool>,
    think: Option<Value>,
    #[serde(flatten)]
    #[schema(ignore)]
    rest: Rest,
}

/// A request for the continuation of a text.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OllamaGenerateRequest)]
pub(crate) struct GenerateBody {
    model: String,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<String>)]
    prompt: String,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<String>)]
    system: String,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<bool>)]
    raw: bool,
    format: Option<Value>,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Options>)]
    options: Options,
    stream: Option<bool>,
    think: Option<Value>,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<Value>>)]
    images: Vec<Value>,
    #[serde(flatten)]
    #[schema(ignore)]
    rest: Rest,
}

/// Refuses images.
fn no_images(images: &[Value], param: &str) -> Result<(), ApiError> {
    let message = "images cannot be read: this model reads text";
    if images.is_empty() { Ok(()) } else { Err(ApiError::field(param, message)) }
}

/// A message of a conversation.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OllamaMessage)]
struct BodyMessage {
    role: RoleName,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<String>)]
    content: String,
    thinking: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<Value>>)]
    images: Vec<Value>,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<BodyCall>>)]
    tool_calls: Vec<BodyCall>,
    #[serde(alias = "name")]
    tool_name: Option<String>,
    tool_call_id: Option<String>,
}

/// How to sample.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = OllamaOptions)]
struct Options {
    #[schema(minimum = 0, maximum = 100)]
    temperature: Option<f32>,
    #[schema(exclusive_minimum = 0, maximum = 1)]
    top_p: Option<f32>,
    #[schema(minimum = -1)]
    top_k: Option<i64>,
    #[schema(minimum = 0, maximum = 1)]
    min_p: Option<f32>,
    seed: Option<i64>,
    #[serde(rename = "repeat_penalty")]
    #[schema(minimum = 0.01, maximum = 100)]
    repetition_penalty: Option<f32>,
    #[schema(minimum = -2, maximum = 2)]
    presence_penalty: Option<f32>,
    #[schema(minimum = -2, maximum = 2)]
    frequency_penalty: Option<f32>,
    #[serde(default, deserialize_with = "one_or_many")]
    #[schema(value_type = Option<OneOrMany>)]
    stop: Vec<String>,
    /// Most tokens; below zero for as many as there is room for.
    num_predict: Option<i64>,
    #[serde(flatten)]
    #[schema(ignore)]
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
        Some(value) => match serde_json::from_value::<Effort>(value) {
            Ok(effort) => Ok(effort.thinks()),
            Err(error) => Err(ApiError::field("think", format!("think can be true, false or an effort: {error}"))),
        },
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
        let role = self.role.into();
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
            Input::Tokens(own.served()?.worker.model().tokenizer.encode_prompt(&body.prompt))
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

/// The next message of a conversation, or, in a stream, a part of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaChatAnswer)]
pub(crate) struct ChatAnswer<'a> {
    model: &'a str,
    created_at: String,
    message: AnswerMessage,
    done: bool,
    #[serde(flatten)]
    end: End,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaAnswerMessage)]
struct AnswerMessage {
    role: &'static str,
    content: String,
    #[serde(flatten)]
    rest: Beside,
}

/// The continuation of a text, or, in a stream, a part of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaGenerateAnswer)]
pub(crate) struct GenerateAnswer<'a> {
    model: &'a str,
    created_at: String,
    response: String,
    #[serde(flatten)]
    rest: Beside,
    done: bool,
    #[serde(flatten)]
    end: End,
}

/// What an answer has beside its text.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaBeside)]
struct Beside {
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaCall)]
struct Call {
    id: String,
    function: CalledFunction,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaFunction)]
struct CalledFunction {
    name: String,
    arguments: Map<String, Value>,
}

/// What is known at the end of an answer. Durations are nanoseconds.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = OllamaEnd)]
struct End {
    #[serde(skip_serializing_if = "Option::is_none")]
    done_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_eval_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_eval_duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_duration: Option<u64>,
}

impl End {
    fn new(finish: Option<&Finish>, usage: &Usage) -> Self {
        let nanoseconds = |seconds: f64| Some((seconds.max(0.0) * 1e9) as u64);
        Self {
            done_reason: Some(if finish == Some(&Finish::Length) { "length" } else { "stop" }),
            total_duration: nanoseconds(usage.seconds),
            load_duration: Some(0),
            prompt_eval_count: Some(usage.prompt_tokens),
            prompt_eval_duration: nanoseconds(usage.prompt_seconds),
            eval_count: Some(usage.completion_tokens),
            eval_duration: nanoseconds(usage.seconds - usage.prompt_seconds),
        }
    }
}

/// An answer of either kind.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum AnswerObject<'a> {
    Chat(ChatAnswer<'a>),
    Generate(GenerateAnswer<'a>),
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
    /// What a part is written as; the last one has an end.
    fn object(&self, part: Part, end: Option<End>) -> AnswerObject<'_> {
        let call = |call: FunctionCall| {
            let arguments = serde_json::from_str(&call.arguments).unwrap_or_default();
            Call { id: self.app.id("call_"), function: CalledFunction { name: call.name, arguments } }
        };
        let rest = Beside { thinking: part.thinking, tool_calls: part.calls.into_iter().map(call).collect() };
        let (model, created_at, done) = (self.model.as_str(), Timestamp::now().to_string(), end.is_some());
        let end = end.unwrap_or_default();
        match self.shape {
            Shape::Chat => {
                let message = AnswerMessage { role: "assistant", content: part.content, rest };
                AnswerObject::Chat(ChatAnswer { model, created_at, message, done, end })
            }
            Shape::Generate => {
                let response = part.content;
                AnswerObject::Generate(GenerateAnswer { model, created_at, response, rest, done, end })
            }
        }
    }

    fn whole(&self, answer: Answer) -> AnswerObject<'_> {
        let part = Part { content: answer.content, thinking: answer.reasoning, calls: answer.calls };
        self.object(part, Some(End::new(answer.finish.as_ref(), &answer.usage)))
    }

    fn part(&self, part: Part) -> String {
        line(&self.object(part, None))
    }

    fn end_call(&mut self) -> String {
        match self.call.take() {
            Some(call) => self.part(Part { calls: vec![call], ..Part::default() }),
            None => String::new(),
        }
    }
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("invariant: values without maps of other keys than texts are JSON") + "\n"
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
                // What was sent cannot be taken back; a call waits for its end.
                Piece::ContentWasReasoning => self.call = None,
                Piece::Incomplete => {}
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
            out += &line(&self.object(Part::default(), Some(End::new(Some(finish), &self.usage))));
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
