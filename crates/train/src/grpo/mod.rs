//! Group relative policy optimization: the model answers, rules say which answers are right, and what it did more than
//! usual in right ones becomes more likely.
//!
//! Read [`types`] for the nouns, then the step of the stage in the order of the paper: [`rollout`], [`reward`], [`advantage`],
//! [`loss`].

pub mod advantage;
pub mod config;
pub mod loss;
pub mod oracle;
mod record;
pub mod reward;
pub mod rollout;
pub mod types;

use std::time::Instant;

use minke_engine::Replicas;
use minke_eval::{EvalConfig, Evaluator};
use minke_model::{ExpertLoad, Transformer};
use minke_spec::ModelConfig;
use minke_tensor::{Device, Pass, backward};

pub use config::{Aggregation, EngineSizes, GrpoConfig, Objective, PromptForm, QuickEval, RewardWeights, Std};
pub use record::{GroupRecord, RolloutRecord};

use crate::lora::LoraConfig;
use crate::record::{Logs, Metrics};
use crate::stage::{Context, Progress, Stage, StageSettings, StepRecord};
use crate::trainer::{StepOutcome, Trainer, load_violation, merge_loads};
use crate::{Result, metric};
use advantage::group_relative;
use loss::Diagnostics;
use record::{Rollouts, Updates};
use rollout::{Policy, QuestionSampler};
use types::{Sample, ScoredGroup, TrainBatch};

impl StageSettings for GrpoConfig {
    fn kind(&self) -> &'static str {
        "grpo"
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn from(&self) -> Option<&str> {
        Some(&self.from)
    }

    fn lora(&self) -> Option<&LoraConfig> {
        self.lora.as_ref()
    }

    fn tasks(&self) -> Vec<&str> {
        self.tasks.keys().map(String::as_str).collect()
    }

    fn checkpoint_every(&self) -> u64 {
        self.checkpoint_every
    }

    fn fault(&self) -> Option<String> {
        self.fault()
    }

    fn trainer(&self, device: &Device, model: Transformer) -> Trainer {
        Trainer::new(device, model, self.learning_rate, self.optimizer, false)
    }

    fn start<'a>(&'a self, context: Context<'a>, model: &ModelConfig) -> Result<Box<dyn Stage + 'a>> {
        let sampler = QuestionSampler::new(context, &self.tasks, self.prompt);
        Ok(Box::new(Grpo { config: self, context, sampler, engines: self.engine.engines(context.device, model)? }))
    }
}

/// A stage of reinforcement learning at work.
struct Grpo<'a> {
    config: &'a GrpoConfig,
    context: Context<'a>,
    sampler: QuestionSampler<'a>,
    engines: Replicas,
}

