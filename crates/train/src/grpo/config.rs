//! The settings of a GRPO stage: every knob of the papers, the conventions that they leave open, and what others proposed since.

use std::collections::BTreeMap;

use minke_engine::{EngineConfig, Replicas};
use minke_eval::verify::language::Language;
use minke_spec::ModelConfig;
use minke_tensor::{Device, PAGE_TOKENS};
use serde::{Deserialize, Serialize};

use super::workers::config::WorkersConfig;
use crate::Result;
use crate::lora::LoraConfig;
use crate::optimizer::{LearningRates, OptimizerConfig};
use crate::schedule::Schedule;

/// What the ratio, the clip and the KL term are taken of, and how they become one number.
///
/// R1 prints `Sequence`; implementations, DeepSeekMath's included, compute another, because the ratio of a whole
/// output is the exponential of a sum over thousands of tokens. Means are over all outputs to usable questions: what an output
/// counts does not depend on how many groups have advantages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// By token, mean over all tokens of the update. Published by DAPO (eq. 8); default of TRL.
    #[default]
    TokenMean,
    /// By token, mean over the tokens of an output, then over outputs. Published by DeepSeekMath (eq. 3).
    SequenceMean,
    /// By whole output, mean over outputs. Published by R1 (2.2.1 eq. 1).
    Sequence,
    /// By whole output, whose ratio is the geometric mean of its tokens', mean over outputs. Published by GSPO (eqs. 5 and 7). The
    /// clip is of another size here: 3e-4 and 4e-4 in the paper.
    SequenceGeometric,
    /// By token, sum over the tokens of an output divided by the longest length allowed, mean over outputs: long wrong outputs are
    /// not favoured. Published by Dr. GRPO (eq. 2), which goes with `std = "none"`.
    ConstantLength,
}

/// Which standard deviation the rewards of a group are divided by. R1 does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Std {
    /// Divided by G, as in the worked example of most re-tellings.
    Population,
    /// Divided by G - 1, as `torch.std` does, hence TRL and verl.
    #[default]
    Sample,
    /// By none: hard and easy questions weigh as their rewards vary. Published by Dr. GRPO (3.2).
    None,
}

/// Between which ratios a gain counts: `1 - low` and `1 + high`. Written as one number if they are the same.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "ClipForm", into = "ClipForm")]
pub struct Clip {
    /// Below 1.
    pub low: f64,
    /// Above 1; DAPO's is larger than `low` (3.1), so that unlikely tokens can become likely.
    pub high: f64,
}

impl Clip {
    /// The same on both sides.
    pub fn both(epsilon: f64) -> Self {
        Self { low: epsilon, high: epsilon }
    }

    /// Whether a gain with this ratio is held back.
    pub fn holds(&self, ratio: f64, advantage: f64) -> bool {
        (advantage > 0.0 && ratio > 1.0 + self.high) || (advantage < 0.0 && ratio < 1.0 - self.low)
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number, or a table with low and high")]
enum ClipForm {
    Both(f64),
    Sides { low: f64, high: f64 },
}

impl From<ClipForm> for Clip {
    fn from(form: ClipForm) -> Self {
        match form {
            ClipForm::Both(epsilon) => Self::both(epsilon),
            ClipForm::Sides { low, high } => Self { low, high },
        }
    }
}

impl From<Clip> for ClipForm {
    fn from(Clip { low, high }: Clip) -> Self {
        if low == high { Self::Both(low) } else { Self::Sides { low, high } }
    }
}

/// How the divergence from the reference is estimated, with `r = pi_ref / pi` (Schulman 2020, "Approximating KL divergence").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// `-ln r`: without bias, but as a part of a loss its gradient is zero in the mean.
    K1,
    /// `(ln r)^2 / 2`: its gradient is that of the divergence.
    K2,
    /// `r - ln r - 1`: without bias and never negative. Published by R1 (2.2.1 eq. 2).
    #[default]
    K3,
}

/// How the assistant's turn begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptForm {
    /// The model has to open its thought by itself: what R1-Zero learns.
    #[default]
    Open,
    /// The prompt ends with `<think>\n`.
    ForcedThought,
}

/// How much each part of the reward counts; by default accuracy and format the same, as published, and nothing else.
///
/// # Paper
/// - R1 2.2.2 (accuracy and format rewards with the same weight)
/// - R1 2.3.2 (language consistency, added to them)
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardWeights {
    /// For an answer that the grader calls right.
    pub accuracy: f64,
    /// For exactly one thought and then an answer.
    pub format: f64,
    /// For the share of the thought's words that are of the language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language_consistency: Option<LanguageReward>,
    /// Against outputs that come near the cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlong: Option<OverlongPenalty>,
}

