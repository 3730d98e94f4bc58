//! Rejection sampling: of a model's answers those are kept to learn from that are right, well formed and readable. The model is one
//! of the run, or a [teacher](crate::teacher) behind an endpoint.

use std::collections::{BTreeMap, HashSet};

use minke_engine::Replicas;
use minke_eval::Verdict;
use minke_model::Transformer;
use minke_spec::ModelConfig;
use minke_tensor::Device;
use minke_text::{RepetitionRule, THINK_OPEN};
use serde::{Deserialize, Serialize};

use crate::data::Example;
use crate::grpo::rollout::{Policy, QuestionSampler};
use crate::grpo::types::Scored;
use crate::grpo::{EngineSizes, PromptForm, RewardWeights, reward};
use crate::ranks::Ranks;
use crate::record::{Logs, Metrics};
use crate::stage::{Context, Progress, Stage, StageSettings, StepRecord};
use crate::teacher::TeacherConfig;
use crate::trainer::Trainer;
use crate::{Result, metric};

/// A stage of rejection sampling: the model of a stage, or a teacher behind an endpoint, answers training questions, and what passes
/// is kept in `data.jsonl`. The model itself does not change.
///
/// # Paper
/// - R1 2.3.3 (data by rejection sampling from the checkpoint of the RL stage)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RejectConfig {
    /// Name of the stage.
    pub name: String,
    /// The stage whose model answers, or a published model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The endpoint that answers instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<TeacherConfig>,
    /// Questions in all.
    pub questions: usize,
    /// Answers drawn to each.
    #[serde(default = "defaults::samples")]
    pub samples: usize,
    /// Most answers kept of each.
    #[serde(default = "defaults::keep")]
    pub keep: usize,
    /// Whether an answer must be exactly one thought and then an answer to be kept; not for models that write no tags.
    #[serde(default = "defaults::thought", skip_serializing_if = "Clone::clone")]
    pub thought: bool,
    /// Longest answer in tokens, thought included; a longer one is not readable.
    pub max_tokens: usize,
    /// Of the sampler.
    #[serde(default = "defaults::temperature")]
    pub temperature: f32,
    /// Shares of the run's tasks, by name; all alike if there are none.
    #[serde(default)]
    pub tasks: BTreeMap<String, f64>,
    /// How the assistant's turn begins; what is kept has the opening tag either way.
    #[serde(default)]
    pub prompt: PromptForm,
    /// Questions of a step.
    #[serde(default = "defaults::questions_per_step")]
    pub questions_per_step: usize,
    /// Sizes of the engine.
    #[serde(default)]
    pub engine: EngineSizes,
    /// Steps between checkpoints.
    #[serde(default = "defaults::checkpoint_every")]
    pub checkpoint_every: u64,
}

mod defaults {
    pub fn samples() -> usize {
        4
    }
    pub fn keep() -> usize {
        1
    }
    pub fn thought() -> bool {
        true
    }
    pub fn temperature() -> f32 {
        1.0
    }
    pub fn questions_per_step() -> usize {
        128
    }
    pub fn checkpoint_every() -> u64 {
        5
    }
}

impl StageSettings for RejectConfig {
    fn kind(&self) -> &'static str {
        "reject"
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn from(&self) -> Option<&str> {
        self.from.as_deref()
    }

    fn tasks(&self) -> Vec<&str> {
        self.tasks.keys().map(String::as_str).collect()
    }

    fn trains(&self) -> bool {
        false
    }

    fn checkpoint_every(&self) -> u64 {
        self.checkpoint_every
    }

    fn fault(&self) -> Option<String> {
        let counts = [
            ("questions", self.questions),
            ("samples", self.samples),
            ("keep", self.keep),
            ("max_tokens", self.max_tokens),
            ("questions_per_step", self.questions_per_step),
            ("checkpoint_every", self.checkpoint_every as usize),
        ];
        if let Some((field, _)) = counts.iter().find(|(_, value)| *value == 0) {
            return Some(format!("{field} is 0; choose at least 1"));
        }
        let with_teacher = "belongs to a model that answers here, and the teacher is an endpoint; remove it";
        let reason = if self.from.is_some() == self.teacher.is_some() {
            "give either `from`, a model that answers here, or `teacher`, an endpoint"
        } else if let Some(fault) = self.teacher.as_ref().and_then(TeacherConfig::fault) {
            return Some(format!("teacher: {fault}"));
        } else if self.teacher.is_some() && self.prompt != PromptForm::default() {
            return Some(format!("prompt {with_teacher}"));
        } else if self.teacher.is_some() && self.engine != EngineSizes::default() {
            return Some(format!("engine {with_teacher}"));
        } else if self.teacher.is_some() && self.checkpoint_every != defaults::checkpoint_every() {
            "checkpoint_every belongs to a model that answers here; every answer of a teacher is kept as it comes: remove it"
        } else if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            "temperature must be positive: greedy answers to a question are all the same"
        } else if self.tasks.values().any(|share| !(*share > 0.0 && share.is_finite())) {
            "tasks must have positive shares; leave a task out to give it none"
        } else {
            self.engine.fault()?
        };
        Some(reason.into())
    }

    fn trainer(&self, device: &Device, model: Transformer, _ranks: &Ranks) -> Trainer {
        Trainer::frozen(device, model)
    }

    fn start<'a>(&'a self, context: Context<'a>, model: &ModelConfig) -> Result<Box<dyn Stage + 'a>> {
        let sampler = QuestionSampler::new(context, &self.tasks, self.prompt);
        Ok(Box::new(Reject { config: self, sampler, engines: self.engine.engines(context.device, model)? }))
    }
}

