//! What can go wrong in an evaluation.

/// An evaluation that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] minke_engine::Error),
    /// The chat template refused a question.
    #[error(transparent)]
    Text(#[from] minke_text::Error),
    /// A task's settings are wrong.
    #[error("task {task}: {reason}")]
    Task {
        /// The task.
        task: &'static str,
        /// What is wrong and what to do.
        reason: String,
    },
}