impl Default for RewardWeights {
    fn default() -> Self {
        Self { accuracy: 1.0, format: 1.0, language_consistency: None, overlong: None }
    }
}

/// A reward for thoughts in one language.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageReward {
    /// How much it counts.
    #[serde(default = "defaults::weight")]
    pub weight: f64,
    /// In which language.
    pub language: Language,
}

/// A penalty that grows over the last tokens in front of the cap.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlongPenalty {
    /// How much it counts.
    #[serde(default = "defaults::weight")]
    pub weight: f64,
    /// Over how many tokens it grows.
    pub tokens: usize,
}

impl OverlongPenalty {
    /// The penalty of a length, before its weight: 0 up to `cap - tokens`, -1 at the cap, and a line in between.
    ///
    /// # Paper
    /// - DAPO 3.4 eq. 13 (soft overlong punishment)
    pub fn of(&self, length: usize, cap: usize) -> f64 {
        let over = length.saturating_sub(cap.saturating_sub(self.tokens));
        -(over.min(self.tokens) as f64) / self.tokens as f64
    }
}

/// The numbers of the objective and how it is aggregated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// Epsilon of the clip; R1's first RL stage prints 10, which leaves only the upper bound 11.
    pub clip: Clip,
    /// Beta of the KL term.
    pub kl_beta: f64,
    /// How the divergence is estimated.
    pub kl: KlEstimator,
    /// How tokens become one number.
    pub aggregation: Aggregation,
}

/// A held-out evaluation between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuickEval {
    /// Steps between two of them.
    pub every: u64,
    /// Problems of every task.
    pub problems: usize,
    /// Samples of every problem.
    pub samples: usize,
}

/// Sizes of the engine of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSizes {
    /// Most sequences that decode together. Of a small model each thread decodes 16 at most ([`Replicas`]).
    pub max_sequences: usize,
    /// Tokens that the cache holds.
    pub cache_tokens: usize,
    /// Most prompt tokens of a step.
    pub chunk_tokens: usize,
}

impl Default for EngineSizes {
    fn default() -> Self {
        Self { max_sequences: 256, cache_tokens: 65_536, chunk_tokens: 2048 }
    }
}

impl EngineSizes {
    /// What is wrong with the sizes, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let any_zero = [self.max_sequences, self.cache_tokens, self.chunk_tokens].contains(&0);
        any_zero.then_some("engine: every size must be at least 1")
    }

    /// Engines in exact mode: their log-probabilities are the trainer's to the bit.
    ///
    /// # Errors
    /// If a size is out of range.
    pub fn engines(&self, device: &Device, model: &ModelConfig) -> Result<Replicas> {
        let config = EngineConfig::default()
            .with_pages(self.cache_tokens.div_ceil(PAGE_TOKENS))
            .with_max_sequences(self.max_sequences)
            .with_chunk_tokens(self.chunk_tokens)
            .exact()
            .with_prefix_cache(false);
        Ok(Replicas::new(device, model, &config)?)
    }
}

