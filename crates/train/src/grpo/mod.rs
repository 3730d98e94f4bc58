//! Group relative policy optimization: the model answers, rules say which answers are right, and what it did more than
//! usual in right ones becomes more likely.
//!
//! Read [`types`] for the nouns, then the step of the stage in the order of the paper: [`rollout`], [`reward`], [`advantage`],
//! [`loss`].
//!
//! What differs from the papers, unless the settings say otherwise:
//!
//! * The ratio is taken by token, mean over all tokens; R1 prints whole outputs (`aggregation = "sequence"`).
//! * Rewards are divided by the standard deviation over G - 1; R1 does not say (`std`).
//! * A group whose rewards are all the same has no advantages. Its outputs count in the means all the same, and where `kl_beta` is
//!   above zero they are held near the reference; with `resample` others are drawn in its place.
//! * Minibatches are whole groups in order; R1 splits 8,192 outputs at random into 16.
//! * The reference is replaced in front of the first rollouts behind `reference_every` updates, not amid the updates of a step.
//! * A problem whose gold cannot be graded is left out and counted.
//! * Language consistency is the share of the thought's words by script ([`minke_eval::verify::language`]).

pub mod advantage;
pub mod config;
pub mod importance;
pub mod loss;
pub mod oracle;
mod reasons;
mod record;
pub mod reward;
pub mod rollout;
pub mod types;
mod workers;

use std::time::Instant;

use minke_engine::{Replicas, SamplingParams};
use minke_eval::{EvalConfig, Evaluator, Split};
use minke_model::{ExpertLoad, Transformer};
use minke_spec::ModelConfig;
use minke_tensor::{Device, Pass, TokenDistribution, backward};

pub use config::{
    Aggregation, Clip, EngineSizes, GrpoConfig, KlEstimator, LanguageReward, Objective, OverlongPenalty, PromptForm,
    QuickEval, RewardWeights, Std,
};
pub use reasons::{Finding, Reason, Tally};
pub use record::{GroupRecord, RolloutRecord};
pub use workers::config::WorkersConfig;

use crate::lora::LoraConfig;
use crate::ranks::Ranks;
use crate::record::{Logs, Metrics};
use crate::stage::{Context, Progress, Stage, StageSettings, StepRecord};
use crate::trainer::{StepOutcome, Trainer, load_violation, merge_loads};
use crate::{Error, Result, metric};
use advantage::group_relative;
use importance::Ratios;
use loss::Diagnostics;
use reasons::Watch;
use record::{Rollouts, Updates, drawn_elsewhere};
use rollout::{Policy, QuestionSampler};
use types::{Group, Question, Sample, Scored, ScoredGroup, Totals, TrainBatch};
use workers::{Asked, Pool};

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

    fn trainer(&self, device: &Device, model: Transformer, _ranks: &Ranks) -> Trainer {
        Trainer::new(device, model, self.learning_rate, self.optimizer, false)
    }

    fn start<'a>(&'a self, context: Context<'a>, model: &ModelConfig) -> Result<Box<dyn Stage + 'a>> {
        let sampler = QuestionSampler::new(context, &self.tasks, self.prompt);
        let engines = self.engine.engines(context.device, model)?;
        let pool = |workers| Pool::new(workers, context, model.vocab_size);
        let workers = self.workers.as_ref().map(pool).transpose()?;
        Ok(Box::new(Grpo { config: self, context, sampler, engines, workers, watch: Watch::default() }))
    }
}

/// A stage of reinforcement learning at work.
struct Grpo<'a> {
    config: &'a GrpoConfig,
    context: Context<'a>,
    sampler: QuestionSampler<'a>,
    engines: Replicas,
    /// Who draws the rollouts in place of the engines, if that is somebody else.
    workers: Option<Pool<'a>>,
    watch: Watch,
}

