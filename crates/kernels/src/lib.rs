//! Arithmetic on buffers: references, tuned CPU versions, weight formats.
//!
//! The one crate with `unsafe`. Sizes are checked by `tensor` before they come here; kernels repeat the checks they
//! need for soundness.

pub mod device;
pub mod format;
pub mod isa;
pub mod ops;
mod simd;
mod threads;
mod tile;

pub use device::{Buffer, Cpu, Device, Pod};
pub use isa::Isa;