/// A stage of reinforcement learning.
///
/// # Paper
/// Defaults are R1's (facts sheet 2.3) where they do not depend on its size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpoConfig {
    /// Name of the stage.
    pub name: String,
    /// The stage whose model is trained, or a published model.
    pub from: String,
    /// The adapter that is trained, instead of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// Rollouts to take; each is followed by `minibatches` updates.
    pub steps: u64,
    /// Questions of a step.
    #[serde(default = "defaults::questions_per_step")]
    pub questions_per_step: usize,
    /// Rollouts of a question, G.
    #[serde(default = "defaults::group_size")]
    pub group_size: usize,
    /// Updates made from one rollout; 1 is on-policy.
    #[serde(default = "defaults::one")]
    pub minibatches: usize,
    /// Longest completion in tokens, as `[from step, cap]`; R1 raises its cap once.
    pub max_tokens: Vec<(u64, usize)>,
    /// Of the sampler; no top-k or top-p, so that log-probabilities are the policy's.
    #[serde(default = "defaults::temperature")]
    pub temperature: f32,
    /// Epsilon of the clip.
    #[serde(default = "defaults::clip")]
    pub clip: Clip,
    /// Beta of the KL term; zero leaves the reference out.
    #[serde(default = "defaults::kl_beta")]
    pub kl_beta: f64,
    /// How the divergence from the reference is estimated.
    #[serde(default)]
    pub kl: KlEstimator,
    /// Updates after which the policy becomes the reference; that of a step begins with its rollouts.
    #[serde(default = "defaults::reference_every")]
    pub reference_every: u64,
    /// How often a step may draw questions again in place of those whose rewards are all the same (dynamic sampling, DAPO 3.2).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resample: u32,
    /// Learning rates of the groups of parameters.
    pub learning_rate: LearningRates,
    /// What else is chosen about the optimizers.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// How the learning rates change over the steps; constant if not given.
    #[serde(default)]
    pub schedule: Schedule,
    /// How tokens become one number.
    #[serde(default)]
    pub aggregation: Aggregation,
    /// What rewards are divided by.
    #[serde(default)]
    pub std: Std,
    /// Parts of the reward.
    #[serde(default)]
    pub rewards: RewardWeights,
    /// Shares of the run's tasks, by name; all alike if there are none.
    #[serde(default)]
    pub tasks: BTreeMap<String, f64>,
    /// How the assistant's turn begins.
    #[serde(default)]
    pub prompt: PromptForm,
    /// Sizes of the engine.
    #[serde(default)]
    pub engine: EngineSizes,
    /// Who draws the rollouts in place of the engine; that one if the table is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<WorkersConfig>,
    /// Step by which the selection bias of experts moves.
    #[serde(default)]
    pub bias_gamma: f32,
    /// Tokens of one forward of the trainer.
    #[serde(default = "defaults::micro_batch_tokens")]
    pub micro_batch_tokens: usize,
    /// Whether blocks are computed again in the backward instead of kept.
    #[serde(default)]
    pub recompute: bool,
    /// Steps between checkpoints.
    #[serde(default = "defaults::checkpoint_every")]
    pub checkpoint_every: u64,
    /// Held-out evaluation on the way; none if absent.
    #[serde(default)]
    pub eval: Option<QuickEval>,
    /// The control: rewards are dealt out anew within each group, so that there is nothing to learn.
    #[serde(default)]
    pub shuffle_rewards: bool,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

mod defaults {
    pub fn one() -> usize {
        1
    }
    pub fn weight() -> f64 {
        1.0
    }
    pub fn questions_per_step() -> usize {
        32
    }
    pub fn group_size() -> usize {
        16
    }
    pub fn temperature() -> f32 {
        1.0
    }
    pub fn clip() -> super::Clip {
        super::Clip::both(10.0)
    }
    pub fn kl_beta() -> f64 {
        0.001
    }
    pub fn reference_every() -> u64 {
        400
    }
    pub fn micro_batch_tokens() -> usize {
        8192
    }
    pub fn checkpoint_every() -> u64 {
        20
    }
}

impl GrpoConfig {
    /// What is wrong with the settings, if anything: the first field, and why.
    pub(super) fn fault(&self) -> Option<String> {
        let positive = [
            ("steps", self.steps as usize),
            ("questions_per_step", self.questions_per_step),
            ("minibatches", self.minibatches),
            ("reference_every", self.reference_every as usize),
            ("micro_batch_tokens", self.micro_batch_tokens),
            ("checkpoint_every", self.checkpoint_every as usize),
        ];
        if let Some((field, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Some(format!("{field} is 0; choose at least 1"));
        }
        let (caps, rewards) = (&self.max_tokens, &self.rewards);
        let (language, overlong) = (rewards.language_consistency, rewards.overlong);
        let weights = [rewards.accuracy, rewards.format].into_iter().chain(language.map(|reward| reward.weight));
        let clips = [self.clip.low, self.clip.high];
        let rising = caps.first().is_some_and(|(step, _)| *step == 0) && caps.is_sorted_by(|a, b| a.0 < b.0);
        let reason = if self.group_size < 2 {
            "group_size must be at least 2: an advantage is relative to a group"
        } else if self.minibatches > self.questions_per_step {
            "minibatches is more than questions_per_step; a minibatch holds whole groups"
        } else if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            "temperature must be positive: greedy rollouts of a group are all the same"
        } else if !weights.chain(overlong.map(|penalty| penalty.weight)).all(|weight| (0.0..=1e3).contains(&weight)) {
            "rewards must have weights between 0 and 1000"
        } else if overlong.is_some_and(|penalty| caps.iter().any(|(_, cap)| !(1..*cap).contains(&penalty.tokens))) {
            "rewards.overlong must have tokens between 1 and what is below every cap of max_tokens"
        } else if !(clips.iter().all(|clip| *clip > 0.0 && clip.is_finite())
            && self.kl_beta >= 0.0
            && self.kl_beta.is_finite())
        {
            "clip or kl_beta is out of range; choose clip > 0 and kl_beta >= 0"
        } else if self.workers.is_some() && self.temperature != 1.0 {
            "temperature must be 1 with workers, whose log-probabilities are of that"
        } else if self.resample > 100 {
            "resample must be at most 100"
        } else if !rising || caps.iter().any(|(_, cap)| *cap == 0) {
            "max_tokens must be [[0, cap], [later step, cap], ...] with rising steps and caps above 0"
        } else if self.tasks.values().any(|share| !(*share > 0.0 && share.is_finite())) {
            "tasks must have positive shares; leave a task out to give it none"
        } else if self.eval.is_some_and(|eval| eval.every == 0 || eval.problems == 0 || eval.samples == 0) {
            "eval has a 0; leave the table out to evaluate nothing"
        } else {
            let lora = self.lora.as_ref().and_then(|lora| lora.fault_with(self.learning_rate));
            let rates = lora.or(self.learning_rate.fault()).or(self.optimizer.fault());
            let sizes = rates.or(self.schedule.fault()).or(self.engine.fault());
            let Some(fault) = sizes else { return self.workers.as_ref().and_then(WorkersConfig::fault) };
            fault
        };
        Some(reason.into())
    }

