//! The transformer of the paper, for training and inference alike.
//!
//! One definition serves all: a [`Batch`] carries training sequences, prefill chunks or decode rows; with a
//! [`KvCache`] keys and values go through pages, without one attention stays inside the batch. R1 is
//! `Attention::Mla` + `FeedForward::Moe`, a distilled Qwen or Llama is `Attention::Gqa` + `FeedForward::Mlp`.

mod adapter;
mod batch;
mod block;
mod cache;
mod error;
pub mod gate;
mod gqa;
mod loss;
mod mla;
mod mlp;
mod moe;
mod mtp;
mod projection;
mod rope;
mod source;
mod transformer;

pub use adapter::{LinearLayer, Lora, LoraLayer, linear_layers};
pub use batch::{Batch, Chunk};
pub use cache::{KvCache, MlaForm};
pub use error::Error;
pub use loss::{LossWeights, Losses, Targets};
pub use moe::ExpertLoad;
pub use transformer::{ModelId, MtpOutput, Output, Transformer};

/// The result of a fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;
