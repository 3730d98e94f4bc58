//! Fields that several dialects share: sampling, thinking, message contents, tools.

use std::collections::BTreeMap;

use minke_chat::SamplingOptions;
use minke_text::{FunctionCall, GrammarSource, Message, Role, Tool, ToolCall, ToolChoice};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::generation::GenerationRequest;

/// Fields that no struct of a dialect has; the document permits them by saying nothing of them.
pub(crate) type Rest = BTreeMap<String, Value>;

/// A struct of fields that the body of a request has under the same names.
macro_rules! take_fields {
    ($body:ident => $shared:ident { $($field:ident),* $(,)? }) => {
        {
            let mut shared = $shared::default();
            $(shared.$field = std::mem::take(&mut $body.$field);)*
            shared
        }
    };
}
pub(crate) use take_fields;

/// Sampling, under the names that OpenAI, vLLM and llama.cpp share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sampling {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<i64>,
    pub min_p: Option<f32>,
    pub seed: Option<i64>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub logit_bias: BTreeMap<String, f32>,
    pub stop: Vec<String>,
    pub n: Option<u64>,
    pub max_tokens: Option<u64>,
    /// vLLM and llama.cpp: the answer goes on to its most tokens.
    pub ignore_eos: Option<bool>,
}

/// Most entries of a bias.
const MOST_BIASES: usize = 1024;

impl Sampling {
    /// Sets what is said.
    ///
    /// # Errors
    /// The first field that cannot be obeyed.
    pub(crate) fn apply(self, request: &mut GenerationRequest) -> Result<(), ApiError> {
        let top_k =
            match self.top_k {
                // As vLLM writes "all".
                None | Some(-1) => self.top_k.map(|_| 0),
                Some(k) => Some(usize::try_from(k).map_err(|_| {
                    ApiError::field("top_k", format!("top_k = {k}: it must be at least 0 (all tokens)"))
                })?),
            };
        let bias = |(id, bias): (String, f32)| match (id.parse(), bias) {
            (Ok(id), bias) if (-100.0..=100.0).contains(&bias) => {
                // OpenAI: -100 bans a token.
                Ok((id, if bias == -100.0 { f32::NEG_INFINITY } else { bias }))
            }
            (Ok(_), bias) => {
                Err(ApiError::field("logit_bias", format!("logit_bias of {bias}: it must be -100 to 100")))
            }
            (Err(_), _) => Err(ApiError::field("logit_bias", format!("logit_bias names {id:?}, which is no token id"))),
        };
        let options = SamplingOptions {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias.into_iter().map(bias).collect::<Result<_, _>>()?,
            max_tokens: self.max_tokens.map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX)),
            ignore_eos: self.ignore_eos.unwrap_or(false),
            ..request.options.clone()
        };
        let n = self.n.unwrap_or(1);
        request.n = usize::try_from(n).map_err(|_| ApiError::field("n", format!("n = {n} is too many")))?;
        request.options = options;
        request.seed = self.seed.map(|seed| seed as u64);
        request.stop = self.stop;
        Ok(())
    }
}

/// Whether and how long the model is to think, in the spellings that are around.
#[derive(Clone, Debug, Default)]
pub(crate) struct Thinking {
    /// OpenAI.
    pub reasoning_effort: Option<Effort>,
    /// Anthropic and DeepSeek: `{"type": "enabled" | "disabled" | "adaptive", "budget_tokens": 1024}`.
    pub thinking: Option<ThinkingField>,
    /// Qwen.
    pub enable_thinking: Option<bool>,
    /// vLLM and llama.cpp: arguments of the template, of which those about thinking are obeyed.
    pub chat_template_kwargs: TemplateArguments,
    /// Tokens of a thought.
    pub thinking_budget: Option<i64>,
}

/// Whether to think, and for how long.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ThinkingField {
    Switch(bool),
    Settings {
        #[serde(rename = "type")]
        kind: Option<String>,
        #[schema(minimum = -1)]
        budget_tokens: Option<i64>,
    },
}

/// Arguments of the chat template, of which those about thinking are obeyed.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct TemplateArguments {
    enable_thinking: Option<bool>,
    thinking: Option<bool>,
    #[serde(flatten)]
    #[schema(ignore)]
    rest: Rest,
}

/// What was said about thinking.
pub(crate) struct Decision {
    /// Whether to think; none leaves it to the template.
    pub thinks: Option<bool>,
    /// Tokens of the thought.
    pub budget: Option<usize>,
    /// Names of what is not obeyed.
    pub ignored: Vec<String>,
}

