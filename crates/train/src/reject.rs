//! Which of a model's own answers are worth learning from? Those that are right, well formed and readable.

use std::collections::{BTreeMap, HashSet};

use minke_engine::Replicas;
use minke_eval::Verdict;
use minke_spec::ModelConfig;
use minke_text::THINK_OPEN;
use serde::{Deserialize, Serialize};

use crate::data::Example;
use crate::grpo::rollout::{Asker, sample, sampling};
use crate::grpo::types::Scored;
use crate::grpo::{EngineSizes, PromptForm, RewardWeights, reward};
use crate::record::{Logs, Metrics};
use crate::stage::{At, Context, Stage, StepRecord};
use crate::trainer::Trainer;
use crate::{Error, Result};

/// A thought that says the same so often in direct succession is a loop.
const LOOP_REPEATS: usize = 3;
/// Shorter repetitions, such as `1+1+1`, are no loops.
const LOOP_TOKENS: usize = 4;

/// A stage of rejection sampling: the model of a stage answers training questions, and what passes is kept in
/// `data.jsonl`. The model itself does not change.
///
/// # Paper
/// - R1 2.3.3 (data by rejection sampling from the checkpoint of the RL stage)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RejectConfig {
    /// Name of the stage.
    pub name: String,
    /// The stage whose model answers.
    pub from: String,
    /// Questions in all.
    pub questions: usize,
    /// Answers drawn to each.
    #[serde(default = "defaults::samples")]
    pub samples: usize,
    /// Most answers kept of each.
    #[serde(default = "defaults::keep")]
    pub keep: usize,
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

impl RejectConfig {
    /// Returns nothing if every value makes sense.
    ///
    /// # Errors
    /// Naming the field that does not.
    pub fn validate(&self) -> Result<()> {
        let counts = [
            ("questions", self.questions),
            ("samples", self.samples),
            ("keep", self.keep),
            ("max_tokens", self.max_tokens),
            ("questions_per_step", self.questions_per_step),
            ("checkpoint_every", self.checkpoint_every as usize),
        ];
        let refuse = |field: &str, why: &str| Err(Error::Config(format!("stage {}: {field} {why}", self.name)));
        if let Some((field, _)) = counts.iter().find(|(_, value)| *value == 0) {
            return refuse(field, "is 0; choose at least 1");
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return refuse("temperature", "must be positive: greedy answers to a question are all the same");
        }
        if self.tasks.values().any(|share| !(*share > 0.0 && share.is_finite())) {
            return refuse("tasks", "must have positive shares; leave a task out to give it none");
        }
        match self.engine.fault() {
            None => Ok(()),
            Some(fault) => Err(Error::Config(format!("stage {}: {fault}", self.name))),
        }
    }
}

/// Rejection sampling as the loop drives it.
pub struct Reject<'a> {
    config: &'a RejectConfig,
    context: Context<'a>,
    asker: Asker<'a>,
    engines: Replicas,
}

impl<'a> Reject<'a> {
    /// Returns the stage, ready for any of its steps.
    ///
    /// # Errors
    /// If an engine of these sizes cannot be made.
    pub fn new(context: Context<'a>, config: &'a RejectConfig, model: &ModelConfig) -> Result<Self> {
        let asker = Asker::new(&context, &config.tasks, config.prompt);
        let engines = config.engine.engines(context.device, model)?;
        Ok(Self { config, context, asker, engines })
    }
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
    fn step(&mut self, trainer: &mut Trainer, at: At, logs: &mut Logs) -> Result<StepRecord> {
        let config = self.config;
        let done = at.step as usize * config.questions_per_step;
        let count = config.questions_per_step.min(config.questions.saturating_sub(done));
        let questions = self.asker.questions(&self.context, at.cursor, count)?;
        let params = sampling(self.asker.tokenizer, config.temperature, config.max_tokens)?;
        let policy = (&trainer.model, trainer.optimizer.updates());
        let groups = sample(&mut self.engines, policy, questions, (&params, config.samples), &self.context, at.cursor)?;
        let scored = reward::score(groups, &self.asker, RewardWeights::default());
        let (mut right, mut kept, mut tokens) = (0, 0, 0);
        for group in &scored {
            let mut seen = HashSet::new();
            for output in &group.outputs {
                tokens += output.rollout.token_ids.len();
                right += usize::from(output.verdict == Verdict::Right);
                if seen.len() < config.keep && is_worth_keeping(output) && seen.insert(&output.text) {
                    let opening = if config.prompt == PromptForm::ForcedThought {
                        format!("{THINK_OPEN}\n")
                    } else {
                        String::new()
                    };
                    logs.data.append(&Example {
                        task: self.asker.task(&group.question).name.clone(),
                        id: group.question.problem.id,
                        question: group.question.problem.question.clone(),
                        completion: format!("{opening}{}", output.text),
                    })?;
                    kept += 1;
                }
            }
        }
        let drawn = (count * config.samples).max(1) as f64;
        let mut metrics = Metrics::new();
        metrics
            .set("rewards/accuracy/mean", right as f64 / drawn)
            .set("kept", kept)
            .set("kept_ratio", f64::from(kept) / drawn)
            .set("completions/mean_length", tokens as f64 / drawn)
            .set("num_tokens", tokens);
        Ok(StepRecord { metrics, timings: Metrics::new(), tokens: tokens as u64, skipped: false })
    }
}

/// Returns whether an answer is right, has exactly one thought and then an answer, ended by itself, and does not go
/// round in circles.
fn is_worth_keeping(output: &Scored) -> bool {
    output.verdict == Verdict::Right
        && output.format == 1.0
        && !output.rollout.truncated()
        && !has_loop(&output.rollout.token_ids)
}

/// Returns whether some run of tokens is repeated three times in direct succession.
///
/// # Examples
/// ```
/// use minke_train::reject::has_loop;
/// assert!(has_loop(&[9, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 8]));
/// assert!(!has_loop(&[1, 2, 3, 4, 1, 2, 3, 4, 5]));
/// ```
pub fn has_loop(token_ids: &[u32]) -> bool {
    let longest = token_ids.len() / LOOP_REPEATS;
    (LOOP_TOKENS..=longest).any(|period| {
        // A loop of this period is a run of tokens that equal the one a period before.
        let mut run = 0;
        token_ids.iter().zip(&token_ids[period..]).any(|(before, now)| {
            run = if before == now { run + 1 } else { 0 };
            run == (LOOP_REPEATS - 1) * period
        })
    })
}
