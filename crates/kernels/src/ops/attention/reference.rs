//! Reference implementation of attention: plain f64 loops over one sequence, and how sequences lie in batch or pages.

use super::{Heads, Memory, Span, Strides, TILE};
use crate::element::Element;

/// Writes the outputs of all spans over keys and values that lie anywhere.
pub(crate) fn over_memory<T: Element>(
    q: &[f64],
    memory: Memory<'_, &[T]>,
    spans: &[Span],
    heads: Heads,
    scale: f64,
    out: &mut [f32],
    log_sum: &mut [f32],
) {
    let Heads { query, key_value, width, value_width } = heads;
    for span in spans {
        let gather = |data: &[T], strides: Strides, width: usize| {
            let mut rows = Vec::new();
            for j in 0..span.keys() {
                let unit = memory.tiles[span.first_tile + j / TILE] as usize;
                for g in 0..key_value {
                    let first = unit * strides.unit + g * strides.head + j % TILE * strides.key;
                    rows.extend((0..width).map(|p| f64::from(data[first + p * strides.component].to_f32())));
                }
            }
            rows
        };
        let (keys, values) =
            (gather(memory.keys, memory.key_strides, width), gather(memory.values, memory.value_strides, value_width));
        let rows = span.first_row * query..(span.first_row + span.rows) * query;
        let q = &q[rows.start * width..rows.end * width];
        let (found, sums) = attention(q, &keys, &values, span.first_position, heads, scale);
        let out = &mut out[rows.start * value_width..rows.end * value_width];
        out.iter_mut().zip(found).for_each(|(to, value)| *to = value as f32);
        log_sum[rows].iter_mut().zip(sums).for_each(|(to, value)| *to = value as f32);
    }
}

/// The gradients dq, dk, dv of a batch; zero in rows outside the spans.
pub fn over_batch_backward(
    [q, k, v]: &[Vec<f64>; 3],
    dout: &[f64],
    spans: &[Span],
    heads: Heads,
    scale: f64,
) -> [Vec<f64>; 3] {
    let Heads { query, key_value, width, value_width } = heads;
    let mut all = [vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]];
    for span in spans {
        let at = |per_row: usize| span.first_row * per_row..(span.first_row + span.rows) * per_row;
        let places = [at(query * width), at(key_value * width), at(key_value * value_width)];
        let [of_q, of_k, of_v] = places.clone();
        let found = attention_backward((&q[of_q], &k[of_k], &v[of_v]), &dout[at(query * value_width)], heads, scale);
        for ((all, at), found) in all.iter_mut().zip(places).zip([found.0, found.1, found.2]) {
            all[at].copy_from_slice(&found);
        }
    }
    all
}

/// The outputs and the logs of the softmax sums of queries from position `first` on.
/// q [T, H, width], k [first + T, KV, width], v [first + T, KV, value_width] -> [T, H, value_width], [T, H]
pub fn attention(q: &[f64], k: &[f64], v: &[f64], first: usize, heads: Heads, scale: f64) -> (Vec<f64>, Vec<f64>) {
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
            let scores: Vec<f64> = (0..=first + t).map(score).collect();
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

/// The gradients dq, dk, dv of [`attention`] from position 0 on.
pub fn attention_backward(
    (q, k, v): (&[f64], &[f64], &[f64]),
    dout: &[f64],
    heads: Heads,
    scale: f64,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let Heads { query, key_value, width, value_width } = heads;
    let (out, log_sum) = attention(q, k, v, 0, heads, scale);
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
