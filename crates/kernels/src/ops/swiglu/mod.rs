//! What does a feed-forward layer do between its matrices? `y = silu(gate) * up` with `silu(z) = z sigmoid(z)`.
//!
//! ```text
//! dup   = dy gate s                      s = sigmoid(gate)
//! dgate = dy up s (1 + gate (1 - s))
//! ```

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::Cpu;

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
pub fn swiglu(cpu: &Cpu, gate: &[f32], up: &[f32], y: &mut [f32]) {
    assert_eq!((gate.len(), up.len()), (y.len(), y.len()));
    cpu::forward(cpu, gate, up, y);
}

/// Computes the gradients of both inputs.
///
/// # Shapes
/// gate, up, dy, dgate, dup `[n]`
pub fn swiglu_backward(cpu: &Cpu, gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    assert_eq!((gate.len(), up.len(), dgate.len(), dup.len()), (dy.len(), dy.len(), dy.len(), dy.len()));
    cpu::backward(cpu, gate, up, dy, dgate, dup);
}
