//! Shape-checked operations on tensors and their reverse mode.
//!
//! A [`Tensor`] is a contiguous block of numbers in memory of a device. Operations are methods that take the [`Pass`]
//! they belong to; in a recording pass a result keeps how it was made (its `node`), and [`backward`] walks those nodes
//! once, in one exhaustive `match`. Parameters ([`Param`]) enter the tape only as arguments of operations in a
//! recording pass.

mod adapter;
mod backward;
mod comm;
mod error;
mod exchange;
mod experts;
mod frozen;
mod ops;
mod param;
mod recompute;
mod shape;
mod stored;
mod tensor;

pub use backward::{Gradients, backward, backward_to};
pub use comm::{Comm, MpiError, PLUGIN_FILE, Plain};
pub use error::Error;
pub use experts::{ExpertSource, FetchedExperts};
pub use minke_kernels::ops::attention::Span;
pub use minke_kernels::ops::cache::{PAGE_TOKENS, Places};
pub use minke_kernels::ops::rope::Layout;
pub use minke_kernels::ops::route::{GroupScore, Routing};
pub use minke_kernels::ops::sample::{Edit, NOT_FINITE, NOTHING_ALLOWED, SampleRow, SampleRows};
pub use minke_kernels::ops::stored_matmul::LAYOUT;
pub use minke_kernels::{Device, Dtype, Error as DeviceError, Isa};
pub use minke_sys::Bytes;
pub use ops::cache::Pages;
pub use ops::{Samples, TokenDistribution};
pub use param::optimize;
pub use recompute::recompute;
pub use shape::Shape;
pub use stored::{StoredMatrix, StoredWeight, can_quantize, quantize};
pub use tensor::{Adapter, Dispatch, Indices, Param, Pass, Result, Tap, Tensor, Weight};
