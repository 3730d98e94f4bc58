//! Scores from several samples per problem, with confidence intervals over problems.

use std::collections::HashMap;

use minke_spec::draw::{Domain, draw, hash_name};
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
/// The interval is the normal approximation `mean ± 1.96 e`. Where problems are independent, `e = s / sqrt(n)`, `s` the sample
/// standard deviation of the `n` per-problem means: it covers both the choice of the problems and the sampling of answers.
/// Problems of one cluster, such as questions about one text, count together: with the sums `u` of the deviations
/// `score - mean` over each of `c` clusters, `e = sqrt(c / (c - 1) sum(u^2)) / n`, which is the same where every cluster is one
/// problem. It is not cut to `[0, 1]`, and below about 30 clusters it is too narrow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The mean over problems.
    pub mean: f64,
    /// The lower 95 % bound.
    pub low: f64,
    /// The upper 95 % bound.
    pub high: f64,
}

/// Sets of problems that a bootstrap draws.
const RESAMPLES: usize = 10_000;

impl Interval {
    /// The mean of one score per problem and its interval; nothing for fewer than two clusters. `clusters[i]` names the
    /// cluster of problem `i`.
    ///
    /// # Paper
    /// - R1 3 (pass@1 is a mean over problems; the paper prints no interval)
    /// - clusters: Miller, Adding Error Bars to Evals, 2.2
    ///
    /// # Panics
    /// If the two lists differ in length.
    pub fn over_clusters(scores: &[f64], clusters: &[u64]) -> Option<Self> {
        let n = scores.len() as f64;
        let mean = scores.iter().sum::<f64>() / n;
        let sums = by_cluster(scores, clusters);
        let c = sums.len() as f64;
        if sums.len() < 2 {
            return None;
        }
        let squares: f64 = sums.iter().map(|(sum, size)| (sum - *size as f64 * mean).powi(2)).sum();
        let half = NORMAL_97_5 * (squares * c / (c - 1.0)).sqrt() / n;
        Some(Self { mean, low: mean - half, high: mean + half })
    }

    /// The mean of `after - before` over the same problems and its interval; nothing for fewer than two clusters.
    ///
    /// How hard a problem is cancels in its difference, so this is narrower than two intervals side by side.
    ///
    /// # Panics
    /// If the lists differ in length: they are not about the same problems.
    pub fn of_paired_difference(before: &[f64], after: &[f64], clusters: &[u64]) -> Option<Self> {
        Self::over_clusters(&differences(before, after), clusters)
    }

    /// The mean of `after - before` over the same problems, between the 2.5 % and 97.5 % quantiles of that mean over 10,000
    /// sets of clusters, each drawn with replacement: no distribution is assumed. Nothing for fewer than two clusters.
    ///
    /// # Paper
    /// - Efron, Bootstrap Methods: Another Look at the Jackknife
    ///
    /// # Panics
    /// As [`Interval::of_paired_difference`].
    pub fn of_paired_bootstrap(before: &[f64], after: &[f64], clusters: &[u64], seed: u64) -> Option<Self> {
        let differences = differences(before, after);
        let sums = by_cluster(&differences, clusters);
        if sums.len() < 2 {
            return None;
        }
        let resample = |index: usize| {
            let mut stream = draw(seed, Domain::Data, &[hash_name("bootstrap"), index as u64]);
            let drawn = (0..sums.len()).map(|_| *stream.choose(&sums));
            let (sum, size) = drawn.fold((0.0, 0), |(sum, size), (more, count)| (sum + more, size + count));
            sum / size as f64
        };
        let mut means: Vec<f64> = (0..RESAMPLES).map(resample).collect();
        means.sort_unstable_by(f64::total_cmp);
        let quantile = |share: f64| means[((RESAMPLES - 1) as f64 * share).round() as usize];
        let mean = differences.iter().sum::<f64>() / differences.len() as f64;
        Some(Self { mean, low: quantile(0.025), high: quantile(0.975) })
    }
}

/// `after - before`, problem by problem.
fn differences(before: &[f64], after: &[f64]) -> Vec<f64> {
    assert_eq!(before.len(), after.len(), "a paired difference needs the same problems on both sides");
    before.iter().zip(after).map(|(before, after)| after - before).collect()
}

/// The sum of the scores and the number of problems of every cluster, in the order in which they are first seen.
fn by_cluster(scores: &[f64], clusters: &[u64]) -> Vec<(f64, usize)> {
    assert_eq!(scores.len(), clusters.len(), "every score is of a problem, which is in a cluster");
    let (mut sums, mut places) = (Vec::new(), HashMap::new());
    for (score, cluster) in scores.iter().zip(clusters) {
        let place = *places.entry(cluster).or_insert(sums.len());
        if place == sums.len() {
            sums.push((0.0, 0));
        }
        sums[place].0 += score;
        sums[place].1 += 1;
    }
    sums
}

