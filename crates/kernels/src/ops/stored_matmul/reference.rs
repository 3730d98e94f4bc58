//! Reference products with stored weights: W decoded, x rounded as the format requires, every sum in f64.

use crate::format::{Stored, decode_rows};
use crate::isa::Isa;
use crate::ops::bf16_matmul;
use crate::ops::matmul::{self, HeadSlice, Size};
use minke_spec::Precision;

/// Writes the values of rows `first..`, as many as `out` holds.
pub fn decode(w: Stored<'_>, first: usize, out: &mut [f32]) {
    decode_rows(Isa::portable(), w, first, out);
}

/// All values of a matrix.
fn values(w: Stored<'_>) -> Vec<f64> {
    let [n, k] = w.shape();
    let mut values = vec![0.0; n * k];
    decode(w, 0, &mut values);
    values.into_iter().map(f64::from).collect()
}

/// Rows of x as the format of the weights requires: in blocks of 32 codes, or as they are.
fn prepared(x: &[f32], w: Stored<'_>) -> Vec<f64> {
    if w.format().block_elements() == 1 {
        return x.iter().map(|&v| f64::from(v)).collect();
    }
    let block = |x: &[f32]| {
        let scale = x
            .iter()
            .fold(0.0f32, |largest, v| if largest.is_nan() || v.is_nan() { f32::NAN } else { largest.max(v.abs()) });
        let scale = scale / 127.0;
        let code = move |v: &f32| if scale > 0.0 { (v * (1.0 / scale)).round_ties_even() } else { 0.0 };
        x.iter().map(move |v| f64::from(scale) * f64::from(code(v))).collect::<Vec<_>>()
    };
    // Rows are whole blocks, so that no block holds parts of two.
    x.chunks(32).flat_map(block).collect()
}

/// `x W^T`. x [m, k], W [n, k] -> [m, n]
pub fn matmul(x: &[f32], w: Stored<'_>) -> Vec<f64> {
    let [n, k] = w.shape();
    matmul::reference::matmul(&prepared(x, w), &values(w), Size { m: x.len() / k, n, k })
}

/// `dy W`. dy [m, n], W [n, k] -> [m, k]
pub fn matmul_nn(dy: &[f64], w: Stored<'_>, m: usize, precision: Precision) -> Vec<f64> {
    let [n, k] = w.shape();
    let multiply = match precision {
        Precision::F32 => matmul::reference::matmul_nn,
        Precision::Bf16 => bf16_matmul::reference::matmul_nn,
    };
    multiply(dy, &values(w), Size { m, n, k })
}

/// `x W_e^T` by expert. x [m, k], offsets [E + 1] -> [m, n]
pub fn grouped_matmul<'a>(x: &[f32], experts: impl Fn(usize) -> Stored<'a>, offsets: &[u32], k: usize) -> Vec<f64> {
    let rows = offsets.windows(2).map(|pair| pair[0] as usize * k..pair[1] as usize * k).enumerate();
    rows.filter(|(_, rows)| !rows.is_empty()).flat_map(|(e, rows)| matmul(&x[rows], experts(e))).collect()
}

/// `x W_h^T` per head. x [T, H, latent] -> [T, H, count]
pub fn heads_matmul(x: &[f32], w: Stored<'_>, slice: HeadSlice, tokens: usize) -> Vec<f64> {
    matmul::reference::heads_matmul(&prepared(x, w), &values(w), slice, tokens)
}

/// `x W_h` per head. x [T, H, count] -> [T, H, latent]
pub fn heads_matmul_nn(x: &[f64], w: Stored<'_>, slice: HeadSlice, tokens: usize) -> Vec<f64> {
    matmul::reference::heads_matmul_nn(x, &values(w), slice, tokens)
}

/// `x W^T` of a matrix in two halves by head. x [m, C], keys [H C, N], values [H V, C] -> [m, H (N + V)]
pub fn split_heads_matmul(x: &[f32], keys: Stored<'_>, values_half: Stored<'_>, heads: usize) -> Vec<f64> {
    let ([_, n], [value_rows, latent]) = (keys.shape(), values_half.shape());
    let (v, wide): (usize, Vec<f64>) = (value_rows / heads, x.iter().map(|&v| f64::from(v)).collect());
    let (key_values, of_values) = (values(keys), matmul(x, values_half));
    let mut y = Vec::new();
    for (t, x) in wide.chunks_exact(latent).enumerate() {
        for h in 0..heads {
            let keys = &key_values[h * latent * n..][..latent * n];
            y.extend(matmul::reference::matmul_nn(x, keys, Size { m: 1, n: latent, k: n }));
            y.extend(&of_values[(t * heads + h) * v..][..v]);
        }
    }
    y
}

/// Writes the rows of all heads: those that were held transposed, then the others. keys [H, C, N], values [H, V, C] ->
/// out [H, N + V, C]
pub fn join_halves(keys: &[f32], values: &[f32], [heads, n, latent]: [usize; 3], out: &mut [f32]) {
    let v = values.len() / (heads * latent);
    for (h, out) in out.chunks_exact_mut((n + v) * latent).enumerate() {
        let (key_rows, value_rows) = out.split_at_mut(n * latent);
        let keys = &keys[h * latent * n..][..latent * n];
        for (i, row) in key_rows.chunks_exact_mut(latent).enumerate() {
            row.iter_mut().enumerate().for_each(|(c, value)| *value = keys[c * n + i]);
        }
        value_rows.copy_from_slice(&values[h * v * latent..][..v * latent]);
    }
}
