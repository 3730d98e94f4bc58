//! OpenAI's chat completions: `POST /v1/chat/completions`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use minke_chat::{Piece, PolicyVersion, Usage};
use minke_text::{FunctionCall, Message, Tokenizer, ToolCall};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::fields::{
    BodyCall, Content, Effort, OneOrMany, Rest, RoleName, Sampling, TemplateArguments, Thinking, ThinkingField, biases,
    drop_nonce, ignored, null_is_default, one_or_many, response_format, take_fields, tool_choice, tools,
};
use crate::app::{App, Caller, now};
use crate::config::ReasoningField;
use crate::error::{ApiError, Dialect};
use crate::generation::{Answer, Conversation, Finish, GenerationRequest, Input, TokenReport, Update};
use crate::http::{JsonBody, json_with_ignored, name_policy, refusal};
use crate::log_probs::LogProbs;
use crate::stream::{StreamFormat, event, respond};

/// A request.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ChatRequest)]
pub(crate) struct Body {
    model: Option<String>,
    messages: Vec<BodyMessage>,
    #[schema(minimum = 0, maximum = 100)]
    temperature: Option<f32>,
    #[schema(exclusive_minimum = 0, maximum = 1)]
    top_p: Option<f32>,
    #[schema(minimum = -1)]
    top_k: Option<i64>,
    #[schema(minimum = 0, maximum = 1)]
    min_p: Option<f32>,
    ignore_eos: Option<bool>,
    seed: Option<i64>,
    #[schema(minimum = -2, maximum = 2)]
    presence_penalty: Option<f32>,
    #[schema(minimum = -2, maximum = 2)]
    frequency_penalty: Option<f32>,
    #[schema(minimum = 0.01, maximum = 100)]
    repetition_penalty: Option<f32>,
    #[serde(default, deserialize_with = "biases")]
    #[schema(value_type = Option<BTreeMap<String, f32>>)]
    logit_bias: BTreeMap<String, f32>,
    #[serde(default, deserialize_with = "one_or_many")]
    #[schema(value_type = Option<OneOrMany>)]
    stop: Vec<String>,
    #[schema(minimum = 1)]
    n: Option<u64>,
    /// The older name of `max_completion_tokens`.
    #[schema(minimum = 1)]
    max_tokens: Option<u64>,
    #[schema(minimum = 1)]
    max_completion_tokens: Option<u64>,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<bool>)]
    logprobs: bool,
    #[schema(maximum = 20)]
    top_logprobs: Option<u64>,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<bool>)]
    stream: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<StreamOptions>)]
    stream_options: StreamOptions,
    #[schema(value_type = Option<Object>)]
    response_format: Option<Value>,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<Value>>)]
    tools: Vec<Value>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    reasoning_effort: Option<Effort>,
    thinking: Option<ThinkingField>,
    enable_thinking: Option<bool>,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<TemplateArguments>)]
    chat_template_kwargs: TemplateArguments,
    #[serde(alias = "reasoning_budget", alias = "thinking_budget_tokens", alias = "thinking_token_budget")]
    #[schema(minimum = -1)]
    thinking_budget: Option<i64>,
    #[serde(flatten)]
    #[schema(ignore)]
    rest: Rest,
}

/// What a stream tells beside the answer.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct StreamOptions {
    /// Whether the counts come in a chunk of their own at the end.
    #[serde(default)]
    pub include_usage: bool,
}

/// A message of a conversation.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConversationMessage)]
pub(crate) struct BodyMessage {
    role: RoleName,
    #[schema(value_type = Option<Value>)]
    content: Option<Content>,
    #[serde(alias = "reasoning")]
    reasoning_content: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<BodyCall>>)]
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
    /// If a part of it cannot be read.
    pub(crate) fn message(self, i: usize) -> Result<Message, ApiError> {
        let content = self.content.map(|content| content.text(&format!("messages[{i}].content"))).transpose()?;
        let tool_calls: Vec<ToolCall> = self.tool_calls.into_iter().map(ToolCall::from).collect();
        // Only a message that calls tools may go without a text.
        let content = if tool_calls.is_empty() { Some(content.unwrap_or_default()) } else { content };
        Ok(Message {
            role: self.role.into(),
            content,
            reasoning_content: self.reasoning_content.filter(|thought| !thought.is_empty()),
            tool_calls,
            tool_call_id: self.tool_call_id,
            name: self.name,
        })
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
            temperature, top_p, top_k, min_p, ignore_eos, seed, presence_penalty, frequency_penalty, repetition_penalty, logit_bias,
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
        let choices = vec![Progress::default(); n];
        let format = Stream { head, include_usage: options.include_usage, reports, choices };
        return Ok(respond(&app.streaming, generation, format, &ignored));
    }
    let answers = generation.whole().await?;
    let versions: Vec<Option<PolicyVersion>> = answers.iter().map(|answer| answer.policy_version).collect();
    let mut response = json_with_ignored(&head.whole(answers, reports)?, &ignored);
    name_policy(&mut response, versions.into_iter());
    Ok(response)
}