    /// What of the settings the result of the stage depends on.
    pub(crate) fn identity(&self) -> Self {
        Self { workers: self.workers.as_ref().map(WorkersConfig::identity), ..self.clone() }
    }

    /// The longest completion at a step, in tokens.
    pub fn cap(&self, step: u64) -> usize {
        let last = self.max_tokens.iter().rev().find(|(from, _)| *from <= step);
        last.map_or(1, |(_, cap)| *cap)
    }

    /// The objective that the stage minimises the negative of.
    pub fn objective(&self) -> Objective {
        Objective { clip: self.clip, kl_beta: self.kl_beta, kl: self.kl, aggregation: self.aggregation }
    }

    /// Whether the policy becomes the reference in front of a step. R1 counts updates: its steps are of 512 outputs, of which a rollout
    /// gives 16.
    ///
    /// # Paper
    /// - R1 2.2.1 and 3 (the reference is replaced every 400 steps)
    pub fn refreshes_reference(&self, step: u64) -> bool {
        let periods = |step: u64| step.saturating_mul(self.minibatches as u64) / self.reference_every;
        self.kl_beta > 0.0 && (step == 0 || periods(step) > periods(step - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_is_the_last_that_has_begun() {
        let text = "name = \"zero\"\nfrom = \"base\"\nsteps = 9\nmax_tokens = [[0, 12], [3, 48], [5, 24]]\n\
                    learning_rate = { adamw = 1e-3 }\n";
        let config: GrpoConfig = toml::from_str(text).unwrap();
        assert_eq!(config.fault(), None);
        let caps: Vec<usize> = (0..8).map(|step| config.cap(step)).collect();
        assert_eq!(caps, [12, 12, 12, 48, 48, 24, 24, 24]);
    }
    #[test]
    fn the_reference_is_counted_in_updates() {
        let text = "name = \"zero\"\nfrom = \"base\"\nsteps = 9\nmax_tokens = [[0, 12]]\nminibatches = 4\n\
                    reference_every = 10\nlearning_rate = { adamw = 1e-3 }\n";
        let config: GrpoConfig = toml::from_str(text).unwrap();
        // Four updates each: behind 12, 20 and 32 of them one, two and three tens are full.
        let steps: Vec<u64> = (0..9).filter(|step| config.refreshes_reference(*step)).collect();
        assert_eq!(steps, [0, 3, 5, 8]);
    }

    #[test]
    fn a_clip_is_a_number_or_two_sides() {
        #[derive(Deserialize, Serialize)]
        struct Line {
            clip: Clip,
        }
        for (text, clip) in
            [("clip = 0.2\n", Clip::both(0.2)), ("[clip]\nlow = 0.2\nhigh = 0.28\n", Clip { low: 0.2, high: 0.28 })]
        {
            let line: Line = toml::from_str(text).unwrap();
            assert_eq!(line.clip, clip);
            assert_eq!(toml::to_string(&line).unwrap(), text);
        }
        let refused = toml::from_str::<Line>("clip = { low = 0.2 }").err().unwrap().to_string();
        assert!(refused.contains("low and high"), "{refused}");
    }

    #[test]
    fn the_penalty_grows_over_the_last_tokens() {
        let penalty = OverlongPenalty { weight: 1.0, tokens: 4 };
        let of: Vec<f64> = [0, 12, 13, 15, 16, 20].iter().map(|&length| penalty.of(length, 16)).collect();
        assert_eq!(of, [0.0, 0.0, -0.25, -0.75, -1.0, -1.0]);
    }
}
