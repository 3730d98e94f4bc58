//! An answer as a stream: exactly one last event, signs of life while nothing comes, an end when nobody reads.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use hyper::body::Frame;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::error::{ApiError, Kind};
use crate::generation::{Generation, Update};
use crate::http;

/// Longest silence of a stream.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(8);

/// What ends streams from outside.
#[derive(Clone)]
pub(crate) struct Streaming {
    /// Whether the server stops.
    pub stop: watch::Receiver<bool>,
    /// How long a client may let the next piece wait.
    pub stall: Duration,
}

impl Streaming {
    /// Waits until the server stops.
    pub(crate) async fn stopped(&self) {
        // An error says that the server is gone.
        let _ = self.stop.clone().wait_for(|stopped| *stopped).await;
    }
}

/// How a dialect writes a stream. What its functions return is sent at once.
pub(crate) trait StreamFormat: Send + 'static {
    /// The type of the stream.
    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }

    /// What comes before everything.
    fn start(&mut self) -> String;
    /// What an update brings. The end of an answer is part of it.
    fn update(&mut self, update: Update) -> String;
    /// What comes behind the end of all answers.
    fn finish(&mut self) -> String;
    /// What takes the place of the rest, if something goes wrong.
    fn error(&mut self, error: &ApiError) -> String;
    /// A sign of life that changes nothing.
    fn keepalive(&mut self) -> String;
}

/// An event of a stream, as browsers' EventSource reads it.
pub(crate) fn event(name: Option<&str>, data: &impl serde::Serialize) -> String {
    let data = serde_json::to_string(data).expect("invariant: values without maps of other keys than texts are JSON");
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
}

/// The response that streams a generation.
pub(crate) fn respond<F: StreamFormat>(
    streaming: &Streaming,
    generation: Generation,
    format: F,
    ignored: &[String],
) -> Response {
    // One piece under way: the rest waits where it costs little.
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let content_type = format.content_type();
    tokio::spawn(drive(streaming.clone(), generation, format, sender));
    let mut response = Response::new(Body::new(Pieces(receiver)));
    stream_headers(&mut response, content_type);
    http::name_ignored(&mut response, ignored);
    response
}

/// Headers that keep proxies from collecting the pieces of a stream.
pub(crate) fn stream_headers(response: &mut Response, content_type: &'static str) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
}

/// The body of a stream.
pub(crate) struct Pieces(pub mpsc::Receiver<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Writes a generation to a connection. Ends when the last event is written, or when the client is gone or reads nothing for
/// too long; then the generation is dropped, and with it the work on it.
async fn drive<F: StreamFormat>(
    streaming: Streaming,
    mut generation: Generation,
    format: F,
    sender: mpsc::Sender<Bytes>,
) {
    let mut writer = Writer { format, over: false };
    let mut text = writer.write(F::start);
    loop {
        if !text.is_empty() {
            let sent = timeout(streaming.stall, sender.send(Bytes::from(std::mem::take(&mut text)))).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
        if writer.over {
            return;
        }
        tokio::select! {
            update = generation.next() => {
                text = match update {
                    Some(Update { end: Some(Err(error)), .. }) => writer.last(|format| format.error(&error)),
                    Some(update) => writer.write(|format| format.update(update)),
                    None => writer.last(F::finish),
                };
            }
            () = tokio::time::sleep(KEEPALIVE) => text = writer.write(F::keepalive),
            () = streaming.stopped() => {
                let error = ApiError::new(Kind::Unavailable, "the server stops");
                text = writer.last(|format| format.error(&error));
            }
            () = sender.closed() => return,
        }
    }
}

/// Sees to it that a stream has one last event, whatever happens in a format.
struct Writer<F> {
    format: F,
    over: bool,
}

impl<F: StreamFormat> Writer<F> {
    fn write(&mut self, write: impl FnOnce(&mut F) -> String) -> String {
        match catch_unwind(AssertUnwindSafe(|| write(&mut self.format))) {
            Ok(text) => text,
            Err(_) => {
                self.over = true;
                let error = ApiError::internal("the stream could not be written: this is an error of the program");
                catch_unwind(AssertUnwindSafe(|| self.format.error(&error))).unwrap_or_default()
            }
        }
    }

    fn last(&mut self, write: impl FnOnce(&mut F) -> String) -> String {
        let text = self.write(write);
        self.over = true;
        text
    }
}
