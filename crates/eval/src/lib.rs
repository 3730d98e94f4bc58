//! What counts as right: tasks with graders, verifiers of answers to the problems of others, metrics, evaluation runs.

mod error;
pub mod metrics;
pub mod run;
pub mod tasks;
mod verdict;
pub mod verify;

pub use error::Error;
pub use metrics::Interval;
pub use run::{EvalConfig, Evaluator, Judged, TaskReport, Transcript, judge, prompt};
pub use tasks::{Demonstration, Problem, Split, Style, Task, TrainingProblem};
pub use verdict::Verdict;

/// The result of a fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;
