//! Reference implementation of log-probabilities.

use crate::ops::matmul::{self, Size};

/// The logits x W^T rounded to f32, as they are stored, so that every reader has the same.
pub fn logits(x: &[f64], w: &[f64], size: Size) -> Vec<f64> {
    matmul::reference::matmul(x, w, size).into_iter().map(|z| f64::from(z as f32)).collect()
}

/// Log-probability, log sum and entropy of one row of logits, in f64.
pub fn log_prob(logits: &[f64], target: usize, inverse_temperature: f64) -> (f64, f64, f64) {
    let z: Vec<f64> = logits.iter().map(|l| l * inverse_temperature).collect();
    let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = largest + z.iter().map(|v| (v - largest).exp()).sum::<f64>().ln();
    let entropy = z.iter().map(|v| (v - log_sum).exp() * (log_sum - v)).sum();
    (z[target] - log_sum, log_sum, entropy)
}

/// The gradient of the log-probability with respect to the logits.
pub fn log_prob_backward(logits: &[f64], target: usize, inverse_temperature: f64) -> Vec<f64> {
    let (_, log_sum, _) = log_prob(logits, target, inverse_temperature);
    let onehot = |j: usize| f64::from(u8::from(j == target));
    let softmax = |l: f64| (l * inverse_temperature - log_sum).exp();
    logits.iter().enumerate().map(|(j, &l)| (onehot(j) - softmax(l)) * inverse_temperature).collect()
}
