//! How does a model get from random weights to reasoning? Stage by stage, as one TOML says.
//!
//! A [`RunConfig`] is a seed, a model, tasks and a list of stages. [`execute`] works through it in an output folder; killed at
//! any point and started again, it ends with the same bytes. Step k of a stage is a function of weights, optimizer state,
//! configuration, seed and k, and nothing else.

pub mod checkpoint;
pub mod config;
pub mod data;
pub mod distill;
mod error;
mod files;
pub mod grpo;
pub mod optimizer;
pub mod pretrain;
pub mod publish;
pub mod record;
pub mod reject;
pub mod report;
pub mod run;
pub mod schedule;
pub mod sft;
pub mod stage;
mod task;
#[cfg(test)]
mod testing;
pub mod trainer;
pub mod training;

pub use config::{RunConfig, StageConfig, TokenizerConfig};
pub use error::Error;
pub use run::{Observer, Silent, StepView, execute};

/// The result of a fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;
