//! Anthropic's messages: `POST /v1/messages` and `POST /v1/messages/count_tokens`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use minke_chat::{Piece, Usage};
use minke_text::{FunctionCall, Message, Role, Tool, ToolCall, ToolChoice};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::fields::{
    Decision, Effort, Rest, Sampling, Thinking, ThinkingField, drop_nonce, ignored, null_is_default, response_format,
    take_fields,
};
use crate::app::{App, Caller};
use crate::error::{ApiError, Dialect};
use crate::generation::{Answer, Conversation, Finish, GenerationRequest, Input, Update};
use crate::http::{JsonBody, json, json_with_ignored, refusal};
use crate::stream::{StreamFormat, event, respond, typed_event};

/// A request.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = MessagesRequest)]
pub(crate) struct Body {
    model: Option<String>,
    messages: Vec<BodyMessage>,
    system: Option<Blocks>,
    #[schema(minimum = 1)]
    max_tokens: Option<u64>,
    #[schema(minimum = 0, maximum = 100)]
    temperature: Option<f32>,
    #[schema(exclusive_minimum = 0, maximum = 1)]
    top_p: Option<f32>,
    #[schema(minimum = -1)]
    top_k: Option<i64>,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<String>>)]
    stop_sequences: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<bool>)]
    stream: bool,
    thinking: Option<ThinkingField>,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<Value>>)]
    tools: Vec<Value>,
    tool_choice: Option<BodyChoice>,
    output_config: Option<OutputConfig>,
    #[schema(value_type = Option<Object>)]
    output_format: Option<Value>,
    #[serde(flatten)]
    #[schema(ignore)]
    rest: Rest,
}

/// A message of a conversation.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = MessagesMessage)]
struct BodyMessage {
    role: Speaker,
    content: Blocks,
}

/// Who says a message.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Speaker {
    User,
    Assistant,
    System,
    Developer,
}

/// A text, or a list of blocks.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
enum Blocks {
    Text(String),
    Blocks(Vec<Value>),
}

/// Whether a tool is to be called, and which.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = MessagesToolChoice)]
struct BodyChoice {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    disable_parallel_tool_use: Option<bool>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct OutputConfig {
    effort: Option<Effort>,
    #[schema(value_type = Option<Object>)]
    format: Option<Value>,
}

/// Fields that change no answer here.
const HARMLESS: &[&str] = &["metadata", "service_tier", "container", "context_management"];

/// A field of a block that is a text.
fn text_of<'a>(block: &'a Value, name: &str) -> &'a str {
    block.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The text of blocks that can only be text: instructions, or what a tool returned.
fn plain_text(blocks: Blocks, param: &str) -> Result<String, ApiError> {
    let blocks = match blocks {
        Blocks::Text(text) => return Ok(text),
        Blocks::Blocks(blocks) => blocks,
    };
    let text = |block: Value| match text_of(&block, "type") {
        "text" => Ok(text_of(&block, "text").to_owned()),
        // What a search of tools found is named, not shown.
        "tool_reference" => Ok(text_of(&block, "tool_name").to_owned()),
        other => {
            Err(ApiError::field(param, format!("a block of type {other:?} cannot be read: this model reads text")))
        }
    };
    Ok(blocks.into_iter().map(text).collect::<Result<Vec<_>, _>>()?.join("\n"))
}

impl BodyMessage {
    /// The messages that this one stands for: each result of a tool is one of its own.
    fn messages(self, i: usize, out: &mut Vec<Message>) -> Result<(), ApiError> {
        let param = format!("messages.{i}.content");
        let role = match self.role {
            Speaker::User => Role::User,
            Speaker::Assistant => Role::Assistant,
            Speaker::System | Speaker::Developer => Role::System,
        };
        let (mut texts, mut thought, mut calls) = (Vec::new(), Vec::new(), Vec::new());
        let blocks = match self.content {
            Blocks::Text(text) => {
                texts.push(text);
                Vec::new()
            }
            Blocks::Blocks(blocks) => blocks,
        };
        for block in blocks {
            match text_of(&block, "type") {
                "text" => texts.push(text_of(&block, "text").to_owned()),
                "thinking" => thought.push(text_of(&block, "thinking").to_owned()),
                // A thought that nobody here can read.
                "redacted_thinking" => {}
                "tool_use" | "server_tool_use" => {
                    let arguments = block.get("input").map_or_else(|| "{}".into(), Value::to_string);
                    let function = FunctionCall { name: text_of(&block, "name").to_owned(), arguments };
                    let id = Some(text_of(&block, "id").to_owned());
                    calls.push(ToolCall { id, kind: "function".into(), function });
                }
                "tool_result" => {
                    let content = match block.get("content") {
                        None | Some(Value::Null) => String::new(),
                        Some(content) => {
                            let blocks = serde_json::from_value(content.clone());
                            plain_text(blocks.unwrap_or_else(|_| Blocks::Text(content.to_string())), &param)?
                        }
                    };
                    let id = text_of(&block, "tool_use_id").to_owned();
                    out.push(Message { tool_call_id: Some(id), ..Message::tool(content) });
                }
                other => {
                    let message = format!("a block of type {other:?} cannot be read: this model reads text");
                    return Err(ApiError::field(param, message));
                }
            }
        }
        let text = texts.join("\n\n");
        let content = if text.is_empty() && !calls.is_empty() { None } else { Some(text) };
        // A message of results alone says nothing else.
        if content.as_deref() == Some("") && out.last().is_some_and(|last| last.role == Role::Tool) {
            return Ok(());
        }
        let reasoning_content = (!thought.is_empty()).then(|| thought.join("\n\n"));
        let message = Message { content, reasoning_content, tool_calls: calls, ..Message::user("") };
        out.push(Message { role, ..message });
        Ok(())
    }
}