impl Thinking {
    /// Whether to think, and for how long.
    ///
    /// # Errors
    /// A word that is not known.
    pub(crate) fn decide(&self) -> Result<Decision, ApiError> {
        let mut thinks = self.enable_thinking;
        thinks = thinks.or(self.chat_template_kwargs.enable_thinking).or(self.chat_template_kwargs.thinking);
        let mut budget = self.thinking_budget;
        match &self.thinking {
            Some(ThinkingField::Switch(on)) => thinks = thinks.or(Some(*on)),
            Some(ThinkingField::Settings { kind, budget_tokens }) => {
                match kind.as_deref() {
                    Some("enabled") => thinks = thinks.or(Some(true)),
                    Some("disabled") => thinks = thinks.or(Some(false)),
                    // The model decides.
                    Some("adaptive" | "auto") | None => {}
                    Some(other) => {
                        let message = format!("thinking.type is {other:?}; it can be enabled, disabled or adaptive");
                        return Err(ApiError::field("thinking.type", message));
                    }
                }
                budget = budget.or(*budget_tokens);
            }
            None => {}
        }
        thinks = thinks.or(self.reasoning_effort.and_then(Effort::thinks));
        let budget = budget.filter(|budget| *budget != -1).map(|budget| {
            let message = format!("a thinking budget of {budget}: it must be at least 0, or -1 for none");
            usize::try_from(budget).map_err(|_| ApiError::field("thinking_budget", message))
        });
        let ignored = self.chat_template_kwargs.rest.keys().map(|key| format!("chat_template_kwargs.{key}")).collect();
        Ok(Decision { thinks, budget: budget.transpose()?, ignored })
    }
}

/// How much to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
    Max,
    Auto,
}

impl Effort {
    /// Whether an effort means to think at all; how much is up to the model.
    pub(crate) fn thinks(self) -> Option<bool> {
        match self {
            Self::None => Some(false),
            Self::Minimal | Self::Low | Self::Medium | Self::High | Self::Xhigh | Self::Max => Some(true),
            Self::Auto => None,
        }
    }
}

/// Who says a message.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RoleName {
    System,
    Developer,
    User,
    Assistant,
    Tool,
    Function,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::System | RoleName::Developer => Self::System,
            RoleName::User => Self::User,
            RoleName::Assistant => Self::Assistant,
            RoleName::Tool | RoleName::Function => Self::Tool,
        }
    }
}

/// Text of a message: a text, or a list of parts.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<Part>),
    /// A single part that stands by itself, or a value that a tool returned as it is.
    Other(Value),
}

/// A part of a message.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Part {
    Text(String),
    Typed {
        #[serde(rename = "type")]
        kind: String,
        text: Option<String>,
        #[serde(flatten)]
        rest: Rest,
    },
}

impl Content {
    /// The text, with what lies between parts as it is.
    ///
    /// # Errors
    /// If a part is something that the model cannot read; `param` is the name of the field.
    pub(crate) fn text(self, param: &str) -> Result<String, ApiError> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Parts(parts) => parts.into_iter().map(|part| part.text(param)).collect(),
            Self::Other(Value::Null) => Ok(String::new()),
            Self::Other(value) => Ok(value.to_string()),
        }
    }
}

impl Part {
    /// The text of a part.
    ///
    /// # Errors
    /// As [`Content::text`].
    pub(crate) fn text(self, param: &str) -> Result<String, ApiError> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Typed { kind, text: Some(text), .. }
                if ["text", "input_text", "output_text", "summary_text", "reasoning_text", "thinking"]
                    .contains(&kind.as_str()) =>
            {
                Ok(text)
            }
            Self::Typed { kind, rest, .. } if kind == "refusal" => {
                Ok(rest.get("refusal").and_then(Value::as_str).unwrap_or_default().to_owned())
            }
            Self::Typed { kind, text: None, .. } if kind == "text" || kind == "input_text" || kind == "output_text" => {
                Err(ApiError::field(param, format!("a part of type {kind:?} needs the field text")))
            }
            Self::Typed { kind, .. } => {
                Err(ApiError::field(param, format!("a part of type {kind:?} cannot be read: this model reads text")))
            }
        }
    }
}

/// A call of a tool in an earlier answer.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = EarlierCall)]
pub(crate) struct BodyCall {
    id: Option<String>,
    function: BodyFunction,
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = EarlierFunction)]
struct BodyFunction {
    name: String,
    /// A text; Ollama's clients, and some others, send the object itself.
    #[serde(default)]
    arguments: Value,
}

impl From<BodyCall> for ToolCall {
    fn from(call: BodyCall) -> Self {
        let arguments = match call.function.arguments {
            Value::String(text) => text,
            Value::Null => "{}".into(),
            value => value.to_string(),
        };
        let function = FunctionCall { name: call.function.name, arguments };
        Self { id: call.id, kind: "function".into(), function }
    }
}

/// The tools of OpenAI's chat completions: those that are functions, and the names of the others.
///
/// # Errors
/// A function without a name.
pub(crate) fn tools(values: Vec<Value>) -> Result<(Vec<Tool>, Vec<String>), ApiError> {
    let (mut tools, mut ignored) = (Vec::new(), Vec::new());
    for (i, value) in values.into_iter().enumerate() {
        let kind = value.get("type").and_then(Value::as_str).unwrap_or("function");
        // Chat completions wrap the function, Responses do not.
        let function = value.get("function").unwrap_or(&value);
        if kind != "function" {
            ignored.push(format!("tools[{i}] ({kind})"));
            continue;
        }
        let Some(name) = function.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
            return Err(ApiError::field(format!("tools[{i}].function.name"), "a function needs a name"));
        };
        tools.push(Tool {
            name: name.to_owned(),
            description: function.get("description").and_then(Value::as_str).unwrap_or_default().to_owned(),
            parameters: function.get("parameters").filter(|schema| !schema.is_null()).cloned(),
            strict: function.get("strict").and_then(Value::as_bool).unwrap_or(false),
        });
    }
    Ok((tools, ignored))
}

