//! Token ids in, token ids out, for many sequences.
//!
//! An [`Engine`] owns cache and schedule, never weights: `engine.step(&model)` borrows them. Its input and output are
//! ids, not text. What a sequence becomes depends on its prompt, its [`SamplingParams`] and the weights alone: not on
//! its neighbours in the batch, the size of prefill chunks, prefix hits, preemption, drafts or the number of threads.

mod config;
mod constraint;
mod edits;
mod engine;
mod error;
mod fairness;
mod pages;
mod params;
mod replicas;
mod sampler;
mod scheduler;
mod sequence;
mod speculative;

pub use config::{EngineConfig, Speculation};
pub use constraint::{Constraint, Mask};
pub use engine::{Engine, Stats};
pub use error::Error;
pub use fairness::Tenant;
pub use params::SamplingParams;
pub use replicas::Replicas;
pub use sequence::{Completion, Counts, Finish, SequenceId, Token, TokenLogProb};

/// The result of a fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;
