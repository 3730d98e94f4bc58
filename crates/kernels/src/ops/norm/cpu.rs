//! The tuned version: rows over threads, and columns for the gradient of the weight.

use crate::device::Cpu;
use crate::ops::lanes::{dot, map, update};
use crate::ops::split::{by_columns, by_rows};
use crate::simd::simd_fn;

simd_fn! {
    fn forward_rows<S>(s: S, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32], inv_rms: &mut [f32]) {
        let n = weight.len();
        for (t, inv) in inv_rms.iter_mut().enumerate() {
            let x = &x[t * n..][..n];
            *inv = 1.0 / (dot(s, x, x) / n.max(1) as f32 + eps).sqrt();
            let r = s.splat(*inv);
            map(s, [x, weight], [&mut y[t * n..][..n]], |[x, w]| [s.mul(s.mul(x, r), w)]);
        }
    }

    fn backward_rows<S>(s: S, x: &[f32], weight: &[f32], inv_rms: &[f32], dy: &[f32], dx: &mut [f32]) {
        let n = weight.len();
        for (t, &inv) in inv_rms.iter().enumerate() {
            let (x, dx) = (&x[t * n..][..n], &mut dx[t * n..][..n]);
            map(s, [&dy[t * n..][..n], weight], [dx], |[dy, w]| [s.mul(dy, w)]);
            let along = s.splat(-dot(s, dx, x) * inv * inv / n.max(1) as f32);
            let r = s.splat(inv);
            update(s, [x], [dx], |[g], [x]| [s.mul(s.fma(x, along, g), r)]);
        }
    }

    /// Adds the rows of some columns: x and dy begin at the first of them and have `n` floats per row.
    fn backward_columns<S>(s: S, x: &[f32], inv_rms: &[f32], dy: &[f32], n: usize, dweight: &mut [f32]) {
        let width = dweight.len();
        for (t, &inv) in inv_rms.iter().enumerate() {
            let (x, dy, r) = (&x[t * n..][..width], &dy[t * n..][..width], s.splat(inv));
            update(s, [x, dy], [dweight], |[sum], [x, dy]| [s.fma(dy, s.mul(x, r), sum)]);
        }
    }
}

pub(super) fn forward(cpu: &Cpu, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32], inv_rms: &mut [f32]) {
    let n = weight.len();
    by_rows(cpu, inv_rms.len(), n, [(y, n), (inv_rms, 1)], |rows, [y, inv_rms]| {
        forward_rows(cpu.isa(), &x[rows.start * n..rows.end * n], weight, eps, y, inv_rms);
    });
}

pub(super) fn backward_input(cpu: &Cpu, x: &[f32], weight: &[f32], inv_rms: &[f32], dy: &[f32], dx: &mut [f32]) {
    let n = weight.len();
    by_rows(cpu, inv_rms.len(), n, [(dx, n)], |rows, [dx]| {
        let at = rows.start * n..rows.end * n;
        backward_rows(cpu.isa(), &x[at.clone()], weight, &inv_rms[rows], &dy[at], dx);
    });
}

pub(super) fn backward_weight_add(cpu: &Cpu, x: &[f32], inv_rms: &[f32], dy: &[f32], dweight: &mut [f32]) {
    let n = dweight.len();
    if inv_rms.is_empty() {
        return;
    }
    by_columns(cpu, inv_rms.len(), n, dweight, |mut columns| {
        let start = columns.range().start;
        backward_columns(cpu.isa(), &x[start..], inv_rms, &dy[start..], n, columns.row(0));
    });
}