/// The groups of a step in the order of their questions, each with its advantages if it has any.
type Graded = (Vec<ScoredGroup>, Vec<Option<Vec<f64>>>);

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
        if config.refreshes_reference(progress.step) {
            trainer.reference = Some(trainer.model.clone());
        }
        let held_out = self.quick_eval(trainer, progress)?;
        clock.lap("eval");

        let params = self.sampler.sampling(config.temperature, config.cap(progress.step))?;
        if let Some(workers) = &mut self.workers {
            workers.begin(progress);
        }
        let (scored, advantages) = self.graded_rollouts(trainer, progress, &params, &mut clock)?;
        for (group, advantages) in scored.iter().zip(&advantages) {
            let task = &self.sampler.task(&group.question).name;
            logs.rollouts.append(&GroupRecord::new(progress.step, task, group, advantages.as_deref()))?;
        }
        clock.lap("scoring");
        self.look_ahead(trainer, progress)?;
        clock.lap("rollout");

        // Eqs. 1 and 2: the loss, and up its gradient; minibatches of whole groups, each one update.
        let inverse_temperature = params.inverse_temperature();
        let mut lessons = lessons(config, &scored, &advantages, config.cap(progress.step));
        let drawn = self.look_up_old(trainer, &mut lessons, inverse_temperature)?;
        self.look_up_reference(trainer, &mut lessons, inverse_temperature)?;
        let rates = config.learning_rate.scaled(config.schedule.factor(progress.step, config.steps));
        let mut updates = Updates::default();
        for minibatch in minibatches(&lessons, config.minibatches) {
            let (loss, seen, loads) = self.accumulate(trainer, &minibatch, inverse_temperature)?;
            let outcome = trainer.apply(loss, rates)?;
            if !outcome.skipped {
                trainer.balance_experts(&loads, config.bias_gamma);
            }
            updates.add(loss, outcome, seen, &loads, minibatch.learned);
        }
        clock.lap("training");

        let mut rollouts = Rollouts::of(&scored, &advantages, config.std);
        let mut elsewhere = Metrics::new();
        if let Some((ratios, entropy)) = drawn {
            rollouts.entropy = entropy;
            elsewhere = drawn_elsewhere(&scored, progress.cursor, &ratios);
        }
        let metrics = rollouts.metrics(&updates, rates, config.kl_beta > 0.0);
        let metrics = metrics.followed_by(&elsewhere).followed_by(&held_out);
        let trouble = self.workers.as_ref().and_then(Pool::trouble);
        let advice = self.watch.step(&metrics, config).or(trouble);
        let drawn = scored.iter().flat_map(|group| &group.outputs).map(|output| output.rollout.token_ids.len());
        let tokens = drawn.sum::<usize>() as u64;
        let mut timings = clock.timings(tokens);
        if let Some(workers) = &mut self.workers {
            timings = timings.followed_by(&workers.timings());
        }
        Ok(StepRecord { metrics, timings, tokens, skipped: updates.skipped > 0, advice })
    }
}

