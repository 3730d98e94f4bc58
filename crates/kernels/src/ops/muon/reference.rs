//! Reference implementation of a Muon step, in f64.

use super::{COEFFICIENTS, Matrices, Muon, STEPS};

fn multiply(a: &[f64], b: &[f64], (m, k, n): (usize, usize, usize)) -> Vec<f64> {
    (0..m * n).map(|at| (0..k).map(|p| a[at / n * k + p] * b[p * n + at % n]).sum()).collect()
}

fn transpose(x: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    (0..x.len()).map(|at| x[at % rows * columns + at / rows]).collect()
}

/// The matrix x [rows, columns] with its singular values pushed towards 1.
pub fn orthogonalize(x: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    if rows > columns {
        return transpose(&orthogonalize(&transpose(x, rows, columns), columns, rows), columns, rows);
    }
    let norm = x.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-7);
    let mut x: Vec<f64> = x.iter().map(|v| v / norm).collect();
    let (a, b, c) = (f64::from(COEFFICIENTS.0), f64::from(COEFFICIENTS.1), f64::from(COEFFICIENTS.2));
    for _ in 0..STEPS {
        let gram = multiply(&x, &transpose(&x, rows, columns), (rows, columns, rows));
        let square = multiply(&gram, &gram, (rows, rows, rows));
        let mixed: Vec<f64> = gram.iter().zip(&square).map(|(g, s)| b * g + c * s).collect();
        let product = multiply(&mixed, &x, (rows, rows, columns));
        x = x.iter().zip(&product).map(|(x, p)| a * x + p).collect();
    }
    x
}

/// Takes one step on stacked matrices.
pub fn step_all(matrices: Matrices<'_>, settings: &Muon) {
    let Matrices { param, grad, momentum, rows, columns } = matrices;
    let (param, momentum) = (param.host(), momentum.host());
    let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|&v| f64::from(v)).collect() };
    for (i, grad) in grad.host().chunks_exact(rows * columns).enumerate() {
        let at = i * rows * columns..(i + 1) * rows * columns;
        let (param, momentum) = (&mut param[at.clone()], &mut momentum[at]);
        let (mut new_param, mut new_momentum) = (wide(param), wide(momentum));
        step(&mut new_param, &wide(grad), &mut new_momentum, (rows, columns), settings);
        param.iter_mut().zip(new_param).for_each(|(to, value)| *to = value as f32);
        momentum.iter_mut().zip(new_momentum).for_each(|(to, value)| *to = value as f32);
    }
}

/// Takes one step on one matrix.
pub fn step(param: &mut [f64], grad: &[f64], momentum: &mut [f64], (rows, columns): (usize, usize), settings: &Muon) {
    let (beta, lr) = (f64::from(settings.momentum), f64::from(settings.lr));
    let grad: Vec<f64> = grad.iter().map(|g| g * f64::from(settings.grad_scale)).collect();
    for (m, g) in momentum.iter_mut().zip(&grad) {
        *m = beta * *m + (1.0 - beta) * g;
    }
    let update: Vec<f64> = grad.iter().zip(momentum.iter()).map(|(g, m)| (1.0 - beta) * g + beta * m).collect();
    let orthogonal = orthogonalize(&update, rows, columns);
    let stretch = lr * (rows as f64 / columns as f64).max(1.0).sqrt();
    for (w, o) in param.iter_mut().zip(&orthogonal) {
        *w = *w * (1.0 - lr * f64::from(settings.weight_decay)) - stretch * o;
    }
}
