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

/// A matrix, or stacked matrices of one size, with what a step reads and writes of them.
///
/// # Shapes
/// param, grad, momentum [.., rows, columns]
pub struct Matrices<'a> {
    /// The weights.
    pub param: &'a mut [f32],
    /// Their gradient.
    pub grad: &'a [f32],
    /// Its decayed mean, which the step updates.
    pub momentum: &'a mut [f32],
    /// Rows of each matrix.
    pub rows: usize,
    /// Columns of each matrix.
    pub columns: usize,
}

impl<'a> Matrices<'a> {
    /// Returns the matrices one by one.
    fn split(self) -> impl Iterator<Item = Matrices<'a>> {
        let Self { param, grad, momentum, rows, columns } = self;
        let size = rows * columns;
        assert!(size > 0 && param.len().is_multiple_of(size));
        assert_eq!((grad.len(), momentum.len()), (param.len(), param.len()));
        let all = param.chunks_exact_mut(size).zip(grad.chunks_exact(size)).zip(momentum.chunks_exact_mut(size));
        all.map(move |((param, grad), momentum)| Matrices { param, grad, momentum, rows, columns })
    }
}

/// Takes one step on every matrix.
///
/// # Numerics
/// f32 throughout; matrices are independent, each computed on one thread.
pub fn step(cpu: &Cpu, all: Vec<Matrices<'_>>, settings: &Muon) {
    let mut all: Vec<Matrices<'_>> = all.into_iter().flat_map(Matrices::split).collect();
    // The largest first, so that no thread is left alone with one of them at the end.
    all.sort_by_key(|matrix| std::cmp::Reverse(matrix.param.len()));
    let count = all.len();
    let parts = Parts::new(&mut all);
    cpu.run(count, |i| {
        // SAFETY: each matrix is updated by one task.
        let Matrices { param, grad, momentum, rows, columns } = &mut unsafe { parts.part(i, 1) }[0];
        let (cpu, beta) = (cpu.serial(), settings.momentum);
        let mut buffer = cpu.buffer::<f32>(param.len());
        let update = buffer.as_mut_slice::<f32>();
        for ((u, m), &g) in update.iter_mut().zip(momentum.iter_mut()).zip(*grad) {
            let g = g * settings.grad_scale;
            *m += (1.0 - beta) * (g - *m);
            *u = g + beta * (*m - g);
        }
        orthogonalize(&cpu, update, *rows, *columns);
        let stretch = settings.lr * (*rows as f32 / *columns as f32).max(1.0).sqrt();
        let keep = 1.0 - settings.lr * settings.weight_decay;
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
