//! How does a linear layer multiply with weights that stay as they lie in their file? `y = x W^T` and `y = x W`, for every
//! format, without a decoded copy of W: a task expands a few rows of it at a time into its caches.
//!
//! Each format has one arithmetic for one row of x and for thousands (E2):
//!
//! ```text
//! floats   one chain of fused multiply-adds per element in f32, k ascending: the bits of `matmul` with W decoded
//! codes    x in blocks of 32, each row by itself:   scale_x = max |x| / 127     q = nearest integer of x / scale_x
//!          y = sum over sub-blocks s of scale_w[s] scale_x[s] (sum over s of (code - zero) q) + shift[s] scale_x[s] (sum of q)
//! ```
//!
//! Sums within a sub-block are exact integers; those over sub-blocks are one chain in f32, k ascending. So a row's bits
//! depend on the row and W alone.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use super::matmul::{HeadSlice, Size, by_plain};
use crate::device::{Cpu, Parts};
use crate::format::{Stored, decode_rows};
use crate::ops::split::by_rows;
use cpu::{Job, Prepared};

/// Computes `y = x W^T`.
///
/// # Shapes
/// x [m, k], W [n, k], y [m, n]
///
/// # Numerics
/// As the module says.
pub fn matmul(cpu: &Cpu, x: &[f32], w: Stored<'_>, m: usize, y: &mut [f32]) {
    let [n, k] = w.shape();
    assert_eq!((x.len(), y.len()), (m * k, m * n));
    let job = Job { w, first: 0, n, x_first: 0, x_step: 1, m, y_first: 0, y_row: n };
    cpu::run(cpu, &Prepared::new(cpu, x, k, w.format()), &[job], &Parts::new(y));
}

/// Computes rows of an embedding table.
///
/// # Shapes
/// w [vocabulary, k], ids `[m]`, y [m, k]
pub fn embed(cpu: &Cpu, w: Stored<'_>, ids: &[u32], y: &mut [f32]) {
    let [_, k] = w.shape();
    by_rows(cpu, ids.len(), k, [(y, k)], |rows, [y]| {
        for (id, y) in ids[rows].iter().zip(y.chunks_exact_mut(k.max(1))) {
            decode_rows(cpu.isa(), w, *id as usize, y);
        }
    });
}

/// Computes `y = x W_e^T` by expert, for rows sorted by expert.
///
/// # Shapes
/// x [m, k], experts E of [n, k], offsets [E + 1], y [m, n]
///
/// # Paper
/// V3 2.1.2 eq. 12 (routed experts)
pub fn grouped_matmul<'a>(
    cpu: &Cpu,
    x: &[f32],
    experts: impl Fn(usize) -> Stored<'a>,
    offsets: &[u32],
    [n, k]: [usize; 2],
    y: &mut [f32],
) {
    let m = offsets.last().map_or(0, |&m| m as usize);
    assert!(offsets.first() == Some(&0) && offsets.is_sorted());
    assert_eq!((x.len(), y.len()), (m * k, m * n));
    let job = |e: usize| {
        let (start, w) = (offsets[e] as usize, experts(e));
        assert_eq!(w.shape(), [n, k]);
        Job {
            w,
            first: 0,
            n,
            x_first: start,
            x_step: 1,
            m: offsets[e + 1] as usize - start,
            y_first: start * n,
            y_row: n,
        }
    };
    let jobs: Vec<Job<'_>> = (0..offsets.len() - 1).filter(|&e| offsets[e] < offsets[e + 1]).map(job).collect();
    let Some(first) = jobs.first() else { return };
    let format = first.w.format();
    assert!(jobs.iter().all(|job| job.w.format() == format), "experts of one layer have one format");
    cpu::run(cpu, &Prepared::new(cpu, x, k, format), &jobs, &Parts::new(y));
}