/// The index of the first sample that has the most frequent key; of keys that are equally frequent, the one seen
/// first. `same` says whether a key counts for one that was seen before. Samples without an answer (`None`) have no vote; nothing
/// if no sample has one.
///
/// # Paper
/// - R1 3 (cons@64: the majority vote)
/// - Test: crates/eval/src/metrics.rs::the_most_frequent_key_wins_and_ties_go_to_the_first_seen
pub fn majority(keys: &[Option<&str>], same: impl Fn(&str, &str) -> bool) -> Option<usize> {
    let mut votes: Vec<(&str, usize, usize)> = Vec::new();
    for (sample, key) in keys.iter().enumerate() {
        let Some(key) = key else { continue };
        match votes.iter_mut().find(|(first, ..)| same(first, key)) {
            Some((_, _, count)) => *count += 1,
            None => votes.push((key, sample, 1)),
        }
    }
    // `max_by_key` keeps the last of equals, so the first seen must come last.
    votes.into_iter().rev().max_by_key(|&(_, _, count)| count).map(|(_, first, _)| first)
}

/// The 97.5 % quantile of the standard normal distribution.
const NORMAL_97_5: f64 = 1.959_963_984_540_054;

#[cfg(test)]
mod tests {
    use super::*;

    /// Every problem on its own.
    fn apart(scores: &[f64]) -> Option<Interval> {
        Interval::over_clusters(scores, &(0..scores.len() as u64).collect::<Vec<_>>())
    }

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
        let interval = apart(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let half = 1.959_964 * 0.5f64.sqrt();
        assert!((interval.mean - 3.0).abs() < 1e-12);
        assert!((interval.low - (3.0 - half)).abs() < 1e-6 && (interval.high - (3.0 + half)).abs() < 1e-6);
        let difference = Interval::of_paired_difference(&[0.1, 0.5, 0.9], &[0.3, 0.7, 1.1], &[1, 2, 3]).unwrap();
        assert!((difference.mean - 0.2).abs() < 1e-12 && difference.high - difference.low < 1e-12);
        assert_eq!(apart(&[1.0]), None);
    }

    #[test]
    fn clusters_count_together() {
        // Deviations from the mean 1/2 are +-1/2; their sums over clusters 1, -1, 0: e = sqrt(3/2 * 2) / 6.
        let interval = Interval::over_clusters(&[1.0, 1.0, 0.0, 0.0, 1.0, 0.0], &[7, 7, 8, 8, 9, 9]).unwrap();
        let half = 1.959_964 * 3f64.sqrt() / 6.0;
        assert!((interval.mean - 0.5).abs() < 1e-12);
        assert!((interval.low - (0.5 - half)).abs() < 1e-6 && (interval.high - (0.5 + half)).abs() < 1e-6);
        // A set of which every problem is there twice knows no more than the set.
        let scores: Vec<f64> = (0..40).map(|i| f64::from(i % 3 == 0)).collect();
        let twice: Vec<f64> = scores.iter().flat_map(|score| [*score; 2]).collect();
        let clusters: Vec<u64> = (0..40).flat_map(|i| [i; 2]).collect();
        let (once, twice) = (apart(&scores).unwrap(), Interval::over_clusters(&twice, &clusters).unwrap());
        assert!((once.low - twice.low).abs() < 1e-12 && (once.high - twice.high).abs() < 1e-12);
        assert_eq!(Interval::over_clusters(&[0.0, 1.0], &[5, 5]), None);
    }

    #[test]
    fn a_bootstrap_finds_what_exact_enumeration_gives() {
        // Four problems with the differences 1, 0, 0, -1. The mean over four draws is has the probabilities 1/256, -3/4 has 8/256 and -1/2 28/256: the quantile at 2.5 % is -3/4 (1/256 < 0.025 < 9/256).
        let (before, after) = ([0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]);
        let interval = Interval::of_paired_bootstrap(&before, &after, &[1, 2, 3, 4], 3).unwrap();
        assert_eq!((interval.mean, interval.low, interval.high), (0.0, -0.75, 0.75));
        // As two clusters, each with the sum 1 or -1 over two problems, the mean is -1/2, 0 or 1/2.
        let interval = Interval::of_paired_bootstrap(&before, &after, &[1, 1, 2, 2], 3).unwrap();
        assert_eq!((interval.low, interval.high), (-0.5, 0.5));
        let same = Interval::of_paired_bootstrap(&before, &before, &[1, 2, 3, 4], 3).unwrap();
        assert_eq!((same.low, same.high), (0.0, 0.0));
        assert_eq!(Interval::of_paired_bootstrap(&before, &after, &[1; 4], 3), None);
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
                let interval = apart(&scores).unwrap();
                interval.low <= 0.5 && 0.5 <= interval.high
            })
            .count();
        let share = covered as f64 / trials as f64;
        assert!((0.935..=0.965).contains(&share), "{share} of the intervals cover the truth");
    }

    #[test]
    fn the_most_frequent_key_wins_and_ties_go_to_the_first_seen() {
        let of = |keys: &[Option<&str>]| majority(keys, |one, other| one == other);
        assert_eq!(of(&[Some("b"), None, Some("a"), Some("a")]), Some(2));
        assert_eq!(of(&[None, Some("b"), Some("a"), Some("a"), Some("b")]), Some(1));
        assert_eq!(of(&[None, None, Some("a")]), Some(2));
        assert_eq!(of(&[None, None]), None);
        assert_eq!(of(&[]), None);
        // What is the same counts together, under the form that was seen first.
        let ends_alike = |one: &str, other: &str| one.trim_start_matches('0') == other.trim_start_matches('0');
        assert_eq!(majority(&[Some("8"), Some("07"), Some("7"), Some("8"), Some("007")], ends_alike), Some(1));
    }
}
