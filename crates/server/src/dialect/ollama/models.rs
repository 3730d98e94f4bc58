//! What Ollama's clients ask about models: `/api/tags`, `/api/show`, `/api/ps`, `/api/version`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use minke_chat::Thinking;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::app::{App, Served};
use crate::error::Dialect;
use crate::http::{JsonBody, json, refusal};

/// What Ollama tells of a model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaDetails)]
struct Details {
    parent_model: &'static str,
    format: &'static str,
    family: String,
    families: [String; 1],
    parameter_size: String,
    quantization_level: String,
}

impl Details {
    fn of(served: &Served) -> Self {
        let model = served.worker.model();
        let about = &model.summary;
        Self {
            parent_model: "",
            format: "gguf",
            family: about.architecture.clone(),
            families: [about.architecture.clone()],
            parameter_size: format!("{:.1}B", about.parameters as f64 / 1e9),
            quantization_level: about.quantization.clone(),
        }
    }
}

/// A model in a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaModel)]
pub(crate) struct ListedModel {
    name: String,
    model: String,
    modified_at: Option<String>,
    /// Bytes.
    size: u64,
    digest: String,
    details: Details,
}

impl ListedModel {
    fn of(served: &Served) -> Self {
        let identity = served.worker.model().identity;
        let modified = i64::try_from(served.since).ok().and_then(|since| Timestamp::from_second(since).ok());
        Self {
            name: served.name.clone(),
            model: served.name.clone(),
            modified_at: modified.map(|time| time.to_string()),
            size: served.worker.model().summary.bytes,
            digest: identity.iter().map(|byte| format!("{byte:02x}")).collect(),
            details: Details::of(served),
        }
    }
}

/// A model that is loaded.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaRunningModel)]
pub(crate) struct RunningModel {
    #[serde(flatten)]
    listed: ListedModel,
    /// It stays loaded as long as the server runs.
    expires_at: &'static str,
    size_vram: u64,
    context_length: usize,
}

/// The models of this server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaTags)]
pub(crate) struct Tags {
    models: Vec<ListedModel>,
}

/// The models that are loaded.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaRunning)]
pub(crate) struct RunningModels {
    models: Vec<RunningModel>,
}

/// `GET /api/tags`
pub(crate) async fn tags(State(app): State<Arc<App>>) -> Response {
    json(StatusCode::OK, &Tags { models: app.served().into_iter().map(ListedModel::of).collect() })
}

/// `GET /api/ps`
pub(crate) async fn running(State(app): State<Arc<App>>) -> Response {
    let entry = |served: &Served| RunningModel {
        listed: ListedModel::of(served),
        expires_at: "9999-12-31T23:59:59Z",
        size_vram: 0,
        context_length: served.worker.limit(),
    };
    json(StatusCode::OK, &RunningModels { models: app.served().into_iter().map(entry).collect() })
}

/// The version of this program.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaVersion)]
pub(crate) struct Version {
    version: &'static str,
}

/// `GET /api/version`
pub(crate) async fn version() -> Response {
    json(StatusCode::OK, &Version { version: env!("CARGO_PKG_VERSION") })
}

/// Which model is asked about.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OllamaShowRequest)]
pub(crate) struct ShowBody {
    #[serde(alias = "name")]
    model: String,
}

/// What a model can do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaShown)]
pub(crate) struct Shown {
    modelfile: &'static str,
    parameters: &'static str,
    /// The chat template.
    template: String,
    details: Details,
    model_info: BTreeMap<String, Value>,
    capabilities: Vec<&'static str>,
}

/// `POST /api/show`
pub(crate) async fn show(State(app): State<Arc<App>>, JsonBody(body): JsonBody<ShowBody>) -> Response {
    let served = match app.check_model(Some(super::model_name(&body.model))) {
        Ok(served) => served,
        Err(error) => return refusal(&error, Dialect::Ollama),
    };
    let model = served.worker.model();
    let about = &model.summary;
    let mut capabilities = vec!["completion", "tools"];
    if about.thinking != Thinking::Never {
        capabilities.push("thinking");
    }
    let model_info = BTreeMap::from([
        ("general.architecture".to_owned(), about.architecture.as_str().into()),
        ("general.parameter_count".to_owned(), about.parameters.into()),
        (format!("{}.context_length", about.architecture), served.worker.limit().into()),
    ]);
    let shown = Shown {
        modelfile: "",
        parameters: "",
        template: model.template.source().to_owned(),
        details: Details::of(served),
        model_info,
        capabilities,
    };
    json(StatusCode::OK, &shown)
}
