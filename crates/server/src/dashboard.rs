//! The page of a run that is watched: documents that a source gives by name, and a stream that says when they changed.
//!
//! Nothing is known here of training, and nothing that happens here reaches it: the source reads files, a panic in it ends the
//! reading and is said on the page, and the server has threads of its own.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::app::App;
use crate::config::ServerConfig;
use crate::error::{ApiError, Dialect, Kind};
use crate::http::{InPath, InQuery, refusal};
use crate::listen::{Ends, Server};
use crate::page::{self, Page};
use crate::routes::guarded;
use crate::stream::{Pieces, event, stream_headers};
use crate::{Error, Result};

/// How often the source is asked for what is new.
const EVERY: Duration = Duration::from_millis(250);
/// Least time between two events of a stream.
const BETWEEN_EVENTS: Duration = Duration::from_millis(200);
/// Connections at once: a page has a stream and some requests.
const CONNECTIONS: usize = 128;

/// What a dashboard shows.
pub trait Source: Send + Sync + 'static {
    /// Takes in what is new.
    ///
    /// # Errors
    /// What cannot be read; it is shown, and asked again later.
    fn poll(&self) -> std::result::Result<Polled, String>;

    /// The document of a name as JSON. `query` is what stands behind the question mark of the address.
    ///
    /// # Errors
    /// If there is none, or it cannot be made.
    fn document(&self, name: &str, query: &[(String, String)]) -> std::result::Result<Vec<u8>, SourceError>;
}

/// What a poll brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// Whether anything was new.
    pub changed: bool,
    /// Whether there is more already.
    pub more: bool,
}

/// Why there is no document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// There is none of this name.
    Missing(String),
    /// The query cannot be obeyed.
    Query(String),
    /// It cannot be made.
    Failed(String),
}

/// A dashboard that listens.
pub struct Dashboard {
    server: Server,
    board: Arc<Board>,
}

/// What all connections share.
struct Board {
    source: Arc<dyn Source>,
    news: watch::Sender<News>,
}

/// What a stream says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct News {
    /// Rises when documents change.
    version: u64,
    /// What cannot be read, if anything.
    problem: Option<String>,
}

impl Dashboard {
    /// Begins to listen on an address of this machine.
    ///
    /// # Errors
    /// If the address is one that other machines reach, or is taken.
    pub fn bind(address: SocketAddr, source: Arc<dyn Source>) -> Result<Self> {
        if !address.ip().is_loopback() {
            let reason = "whoever reaches it could read the run; take 127.0.0.1, and reach it from elsewhere by ssh -L";
            return Err(Error::Listen { address: address.to_string(), reason: reason.into() });
        }
        let config = ServerConfig {
            host: address.ip(),
            port: address.port(),
            max_connections: CONNECTIONS,
            grace_seconds: 1,
            ..ServerConfig::default()
        };
        let board = Arc::new(Board { source, news: watch::Sender::new(News::default()) });
        let shared = board.clone();
        let server =
            Server::bind_with(config, |_| {}, move |app| router(app, shared)).map_err(|error| match error {
                Error::Listen { address, reason } => {
                    let reason = reason.replace("choose another with --port", "give another address");
                    Error::Listen { address, reason }
                }
                other => other,
            })?;
        Ok(Self { server, board })
    }

    /// Where it is reached: `http://127.0.0.1:8090/`.
    pub fn url(&self) -> String {
        self.server.url().unwrap_or_default()
    }

    /// Serves until the process is asked to end (SIGTERM, Ctrl-C).
    ///
    /// # Errors
    /// If the system does not let it listen for signals.
    pub fn run(self) -> Result<()> {
        self.run_until(Ends::BySignals)
    }

    /// Serves until the process ends, and leaves signals as they are.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn run_beside(self) -> Result<()> {
        self.run_until(Ends::WithTheProcess)
    }

    fn run_until(self, ends: Ends) -> Result<()> {
        let Self { server, board } = self;
        let reader = std::thread::Builder::new().name("dashboard-reader".into());
        let weak = Arc::downgrade(&board);
        let read = move || {
            while let Some(board) = weak.upgrade() {
                let more = board.read();
                drop(board);
                match more {
                    Some(true) => {}
                    Some(false) => std::thread::sleep(EVERY),
                    None => return,
                }
            }
        };
        reader.spawn(read).map_err(|error| Error::Config(format!("the system gives no thread: {error}")))?;
        drop(board);
        server.run_until(ends)
    }
}

