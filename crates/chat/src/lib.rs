//! Between the engine and people: a published model opened with tokenizer, chat template, generation defaults and a plan of
//! its memory.
//!
//! Nothing here prints, reads the environment or parses a command line; what goes wrong is an [`Error`].

mod decoder;
mod error;
mod event;
mod generation;
mod locate;
pub mod machine;
mod memory_plan;
mod model;
mod packed;
mod prefix_store;
mod request;
mod text_files;
mod thought;
mod units;
mod worker;

#[doc(hidden)]
pub use decoder::replay;
pub use error::{Error, Result};
pub use event::{Event, FinishReason, Piece, Reply, ThoughtLimit, Usage};
pub use generation::{GenerationConfig, SamplingOptions};
pub use locate::locate;
pub use memory_plan::{CACHE_DTYPE, CHUNK_TOKENS, MIN_CONTEXT, MemoryPlan, MemoryPlanner};
pub use model::{ChatModel, Identity, Summary, Thinking};
pub use packed::PackedFolder;
pub use prefix_store::DiskCache;
pub use request::{Prompt, Request};
pub use text_files::{template, tokenizer};
pub use units::gigabytes;
pub use worker::{ENGINE_THREAD, Events, PrefixCache, Ticket, Worker, WorkerConfig};

pub use minke_weights::PolicyVersion;
