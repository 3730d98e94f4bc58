//! Connections: where they come from, how many, how slow they may be, and how the server ends.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use minke_chat::{ChatModel, Worker};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::app::App;
use crate::config::{Limits, ServerConfig, read_keys};
use crate::routes::router;
use crate::{Error, Result};

/// Bytes of the head of a request.
const HEAD_BYTES: usize = 64 << 10;
/// Header lines of a request.
const HEADERS: usize = 128;

/// How long streams may take to say that the server stops, when their time is over.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Threads for connections. The engine has its own; these wait most of the time.
const THREADS: usize = 2;

/// A server that listens. It answers that the model is being loaded until it is given one.
pub struct Server {
    runtime: Runtime,
    app: Arc<App>,
    service: Router,
    listener: Listener,
    tls: Option<TlsAcceptor>,
}

/// What may end a server beside its own program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Signals to the process: the server is what the process is for.
    BySignals,
    /// Nothing: signals are somebody else's, and keep their effect.
    WithTheProcess,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Server {
    /// Begins to listen. `warn` is given lines about what goes wrong later without ending the server.
    ///
    /// # Errors
    /// If a setting is wrong, a file that one names is missing or broken, or the address is taken.
    pub fn bind(config: ServerConfig, warn: fn(&str)) -> Result<Self> {
        Self::bind_with(config, warn, router)
    }

    /// The same with other addresses than those of the API.
    pub(crate) fn bind_with(
        config: ServerConfig,
        warn: fn(&str),
        addresses: impl FnOnce(&Arc<App>) -> Router,
    ) -> Result<Self> {
        config.validate()?;
        let keys = config.key_file.as_deref().map(read_keys).transpose()?.unwrap_or_default();
        let tls = match (&config.tls_cert, &config.tls_key) {
            (Some(certificates), Some(key)) => Some(acceptor(certificates, key)?),
            _ => None,
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .enable_all()
            .build()
            .map_err(|error| Error::Config(format!("the system gives no threads for connections: {error}")))?;
        let listener = {
            let _inside = runtime.enter();
            match &config.socket {
                Some(path) => Listener::Unix(listen_on_path(path)?),
                None => Listener::Tcp(listen_on_address(&runtime, config.address())?),
            }
        };
        let app = Arc::new(App::new(config, keys, warn));
        Ok(Self { service: addresses(&app), runtime, app, listener, tls })
    }

    /// Gives a line about each request to a function, in the format of the configuration.
    #[must_use]
    pub fn with_log(self, lines: impl Fn(&str) + Send + Sync + 'static) -> Self {
        // A second function would be an error of the program; the first stays.
        let _ = self.app.log.set(Arc::new(lines));
        self
    }

    /// Where it is reached, as an address for browsers: `http://127.0.0.1:8080/`. None for a Unix socket.
    pub fn url(&self) -> Option<String> {
        let Listener::Tcp(listener) = &self.listener else { return None };
        let address: SocketAddr = listener.local_addr().ok()?;
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Some(format!("{scheme}://{address}{}/", self.app.config.base_path))
    }

    /// What gives the server its model, from another thread if need be.
    pub fn loader(&self) -> Loader {
        Loader { app: self.app.clone() }
    }

    /// Serves until the process is asked to end (SIGTERM, Ctrl-C) or the loader stops it, then gives what is under way a
    /// while to end, unless the process is asked once more. SIGHUP makes it read the file of keys again.
    ///
    /// # Errors
    /// If the system does not let it listen for signals.
    pub fn run(self) -> Result<()> {
        self.run_until(Ends::BySignals)
    }

    pub(crate) fn run_until(self, ends: Ends) -> Result<()> {
        let Self { runtime, app, service, listener, tls } = self;
        let result = runtime.block_on(async {
            let signals = match ends {
                Ends::BySignals => Some(Signals::listen()?),
                Ends::WithTheProcess => None,
            };
            accept(app, service, listener, tls, signals).await;
            Ok(())
        });
        // What did not end in time is not waited for.
        runtime.shutdown_background();
        result
    }
}

/// The signals that a server obeys.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

enum Asked {
    End,
    ReadKeysAgain,
}

impl Signals {
    fn listen() -> Result<Self> {
        let refuse = |error: std::io::Error| Error::Config(format!("cannot listen for signals: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(refuse)?,
            interrupt: signal(SignalKind::interrupt()).map_err(refuse)?,
            reload: signal(SignalKind::hangup()).map_err(refuse)?,
        })
    }

    /// What the next signal asks for; without signals, never.
    async fn next(signals: &mut Option<Self>) -> Asked {
        let Some(Self { terminate, interrupt, reload }) = signals else { return std::future::pending().await };
        tokio::select! {
            _ = terminate.recv() => Asked::End,
            _ = interrupt.recv() => Asked::End,
            _ = reload.recv() => Asked::ReadKeysAgain,
        }
    }
}

async fn accept(
    app: Arc<App>,
    service: Router,
    listener: Listener,
    tls: Option<TlsAcceptor>,
    mut signals: Option<Signals>,
) {
    let places = Arc::new(Semaphore::new(app.config.max_connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(&places) => accepted,
            asked = Signals::next(&mut signals) => match asked {
                Asked::End => break,
                Asked::ReadKeysAgain => {
                    app.read_keys_again();
                    continue;
                }
            },
            () = app.closing() => break,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, place)) = accepted else {
            // Too many open files, most likely: some will be closed.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (app, service, tls) = (app.clone(), service.clone(), tls.clone());
        connections.spawn(async move {
            let limits = app.config.limits();
            match (stream, tls) {
                (Stream::Tcp(stream), Some(tls)) => {
                    let handshake = timeout(Duration::from_secs(limits.head_seconds), tls.accept(stream)).await;
                    if let Ok(Ok(stream)) = handshake {
                        connection(stream, service, &app, limits).await;
                    }
                }
                (Stream::Tcp(stream), None) => connection(stream, service, &app, limits).await,
                (Stream::Unix(stream), _) => connection(stream, service, &app, limits).await,
            }
            drop(place);
        });
    }
    drop(listener);
    app.close();
    let mut all = pin!(async { while connections.join_next().await.is_some() {} });
    tokio::select! {
        () = &mut all => return,
        () = sleep(Duration::from_secs(app.config.grace_seconds)) => {}
        () = async { while !matches!(Signals::next(&mut signals).await, Asked::End) {} } => {}
    }
    app.stop();
    // What has not ended by then is cut off.
    let _ = timeout(LAST_WORDS, all).await;
}

/// Gives a server its model.
#[derive(Clone)]
pub struct Loader {
    app: Arc<App>,
}

impl Loader {
    /// Serves a model; `name` is what its file is called.
    pub fn serve(&self, worker: Worker, name: &str) {
        self.app.serve(worker, name);
    }

    /// Puts other weights in the place of those of the model that is served, as [`Worker::replace_model`].
    ///
    /// # Errors
    /// If they are of another model, or none is served.
    pub fn replace(&self, model: ChatModel) -> minke_chat::Result<()> {
        self.app.replace(model)
    }

    /// Whether the server ends.
    pub fn is_stopped(&self) -> bool {
        self.app.is_closing()
    }

    /// Ends the server, as a signal does.
    pub fn stop(&self) {
        self.app.close();
    }
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Listener {
    /// The next connection. While there is no place, who comes waits in the system's queue.
    async fn accept(&self, places: &Arc<Semaphore>) -> std::io::Result<(Stream, OwnedSemaphorePermit)> {
        let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
        let stream = match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // A token is a packet.
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Self::Unix(listener) => Stream::Unix(listener.accept().await?.0),
        };
        Ok((stream, place))
    }
}

/// Serves one connection to its end.
async fn connection<S>(stream: S, service: Router, app: &App, limits: Limits)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    // Without a timer the timeout is off, and nothing says so.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits.head_seconds))
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(served);
    tokio::select! {
        // How a connection breaks is the client's matter.
        _ = &mut served => {}
        () = app.closing() => {
            served.as_mut().graceful_shutdown();
            let _ = served.await;
        }
    }
}

