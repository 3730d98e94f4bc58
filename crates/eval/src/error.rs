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
    /// A process or a file of the system failed.
    #[error("running a program: {0}")]
    System(#[from] std::io::Error),
    /// There is no Python that can be used.
    #[error("{}: {reason}", python.display())]
    Python {
        /// What was asked for.
        python: std::path::PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Programs would not be confined well enough.
    #[error("programs are not run, as this machine lacks layers of the sandbox: {missing}; `minke doctor` lists them")]
    Unprotected {
        /// The layers, each with the reason.
        missing: String,
    },
}
