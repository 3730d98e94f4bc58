//! What can go wrong in a run: a configuration that makes no sense, a file that cannot be written, a run that diverges.

use std::path::{Path, PathBuf};

/// A run that cannot start or go on. Each message is one line: what, why, what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration of a run is wrong.
    #[error("{0}")]
    Config(String),
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "write", "lock".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file of a run is not what it should be.
    #[error("{}: {reason}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Another process works in the output folder.
    #[error("{} is in use by another process: wait for it to end, or choose another folder", .0.display())]
    InUse(PathBuf),
    /// The run met values that are not finite again and again.
    #[error("stage {stage}: step {step} is not finite after {rollbacks} rollbacks; lower the learning rates")]
    Diverged {
        /// The stage.
        stage: String,
        /// The step that failed last.
        step: u64,
        /// How often the stage went back to a checkpoint.
        rollbacks: u32,
    },
    /// The observer asked to stop.
    #[error("interrupted in stage {stage} after step {step}; the same command goes on from the last checkpoint")]
    Interrupted {
        /// The stage.
        stage: String,
        /// The last step that was done.
        step: u64,
    },
    /// An endpoint does not answer a stage's questions.
    #[error("stage {stage}: {source}; the {kept} answers so far are kept, and the same command asks for the rest")]
    Endpoint {
        /// The stage.
        stage: String,
        /// Answers that are kept.
        kept: u64,
        /// What the endpoint did.
        source: minke_endpoint::Error,
    },
    /// The model failed.
    #[error(transparent)]
    Model(#[from] minke_model::Error),
    /// Weights cannot be read or written.
    #[error(transparent)]
    Weights(#[from] minke_weights::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] minke_tensor::Error),
    /// The tokenizer or chat template failed.
    #[error(transparent)]
    Text(#[from] minke_text::Error),
    /// A task or an evaluation failed.
    #[error(transparent)]
    Eval(#[from] minke_eval::Error),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] minke_engine::Error),
}

impl From<minke_sys::atomic::WriteError> for Error {
    fn from(error: minke_sys::atomic::WriteError) -> Self {
        Self::Io { action: "write", path: error.path, source: error.source }
    }
}

impl Error {
    /// Makes an error of what the operating system said about reading a path.
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Read { path, source }
    }

    /// Makes an error of what it said about anything else.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
