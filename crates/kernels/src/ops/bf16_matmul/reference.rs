//! Reference implementation: operands rounded to bf16, sums in f64.

use crate::format::bf16::Bf16;
use crate::ops::matmul::Size;
use crate::ops::matmul::reference as exact;

/// The values rounded to bf16.
pub fn rounded(x: &[f64]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(Bf16::from_f32(v as f32).to_f32())).collect()
}

/// `x W^T`. x [m, k], w [n, k] -> [m, n]
pub fn matmul(x: &[f64], w: &[f64], size: Size) -> Vec<f64> {
    exact::matmul(&rounded(x), &rounded(w), size)
}

/// `dy W`. dy [m, n], w [n, k] -> [m, k]
pub fn matmul_nn(dy: &[f64], w: &[f64], size: Size) -> Vec<f64> {
    exact::matmul_nn(&rounded(dy), &rounded(w), size)
}

/// `dy^T x`. dy [m, n], x [m, k] -> [n, k]
pub fn matmul_backward_weight(dy: &[f64], x: &[f64], size: Size) -> Vec<f64> {
    exact::matmul_backward_weight(&rounded(dy), &rounded(x), size)
}
