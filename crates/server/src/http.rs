//! Requests to bytes and values, values to responses.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use http_body_util::BodyExt;
use minke_chat::PolicyVersion;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::config::Limits;
use crate::error::{ApiError, Dialect, ErrorCode, Kind};

/// Names the fields of a request that were not understood and changed nothing.
pub(crate) const IGNORED: HeaderName = HeaderName::from_static("x-minke-ignored");
/// Most bytes of that header.
const IGNORED_BYTES: usize = 1024;

/// Which version of a policy answered: the oldest, if several did.
pub(crate) const POLICY_VERSION: HeaderName = HeaderName::from_static("x-minke-policy-version");

/// A response of JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let (status, text) = match serde_json::to_vec(value) {
        Ok(text) => (status, text),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{{\"error\":{:?}}}", error.to_string()).into_bytes())
        }
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A response of JSON that names what was ignored.
pub(crate) fn json_with_ignored(value: &impl Serialize, ignored: &[String]) -> Response {
    let mut response = json(StatusCode::OK, value);
    name_ignored(&mut response, ignored);
    response
}

/// The response of a request that got no further.
pub(crate) fn refusal(error: &ApiError, dialect: Dialect) -> Response {
    let mut response = json(error.kind.status(), &error.shape(dialect));
    response.extensions_mut().insert(ErrorCode(error.code()));
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.kind == Kind::Unauthorized {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Adds the header that names what was ignored, if anything was.
pub(crate) fn name_ignored(response: &mut Response, ignored: &[String]) {
    let mut names = ignored.join(", ");
    names.retain(|c| c.is_ascii_graphic() || c == ' ');
    names.truncate(IGNORED_BYTES);
    if let (false, Ok(value)) = (names.is_empty(), HeaderValue::from_str(&names)) {
        response.headers_mut().insert(IGNORED, value);
    }
}

/// Adds the header that says which version of a policy gave these answers, if one did.
pub(crate) fn name_policy(response: &mut Response, answers: impl Iterator<Item = Option<PolicyVersion>>) {
    let oldest = answers.flatten().min_by_key(|version| version.number);
    if let Some(Ok(value)) = oldest.map(|version| HeaderValue::from_str(&version.to_string())) {
        response.headers_mut().insert(POLICY_VERSION, value);
    }
}

/// The body of a request, as a value of JSON.
pub(crate) struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        let dialect = Dialect::of_path(request.uri().path());
        let read = async {
            check_media_type(&request)?;
            let limits = request.extensions().get::<Limits>().copied().unwrap_or_default();
            parse(&read_body(request.into_body(), &limits).await?)
        };
        read.await.map(Self).map_err(|error| refusal(&error, dialect))
    }
}

/// The variable part of an address.
pub(crate) struct InPath(pub String);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let read = Path::from_request_parts(parts, state).await;
        read.map(|Path(text)| Self(text)).map_err(|rejection| unreadable(&rejection.body_text(), parts))
    }
}

/// What stands behind the question mark of an address.
pub(crate) struct InQuery<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for InQuery<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let read = Query::from_request_parts(parts, state).await;
        read.map(|Query(value)| Self(value)).map_err(|rejection| unreadable(&rejection.body_text(), parts))
    }
}

/// The refusal of an address.
fn unreadable(reason: &str, parts: &Parts) -> Response {
    let message = format!("the address cannot be read: {reason}");
    refusal(&ApiError::new(Kind::Invalid, message), Dialect::of_path(parts.uri.path()))
}

/// A page of another site can send types other than JSON, or none, without asking. Browsers then say that a page sends it; what
/// else sends it is a program, such as curl, which calls every body a form.
fn check_media_type(request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    let same_site = |site: &HeaderValue| ["same-origin", "none"].iter().any(|word| site == word);
    if !headers.contains_key(header::ORIGIN) && headers.get("sec-fetch-site").is_none_or(same_site) {
        return Ok(());
    }
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    let message = "the body must be JSON: send the header \"content-type: application/json\"";
    Err(ApiError::new(Kind::MediaType, message))
}

/// All bytes of a body, none of which may let wait for too long.
async fn read_body(mut body: Body, limits: &Limits) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    let too_large = || {
        ApiError::new(
            Kind::TooLarge,
            format!("the body has more than {} bytes, the most that are taken", limits.body_bytes),
        )
    };
    if hyper::body::Body::size_hint(&body).lower() > limits.body_bytes as u64 {
        return Err(too_large());
    }
    loop {
        let Ok(frame) = timeout(Duration::from_secs(limits.stall_seconds), body.frame()).await else {
            return Err(ApiError::new(Kind::Timeout, "the body did not come in time"));
        };
        let Some(frame) = frame else { return Ok(bytes) };
        let broken = |error: axum::Error| ApiError::new(Kind::Invalid, format!("the body cannot be read: {error}"));
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if bytes.len() + data.len() > limits.body_bytes {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
}

/// The value that a text of JSON stands for; an error names the field.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let known = !path.is_empty() && path != "." && !path.starts_with('?');
        // Some shapes have no place for the field but the message.
        let place = if known { format!("{path}: ") } else { String::new() };
        let message = format!("the body is not what this address takes: {place}{}", error.inner());
        ApiError { param: known.then_some(path), ..ApiError::new(Kind::Invalid, message) }
    })?;
    let rest = deserializer.end();
    rest.map_err(|error| ApiError::new(Kind::Invalid, format!("the body is not one value of JSON: {error}")))?;
    Ok(value)
}
