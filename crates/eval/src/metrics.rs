//! Scores from several samples per problem, with confidence intervals over problems.

use serde::{Deserialize, Serialize};

/// The probability that at least one of `k` samples is right, estimated without bias from `right` right ones
/// among `samples`: `1 - C(samples - right, k) / C(samples, k)`.
///
/// With `k = 1` it is the plain mean that the paper calls pass@1.
///
/// # Paper
/// - R1 3 (pass@1 from k samples)
/// - estimator: Chen et al., Evaluating Large Language Models Trained on Code, eq. 1
/// - Test: crates/eval/src/metrics.rs::pass_at_k_matches_the_published_estimator
/// - Vector: testdata/vectors/metrics.json
///
/// # Panics
/// If `k` is zero, or `right` or `k` exceed `samples`.
pub fn pass_at_k(samples: usize, right: usize, k: usize) -> f64 {
    assert!(k > 0 && k <= samples && right <= samples, "pass@{k} of {right} right among {samples} is undefined");
    // A product of ratios: the binomials themselves overflow. A factor is zero when fewer than k samples are wrong.
    let none_right: f64 = (samples - right + 1..=samples).map(|i| 1.0 - k.min(i) as f64 / i as f64).product();
    1.0 - none_right
}

/// A mean over problems with its 95 % confidence interval.
///
/// The interval is the normal approximation `mean ± 1.96 s / sqrt(n)`, `s` the sample standard deviation of the `n`
/// per-problem means: it covers both the choice of the problems and the sampling of answers. It is not cut to
/// `[0, 1]`, and below about 30 problems it is too narrow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The mean over problems.
    pub mean: f64,
    /// The lower 95 % bound.
    pub low: f64,
    /// The upper 95 % bound.
    pub high: f64,
}

impl Interval {
    /// The mean of one score per problem and its interval; nothing for fewer than two problems.
    ///
    /// # Paper
    /// - R1 3 (pass@1 is a mean over problems; the paper prints no interval)
    pub fn over_problems(scores: &[f64]) -> Option<Self> {
        if scores.len() < 2 {
            return None;
        }
        let n = scores.len() as f64;
        let mean = scores.iter().sum::<f64>() / n;
        let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let half = NORMAL_97_5 * (variance / n).sqrt();
        Some(Self { mean, low: mean - half, high: mean + half })
    }

    /// The mean of `after - before` over the same problems and its interval; nothing for fewer than two
    /// problems.
    ///
    /// How hard a problem is cancels in its difference, so this is narrower than two intervals side by side.
    ///
    /// # Panics
    /// If the two lists differ in length: they are not about the same problems.
    pub fn of_paired_difference(before: &[f64], after: &[f64]) -> Option<Self> {
        assert_eq!(before.len(), after.len(), "a paired difference needs the same problems on both sides");
        let differences: Vec<f64> = before.iter().zip(after).map(|(before, after)| after - before).collect();
        Self::over_problems(&differences)
    }
}

/// The index of the first sample that has the most frequent key; of keys that are equally frequent, the one seen
/// first. Samples without an answer (`None`) have no vote; nothing if no sample has one.
///
/// # Paper
/// - R1 3 (cons@64: the majority vote)
/// - Test: crates/eval/src/metrics.rs::the_most_frequent_key_wins_and_ties_go_to_the_first_seen
pub fn majority<K: PartialEq>(keys: &[Option<K>]) -> Option<usize> {
    let mut votes: Vec<(usize, usize)> = Vec::new();
    for (sample, key) in keys.iter().enumerate().filter(|(_, key)| key.is_some()) {
        match votes.iter_mut().find(|(first, _)| keys[*first] == *key) {
            Some((_, count)) => *count += 1,
            None => votes.push((sample, 1)),
        }
    }
    // `max_by_key` keeps the last of equals, so the first seen must come last.
    votes.into_iter().rev().max_by_key(|&(_, count)| count).map(|(first, _)| first)
}

/// The 97.5 % quantile of the standard normal distribution.
const NORMAL_97_5: f64 = 1.959_963_984_540_054;

#[cfg(test)]
mod tests {
    use super::*;
    use minke_spec::draw::{Domain, draw};

    #[derive(Deserialize)]
    struct Vectors {
        pass_at_k: Vec<PassAtK>,
    }

    #[derive(Deserialize)]
    struct PassAtK {
        n: usize,
        c: usize,
        k: usize,
        value: f64,
    }

    #[test]
    fn pass_at_k_matches_the_published_estimator() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/vectors/metrics.json");
        let vectors: Vectors = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(vectors.pass_at_k.len() >= 6);
        for PassAtK { n, c, k, value } in vectors.pass_at_k {
            let ours = pass_at_k(n, c, k);
            assert!((ours - value).abs() <= 1e-12, "pass@{k} of {c}/{n}: {ours} is not {value}");
        }
    }

    #[test]
    fn pass_at_k_is_the_share_of_subsets_with_a_right_sample() {
        // By its definition: over all subsets of size k, the share that holds one of the `right` first samples.
        for samples in 1..=9usize {
            for right in 0..=samples {
                for k in 1..=samples {
                    let subsets: Vec<u32> = (0..1u32 << samples).filter(|set| set.count_ones() as usize == k).collect();
                    let hits = subsets.iter().filter(|&&set| set & ((1 << right) - 1) != 0).count();
                    let share = hits as f64 / subsets.len() as f64;
                    assert!((pass_at_k(samples, right, k) - share).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn intervals_are_those_of_the_textbook() {
        // Mean 3, s^2 = 5/2, standard error sqrt(1/2).
        let interval = Interval::over_problems(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let half = 1.959_964 * 0.5f64.sqrt();
        assert!((interval.mean - 3.0).abs() < 1e-12);
        assert!((interval.low - (3.0 - half)).abs() < 1e-6 && (interval.high - (3.0 + half)).abs() < 1e-6);
        let difference = Interval::of_paired_difference(&[0.1, 0.5, 0.9], &[0.3, 0.7, 1.1]).unwrap();
        assert!((difference.mean - 0.2).abs() < 1e-12 && difference.high - difference.low < 1e-12);
        assert_eq!(Interval::over_problems(&[1.0]), None);
    }

    #[test]
    fn ninety_five_percent_of_intervals_cover_the_truth() {
        let trials = 2_000;
        let covered = (0..trials)
            .filter(|&trial| {
                let mut stream = draw(11, Domain::Data, &[trial]);
                // Problems of probability uniform in [0, 1), 16 samples each: the true mean is one half.
                let scores: Vec<f64> = (0..200)
                    .map(|_| {
                        let p = stream.uniform();
                        (0..16).filter(|_| stream.chance(p)).count() as f64 / 16.0
                    })
                    .collect();
                let interval = Interval::over_problems(&scores).unwrap();
                interval.low <= 0.5 && 0.5 <= interval.high
            })
            .count();
        let share = covered as f64 / trials as f64;
        assert!((0.935..=0.965).contains(&share), "{share} of the intervals cover the truth");
    }

    #[test]
    fn the_most_frequent_key_wins_and_ties_go_to_the_first_seen() {
        assert_eq!(majority(&[Some("b"), None, Some("a"), Some("a")]), Some(2));
        assert_eq!(majority(&[None, Some("b"), Some("a"), Some("a"), Some("b")]), Some(1));
        assert_eq!(majority(&[None, None, Some("a")]), Some(2));
        assert_eq!(majority::<&str>(&[None, None]), None);
        assert_eq!(majority::<&str>(&[]), None);
    }
}
