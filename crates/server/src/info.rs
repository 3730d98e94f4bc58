//! What the server says about itself and its model, and what its tokenizer and template make of a text.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use minke_chat::Thinking;
use minke_text::{Message, RenderOptions};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::app::{App, Served, rendered};
use crate::dialect::chat::BodyMessage;
use crate::dialect::fields;
use crate::error::{ApiError, Dialect, Kind};
use crate::http::{InPath, JsonBody, json, refusal};

/// The model is loaded.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    status: &'static str,
}

/// `GET /health`: whether the model is loaded.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    match app.served() {
        Ok(_) => json(StatusCode::OK, &Health { status: "ok" }),
        Err(error) => refusal(&error, Dialect::OpenAi),
    }
}

/// A request would be taken now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ready {
    status: &'static str,
    /// Requests that are worked on.
    running: usize,
    /// Requests that wait.
    waiting: usize,
    /// Which version of a policy answers, where the model is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_version: Option<String>,
}

/// `GET /ready`: whether a request would be taken now.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    let served = match app.served() {
        Ok(served) => served,
        Err(error) => return refusal(&error, Dialect::OpenAi),
    };
    let stats = served.worker.last_stats();
    if stats.waiting >= app.config.max_waiting {
        let error = ApiError::new(Kind::Unavailable, "as many requests wait as may");
        return refusal(&error, Dialect::OpenAi);
    }
    let policy_version = served.worker.model().policy_version.map(String::from);
    let ready = Ready { status: "ready", running: stats.running, waiting: stats.waiting, policy_version };
    json(StatusCode::OK, &ready)
}

/// `GET /metrics`: counters for Prometheus.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let served = app.served().ok();
    let stats = served.map(|served| served.worker.last_stats());
    let policy = served.and_then(|served| served.worker.model().policy_version);
    let mut response = app.metrics.text(stats.as_ref(), policy).into_response();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A model, as OpenAI lists it, with what this server knows beside.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Model {
    id: String,
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    owned_by: &'static str,
    /// Tokens of prompt and answer together.
    context_length: usize,
    /// The same, as vLLM calls it.
    max_model_len: usize,
    quantization: String,
    parameters: usize,
    architecture: String,
    thinking: Thinks,
    /// Which version of a policy it is now, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_version: Option<String>,
}

/// Whether a model thinks before it answers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Thinks {
    None,
    Optional,
    Always,
}

/// The models of this server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelList {
    object: &'static str,
    data: Vec<Model>,
    /// Codex reads a list of this name, and takes it empty.
    models: Vec<Value>,
}

fn model(served: &Served, name: &str) -> Model {
    let model = served.worker.model();
    let about = &model.summary;
    let thinking = match about.thinking {
        Thinking::Never => Thinks::None,
        Thinking::Optional => Thinks::Optional,
        Thinking::Always => Thinks::Always,
    };
    Model {
        id: name.to_owned(),
        object: "model",
        created: served.since,
        owned_by: "minke",
        context_length: served.worker.limit(),
        max_model_len: served.worker.limit(),
        quantization: about.quantization.clone(),
        parameters: about.parameters,
        architecture: about.architecture.clone(),
        thinking,
        policy_version: model.policy_version.map(String::from),
    }
}

/// `GET /v1/models`
pub(crate) async fn models(State(app): State<Arc<App>>) -> Response {
    let of = |served: &Served| -> Vec<Model> {
        let names = std::iter::once(&served.name).chain(app.config.model_aliases.iter().filter(|alias| *alias != "*"));
        names.map(|name| model(served, name)).collect()
    };
    let data = app.served().map(of).unwrap_or_default();
    json(StatusCode::OK, &ModelList { object: "list", data, models: Vec::new() })
}

/// `GET /v1/models/{id}`
pub(crate) async fn model_of_name(State(app): State<Arc<App>>, InPath(name): InPath) -> Response {
    match app.check_model(Some(&name)) {
        Ok(served) => json(StatusCode::OK, &model(served, &name)),
        Err(error) => refusal(&error, Dialect::OpenAi),
    }
}

/// What is to be cut into tokens; llama.cpp calls it `content`, vLLM `prompt`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = TokenizeRequest)]
pub(crate) struct TokenizeBody {
    #[serde(alias = "prompt", alias = "text")]
    content: String,
    /// Whether the tokens come that begin every text.
    #[serde(default, alias = "add_special_tokens")]
    add_special: bool,
    /// Whether the names of control tokens in the text stand for them.
    #[serde(default = "yes")]
    parse_special: bool,
    /// Whether each token comes with its text.
    #[serde(default)]
    with_pieces: bool,
}