/// The tools that are functions, and the names of the others.
fn tools(values: Vec<Value>) -> Result<(Vec<Tool>, Vec<String>), ApiError> {
    let (mut tools, mut ignored) = (Vec::new(), Vec::new());
    for (i, value) in values.into_iter().enumerate() {
        let (kind, name) = (text_of(&value, "type"), text_of(&value, "name"));
        let schema = value.get("input_schema").filter(|schema| schema.is_object());
        // Anthropic's own tools run on its machines and have no schema.
        if !(kind.is_empty() || kind == "custom") || schema.is_none() {
            ignored.push(format!("tools[{i}] ({})", if kind.is_empty() { name } else { kind }));
            continue;
        }
        if name.is_empty() {
            return Err(ApiError::field(format!("tools.{i}.name"), "a tool needs a name"));
        }
        tools.push(Tool {
            name: name.to_owned(),
            description: text_of(&value, "description").to_owned(),
            parameters: schema.cloned(),
            strict: value.get("strict").and_then(Value::as_bool).unwrap_or(false),
        });
    }
    Ok((tools, ignored))
}

impl Body {
    /// The request, and the names of what is ignored.
    ///
    /// # Errors
    /// The first field that cannot be obeyed.
    fn request(mut self) -> Result<(GenerationRequest, Vec<String>), ApiError> {
        let mut ignored = ignored(&self.rest, HARMLESS);
        let mut messages = Vec::new();
        if let Some(system) = self.system.take() {
            messages.push(Message::system(plain_text(system, "system")?));
        }
        drop_nonce(&mut messages);
        messages.retain(|message| message.content.as_deref() != Some(""));
        for (i, message) in std::mem::take(&mut self.messages).into_iter().enumerate() {
            message.messages(i, &mut messages)?;
        }
        let (tools, skipped) = tools(std::mem::take(&mut self.tools))?;
        ignored.extend(skipped);
        let choice = self.tool_choice.take();
        let parallel = choice.as_ref().and_then(|choice| choice.disable_parallel_tool_use).is_none_or(|off| !off);
        let tool_choice = match choice.as_ref().map(|choice| (choice.kind.as_str(), choice.name.as_deref())) {
            None | Some(("auto", _)) => ToolChoice::Auto,
            Some(("none", _)) => ToolChoice::None,
            Some(("any", _)) if !tools.is_empty() => ToolChoice::Required,
            Some(("tool", Some(name))) if tools.iter().any(|tool| tool.name == name) => {
                ToolChoice::Function(name.into())
            }
            Some((kind, _)) => {
                let message =
                    format!("tool_choice of type {kind:?}: it can be auto, none, any, or tool with the name of one");
                return Err(ApiError::field("tool_choice", message));
            }
        };
        let thinking = take_fields!(self => Thinking { thinking });
        let Decision { mut thinks, budget, .. } = thinking.decide()?;
        let (effort, format) = self.output_config.take().map_or((None, None), |config| (config.effort, config.format));
        thinks = thinks.or(effort.and_then(Effort::thinks).filter(|thinks| !thinks));
        let conversation =
            Conversation { messages, tools, tool_choice, parallel_tool_calls: parallel, thinking: thinks };
        let mut request = GenerationRequest::new(Input::Conversation(conversation));
        let stop = std::mem::take(&mut self.stop_sequences);
        let sampling = take_fields!(self => Sampling { temperature, top_p, top_k, max_tokens });
        Sampling { stop, ..sampling }.apply(&mut request)?;
        request.options.think_budget = budget;
        request.format = response_format(format.or(self.output_format.take()))?;
        Ok((request, ignored))
    }
}

