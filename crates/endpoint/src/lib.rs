//! Answers of OpenAI-compatible endpoints: ours, vLLM, llama-server, or one on the network that wants a key.
//!
//! An [`Endpoint`] sends a request to `/chat/completions` or `/completions` and asks again where that helps. What fails is told apart by who is
//! concerned: [`Error::Refused`] is about every request to the endpoint, [`Error::Unanswered`] about this one.

mod client;
mod error;
mod reply;

pub use client::{BODY_AT_MOST, Endpoint, EndpointSettings};
pub use error::{Error, Result};
pub use reply::{Completion, Reply};
