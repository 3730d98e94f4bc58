//! OpenAI's completions of plain texts: `POST /v1/completions`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use minke_chat::{Piece, PolicyVersion, Usage};
use minke_text::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::chat::{FinishReason, StreamOptions, UsageCounts, writable};
use super::fields::{
    OneOrMany, Rest, Sampling, biases, ignored, null_is_default, one_or_many, response_format, take_fields,
};
use crate::app::{App, Caller, now};
use crate::error::{ApiError, Dialect};
use crate::generation::{Answer, GenerationRequest, Input, TokenReport, Update};
use crate::http::{JsonBody, json_with_ignored, name_policy, refusal};
use crate::log_probs::LogProbs;
use crate::stream::{StreamFormat, event, respond};

/// A request.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = CompletionRequest)]
pub(crate) struct Body {
    model: Option<String>,
    prompt: Option<Prompts>,
    suffix: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<bool>)]
    echo: bool,
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
    best_of: Option<u64>,
    #[schema(minimum = 1)]
    max_tokens: Option<u64>,
    /// Alternatives reported for each token.
    #[schema(maximum = 20)]
    logprobs: Option<u64>,
    /// Whether the ids of prompt and answer are reported, as vLLM does; then log-probabilities are of all ids of the answer, its end
    /// included. Not in a stream.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<bool>)]
    return_token_ids: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<bool>)]
    stream: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<StreamOptions>)]
    stream_options: StreamOptions,
    #[schema(value_type = Option<Object>)]
    response_format: Option<Value>,
    #[serde(flatten)]
    #[schema(ignore)]
    rest: Rest,
}

/// One text or several, each as a text or as ids.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
enum Prompts {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    ManyTokens(Vec<Vec<u32>>),
}

/// A prompt of a request, as far as the answer repeats it.
struct PromptText {
    /// With what the answer's text begins.
    text: String,
    token_ids: Option<Vec<u32>>,
}

/// Most prompts of a request.
const MOST_PROMPTS: usize = 64;
/// What OpenAI's API generates where nothing is said.
const MAX_TOKENS: u64 = 16;

/// The tokens around a gap, of models that fill one in: before the text in front of it, before the text behind it, and before
/// what is to be filled in.
const GAPS: [[&str; 3]; 4] = [
    ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
    ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
    ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
    ["<PRE>", "<SUF>", "<MID>"],
];

impl Body {
    /// The requests, one for each prompt, and the texts of the prompts.
    ///
    /// # Errors
    /// The first field that cannot be obeyed.
    fn requests(mut self, tokenizer: &Tokenizer) -> Result<(Vec<GenerationRequest>, Vec<PromptText>), ApiError> {
        let prompts: Vec<Vec<u32>> = match self.prompt.take().unwrap_or(Prompts::Text(String::new())) {
            Prompts::Text(text) => vec![self.ids(&text, tokenizer)?],
            Prompts::Texts(texts) => texts.iter().map(|text| self.ids(text, tokenizer)).collect::<Result<_, _>>()?,
            Prompts::Tokens(ids) => vec![ids],
            Prompts::ManyTokens(prompts) => prompts,
        };
        if prompts.is_empty() || prompts.len() > MOST_PROMPTS {
            return Err(ApiError::field("prompt", format!("prompt must be 1 to {MOST_PROMPTS} texts")));
        }
        let (echo, token_ids) = (self.echo, self.return_token_ids);
        let text = |ids: &Vec<u32>| PromptText {
            text: if echo { tokenizer.decode(ids, true) } else { String::new() },
            token_ids: token_ids.then(|| ids.clone()),
        };
        let texts = prompts.iter().map(text).collect();
        let mut request = GenerationRequest::new(Input::Tokens(Vec::new()));
        let n = self.n.unwrap_or(1);
        if self.best_of.is_some_and(|best| best != n) {
            return Err(ApiError::field("best_of", "best_of other than n is not supported; ask for n and choose"));
        }
        if self.echo && self.logprobs.is_some() {
            return Err(ApiError::field(
                "echo",
                "echo with logprobs is not supported: log-probabilities are of answers",
            ));
        }
        if self.return_token_ids && self.stream {
            let message = "return_token_ids with stream is not supported; ask for the whole answer";
            return Err(ApiError::field("return_token_ids", message));
        }
        let max_tokens = self.max_tokens.or(Some(MAX_TOKENS));
        let sampling = take_fields!(self => Sampling {
            temperature, top_p, top_k, min_p, ignore_eos, seed, presence_penalty, frequency_penalty, repetition_penalty, logit_bias,
            stop, n,
        });
        Sampling { max_tokens, ..sampling }.apply(&mut request)?;
        request.format = response_format(self.response_format.take())?;
        // Ids come with their log-probabilities.
        let log_probs = self.logprobs.or(self.return_token_ids.then_some(0));
        request.top_log_probs = log_probs.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        let one = |token_ids| GenerationRequest { input: Input::Tokens(token_ids), ..request.clone() };
        Ok((prompts.into_iter().map(one).collect(), texts))
    }

