//! OpenAI's responses: `POST /v1/responses`, and `GET`, `DELETE` and `POST .../cancel` of those that are kept.

mod events;
mod object;
mod request;

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

pub(crate) use self::events::Event;
use self::events::{Keeping, Stream};
pub(crate) use self::object::ResponseObject;
use self::object::ResponseState;
pub(crate) use self::request::Body;
use crate::app::{App, Caller};
use crate::error::{ApiError, Dialect, Kind};
use crate::generation::Input;
use crate::http::{InPath, InQuery, JsonBody, json, json_with_ignored, name_ignored, refusal};
use crate::kept::{Kept, KeptFormat as _};
use crate::stream::respond;

/// The name of a response in the background, told before the first event of its stream, so that who loses the connection at any
/// place can read on.
pub(crate) const RESPONSE: HeaderName = HeaderName::from_static("x-minke-response");

/// `POST /v1/responses`
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    JsonBody(body): JsonBody<Body>,
) -> Response {
    answer(&app, caller, body).await.unwrap_or_else(|error| refusal(&error, Dialect::OpenAi))
}

async fn answer(app: &Arc<App>, caller: Caller, mut body: Body) -> Result<Response, ApiError> {
    let model = app.check_model(body.model.as_deref())?.name.clone();
    let before = match &body.previous_response_id {
        Some(id) => app.kept.conversation(id, caller.tenant).ok_or_else(|| unknown(id, "previous_response_id"))?,
        None => Vec::new(),
    };
    let (request, ignored) = body.request(before)?;
    let conversation = match &request.input {
        Input::Conversation(conversation) => conversation.messages.clone(),
        Input::Tokens(_) => Vec::new(),
    };
    let store = body.store.unwrap_or(true);
    if body.background && !store {
        return Err(ApiError::field("background", "a response in the background must be kept: leave store out"));
    }
    let mut generation = app.generate(vec![request], caller).await?;
    let ignored = [ignored, std::mem::take(&mut generation.notes)].concat();
    let (stream, background) = (body.stream, body.background);
    let include_progress = body.stream_options.include_progress;
    let format = Stream::new(ResponseState::new(app, model, body), include_progress);
    if background {
        let name = HeaderValue::from_str(format.id());
        let kept = app.kept.begin(&app.streaming, caller.tenant, conversation, generation, Box::new(format));
        if stream {
            let mut response = kept.follow(&app.streaming, 0);
            name_ignored(&mut response, &ignored);
            response.headers_mut().extend(name.ok().map(|name| (RESPONSE, name)));
            return Ok(response);
        }
        return Ok(json_with_ignored(&kept.object(), &ignored));
    }
    let mut format = Keeping { format, conversation, caller, store, app: app.clone() };
    if stream {
        return Ok(respond(&app.streaming, generation, format, &ignored));
    }
    let answer = generation.whole().await?.pop().unwrap_or_default();
    Ok(json_with_ignored(&format.whole(answer), &ignored))
}

fn unknown(id: &str, param: &str) -> ApiError {
    let message = format!("there is no response {id:?} here: it was not stored, or others took its place since");
    ApiError { param: Some(param.to_owned()), ..ApiError::new(Kind::NotFound, message) }
}

/// How a response that is kept is read.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct Reading {
    #[serde(default)]
    stream: bool,
    /// Number of the last event that was seen.
    starting_after: Option<u64>,
}

fn kept(app: &App, caller: Caller, id: &str) -> Result<Arc<Kept>, ApiError> {
    app.kept.find(id, caller.tenant).ok_or_else(|| unknown(id, "response_id"))
}

/// `GET /v1/responses/{id}`
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    InQuery(reading): InQuery<Reading>,
) -> Response {
    match kept(&app, caller, &id) {
        Ok(kept) if reading.stream => {
            kept.follow(&app.streaming, reading.starting_after.map_or(0, |number| number + 1))
        }
        Ok(kept) => json(StatusCode::OK, &kept.object()),
        Err(error) => refusal(&error, Dialect::OpenAi),
    }
}

/// `POST /v1/responses/{id}/cancel`
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
) -> Response {
    match kept(&app, caller, &id) {
        Ok(kept) => {
            kept.cancel().await;
            json(StatusCode::OK, &kept.object())
        }
        Err(error) => refusal(&error, Dialect::OpenAi),
    }
}

/// A response was forgotten.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeletedResponse)]
pub(crate) struct Deleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

/// `DELETE /v1/responses/{id}`
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
) -> Response {
    match kept(&app, caller, &id) {
        Ok(kept) => {
            kept.cancel().await;
            app.kept.remove(&id);
            json(StatusCode::OK, &Deleted { id, object: "response", deleted: true })
        }
        Err(error) => refusal(&error, Dialect::OpenAi),
    }
}
