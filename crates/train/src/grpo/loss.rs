//! The loss of GRPO: the clipped ratio times the advantage, held near a reference.

use minke_tensor::{Pass, Tensor};

use super::config::Objective;
use super::oracle::k3;
use super::types::TrainBatch;
use crate::Result;

/// The negative of GRPO's objective over a packed batch: its share of the update's loss.
///
/// ```text
/// rho_i = pi(o_i) / pi_old(o_i)
/// D_i   = pi_ref(o_i) / pi(o_i) - ln(pi_ref(o_i) / pi(o_i)) - 1
/// J     = sum_i w_i (min(rho_i A_i, clip(rho_i, 1 - eps, 1 + eps) A_i) - beta D_i)
/// ```
///
/// where i counts tokens, or whole outputs in R1's printed form, and the weights w of an update sum to 1.
///
/// # Shapes
/// log_probs `[A]` of the policy -> scalar
///
/// # Paper
/// - R1 2.2.1 eqs. 1-2
/// - Test: crates/train/tests/grpo_matches_published_numbers.rs
/// - Vector: testdata/vectors/grpo.json
///
/// # Errors
/// If the log-probabilities are not those of the batch.
pub fn grpo(pass: Pass<'_>, log_probs: &Tensor, batch: &TrainBatch, config: &Objective) -> Result<Tensor> {
    // Eq. 1: the ratio, clipped.
    let log_ratio = batch.by_unit(pass, &log_probs.add_scaled(pass, &batch.old_log_probs, -1.0)?)?;
    let ratio = log_ratio.exp(pass)?;
    let clipped = ratio.clamp(pass, (1.0 - config.clip) as f32, (1.0 + config.clip) as f32)?;
    let (free, held) = (ratio.mul(pass, &batch.advantages)?, clipped.mul(pass, &batch.advantages)?);
    let mut objective = free.min(pass, &held)?;

    // Eq. 2: the divergence from the reference.
    if let Some(ref_log_probs) = &batch.ref_log_probs {
        let log_ratio = batch.by_unit(pass, &ref_log_probs.add_scaled(pass, log_probs, -1.0)?)?;
        let ones = Tensor::from_slice(pass.device, log_ratio.shape().dims(), &vec![1.0; log_ratio.shape().elements()]);
        let divergence = log_ratio.exp(pass)?.add_scaled(pass, &log_ratio, -1.0)?.add_scaled(pass, &ones, -1.0)?;
        objective = objective.add_scaled(pass, &divergence, -config.kl_beta as f32)?;
    }
    Ok(objective.weighted_sum(pass, &batch.weights)?.scale(pass, -1.0)?)
}

/// Diagnostics of an update beside its loss: sums over tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Diagnostics {
    /// Tokens that the policy chose.
    pub tokens: usize,
    /// Of these, with the very log-probability that the sampler saw: the ratio is exactly 1.
    pub exact: usize,
    /// Of these, where the clip holds the ratio back.
    pub clipped: usize,
    /// Sum of the estimate of eq. 2.
    pub kl: f64,
}

impl Diagnostics {
    /// Adds what a packed batch shows.
    pub fn add(&mut self, log_probs: &[f32], batch: &TrainBatch, config: &Objective) {
        let old = batch.old_log_probs.read();
        self.tokens += log_probs.len();
        for (output, &advantage) in batch.outputs.iter().zip(&batch.output_advantages) {
            for t in output.clone() {
                let ratio = f64::from(log_probs[t] - old[t]).exp();
                let (above, below) = (ratio > 1.0 + config.clip, ratio < 1.0 - config.clip);
                let held = (advantage > 0.0 && above) || (advantage < 0.0 && below);
                self.clipped += usize::from(held);
                self.exact += usize::from(log_probs[t].to_bits() == old[t].to_bits());
            }
        }
        if let Some(ref_log_probs) = &batch.ref_log_probs {
            let pairs = log_probs.iter().zip(ref_log_probs.read());
            self.kl += pairs.map(|(&p, r)| k3(f64::from(p), f64::from(r))).sum::<f64>();
        }
    }

    /// Adds what another update shows.
    pub fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.exact += other.exact;
        self.clipped += other.clipped;
        self.kl += other.kl;
    }
}