impl Stage for Grpo<'_> {
    fn total_steps(&self) -> u64 {
        self.config.steps
    }

    /// Does one step of GRPO: questions, rollouts, rewards, advantages, and one or more updates.
    ///
    /// # Paper
    /// - R1 2.2.1 (the algorithm around eqs. 1-3)
    /// - Test: crates/train/tests/ratio_is_exactly_one.rs
    fn step(&mut self, trainer: &mut Trainer, progress: Progress, logs: &mut Logs) -> Result<StepRecord> {
        let config = self.config;
        let mut clock = Clock::start();
        if config.kl_beta > 0.0 && progress.step.is_multiple_of(config.reference_every) {
            trainer.reference = Some(trainer.model.clone());
        }
        let held_out = self.quick_eval(trainer, progress)?;
        clock.lap("eval");

        // 2.2.1: a group of outputs for every question, from the policy as it is.
        let questions = self.sampler.questions(progress.cursor, config.questions_per_step)?;
        let params = self.sampler.sampling(config.temperature, config.cap(progress.step))?;
        let policy = Policy { model: &trainer.model, version: trainer.optimizer.updates() };
        let (engines, cursor) = (&mut self.engines, progress.cursor);
        let groups = self.sampler.rollouts(engines, policy, questions, &params, config.group_size, cursor)?;
        clock.lap("rollout");

        // 2.2.2: rewards by rule.
        let mut scored = reward::score(groups, &self.sampler, config.rewards)?;
        if config.shuffle_rewards {
            reward::shuffle(&mut scored, &self.context, progress.cursor);
        }
        // Eq. 3: advantages; a group without any has nothing to teach.
        let advantages: Vec<Option<Vec<f64>>> = scored
            .iter()
            .map(|group| if group.usable() { group_relative(&group.rewards(), config.std) } else { None })
            .collect();
        for (group, advantages) in scored.iter().zip(&advantages) {
            let task = &self.sampler.task(&group.question).name;
            logs.rollouts.append(&GroupRecord::new(progress.step, task, group, advantages.as_deref()))?;
        }
        clock.lap("scoring");

        // Eqs. 1 and 2: the loss, and up its gradient; minibatches of whole groups, each one update.
        let inverse_temperature = params.inverse_temperature();
        let mut groups = samples(&scored, &advantages);
        self.look_up_reference(trainer, &mut groups, inverse_temperature)?;
        let rates = config.learning_rate.scaled(config.schedule.factor(progress.step, config.steps));
        let mut updates = Updates::default();
        for minibatch in minibatches(&groups, config.minibatches) {
            let (loss, seen, loads) = self.accumulate(trainer, &minibatch, inverse_temperature)?;
            let outcome = trainer.apply(loss, rates);
            if !outcome.skipped {
                trainer.balance_experts(&loads, config.bias_gamma);
            }
            updates.add(loss, outcome, seen, &loads, minibatch.len());
        }
        clock.lap("training");

        let rollouts = Rollouts::of(&scored, &advantages, config.std);
        let metrics = rollouts.metrics(&updates, rates, config.kl_beta > 0.0).followed_by(&held_out);
        let drawn = scored.iter().flat_map(|group| &group.outputs).map(|output| output.rollout.token_ids.len());
        let tokens = drawn.sum::<usize>() as u64;
        Ok(StepRecord { metrics, timings: clock.timings(tokens), tokens, skipped: updates.skipped > 0 })
    }
}

impl Grpo<'_> {
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
            let log_probs = log_probs.read();
            found.extend(batch.outputs.iter().map(|output| log_probs[output.clone()].to_vec()));
        }
        groups.iter_mut().flatten().zip(found).for_each(|(sample, found)| sample.ref_log_probs = Some(found));
        Ok(())
    }

    /// Adds the gradients of a minibatch to those of a trainer; returns its loss, and what its forwards saw.
    fn accumulate(
        &self,
        trainer: &mut Trainer,
        minibatch: &[Sample],
        inverse_temperature: f32,
    ) -> Result<(f64, Diagnostics, Vec<ExpertLoad>)> {
        let (config, objective) = (self.config, self.config.objective());
        let device = trainer.device.clone();
        let pass = Pass::recording(&device).with_recompute(config.recompute);
        let (mut loss, mut seen, mut loads) = (0.0, Diagnostics::default(), Vec::new());
        for batch in TrainBatch::pack(&device, minibatch, config.micro_batch_tokens, config.aggregation) {
            let output = trainer.model.forward(pass, &batch.batch, None, false)?;
            let hidden = output.hidden.gather_rows(pass, &batch.rows)?;
            let log_probs = trainer.model.log_probs(pass, &hidden, &batch.targets, inverse_temperature)?.log_prob;
            let part = loss::grpo(pass, &log_probs, &batch, &objective)?;
            backward(&device, &part, &mut trainer.gradients)?;
            loss += f64::from(part.item());
            seen.add(&log_probs.read(), &batch, &objective);
            merge_loads(&mut loads, output.loads);
        }
        Ok((loss, seen, loads))
    }

    /// The share of right answers to a few held-out problems of every task, if it is time for it.
    fn quick_eval(&mut self, trainer: &Trainer, progress: Progress) -> Result<Metrics> {
        let mut metrics = Metrics::new();
        let Some(quick) = self.config.eval.filter(|quick| progress.step.is_multiple_of(quick.every)) else {
            return Ok(metrics);
        };
        let config = EvalConfig {
            samples: quick.samples,
            temperature: self.config.temperature,
            max_tokens: self.config.cap(progress.step),
            force_thought: self.config.prompt == PromptForm::ForcedThought,
            greedy: false,
            seed: self.context.seed,
            ..EvalConfig::default()
        };
        let mut evaluator = Evaluator {
            engines: &mut self.engines,
            model: &trainer.model,
            tokenizer: self.sampler.tokenizer(),
            template: self.sampler.template(),
        };
        for named in self.sampler.tasks() {
            let problems = named.task.test_set(self.context.seed, quick.problems);
            let report = evaluator.evaluate(&named.name, &named.task, &problems, &config, &mut |_, _| ())?;
            metrics.set(metric::pass_at_1(&named.name), report.pass_at_1.mean);
        }
        Ok(metrics)
    }
}

