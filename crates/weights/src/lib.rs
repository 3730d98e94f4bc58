//! Published weights: folders as on the Hub (`config.json` and safetensors files) and GGUF files, read, written and converted.
//!
//! Loader and exporter read the one table of `minke_spec::params`; copies that a file holds of shared tensors are
//! written on export and dropped on import.

mod adapter;
mod archive;
mod components;
mod contents;
mod convert;
mod duplicate_keys;
mod error;
mod export;
pub mod gguf;
mod gguf_model;
mod gguf_write;
mod importance;
mod load;
mod packed;
mod plan;
pub mod publication;
pub mod recipe;
mod shards;
mod transcode;
mod unread;

pub use adapter::{ADAPTER_CONFIG_FILE, ADAPTER_FILE, AdapterConfig, load_adapter, save_adapter, target_modules};
pub use archive::Archive;
pub use components::{Component, ComponentBytes};
pub use contents::{TensorEntry, WeightFile};
pub use error::Error;
pub use export::save;
pub use gguf_model::texts;
pub use gguf_write::Pairs;
pub use importance::Importance;
pub use load::{load, load_dense};
pub use packed::Packed;
pub use plan::PlannedTensor;
pub use publication::PolicyVersion;
pub use transcode::TensorWriter;

/// File of a folder's configuration.
pub const CONFIG_FILE: &str = "config.json";
/// File of advice on sampling, and of the tokens that end a turn.
pub const GENERATION_FILE: &str = "generation_config.json";
/// File of unsharded weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Index of which shard holds which tensor.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// The result of a fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;
