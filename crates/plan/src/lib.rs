//! Arithmetic about clusters: what a model costs to train and to serve, on what, and how long it takes.
//!
//! Everything is a pure function of a model ([`minke_spec::ModelConfig`]), parts ([`hardware`]) and assumptions
//! ([`assumption`]): nothing is read, measured or downloaded, and an answer takes milliseconds. Each number that an answer
//! rests on has a source, is printed with the answer and can be set; a figure without a source is an error.
//!
//! | To know | Module |
//! |---|---|
//! | what a part can do, and which rule binds its export | [`hardware`] |
//! | how ranks share a model, and what fits on each | [`cluster`], [`memory`] |
//! | when each rank of a pipeline works or waits | [`schedule`], [`pipeline`] |
//! | how long a step takes | [`time`] |
//! | which rank holds which expert | [`balance`] |
//! | how fast tokens are read and written | [`serve`] |
//! | what one measured machine does | [`machine`] |
//! | answers to whole questions | [`questions`] |

pub mod answer;
pub mod assumption;
pub mod balance;
pub mod cluster;
mod error;
pub mod hardware;
pub mod machine;
pub mod memory;
pub mod model;
mod number;
pub mod picture;
pub mod pipeline;
pub mod questions;
pub mod schedule;
pub mod serve;
pub mod time;

pub use answer::Answer;
pub use assumption::Ledger;
pub use error::Error;
pub use hardware::Hardware;
pub use model::Model;
