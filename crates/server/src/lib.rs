//! A model served over HTTP, in the dialects that existing clients speak.
//!
//! A request of any dialect becomes one kind of request (`generation.rs`), whose prompt is made outside of the engine's thread;
//! what the engine's thread brings becomes one kind of update, which each dialect writes as its own events (`stream.rs`).
//! Nothing here computes with numbers of a model.
//!
//! The same listener and the same guards serve the page of a run that is watched (`dashboard.rs`), which knows of the run what
//! its [`Source`] says.

mod app;
mod config;
mod dashboard;
mod dialect;
mod error;
mod generation;
mod http;
mod info;
mod kept;
mod listen;
mod log_probs;
mod metrics;
mod openapi;
mod page;
mod replay;
mod request_log;
mod routes;
mod stream;

pub use config::{LogFormat, ReasoningField, ServerConfig};
pub use dashboard::{Dashboard, Polled, Source, SourceError};
pub use listen::{Loader, Server};
#[doc(hidden)]
pub use replay::Replay;

/// The result of a fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting, or a file that one names.
    #[error("{0}")]
    Config(String),
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Which one.
        address: String,
        /// Why not, and what to do.
        reason: String,
    },
}
