//! Errors of reading and writing weights.

use std::path::PathBuf;

/// Weights that cannot be read, written or converted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A model cannot be built from them.
    #[error(transparent)]
    Model(#[from] minke_model::Error),
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
    #[error("{path}: {}", printable(reason))]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The caller asked to stop.
    #[error("interrupted; nothing was written")]
    Interrupted,
    /// A tensor is missing, superfluous or of another shape.
    #[error("{path}: tensor {}: {}", printable(name), printable(reason))]
    BadTensor {
        /// The folder of weights.
        path: PathBuf,
        /// The published name.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

impl From<minke_sys::atomic::WriteError> for Error {
    fn from(error: minke_sys::atomic::WriteError) -> Self {
        Self::Io { path: error.path, source: error.source }
    }
}

/// A text without what a terminal would interpret: names in files are not trusted.
fn printable(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_files_are_printed_as_they_are_spelled() {
        let (name, reason) = ("a\n\u{1b}[2Jb 京".into(), "is \"odd\"".into());
        let error = Error::BadTensor { path: "m.gguf".into(), name, reason };
        assert_eq!(error.to_string(), "m.gguf: tensor a\\n\\u{1b}[2Jb 京: is \"odd\"");
    }
}
