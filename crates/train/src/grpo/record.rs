//! What is written down about a step of GRPO: a line of metrics, and a line for every group of rollouts.

use minke_eval::Verdict;
use serde::{Deserialize, Serialize};

use super::advantage::{deviation, mean};
use super::config::Std;
use super::importance::Ratios;
use super::loss::Diagnostics;
use super::types::{Scored, ScoredGroup};
use crate::metric;
use crate::optimizer::LearningRates;
use crate::record::Metrics;

/// A line of `rollouts.jsonl`: a question with everything that was said to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// The step.
    pub step: u64,
    /// Name of the task.
    pub task: String,
    /// The problem's id.
    pub id: u64,
    /// What was asked.
    pub question: String,
    /// What was said.
    pub rollouts: Vec<RolloutRecord>,
}

/// One output in a [`GroupRecord`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutRecord {
    /// The completion.
    pub text: String,
    /// What the grader said: the accuracy reward.
    pub verdict: Verdict,
    /// The format reward before its weight.
    pub format: u8,
    /// The share of the thought's words in the language, if that is rewarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<f32>,
    /// The penalty for coming near the cap before its weight, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlong: Option<f32>,
    /// The sum of the rewards.
    pub reward: f32,
    /// How much better than its group; 0 in groups that are not learned from.
    pub advantage: f32,
    /// Length in tokens.
    pub tokens: usize,
    /// Whether the cap cut it off.
    pub truncated: bool,
}

impl GroupRecord {
    /// The record of a group of a task, with its advantages if it has any.
    pub(super) fn new(step: u64, task: &str, group: &ScoredGroup, advantages: Option<&[f64]>) -> Self {
        let rollout = |(i, output): (usize, &Scored)| RolloutRecord {
            text: output.text.clone(),
            verdict: output.verdict,
            format: output.format as u8,
            language: output.language.map(|share| share as f32),
            overlong: output.overlong.map(|penalty| penalty as f32),
            reward: output.reward as f32,
            advantage: advantages.map_or(0.0, |advantages| advantages[i] as f32),
            tokens: output.rollout.token_ids.len(),
            truncated: output.rollout.truncated(),
        };
        let problem = &group.question.problem;
        Self {
            step,
            task: task.to_owned(),
            id: problem.id,
            question: problem.question.clone(),
            rollouts: group.outputs.iter().enumerate().map(rollout).collect(),
        }
    }
}

/// What the updates of a step gave, over all of them.
#[derive(Default)]
pub(super) struct Updates {
    /// How many.
    pub made: u32,
    /// Sum over the updates.
    pub loss: f64,
    /// Of the last update.
    pub grad_norm: f64,
    pub skipped: u64,
    /// Samples that were learned from.
    pub learned: usize,
    pub all: Diagnostics,
    /// Of the first update, where the policy is still the one that drew.
    pub first: Diagnostics,
    pub load_violation: Option<f64>,
}

/// What the rollouts of a step were like; means over those of usable problems.
pub(super) struct Rollouts {
    reward: f64,
    /// Mean over groups.
    reward_std: f64,
    /// Share of groups whose rewards are all the same.
    without_variance: f64,
    /// Share of groups whose answers are all right, and all wrong.
    all_right: f64,
    all_wrong: f64,
    /// Groups that were drawn.
    groups: usize,
    accuracy: f64,
    format: f64,
    /// Mean share of words in the language, if that is rewarded.
    language: Option<f64>,
    pub entropy: f64,
    mean_length: f64,
    truncated: f64,
    /// Of outputs whose tasks have attempts.
    attempts: Option<f64>,
    tokens: usize,
    /// Outputs to problems that cannot be graded, and their share.
    unusable: usize,
    unusable_ratio: f64,
}

