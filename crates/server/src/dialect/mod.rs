//! The APIs that existing clients speak. Each turns its requests into a [`GenerationRequest`](crate::generation), and updates
//! of a generation into its own events; none is built on another.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod fields;
pub(crate) mod messages;
pub(crate) mod ollama;
pub(crate) mod responses;
