//! Rotary positions: pairs of a row's components are turned by an angle that grows with the position.
//!
//! ```text
//! angle_ti = position_t * frequency_i
//! (a, b)  -> (a cos - b sin, a sin + b cos)      for the pair i of every head
//! ```
//!
//! The pairs are neighbours in the published weights ([`Layout::Interleaved`]) or lie half the rotated width apart
//! ([`Layout::Halves`], the distilled models).

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::{Device, View, ViewMut};

/// Which components form pair i of R rotated ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// 2i and 2i + 1.
    Interleaved,
    /// i and i + R/2.
    Halves,
}

/// Which way pairs are turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// By the angle.
    Forward,
    /// By minus the angle: the backward (the transpose; also the inverse if the multiplier is 1).
    Inverse,
}

/// The columns of every head, and which of them are rotated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub heads: usize,
    pub width: usize,
    pub start: usize,
    /// R
    pub rotated: usize,
}

/// Computes cosines and sines of the angles, times `multiplier`.
///
/// # Shapes
/// positions `[T]`, inv_freq [R/2], out [T, R/2, 2] (cosine, sine)
///
/// # Paper
/// - V3 4.3 (angles of the YaRN frequencies; the multiplier is 1 in the published model)
/// - Test: crates/kernels/src/ops/rope/tests.rs::angles_match_the_published_samples
/// - Vector: testdata/vectors/yarn_deepseek_r1.json
///
/// # Numerics
/// The angle is the f32 product of the position and the frequency, as published models were trained; its cosine and
/// sine are exact to f32.
pub fn cos_sin(device: &Device, positions: View<'_, u32>, inv_freq: &[f32], multiplier: f32, out: ViewMut<'_, f32>) {
    assert_eq!(out.len(), positions.len() * inv_freq.len() * 2);
    match device {
        Device::Cpu(cpu) => cpu::cos_sin(cpu, positions.host(), inv_freq, multiplier, out.host()),
        Device::Reference(_) => out.set(&reference::cos_sin(positions.host(), inv_freq, multiplier)),
    }
}

/// Computes x with the columns `start..start + R` of every head rotated; R is given by `cos_sin`.
///
/// # Shapes
/// x [T, heads, width], cos_sin [T, R/2, 2], y [T, heads, width]
///
/// # Paper
/// - V3 2.1.1 eq. 3 (the shared key); V3 2.1.1 eq. 8 (the queries)
/// - Test: crates/kernels/src/ops/rope/tests.rs::the_published_rotation
/// - Vector: testdata/vectors/yarn_deepseek_r1.json
///
/// # Numerics
/// Two products and a sum, each rounded to f32: the same bits on every path.
#[allow(clippy::too_many_arguments)]
pub fn rotate(
    device: &Device,
    x: View<'_, f32>,
    cos_sin: View<'_, f32>,
    heads: usize,
    width: usize,
    start: usize,
    layout: Layout,
    direction: Direction,
    y: ViewMut<'_, f32>,
) {
    let row = heads * width;
    assert_eq!(x.len(), y.len());
    if row == 0 || x.is_empty() {
        return;
    }
    let tokens = x.len() / row;
    let rotated = cos_sin.len() / tokens;
    assert_eq!((x.len(), cos_sin.len(), rotated % 2), (tokens * row, tokens * rotated, 0));
    assert!(start + rotated <= width);
    match device {
        Device::Cpu(cpu) => {
            let shape = Shape { heads, width, start, rotated };
            cpu::rotate(cpu, x.host(), cos_sin.host(), shape, layout, direction, y.host());
        }
        Device::Reference(_) => {
            y.set(&reference::rotate(&x.wide(), &cos_sin.wide(), (heads, width, start), layout, direction));
        }
    }
}
