//! The tuned version: every matrix is a task, the largest first.

use super::{COEFFICIENTS, Matrices, Muon, STEPS};
use crate::device::{Cpu, Parts};
use crate::ops::matmul::{Size, cpu as matmul};
use crate::ops::pointwise::cpu::sum_squares;

/// One matrix with what a step reads and writes of it.
struct Matrix<'a> {
    param: &'a mut [f32],
    grad: &'a [f32],
    momentum: &'a mut [f32],
    rows: usize,
    columns: usize,
}

/// Stacked matrices one by one.
fn split(matrices: Matrices<'_>) -> impl Iterator<Item = Matrix<'_>> {
    let Matrices { param, grad, momentum, rows, columns } = matrices;
    let size = rows * columns;
    let (param, momentum) = (param.host().chunks_exact_mut(size), momentum.host().chunks_exact_mut(size));
    let all = param.zip(grad.host().chunks_exact(size)).zip(momentum);
    all.map(move |((param, grad), momentum)| Matrix { param, grad, momentum, rows, columns })
}

pub(super) fn step(cpu: &Cpu, all: Vec<Matrices<'_>>, settings: &Muon) {
    let mut all: Vec<Matrix<'_>> = all.into_iter().flat_map(split).collect();
    // The largest first, so that no thread is left alone with one of them at the end.
    all.sort_by_key(|matrix| std::cmp::Reverse(matrix.param.len()));
    let count = all.len();
    let parts = Parts::new(&mut all);
    cpu.run(count, |i| {
        // SAFETY: each matrix is updated by one task.
        let Matrix { param, grad, momentum, rows, columns } = &mut unsafe { parts.part(i, 1) }[0];
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
fn orthogonalize(cpu: &Cpu, x: &mut [f32], rows: usize, columns: usize) {
    if rows > columns {
        let mut buffer = cpu.buffer::<f32>(x.len());
        let flipped = buffer.as_mut_slice::<f32>();
        transpose(x, rows, columns, flipped);
        orthogonalize(cpu, flipped, columns, rows);
        transpose(flipped, columns, rows, x);
        return;
    }
    let norm = sum_squares(cpu, x).sqrt().max(1e-7) as f32;
    x.iter_mut().for_each(|v| *v /= norm);
    let (a, b, c) = COEFFICIENTS;
    let square = rows * rows;
    let mut buffer = cpu.buffer::<f32>(2 * square + x.len() + matmul::packed_len(cpu, rows, columns));
    let (gram, rest) = buffer.as_mut_slice::<f32>().split_at_mut(square);
    let (mixed, rest) = rest.split_at_mut(square);
    let (product, packed) = rest.split_at_mut(x.len());
    for _ in 0..STEPS {
        matmul::pack(cpu, x, rows, columns, packed);
        matmul::blocked(cpu, Size { m: rows, n: rows, k: columns }, x, packed, gram);
        matmul::matmul_nn(cpu, gram, gram, Size { m: rows, n: rows, k: rows }, mixed);
        for (m, &g) in mixed.iter_mut().zip(gram.iter()) {
            *m = b * g + c * *m;
        }
        matmul::matmul_nn(cpu, mixed, x, Size { m: rows, n: rows, k: columns }, product);
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
