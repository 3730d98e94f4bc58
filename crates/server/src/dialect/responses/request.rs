//! What a request for a response says.

use minke_text::{FunctionCall, Message, Role, ToolCall};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::dialect::fields::{
    Content, Effort, Rest, RoleName, Sampling, drop_nonce, ignored, null_is_default, response_format, take_fields,
    tool_choice, tools,
};
use crate::error::ApiError;
use crate::generation::{Conversation, GenerationRequest, Input};

/// A request.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponsesRequest)]
pub(crate) struct Body {
    pub(super) model: Option<String>,
    input: Option<BodyInput>,
    pub(super) instructions: Option<String>,
    pub(super) previous_response_id: Option<String>,
    #[schema(minimum = 1)]
    pub(super) max_output_tokens: Option<u64>,
    #[schema(minimum = 0, maximum = 100)]
    pub(super) temperature: Option<f32>,
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub(super) top_p: Option<f32>,
    #[schema(minimum = -1)]
    top_k: Option<i64>,
    #[schema(minimum = 0, maximum = 1)]
    min_p: Option<f32>,
    seed: Option<i64>,
    #[schema(minimum = -2, maximum = 2)]
    presence_penalty: Option<f32>,
    #[schema(minimum = -2, maximum = 2)]
    frequency_penalty: Option<f32>,
    #[schema(minimum = 0.01, maximum = 100)]
    repetition_penalty: Option<f32>,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<bool>)]
    pub(super) stream: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<StreamOptions>)]
    pub(super) stream_options: StreamOptions,
    pub(super) store: Option<bool>,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<bool>)]
    pub(super) background: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Reasoning>)]
    pub(super) reasoning: Reasoning,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<TextSettings>)]
    pub(super) text: TextSettings,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<Value>>)]
    pub(super) tools: Vec<Value>,
    pub(super) tool_choice: Option<Value>,
    pub(super) parallel_tool_calls: Option<bool>,
    pub(super) metadata: Option<Value>,
    #[serde(flatten)]
    #[schema(ignore)]
    rest: Rest,
}

/// A text, or a list of items.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponsesInput)]
#[serde(untagged)]
enum BodyInput {
    Text(String),
    Items(Vec<Value>),
}

#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[schema(as = ResponsesStreamOptions)]
pub(super) struct StreamOptions {
    /// Whether `response.in_progress` comes again and again, with what was read and written so far.
    #[serde(default)]
    pub(super) include_progress: bool,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = ReasoningSettings)]
pub(super) struct Reasoning {
    pub(super) effort: Option<Effort>,
    /// Tokens of the thought.
    #[schema(minimum = 1)]
    max_tokens: Option<u64>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct TextSettings {
    #[schema(value_type = Option<Object>)]
    pub(super) format: Option<Value>,
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
                let role = serde_json::from_value::<RoleName>(item.get("role").cloned().unwrap_or_default());
                let refused = |error: serde_json::Error| ApiError::field(format!("input[{i}].role"), error.to_string());
                let role = Role::from(role.map_err(refused)?);
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
    pub(super) fn request(&mut self, before: Vec<Message>) -> Result<(GenerationRequest, Vec<String>), ApiError> {
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
        let conversation = Conversation {
            messages,
            tool_choice: tool_choice(choice, &tools)?,
            tools,
            parallel_tool_calls: self.parallel_tool_calls.unwrap_or(true),
            thinking: self.reasoning.effort.and_then(Effort::thinks),
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
        request.format = response_format(self.text.format.clone())?;
        Ok((request, ignored))
    }
}
