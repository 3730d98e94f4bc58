//! The tuned version: plain loops that the compiler turns into vectors on each path; nothing here is fused, so the
//! paths agree.

use super::{Direction, Layout, Shape};
use crate::device::Cpu;
use crate::ops::split::by_rows;
use crate::simd::simd_fn;

/// What one cosine and sine cost, in floats moved.
const TRIGONOMETRY: usize = 32;

simd_fn! {
    /// Rotates the pairs of one token; x and y are its heads.
    fn interleaved<S>(_s: S, x: &[f32], cos_sin: &[f32], shape: Shape, sign: f32, y: &mut [f32]) {
        let Shape { width, start, rotated, .. } = shape;
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            y[..start].copy_from_slice(&x[..start]);
            y[start + rotated..].copy_from_slice(&x[start + rotated..]);
            let pairs = x[start..start + rotated].chunks_exact(2).zip(cos_sin.chunks_exact(2));
            for ((x, turn), y) in pairs.zip(y[start..start + rotated].chunks_exact_mut(2)) {
                let (cos, sin) = (turn[0], turn[1] * sign);
                y[0] = x[0] * cos - x[1] * sin;
                y[1] = x[0] * sin + x[1] * cos;
            }
        }
    }

    /// As `interleaved`, for pairs that lie half the rotated width apart.
    fn halves<S>(_s: S, x: &[f32], cos_sin: &[f32], shape: Shape, sign: f32, y: &mut [f32]) {
        let Shape { width, start, rotated, .. } = shape;
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            y[..start].copy_from_slice(&x[..start]);
            y[start + rotated..].copy_from_slice(&x[start + rotated..]);
            let (x0, x1) = x[start..start + rotated].split_at(rotated / 2);
            let (y0, y1) = y[start..start + rotated].split_at_mut(rotated / 2);
            for (i, turn) in cos_sin.chunks_exact(2).enumerate() {
                let (cos, sin) = (turn[0], turn[1] * sign);
                y0[i] = x0[i] * cos - x1[i] * sin;
                y1[i] = x0[i] * sin + x1[i] * cos;
            }
        }
    }
}

pub(super) fn cos_sin(cpu: &Cpu, positions: &[u32], inv_freq: &[f32], multiplier: f32, out: &mut [f32]) {
    let width = inv_freq.len() * 2;
    by_rows(cpu, positions.len(), width * TRIGONOMETRY, [(out, width)], |rows, [out]| {
        let turns = out.chunks_exact_mut(2);
        let angles = positions[rows].iter().flat_map(|&p| inv_freq.iter().map(move |&f| p as f32 * f));
        for (turn, angle) in turns.zip(angles) {
            let (sin, cos) = f64::from(angle).sin_cos();
            turn[0] = cos as f32 * multiplier;
            turn[1] = sin as f32 * multiplier;
        }
    });
}

pub(super) fn rotate(
    cpu: &Cpu,
    x: &[f32],
    cos_sin: &[f32],
    shape: Shape,
    layout: Layout,
    direction: Direction,
    y: &mut [f32],
) {
    let sign = if direction == Direction::Inverse { -1.0 } else { 1.0 };
    let row = shape.heads * shape.width;
    by_rows(cpu, x.len() / row, row, [(y, row)], |rows, [y]| {
        for (t, y) in rows.zip(y.chunks_exact_mut(row)) {
            let (x, turns) = (&x[t * row..][..row], &cos_sin[t * shape.rotated..][..shape.rotated]);
            match layout {
                Layout::Interleaved => interleaved(cpu.isa(), x, turns, shape, sign, y),
                Layout::Halves => halves(cpu.isa(), x, turns, shape, sign, y),
            }
        }
    });
}