/// Answers to a conversation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatCompletion)]
pub(crate) struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: Vec<Choice>,
    usage: UsageCounts,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatChoice)]
struct Choice {
    index: usize,
    message: AnswerMessage,
    logprobs: Option<ChoiceLogProbs>,
    finish_reason: Option<FinishReason>,
    /// Which version of a policy answered, where the model is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_version: Option<String>,
}

/// What the model says. A thought is called as the server's settings name it.
#[derive(Debug, Serialize, ToSchema)]
struct AnswerMessage {
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    content: Option<String>,
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
}

/// A part of the answers, as streams bring it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatCompletionChunk)]
pub(crate) struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: Vec<ChunkChoice>,
    /// Where it is asked for: null until the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageCounts>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatChunkChoice)]
struct ChunkChoice {
    index: usize,
    delta: Delta,
    logprobs: Option<ChoiceLogProbs>,
    finish_reason: Option<FinishReason>,
    /// In the last chunk of an answer: which version of a policy gave it, where the model is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_version: Option<String>,
}

/// What is new in a message.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = ChatDelta)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallDelta>,
}

/// A call of a tool.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatCall)]
struct Call {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: CalledFunction,
}

#[derive(Debug, Serialize, ToSchema)]
struct CalledFunction {
    name: String,
    /// An object, as a text of JSON.
    arguments: String,
}

/// What is new in a call: all but the arguments come with its first part.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatCallDelta)]
struct CallDelta {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionDelta,
}

#[derive(Debug, Serialize, ToSchema)]
struct FunctionDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FinishReason {
    Stop,
    Length,
    ToolCalls,
}

impl From<&Finish> for FinishReason {
    fn from(finish: &Finish) -> Self {
        match finish {
            Finish::Stop | Finish::StopString(_) => Self::Stop,
            Finish::Length => Self::Length,
            Finish::ToolCalls => Self::ToolCalls,
        }
    }
}

/// Counts of tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsageCounts {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Debug, Serialize, ToSchema)]
struct PromptDetails {
    /// Of which the cache had what they stand for.
    cached_tokens: usize,
}

#[derive(Debug, Serialize, ToSchema)]
struct CompletionDetails {
    reasoning_tokens: usize,
}

impl UsageCounts {
    /// Counts of all answers, `n` to each prompt. A prompt counts once.
    pub(crate) fn of(answers: &[Usage], n: usize) -> Self {
        let sum = |of: fn(&Usage) -> usize| answers.iter().map(of).sum::<usize>();
        let once = |of: fn(&Usage) -> usize| answers.iter().step_by(n).map(of).sum::<usize>();
        let (prompt_tokens, cached_tokens) = (once(|usage| usage.prompt_tokens), once(|usage| usage.cached_tokens));
        let completion_tokens = sum(|usage| usage.completion_tokens);
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptDetails { cached_tokens },
            completion_tokens_details: CompletionDetails { reasoning_tokens: sum(|usage| usage.reasoning_tokens) },
        }
    }
}

/// Log-probabilities of the tokens of a content.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatLogProbs)]
struct ChoiceLogProbs {
    content: Vec<LogProbEntry>,
    refusal: Option<Vec<LogProbEntry>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct LogProbEntry {
    #[serde(flatten)]
    token: TokenLogProb,
    top_logprobs: Vec<TokenLogProb>,
}

#[derive(Debug, Serialize, ToSchema)]
struct TokenLogProb {
    token: String,
    logprob: f64,
    bytes: Vec<u8>,
}

impl ChoiceLogProbs {
    fn of(reports: &[TokenReport], tokenizer: &Tokenizer) -> Self {
        let token = |id: u32, log_prob: f32| {
            let bytes = tokenizer.token_bytes(id).to_vec();
            TokenLogProb { token: String::from_utf8_lossy(&bytes).into_owned(), logprob: writable(log_prob), bytes }
        };
        let entry = |report: &TokenReport| LogProbEntry {
            token: token(report.id, report.log_prob),
            top_logprobs: report.top.iter().map(|top| token(top.token_id, top.log_prob)).collect(),
        };
        Self { content: reports.iter().map(entry).collect(), refusal: None }
    }
}

/// JSON has no word for minus infinity; OpenAI writes -9999.
pub(crate) fn writable(log_prob: f32) -> f64 {
    f64::from(log_prob.max(-9999.0))
}

/// What all chunks of a response have.
struct Head {
    app: Arc<App>,
    id: String,
    created: u64,
    model: String,
}

const FINGERPRINT: &str = concat!("minke-", env!("CARGO_PKG_VERSION"));

impl Head {
    /// A thought under the name that it has here: `reasoning_content`, or `reasoning`.
    fn thought(&self, text: Option<String>) -> (Option<String>, Option<String>) {
        match self.app.config.reasoning_field {
            ReasoningField::ReasoningContent => (text, None),
            ReasoningField::Reasoning => (None, text),
        }
    }

