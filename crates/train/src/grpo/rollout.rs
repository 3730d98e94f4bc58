//! What does the policy say to a question? G outputs, drawn in exact mode, so that their log-probabilities are the
//! trainer's to the bit.

use minke_engine::{Engine, Finish, SamplingParams};
use minke_eval::{Problem, Split, Task, prompt};
use minke_model::Transformer;
use minke_spec::draw::{Domain, draw, hash_name};
use minke_text::{ChatTemplate, EOS, Tokenizer};

use super::config::{GrpoConfig, PromptForm};
use super::types::{Group, Question, Rollout};
use crate::{Error, Result};

/// What turns problems into prompts.
pub struct Asker<'a> {
    /// Text to ids and back.
    pub tokenizer: &'a Tokenizer,
    /// The open form of R1's template; a forced thought is appended to it.
    pub template: &'a ChatTemplate,
    /// The tasks of the stage with their shares, in the order of their names.
    pub tasks: &'a [(Task, f64)],
}

impl Asker<'_> {
    /// Returns one problem as the policy reads it.
    ///
    /// # Paper
    /// - R1 2.2.3 (the template leaves the thought to the model)
    ///
    /// # Errors
    /// If the template refuses the question.
    pub fn ask(&self, task: usize, problem: Problem, form: PromptForm) -> Result<Question> {
        let prompt = prompt(self.template, &problem.question, form == PromptForm::ForcedThought)?;
        Ok(Question { task, problem, token_ids: self.tokenizer.encode(&prompt), prompt })
    }

    /// Returns the questions of a step: a function of the run's seed, the stage and the step.
    ///
    /// # Errors
    /// If the template refuses a question.
    pub fn questions(&self, config: &GrpoConfig, seed: u64, step: usize) -> Result<Vec<Question>> {
        let stage = hash_name(&config.name);
        let total: f64 = self.tasks.iter().map(|(_, share)| share).sum();
        let question = |i: usize| {
            let mut stream = draw(seed, Domain::Data, &[stage, step as u64, i as u64]);
            let mut left = stream.uniform() * total;
            let last = self.tasks.len() - 1;
            let in_share = |(_, share): &(Task, f64)| {
                left -= share;
                left < 0.0
            };
            let task = self.tasks.iter().position(in_share).unwrap_or(last);
            let problem = self.tasks[task].0.problem(seed, Split::Train, stream.bits());
            self.ask(task, problem, config.prompt)
        };
        (0..config.questions_per_step).map(question).collect()
    }
}

/// How completions of a stage are drawn at a step.
///
/// # Errors
/// If the tokenizer has no end-of-sentence token.
pub fn sampling(tokenizer: &Tokenizer, temperature: f32, max_tokens: usize) -> Result<SamplingParams> {
    let eos = tokenizer.id_of(EOS).ok_or_else(|| Error::Config(format!("the tokenizer has no token {EOS}")))?;
    Ok(SamplingParams { temperature, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 0, max_tokens, stop_ids: vec![eos] })
}

/// Returns a group of `n` outputs of the policy for every question, in order. The seed of a group is
/// `draw(seed, Rollout, [stage, step, question])`.
///
/// # Paper
/// - R1 2.2.1 (outputs o_1 .. o_G drawn from pi_old)
///
/// # Errors
/// If the engine refuses a prompt.
pub fn sample(
    engine: &mut Engine,
    policy: &Transformer,
    questions: Vec<Question>,
    n: usize,
    params: &SamplingParams,
    (seed, stage, step): (u64, &str, usize),
) -> Result<Vec<Group>> {
    for (i, question) in questions.iter().enumerate() {
        let seed = draw(seed, Domain::Rollout, &[hash_name(stage), step as u64, i as u64]).bits();
        engine.submit(&question.token_ids, SamplingParams { seed, ..params.clone() }, n)?;
    }
    // Results come in order of submission.
    let mut completions = engine.run(policy)?.into_iter();
    let policy_version = engine.policy_version();
    let group = |question| {
        let rollouts = completions.by_ref().take(n).map(|completion| Rollout {
            token_ids: completion.token_ids,
            log_probs: completion.log_probs,
            policy_version,
            truncated: !matches!(completion.finish, Finish::Stop(_)),
        });
        Group { question, rollouts: rollouts.collect() }
    };
    Ok(questions.into_iter().map(group).collect())
}
