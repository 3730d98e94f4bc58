//! The objective of GRPO in plain loops and f64: the oracle that [`super::loss`] is tested against.

use super::config::{Aggregation, KlEstimator, Objective};

/// The log-probabilities of one output under the three models, and its advantage.
pub struct OracleOutput {
    /// Under the policy. [|o|]
    pub new: Vec<f64>,
    /// Under the policy that drew it. [|o|]
    pub old: Vec<f64>,
    /// Under the reference. [|o|]
    pub reference: Vec<f64>,
    /// How much better than its group.
    pub advantage: f64,
}

/// The estimate of the divergence from the reference: `pi_ref/pi - ln(pi_ref/pi) - 1`, never negative.
///
/// # Paper
/// - R1 2.2.1 eq. 2
/// - Test: crates/train/tests/grpo_matches_published_numbers.rs
/// - Vector: testdata/vectors/grpo.json
pub fn k3(log_prob: f64, ref_log_prob: f64) -> f64 {
    let log_ratio = ref_log_prob - log_prob;
    log_ratio.exp() - log_ratio - 1.0
}

/// An estimate of the divergence from the reference.
fn divergence(log_prob: f64, ref_log_prob: f64, config: &Objective) -> f64 {
    match config.kl {
        KlEstimator::K1 => log_prob - ref_log_prob,
        KlEstimator::K2 => (log_prob - ref_log_prob).powi(2) / 2.0,
        KlEstimator::K3 => k3(log_prob, ref_log_prob),
    }
}

/// The ratio times the advantage, clipped.
fn clipped(log_ratio: f64, advantage: f64, config: &Objective) -> f64 {
    let ratio = log_ratio.exp();
    let held = ratio.clamp(1.0 - config.clip.low, 1.0 + config.clip.high);
    (ratio * advantage).min(held * advantage)
}

/// What one token (or, in R1's printed form, one output) adds.
///
/// # Paper
/// - R1 2.2.1 eq. 1
pub fn gain(new: f64, old: f64, reference: f64, advantage: f64, config: &Objective) -> f64 {
    clipped(new - old, advantage, config) - config.kl_beta * divergence(new, reference, config)
}

/// The objective over some outputs of at most `cap` tokens: what is maximised, the negative of the loss.
///
/// # Paper
/// - R1 2.2.1 eq. 1
/// - Test: crates/train/tests/grpo_matches_published_numbers.rs
/// - Vector: testdata/vectors/grpo.json
pub fn objective(outputs: &[OracleOutput], cap: usize, config: &Objective) -> f64 {
    let by_token = |o: &OracleOutput| -> Vec<f64> {
        (0..o.new.len()).map(|t| gain(o.new[t], o.old[t], o.reference[t], o.advantage, config)).collect()
    };
    let by_output = |o: &OracleOutput| {
        let sum = |values: &[f64]| values.iter().sum::<f64>();
        gain(sum(&o.new), sum(&o.old), sum(&o.reference), o.advantage, config)
    };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let geometric = |o: &OracleOutput| {
        let tokens = 0..o.new.len();
        let log_ratios: Vec<f64> = tokens.clone().map(|t| o.new[t] - o.old[t]).collect();
        let divergences: Vec<f64> = tokens.map(|t| divergence(o.new[t], o.reference[t], config)).collect();
        clipped(mean(&log_ratios), o.advantage, config) - config.kl_beta * mean(&divergences)
    };
    match config.aggregation {
        Aggregation::TokenMean => mean(&outputs.iter().flat_map(by_token).collect::<Vec<_>>()),
        Aggregation::SequenceMean => mean(&outputs.iter().map(|o| mean(&by_token(o))).collect::<Vec<_>>()),
        Aggregation::Sequence => mean(&outputs.iter().map(by_output).collect::<Vec<_>>()),
        Aggregation::SequenceGeometric => mean(&outputs.iter().map(geometric).collect::<Vec<_>>()),
        Aggregation::ConstantLength => outputs.iter().flat_map(by_token).sum::<f64>() / (outputs.len() * cap) as f64,
    }
}
