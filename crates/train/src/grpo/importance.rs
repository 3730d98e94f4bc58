//! How much an output counts that another engine, or an older policy, has drawn.

use super::config::Aggregation;

/// The truncated importance weights of an output: by how much likelier the policy that learns makes each unit than what drew it, cut off
/// at `cap`.
///
/// ```text
/// w_i = min(pi_old(o_i) / pi_drawn(o_i), cap)
/// ```
///
/// The clip of GRPO's loss compares the policy with `pi_old`, the policy in front of the step's updates; the weight makes up for what lies
/// between that one and the sampler: other arithmetic, and updates that the sampler had not seen. Units are those of the loss: tokens, or
/// the whole output in R1's printed form and in GSPO's, whose ratio is the geometric mean.
///
/// # Shapes
/// old, drawn `[|o|]` -> `[|o|]` or `[1]`
///
/// # Paper
/// - Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training" (truncated importance sampling)
/// - Hilton et al. 2021 (arXiv 2110.00641) 3.1 (the decoupled objective: a clip around one policy, a weight for another)
pub fn truncated(old: &[f32], drawn: &[f32], aggregation: Aggregation, cap: f64) -> Vec<f32> {
    ratios(old, drawn, aggregation).into_iter().map(|ratio| ratio.min(cap) as f32).collect()
}

/// The same before it is cut off.
///
/// # Shapes
/// as [`truncated`]
///
/// # Paper
/// - as [`truncated`]
pub fn ratios(old: &[f32], drawn: &[f32], aggregation: Aggregation) -> Vec<f64> {
    // The difference in f32, so that equal numbers give exactly 1.
    let log_ratios = old.iter().zip(drawn).map(|(old, drawn)| f64::from(old - drawn));
    match aggregation {
        Aggregation::TokenMean | Aggregation::SequenceMean | Aggregation::ConstantLength => {
            log_ratios.map(f64::exp).collect()
        }
        Aggregation::Sequence => vec![log_ratios.sum::<f64>().exp()],
        Aggregation::SequenceGeometric => vec![(log_ratios.sum::<f64>() / old.len().max(1) as f64).exp()],
    }
}

/// What the weights of a step were like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ratios {
    /// How many.
    pub count: usize,
    /// Of these, how many were cut off.
    pub cut: usize,
    /// Their sum, before they are cut off.
    pub sum: f64,
    /// The largest, before it is cut off.
    pub max: f64,
}

impl Ratios {
    /// Adds those of an output.
    pub fn add(&mut self, ratios: &[f64], cap: f64) {
        for &ratio in ratios {
            self.count += 1;
            self.cut += usize::from(ratio > cap);
            self.sum += ratio;
            self.max = self.max.max(ratio);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_ratios_up_to_the_cap() {
        let (old, drawn) = ([-1.0f32, -2.0, -0.5], [-1.0f32, -3.0, -1.5 + f32::EPSILON]);
        let of = |aggregation, cap| truncated(&old, &drawn, aggregation, cap);
        let e = std::f64::consts::E;
        for aggregation in [Aggregation::TokenMean, Aggregation::SequenceMean, Aggregation::ConstantLength] {
            let weights = of(aggregation, 10.0);
            assert_eq!(weights[0], 1.0);
            assert!((f64::from(weights[1]) - e).abs() < 1e-6 && (f64::from(weights[2]) - e).abs() < 1e-6);
            assert_eq!(of(aggregation, 2.0), [1.0, 2.0, 2.0]);
        }
        assert!((f64::from(of(Aggregation::Sequence, 10.0)[0]) - e * e).abs() < 1e-5);
        assert_eq!(of(Aggregation::Sequence, 2.0), [2.0]);
        assert!((f64::from(of(Aggregation::SequenceGeometric, 10.0)[0]) - (2.0f64 / 3.0).exp()).abs() < 1e-6);
        let mut seen = Ratios::default();
        seen.add(&ratios(&old, &drawn, Aggregation::TokenMean), 2.0);
        assert_eq!((seen.count, seen.cut), (3, 2));
        assert!((seen.sum - 1.0 - 2.0 * e).abs() < 1e-5 && (seen.max - e).abs() < 1e-5);
    }
}
