//! OpenAI's chat completions: `POST /v1/chat/completions`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use minke_chat::{Piece, Usage};
use minke_text::{FunctionCall, Message, Role, Tokenizer, ToolCall};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::fields::{
    BodyCall, Content, Rest, Sampling, TemplateArguments, Thinking, ThinkingField, biases, drop_nonce, ignored,
    null_is_default, one_or_many, response_format, take_fields, tool_choice, tools,
};
use crate::app::{App, Caller, now};
use crate::error::{ApiError, Dialect};
use crate::generation::{Answer, Conversation, Finish, GenerationRequest, Input, TokenReport, Update};
use crate::http::{JsonBody, json_with_ignored, refusal};
use crate::log_probs::LogProbs;
use crate::stream::{StreamFormat, event, respond};

/// A request.
#[derive(Debug, Deserialize)]
pub(crate) struct Body {
    model: Option<String>,
    messages: Vec<BodyMessage>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    seed: Option<i64>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    repetition_penalty: Option<f32>,
    #[serde(default, deserialize_with = "biases")]
    logit_bias: BTreeMap<String, f32>,
    #[serde(default, deserialize_with = "one_or_many")]
    stop: Vec<String>,
    n: Option<u64>,
    /// The older name of `max_completion_tokens`.
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    #[serde(default, deserialize_with = "null_is_default")]
    logprobs: bool,
    top_logprobs: Option<u64>,
    #[serde(default, deserialize_with = "null_is_default")]
    stream: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    stream_options: StreamOptions,
    response_format: Option<Value>,
    #[serde(default, deserialize_with = "null_is_default")]
    tools: Vec<Value>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    reasoning_effort: Option<String>,
    thinking: Option<ThinkingField>,
    enable_thinking: Option<bool>,
    #[serde(default, deserialize_with = "null_is_default")]
    chat_template_kwargs: TemplateArguments,
    #[serde(alias = "reasoning_budget", alias = "thinking_budget_tokens", alias = "thinking_token_budget")]
    thinking_budget: Option<i64>,
    #[serde(flatten)]
    rest: Rest,
}

/// What a stream tells beside the answer.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct StreamOptions {
    /// Whether the counts come in a chunk of their own at the end.
    #[serde(default)]
    pub include_usage: bool,
}

/// A message.
#[derive(Debug, Deserialize)]
pub(crate) struct BodyMessage {
    role: String,
    content: Option<Content>,
    #[serde(alias = "reasoning")]
    reasoning_content: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    tool_calls: Vec<BodyCall>,
    tool_call_id: Option<String>,
    name: Option<String>,
}

/// Fields that change no answer here.
const HARMLESS: &[&str] =
    &["user", "store", "metadata", "service_tier", "prompt_cache_key", "safety_identifier", "verbosity"];

impl BodyMessage {
    /// The message, number `i` of the conversation.
    ///
    /// # Errors
    /// If its role is not known, or a part of it cannot be read.
    pub(crate) fn message(self, i: usize) -> Result<Message, ApiError> {
        let role = role(&self.role, &format!("messages[{i}].role"))?;
        let content = self.content.map(|content| content.text(&format!("messages[{i}].content"))).transpose()?;
        let tool_calls: Vec<ToolCall> = self.tool_calls.into_iter().map(ToolCall::from).collect();
        // Only a message that calls tools may go without a text.
        let content = if tool_calls.is_empty() { Some(content.unwrap_or_default()) } else { content };
        Ok(Message {
            role,
            content,
            reasoning_content: self.reasoning_content.filter(|thought| !thought.is_empty()),
            tool_calls,
            tool_call_id: self.tool_call_id,
            name: self.name,
        })
    }
}

/// The role that a word stands for.
///
/// # Errors
/// If there is none.
pub(crate) fn role(word: &str, param: &str) -> Result<Role, ApiError> {
    match word {
        "system" | "developer" => Ok(Role::System),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" | "function" => Ok(Role::Tool),
        other => {
            let message = format!("{param} is {other:?}; it can be system, developer, user, assistant or tool");
            Err(ApiError::field(param, message))
        }
    }
}

