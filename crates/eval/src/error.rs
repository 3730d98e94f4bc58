//! What can go wrong in an evaluation.

use std::path::PathBuf;

/// An evaluation that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] minke_engine::Error),
    /// The chat template refused a question.
    #[error(transparent)]
    Text(#[from] minke_text::Error),
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot {action} {}: {source}", path.display())]
    Write {
        /// What was tried, as a verb.
        action: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds something else than it should.
    #[error("{}: {reason}", path.display())]
    BadFile {
        /// Which one.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Two files of answers cannot be compared.
    #[error("cannot compare: {reason}")]
    Compare {
        /// Why.
        reason: String,
    },
    /// A file cannot be replaced.
    #[error(transparent)]
    Replace(#[from] minke_sys::atomic::WriteError),
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
