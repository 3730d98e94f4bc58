//! Log-probability of the next token: `log p(target) = z[target] / T - log sum exp(z / T)` with `z = x W^T`.
//!
//! One function computes a log-probability, in one order over the vocabulary: the sampler reads it off logits
//! ([`super::sample`]), scoring and training go from hidden states in chunks of rows ([`head_log_prob`]) and never hold
//! all logits. So all three agree to the bit.

pub(crate) mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use super::bf16_matmul;
use super::matmul::{self, Size};
use crate::{Bf16, Device, View, ViewMut};

/// Outputs by row.
pub struct RowOutputs<'a> {
    /// Log-probability of the target. `[m]`
    pub log_prob: ViewMut<'a, f32>,
    /// Log of the sum of exponentials of `z / T`. `[m]`
    pub log_sum: ViewMut<'a, f32>,
    /// Entropy of the distribution in nats. `[m]`
    pub entropy: ViewMut<'a, f32>,
}

impl<'a> RowOutputs<'a> {
    fn check(&self, m: usize) {
        assert_eq!((self.log_prob.len(), self.log_sum.len(), self.entropy.len()), (m, m, m));
    }

    fn host(self) -> cpu::Rows<'a> {
        cpu::Rows { log_prob: self.log_prob.host(), log_sum: self.log_sum.host(), entropy: self.entropy.host() }
    }

    /// Writes the results of the reference for rows of logits.
    fn set(self, logits: &[f64], targets: &[u32], inverse_temperature: f32) {
        let rows = logits.chunks_exact(logits.len().checked_div(targets.len()).unwrap_or(0).max(1)).zip(targets);
        let all: Vec<[f64; 3]> = rows
            .map(|(row, &target)| reference::log_prob(row, target as usize, inverse_temperature.into()).into())
            .collect();
        self.log_prob.set(&all.iter().map(|row| row[0]).collect::<Vec<_>>());
        self.log_sum.set(&all.iter().map(|row| row[1]).collect::<Vec<_>>());
        self.entropy.set(&all.iter().map(|row| row[2]).collect::<Vec<_>>());
    }
}

/// Computes log-probabilities from logits.
///
/// # Shapes
/// logits [m, W], targets `[m]`
pub fn log_prob_rows(
    device: &Device,
    logits: View<'_, f32>,
    targets: View<'_, u32>,
    inverse_temperature: f32,
    outputs: RowOutputs<'_>,
) {
    let m = targets.len();
    outputs.check(m);
    if m == 0 {
        return;
    }
    assert_eq!(logits.len() % m, 0);
    match device {
        Device::Cpu(cpu) => cpu::rows(cpu, logits.host(), targets.host(), inverse_temperature, outputs.host()),
        Device::Reference(_) => outputs.set(&logits.wide(), targets.host(), inverse_temperature),
    }
}

/// Turns logits into the gradient of [`log_prob_rows`] with respect to them: `dlog_prob (onehot - softmax) / T`.
///
/// # Shapes
/// logits [m, W], targets `[m]`, log_sum `[m]`, dlog_prob `[m]`
pub fn log_prob_rows_backward(
    device: &Device,
    logits: ViewMut<'_, f32>,
    targets: View<'_, u32>,
    inverse_temperature: f32,
    (log_sum, dlog_prob): (View<'_, f32>, View<'_, f32>),
) {
    let m = targets.len();
    assert_eq!((log_sum.len(), dlog_prob.len()), (m, m));
    if m == 0 {
        return;
    }
    assert_eq!(logits.len() % m, 0);
    match device {
        Device::Cpu(cpu) => {
            let given = (log_sum.host(), dlog_prob.host());
            cpu::rows_backward(cpu, logits.host(), targets.host(), inverse_temperature, given);
        }
        Device::Reference(_) => {
            let (host, d) = (logits.host(), dlog_prob.wide());
            let width = host.len() / m;
            for (i, row) in host.chunks_exact_mut(width).enumerate() {
                let logits: Vec<f64> = row.iter().map(|&z| f64::from(z)).collect();
                let dz = reference::log_prob_backward(&logits, targets.host()[i] as usize, inverse_temperature.into());
                row.iter_mut().zip(dz).for_each(|(z, dz)| *z = (dz * d[i]) as f32);
            }
        }
    }
}

/// The log-probability of a token whose logit is given, where the log sum of its row is known.
#[inline(always)]
pub(crate) fn of_logit(logit: f32, inverse_temperature: f32, log_sum: f32) -> f32 {
    logit * inverse_temperature - log_sum
}

