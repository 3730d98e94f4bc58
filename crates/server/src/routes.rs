//! Which address does what, and what every request passes first: host, origin, key.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use minke_engine::Tenant;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::app::{App, Caller};
use crate::config::LogFormat;
use crate::dialect::{chat, completions, messages, ollama, responses};
use crate::error::{ApiError, Dialect, Kind};
use crate::http::{POLICY_VERSION, refusal};
use crate::openapi::{About, Object, Route};
use crate::request_log::{self, Record, within};
use crate::{info, openapi, page};

/// The addresses of the API, and what the document says of them.
fn table() -> Vec<Route> {
    use ollama::models as about;
    vec![
        Route::open("/health").get(
            info::health,
            About::new("Whether the model is loaded").gives::<info::Health>().refuses(&[Kind::Unavailable]),
        ),
        Route::open("/v1/health").get(
            info::health,
            About::new("Whether the model is loaded").gives::<info::Health>().refuses(&[Kind::Unavailable]),
        ),
        Route::open("/ready").get(
            info::ready,
            About::new("Whether a request would be taken now").gives::<info::Ready>().refuses(&[Kind::Unavailable]),
        ),
        // The same for all servers of a version: it tells nothing of the model or of who uses it.
        Route::open("/openapi.json").get(document, About::new("This document").gives::<Object>()),
        Route::keyed("/v1/chat/completions").post(
            chat::create,
            About::new("Answers to a conversation")
                .takes::<chat::Body>()
                .gives::<chat::Completion<'_>>()
                .streams_until_done::<chat::Chunk<'_>>()
                .tells(POLICY_VERSION, ANSWERED_BY)
                .refuses(GENERATES),
        ),
        Route::keyed("/v1/completions").post(
            completions::create,
            About::new("Continuations of texts")
                .takes::<completions::Body>()
                .gives::<completions::Completion<'_>>()
                .streams_until_done::<completions::Completion<'_>>()
                .tells(POLICY_VERSION, ANSWERED_BY)
                .refuses(GENERATES),
        ),
        Route::keyed("/v1/models")
            .get(info::models, About::new("The models of this server").gives::<info::ModelList>()),
        Route::keyed("/v1/models/{*name}").get(
            info::model_of_name,
            About::new("A model").gives::<info::Model>().refuses(&[Kind::NotFound, Kind::Unavailable]),
        ),
        Route::keyed("/v1/responses").post(
            responses::create,
            About::new("A response")
                .takes::<responses::Body>()
                .gives::<responses::ResponseObject<'_>>()
                .streams::<responses::Event<'_>>()
                .tells(responses::RESPONSE, "Name of a response in the background, where it is streamed.")
                .refuses(GENERATES),
        ),
        Route::keyed("/v1/responses/{id}")
            .get(
                responses::read,
                About::new("A response that is kept")
                    .queries::<responses::Reading>()
                    .gives::<responses::ResponseObject<'_>>()
                    .streams::<responses::Event<'_>>()
                    .refuses(&[Kind::NotFound]),
            )
            .delete(
                responses::delete,
                About::new("Forgets a response").gives::<responses::Deleted>().refuses(&[Kind::NotFound]),
            ),
        Route::keyed("/v1/responses/{id}/cancel").post(
            responses::cancel,
            About::new("Ends a response in the background")
                .gives::<responses::ResponseObject<'_>>()
                .refuses(&[Kind::NotFound]),
        ),
        Route::keyed("/v1/messages").post(
            messages::create,
            About::new("An answer to a conversation")
                .takes::<messages::Body>()
                .gives::<messages::AnswerMessage>()
                .streams::<messages::Event>()
                .refuses(GENERATES),
        ),
        Route::keyed("/v1/messages/count_tokens").post(
            messages::count_tokens,
            About::new("How many tokens a conversation has")
                .takes::<messages::Body>()
                .gives::<messages::CountedTokens>()
                .refuses(NAMES_MODEL),
        ),
        Route::keyed("/api/chat").post(
            ollama::chat,
            About::new("The next message of a conversation")
                .takes::<ollama::ChatBody>()
                .gives::<ollama::ChatAnswer<'_>>()
                .streams::<ollama::ChatAnswer<'_>>()
                .refuses(GENERATES),
        ),
        Route::keyed("/api/generate").post(
            ollama::generate,
            About::new("The continuation of a text")
                .takes::<ollama::GenerateBody>()
                .gives::<ollama::GenerateAnswer<'_>>()
                .streams::<ollama::GenerateAnswer<'_>>()
                .refuses(GENERATES),
        ),
        Route::keyed("/api/tags").get(about::tags, About::new("The models of this server").gives::<about::Tags>()),
        Route::keyed("/api/show").post(
            about::show,
            About::new("What a model can do").takes::<about::ShowBody>().gives::<about::Shown>().refuses(NAMES_MODEL),
        ),
        Route::keyed("/api/ps")
            .get(about::running, About::new("The models that are loaded").gives::<about::RunningModels>()),
        Route::keyed("/api/version")
            .get(about::version, About::new("The version of this program").gives::<about::Version>()),
        Route::keyed("/tokenize").post(
            info::tokenize,
            About::new("The tokens of a text")
                .takes::<info::TokenizeBody>()
                .gives::<info::Tokens>()
                .refuses(&[Kind::Unavailable]),
        ),
        Route::keyed("/detokenize").post(
            info::detokenize,
            About::new("The text of tokens")
                .takes::<info::DetokenizeBody>()
                .gives::<info::Detokenized>()
                .refuses(&[Kind::Unavailable]),
        ),
        Route::keyed("/apply-template").post(
            info::apply_template,
            About::new("A conversation as the model reads it")
                .takes::<info::TemplateBody>()
                .gives::<info::RenderedPrompt>()
                .refuses(&[Kind::Unavailable]),
        ),
        Route::keyed("/metrics").get(info::metrics, About::new("Counters for Prometheus").gives_text("text/plain")),
    ]
}

