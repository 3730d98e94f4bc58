//! What counts as right: tasks with graders, verifiers of answers to the problems of others, metrics, evaluation runs.

mod answer;
mod compare;
mod config;
mod error;
pub mod harness;
pub mod metrics;
mod prompt;
pub mod published;
mod report;
mod results;
pub mod run;
pub mod tasks;
mod verdict;
pub mod verify;

pub use answer::{Answer, Drawn, FinishName, Judged, judge};
pub use compare::{Comparison, compare};
pub use config::EvalConfig;
pub use error::Error;
pub use metrics::Interval;
pub use prompt::{Prompt, prompt, prompts};
pub use report::{Count, TaskReport, Transcript};
pub use results::{Header, Results};
pub use run::{Evaluator, Questions};
pub use tasks::{Demonstration, Problem, Split, Style, Task, TrainingProblem};
pub use verdict::Verdict;

/// The result of a fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;