/// Computes `y[t, h] = x[t, h] W_h^T`: weighted latents into values.
///
/// # Shapes
/// x [T, H, latent], W_h [count, latent] -> y [T, H, count]
///
/// # Paper
/// V3 2.1.1 eq. 10 (absorbed into the output)
pub fn heads_matmul(cpu: &Cpu, x: &[f32], w: Stored<'_>, slice: HeadSlice, y: &mut [f32]) {
    let HeadSlice { heads, per_head, first, count, latent } = slice;
    assert_eq!(w.shape(), [heads * per_head, latent]);
    let tokens = slice.tokens(x, y, (latent, count));
    let job = |h: usize| Job {
        w,
        first: h * per_head + first,
        n: count,
        x_first: h,
        x_step: heads,
        m: tokens,
        y_first: h * count,
        y_row: heads * count,
    };
    let jobs: Vec<Job<'_>> = (0..heads).map(job).collect();
    cpu::run(cpu, &Prepared::new(cpu, x, latent, w.format()), &jobs, &Parts::new(y));
}

/// Computes `y[t, h] = x[t, h] W_h`: queries into the latent space.
///
/// # Shapes
/// x [T, H, count], W_h [count, latent] -> y [T, H, latent]
///
/// # Paper
/// V3 2.1.1 eq. 9 (absorbed into the query)
///
/// # Numerics
/// In f32 for every format, the head's rows decoded: one chain per element, rows ascending.
pub fn heads_by_plain(cpu: &Cpu, x: &[f32], w: Stored<'_>, slice: HeadSlice, y: &mut [f32]) {
    let HeadSlice { heads, per_head, first, count, latent } = slice;
    assert_eq!(w.shape(), [heads * per_head, latent]);
    let tokens = slice.tokens(x, y, (count, latent));
    let parts = Parts::new(y);
    cpu.run(heads, |h| {
        let mut rows = cpu.buffer::<f32>(count * latent);
        decode_rows(cpu.isa(), w, h * per_head + first, rows.as_mut_slice());
        let size = Size { m: tokens, n: latent, k: count };
        by_plain(cpu, size, x, (h * count, heads * count), rows.as_slice(), &parts, (h * latent, heads * latent));
    });
}

/// Computes `y = x W^T` for `W [H (N + V), C]` of which each head's rows are held in two halves: the first N transposed.
///
/// # Shapes
/// x [m, C], keys [H C, N], values [H V, C] -> y [m, H (N + V)]
///
/// # Numerics
/// Keys in f32 as in [`heads_by_plain`], values as in [`matmul`].
pub fn split_heads_matmul(cpu: &Cpu, x: &[f32], keys: Stored<'_>, values: Stored<'_>, heads: usize, y: &mut [f32]) {
    let ([rows, n], [value_rows, latent]) = (keys.shape(), values.shape());
    let v = value_rows / heads;
    assert!(rows == heads * latent && value_rows == heads * v && x.len().is_multiple_of(latent));
    let (m, width) = (x.len() / latent, n + v);
    assert_eq!(y.len(), m * heads * width);
    let parts = Parts::new(y);
    cpu.run(heads, |h| {
        let mut rows = cpu.buffer::<f32>(latent * n);
        decode_rows(cpu.isa(), keys, h * latent, rows.as_mut_slice());
        let size = Size { m, n, k: latent };
        by_plain(cpu, size, x, (0, latent), rows.as_slice(), &parts, (h * width, heads * width));
    });
    let job = |h: usize| Job {
        w: values,
        first: h * v,
        n: v,
        x_first: 0,
        x_step: 1,
        m,
        y_first: h * width + n,
        y_row: heads * width,
    };
    let jobs: Vec<Job<'_>> = (0..heads).map(job).collect();
    cpu::run(cpu, &Prepared::new(cpu, x, latent, values.format()), &jobs, &parts);
}

/// Computes the values of rows `first..` of a matrix, as many as `out` holds.
///
/// # Shapes
/// w [n, k], out [rows, k]
pub fn decode(cpu: &Cpu, w: Stored<'_>, first: usize, out: &mut [f32]) {
    let [n, k] = w.shape();
    let rows = out.len() / k;
    assert!(first + rows <= n);
    by_rows(cpu, rows, k, [(out, k)], |rows, [out]| decode_rows(cpu.isa(), w, first + rows.start, out));
}