/// OpenAI's `tool_choice`.
///
/// # Errors
/// A word that is not known, or a function that is none of the tools.
pub(crate) fn tool_choice(value: Option<Value>, tools: &[Tool]) -> Result<ToolChoice, ApiError> {
    let refuse = |message: String| Err(ApiError::field("tool_choice", message));
    match value {
        None | Some(Value::Null) => Ok(ToolChoice::Auto),
        Some(Value::String(word)) => match word.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" | "any" if tools.is_empty() => {
                refuse(format!("tool_choice is {word:?}, but there are no tools"))
            }
            "required" | "any" => Ok(ToolChoice::Required),
            other => refuse(format!("tool_choice is {other:?}; it can be auto, none, required or a function")),
        },
        Some(value) => {
            let name = value.get("function").unwrap_or(&value).get("name").and_then(Value::as_str);
            match name {
                Some(name) if tools.iter().any(|tool| tool.name == name) => Ok(ToolChoice::Function(name.to_owned())),
                Some(name) => refuse(format!("tool_choice names {name:?}, which is none of the tools")),
                None => refuse("tool_choice names no function".into()),
            }
        }
    }
}

/// OpenAI's `response_format`.
///
/// # Errors
/// A type that is not known, or a schema that is missing.
pub(crate) fn response_format(value: Option<Value>) -> Result<Option<GrammarSource>, ApiError> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let missing = |name: &str| ApiError::field("response_format", format!("response_format needs the field {name}"));
    match text("type").as_deref() {
        Some("text") => Ok(None),
        Some("json_object") => match value.get("schema") {
            // As llama.cpp takes it.
            Some(schema) if !schema.is_null() => Ok(Some(GrammarSource::JsonSchema(schema.clone()))),
            _ => Ok(Some(GrammarSource::JsonObject)),
        },
        Some("json_schema") => {
            // Chat completions wrap the schema, Responses do not.
            let inner = value.get("json_schema").unwrap_or(&value);
            let schema = inner.get("schema").cloned().ok_or_else(|| missing("json_schema.schema"))?;
            Ok(Some(GrammarSource::JsonSchema(schema)))
        }
        Some("grammar") => Ok(Some(GrammarSource::Lark(text("grammar").ok_or_else(|| missing("grammar"))?))),
        Some("regex") => Ok(Some(GrammarSource::Regex(text("regex").ok_or_else(|| missing("regex"))?))),
        _ => Err(ApiError::field(
            "response_format.type",
            "response_format.type can be text, json_object, json_schema, grammar or regex",
        )),
    }
}

/// Removes lines that only tell one request from another, which coding agents put in front of their instructions: they would
/// keep the rest from being found in the cache.
pub(crate) fn without_nonce(text: &str) -> &str {
    const NONCE: &str = "x-anthropic-billing-header:";
    let mut rest = text;
    while rest.trim_start().starts_with(NONCE) {
        rest = rest.trim_start().split_once('\n').map_or("", |(_, rest)| rest);
    }
    rest
}

/// Applies [`without_nonce`] to what stands at the front of a conversation.
pub(crate) fn drop_nonce(messages: &mut [Message]) {
    if let Some(content) = messages.first_mut().and_then(|first| first.content.as_mut()) {
        let kept = without_nonce(content).len();
        content.drain(..content.len() - kept);
    }
}

/// The names of fields that were not understood, but for those that every client sends and that change no answer.
pub(crate) fn ignored(rest: &Rest, harmless: &[&str]) -> Vec<String> {
    // Null says nothing.
    let unknown = rest.iter().filter(|(key, value)| !value.is_null() && !harmless.contains(&key.as_str()));
    unknown.map(|(key, _)| key.clone()).collect()
}

/// Null where a value with a default stands.
pub(crate) fn null_is_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A bias by token id, of a bounded number of tokens: reading stops behind the last one that is taken.
pub(crate) fn biases<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f32>, D::Error> {
    struct Biases;

    impl<'de> Visitor<'de> for Biases {
        type Value = BTreeMap<String, f32>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "a bias by token id, of at most {MOST_BIASES} tokens")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut biases = BTreeMap::new();
            while let Some((id, bias)) = map.next_entry()? {
                if biases.len() == MOST_BIASES {
                    return Err(A::Error::invalid_length(MOST_BIASES + 1, &self));
                }
                biases.insert(id, bias);
            }
            Ok(biases)
        }
    }

    deserializer.deserialize_any(Biases)
}

/// A text or a list of texts.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// The texts of [`OneOrMany`], none for null.
pub(crate) fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(OneOrMany::One(text)) => vec![text],
        Some(OneOrMany::Many(texts)) => texts,
    })
}
