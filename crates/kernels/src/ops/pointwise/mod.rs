//! What is done float by float? Sums, products, bounds, and the few sums over everything that training needs.
//!
//! Every float's result depends on that float alone, so slices may be cut and threaded anywhere. [`dot`] and
//! [`sum_squares`] go in chunks of a constant size, combined in index order.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

pub use cpu::{all_finite, dot, sum_squares};

use crate::Cpu;

/// Computes `y = a + scale * b`.
///
/// # Numerics
/// One fused multiply-add where the path has it; exact product for a scale of 1.
pub fn add_scaled(cpu: &Cpu, a: &[f32], b: &[f32], scale: f32, y: &mut [f32]) {
    cpu::two(cpu, a, b, y, |isa, a, b, y| cpu::add_scaled(isa, a, b, scale, y));
}

/// Computes `y += scale * x`.
///
/// # Numerics
/// As [`add_scaled`].
pub fn accumulate(cpu: &Cpu, x: &[f32], scale: f32, y: &mut [f32]) {
    cpu::one(cpu, x, y, |isa, x, y| cpu::accumulate(isa, x, scale, y));
}

/// Computes `y = scale * x`.
pub fn scale(cpu: &Cpu, x: &[f32], scale: f32, y: &mut [f32]) {
    cpu::one(cpu, x, y, |isa, x, y| cpu::scale(isa, x, scale, y));
}

/// Computes `y = a * b`; also the gradient of either factor, from dy and the other.
pub fn mul(cpu: &Cpu, a: &[f32], b: &[f32], y: &mut [f32]) {
    cpu::two(cpu, a, b, y, cpu::mul);
}

/// Computes `y = e^x`; its gradient is `mul(dy, y)`.
///
/// # Numerics
/// The standard library's exponential, the same on every path; overflows to infinity.
pub fn exp(cpu: &Cpu, x: &[f32], y: &mut [f32]) {
    cpu::one(cpu, x, y, |_, x, y| x.iter().zip(y).for_each(|(x, y)| *y = x.exp()));
}

/// Computes `y = 1 / (1 + e^-x)`.
///
/// # Numerics
/// Relative error below 1e-6 for x above -87; below it y is under 1e-37.
pub fn sigmoid(cpu: &Cpu, x: &[f32], y: &mut [f32]) {
    cpu::one(cpu, x, y, cpu::sigmoid);
}

/// Computes `dx = dy y (1 - y)`, the gradient of [`sigmoid`] from its result.
pub fn sigmoid_backward(cpu: &Cpu, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    cpu::two(cpu, y, dy, dx, cpu::sigmoid_backward);
}

/// Computes `y = x` bounded to `[low, high]`. Not a number stays so.
pub fn clamp(cpu: &Cpu, x: &[f32], low: f32, high: f32, y: &mut [f32]) {
    assert!(low <= high);
    cpu::one(cpu, x, y, |isa, x, y| cpu::clamp(isa, x, low, high, y));
}

/// Computes the gradient of [`clamp`]: dy where `low <= x <= high`, else zero.
pub fn clamp_backward(cpu: &Cpu, x: &[f32], low: f32, high: f32, dy: &[f32], dx: &mut [f32]) {
    cpu::two(cpu, x, dy, dx, |isa, x, dy, dx| cpu::clamp_backward(isa, x, low, high, dy, dx));
}

/// Computes the smaller of `a` and `b`; not a number if either is.
pub fn min(cpu: &Cpu, a: &[f32], b: &[f32], y: &mut [f32]) {
    cpu::two(cpu, a, b, y, cpu::min);
}

/// Computes the gradients of [`min`]: dy to the smaller, half of it to each of two equals.
pub fn min_backward(cpu: &Cpu, a: &[f32], b: &[f32], dy: &[f32], da: &mut [f32], db: &mut [f32]) {
    assert_eq!((a.len(), b.len(), da.len(), db.len()), (dy.len(), dy.len(), dy.len(), dy.len()));
    cpu::min_backward(cpu, a, b, dy, da, db);
}

/// Writes `value` everywhere.
pub fn fill(cpu: &Cpu, value: f32, y: &mut [f32]) {
    cpu::fill(cpu, value, y);
}