/// `GET /openapi.json`
async fn document(State(app): State<Arc<App>>) -> Response {
    let make = || {
        let document = openapi::document(&table(), &app.config.base_path);
        Bytes::from(serde_json::to_vec(&document).expect("invariant: a document is JSON"))
    };
    ([(header::CONTENT_TYPE, "application/json")], app.document.get_or_init(make).clone()).into_response()
}

/// What the header with the version of a policy says.
const ANSWERED_BY: &str =
    "Version of the policy that answered, where the model is one; of a stream its last chunks say it.";

/// Why a request may be refused that names a model, and one that asks it for an answer.
const NAMES_MODEL: &[Kind] = &[Kind::NotFound, Kind::Unavailable];
const GENERATES: &[Kind] = &[Kind::NotFound, Kind::Busy, Kind::Unavailable];

/// All addresses.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let (mut open, mut keyed) = (Router::new(), Router::new());
    for route in table() {
        let place = if route.keyed { &mut keyed } else { &mut open };
        *place = std::mem::take(place).route(route.path, route.handlers);
    }
    let keyed = keyed.layer(from_fn_with_state(app.clone(), check_key));
    // The page is no part of the API.
    let all = open.merge(keyed).route("/{file}", get(page::file));
    let placed = match app.config.base_path.as_str() {
        "" => all.route("/", get(page::index)),
        path => {
            Router::new().nest(path, all).route(path, get(page::redirect)).route(&format!("{path}/"), get(page::index))
        }
    };
    guarded(placed, app)
}

/// Addresses behind what every request passes first: a line about it, the end of a panic, origin and host.
pub(crate) fn guarded(placed: Router<Arc<App>>, app: &Arc<App>) -> Router {
    placed
        .fallback(|request: Request| async move {
            let path = request.uri().path();
            refusal(&ApiError::new(Kind::NotFound, format!("there is nothing at {path}")), Dialect::of_path(path))
        })
        .method_not_allowed_fallback(|request: Request| async move {
            let (path, method) = (request.uri().path(), request.method());
            refusal(&ApiError::new(Kind::Method, format!("{path} does not take {method}")), Dialect::of_path(path))
        })
        .layer(from_fn_with_state(app.clone(), check_host))
        .layer(from_fn_with_state(app.clone(), cross_origin))
        .layer(from_fn_with_state(app.clone(), survive))
        .layer(from_fn_with_state(app.clone(), log_request))
        .with_state(app.clone())
}

/// Has a line written about each request, if lines are asked for.
async fn log_request(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let format = app.config.log;
    let Some(lines) = app.log.get().filter(|_| format != LogFormat::Off).cloned() else {
        return next.run(request).await;
    };
    let record = Arc::new(Record::new(lines, format, app.id("req_"), &request));
    request.extensions_mut().insert(record.clone());
    record.answered(next.run(request).await)
}