/// `POST /v1/messages`
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    JsonBody(body): JsonBody<Body>,
) -> Response {
    answer(&app, caller, body).await.unwrap_or_else(|error| refusal(&error, Dialect::Anthropic))
}

async fn answer(app: &Arc<App>, caller: Caller, body: Body) -> Result<Response, ApiError> {
    let model = app.check_model(body.model.as_deref())?.name.clone();
    if body.max_tokens.is_none() {
        return Err(ApiError::field("max_tokens", "max_tokens: Field required"));
    }
    let stream = body.stream;
    let (request, ignored) = body.request()?;
    let mut generation = app.generate(vec![request], caller).await?;
    let ignored = [ignored, std::mem::take(&mut generation.notes)].concat();
    let head = Head { app: app.clone(), id: app.id("msg_"), model };
    if stream {
        let prompt_tokens = generation.prompt_tokens;
        let format = Stream { head, prompt_tokens, block: None, blocks: 0, usage: Usage::default() };
        return Ok(respond(&app.streaming, generation, format, &ignored));
    }
    let answer = generation.whole().await?.pop().unwrap_or_default();
    Ok(json_with_ignored(&head.whole(answer), &ignored))
}

/// `POST /v1/messages/count_tokens`
pub(crate) async fn count_tokens(State(app): State<Arc<App>>, JsonBody(body): JsonBody<Body>) -> Response {
    let count = async {
        app.check_model(body.model.as_deref())?;
        let (request, _) = body.request()?;
        app.count_tokens(request).await
    };
    match count.await {
        Ok(tokens) => json(StatusCode::OK, &CountedTokens { input_tokens: tokens }),
        Err(error) => refusal(&error, Dialect::Anthropic),
    }
}

/// How many tokens a prompt has.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CountedTokens {
    input_tokens: usize,
}

/// What the model says.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MessagesAnswer)]
pub(crate) struct AnswerMessage {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: String,
    content: Vec<ContentBlock>,
    stop_reason: Option<StopReason>,
    /// The stop string that came.
    stop_sequence: Option<String>,
    usage: UsageCounts,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ContentBlock {
    Thinking { thinking: String, signature: String },
    Text { text: String },
    ToolUse { id: String, name: String, input: Map<String, Value> },
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StopReason {
    EndTurn,
    StopSequence,
    MaxTokens,
    ToolUse,
}

/// Counts of tokens; what was found in the cache is counted apart.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MessagesUsage)]
pub(crate) struct UsageCounts {
    input_tokens: usize,
    cache_creation_input_tokens: usize,
    cache_read_input_tokens: usize,
    output_tokens: usize,
}

impl From<&Usage> for UsageCounts {
    fn from(usage: &Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens - usage.cached_tokens,
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: usage.cached_tokens,
            output_tokens: usage.completion_tokens,
        }
    }
}

/// An event of a stream.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MessagesEvent)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Event {
    MessageStart { message: AnswerMessage },
    ContentBlockStart { index: usize, content_block: ContentBlock },
    ContentBlockDelta { index: usize, delta: Delta },
    ContentBlockStop { index: usize },
    MessageDelta { delta: End, usage: UsageCounts },
    MessageStop,
    Ping,
}

/// What is new in a block.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MessagesDelta)]
#[serde(tag = "type")]
pub(crate) enum Delta {
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: String },
    #[serde(rename = "signature_delta")]
    Signature { signature: String },
    #[serde(rename = "text_delta")]
    Text { text: String },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: String },
}

/// Why an answer ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MessagesEnd)]
pub(crate) struct End {
    stop_reason: Option<StopReason>,
    /// The stop string that came.
    stop_sequence: Option<String>,
}

impl From<Option<&Finish>> for End {
    fn from(finish: Option<&Finish>) -> Self {
        let (reason, stop_sequence) = match finish {
            None => return Self { stop_reason: None, stop_sequence: None },
            Some(Finish::Stop) => (StopReason::EndTurn, None),
            Some(Finish::StopString(stop)) => (StopReason::StopSequence, Some(stop.clone())),
            Some(Finish::Length) => (StopReason::MaxTokens, None),
            Some(Finish::ToolCalls) => (StopReason::ToolUse, None),
        };
        Self { stop_reason: Some(reason), stop_sequence }
    }
}

struct Head {
    app: Arc<App>,
    id: String,
    model: String,
}