impl Grpo<'_> {
    /// The groups of a step. Where the settings say so, questions whose rewards are all the same make room for others.
    ///
    /// # Paper
    /// - R1 2.2.1 and 2.2.2
    /// - DAPO 3.2 (dynamic sampling)
    fn graded_rollouts(
        &mut self,
        trainer: &Trainer,
        progress: Progress,
        params: &SamplingParams,
        clock: &mut Clock,
    ) -> Result<Graded> {
        let (config, cursor) = (self.config, progress.cursor);
        let (mut all, mut advantages): Graded = Default::default();
        for _ in 0..=config.resample {
            let missing = config.questions_per_step - advantages.iter().flatten().count();
            if missing == 0 {
                break;
            }
            // A group of outputs for every question, from the policy as it is.
            let first = all.len() as u64;
            let questions = self.sampler.questions(cursor, first..first + missing as u64)?;
            let groups = self.groups(trainer, questions, params, cursor)?;
            clock.lap("rollout");

            // Rewards by rule, and eq. 3.
            let mut scored = reward::score(groups, &self.sampler, config.rewards, config.cap(progress.step))?;
            if config.shuffle_rewards {
                reward::shuffle(&mut scored, &self.context, cursor);
            }
            let relative =
                |group: &ScoredGroup| group_relative(&group.rewards(), config.std).filter(|_| group.usable());
            advantages.extend(scored.iter().map(relative));
            all.extend(scored);
            clock.lap("scoring");
        }
        Ok((all, advantages))
    }

    /// A group of outputs for every question, by the policy as it is, or by workers and a policy that is not much older.
    fn groups(
        &mut self,
        trainer: &Trainer,
        questions: Vec<Question>,
        params: &SamplingParams,
        cursor: u64,
    ) -> Result<Vec<Group>> {
        let (policy, n) = (Policy { model: &trainer.model, version: cursor }, self.config.group_size);
        match &mut self.workers {
            Some(workers) => workers.groups(policy, questions, Asked { params, n, cursor }),
            None => self.sampler.rollouts(&mut self.engines, policy, questions, params, n, cursor),
        }
    }

    /// Has workers draw the rollouts of the next step while this one is trained, if the policy of this one may.
    fn look_ahead(&mut self, trainer: &Trainer, progress: Progress) -> Result<()> {
        let (config, next) = (self.config, progress.step + 1);
        let Some(workers) = self.workers.as_mut().filter(|workers| workers.looks_ahead() && next < config.steps) else {
            return Ok(());
        };
        let (cursor, n) = (progress.cursor + 1, config.group_size);
        let questions = self.sampler.questions(cursor, 0..config.questions_per_step as u64)?;
        let params = &self.sampler.sampling(config.temperature, config.cap(next))?;
        let policy = Policy { model: &trainer.model, version: progress.cursor };
        workers.ask(policy, &questions, Asked { params, n, cursor })
    }

    /// Gives every sample that a worker drew its log-probabilities under the policy as it is, and its importance weights; returns what
    /// these were like, and the mean entropy of that policy's distributions.
    fn look_up_old(
        &self,
        trainer: &Trainer,
        lessons: &mut [Lesson],
        inverse_temperature: f32,
    ) -> Result<Option<(Ratios, f64)>> {
        let Some(workers) = &self.config.workers else { return Ok(None) };
        let aggregation = self.config.aggregation;
        let (found, entropy) = self.look_up(trainer, &trainer.model, lessons, inverse_temperature)?;
        let mut seen = Ratios::default();
        for (sample, old) in lessons.iter_mut().flat_map(|lesson| &mut lesson.samples).zip(found) {
            let drawn = std::mem::replace(&mut sample.old_log_probs, old);
            let old = &sample.old_log_probs;
            seen.add(&importance::ratios(old, &drawn, aggregation), workers.max_ratio);
            sample.importance = Some(importance::truncated(old, &drawn, aggregation, workers.max_ratio));
        }
        Ok(Some((seen, entropy)))
    }

    /// Gives every sample its log-probabilities under the reference, if that has a part in the loss.
    ///
    /// # Paper
    /// - R1 2.2.1 eq. 2 (pi_ref)
    fn look_up_reference(&self, trainer: &Trainer, lessons: &mut [Lesson], inverse_temperature: f32) -> Result<()> {
        let Some(reference) = trainer.reference.as_ref().filter(|_| self.config.kl_beta > 0.0) else { return Ok(()) };
        let (found, _) = self.look_up(trainer, reference, lessons, inverse_temperature)?;
        let samples = lessons.iter_mut().flat_map(|lesson| &mut lesson.samples);
        samples.zip(found).for_each(|(sample, found)| sample.ref_log_probs = Some(found));
        Ok(())
    }

    /// The log-probabilities of all samples under a model, and the mean entropy of its distributions.
    fn look_up(
        &self,
        trainer: &Trainer,
        model: &Transformer,
        lessons: &[Lesson],
        inverse_temperature: f32,
    ) -> Result<(Vec<Vec<f32>>, f64)> {
        let device = &trainer.device;
        let pass = Pass::inference(device);
        let (mut found, mut entropy, mut tokens) = (Vec::new(), 0.0, 0);
        let Lesson { samples, totals, .. } = Lesson::of(lessons);
        for batch in TrainBatch::pack(device, &samples, totals, self.config.micro_batch_tokens, self.config.aggregation)
        {
            let hidden = model.forward(pass, &batch.batch, None, false)?.hidden.gather_rows(pass, &batch.rows)?;
            let TokenDistribution { log_prob, entropy: entropies } =
                model.log_probs(pass, &hidden, &batch.targets, inverse_temperature)?;
            let log_probs = log_prob.read();
            entropy += entropies.read().iter().map(|&nats| f64::from(nats)).sum::<f64>();
            tokens += log_probs.len();
            found.extend(batch.outputs.iter().map(|output| log_probs[output.clone()].to_vec()));
        }
        Ok((found, entropy / tokens.max(1) as f64))
    }

    /// Adds the gradients of a minibatch to those of a trainer; returns its loss, and what its forwards saw.
    fn accumulate(
        &self,
        trainer: &mut Trainer,
        minibatch: &Lesson,
        inverse_temperature: f32,
    ) -> Result<(f64, Diagnostics, Vec<ExpertLoad>)> {
        let (config, objective) = (self.config, self.config.objective());
        let device = trainer.device.clone();
        let pass = Pass::recording(&device).with_recompute(config.recompute);
        let (mut loss, mut seen, mut loads) = (0.0, Diagnostics::default(), Vec::new());
        let Lesson { samples, totals, .. } = minibatch;
        for batch in TrainBatch::pack(&device, samples, *totals, config.micro_batch_tokens, config.aggregation) {
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
            let problems = named.task.problem_set(Split::Validation, self.context.seed, quick.problems);
            if problems.is_empty() {
                let advice = "name a file of them as validation in the task's table, or leave eval out";
                return Err(Error::Config(format!("task {}: it has no problems for eval; {advice}", named.name)));
            }
            let report = evaluator.evaluate(&named.name, &named.task, &problems, &config, &mut |_, _| ())?;
            metrics.set(metric::pass_at_1(&named.name), report.pass_at_1.mean);
        }
        Ok(metrics)
    }
}