impl Body {
    /// The request, and the names of what is ignored.
    ///
    /// # Errors
    /// The first field that cannot be obeyed.
    fn request(mut self) -> Result<(GenerationRequest, Vec<String>), ApiError> {
        let mut ignored = ignored(&self.rest, HARMLESS);
        let messages = std::mem::take(&mut self.messages);
        let mut messages: Vec<Message> =
            messages.into_iter().enumerate().map(|(i, message)| message.message(i)).collect::<Result<_, _>>()?;
        drop_nonce(&mut messages);
        let (tools, skipped) = tools(std::mem::take(&mut self.tools))?;
        ignored.extend(skipped);
        let thinking = take_fields!(self => Thinking {
            reasoning_effort, thinking, enable_thinking, chat_template_kwargs, thinking_budget,
        });
        let decision = thinking.decide()?;
        ignored.extend(decision.ignored);
        let conversation = Conversation {
            messages,
            tool_choice: tool_choice(self.tool_choice.take(), &tools)?,
            tools,
            parallel_tool_calls: self.parallel_tool_calls.unwrap_or(true),
            thinking: decision.thinks,
        };
        let mut request = GenerationRequest::new(Input::Conversation(conversation));
        let max_tokens = self.max_completion_tokens.or(self.max_tokens);
        let sampling = take_fields!(self => Sampling {
            temperature, top_p, top_k, min_p, seed, presence_penalty, frequency_penalty, repetition_penalty, logit_bias,
            stop, n,
        });
        Sampling { max_tokens, ..sampling }.apply(&mut request)?;
        request.options.think_budget = decision.budget;
        request.format = response_format(self.response_format.take())?;
        request.top_log_probs = match (self.logprobs, self.top_logprobs) {
            (true, count) => Some(usize::try_from(count.unwrap_or(0)).unwrap_or(usize::MAX)),
            (false, None | Some(0)) => None,
            (false, Some(_)) => return Err(ApiError::field("top_logprobs", "top_logprobs needs logprobs: true")),
        };
        Ok((request, ignored))
    }
}

/// `POST /v1/chat/completions`
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    JsonBody(body): JsonBody<Body>,
) -> Response {
    answer(&app, caller, body).await.unwrap_or_else(|error| refusal(&error, Dialect::OpenAi))
}

async fn answer(app: &Arc<App>, caller: Caller, body: Body) -> Result<Response, ApiError> {
    let model = app.check_model(body.model.as_deref())?.name.clone();
    let (stream, options) = (body.stream, body.stream_options);
    let (request, ignored) = body.request()?;
    let (n, reports) = (request.n, request.top_log_probs.is_some());
    let mut generation = app.generate(vec![request], caller).await?;
    let ignored = [ignored, std::mem::take(&mut generation.notes)].concat();
    let head = Head { app: app.clone(), id: app.id("chatcmpl-"), created: now(), model };
    if stream {
        let choices = vec![Choice::default(); n];
        let format = Stream { head, include_usage: options.include_usage, reports, choices };
        return Ok(respond(&app.streaming, generation, format, &ignored));
    }
    let answers = generation.whole().await?;
    Ok(json_with_ignored(&head.whole(answers, reports)?, &ignored))
}

/// What all chunks of a response have.
struct Head {
    app: Arc<App>,
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn object(&self, kind: &str) -> Map<String, Value> {
        let mut object = Map::new();
        object.insert("id".into(), json!(self.id));
        object.insert("object".into(), json!(kind));
        object.insert("created".into(), json!(self.created));
        object.insert("model".into(), json!(self.model));
        object.insert("system_fingerprint".into(), json!(concat!("minke-", env!("CARGO_PKG_VERSION"))));
        object
    }

    fn whole(&self, answers: Vec<Answer>, reports: bool) -> Result<Value, ApiError> {
        let usages: Vec<Usage> = answers.iter().map(|answer| answer.usage).collect();
        let tokenizer = &self.app.served()?.worker.model().tokenizer;
        let choices = answers.into_iter().enumerate().map(|(index, answer)| {
            let mut message = Map::from_iter([("role".to_owned(), json!("assistant"))]);
            if let Some(reasoning) = &answer.reasoning {
                message.insert(self.app.config.reasoning_field.name().into(), json!(reasoning));
            }
            let only_calls = answer.content.is_empty() && !answer.calls.is_empty();
            message.insert("content".into(), if only_calls { Value::Null } else { json!(answer.content) });
            message.insert("refusal".into(), Value::Null);
            if !answer.calls.is_empty() {
                let call = |call: &FunctionCall| {
                    json!({"id": self.app.id("call_"), "type": "function",
                           "function": {"name": call.name, "arguments": call.arguments}})
                };
                message.insert("tool_calls".into(), answer.calls.iter().map(call).collect());
            }
            let log_probs = reports.then(|| LogProbs::whole(&answer, tokenizer));
            json!({
                "index": index,
                "message": message,
                "logprobs": log_probs.map(|reports| json!({"content": entries(&reports, tokenizer), "refusal": null})),
                "finish_reason": answer.finish.as_ref().map(finish_reason),
            })
        });
        let mut object = self.object("chat.completion");
        object.insert("choices".into(), choices.collect());
        object.insert("usage".into(), usage(&usages, usages.len()));
        Ok(Value::Object(object))
    }
}