    /// The ids of a prompt, around the gap if there is a text behind it.
    fn ids(&self, text: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>, ApiError> {
        let Some(suffix) = self.suffix.as_deref().filter(|suffix| !suffix.is_empty()) else {
            return Ok(tokenizer.encode_prompt(text));
        };
        let known = GAPS.iter().find_map(|tags| {
            let ids: Option<Vec<u32>> = tags.iter().map(|tag| tokenizer.id_of(tag)).collect();
            ids
        });
        let Some(tags) = known else {
            return Err(ApiError::field("suffix", "this model has no tokens for filling in a gap; leave suffix out"));
        };
        let parts =
            [vec![tags[0]], tokenizer.encode_plain(text), vec![tags[1]], tokenizer.encode_plain(suffix), vec![tags[2]]];
        Ok(tokenizer.begin_ids().iter().copied().chain(parts.concat()).collect())
    }
}

/// `POST /v1/completions`
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    JsonBody(body): JsonBody<Body>,
) -> Response {
    answer(&app, caller, body).await.unwrap_or_else(|error| refusal(&error, Dialect::OpenAi))
}

async fn answer(app: &Arc<App>, caller: Caller, body: Body) -> Result<Response, ApiError> {
    let served = app.check_model(body.model.as_deref())?;
    let (stream, options, reports) = (body.stream, body.stream_options, body.logprobs.is_some());
    let ignored = ignored(&body.rest, &["user", "metadata", "store"]);
    let own = app.clone();
    let cut = move || body.requests(&own.served()?.worker.model().tokenizer);
    let (requests, prompts) = app.blocking(cut).await?;
    let n = requests[0].n;
    let mut generation = app.generate(requests, caller).await?;
    let ignored = [ignored, std::mem::take(&mut generation.notes)].concat();
    let head = Head { app: app.clone(), id: app.id("cmpl-"), created: now(), model: served.name.clone(), n };
    if stream {
        let choice = |i: usize| Progress { offset: prompts[i / n].text.chars().count(), ..Progress::default() };
        let choices = (0..prompts.len() * n).map(choice).collect();
        let format = Stream { head, include_usage: options.include_usage, reports, prompts, choices };
        return Ok(respond(&app.streaming, generation, format, &ignored));
    }
    let answers = generation.whole().await?;
    let versions: Vec<Option<PolicyVersion>> = answers.iter().map(|answer| answer.policy_version).collect();
    let mut response = json_with_ignored(&head.whole(answers, &prompts, reports)?, &ignored);
    name_policy(&mut response, versions.into_iter());
    Ok(response)
}

/// Texts that were continued, or, in a stream, a part of them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TextCompletion)]
pub(crate) struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: &'a str,
    choices: Vec<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageCounts>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TextChoice)]
struct Choice<'a> {
    index: usize,
    text: Cow<'a, str>,
    logprobs: Option<TextLogProbs>,
    finish_reason: Option<FinishReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
    /// Which version of a policy answered, where the model is one; of a stream in the last chunk of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_version: Option<String>,
}

/// Log-probabilities in the older form, as parallel lists.
#[derive(Debug, Default, Serialize, ToSchema)]
struct TextLogProbs {
    tokens: Vec<String>,
    token_logprobs: Vec<f64>,
    top_logprobs: Vec<BTreeMap<String, f64>>,
    /// Characters in front of each token.
    text_offset: Vec<usize>,
}

impl TextLogProbs {
    /// `offset` is how many characters stand before, and grows.
    fn of(reports: &[TokenReport], tokenizer: &Tokenizer, offset: &mut usize) -> Self {
        let text = |id| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned();
        let mut log_probs = Self::default();
        for report in reports {
            let token = text(report.id);
            log_probs.text_offset.push(*offset);
            *offset += token.chars().count();
            log_probs.tokens.push(token);
            log_probs.token_logprobs.push(writable(report.log_prob));
            let top = report.top.iter().map(|top| (text(top.token_id), writable(top.log_prob)));
            log_probs.top_logprobs.push(top.collect());
        }
        log_probs
    }
}

