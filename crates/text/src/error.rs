//! Errors of tokenizers, chat templates and their files.

use std::path::PathBuf;

/// Everything that this crate refuses; each message is one line: what, why, what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A tokenizer.json that is broken, or of a kind that is not byte-level BPE.
    #[error("tokenizer {origin}: {reason}")]
    Tokenizer {
        /// The file, or "(given text)".
        origin: String,
        /// Why it is refused and what would be accepted.
        reason: String,
    },
    /// A file beside a tokenizer.json that is not what transformers writes.
    #[error("{}: is not a JSON object: {reason}; correct it or remove it", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Where it stops being one.
        reason: String,
    },
    /// Options with which no tokenizer can be trained.
    #[error("cannot train a tokenizer: {reason}")]
    Training {
        /// Which option, and which values would do.
        reason: String,
    },
    /// A description of tools that is not what the OpenAI API takes.
    #[error("tools: {0}; give a JSON list of objects with a function")]
    Tools(String),
    /// A chat template that does not compile, or did not render these messages.
    #[error("chat template {origin}: {reason}")]
    Template {
        /// The file, or the name of the built-in template.
        origin: String,
        /// What Jinja said.
        reason: String,
    },
}

impl From<minke_sys::atomic::WriteError> for Error {
    fn from(error: minke_sys::atomic::WriteError) -> Self {
        Self::Write { path: error.path, source: error.source }
    }
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
