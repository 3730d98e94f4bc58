//! What counts as right: tasks with verifiers, metrics, evaluation runs.

mod error;
pub mod metrics;
pub mod tasks;

pub use error::Error;
pub use tasks::{Demonstration, Problem, Split, Style, Task, Verdict};

/// The result of a fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;
