//! Arithmetic on buffers: references, tuned CPU versions, weight formats.
//!
//! An operation takes a [`Device`] and views of its buffers ([`View`], [`ViewMut`]), checks their sizes, and holds the one
//! `match` that chooses the code of the device. Nothing outside this crate sees where a buffer lies.

// Where no value of `amx::Tiles` exists, the compiler sees that nothing behind it is reached.
#![cfg_attr(not(target_arch = "x86_64"), allow(unreachable_code, unused_variables, unused_mut, dead_code))]

#[cfg_attr(not(target_arch = "x86_64"), path = "amx/none.rs")]
mod amx;
pub mod device;
mod dtype;
mod element;
mod error;
pub mod format;
pub mod isa;
pub mod ops;
mod pod;
mod simd;
mod threads;
mod tile;
mod view;

pub use device::{Buffer, Device};
pub use dtype::Dtype;
pub use element::{Floats, FloatsMut};
pub use error::Error;
pub use format::bf16::Bf16;
pub use isa::Isa;
pub use pod::Pod;
pub use view::{View, ViewMut};
