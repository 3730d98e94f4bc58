//! Between the engine and people: a published model opened with tokenizer, chat template, generation defaults and a plan of
//! its memory.
//!
//! Nothing here prints, reads the environment or knows a command line; what goes wrong is an [`Error`].

mod error;
mod generation;
pub mod machine;
mod memory_plan;
mod model;
mod text_files;
mod units;

pub use error::{Error, Result};
pub use generation::{GenerationConfig, SamplingOptions};
pub use memory_plan::{CACHE_FORMAT, CHUNK_TOKENS, MIN_CONTEXT, MemoryPlan, MemoryPlanner, SpeedEstimate};
pub use model::{ChatModel, Identity};
pub use text_files::{template, tokenizer};
pub use units::gigabytes;