impl Updates {
    fn add(&mut self, loss: f64, outcome: StepOutcome, seen: Diagnostics, loads: &[ExpertLoad], learned: usize) {
        if self.made == 0 {
            self.first = seen;
        }
        self.made += 1;
        self.loss += loss;
        self.grad_norm = outcome.grad_norm;
        self.skipped += u64::from(outcome.skipped);
        self.learned += learned;
        self.all.merge(&seen);
        self.load_violation = load_violation(loads).or(self.load_violation);
    }
}

/// What an update, or a group's part of it, learns from.
#[derive(Clone, Default)]
struct Lesson {
    samples: Vec<Sample>,
    /// What the weights of the update are shares of.
    totals: Totals,
    /// Samples of groups with advantages.
    learned: usize,
}

impl Lesson {
    /// Those of groups together.
    fn of(groups: &[Self]) -> Self {
        let mut sum = Self::default();
        for Self { samples, totals: Totals { outputs, tokens, cap }, learned } in groups {
            sum.samples.extend_from_slice(samples);
            let Totals { outputs: had, tokens: had_tokens, .. } = sum.totals;
            sum.totals = Totals { outputs: had + outputs, tokens: had_tokens + tokens, cap: *cap };
            sum.learned += learned;
        }
        sum
    }
}

/// What the updates of a step learn from. A group without advantages has nothing to teach, but its outputs count in the means, and
/// where the settings say so they are held near the reference; one that others were drawn for is left out.
fn lessons(config: &GrpoConfig, scored: &[ScoredGroup], advantages: &[Option<Vec<f64>>], cap: usize) -> Vec<Lesson> {
    let lesson = |(group, advantages): (&ScoredGroup, &Option<Vec<f64>>)| {
        if !group.usable() || (advantages.is_none() && config.resample > 0) {
            return None;
        }
        let spoken = || group.outputs.iter().enumerate().filter(|(_, output)| !output.rollout.token_ids.is_empty());
        let totals = Totals::of(spoken().map(|(_, output)| output.rollout.token_ids.len()), cap);
        let sample = |(i, output): (usize, &Scored)| {
            let advantage = match advantages {
                Some(advantages) => advantages[i],
                None if config.kl_beta > 0.0 => 0.0,
                None => return None,
            };
            Some(Sample::new(&group.question, &output.rollout, advantage))
        };
        let samples: Vec<Sample> = spoken().filter_map(sample).collect();
        Some(Lesson { learned: if advantages.is_some() { samples.len() } else { 0 }, samples, totals })
    };
    scored.iter().zip(advantages).filter_map(lesson).collect()
}

