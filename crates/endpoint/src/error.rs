//! Errors of endpoints, in one line each.

/// The result of a fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The address or the key cannot be one.
    #[error("{0}")]
    Settings(String),
    /// The endpoint refuses every request.
    #[error("{address}: {reason}")]
    Refused {
        /// The endpoint.
        address: String,
        /// Why, and what to do.
        reason: String,
    },
    /// This request got no answer; another one may.
    #[error("{address}: {reason}")]
    Unanswered {
        /// The endpoint.
        address: String,
        /// The last thing that happened.
        reason: String,
    },
    /// The caller asked to stop while the request waited.
    #[error("stopped while waiting for {address}")]
    Stopped {
        /// The endpoint.
        address: String,
    },
}