    fn whole(&self, answers: Vec<Answer>, reports: bool) -> Result<Completion<'_>, ApiError> {
        let usages: Vec<Usage> = answers.iter().map(|answer| answer.usage).collect();
        let model = self.app.served()?.worker.model();
        let tokenizer = &model.tokenizer;
        let choice = |(index, answer): (usize, Answer)| {
            let reports = reports.then(|| LogProbs::whole(&answer, tokenizer));
            let only_calls = answer.content.is_empty() && !answer.calls.is_empty();
            let (reasoning_content, reasoning) = self.thought(answer.reasoning);
            let call = |call: FunctionCall| {
                let function = CalledFunction { name: call.name, arguments: call.arguments };
                Call { id: self.app.id("call_"), kind: "function", function }
            };
            let message = AnswerMessage {
                role: "assistant",
                reasoning_content,
                reasoning,
                content: (!only_calls).then_some(answer.content),
                refusal: None,
                tool_calls: answer.calls.into_iter().map(call).collect(),
            };
            Choice {
                index,
                message,
                logprobs: reports.map(|reports| ChoiceLogProbs::of(&reports, tokenizer)),
                finish_reason: answer.finish.as_ref().map(FinishReason::from),
                policy_version: answer.policy_version.map(String::from),
            }
        };
        Ok(Completion {
            id: &self.id,
            object: "chat.completion",
            created: self.created,
            model: &self.model,
            system_fingerprint: FINGERPRINT,
            choices: answers.into_iter().enumerate().map(choice).collect(),
            usage: UsageCounts::of(&usages, usages.len()),
        })
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<Option<UsageCounts>>) -> String {
        let chunk = Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            system_fingerprint: FINGERPRINT,
            choices,
            usage,
        };
        event(None, &chunk)
    }
}

/// A stream of chunks.
struct Stream {
    head: Head,
    include_usage: bool,
    reports: bool,
    choices: Vec<Progress>,
}

/// How far an answer is.
#[derive(Clone, Default)]
struct Progress {
    log_probs: LogProbs,
    /// Calls that have begun.
    calls: usize,
    usage: Usage,
}

impl Stream {
    fn chunk(
        &self,
        index: usize,
        delta: Delta,
        logprobs: Option<ChoiceLogProbs>,
        finish_reason: Option<FinishReason>,
        policy_version: Option<PolicyVersion>,
    ) -> String {
        let policy_version = policy_version.map(String::from);
        let choice = ChunkChoice { index, delta, logprobs, finish_reason, policy_version };
        self.head.chunk(vec![choice], self.include_usage.then_some(None))
    }
}

impl StreamFormat for Stream {
    fn start(&mut self) -> String {
        let delta = || Delta { role: Some("assistant"), content: Some(String::new()), ..Delta::default() };
        (0..self.choices.len()).map(|index| self.chunk(index, delta(), None, None, None)).collect()
    }

    fn update(&mut self, update: Update) -> String {
        let (mut out, index) = (String::new(), update.choice);
        let choice = &mut self.choices[index];
        choice.usage = update.usage;
        choice.log_probs.tokens(update.tokens);
        for piece in update.pieces {
            let choice = &mut self.choices[index];
            let mut log_probs = None;
            let delta = match piece {
                Piece::Reasoning(text) => {
                    let (reasoning_content, reasoning) = self.head.thought(Some(text));
                    Delta { reasoning_content, reasoning, ..Delta::default() }
                }
                Piece::Content(text) => {
                    if self.reports
                        && let Ok(served) = self.head.app.served()
                    {
                        let model = served.worker.model();
                        let tokenizer = &model.tokenizer;
                        log_probs = Some(ChoiceLogProbs::of(&choice.log_probs.cover(&text, tokenizer), tokenizer));
                    }
                    Delta { content: Some(text), ..Delta::default() }
                }
                // What was sent cannot be taken back.
                Piece::ContentWasReasoning | Piece::Incomplete => continue,
                Piece::Call(name) => {
                    let (index, id) = (choice.calls, Some(self.head.app.id("call_")));
                    choice.calls += 1;
                    let function = FunctionDelta { name: Some(name), arguments: String::new() };
                    let call = CallDelta { index, id, kind: Some("function"), function };
                    Delta { tool_calls: vec![call], ..Delta::default() }
                }
                Piece::Arguments(arguments) => {
                    let function = FunctionDelta { name: None, arguments };
                    let call = CallDelta { index: choice.calls.saturating_sub(1), id: None, kind: None, function };
                    Delta { tool_calls: vec![call], ..Delta::default() }
                }
            };
            out += &self.chunk(index, delta, log_probs, None, None);
        }
        if let Some(Ok(finish)) = &update.end {
            out += &self.chunk(index, Delta::default(), None, Some(finish.into()), update.policy_version);
        }
        out
    }

    fn finish(&mut self) -> String {
        let mut out = String::new();
        if self.include_usage {
            let usages: Vec<Usage> = self.choices.iter().map(|choice| choice.usage).collect();
            out += &self.head.chunk(Vec::new(), Some(Some(UsageCounts::of(&usages, usages.len()))));
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