struct Head {
    app: Arc<App>,
    id: String,
    created: u64,
    model: String,
    /// Answers to each prompt.
    n: usize,
}

impl Head {
    fn object<'a>(&'a self, choices: Vec<Choice<'a>>, usage: Option<UsageCounts>) -> Completion<'a> {
        Completion {
            id: &self.id,
            object: "text_completion",
            created: self.created,
            model: &self.model,
            choices,
            usage,
        }
    }

    fn whole<'a>(
        &'a self,
        answers: Vec<Answer>,
        prompts: &'a [PromptText],
        reports: bool,
    ) -> Result<Completion<'a>, ApiError> {
        let usages: Vec<Usage> = answers.iter().map(|answer| answer.usage).collect();
        let model = self.app.served()?.worker.model();
        let tokenizer = &model.tokenizer;
        let choice = |(index, answer): (usize, Answer)| {
            let PromptText { text: prompt, token_ids } = &prompts[index / self.n];
            let mut offset = prompt.chars().count();
            let whole = || match token_ids {
                Some(_) => answer.tokens.clone(),
                None => LogProbs::whole(&answer, tokenizer),
            };
            Choice {
                index,
                text: format!("{prompt}{}", answer.content).into(),
                logprobs: reports.then(|| TextLogProbs::of(&whole(), tokenizer, &mut offset)),
                finish_reason: answer.finish.as_ref().map(FinishReason::from),
                prompt_token_ids: token_ids.as_deref(),
                token_ids: token_ids.as_ref().map(|_| answer.tokens.iter().map(|token| token.id).collect()),
                policy_version: answer.policy_version.map(String::from),
            }
        };
        let choices = answers.into_iter().enumerate().map(choice).collect();
        Ok(self.object(choices, Some(UsageCounts::of(&usages, self.n))))
    }
}

struct Stream {
    head: Head,
    include_usage: bool,
    reports: bool,
    prompts: Vec<PromptText>,
    choices: Vec<Progress>,
}

/// How far an answer is.
#[derive(Clone, Default)]
struct Progress {
    log_probs: LogProbs,
    offset: usize,
    usage: Usage,
}

impl Stream {
    fn chunk(
        &self,
        index: usize,
        text: &str,
        logprobs: Option<TextLogProbs>,
        end: Option<(FinishReason, Option<PolicyVersion>)>,
    ) -> String {
        let choice = Choice {
            index,
            text: text.into(),
            logprobs,
            finish_reason: end.map(|(reason, _)| reason),
            prompt_token_ids: None,
            token_ids: None,
            policy_version: end.and_then(|(_, version)| version).map(String::from),
        };
        event(None, &self.head.object(vec![choice], None))
    }
}

impl StreamFormat for Stream {
    fn start(&mut self) -> String {
        let echo = |index: usize| {
            let prompt = &self.prompts[index / self.head.n].text;
            if prompt.is_empty() { String::new() } else { self.chunk(index, prompt, None, None) }
        };
        (0..self.choices.len()).map(echo).collect()
    }

    fn update(&mut self, update: Update) -> String {
        let (mut out, index) = (String::new(), update.choice);
        let choice = &mut self.choices[index];
        choice.usage = update.usage;
        choice.log_probs.tokens(update.tokens);
        for piece in update.pieces {
            // A text that is continued has nothing else.
            let Piece::Content(text) = piece else { continue };
            let mut reported = None;
            if self.reports
                && let Ok(served) = self.head.app.served()
            {
                let model = served.worker.model();
                let tokenizer = &model.tokenizer;
                let choice = &mut self.choices[index];
                let covered = choice.log_probs.cover(&text, tokenizer);
                reported = Some(TextLogProbs::of(&covered, tokenizer, &mut choice.offset));
            }
            out += &self.chunk(index, &text, reported, None);
        }
        if let Some(Ok(finish)) = &update.end {
            out += &self.chunk(index, "", None, Some((finish.into(), update.policy_version)));
        }
        out
    }

    fn finish(&mut self) -> String {
        let mut out = String::new();
        if self.include_usage {
            let usages: Vec<Usage> = self.choices.iter().map(|choice| choice.usage).collect();
            out += &event(None, &self.head.object(Vec::new(), Some(UsageCounts::of(&usages, self.head.n))));
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
