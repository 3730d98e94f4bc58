//! What can go wrong with a model: a configuration that is wrong, weights that do not fit it.

use std::path::PathBuf;

/// A model that cannot be built, loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] minke_tensor::Error),
    /// A configuration is wrong.
    #[error(transparent)]
    Config(#[from] minke_spec::Error),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {reason}")]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Somebody asked to stop.
    #[error("interrupted; nothing was written")]
    Interrupted,
    /// A tensor is missing, superfluous or of another shape.
    #[error("{path}: tensor {name}: {reason}")]
    BadTensor {
        /// The folder of weights.
        path: PathBuf,
        /// The published name.
        name: String,
        /// What is wrong.
        reason: String,
    },
}
