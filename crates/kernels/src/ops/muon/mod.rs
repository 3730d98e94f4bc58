//! Muon: the momentum of a matrix is made orthogonal before it is applied.
//!
//! ```text
//! M   = momentum * M + (1 - momentum) * G
//! U   = (1 - momentum) * G + momentum * M        (Nesterov)
//! O   = newton_schulz(U)                         (singular values pushed towards 1)
//! W  -= lr * weight_decay * W + lr * max(1, rows / columns)^(1/2) * O
//! ```

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::{Device, View, ViewMut};

/// Coefficients of the quintic iteration, and its number of steps (Jordan et al. 2024).
pub const COEFFICIENTS: (f32, f32, f32) = (3.4445, -4.775, 2.0315);
/// Steps of the iteration.
const STEPS: usize = 5;

/// Settings of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the momentum.
    pub momentum: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Factor on the gradient (clipping, averaging).
    pub grad_scale: f32,
}

/// A matrix, or stacked matrices of one size, with what a step reads and writes of them.
///
/// # Shapes
/// param, grad, momentum [.., rows, columns]
pub struct Matrices<'a> {
    /// The weights.
    pub param: ViewMut<'a, f32>,
    /// Their gradient.
    pub grad: View<'a, f32>,
    /// Its decayed mean, which the step updates.
    pub momentum: ViewMut<'a, f32>,
    /// Rows of each matrix.
    pub rows: usize,
    /// Columns of each matrix.
    pub columns: usize,
}

/// Takes one step on every matrix.
///
/// # Numerics
/// f32 throughout; matrices are independent, each computed on one thread.
pub fn step(device: &Device, all: Vec<Matrices<'_>>, settings: &Muon) {
    for Matrices { param, grad, momentum, rows, columns } in &all {
        assert!(rows * columns > 0 && param.len().is_multiple_of(rows * columns));
        assert_eq!((grad.len(), momentum.len()), (param.len(), param.len()));
    }
    match device {
        Device::Cpu(cpu) => cpu::step(cpu, all, settings),
        Device::Reference(_) => all.into_iter().for_each(|matrices| reference::step_all(matrices, settings)),
    }
}
