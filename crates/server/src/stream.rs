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
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::{ApiError, Kind};
use crate::generation::{Generation, Update};
use crate::http;

/// Longest silence of a stream: agents give a server up that says nothing for longer.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(8);

/// What ends streams from outside.
#[derive(Clone)]
pub(crate) struct Streaming {
    /// Whether the server stops.
    pub stop: watch::Receiver<bool>,
    /// How long a client may let the next piece wait.
    pub stall: Duration,
    /// How long a stream may be silent.
    pub keepalive: Duration,
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

/// An event whose data tell its name as their `type`.
pub(crate) fn typed_event(data: &impl serde::Serialize) -> String {
    let data = serde_json::to_value(data).expect("invariant: values without maps of other keys than texts are JSON");
    event(data["type"].as_str(), &data)
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
    let mut silent_since = Instant::now();
    loop {
        if !text.is_empty() {
            let sent = timeout(streaming.stall, sender.send(Bytes::from(std::mem::take(&mut text)))).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
            silent_since = Instant::now();
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
            // Updates that write nothing, as those about a prompt that is read, are silence too.
            () = sleep_until(silent_since + streaming.keepalive) => text = writer.write(F::keepalive),
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use minke_chat::Usage;

    use super::*;

    /// Writes a letter for everything that it is asked for.
    struct Letters;

    impl StreamFormat for Letters {
        fn start(&mut self) -> String {
            "s".into()
        }

        fn update(&mut self, update: Update) -> String {
            if update.pieces.is_empty() { String::new() } else { panic!("a piece that cannot be written") }
        }

        fn finish(&mut self) -> String {
            "f".into()
        }

        fn error(&mut self, _: &ApiError) -> String {
            "e".into()
        }

        fn keepalive(&mut self) -> String {
            "k".into()
        }
    }

    /// What is written while updates come every few milliseconds, of which the last one has these pieces.
    fn written(last: Vec<minke_chat::Piece>, end: Option<Result<crate::generation::Finish, ApiError>>) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (generation, mut sinks) = Generation::new(1, false);
            let stop = watch::Sender::new(false);
            let (stall, keepalive) = (Duration::from_secs(1), Duration::from_millis(40));
            let streaming = Streaming { stop: stop.subscribe(), stall, keepalive };
            let (sender, mut receiver) = mpsc::channel(1);
            let driver = tokio::spawn(drive(streaming, generation, Letters, sender));
            let update = |pieces, end| {
                let (tokens, usage) = (Vec::new(), Usage::default());
                Update { choice: 0, pieces, tokens, usage, policy_version: None, end }
            };
            let feeder = tokio::spawn(async move {
                for _ in 0..50 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    sinks[0].put(update(Vec::new(), None));
                }
                sinks[0].put(update(last, end));
                sinks
            });
            let mut text = String::new();
            while let Some(bytes) = receiver.recv().await {
                text.push_str(std::str::from_utf8(&bytes).unwrap());
            }
            driver.await.unwrap();
            drop(feeder.await.unwrap());
            text
        })
    }

    #[test]
    fn updates_that_say_nothing_are_silence() {
        let text = written(Vec::new(), Some(Ok(crate::generation::Finish::Stop)));
        assert!(text.starts_with("skk") && text.ends_with('f'), "{text}");
        assert_eq!(text.matches('f').count(), 1);
    }

    #[test]
    fn a_panic_of_a_format_ends_its_stream_with_an_error() {
        let text = written(vec![minke_chat::Piece::Content("a".into())], None);
        assert!(text.ends_with('e') && text.matches(['e', 'f']).count() == 1, "{text}");
        let failed = written(Vec::new(), Some(Err(ApiError::internal("broken"))));
        assert!(failed.ends_with('e') && failed.matches(['e', 'f']).count() == 1, "{failed}");
    }
}
