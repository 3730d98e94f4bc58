//! Rollouts: G outputs of the policy to each question, drawn in exact mode, so that their log-probabilities are the
//! trainer's to the bit.

use std::collections::BTreeMap;
use std::ops::Range;

use minke_engine::{Replicas, SamplingParams};
use minke_eval::{Prompt, prompt};
use minke_model::Transformer;
use minke_spec::draw::{Domain, draw, hash_name};
use minke_text::{ChatTemplate, Tokenizer};

use super::config::PromptForm;
use super::types::{Group, Question, Rollout};
use crate::Result;
use crate::data::NamedTask;
use crate::problems::Problems;
use crate::stage::Context;

/// The model that answers.
#[derive(Clone, Copy)]
pub struct Policy<'a> {
    /// Its weights.
    pub model: &'a Transformer,
    /// How many steps of data it has gone through.
    pub version: u64,
}

/// Draws the questions of a stage from its tasks and lets a policy answer them.
pub struct QuestionSampler<'a> {
    context: Context<'a>,
    /// R1's template in its open form, for models from random weights; a forced thought is appended to it.
    own_template: ChatTemplate,
    problems: Problems<'a>,
    form: PromptForm,
}

impl<'a> QuestionSampler<'a> {
    /// The sampler of a stage with these shares of the run's tasks; without any, all count alike.
    pub fn new(context: Context<'a>, shares: &BTreeMap<String, f64>, form: PromptForm) -> Self {
        let problems = Problems::new(context.seed, context.stage, context.tasks, shares);
        Self { context, own_template: ChatTemplate::r1_unforced(), problems, form }
    }

    /// Text to ids and back.
    pub fn tokenizer(&self) -> &'a Tokenizer {
        self.context.tokenizer
    }

    /// What makes prompts of questions.
    pub fn template(&self) -> &ChatTemplate {
        self.context.published.map_or(&self.own_template, |base| &base.template)
    }

    /// How completions are drawn: to the end tokens of the stage's model.
    ///
    /// # Errors
    /// If it has none.
    pub fn sampling(&self, temperature: f32, max_tokens: usize) -> Result<SamplingParams> {
        let stop_ids = self.context.end_ids()?;
        Ok(SamplingParams::default().with_temperature(temperature).with_max_tokens(max_tokens).with_stop_ids(stop_ids))
    }

    /// The tasks of the stage, in the order of the run.
    pub fn tasks(&self) -> impl Iterator<Item = &'a NamedTask> {
        self.problems.tasks()
    }

    /// The task of a question.
    pub fn task(&self, question: &Question) -> &'a NamedTask {
        self.problems.task(question.task)
    }

    /// The questions with these numbers of the step's data `cursor`: a function of the run's seed, the stage's name and these.
    ///
    /// # Paper
    /// - R1 2.2.3 (the template leaves the thought to the model)
    ///
    /// # Errors
    /// If the template refuses a question.
    pub fn questions(&self, cursor: u64, numbers: Range<u64>) -> Result<Vec<Question>> {
        let question = |number: u64| {
            let (task, problem) = self.problems.draw(cursor, number);
            let forced = self.form == PromptForm::ForcedThought;
            let Prompt { text, token_ids, .. } = prompt(self.template(), self.tokenizer(), &problem, forced)?;
            Ok(Question { number, task, problem, prompt: text, token_ids })
        };
        numbers.map(question).collect()
    }

    /// A group of `n` outputs of the policy for every question, in order. The seed of a group is
    /// `draw(seed, Rollout, [stage, cursor, question])`; that of `params` is not used.
    ///
    /// # Paper
    /// - R1 2.2.1 (outputs o_1 .. o_G drawn from pi_old)
    ///
    /// # Errors
    /// If the engine refuses a prompt.
    pub fn rollouts(
        &self,
        engines: &mut Replicas,
        policy: Policy<'_>,
        questions: Vec<Question>,
        params: &SamplingParams,
        n: usize,
        cursor: u64,
    ) -> Result<Vec<Group>> {
        let stage = hash_name(self.context.stage);
        for question in &questions {
            let seed = draw(self.context.seed, Domain::Rollout, &[stage, cursor, question.number]).bits();
            engines.submit(&question.token_ids, &params.clone().with_seed(seed), n)?;
        }
        // Results come in order of submission.
        let mut completions = engines.run(policy.model, |_| ())?.into_iter();
        let group = |question| {
            let rollouts = completions.by_ref().take(n).map(|completion| Rollout {
                token_ids: completion.token_ids,
                log_probs: completion.log_probs,
                entropies: completion.entropies,
                policy_version: policy.version,
                finish: completion.finish,
            });
            Group { rollouts: rollouts.collect(), question }
        };
        Ok(questions.into_iter().map(group).collect())
    }
}
