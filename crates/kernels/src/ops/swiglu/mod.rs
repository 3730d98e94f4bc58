//! SwiGLU, between the matrices of a feed-forward layer: `y = silu(gate) * up` with `silu(z) = z sigmoid(z)`.
//!
//! ```text
//! dup   = dy gate s                      s = sigmoid(gate)
//! dgate = dy up s (1 + gate (1 - s))
//! ```

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::{Device, Floats, View, ViewMut};

/// Computes `y = silu(gate) * up`.
///
/// # Shapes
/// gate, up, y `[n]`
///
/// # Paper
/// - GLU Variants Improve Transformer (arXiv 2002.05202), eq. 6
///
/// # Numerics
/// Relative error below 1e-6 for a gate above -87; below it y is under 1e-36 times gate times up.
pub fn swiglu(device: &Device, gate: View<'_, f32>, up: View<'_, f32>, y: ViewMut<'_, f32>) {
    assert_eq!((gate.len(), up.len()), (y.len(), y.len()));
    match device {
        Device::Cpu(cpu) => cpu::forward(cpu, gate.host(), up.host(), y.host()),
        Device::Reference(_) => y.set(&reference::swiglu(&gate.wide(), &up.wide())),
    }
}

/// Computes the gradients of both inputs, which may be held as bf16.
///
/// # Shapes
/// gate, up, dy, dgate, dup `[n]`
pub fn swiglu_backward(
    device: &Device,
    gate: Floats<'_>,
    up: Floats<'_>,
    dy: View<'_, f32>,
    dgate: ViewMut<'_, f32>,
    dup: ViewMut<'_, f32>,
) {
    assert_eq!((gate.len(), up.len(), dgate.len(), dup.len()), (dy.len(), dy.len(), dy.len(), dy.len()));
    match device {
        Device::Cpu(cpu) => cpu::backward(cpu, gate, up, dy.host(), dgate.host(), dup.host()),
        Device::Reference(_) => {
            let both = reference::swiglu_backward(&gate.wide(), &up.wide(), &dy.wide());
            dgate.set(&both.0);
            dup.set(&both.1);
        }
    }
}
