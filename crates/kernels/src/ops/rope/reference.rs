//! Reference implementation of the rotation.

use super::{Direction, Layout};

/// Cosine and sine of the angles. positions `[T]`, inv_freq [R/2] -> [T, R/2, 2]
pub fn cos_sin(positions: &[u32], inv_freq: &[f32], multiplier: f32) -> Vec<f64> {
    let mut out = Vec::new();
    for &position in positions {
        for &frequency in inv_freq {
            let angle = f64::from(position as f32 * frequency);
            out.extend([angle.cos() * f64::from(multiplier), angle.sin() * f64::from(multiplier)]);
        }
    }
    out
}

/// The rotated x. x [T, heads, width], cos_sin [T, R/2, 2] -> [T, heads, width]
pub fn rotate(
    x: &[f64],
    cos_sin: &[f64],
    (heads, width, start): (usize, usize, usize),
    layout: Layout,
    direction: Direction,
) -> Vec<f64> {
    let mut y = x.to_vec();
    let tokens = x.len() / (heads * width);
    let half = cos_sin.len() / tokens.max(1) / 2;
    for t in 0..tokens {
        for h in 0..heads {
            for i in 0..half {
                let (first, second) = match layout {
                    Layout::Interleaved => (2 * i, 2 * i + 1),
                    Layout::Halves => (i, i + half),
                };
                let head = (t * heads + h) * width + start;
                let (cos, sin) = (cos_sin[(t * half + i) * 2], cos_sin[(t * half + i) * 2 + 1]);
                let sin = if direction == Direction::Inverse { -sin } else { sin };
                y[head + first] = x[head + first] * cos - x[head + second] * sin;
                y[head + second] = x[head + first] * sin + x[head + second] * cos;
            }
        }
    }
    y
}