fn listen_on_address(runtime: &Runtime, address: SocketAddr) -> Result<TcpListener> {
    let refuse = |error: std::io::Error| {
        let reason = match error.kind() {
            std::io::ErrorKind::AddrInUse => "the port is in use; choose another with --port".into(),
            std::io::ErrorKind::PermissionDenied => "not permitted; ports below 1024 need privileges".into(),
            _ => error.to_string(),
        };
        Error::Listen { address: address.to_string(), reason }
    };
    runtime.block_on(TcpListener::bind(address)).map_err(refuse)
}

/// Listens on a path. A socket that a killed server left behind is taken away; one that somebody listens on is not.
fn listen_on_path(path: &Path) -> Result<UnixListener> {
    let refuse = |reason: String| Error::Listen { address: path.display().to_string(), reason };
    if path.exists() {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(refuse("somebody listens there already; choose another path".into()));
        }
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|data| {
            use std::os::unix::fs::FileTypeExt;
            data.file_type().is_socket()
        });
        if !is_socket {
            return Err(refuse("there is a file that is no socket; choose another path".into()));
        }
        std::fs::remove_file(path).map_err(|error| refuse(error.to_string()))?;
    }
    UnixListener::bind(path).map_err(|error| refuse(error.to_string()))
}

/// What speaks TLS with these certificates and this key.
fn acceptor(certificates: &Path, key: &Path) -> Result<TlsAcceptor> {
    // The library for it would panic later.
    check_processor()?;
    let broken = |path: &Path, reason: String| Error::Config(format!("{}: {reason}", path.display()));
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(certificates)
            .and_then(Iterator::collect)
            .map_err(|error| broken(certificates, format!("is no list of certificates (PEM): {error}")))?;
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| broken(key, format!("is no private key (PEM): {error}")))?;
    let provider = Arc::new(rustls_graviola::default_provider());
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(chain, private))
        .map_err(|error| broken(certificates, format!("cannot be used: {error}")))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Whether the processor has what the library for TLS is written for.
fn check_processor() -> Result<()> {
    #[cfg(target_arch = "x86_64")]
    let missing = {
        let found = [
            ("aes", std::arch::is_x86_feature_detected!("aes")),
            ("avx", std::arch::is_x86_feature_detected!("avx")),
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("bmi1", std::arch::is_x86_feature_detected!("bmi1")),
            ("bmi2", std::arch::is_x86_feature_detected!("bmi2")),
            ("adx", std::arch::is_x86_feature_detected!("adx")),
            ("pclmulqdq", std::arch::is_x86_feature_detected!("pclmulqdq")),
            ("ssse3", std::arch::is_x86_feature_detected!("ssse3")),
        ];
        found.into_iter().find(|(_, there)| !there).map(|(name, _)| name)
    };
    #[cfg(target_arch = "aarch64")]
    let missing = {
        let found = [
            ("aes", std::arch::is_aarch64_feature_detected!("aes")),
            ("pmull", std::arch::is_aarch64_feature_detected!("pmull")),
            ("sha2", std::arch::is_aarch64_feature_detected!("sha2")),
        ];
        found.into_iter().find(|(_, there)| !there).map(|(name, _)| name)
    };
    match missing {
        None => Ok(()),
        Some(name) => Err(Error::Config(format!(
            "TLS needs a processor with {name}, which this one lacks: let a proxy in front speak TLS"
        ))),
    }
}
