//! How does a model learn to reason without being shown how? It answers, rules say which answers are right, and what it
//! did more than usual in right ones becomes more likely.
//!
//! Read [`types`] for the nouns, then `Grpo::update` in the order of the paper: [`rollout`], [`reward`], [`advantage`],
//! [`loss`].

pub mod advantage;
pub mod config;
pub mod loss;
pub mod reference;
pub mod reward;
pub mod rollout;
pub mod types;

use std::time::Instant;

use minke_engine::Replicas;
use minke_eval::{Answerer, EvalConfig, Verdict};
use minke_spec::ModelConfig;
use minke_tensor::{Pass, backward};
use serde::{Deserialize, Serialize};

pub use config::{Aggregation, EngineSizes, GrpoConfig, Objective, PromptForm, QuickEval, RewardWeights, Std};

use crate::Result;
use crate::record::{Logs, Metrics};
use crate::stage::{At, Context, Stage, StepRecord};
use crate::trainer::{StepOutcome, Trainer, load_violation, merge_loads};
use advantage::{deviation, group_relative, mean};
use loss::Diagnostics;
use rollout::Asker;
use types::{Sample, ScoredGroup, TrainBatch};

/// A stage of reinforcement learning while it runs.
pub struct Grpo<'a> {
    config: &'a GrpoConfig,
    context: Context<'a>,
    asker: Asker<'a>,
    engines: Replicas,
}

/// What the updates of a step gave, over all of them.
#[derive(Default)]
struct Updates {
    /// Mean over the updates.
    loss: f64,
    /// Of the last update.
    grad_norm: f64,
    skipped: u64,
    /// Samples that were learned from.
    learned: usize,
    all: Diagnostics,
    /// Of the first update, where the policy is still the one that drew.
    first: Diagnostics,
    load_violation: Option<f64>,
}

impl<'a> Grpo<'a> {
    /// Returns the stage, ready for any of its steps.
    ///
    /// # Errors
    /// If an engine of these sizes cannot be made.
    pub fn new(context: Context<'a>, config: &'a GrpoConfig, model: &ModelConfig) -> Result<Self> {
        let asker = Asker::new(&context, &config.tasks, config.prompt);
        let engines = config.engine.engines(context.device, model)?;
        Ok(Self { config, context, asker, engines })
    }

    /// Does one step of GRPO: questions, rollouts, rewards, advantages, and one or more updates.
    ///
    /// # Paper
    /// - R1 2.2.1 (the algorithm around eqs. 1-3)
    /// - Test: crates/train/tests/ratio_is_exactly_one.rs
    ///
    /// # Errors
    /// If a prompt does not fit the engine, or a forward fails.
    fn update(&mut self, trainer: &mut Trainer, at: At, logs: &mut Logs) -> Result<StepRecord> {
        let config = self.config;
        let mut clock = Clock::start();
        if config.kl_beta > 0.0 && at.step.is_multiple_of(config.reference_every) {
            trainer.reference = Some(trainer.model.clone());
        }
        let held_out = self.quick_eval(trainer, at)?;
        clock.lap("eval");
        let context = &self.context;

        // 2.2.1: a group of outputs for every question, from the policy as it is.
        let questions = self.asker.questions(context, at.cursor, config.questions_per_step)?;
        let params = rollout::sampling(self.asker.tokenizer, config.temperature, config.cap(at.step))?;
        let (policy, how) = ((&trainer.model, trainer.optimizer.updates()), (&params, config.group_size));
        let groups = rollout::sample(&mut self.engines, policy, questions, how, context, at.cursor)?;
        clock.lap("rollout");

        // 2.2.2: rewards by rule.
        let mut scored = reward::score(groups, &self.asker, config.rewards);
        if config.shuffle_rewards {
            reward::shuffle(&mut scored, context, at.cursor);
        }
        // Eq. 3: advantages; a group without any has nothing to teach.
        let advantages: Vec<Option<Vec<f64>>> = scored
            .iter()
            .map(|group| if group.usable() { group_relative(&group.rewards(), config.std) } else { None })
            .collect();
        self.record(&scored, &advantages, at, logs)?;
        clock.lap("scoring");

        // Eqs. 1 and 2: the loss, and up its gradient.
        let mut groups = samples(&scored, &advantages);
        self.look_up_reference(trainer, &mut groups, params.inverse_temperature())?;
        let updates = self.learn(trainer, &groups, params.inverse_temperature(), at)?;
        clock.lap("training");

        let metrics = self.metrics(&scored, &advantages, &updates, at).followed_by(&held_out);
        let drawn = scored.iter().flat_map(|group| &group.outputs).map(|output| output.rollout.token_ids.len());
        let tokens = drawn.sum::<usize>() as u64;
        Ok(StepRecord { metrics, timings: clock.timings(tokens), tokens, skipped: updates.skipped > 0 })
    }

