//! Advantages: how much better an output is than the others of its group. GRPO has no value network.

use super::config::Std;

/// How many standard deviations each reward of a group lies above the group's mean (how far, without a deviation), or nothing
/// if all rewards are the same: such a group has no gradient.
///
/// No epsilon is added to the deviation: where it could matter, the group is left out.
///
/// # Shapes
/// rewards `[G]` -> `[G]`
///
/// # Paper
/// - R1 2.2.1 eq. 3
/// - Test: crates/train/tests/grpo_matches_published_numbers.rs
/// - Vector: testdata/vectors/grpo.json
///
/// # Examples
/// ```
/// use minke_train::grpo::{Std, advantage::group_relative};
/// assert_eq!(group_relative(&[1.0, 0.0, 0.0, 1.0], Std::Population), Some(vec![1.0, -1.0, -1.0, 1.0]));
/// assert_eq!(group_relative(&[1.0, 1.0, 1.0, 1.0], Std::Population), None);
/// ```
pub fn group_relative(rewards: &[f64], std: Std) -> Option<Vec<f64>> {
    let first = rewards.first()?;
    if rewards.iter().all(|reward| reward == first) {
        return None;
    }
    let mean = mean(rewards);
    let divisor = if std == Std::None { 1.0 } else { deviation(rewards, std) };
    Some(rewards.iter().map(|reward| (reward - mean) / divisor).collect())
}

/// The mean of the rewards of a group.
pub fn mean(rewards: &[f64]) -> f64 {
    rewards.iter().sum::<f64>() / rewards.len() as f64
}

/// The standard deviation of the rewards of a group; zero for fewer than two.
pub fn deviation(rewards: &[f64], std: Std) -> f64 {
    if rewards.len() < 2 {
        return 0.0;
    }
    let mean = mean(rewards);
    let squares: f64 = rewards.iter().map(|reward| (reward - mean).powi(2)).sum();
    let count = match std {
        Std::Population => rewards.len(),
        Std::Sample | Std::None => rewards.len() - 1,
    };
    (squares / count as f64).sqrt()
}
