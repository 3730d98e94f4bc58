//! Models of the Hugging Face Hub: names, downloads, and the cache that other libraries share.
//!
//! The layout is that of the `huggingface_hub` package: `models--ORG--NAME` has `blobs` by the hash of their contents,
//! `snapshots` of a commit whose files are links to blobs, and `refs`, the commit that a revision meant when it was pulled.
//! What one library downloads, the other finds.

mod cache;
mod client;
mod download;
mod error;
mod name;
mod preview;
mod pull;
pub mod tls;

pub use cache::{Absent, Cache, CachedModel, Removed};
pub use client::Hub;
pub use error::{Error, Result};
pub use name::{ModelName, SHORT_NAMES, nearest_short_name};
pub use preview::Preview;
pub use pull::{Progress, pull};