impl Rollouts {
    pub(super) fn of(scored: &[ScoredGroup], advantages: &[Option<Vec<f64>>], std: Std) -> Self {
        let (usable, unusable): (Vec<&ScoredGroup>, Vec<&ScoredGroup>) = scored.iter().partition(|g| g.usable());
        let outputs: Vec<&Scored> = usable.iter().flat_map(|group| &group.outputs).collect();
        let over = |value: &dyn Fn(&Scored) -> f64| {
            outputs.iter().map(|output| value(output)).sum::<f64>() / outputs.len().max(1) as f64
        };
        let deviations: Vec<f64> = usable.iter().map(|group| deviation(&group.rewards(), std)).collect();
        let flat = usable.len() - advantages.iter().flatten().count();
        let all = |right: f64| {
            let alike = usable.iter().filter(|group| group.outputs.iter().all(|output| output.accuracy == right));
            share(alike.count(), usable.len())
        };
        let tokens: usize = outputs.iter().map(|output| output.rollout.token_ids.len()).sum();
        let tried: Vec<usize> = outputs.iter().filter_map(|output| output.attempts).collect();
        let entropies = outputs.iter().flat_map(|output| &output.rollout.entropies).map(|&nats| f64::from(nats));
        Self {
            reward: over(&|output| output.reward),
            reward_std: if deviations.is_empty() { 0.0 } else { mean(&deviations) },
            without_variance: share(flat, usable.len()),
            all_right: all(1.0),
            all_wrong: all(0.0),
            groups: scored.len(),
            accuracy: over(&|output| output.accuracy),
            format: over(&|output| output.format),
            language: outputs
                .first()
                .and_then(|output| output.language)
                .map(|_| over(&|output| output.language.unwrap_or(0.0))),
            entropy: entropies.sum::<f64>() / tokens.max(1) as f64,
            mean_length: share(tokens, outputs.len()),
            truncated: over(&|output| f64::from(u8::from(output.rollout.truncated()))),
            attempts: (!tried.is_empty()).then(|| share(tried.iter().sum(), tried.len())),
            tokens,
            unusable: unusable.iter().map(|group| group.outputs.len()).sum(),
            unusable_ratio: share(unusable.len(), scored.len()),
        }
    }

    /// The line of a step with these updates at these rates; `kl` says whether there is a divergence to report.
    pub(super) fn metrics(&self, updates: &Updates, rates: LearningRates, kl: bool) -> Metrics {
        let (all, first) = (&updates.all, &updates.first);
        let mut metrics = Metrics::new();
        metrics
            .set(metric::LOSS, updates.loss / f64::from(updates.made.max(1)))
            .set(metric::GRAD_NORM, updates.grad_norm)
            .set(metric::LEARNING_RATE, rates.shown())
            .set(metric::REWARD, self.reward)
            .set(metric::REWARD_STD, self.reward_std)
            .set(metric::FRAC_REWARD_ZERO_STD, self.without_variance)
            .set(metric::ALL_RIGHT, self.all_right)
            .set(metric::ALL_WRONG, self.all_wrong)
            .set(metric::GROUPS, self.groups)
            .set(metric::ACCURACY, self.accuracy)
            .set(metric::FORMAT, self.format)
            .set_if(metric::LANGUAGE, self.language)
            .set_if(metric::KL, kl.then(|| all.kl / all.tokens.max(1) as f64))
            .set(metric::ENTROPY, self.entropy)
            .set(metric::CLIP_RATIO, share(all.clipped, all.tokens))
            .set(metric::RATIO_EXACT, if first.tokens == 0 { 1.0 } else { share(first.exact, first.tokens) })
            .set(metric::MEAN_LENGTH, self.mean_length)
            .set(metric::CUT_OFF, self.truncated)
            .set(metric::NUM_TOKENS, self.tokens)
            .set_if(metric::ATTEMPTS, self.attempts)
            .set(metric::LEARNED, updates.learned)
            .set(metric::SKIPPED, updates.skipped)
            .set(metric::GOLD_UNUSABLE, self.unusable)
            .set(metric::GOLD_UNUSABLE_RATIO, self.unusable_ratio)
            .set_if(metric::MAX_VIOLATION, updates.load_violation);
        metrics
    }
}

/// What workers drew: how old their policies were, and by how much its weights differ from 1.
pub(super) fn drawn_elsewhere(scored: &[ScoredGroup], cursor: u64, ratios: &Ratios) -> Metrics {
    let rollouts = scored.iter().flat_map(|group| &group.outputs).map(|output| &output.rollout);
    let staleness: Vec<u64> = rollouts.map(|rollout| cursor.saturating_sub(rollout.policy_version)).collect();
    let mut metrics = Metrics::new();
    metrics
        .set(metric::STALENESS_MEAN, staleness.iter().sum::<u64>() as f64 / staleness.len().max(1) as f64)
        .set(metric::STALENESS_MAX, staleness.iter().copied().max().unwrap_or(0))
        .set(metric::IMPORTANCE_MEAN, ratios.sum / ratios.count.max(1) as f64)
        .set(metric::IMPORTANCE_MAX, ratios.max)
        .set(metric::IMPORTANCE_CUT, share(ratios.cut, ratios.count));
    metrics
}

fn share(part: usize, of: usize) -> f64 {
    part as f64 / of.max(1) as f64
}
