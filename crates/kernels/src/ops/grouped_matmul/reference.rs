//! Reference implementation of the grouped product: the plain product, expert by expert.

use super::Size;
use crate::ops::matmul::reference as plain;

/// Calls `expert(e, first row, rows)` for every expert.
fn each(offsets: &[u32], mut expert: impl FnMut(usize, usize, usize)) {
    for (e, pair) in offsets.windows(2).enumerate() {
        expert(e, pair[0] as usize, (pair[1] - pair[0]) as usize);
    }
}

/// `x W_e^T`. x [m, k], w [E, n, k] -> [m, n]
pub fn grouped_matmul(x: &[f64], w: &[f64], offsets: &[u32], Size { n, k, .. }: Size) -> Vec<f64> {
    let mut y = Vec::new();
    each(offsets, |e, start, m| {
        y.extend(plain::matmul(&x[start * k..][..m * k], &w[e * n * k..][..n * k], Size { m, n, k }));
    });
    y
}

/// `dy W_e`. dy [m, n], w [E, n, k] -> [m, k]
pub fn grouped_matmul_nn(dy: &[f64], w: &[f64], offsets: &[u32], Size { n, k, .. }: Size) -> Vec<f64> {
    let mut dx = Vec::new();
    each(offsets, |e, start, m| {
        dx.extend(plain::matmul_nn(&dy[start * n..][..m * n], &w[e * n * k..][..n * k], Size { m, n, k }));
    });
    dx
}

/// `dy^T x` by expert. dy [m, n], x [m, k] -> [E, n, k]
pub fn grouped_matmul_backward_weight(dy: &[f64], x: &[f64], offsets: &[u32], Size { n, k, .. }: Size) -> Vec<f64> {
    let mut dw = Vec::new();
    each(offsets, |_, start, m| {
        let (dy, x) = (&dy[start * n..][..m * n], &x[start * k..][..m * k]);
        dw.extend(plain::matmul_backward_weight(dy, x, Size { m, n, k }));
    });
    dw
}
