//! What can go wrong between opening a model and its answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::units::gigabytes;

/// The result of a fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in one line: what, why, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is missing, broken or of a kind that is not supported.
    #[error("{}: {reason}", path.display())]
    BadFile {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A text that is neither a path nor can name a model.
    #[error(transparent)]
    Name(#[from] minke_hub::Error),
    /// There is no such file, and the cache of downloads does not have a model of this name, or not whole.
    #[error("{name}: no such file or folder, and not downloaded")]
    NotDownloaded {
        /// Which model.
        name: Box<minke_hub::ModelName>,
        /// Why not.
        absent: minke_hub::Absent,
    },
    /// The model needs more memory than there is.
    #[error(
        "{}: needs {} of memory (weights {}, {context} tokens of context {}) and {} are there; {advice}",
        path.display(),
        gigabytes(*needed),
        gigabytes(*weights),
        gigabytes(*cache),
        gigabytes(*available)
    )]
    DoesNotFit {
        /// The model.
        path: PathBuf,
        /// Tokens of context that were planned for.
        context: usize,
        /// Bytes that the model needs with them, weights and cache included.
        needed: u64,
        /// Bytes of weights.
        weights: u64,
        /// Bytes of cache.
        cache: u64,
        /// Bytes that there are.
        available: u64,
        /// What to change.
        advice: String,
    },
    /// Tokenizer or chat template.
    #[error(transparent)]
    Text(#[from] minke_text::Error),
    /// Configuration or weights.
    #[error(transparent)]
    Weights(#[from] minke_weights::Error),
    /// A prompt or a setting that the engine refuses.
    #[error(transparent)]
    Engine(#[from] minke_engine::Error),
    /// Too many requests are worked on or wait already.
    #[error("{unfinished} requests are worked on or wait already; try again when some have ended")]
    Busy {
        /// How many.
        unfinished: usize,
    },
    /// Something panicked in the work for this request.
    #[error("the work for this request failed: this is an error of the program, please report it")]
    Panicked,
    /// A step of the engine failed, and with it every request that took part.
    #[error(transparent)]
    Step(Arc<minke_engine::Error>),
    /// The folder of the prefix cache on disk cannot be used.
    #[error("{}: the cache cannot be kept there: {source}; choose another folder, or none", path.display())]
    DiskCache {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Other weights than a worker's that do not fit in their place.
    #[error("the weights are of another model than the one that is served; start the server anew for it")]
    AnotherModel,
    /// The engine's thread could not be started.
    #[error("cannot start the thread of the engine: {0}")]
    Thread(std::io::Error),
    /// The engine's thread has ended, or the request has.
    #[error("the engine has stopped")]
    Stopped,
    /// A product that cannot be computed.
    #[error(transparent)]
    Tensor(#[from] minke_tensor::Error),
}

/// An error about this file.
pub(crate) fn bad_file(path: &Path, reason: impl Into<String>) -> Error {
    Error::BadFile { path: path.into(), reason: reason.into() }
}