/// A panic ends the request in which it happens.
async fn survive(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(app.config.limits());
    let dialect = Dialect::of_path(request.uri().path());
    // A task of its own: when the connection is gone, this future is dropped, and the task with it.
    let record = request.extensions().get().cloned();
    let mut task = AbortOnDrop(tokio::spawn(AssertUnwindSafe(within(record, next.run(request))).0));
    match (&mut task.0).await {
        Ok(response) => response,
        Err(_) => refusal(&ApiError::internal("the request failed: this is an error of the program"), dialect),
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A number for a key from which it cannot be told.
fn sum_of_key(key: &str) -> u64 {
    let sum: [u8; 32] = Sha256::digest(key).into();
    sum.first_chunk().map_or(1, |bytes| u64::from_le_bytes(*bytes).max(1))
}

/// The keys of a request: as OpenAI's and as Anthropic's clients send them.
fn key_of(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let bearer = bearer.and_then(|value| {
        let (scheme, key) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
    });
    bearer.or_else(|| headers.get("x-api-key").map(HeaderValue::as_bytes))
}

/// Lets in who has a key, if there are keys, and notes whose it is.
async fn check_key(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let keys = app.keys();
    let caller = if keys.is_empty() {
        Some(Caller::default())
    } else {
        let given = key_of(request.headers()).unwrap_or_default();
        // All are compared, each in a time that does not tell how much of it is right.
        let matches = keys.iter().map(|key| bool::from(key.as_bytes().ct_eq(given)));
        let found = matches.enumerate().fold(None, |found, (i, equal)| if equal { Some(i) } else { found });
        found.map(|i| {
            let share = i as u64 + 1;
            // Of the key itself, so that what is on disk is found again whatever the order of the keys.
            let prefixes = if app.config.share_cache { 0 } else { sum_of_key(&keys[i]) };
            Caller { tenant: Tenant { share, prefixes } }
        })
    };
    let Some(caller) = caller else {
        let message =
            "an API key is needed: send the header \"authorization: Bearer KEY\" with one of this server's keys";
        return refusal(&ApiError::new(Kind::Unauthorized, message), Dialect::of_path(request.uri().path()));
    };
    if let Some(record) = request_log::current() {
        record.key(caller.tenant.share);
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// Refuses requests that were sent to another name than this server's: a page on another site can make its own name lead here
/// (CVE-2024-28224).
async fn check_host(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let uri = request.uri();
    let host = uri.authority().map(|authority| authority.as_str().to_owned());
    let host = host.or_else(|| Some(request.headers().get(header::HOST)?.to_str().ok()?.to_owned()));
    if host.as_deref().is_none_or(|host| is_served(&app, host)) {
        return next.run(request).await;
    }
    let message = format!(
        "this server is not addressed as {:?}; name it in allowed_hosts if it is to be",
        host.unwrap_or_default()
    );
    refusal(&ApiError::new(Kind::Forbidden, message), Dialect::of_path(uri.path()))
}

/// Whether a name, with or without a port, is one of this server's.
fn is_served(app: &App, host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    let config = &app.config;
    if config.allowed_hosts.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(&name)) {
        return true;
    }
    // Behind a Unix socket is a program that decided already.
    if config.socket.is_some() || name == "localhost" {
        return true;
    }
    match name.parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || address == config.host || !config.host.is_loopback(),
        // Where others reach the server, keys protect it, and its names are not known here.
        Err(_) => !config.host.is_loopback() && config.allowed_hosts.is_empty(),
    }
}

/// Lets pages of the origins that are listed use the server; of others, browsers keep them from it.
async fn cross_origin(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = |origin: &&HeaderValue| {
        app.config.cors_origins.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin.as_bytes())
    };
    let Some(origin) = origin.as_ref().filter(allowed).cloned() else { return next.run(request).await };
    let asks = request.method() == Method::OPTIONS && request.headers().contains_key(ASKED_METHOD);
    let mut response = if asks { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if asks {
        let methods = HeaderValue::from_static("GET, POST, DELETE, OPTIONS");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    } else {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
    }
    response
}

const ASKED_METHOD: HeaderName = header::ACCESS_CONTROL_REQUEST_METHOD;
const ALLOWED_HEADERS: &str = "authorization, content-type, x-api-key, anthropic-version, anthropic-beta, openai-beta, \
                               openai-organization, openai-project, x-stainless-arch, x-stainless-lang, x-stainless-os, \
                               x-stainless-package-version, x-stainless-retry-count, x-stainless-runtime, \
                               x-stainless-runtime-version, x-stainless-timeout, x-stainless-helper-method";
const EXPOSED_HEADERS: &str = "x-minke-ignored, x-minke-policy-version, x-minke-response, retry-after";