impl Board {
    /// Asks the source for what is new; whether there is more, or nothing if it must not be asked again.
    fn read(&self) -> Option<bool> {
        let polled = catch_unwind(AssertUnwindSafe(|| self.source.poll()));
        let (polled, problem, again) = match polled {
            Ok(Ok(polled)) => (polled, None, true),
            Ok(Err(problem)) => (Polled::default(), Some(problem), true),
            Err(_) => {
                let problem = "an error of Minke itself ended the reading of the run; the run goes on".to_owned();
                (Polled::default(), Some(problem), false)
            }
        };
        self.news.send_if_modified(|news| {
            let changed = polled.changed || news.problem != problem;
            news.version += u64::from(changed);
            news.problem = problem;
            changed
        });
        again.then_some(polled.more)
    }
}

fn router(app: &Arc<App>, board: Arc<Board>) -> Router {
    let placed = Router::new()
        .route("/", get(|| async { page::serve(Page::Dashboard, Page::Dashboard.index()) }))
        .route("/{file}", get(|InPath(name): InPath| async move { page::serve(Page::Dashboard, &name) }))
        .route("/api/events", get(events))
        .route("/api/{name}", get(document))
        .layer(Extension(board));
    guarded(placed, app)
}

/// `GET /api/NAME`
async fn document(
    State(app): State<Arc<App>>,
    Extension(board): Extension<Arc<Board>>,
    InPath(name): InPath,
    InQuery(query): InQuery<Vec<(String, String)>>,
) -> Response {
    let made = app.blocking(move || {
        board.source.document(&name, &query).map_err(|error| match error {
            SourceError::Missing(message) => ApiError::new(Kind::NotFound, message),
            SourceError::Query(message) => ApiError::new(Kind::Invalid, message),
            SourceError::Failed(message) => ApiError::internal(message),
        })
    });
    let bytes = match made.await {
        Ok(bytes) => bytes,
        Err(error) => return refusal(&error, Dialect::Ollama),
    };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = StatusCode::OK;
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// `GET /api/events`: an event at once, and one after each change.
async fn events(State(app): State<Arc<App>>, Extension(board): Extension<Arc<Board>>) -> Response {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let (streaming, mut news) = (app.streaming.clone(), board.news.subscribe());
    // The stream must not keep the board: the reading ends with the server.
    drop(board);
    tokio::spawn(async move {
        let mut text = event(None, &*news.borrow_and_update());
        loop {
            let sent = timeout(streaming.stall, sender.send(Bytes::from(text))).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
            tokio::select! {
                () = sleep(BETWEEN_EVENTS) => {}
                () = app.closing() => return,
            }
            text = tokio::select! {
                changed = news.changed() => match changed {
                    Ok(()) => event(None, &*news.borrow_and_update()),
                    Err(_) => return,
                },
                // A comment, which says that the stream lives.
                () = sleep(streaming.keepalive) => ":\n\n".into(),
                () = app.closing() => return,
                () = sender.closed() => return,
            };
        }
    });
    let mut response = Response::new(Body::new(Pieces(receiver)));
    stream_headers(&mut response, "text/event-stream");
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Brings something, then nothing, then an error, then a panic.
    #[derive(Default)]
    struct Failing(AtomicUsize);

    impl Source for Failing {
        fn poll(&self) -> std::result::Result<Polled, String> {
            match self.0.fetch_add(1, Ordering::SeqCst) {
                0 => Ok(Polled { changed: true, more: true }),
                1 => Ok(Polled::default()),
                2 | 3 => Err("the file cannot be read".into()),
                4 => Ok(Polled::default()),
                _ => panic!("a poll that fails"),
            }
        }

        fn document(&self, _: &str, _: &[(String, String)]) -> std::result::Result<Vec<u8>, SourceError> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn what_fails_is_said_once_and_a_panic_ends_the_reading() {
        let board = Board { source: Arc::new(Failing::default()), news: watch::Sender::new(News::default()) };
        // Whether to ask again, and at once; the version; what is said to be wrong.
        let unread = Some("the file cannot be read");
        for (more, version, problem) in [
            (Some(true), 1, None),
            (Some(false), 1, None),
            (Some(false), 2, unread),
            (Some(false), 2, unread),
            (Some(false), 3, None),
            (None, 4, Some("an error of Minke itself ended the reading of the run; the run goes on")),
        ] {
            assert_eq!(board.read(), more);
            let news = board.news.borrow().clone();
            assert_eq!((news.version, news.problem.as_deref()), (version, problem));
        }
    }

    #[test]
    fn only_this_machine_is_listened_on() {
        for address in ["0.0.0.0:0", "192.0.2.1:80", "[::]:0"] {
            let error = Dashboard::bind(address.parse().unwrap(), Arc::new(Failing::default())).err().unwrap();
            assert!(error.to_string().contains("whoever reaches it could read the run"), "{error}");
        }
        let dashboard = Dashboard::bind("127.0.0.1:0".parse().unwrap(), Arc::new(Failing::default())).unwrap();
        assert!(dashboard.url().starts_with("http://127.0.0.1:"));
    }
}