    /// Gives every sample its log-probabilities under the reference, if that has a part in the loss.
    ///
    /// # Paper
    /// - R1 2.2.1 eq. 2 (pi_ref)
    fn look_up_reference(&self, trainer: &Trainer, groups: &mut [Vec<Sample>], inverse_temperature: f32) -> Result<()> {
        let Some(reference) = trainer.reference.as_ref().filter(|_| self.config.kl_beta > 0.0) else { return Ok(()) };
        let device = &trainer.device;
        let pass = Pass::inference(device);
        let mut found = Vec::new();
        let samples: Vec<Sample> = groups.concat();
        for batch in TrainBatch::pack(device, &samples, self.config.micro_batch_tokens, self.config.aggregation) {
            let hidden = reference.forward(pass, &batch.batch, None, false)?.hidden.gather_rows(pass, &batch.rows)?;
            let log_probs = reference.log_probs(pass, &hidden, &batch.targets, inverse_temperature)?.log_prob;
            found.extend(batch.outputs.iter().map(|output| log_probs.values()[output.clone()].to_vec()));
        }
        groups.iter_mut().flatten().zip(found).for_each(|(sample, found)| sample.ref_log_probs = Some(found));
        Ok(())
    }

    /// Makes the updates of a step: minibatches of whole groups, each one update.
    fn learn(
        &self,
        trainer: &mut Trainer,
        groups: &[Vec<Sample>],
        inverse_temperature: f32,
        at: At,
    ) -> Result<Updates> {
        let (config, objective) = (self.config, self.config.objective());
        let rates = config.learning_rate.scaled(config.schedule.factor(at.step, config.steps));
        let device = trainer.device.clone();
        let pass = Pass::recording(&device).with_recompute(config.recompute);
        let mut updates = Updates::default();
        let mut made = 0;
        for minibatch in groups.chunks(groups.len().div_ceil(config.minibatches).max(1)) {
            let samples: Vec<Sample> = minibatch.concat();
            let (mut loss, mut seen, mut loads) = (0.0, Diagnostics::default(), Vec::new());
            for batch in TrainBatch::pack(&device, &samples, config.micro_batch_tokens, config.aggregation) {
                let output = trainer.model.forward(pass, &batch.batch, None, false)?;
                let hidden = output.hidden.gather_rows(pass, &batch.rows)?;
                let log_probs = trainer.model.log_probs(pass, &hidden, &batch.targets, inverse_temperature)?.log_prob;
                let part = loss::grpo(pass, &log_probs, &batch, &objective)?;
                backward(&device, &part, &mut trainer.gradients)?;
                loss += f64::from(part.item());
                seen.add(log_probs.values(), &batch, &objective);
                merge_loads(&mut loads, output.loads);
            }
            let StepOutcome { grad_norm, skipped } = trainer.apply(loss, rates);
            if !skipped {
                trainer.balance_experts(&loads, config.bias_gamma);
            }
            if made == 0 {
                updates.first = seen;
            }
            made += 1;
            updates.loss += loss;
            updates.grad_norm = grad_norm;
            updates.skipped += u64::from(skipped);
            updates.learned += samples.len();
            updates.all.merge(&seen);
            updates.load_violation = load_violation(&loads).or(updates.load_violation);
        }
        updates.loss /= f64::from(made.max(1));
        Ok(updates)
    }

    /// Returns what the seed determines about a step, under TRL's names where it has one.
    fn metrics(&self, scored: &[ScoredGroup], advantages: &[Option<Vec<f64>>], updates: &Updates, at: At) -> Metrics {
        let config = self.config;
        let usable: Vec<&ScoredGroup> = scored.iter().filter(|group| group.usable()).collect();
        let outputs: Vec<&types::Scored> = usable.iter().flat_map(|group| &group.outputs).collect();
        let over = |value: &dyn Fn(&types::Scored) -> f64| {
            outputs.iter().map(|output| value(output)).sum::<f64>() / outputs.len().max(1) as f64
        };
        let deviations: Vec<f64> = usable.iter().map(|group| deviation(&group.rewards(), config.std)).collect();
        let flat = usable.len() - advantages.iter().flatten().count();
        let tokens: usize = outputs.iter().map(|output| output.rollout.token_ids.len()).sum();
        let entropy: f64 =
            outputs.iter().flat_map(|output| &output.rollout.entropies).map(|&entropy| f64::from(entropy)).sum();
        let share = |part: usize, of: usize| part as f64 / of.max(1) as f64;
        let rate = config.learning_rate.scaled(config.schedule.factor(at.step, config.steps));
        let (all, first) = (&updates.all, &updates.first);
        let mut metrics = Metrics::new();
        metrics
            .set("loss", updates.loss)
            .set("grad_norm", updates.grad_norm)
            .set("learning_rate", rate.muon.unwrap_or(rate.adamw))
            .set("reward", over(&|output| output.reward))
            .set("reward_std", if deviations.is_empty() { 0.0 } else { mean(&deviations) })
            .set("frac_reward_zero_std", share(flat, usable.len()))
            .set("rewards/accuracy/mean", over(&|output| output.accuracy))
            .set("rewards/format/mean", over(&|output| output.format))
            .set_if("kl", (config.kl_beta > 0.0).then(|| all.kl / all.tokens.max(1) as f64))
            .set("entropy", entropy / tokens.max(1) as f64)
            .set("clip_ratio", share(all.clipped, all.tokens))
            .set("ratio_exact", if first.tokens == 0 { 1.0 } else { share(first.exact, first.tokens) })
            .set("completions/mean_length", share(tokens, outputs.len()))
            .set("completions/clipped_ratio", over(&|output| f64::from(u8::from(output.rollout.truncated()))))
            .set("num_tokens", tokens)
            .set("attempts", over(&|output| output.attempts as f64))
            .set("learned", updates.learned)
            .set("skipped", updates.skipped)
            .set("gold_unusable", (scored.len() - usable.len()) * config.group_size)
            .set_if("expert_load/max_violation", updates.load_violation);
        metrics
    }