impl Updates {
    fn add(&mut self, loss: f64, outcome: StepOutcome, seen: Diagnostics, loads: &[ExpertLoad], samples: usize) {
        if self.made == 0 {
            self.first = seen;
        }
        self.made += 1;
        self.loss += loss;
        self.grad_norm = outcome.grad_norm;
        self.skipped += u64::from(outcome.skipped);
        self.learned += samples;
        self.all.merge(&seen);
        self.load_violation = load_violation(loads).or(self.load_violation);
    }
}

/// What can be learned from: the samples of every group that has advantages.
fn samples(scored: &[ScoredGroup], advantages: &[Option<Vec<f64>>]) -> Vec<Vec<Sample>> {
    let of_group = |(group, advantages): (&ScoredGroup, &Option<Vec<f64>>)| {
        let advantages = advantages.as_ref()?;
        let spoken = group.outputs.iter().zip(advantages).filter(|(output, _)| !output.rollout.token_ids.is_empty());
        Some(spoken.map(|(output, &a)| Sample::new(&group.question, &output.rollout, a)).collect())
    };
    scored.iter().zip(advantages).filter_map(of_group).collect()
}

/// The samples of at most `count` minibatches, each of whole groups.
fn minibatches(groups: &[Vec<Sample>], count: usize) -> impl Iterator<Item = Vec<Sample>> {
    groups.chunks(groups.len().div_ceil(count).max(1)).map(<[_]>::concat)
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
            timings.set(metric::seconds(part), *seconds);
            if *part == "rollout" {
                timings.set(metric::ROLLOUT_TOKENS_PER_SECOND, tokens as f64 / seconds.max(1e-9));
            }
        }
        timings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minibatches_hold_every_group_once_and_whole() {
        let sample = |group: u32, member: u32| Sample {
            token_ids: vec![group, member],
            loss_mask: vec![false, true],
            old_log_probs: vec![-1.0],
            ref_log_probs: None,
            advantage: 1.0,
        };
        let groups: Vec<Vec<Sample>> = (0..7).map(|g| (0..1 + g % 3).map(|m| sample(g, m)).collect()).collect();
        for (count, sizes) in [(1, vec![7]), (2, vec![4, 3]), (3, vec![3, 3, 1]), (7, vec![1; 7])] {
            let parts: Vec<Vec<Sample>> = minibatches(&groups, count).collect();
            let groups_of = |part: &Vec<Sample>| {
                part.iter().map(|sample| sample.token_ids[0]).collect::<std::collections::BTreeSet<u32>>().len()
            };
            assert_eq!(parts.iter().map(groups_of).collect::<Vec<_>>(), sizes);
            assert_eq!(parts.concat(), groups.concat());
        }
        assert_eq!(minibatches(&[], 2).count(), 0);
    }
}