/// The word for an end.
pub(crate) fn finish_reason(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopString(_) => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
    }
}

/// Counts of all answers, `n` to each prompt. A prompt counts once.
pub(crate) fn usage(answers: &[Usage], n: usize) -> Value {
    let sum = |of: fn(&Usage) -> usize| answers.iter().map(of).sum::<usize>();
    let once = |of: fn(&Usage) -> usize| answers.iter().step_by(n).map(of).sum::<usize>();
    let (prompt, cached) = (once(|usage| usage.prompt_tokens), once(|usage| usage.cached_tokens));
    let completion = sum(|usage| usage.completion_tokens);
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": sum(|usage| usage.reasoning_tokens)},
    })
}

/// Log-probabilities, as OpenAI lists them.
fn entries(reports: &[TokenReport], tokenizer: &Tokenizer) -> Value {
    let token = |id: u32, log_prob: f32| {
        let bytes = tokenizer.token_bytes(id);
        // JSON has no word for minus infinity; OpenAI writes this number.
        let log_prob = log_prob.max(-9999.0);
        json!({"token": String::from_utf8_lossy(bytes), "logprob": log_prob, "bytes": bytes})
    };
    let entry = |report: &TokenReport| {
        let mut entry = token(report.id, report.log_prob);
        entry["top_logprobs"] = report.top.iter().map(|top| token(top.token_id, top.log_prob)).collect();
        entry
    };
    reports.iter().map(entry).collect()
}

/// A stream of chunks.
struct Stream {
    head: Head,
    include_usage: bool,
    reports: bool,
    choices: Vec<Choice>,
}

#[derive(Clone, Default)]
struct Choice {
    log_probs: LogProbs,
    /// Calls that have begun.
    calls: usize,
    usage: Usage,
}

impl Stream {
    fn chunk(&self, index: usize, delta: Value, log_probs: Option<Value>, finish: Option<&str>) -> String {
        let mut object = self.head.object("chat.completion.chunk");
        let choice = json!({"index": index, "delta": delta, "logprobs": log_probs, "finish_reason": finish});
        object.insert("choices".into(), json!([choice]));
        if self.include_usage {
            object.insert("usage".into(), Value::Null);
        }
        event(None, &object)
    }
}

impl StreamFormat for Stream {
    fn start(&mut self) -> String {
        let role = |index| self.chunk(index, json!({"role": "assistant", "content": ""}), None, None);
        (0..self.choices.len()).map(role).collect()
    }

    fn update(&mut self, update: Update) -> String {
        let (mut out, index) = (String::new(), update.choice);
        let field = self.head.app.config.reasoning_field.name();
        let choice = &mut self.choices[index];
        choice.usage = update.usage;
        choice.log_probs.tokens(update.tokens);
        for piece in update.pieces {
            let choice = &mut self.choices[index];
            let mut log_probs = None;
            let delta = match piece {
                Piece::Reasoning(text) => json!({field: text}),
                Piece::Content(text) => {
                    if self.reports
                        && let Ok(served) = self.head.app.served()
                    {
                        let tokenizer = &served.worker.model().tokenizer;
                        let reports = choice.log_probs.cover(&text, tokenizer);
                        log_probs = Some(json!({"content": entries(&reports, tokenizer), "refusal": null}));
                    }
                    json!({"content": text})
                }
                // What was sent cannot be taken back.
                Piece::ContentWasReasoning | Piece::Incomplete => continue,
                Piece::Call(name) => {
                    let (call, id) = (choice.calls, self.head.app.id("call_"));
                    choice.calls += 1;
                    let function = json!({"name": name, "arguments": ""});
                    json!({"tool_calls": [{"index": call, "id": id, "type": "function", "function": function}]})
                }
                Piece::Arguments(text) => {
                    let call = choice.calls.saturating_sub(1);
                    json!({"tool_calls": [{"index": call, "function": {"arguments": text}}]})
                }
            };
            out += &self.chunk(index, delta, log_probs, None);
        }
        if let Some(Ok(finish)) = &update.end {
            out += &self.chunk(index, json!({}), None, Some(finish_reason(finish)));
        }
        out
    }

    fn finish(&mut self) -> String {
        let mut out = String::new();
        if self.include_usage {
            let usages: Vec<Usage> = self.choices.iter().map(|choice| choice.usage).collect();
            let mut object = self.head.object("chat.completion.chunk");
            object.insert("choices".into(), json!([]));
            object.insert("usage".into(), usage(&usages, usages.len()));
            out += &event(None, &object);
        }
        out + "data: [DONE]\n\n"
    }

    fn error(&mut self, error: &ApiError) -> String {
        event(None, &error.openai())
    }

    fn keepalive(&mut self) -> String {
        ": the answer is being prepared\n\n".into()
    }
}
