//! A line about each request, for operators: counts and times, never what was said, and of keys the number alone.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use jiff::Timestamp;
use minke_chat::{Event, FinishReason, Piece};
use serde_json::{Value, json};

use crate::config::LogFormat;
use crate::error::ErrorCode;

/// Names the line of the log that is about a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What takes the lines.
pub(crate) type Lines = Arc<dyn Fn(&str) + Send + Sync>;

tokio::task_local! {
    /// The record of the request that a task works on.
    static RECORD: Arc<Record>;
}

/// What is known of a request. Its line is written when the response was sent, or given up, and all answers ended.
pub(crate) struct Record {
    lines: Lines,
    format: LogFormat,
    time: Timestamp,
    begun: Instant,
    id: String,
    method: &'static str,
    /// The address as it stands in the table of addresses: a name in it is left out.
    path: String,
    state: Mutex<Counts>,
}

/// What is counted while a request is worked on.
#[derive(Default)]
struct Counts {
    /// None if the client was gone before there was a response.
    status: Option<u16>,
    error: Option<&'static str>,
    key: u64,
    answers: usize,
    prompt_tokens: usize,
    cached_tokens: usize,
    generated_tokens: usize,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    calls: bool,
    finish: Option<&'static str>,
}

/// Does the work on a request so that [`current`] finds its record.
pub(crate) async fn within<T>(record: Option<Arc<Record>>, work: impl Future<Output = T>) -> T {
    match record {
        Some(record) => RECORD.scope(record, work).await,
        None => work.await,
    }
}

/// The record of the request that this task works on.
pub(crate) fn current() -> Option<Arc<Record>> {
    RECORD.try_with(Arc::clone).ok()
}

impl Record {
    /// Begins the record of a request, whose line goes there in this format.
    pub(crate) fn new(lines: Lines, format: LogFormat, id: String, request: &Request) -> Self {
        // A client may make a method up.
        let known =
            [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH];
        let names = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
        let method = known.iter().position(|method| method == request.method()).map_or("other", |i| names[i]);
        let path = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
        let (time, begun, state) = (Timestamp::now(), Instant::now(), Mutex::default());
        Self { lines, format, time, begun, id, method, path, state }
    }

    /// Notes the response, gives it the id, and keeps the record until its body was sent.
    pub(crate) fn answered(self: Arc<Self>, mut response: Response) -> Response {
        {
            let mut counts = self.counts();
            counts.status = Some(response.status().as_u16());
            counts.error = response.extensions().get().map(|ErrorCode(code)| *code);
        }
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response.map(|body| Body::new(Recorded { body, _record: self }))
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the number of the key: its line in the file of keys, comments not counted.
    pub(crate) fn key(&self, number: u64) {
        self.counts().key = number;
    }

    /// Counts an event of one of the answers.
    pub(crate) fn take(&self, event: &minke_chat::Result<Event>) {
        let mut counts = self.counts();
        let Ok(event) = event else {
            counts.finish = Some("error");
            return;
        };
        if event.token.is_some() {
            let now = Instant::now();
            counts.first_token.get_or_insert(now);
            counts.last_token = Some(now);
        }
        counts.calls |= event.pieces.iter().any(|piece| matches!(piece, Piece::Call(_)));
        let Some(finish) = &event.finish else { return };
        counts.answers += 1;
        counts.prompt_tokens += event.usage.prompt_tokens;
        counts.cached_tokens += event.usage.cached_tokens;
        counts.generated_tokens += event.usage.completion_tokens;
        counts.finish = Some(match finish {
            FinishReason::Stop | FinishReason::StopString(_) if counts.calls => "tool_calls",
            FinishReason::Stop | FinishReason::StopString(_) => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled => "cancelled",
            _ => "error",
        });
    }

    /// The fields of the line, in their order; those that are not known are left out.
    fn fields(&self) -> Vec<(&'static str, Value)> {
        let counts = self.counts();
        let since = |from: Instant, to: Instant| json!((to - from).as_millis() as f64 / 1e3);
        let mut fields = vec![
            ("time", json!(format!("{:.3}", self.time))),
            ("id", json!(self.id)),
            ("method", json!(self.method)),
            ("path", json!(self.path)),
        ];
        let mut add = |name, value: Option<Value>| fields.extend(value.map(|value| (name, value)));
        add("status", counts.status.map(Value::from));
        add("error", counts.error.map(Value::from));
        add("key", (counts.key > 0).then(|| counts.key.into()));
        if counts.answers > 0 {
            add("prompt_tokens", Some(counts.prompt_tokens.into()));
            add("cached_tokens", Some(counts.cached_tokens.into()));
            add("generated_tokens", Some(counts.generated_tokens.into()));
        }
        add("first_token_seconds", counts.first_token.map(|first| since(self.begun, first)));
        add("seconds", Some(since(self.begun, Instant::now())));
        if let (Some(first), Some(last)) = (counts.first_token, counts.last_token)
            && let Some(behind) = counts.generated_tokens.checked_sub(1).filter(|_| last > first)
        {
            let rate = behind as f64 / (last - first).as_secs_f64();
            add("tokens_per_second", Some(json!((rate * 10.0).round() / 10.0)));
        }
        add("finish", counts.finish.map(Value::from));
        fields
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let as_json = self.format == LogFormat::Json;
        let pair = |(name, value): (&str, Value)| match value {
            value if as_json => format!("\"{name}\":{value}"),
            Value::String(word) => format!("{name}={word}"),
            value => format!("{name}={value}"),
        };
        let pairs: Vec<String> = self.fields().into_iter().map(pair).collect();
        (self.lines)(&if as_json { format!("{{{}}}", pairs.join(",")) } else { pairs.join(" ") });
    }
}

/// A body that keeps the record of its request until it was sent.
struct Recorded {
    body: Body,
    _record: Arc<Record>,
}

impl hyper::body::Body for Recorded {
    type Data = axum::body::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