fn yes() -> bool {
    true
}

/// The response to a request whose work takes time that grows with its text.
async fn worked_out<T: Serialize + Send + 'static>(
    app: Arc<App>,
    work: impl FnOnce(&Served) -> Result<T, ApiError> + Send + 'static,
) -> Response {
    let own = app.clone();
    match app.blocking(move || work(own.served()?)).await {
        Ok(value) => json(StatusCode::OK, &value),
        Err(error) => refusal(&error, Dialect::OpenAi),
    }
}

/// A text as tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tokens {
    tokens: Vec<Token>,
    count: usize,
    max_model_len: usize,
}

/// A token: its id, or that with its text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Token {
    Id(u32),
    WithPiece { id: u32, piece: TokenPiece },
}

/// The text of a token, or its bytes where they are a part of a character.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum TokenPiece {
    Text(String),
    Bytes(Vec<u8>),
}

/// `POST /tokenize`
pub(crate) async fn tokenize(State(app): State<Arc<App>>, JsonBody(body): JsonBody<TokenizeBody>) -> Response {
    worked_out(app, move |served| {
        let model = served.worker.model();
        let tokenizer = &model.tokenizer;
        let mut ids = match (body.add_special, body.parse_special) {
            (true, true) => tokenizer.encode_prompt(&body.content),
            (false, true) => tokenizer.encode(&body.content),
            (_, false) => tokenizer.encode_plain(&body.content),
        };
        if body.add_special && !body.parse_special {
            ids.splice(..0, tokenizer.begin_ids().iter().copied());
        }
        let token = |id: u32| {
            if !body.with_pieces {
                return Token::Id(id);
            }
            let bytes = tokenizer.token_bytes(id);
            let text = std::str::from_utf8(bytes).map(|text| TokenPiece::Text(text.to_owned()));
            Token::WithPiece { id, piece: text.unwrap_or_else(|_| TokenPiece::Bytes(bytes.to_vec())) }
        };
        let tokens: Vec<Token> = ids.into_iter().map(token).collect();
        Ok(Tokens { count: tokens.len(), tokens, max_model_len: served.worker.limit() })
    })
    .await
}

/// Tokens whose text is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = DetokenizeRequest)]
pub(crate) struct DetokenizeBody {
    tokens: Vec<u32>,
}

/// The text of tokens, under the names that llama.cpp and vLLM give it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Detokenized {
    content: String,
    prompt: String,
}

/// `POST /detokenize`
pub(crate) async fn detokenize(State(app): State<Arc<App>>, JsonBody(body): JsonBody<DetokenizeBody>) -> Response {
    worked_out(app, move |served| {
        let model = served.worker.model();
        let tokenizer = &model.tokenizer;
        if let Some(id) = body.tokens.iter().find(|id| **id as usize >= tokenizer.vocab_size()) {
            let message = format!("token {id} is not in the vocabulary of {}", tokenizer.vocab_size());
            return Err(ApiError::field("tokens", message));
        }
        let text = tokenizer.decode(&body.tokens, false);
        Ok(Detokenized { content: text.clone(), prompt: text })
    })
    .await
}

/// A conversation to be rendered.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = TemplateRequest)]
pub(crate) struct TemplateBody {
    messages: Vec<BodyMessage>,
    #[serde(default, deserialize_with = "fields::null_is_default")]
    #[schema(value_type = Option<Vec<Value>>)]
    tools: Vec<Value>,
    #[serde(default = "yes")]
    add_generation_prompt: bool,
    enable_thinking: Option<bool>,
}

/// A conversation as the model reads it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RenderedPrompt {
    prompt: String,
}

/// `POST /apply-template`
pub(crate) async fn apply_template(State(app): State<Arc<App>>, JsonBody(body): JsonBody<TemplateBody>) -> Response {
    worked_out(app, move |served| {
        let messages: Vec<Message> =
            body.messages.into_iter().enumerate().map(|(i, message)| message.message(i)).collect::<Result<_, _>>()?;
        let tools = (!body.tools.is_empty()).then(|| Value::from(body.tools).to_string());
        let options =
            RenderOptions { add_generation_prompt: body.add_generation_prompt, tools, thinking: body.enable_thinking };
        let rendered = rendered(&served.worker.model(), &messages, &options)?;
        Ok(RenderedPrompt { prompt: rendered.text().to_owned() })
    })
    .await
}
