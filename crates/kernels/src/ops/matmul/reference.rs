//! Reference implementation of matrix products.

use super::{HeadSlice, Size};

/// `x W^T`. x [m, k], w [n, k] -> [m, n]
pub fn matmul(x: &[f64], w: &[f64], Size { m, n, k }: Size) -> Vec<f64> {
    let mut y = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            y[i * n + j] = (0..k).map(|p| x[i * k + p] * w[j * k + p]).sum();
        }
    }
    y
}

/// `dy W`. dy [m, n], w [n, k] -> [m, k]
pub fn matmul_nn(dy: &[f64], w: &[f64], Size { m, n, k }: Size) -> Vec<f64> {
    let mut dx = vec![0.0; m * k];
    for i in 0..m {
        for j in 0..n {
            for p in 0..k {
                dx[i * k + p] += dy[i * n + j] * w[j * k + p];
            }
        }
    }
    dx
}

/// `dy^T x`. dy [m, n], x [m, k] -> [n, k]
pub fn matmul_backward_weight(dy: &[f64], x: &[f64], Size { m, n, k }: Size) -> Vec<f64> {
    let mut dw = vec![0.0; n * k];
    for i in 0..m {
        for j in 0..n {
            for p in 0..k {
                dw[j * k + p] += dy[i * n + j] * x[i * k + p];
            }
        }
    }
    dw
}

/// `x W_h` per head. x [T, H, count], w [H * per_head, latent] -> [T, H, latent]
pub fn heads_matmul_nn(x: &[f64], w: &[f64], slice: HeadSlice, tokens: usize) -> Vec<f64> {
    let HeadSlice { heads, count, latent, .. } = slice;
    let size = Size { m: 1, n: count, k: latent };
    let each = |i: usize| matmul_nn(&x[i * count..][..count], slice.rows(w, i % heads), size);
    (0..tokens * heads).flat_map(each).collect()
}

/// `x W_h^T` per head. x [T, H, latent], w [H * per_head, latent] -> [T, H, count]
pub fn heads_matmul(x: &[f64], w: &[f64], slice: HeadSlice, tokens: usize) -> Vec<f64> {
    let HeadSlice { heads, count, latent, .. } = slice;
    let size = Size { m: 1, n: count, k: latent };
    let each = |i: usize| matmul(&x[i * latent..][..latent], slice.rows(w, i % heads), size);
    (0..tokens * heads).flat_map(each).collect()
}