impl Head {
    fn message(&self, content: Vec<ContentBlock>, finish: Option<&Finish>, usage: &Usage) -> AnswerMessage {
        let End { stop_reason, stop_sequence } = finish.into();
        AnswerMessage {
            id: self.id.clone(),
            kind: "message",
            role: "assistant",
            model: self.model.clone(),
            content,
            stop_reason,
            stop_sequence,
            usage: usage.into(),
        }
    }

    /// Something that a client sends back with a thought; nothing here depends on it.
    fn signature(&self) -> String {
        format!("{:016x}", self.app.random())
    }

    fn whole(&self, answer: Answer) -> AnswerMessage {
        let mut content = Vec::new();
        if let Some(thinking) = answer.reasoning {
            content.push(ContentBlock::Thinking { thinking, signature: self.signature() });
        }
        if !answer.content.is_empty() || answer.calls.is_empty() {
            content.push(ContentBlock::Text { text: answer.content });
        }
        for call in answer.calls {
            // An answer that was cut off in its arguments has none; its stop_reason says so.
            let input = serde_json::from_str(&call.arguments).unwrap_or_default();
            content.push(ContentBlock::ToolUse { id: self.app.id("toolu_"), name: call.name, input });
        }
        self.message(content, answer.finish.as_ref(), &answer.usage)
    }
}

/// A stream of blocks.
struct Stream {
    head: Head,
    prompt_tokens: usize,
    /// The block that is open.
    block: Option<Block>,
    /// Blocks that were begun.
    blocks: usize,
    usage: Usage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    ToolUse,
}

impl Stream {
    fn open(&mut self, block: Block, content_block: ContentBlock) -> String {
        let closed = self.close();
        self.block = Some(block);
        self.blocks += 1;
        closed + &typed_event(&Event::ContentBlockStart { index: self.blocks - 1, content_block })
    }

    fn delta(&self, delta: Delta) -> String {
        typed_event(&Event::ContentBlockDelta { index: self.blocks - 1, delta })
    }

    fn close(&mut self) -> String {
        let Some(block) = self.block.take() else { return String::new() };
        let signature = match block {
            Block::Thinking => self.delta(Delta::Signature { signature: self.head.signature() }),
            Block::Text | Block::ToolUse => String::new(),
        };
        signature + &typed_event(&Event::ContentBlockStop { index: self.blocks - 1 })
    }

    fn piece(&mut self, piece: Piece) -> String {
        match piece {
            Piece::Reasoning(thinking) => {
                let empty = || ContentBlock::Thinking { thinking: String::new(), signature: String::new() };
                let begin = match self.block {
                    Some(Block::Thinking) => String::new(),
                    _ => self.open(Block::Thinking, empty()),
                };
                begin + &self.delta(Delta::Thinking { thinking })
            }
            Piece::Content(text) => {
                let begin = match self.block {
                    Some(Block::Text) => String::new(),
                    _ => self.open(Block::Text, ContentBlock::Text { text: String::new() }),
                };
                begin + &self.delta(Delta::Text { text })
            }
            // What was sent cannot be taken back.
            Piece::ContentWasReasoning | Piece::Incomplete => String::new(),
            Piece::Call(name) => {
                let id = self.head.app.id("toolu_");
                self.open(Block::ToolUse, ContentBlock::ToolUse { id, name, input: Map::new() })
            }
            Piece::Arguments(partial_json) => self.delta(Delta::InputJson { partial_json }),
        }
    }
}

impl StreamFormat for Stream {
    fn start(&mut self) -> String {
        // What is in the cache is not known yet; the counts at the end are.
        let mut counts = Usage::default();
        counts.prompt_tokens = self.prompt_tokens;
        typed_event(&Event::MessageStart { message: self.head.message(Vec::new(), None, &counts) })
    }

    fn update(&mut self, update: Update) -> String {
        self.usage = update.usage;
        let mut out: String = update.pieces.into_iter().map(|piece| self.piece(piece)).collect();
        if let Some(Ok(finish)) = &update.end {
            if self.blocks == 0 {
                out += &self.open(Block::Text, ContentBlock::Text { text: String::new() });
            }
            out += &self.close();
            out += &typed_event(&Event::MessageDelta { delta: Some(finish).into(), usage: (&self.usage).into() });
        }
        out
    }

    fn finish(&mut self) -> String {
        typed_event(&Event::MessageStop)
    }

    fn error(&mut self, error: &ApiError) -> String {
        event(Some("error"), &error.anthropic())
    }

    fn keepalive(&mut self) -> String {
        typed_event(&Event::Ping)
    }
}
