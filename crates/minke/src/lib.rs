//! Minke as a library: one dependency, the crates of the project as modules, and the types that most programs need at the top.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use minke::{ChatModel, Device, Message, RenderOptions, Request, Worker, WorkerConfig};
//!
//! let model = Arc::new(ChatModel::open("models/first-light".as_ref(), &Device::open("cpu", 2)?)?);
//! let worker = Worker::start(model.clone(), WorkerConfig::default())?;
//! let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
//! let prompt = model.prompt(&[Message::user("make 24 from 3 8 1")], &options)?;
//! let reply = worker.submit(Request::new(prompt))?.reply()?;
//! println!("{}", reply.content);
//! # Ok::<(), minke::Error>(())
//! ```
//!
//! Whole programs stand in this crate's `examples/`: generate, grade, train a tiny model, add a task.

pub use minke_chat as chat;
pub use minke_endpoint as endpoint;
pub use minke_engine as engine;
pub use minke_eval as eval;
pub use minke_hub as hub;
pub use minke_model as model;
pub use minke_plan as plan;
pub use minke_spec as spec;
pub use minke_tensor as tensor;
pub use minke_text as text;
pub use minke_train as train;
pub use minke_weights as weights;

pub use minke_chat::{ChatModel, Event, Piece, Reply, Request, SamplingOptions, Worker, WorkerConfig};
pub use minke_engine::{Engine, EngineConfig, SamplingParams};
pub use minke_model::Transformer;
pub use minke_spec::ModelConfig;
pub use minke_tensor::{Device, Tensor};
pub use minke_text::{ChatTemplate, Message, RenderOptions, Tokenizer};
pub use minke_train::RunConfig;

/// The result of a fallible function.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of any of the crates: one line that says what, why and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Opening a model, or answering with it.
    #[error(transparent)]
    Chat(#[from] minke_chat::Error),
    /// Answers of endpoints.
    #[error(transparent)]
    Endpoint(#[from] minke_endpoint::Error),
    /// Generation.
    #[error(transparent)]
    Engine(#[from] minke_engine::Error),
    /// Tasks, graders, scores.
    #[error(transparent)]
    Eval(#[from] minke_eval::Error),
    /// Downloads and their cache.
    #[error(transparent)]
    Hub(#[from] minke_hub::Error),
    /// The transformer.
    #[error(transparent)]
    Model(#[from] minke_model::Error),
    /// Costs and plans.
    #[error(transparent)]
    Plan(#[from] minke_plan::Error),
    /// Configurations.
    #[error(transparent)]
    Spec(#[from] minke_spec::Error),
    /// Operations on tensors.
    #[error(transparent)]
    Tensor(#[from] minke_tensor::Error),
    /// A device that cannot be opened.
    #[error(transparent)]
    Device(#[from] minke_tensor::DeviceError),
    /// Tokenizers and templates.
    #[error(transparent)]
    Text(#[from] minke_text::Error),
    /// Runs.
    #[error(transparent)]
    Train(#[from] minke_train::Error),
    /// Files of weights.
    #[error(transparent)]
    Weights(#[from] minke_weights::Error),
}
