//! How likely is the next token? `log p(target) = z[target] / T - log sum exp(z / T)` with `z = x W^T`.
//!
//! One function computes a log-probability, in one order over the vocabulary: the sampler reads it off logits
//! ([`super::sample`]), scoring and training go from hidden states in chunks of rows ([`head_log_prob`]) and never hold
//! all logits. So all three agree to the bit.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use super::matmul::{Size, packed_len};
use crate::Cpu;

/// Outputs by row.
pub struct RowOutputs<'a> {
    /// Log-probability of the target. `[m]`
    pub log_prob: &'a mut [f32],
    /// Log of the sum of exponentials of `z / T`. `[m]`
    pub log_sum: &'a mut [f32],
    /// Entropy of the distribution in nats. `[m]`
    pub entropy: &'a mut [f32],
}

impl RowOutputs<'_> {
    fn check(&self, m: usize) {
        assert_eq!((self.log_prob.len(), self.log_sum.len(), self.entropy.len()), (m, m, m));
    }
}

/// Computes log-probabilities from logits.
///
/// # Shapes
/// logits [m, W], targets `[m]`
pub fn log_prob_rows(cpu: &Cpu, logits: &[f32], targets: &[u32], inverse_temperature: f32, outputs: RowOutputs<'_>) {
    let m = targets.len();
    outputs.check(m);
    if m > 0 {
        assert_eq!(logits.len() % m, 0);
        cpu::rows(cpu, logits, targets, inverse_temperature, outputs);
    }
}

/// (log-probability, log sum, entropy) of one row of logits.
pub(crate) fn row(cpu: &Cpu, logits: &[f32], target: u32, inverse_temperature: f32) -> (f32, f32, f32) {
    cpu::row(cpu.isa(), logits, target as usize, inverse_temperature)
}

/// The log-probability of a token whose logit is given, where the log sum of its row is known.
#[inline(always)]
pub(crate) fn of_logit(logit: f32, inverse_temperature: f32, log_sum: f32) -> f32 {
    logit * inverse_temperature - log_sum
}

/// Computes log-probabilities from hidden states and the packed head.
///
/// # Shapes
/// x [m, k], head [n, k] packed, targets `[m]`; n is the vocabulary
///
/// # Numerics
/// Equal to the bit to [`log_prob_rows`] of the logits of `matmul`.
pub fn head_log_prob(
    cpu: &Cpu,
    x: &[f32],
    packed: &[f32],
    targets: &[u32],
    size: Size,
    inverse_temperature: f32,
    outputs: RowOutputs<'_>,
) {
    assert_eq!((x.len(), targets.len(), packed.len()), (size.m * size.k, size.m, packed_len(cpu, size.n, size.k)));
    outputs.check(size.m);
    cpu::head(cpu, x, packed, targets, size, inverse_temperature, outputs);
}

/// The head as its backward needs it.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// [n, k]
    pub weight: &'a [f32],
    /// The same, packed.
    pub packed: &'a [f32],
}

/// Computes the gradient of [`head_log_prob`]: `dz = dlog_prob (onehot - softmax) / T`, `dx = dz W`, `dW += dz^T x`.
/// Logits are recomputed chunk by chunk.
///
/// # Shapes
/// x [m, k], dlog_prob `[m]`, log_sum `[m]`, dx [m, k], dweight [n, k]
#[allow(clippy::too_many_arguments)]
pub fn head_log_prob_backward(
    cpu: &Cpu,
    x: &[f32],
    head: Head<'_>,
    targets: &[u32],
    size: Size,
    inverse_temperature: f32,
    (log_sum, dlog_prob): (&[f32], &[f32]),
    (dx, dweight_add): (&mut [f32], &mut [f32]),
) {
    let Size { m, n, k } = size;
    assert_eq!((x.len(), dx.len(), targets.len()), (m * k, m * k, m));
    assert_eq!((log_sum.len(), dlog_prob.len()), (m, m));
    assert_eq!((head.weight.len(), head.packed.len(), dweight_add.len()), (n * k, packed_len(cpu, n, k), n * k));
    cpu::head_backward(cpu, x, head, targets, size, inverse_temperature, (log_sum, dlog_prob), (dx, dweight_add));
}