/// Rejection sampling at work.
struct Reject<'a> {
    config: &'a RejectConfig,
    sampler: QuestionSampler<'a>,
    engines: Replicas,
}

impl Stage for Reject<'_> {
    fn total_steps(&self) -> u64 {
        self.config.questions.div_ceil(self.config.questions_per_step) as u64
    }

    /// Asks the questions of one step and keeps what passes.
    ///
    /// # Paper
    /// - R1 2.3.3 (several answers to each prompt, only right and readable ones are kept)
    /// - Test: crates/train/tests/reject_keeps_only_right_answers.rs
    fn step(&mut self, trainer: &mut Trainer, progress: Progress, logs: &mut Logs) -> Result<StepRecord> {
        let config = self.config;
        let done = progress.step as usize * config.questions_per_step;
        let count = config.questions_per_step.min(config.questions.saturating_sub(done));
        let questions = self.sampler.questions(progress.cursor, 0..count as u64)?;
        let params = self.sampler.sampling(config.temperature, config.max_tokens)?;
        let policy = Policy { model: &trainer.model, version: trainer.optimizer.updates() };
        let sampler = &self.sampler;
        let groups =
            sampler.rollouts(&mut self.engines, policy, questions, &params, config.samples, progress.cursor)?;
        let scored = reward::score(groups, sampler, RewardWeights::default(), config.max_tokens)?;
        let (mut right, mut kept, mut tokens) = (0, 0, 0);
        for group in &scored {
            let mut seen = HashSet::new();
            for output in &group.outputs {
                tokens += output.rollout.token_ids.len();
                right += usize::from(output.verdict == Verdict::Right);
                if seen.len() < config.keep && is_worth_keeping(output, config.thought) && seen.insert(&output.text) {
                    let opening = if config.prompt == PromptForm::ForcedThought {
                        format!("{THINK_OPEN}\n")
                    } else {
                        String::new()
                    };
                    let completion = format!("{opening}{}", output.text);
                    let task = &sampler.task(&group.question).name;
                    logs.data.append(&Example::new(task, &group.question.problem, completion))?;
                    kept += 1;
                }
            }
        }
        let drawn = (count * config.samples).max(1) as f64;
        let mut metrics = Metrics::new();
        metrics
            .set(metric::ACCURACY, right as f64 / drawn)
            .set(metric::KEPT, kept)
            .set(metric::KEPT_RATIO, f64::from(kept) / drawn)
            .set(metric::MEAN_LENGTH, tokens as f64 / drawn)
            .set(metric::NUM_TOKENS, tokens);
        Ok(StepRecord { metrics, timings: Metrics::new(), tokens: tokens as u64, skipped: false, advice: None })
    }
}

/// Whether an answer is right, has exactly one thought and then an answer if that is asked for, ended by itself, and does not
/// go round in circles.
fn is_worth_keeping(output: &Scored, thought: bool) -> bool {
    output.verdict == Verdict::Right
        && (output.format == 1.0 || !thought)
        && !output.rollout.truncated()
        && !RepetitionRule::TRAINING.matches(&output.rollout.token_ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpo::types::Rollout;
    use minke_engine::Finish;

    /// An answer that is worth keeping.
    fn good() -> Scored {
        let rollout = Rollout {
            token_ids: (0..20).collect(),
            log_probs: Vec::new(),
            entropies: Vec::new(),
            policy_version: 0,
            finish: Finish::Stop(1),
        };
        let (verdict, text) = (Verdict::Right, String::new());
        Scored {
            rollout,
            text,
            verdict,
            accuracy: 1.0,
            format: 1.0,
            language: None,
            overlong: None,
            attempts: Some(1),
            reward: 2.0,
        }
    }

    #[test]
    fn what_is_wrong_badly_formed_cut_off_or_looping_is_not_kept() {
        assert!(is_worth_keeping(&good(), true));
        let with = |change: fn(&mut Scored)| {
            let mut changed = good();
            change(&mut changed);
            is_worth_keeping(&changed, true)
        };
        assert!(!with(|answer| answer.verdict = Verdict::Wrong));
        assert!(!with(|answer| answer.verdict = Verdict::GoldUnusable));
        assert!(!with(|answer| answer.format = 0.0));
        assert!(is_worth_keeping(&Scored { format: 0.0, ..good() }, false));
        assert!(!with(|answer| answer.rollout.finish = Finish::Length));
        assert!(!with(|answer| answer.rollout.token_ids = [5, 6, 7, 8].repeat(3)));
    }
}
