//! Reference implementation of the pointwise operations, for one float.

use crate::View;

/// `f` of every value.
pub(super) fn one(x: View<'_, f32>, f: impl Fn(f64) -> f64) -> Vec<f64> {
    x.host().iter().map(|&x| f(x.into())).collect()
}

/// `f` of every pair of values.
pub(super) fn two(a: View<'_, f32>, b: View<'_, f32>, f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    a.host().iter().zip(b.host()).map(|(&a, &b)| f(a.into(), b.into())).collect()
}

/// `a + scale b`.
pub fn add_scaled(a: f64, b: f64, scale: f64) -> f64 {
    a + scale * b
}

/// The sigmoid 1 / (1 + e^-x).
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The gradient of the sigmoid from its result.
pub fn sigmoid_backward(y: f64, dy: f64) -> f64 {
    dy * y * (1.0 - y)
}

/// `x` bounded to [low, high].
pub fn clamp(x: f64, low: f64, high: f64) -> f64 {
    x.clamp(low, high)
}

/// The gradient of `clamp`.
pub fn clamp_backward(x: f64, low: f64, high: f64, dy: f64) -> f64 {
    if low <= x && x <= high { dy } else { 0.0 }
}

/// The smaller; not a number if either is.
pub fn min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

/// The gradients da and db.
pub fn min_backward(a: f64, b: f64, dy: f64) -> (f64, f64) {
    if a < b {
        (dy, 0.0)
    } else if a > b {
        (0.0, dy)
    } else {
        (dy / 2.0, dy / 2.0)
    }
}

/// The sum of products.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
