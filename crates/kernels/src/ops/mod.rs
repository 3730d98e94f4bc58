//! The operations, one folder each: `reference.rs` is the executable specification, which the device of references runs,
//! `cpu.rs` the tuned version; `mod.rs` states equation, shapes and numerics, checks sizes, and has the `match` over
//! devices.

pub mod adamw;
pub mod attention;
pub mod bf16_matmul;
pub mod cache;
pub mod cast;
pub mod embed;
pub mod grouped_matmul;
pub(crate) mod lanes;
pub mod log_prob;
pub mod matmul;
pub mod muon;
pub mod norm;
pub mod pointwise;
pub mod rope;
pub mod route;
pub mod rows;
pub mod sample;
pub(crate) mod split;
pub mod stored_matmul;
pub mod stream;
pub mod swiglu;
#[cfg(test)]
pub(crate) mod testing;

use crate::{Device, Pod, View, ViewMut};

/// Copies values from one buffer of a device to another.
pub fn copy<T: Pod>(device: &Device, from: View<'_, T>, to: ViewMut<'_, T>) {
    match device {
        Device::Cpu(_) | Device::Reference(_) => to.host().copy_from_slice(from.host()),
    }
}
