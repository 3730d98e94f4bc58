//! What does the policy say to a question? G outputs, drawn in exact mode, so that their log-probabilities are the
//! trainer's to the bit.

use std::collections::BTreeMap;

use minke_engine::{Replicas, SamplingParams};
use minke_eval::{Split, prompt};
use minke_model::Transformer;
use minke_spec::draw::{Domain, draw, hash_name};
use minke_text::{ChatTemplate, EOS, Tokenizer};

use super::config::PromptForm;
use super::types::{Group, Question, Rollout};
use crate::data::NamedTask;
use crate::stage::Context;
use crate::{Error, Result};

/// What turns problems into prompts.
pub struct Asker<'a> {
    /// Text to ids and back.
    pub tokenizer: &'a Tokenizer,
    /// R1's template in its open form; a forced thought is appended to it.
    pub template: ChatTemplate,
    /// The tasks of the stage with their shares, in the order of the run.
    pub tasks: Vec<(&'a NamedTask, f64)>,
    /// How the assistant's turn begins.
    pub form: PromptForm,
}

impl<'a> Asker<'a> {
    /// Returns the asker of a stage with these shares of the run's tasks; without any, all count alike.
    pub fn new(context: &Context<'a>, shares: &BTreeMap<String, f64>, form: PromptForm) -> Self {
        let share = |task: &'a NamedTask| match shares.is_empty() {
            true => Some((task, 1.0)),
            false => Some((task, *shares.get(&task.name)?)),
        };
        let tasks = context.tasks.iter().filter_map(share).collect();
        Self { tokenizer: context.tokenizer, template: ChatTemplate::r1_unforced(), tasks, form }
    }

    /// Returns the task of a question.
    pub fn task(&self, question: &Question) -> &'a NamedTask {
        self.tasks[question.task].0
    }

    /// Returns the questions with number `cursor` of a stage: a function of the run's seed and these.
    ///
    /// # Paper
    /// - R1 2.2.3 (the template leaves the thought to the model)
    ///
    /// # Errors
    /// If the template refuses a question.
    pub fn questions(&self, context: &Context<'_>, cursor: u64, count: usize) -> Result<Vec<Question>> {
        let total: f64 = self.tasks.iter().map(|(_, share)| share).sum();
        let question = |i: usize| {
            let mut stream = draw(context.seed, Domain::Data, &[hash_name(context.stage), cursor, i as u64]);
            let mut left = stream.uniform() * total;
            let taken = self.tasks.iter().position(|(_, share)| {
                left -= share;
                left < 0.0
            });
            let task = taken.unwrap_or(self.tasks.len() - 1);
            let problem = self.tasks[task].0.task.problem(context.seed, Split::Train, stream.bits());
            let prompt = prompt(&self.template, &problem.question, self.form == PromptForm::ForcedThought)?;
            Ok(Question { task, problem, token_ids: self.tokenizer.encode(&prompt), prompt })
        };
        (0..count).map(question).collect()
    }
}

/// How completions of a stage are drawn at a step.
///
/// # Errors
/// If the tokenizer has no end-of-sentence token.
pub fn sampling(tokenizer: &Tokenizer, temperature: f32, max_tokens: usize) -> Result<SamplingParams> {
    let eos = tokenizer.id_of(EOS).ok_or_else(|| Error::Config(format!("the tokenizer has no token {EOS}")))?;
    Ok(SamplingParams::default().with_temperature(temperature).with_max_tokens(max_tokens).with_stop_ids([eos]))
}

/// Returns a group of `n` outputs of the policy for every question, in order. The seed of a group is
/// `draw(seed, Rollout, [stage, cursor, question])`.
///
/// # Paper
/// - R1 2.2.1 (outputs o_1 .. o_G drawn from pi_old)
///
/// # Errors
/// If the engine refuses a prompt.
pub fn sample(
    engines: &mut Replicas,
    (policy, policy_version): (&Transformer, u64),
    questions: Vec<Question>,
    (params, n): (&SamplingParams, usize),
    context: &Context<'_>,
    cursor: u64,
) -> Result<Vec<Group>> {
    for (i, question) in questions.iter().enumerate() {
        let seed = draw(context.seed, Domain::Rollout, &[hash_name(context.stage), cursor, i as u64]).bits();
        engines.submit(&question.token_ids, &params.clone().with_seed(seed), n)?;
    }
    // Results come in order of submission.
    let mut completions = engines.run(policy, |_| ())?.into_iter();
    let group = |question| {
        let rollouts = completions.by_ref().take(n).map(|completion| Rollout {
            token_ids: completion.token_ids,
            log_probs: completion.log_probs,
            entropies: completion.entropies,
            policy_version,
            finish: completion.finish,
        });
        Group { rollouts: rollouts.collect(), question }
    };
    Ok(questions.into_iter().map(group).collect())
}
