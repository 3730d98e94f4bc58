//! Errors of downloads, in one line each.

use std::path::PathBuf;

/// The result of a fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name cannot be one of a model.
    #[error("{name}: {reason}")]
    Name {
        /// As it was typed.
        name: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The server has no such repository, revision or file, or does not show it.
    #[error("{what}: {reason}")]
    Refused {
        /// Repository or file.
        what: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The server cannot be reached, or stopped answering.
    #[error("{what}: {reason}; what has arrived is kept: run the same command again")]
    Network {
        /// Repository or file.
        what: String,
        /// The last thing that happened.
        reason: String,
    },
    /// What arrived is not what the server announced.
    #[error("{what}: {reason}")]
    Corrupt {
        /// The file.
        what: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A file of the cache cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Of which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl From<minke_sys::atomic::WriteError> for Error {
    fn from(error: minke_sys::atomic::WriteError) -> Self {
        Self::Io { action: "write", path: error.path, source: error.source }
    }
}

/// A function that makes an I/O error one about a file.
pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { action, path: path.into(), source }
}