/// Hidden states and the head that multiplies them, in the precision of a model.
///
/// # Shapes
/// x [m, k], weight [n, k]; n is the vocabulary
#[derive(Clone, Copy)]
pub enum Head<'a> {
    /// Products of f32.
    F32 {
        /// The states.
        x: View<'a, f32>,
        /// The weight, which the backward reads.
        weight: View<'a, f32>,
        /// The same, packed by [`matmul::pack`].
        packed: View<'a, f32>,
    },
    /// Products of operands that are rounded to bf16.
    Bf16 {
        /// The states, rounded by [`bf16_matmul::round_rows`].
        x: View<'a, Bf16>,
        /// The weight, which the backward reads.
        weight: View<'a, Bf16>,
        /// The same, packed by [`bf16_matmul::pack`].
        packed: View<'a, Bf16>,
    },
}

impl Head<'_> {
    fn check(&self, device: &Device, Size { m, n, k }: Size) {
        match self {
            Self::F32 { x, weight, packed } => {
                let lens = (x.len(), weight.len(), packed.len());
                assert_eq!(lens, (m * k, n * k, matmul::packed_len(device, n, k)));
            }
            Self::Bf16 { x, weight, packed } => {
                let lens = (x.len(), weight.len(), packed.len());
                assert_eq!(lens, (m * bf16_matmul::row_len(k), n * k, bf16_matmul::packed_len(device, n, k)));
            }
        }
    }

    /// States and weight in f64.
    fn wide(&self, k: usize) -> (Vec<f64>, Vec<f64>) {
        match self {
            Self::F32 { x, weight, .. } => (x.wide(), weight.wide()),
            Self::Bf16 { x, weight, .. } => (bf16_matmul::wide_rows(*x, k), bf16_matmul::wide(*weight)),
        }
    }
}

/// Computes log-probabilities from hidden states and the head.
///
/// # Shapes
/// targets `[m]`
///
/// # Numerics
/// Equal to the bit to [`log_prob_rows`] of the logits of the product of the head's precision.
pub fn head_log_prob(
    device: &Device,
    head: Head<'_>,
    targets: View<'_, u32>,
    size: Size,
    inverse_temperature: f32,
    outputs: RowOutputs<'_>,
) {
    assert_eq!(targets.len(), size.m);
    head.check(device, size);
    outputs.check(size.m);
    match device {
        Device::Cpu(cpu) => cpu::head(cpu, head, targets.host(), size, inverse_temperature, outputs.host()),
        Device::Reference(_) => {
            let (x, weight) = head.wide(size.k);
            let logits = reference::logits(&x, &weight, size);
            outputs.set(&logits, targets.host(), inverse_temperature);
        }
    }
}

/// Computes the gradient of [`head_log_prob`]: `dz = dlog_prob (onehot - softmax) / T`, `dx = dz W`, `dW += dz^T x`.
/// Logits are recomputed chunk by chunk; under bf16 dz is rounded as an operand of both products.
///
/// # Shapes
/// dlog_prob `[m]`, log_sum `[m]`, dx [m, k], dweight [n, k]
pub fn head_log_prob_backward(
    device: &Device,
    head: Head<'_>,
    targets: View<'_, u32>,
    size: Size,
    inverse_temperature: f32,
    (log_sum, dlog_prob): (View<'_, f32>, View<'_, f32>),
    (dx, dweight_add): (ViewMut<'_, f32>, ViewMut<'_, f32>),
) {
    let Size { m, n, k } = size;
    assert_eq!((dx.len(), targets.len(), log_sum.len(), dlog_prob.len()), (m * k, m, m, m));
    assert_eq!(dweight_add.len(), n * k);
    head.check(device, size);
    match device {
        Device::Cpu(cpu) => {
            let given = (log_sum.host(), dlog_prob.host());
            let to = (dx.host(), dweight_add.host());
            cpu::head_backward(cpu, head, targets.host(), size, inverse_temperature, given, to);
        }
        Device::Reference(_) => {
            let ((x, weight), d) = (head.wide(k), dlog_prob.wide());
            let logits = reference::logits(&x, &weight, size);
            let mut dz = Vec::new();
            for (i, logits) in logits.chunks_exact(n.max(1)).enumerate() {
                let target = targets.host()[i] as usize;
                let row = reference::log_prob_backward(logits, target, inverse_temperature.into());
                dz.extend(row.iter().map(|dz| dz * d[i]));
            }
            if matches!(head, Head::Bf16 { .. }) {
                dz = bf16_matmul::reference::rounded(&dz);
            }
            dx.set(&matmul::reference::matmul_nn(&dz, &weight, size));
            dweight_add.add(&matmul::reference::matmul_backward_weight(&dz, &x, size));
        }
    }
}
