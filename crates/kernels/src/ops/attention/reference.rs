//! What attention is: plain loops in f64 over one sequence that is held whole.

use super::Heads;

/// Returns out and the log of the softmax sums.
/// q [T, H, width], k [T, KV, width], v [T, KV, value_width] -> [T, H, value_width], [T, H]
pub fn attention(q: &[f64], k: &[f64], v: &[f64], heads: Heads, scale: f64) -> (Vec<f64>, Vec<f64>) {
    let Heads { query, key_value, width, value_width } = heads;
    let rows = q.len() / (query * width);
    let (mut out, mut log_sum) = (vec![0.0; rows * query * value_width], vec![0.0; rows * query]);
    for t in 0..rows {
        for h in 0..query {
            let g = h / (query / key_value);
            let score = |j: usize| {
                let dot: f64 =
                    (0..width).map(|p| q[(t * query + h) * width + p] * k[(j * key_value + g) * width + p]).sum();
                dot * scale
            };
            let scores: Vec<f64> = (0..=t).map(score).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
            log_sum[t * query + h] = largest + sum.ln();
            for (j, s) in scores.iter().enumerate() {
                let p = (s - largest).exp() / sum;
                for c in 0..value_width {
                    out[(t * query + h) * value_width + c] += p * v[(j * key_value + g) * value_width + c];
                }
            }
        }
    }
    (out, log_sum)
}

/// Returns dq, dk, dv of [`attention`].
pub fn attention_backward(
    (q, k, v): (&[f64], &[f64], &[f64]),
    dout: &[f64],
    heads: Heads,
    scale: f64,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let Heads { query, key_value, width, value_width } = heads;
    let (out, log_sum) = attention(q, k, v, heads, scale);
    let rows = q.len() / (query * width);
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    for t in 0..rows {
        for h in 0..query {
            let (row, g) = (t * query + h, h / (query / key_value));
            let delta: f64 = (0..value_width).map(|c| dout[row * value_width + c] * out[row * value_width + c]).sum();
            for j in 0..=t {
                let key = j * key_value + g;
                let dot: f64 = (0..width).map(|p| q[row * width + p] * k[key * width + p]).sum();
                let p = (dot * scale - log_sum[row]).exp();
                let dp: f64 = (0..value_width).map(|c| dout[row * value_width + c] * v[key * value_width + c]).sum();
                let ds = p * (dp - delta) * scale;
                for c in 0..value_width {
                    dv[key * value_width + c] += p * dout[row * value_width + c];
                }
                for c in 0..width {
                    dq[row * width + c] += ds * k[key * width + c];
                    dk[key * width + c] += ds * q[row * width + c];
                }
            }
        }
    }
    (dq, dk, dv)
}