    /// Writes every rollout down, one line per group.
    fn record(&self, scored: &[ScoredGroup], advantages: &[Option<Vec<f64>>], at: At, logs: &mut Logs) -> Result<()> {
        for (group, advantages) in scored.iter().zip(advantages) {
            let rollout = |(i, output): (usize, &types::Scored)| RolloutRecord {
                text: output.text.clone(),
                verdict: output.verdict,
                format: output.format as u8,
                reward: output.reward as f32,
                advantage: advantages.as_ref().map_or(0.0, |advantages| advantages[i] as f32),
                tokens: output.rollout.token_ids.len(),
                truncated: output.rollout.truncated(),
            };
            logs.rollouts.append(&GroupRecord {
                step: at.step,
                task: self.asker.task(&group.question).name.clone(),
                id: group.question.problem.id,
                question: group.question.problem.question.clone(),
                rollouts: group.outputs.iter().enumerate().map(rollout).collect(),
            })?;
        }
        Ok(())
    }

    /// Returns pass@1 on a few held-out problems of every task, if it is time for it.
    fn quick_eval(&mut self, trainer: &Trainer, at: At) -> Result<Metrics> {
        let mut metrics = Metrics::new();
        let Some(quick) = self.config.eval.filter(|quick| at.step.is_multiple_of(quick.every)) else {
            return Ok(metrics);
        };
        let config = EvalConfig {
            samples: quick.samples,
            temperature: self.config.temperature,
            max_tokens: self.config.cap(at.step),
            force_thought: self.config.prompt == PromptForm::ForcedThought,
            greedy: false,
            seed: self.context.seed,
            ..EvalConfig::default()
        };
        for (named, _) in &self.asker.tasks {
            let problems = named.task.test_set(self.context.seed, quick.problems);
            let (tokenizer, template) = (self.asker.tokenizer, &self.asker.template);
            let mut answerer = Answerer { engines: &mut self.engines, model: &trainer.model, tokenizer, template };
            let report = answerer.evaluate((&named.name, &named.task), &problems, &config, &mut |_, _| ())?;
            metrics.set(format!("eval/{}/pass@1", named.name), report.pass_at_1.mean);
        }
        Ok(metrics)
    }
}

impl Stage for Grpo<'_> {
    fn total_steps(&self) -> u64 {
        self.config.steps
    }

    fn step(&mut self, trainer: &mut Trainer, at: At, logs: &mut Logs) -> Result<StepRecord> {
        self.update(trainer, at, logs)
    }
}

/// Returns what can be learned from: the samples of every group that has advantages.
fn samples(scored: &[ScoredGroup], advantages: &[Option<Vec<f64>>]) -> Vec<Vec<Sample>> {
    let of_group = |(group, advantages): (&ScoredGroup, &Option<Vec<f64>>)| {
        let advantages = advantages.as_ref()?;
        let spoken = group.outputs.iter().zip(advantages).filter(|(output, _)| !output.rollout.token_ids.is_empty());
        Some(spoken.map(|(output, &a)| Sample::new(&group.question, &output.rollout, a)).collect())
    };
    scored.iter().zip(advantages).filter_map(of_group).collect()
}

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
    /// The sum of the rewards.
    pub reward: f32,
    /// How much better than its group; 0 in groups that are not learned from.
    pub advantage: f32,
    /// Length in tokens.
    pub tokens: usize,
    /// Whether the cap cut it off.
    pub truncated: bool,
}

/// Seconds of the parts of a step.
struct Clock {
    last: Instant,
    laps: Vec<(&'static str, f64)>,
}

impl Clock {
    fn start() -> Self {
        Self { last: Instant::now(), laps: Vec::new() }
    }

    fn lap(&mut self, part: &'static str) {
        self.laps.push((part, self.last.elapsed().as_secs_f64()));
        self.last = Instant::now();
    }

    fn timings(&self, tokens: u64) -> Metrics {
        let mut timings = Metrics::new();
        for (part, seconds) in &self.laps {
            timings.set(format!("{part}_s"), *seconds);
            if *part == "rollout" {
                timings.set("rollout_tokens_per_second", tokens as f64 / seconds.max(1e-9));
            }
        }
        timings
    }
}
