//! The loss of GRPO: the clipped ratio times the advantage, held near a reference.

use minke_tensor::{Pass, Tensor};

use super::config::{Aggregation, KlEstimator, Objective};
use super::oracle::k3;
use super::types::TrainBatch;
use crate::Result;

/// The negative of GRPO's objective over a packed batch: its share of the update's loss.
///
/// ```text
/// rho_i = pi(o_i) / pi_old(o_i)
/// D_i   = pi_ref(o_i) / pi(o_i) - ln(pi_ref(o_i) / pi(o_i)) - 1
/// J     = sum_i w_i (m_i min(rho_i A_i, clip(rho_i, 1 - low, 1 + high) A_i) - beta D_i)
/// ```
///
/// where i counts tokens, or whole outputs in R1's printed form and in GSPO's; there D is that of its tokens, in the mean. The
/// weights w are those of [`super::Aggregation`]; m is 1, or what makes up for another sampler ([`super::importance`]).
///
/// # Shapes
/// log_probs `[A]` of the policy -> scalar
///
/// # Paper
/// - R1 2.2.1 eqs. 1-2
/// - DAPO 3.1 eq. 10 (two sides of the clip); GSPO eqs. 5 and 7; Dr. GRPO eq. 2
/// - Test: crates/train/tests/grpo_matches_published_numbers.rs
/// - Vector: testdata/vectors/grpo.json
///
/// # Errors
/// If the log-probabilities are not those of the batch.
pub fn grpo(pass: Pass<'_>, log_probs: &Tensor, batch: &TrainBatch, config: &Objective) -> Result<Tensor> {
    // Eq. 1: the ratio, clipped.
    let log_ratio = batch.by_unit(pass, &log_probs.add_scaled(pass, &batch.old_log_probs, -1.0)?)?;
    let ratio = log_ratio.exp(pass)?;
    let clipped = ratio.clamp(pass, (1.0 - config.clip.low) as f32, (1.0 + config.clip.high) as f32)?;
    let (free, held) = (ratio.mul(pass, &batch.advantages)?, clipped.mul(pass, &batch.advantages)?);
    let mut objective = free.min(pass, &held)?;
    if let Some(importance) = &batch.importance {
        objective = objective.mul(pass, importance)?;
    }

    // Eq. 2: the divergence from the reference.
    if let Some(ref_log_probs) = &batch.ref_log_probs {
        let log_ratio = ref_log_probs.add_scaled(pass, log_probs, -1.0)?;
        let divergence = match config.aggregation {
            Aggregation::SequenceGeometric => batch.by_unit(pass, &divergence(pass, &log_ratio, config.kl)?)?,
            _ => divergence(pass, &batch.by_unit(pass, &log_ratio)?, config.kl)?,
        };
        objective = objective.add_scaled(pass, &divergence, -config.kl_beta as f32)?;
    }
    Ok(objective.weighted_sum(pass, &batch.weights)?.scale(pass, -1.0)?)
}

/// Estimates of the divergence from the reference, of `ln(pi_ref / pi)`.
fn divergence(pass: Pass<'_>, log_ratio: &Tensor, estimator: KlEstimator) -> Result<Tensor> {
    Ok(match estimator {
        KlEstimator::K1 => log_ratio.scale(pass, -1.0)?,
        KlEstimator::K2 => log_ratio.mul(pass, log_ratio)?.scale(pass, 0.5)?,
        KlEstimator::K3 => {
            let ones = vec![1.0; log_ratio.shape().elements()];
            let ones = Tensor::from_slice(pass.device, log_ratio.shape().dims(), &ones);
            log_ratio.exp(pass)?.add_scaled(pass, log_ratio, -1.0)?.add_scaled(pass, &ones, -1.0)?
        }
    })
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
    /// Sum of the estimate of eq. 2, whatever the loss has.
    pub kl: f64,
}

impl Diagnostics {
    /// Adds what a packed batch shows.
    pub fn add(&mut self, log_probs: &[f32], batch: &TrainBatch, config: &Objective) {
        let old = batch.old_log_probs.read();
        self.tokens += log_probs.len();
        for (output, &advantage) in batch.outputs.iter().zip(&batch.output_advantages) {
            let log_ratio = |t: usize| f64::from(log_probs[t] - old[t]);
            let of_output: f64 = output.clone().map(log_ratio).sum();
            for t in output.clone() {
                let log_ratio = match config.aggregation {
                    Aggregation::Sequence => of_output,
                    Aggregation::SequenceGeometric => of_output / output.len() as f64,
                    _ => log_ratio(t),
                };
                self.clipped += usize::from(config.clip.holds(log_ratio.exp(), advantage));
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
