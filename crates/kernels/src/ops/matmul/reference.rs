//! What a matrix product is.

use super::Size;

/// Returns `x W^T` with f64 sums. x [m, k], w [n, k] -> [m, n]
pub fn matmul(x: &[f32], w: &[f32], Size { m, n, k }: Size) -> Vec<f64> {
    let mut y = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            y[i * n + j] = (0..k).map(|p| f64::from(x[i * k + p]) * f64::from(w[j * k + p])).sum();
        }
    }
    y
}

/// Returns `dy W` with f64 sums. dy [m, n], w [n, k] -> [m, k]
pub fn matmul_by_plain(dy: &[f32], w: &[f32], Size { m, n, k }: Size) -> Vec<f64> {
    let mut dx = vec![0.0; m * k];
    for i in 0..m {
        for p in 0..k {
            dx[i * k + p] = (0..n).map(|j| f64::from(dy[i * n + j]) * f64::from(w[j * k + p])).sum();
        }
    }
    dx
}

/// Returns `dy^T x` with f64 sums. dy [m, n], x [m, k] -> [n, k]
pub fn matmul_backward_weight(dy: &[f32], x: &[f32], Size { m, n, k }: Size) -> Vec<f64> {
    let mut dw = vec![0.0; n * k];
    for j in 0..n {
        for p in 0..k {
            dw[j * k + p] = (0..m).map(|i| f64::from(dy[i * n + j]) * f64::from(x[i * k + p])).sum();
        }
    }
    dw
}
