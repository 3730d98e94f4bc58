//! What a product with stored weights is: W decoded, x rounded as the format asks, every sum in f64.

use crate::format::{Stored, decode_rows};
use crate::isa::Isa;

/// Returns `x W^T`. x [m, k], W [n, k] -> [m, n]
pub fn matmul(x: &[f32], w: Stored<'_>) -> Vec<f64> {
    let [n, k] = w.shape();
    let mut values = vec![0.0; n * k];
    decode_rows(Isa::available()[0], w, 0, &mut values);
    let coded = w.format().block_elements() > 1;
    let mut y = Vec::new();
    for row in x.chunks_exact(k) {
        let row = if coded { rounded(row) } else { row.iter().map(|&v| f64::from(v)).collect() };
        y.extend(values.chunks_exact(k).map(|w| w.iter().zip(&row).map(|(&w, x)| f64::from(w) * x).sum::<f64>()));
    }
    y
}

/// Returns a row as its blocks of 32 codes say it.
fn rounded(row: &[f32]) -> Vec<f64> {
    let block = |x: &[f32]| {
        let scale = x.iter().fold(0.0f32, |largest, v| largest.max(v.abs())) / 127.0;
        let code = move |v: &f32| if scale > 0.0 { (v * (1.0 / scale)).round_ties_even() } else { 0.0 };
        x.iter().map(move |v| f64::from(scale) * f64::from(code(v))).collect::<Vec<_>>()
    };
    row.chunks(32).flat_map(block).collect()
}
