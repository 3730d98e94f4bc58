//! Training, from random weights to a model that reasons: stage by stage, as one TOML says.
//!
//! A [`RunConfig`] is a seed, a model, tasks and a list of stages. [`execute`] works through it in an output folder; killed at
//! any point and started again, it ends with the same bytes. Step k of a stage is a function of weights, optimizer state,
//! configuration, seed and k, and nothing else.

mod answers;
mod asked;
mod base;
pub mod checkpoint;
pub mod config;
pub mod conversations;
pub mod data;
mod document;
mod error;
mod export;
mod files;
pub mod grpo;
pub mod live;
mod lora;
pub mod metric;
mod observer;
pub mod optimizer;
mod problems;
pub mod publish;
mod ranks;
pub mod record;
pub mod reject;
pub mod report;
mod run;
pub mod schedule;
pub mod scores;
mod shares;
pub mod stage;
mod stage_loop;
mod start;
pub mod supervised;
mod task;
pub mod teacher;
#[cfg(test)]
mod testing;
pub mod trainer;

pub use base::{Base, Bases};
pub use config::{RunConfig, StageConfig, TokenizerConfig};
pub use error::Error;
pub use lora::LoraConfig;
pub use observer::{Observer, Silent, StepView};
pub use ranks::Ranks;
pub use run::{execute, execute_with};

/// The result of a fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;
