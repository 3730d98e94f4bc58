//! How does Muon step? The momentum of a matrix is made orthogonal before it is applied.
//!
//! ```text
//! M   = momentum * M + (1 - momentum) * G
//! U   = (1 - momentum) * G + momentum * M        (Nesterov)
//! O   = newton_schulz(U)                         (singular values pushed towards 1)
//! W  -= lr * weight_decay * W + lr * max(1, rows / columns)^(1/2) * O
//! ```

pub mod reference;
#[cfg(test)]
mod tests;

use super::matmul::{self, Size};
use super::pointwise;
use crate::device::{Cpu, Parts};

/// Coefficients of the quintic iteration, and its number of steps (Jordan et al. 2024).
pub const COEFFICIENTS: (f32, f32, f32) = (3.4445, -4.775, 2.0315);
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

/// Takes one step on a matrix, or on each of stacked matrices.
///
/// # Shapes
/// param, grad, momentum [.., rows, columns]
///
/// # Numerics
/// f32 throughout; matrices are independent, each computed on one thread.
pub fn step(
    cpu: &Cpu,
    param: &mut [f32],
    grad: &[f32],
    momentum: &mut [f32],
    (rows, columns): (usize, usize),
    settings: &Muon,
) {
    let size = rows * columns;
    assert!(size > 0 && param.len().is_multiple_of(size));
    assert_eq!((grad.len(), momentum.len()), (param.len(), param.len()));
    let stretch = settings.lr * (rows as f32 / columns as f32).max(1.0).sqrt();
    let keep = 1.0 - settings.lr * settings.weight_decay;
    let (params, momenta) = (Parts::new(param), Parts::new(momentum));
    cpu.run(grad.len() / size, |i| {
        let cpu = cpu.serial();
        // SAFETY: each matrix is updated by one task.
        let (param, momentum) = unsafe { (params.part(i * size, size), momenta.part(i * size, size)) };
        let mut buffer = cpu.buffer::<f32>(size);
        let update = buffer.as_mut_slice::<f32>();
        let beta = settings.momentum;
        for ((u, m), &g) in update.iter_mut().zip(momentum.iter_mut()).zip(&grad[i * size..]) {
            let g = g * settings.grad_scale;
            *m += (1.0 - beta) * (g - *m);
            *u = g + beta * (*m - g);
        }
        orthogonalize(&cpu, update, rows, columns);
        for (w, &o) in param.iter_mut().zip(update.iter()) {
            *w = *w * keep - stretch * o;
        }
    });
}

/// Pushes the singular values of `x` towards 1 with five Newton-Schulz steps `X <- a X + (b A + c A A) X`, `A = X X^T`.
///
/// # Shapes
/// x [rows, columns]
pub fn orthogonalize(cpu: &Cpu, x: &mut [f32], rows: usize, columns: usize) {
    if rows > columns {
        let mut buffer = cpu.buffer::<f32>(x.len());
        let flipped = buffer.as_mut_slice::<f32>();
        transpose(x, rows, columns, flipped);
        orthogonalize(cpu, flipped, columns, rows);
        transpose(flipped, columns, rows, x);
        return;
    }
    let norm = pointwise::sum_squares(cpu, x).sqrt().max(1e-7) as f32;
    x.iter_mut().for_each(|v| *v /= norm);
    let (a, b, c) = COEFFICIENTS;
    let square = rows * rows;
    let mut buffer = cpu.buffer::<f32>(2 * square + x.len() + matmul::packed_len(cpu, rows, columns));
    let (gram, rest) = buffer.as_mut_slice::<f32>().split_at_mut(square);
    let (mixed, rest) = rest.split_at_mut(square);
    let (product, packed) = rest.split_at_mut(x.len());
    for _ in 0..STEPS {
        matmul::pack(cpu, x, rows, columns, packed);
        matmul::matmul(cpu, x, packed, Size { m: rows, n: rows, k: columns }, gram);
        matmul::matmul_by_plain(cpu, gram, gram, Size { m: rows, n: rows, k: rows }, mixed);
        for (m, &g) in mixed.iter_mut().zip(gram.iter()) {
            *m = b * g + c * *m;
        }
        matmul::matmul_by_plain(cpu, mixed, x, Size { m: rows, n: rows, k: columns }, product);
        for (x, &p) in x.iter_mut().zip(product.iter()) {
            *x = a * *x + p;
        }
    }
}

fn transpose(from: &[f32], rows: usize, columns: usize, to: &mut [f32]) {
    for i in 0..rows {
        for j in 0..columns {
            to[j * rows + i] = from[i * columns + j];
        }
    }
}
