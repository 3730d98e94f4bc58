//! What the server says about itself and its model, and what its tokenizer and template make of a text.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use minke_chat::Thinking;
use minke_text::{Message, RenderOptions};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::{App, Served};
use crate::dialect::chat::BodyMessage;
use crate::dialect::fields;
use crate::error::{ApiError, Dialect, Kind};
use crate::http::{JsonBody, json as json_response, refusal};

/// `GET /health`: whether the model is loaded.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    match app.served() {
        Ok(_) => json_response(StatusCode::OK, &json!({"status": "ok"})),
        Err(error) => refusal(&error, Dialect::OpenAi),
    }
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
    json_response(StatusCode::OK, &json!({"status": "ready", "running": stats.running, "waiting": stats.waiting}))
}

/// `GET /metrics`: counters for Prometheus.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let stats = app.served().ok().map(|served| served.worker.last_stats());
    let mut response = app.metrics.text(stats.as_ref()).into_response();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A model, as OpenAI lists it, with what this server knows beside.
fn model(served: &Served, name: &str) -> Value {
    let about = &served.worker.model().summary;
    let thinking = match about.thinking {
        Thinking::Never => "none",
        Thinking::Optional => "optional",
        Thinking::Always => "always",
    };
    json!({
        "id": name,
        "object": "model",
        "created": served.since,
        "owned_by": "minke",
        "context_length": served.worker.limit(),
        "max_model_len": served.worker.limit(),
        "quantization": about.quantization,
        "parameters": about.parameters,
        "architecture": about.architecture,
        "thinking": thinking,
    })
}

/// `GET /v1/models`
pub(crate) async fn models(State(app): State<Arc<App>>) -> Response {
    let Ok(served) = app.served() else {
        return json_response(StatusCode::OK, &json!({"object": "list", "data": [], "models": []}));
    };
    let names = std::iter::once(&served.name).chain(app.config.model_aliases.iter().filter(|alias| *alias != "*"));
    let data: Vec<Value> = names.map(|name| model(served, name)).collect();
    // Codex reads a list of this name, and takes it empty.
    json_response(StatusCode::OK, &json!({"object": "list", "data": data, "models": []}))
}

/// `GET /v1/models/{id}`
pub(crate) async fn model_of_name(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    match app.check_model(Some(&name)) {
        Ok(served) => json_response(StatusCode::OK, &model(served, &name)),
        Err(error) => refusal(&error, Dialect::OpenAi),
    }
}

/// What is to be cut into tokens; llama.cpp calls it `content`, vLLM `prompt`.
#[derive(Debug, Deserialize)]
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
async fn worked_out(app: Arc<App>, work: impl FnOnce(&Served) -> Result<Value, ApiError> + Send + 'static) -> Response {
    let own = app.clone();
    match app.blocking(move || work(own.served()?)).await {
        Ok(value) => json_response(StatusCode::OK, &value),
        Err(error) => refusal(&error, Dialect::OpenAi),
    }
}

/// `POST /tokenize`
pub(crate) async fn tokenize(State(app): State<Arc<App>>, JsonBody(body): JsonBody<TokenizeBody>) -> Response {
    worked_out(app, move |served| {
        let tokenizer = &served.worker.model().tokenizer;
        let mut ids = match (body.add_special, body.parse_special) {
            (true, true) => tokenizer.encode_prompt(&body.content),
            (false, true) => tokenizer.encode(&body.content),
            (_, false) => tokenizer.encode_plain(&body.content),
        };
        if body.add_special && !body.parse_special {
            ids.splice(..0, tokenizer.begin_ids().iter().copied());
        }
        let piece = |id: u32| match std::str::from_utf8(tokenizer.token_bytes(id)) {
            Ok(piece) => json!({"id": id, "piece": piece}),
            Err(_) => json!({"id": id, "piece": tokenizer.token_bytes(id)}),
        };
        let count = ids.len();
        let tokens = if body.with_pieces { ids.into_iter().map(piece).collect() } else { json!(ids) };
        Ok(json!({"tokens": tokens, "count": count, "max_model_len": served.worker.limit()}))
    })
    .await
}

/// Tokens whose text is asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct DetokenizeBody {
    tokens: Vec<u32>,
}

/// `POST /detokenize`
pub(crate) async fn detokenize(State(app): State<Arc<App>>, JsonBody(body): JsonBody<DetokenizeBody>) -> Response {
    worked_out(app, move |served| {
        let tokenizer = &served.worker.model().tokenizer;
        if let Some(id) = body.tokens.iter().find(|id| **id as usize >= tokenizer.vocab_size()) {
            let message = format!("token {id} is not in the vocabulary of {}", tokenizer.vocab_size());
            return Err(ApiError::field("tokens", message));
        }
        let text = tokenizer.decode(&body.tokens, false);
        // llama.cpp and vLLM name it differently.
        Ok(json!({"content": text, "prompt": text}))
    })
    .await
}

/// A conversation to be rendered.
#[derive(Debug, Deserialize)]
pub(crate) struct TemplateBody {
    messages: Vec<BodyMessage>,
    #[serde(default, deserialize_with = "fields::null_is_default")]
    tools: Vec<Value>,
    #[serde(default = "yes")]
    add_generation_prompt: bool,
    enable_thinking: Option<bool>,
}

/// `POST /apply-template`
pub(crate) async fn apply_template(State(app): State<Arc<App>>, JsonBody(body): JsonBody<TemplateBody>) -> Response {
    worked_out(app, move |served| {
        let messages: Vec<Message> =
            body.messages.into_iter().enumerate().map(|(i, message)| message.message(i)).collect::<Result<_, _>>()?;
        let tools = (!body.tools.is_empty()).then(|| Value::from(body.tools).to_string());
        let options =
            RenderOptions { add_generation_prompt: body.add_generation_prompt, tools, thinking: body.enable_thinking };
        let rendered = served.worker.model().template.render_with(&messages, &options);
        let prompt = rendered.map_err(|error| ApiError::field("messages", error.to_string()))?;
        Ok(json!({"prompt": prompt}))
    })
    .await
}
