//! Requests that are answered without connections and without an engine: for tests and fuzzing of what is read of a request and
//! what is written of an answer.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request as HttpRequest, header};
use http_body_util::BodyExt;
use minke_chat::{ChatModel, Request, Worker};
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

use crate::app::App;
use crate::config::ServerConfig;
use crate::generation::{Batches, Script};
use crate::routes::router;
use crate::{Error, Result};

/// All addresses of a server, without the server.
pub struct Replay {
    runtime: Runtime,
    router: Router,
}

impl Replay {
    /// Addresses behind which this model is, in whose place a script answers. Prompts are rendered and grammars compiled with the
    /// model.
    ///
    /// # Errors
    /// If the system gives no runtime.
    pub fn new(
        worker: Worker,
        script: impl Fn(&ChatModel, &Request) -> Batches + Send + Sync + 'static,
    ) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::Config(format!("the system gives no runtime: {error}")))?;
        let mut app = App::new(ServerConfig::default(), Vec::new(), |_| {});
        app.script = Some(Script::new(script));
        app.serve(worker, "scripted");
        Ok(Self { router: router(&Arc::new(app)), runtime })
    }

    /// The status and the bytes with which a request is answered.
    pub fn send(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let request = HttpRequest::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        let Ok(request) = request.body(Body::from(body.to_vec())) else { return (400, Vec::new()) };
        self.runtime.block_on(async {
            let Ok(response) = self.router.clone().oneshot(request).await;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await;
            (status, body.map_or_else(|_| Vec::new(), |body| body.to_bytes().to_vec()))
        })
    }
}