/// At most `count` minibatches, each of whole groups; one without samples is no update.
fn minibatches(groups: &[Lesson], count: usize) -> impl Iterator<Item = Lesson> {
    let parts = groups.chunks(groups.len().div_ceil(count).max(1)).map(Lesson::of);
    parts.filter(|minibatch| !minibatch.samples.is_empty())
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
        let seconds = self.last.elapsed().as_secs_f64();
        match self.laps.iter_mut().find(|(name, _)| *name == part) {
            Some((_, sum)) => *sum += seconds,
            None => self.laps.push((part, seconds)),
        }
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
    use super::types::{Question, Rollout};
    use super::*;
    use crate::data::NamedTask;
    use minke_engine::Finish;
    use minke_eval::{TrainingProblem, Verdict};

    /// A group of two outputs of so many tokens, with these rewards.
    fn group(number: u64, verdict: Verdict, rewards: [f64; 2]) -> ScoredGroup {
        let named: NamedTask = toml::from_str("name = \"c\"\nfamily = \"countdown\"\ncounts = [3]\n").unwrap();
        let problem = TrainingProblem::draw(&named.task, 1, number);
        let question = Question { number, task: 0, problem, prompt: String::new(), token_ids: vec![1, 2] };
        let output = |(i, reward): (usize, f64)| Scored {
            rollout: Rollout {
                token_ids: vec![7; 3 + i],
                log_probs: vec![-1.0; 3 + i],
                entropies: Vec::new(),
                policy_version: 0,
                finish: Finish::Length,
            },
            text: String::new(),
            verdict,
            accuracy: reward,
            format: 0.0,
            language: None,
            overlong: None,
            attempts: None,
            reward,
        };
        ScoredGroup { question, outputs: rewards.into_iter().enumerate().map(output).collect() }
    }

    #[test]
    fn flat_groups_count_and_are_held_or_replaced() {
        let text =
            "name = \"zero\"\nfrom = \"base\"\nsteps = 9\nmax_tokens = [[0, 12]]\nlearning_rate = { adamw = 1e-3 }\n";
        let of = |more: &str| toml::from_str::<GrpoConfig>(&format!("{text}{more}")).unwrap();
        let groups = [
            group(0, Verdict::Right, [1.0, 0.0]),
            group(1, Verdict::Right, [1.0, 1.0]),
            group(2, Verdict::GoldUnusable, [0.0, 0.0]),
        ];
        let advantages = [Some(vec![0.5, -0.5]), None, None];
        let all = Totals { outputs: 4, tokens: 14, cap: 12 };
        for (more, totals, of_samples) in [
            ("kl_beta = 0.0", all, vec![0.5, -0.5]),
            ("kl_beta = 0.1", all, vec![0.5, -0.5, 0.0, 0.0]),
            ("kl_beta = 0.1\nresample = 1", Totals { outputs: 2, tokens: 7, cap: 12 }, vec![0.5, -0.5]),
        ] {
            let sum = Lesson::of(&lessons(&of(more), &groups, &advantages, 12));
            let have: Vec<f64> = sum.samples.iter().map(|sample| sample.advantage).collect();
            assert_eq!((sum.totals, have, sum.learned), (totals, of_samples, 2), "{more}");
        }
    }

    #[test]
    fn minibatches_hold_every_group_once_and_whole() {
        let sample = |group: u32, member: u32| Sample {
            token_ids: vec![group, member],
            loss_mask: vec![false, true],
            old_log_probs: vec![-1.0],
            importance: None,
            ref_log_probs: None,
            advantage: 1.0,
        };
        let lesson = |g: u32| {
            let samples: Vec<Sample> = (0..1 + g % 3).map(|m| sample(g, m)).collect();
            Lesson { learned: samples.len(), totals: Totals::of(samples.iter().map(|_| 1), 9), samples }
        };
        let mut groups: Vec<Lesson> = (0..7).map(lesson).collect();
        let all = Lesson::of(&groups);
        for (count, sizes) in [(1, vec![7]), (2, vec![4, 3]), (3, vec![3, 3, 1]), (7, vec![1; 7])] {
            let parts: Vec<Lesson> = minibatches(&groups, count).collect();
            let groups_of = |part: &Lesson| {
                part.samples.iter().map(|sample| sample.token_ids[0]).collect::<std::collections::BTreeSet<u32>>().len()
            };
            assert_eq!(parts.iter().map(groups_of).collect::<Vec<_>>(), sizes);
            assert_eq!(Lesson::of(&parts).samples, all.samples);
        }
        // A group without samples counts in the means of its minibatch, and is none by itself.
        (groups[6].samples, groups[6].learned) = (Vec::new(), 0);
        let parts: Vec<Lesson> = minibatches(&groups, 2).collect();
        assert_eq!((parts.len(), Lesson::of(&parts).totals), (2, all.totals));
        assert_eq!(minibatches(&groups, 7).count(), 6);
        assert_eq!(minibatches(&[], 2).count(), 0);
    }
}
