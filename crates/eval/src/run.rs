//! The evaluation of a model at a task: its answers to held-out problems, graded, with the uncertainty of the score.
//!
//! Several samples of every problem are drawn at the published temperature; what is reported is the mean over samples
//! (pass@1), the chance that one of k is right (pass@k), the majority's answer (cons@k), and greedy decoding beside
//! them. Counts by problem are kept, so that two models can be compared problem by problem.

use std::collections::HashSet;
use std::sync::Arc;

use minke_engine::{Constraint, Replicas, SamplingParams};
use minke_model::Transformer;
use minke_spec::draw::{Domain, draw, hash_name};
use minke_text::{ChatTemplate, Tokenizer};

use crate::prompt::{Prompt, prompts};
use crate::{Answer, Error, EvalConfig, Problem, Result, Task, TaskReport};

/// A model with everything that is needed to grade it.
pub struct Evaluator<'a> {
    /// Decode many sequences at once.
    pub engines: &'a mut Replicas,
    /// The weights.
    pub model: &'a Transformer,
    /// Text to ids and back.
    pub tokenizer: &'a Tokenizer,
    /// Question to prompt.
    pub template: &'a ChatTemplate,
}

impl Evaluator<'_> {
    /// How good the model is at these problems of a task, reported under a name. `progress` gets the number of answers so
    /// far, and of all.
    ///
    /// # Paper
    /// - R1 3 (pass@1 as the mean over k samples, cons@k)
    /// - Test: crates/eval/tests/evaluation_counts_what_a_model_says.rs
    /// - Vector: testdata/vectors/metrics.json
    ///
    /// # Errors
    /// If there are fewer than two usable problems or no samples, a sampling parameter is out of range, or the forward fails.
    pub fn evaluate(
        &mut self,
        name: &str,
        task: &Task,
        problems: &[Problem],
        config: &EvalConfig,
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<TaskReport> {
        let prompts = prompts(self.template, self.tokenizer, task, problems, config)?;
        let total = problems.len() * (config.samples + usize::from(config.greedy));
        let mut done = 0;
        let mut answers = |evaluator: &mut Self, config: &EvalConfig| -> Result<Vec<Answer>> {
            let mut answers = Vec::new();
            let set = Questions { task, problems, prompts: &prompts, config };
            evaluator.answer(set, &HashSet::new(), &mut |answer| {
                answers.push(answer);
                done += 1;
                progress(done, total);
                Ok(())
            })?;
            Ok(answers)
        };
        let sampled = answers(self, config)?;
        let report = TaskReport::new(name, task, problems, &sampled, Some(config.clone()))?;
        if !config.greedy {
            return Ok(report);
        }
        let once = EvalConfig { samples: 1, temperature: 0.0, greedy: false, ..config.clone() };
        let greedy = TaskReport::new(name, task, problems, &answers(self, &once)?, None)?;
        Ok(TaskReport { greedy: Some(greedy.pass_at_1), ..report })
    }

    /// Answers what is asked, and grades every answer as soon as it has ended: in an order that depends on their lengths.
    /// Those in `done`, by the name of the problem and the number of the sample, are left out. An answer depends on the
    /// problem, the mode and its number alone: not on what is asked beside it.
    ///
    /// # Errors
    /// If there are no samples, a sampling parameter is out of range, or the forward fails; or the first error of
    /// `on_answer`, which ends it.
    pub fn answer(
        &mut self,
        questions: Questions<'_>,
        done: &HashSet<(String, usize)>,
        on_answer: &mut (dyn FnMut(Answer) -> Result<()> + Send),
    ) -> Result<()> {
        let Questions { task, problems, prompts, config } = questions;
        if config.samples == 0 {
            let reason = "0 samples leave nothing to score; draw at least 1".into();
            return Err(Error::Task { task: task.name(), reason });
        }
        let stop_ids = self.tokenizer.end_ids(&self.model.config().eos_token_ids);
        let bytes = prompts.iter().any(|prompt| !prompt.stops.is_empty()).then(|| bytes_of(self.tokenizer));
        let mut submitted = Vec::new();
        for (problem, prompt) in problems.iter().zip(prompts) {
            let seed = draw(config.seed, Domain::Rollout, &[hash_name("evaluation"), problem.id]).bits();
            let mut params = SamplingParams::default()
                .with_temperature(config.temperature)
                .with_top_p(config.top_p)
                .with_max_tokens(config.max_tokens)
                .with_stop_ids(stop_ids.clone());
            if let Some(bytes) = bytes.as_ref().filter(|_| !prompt.stops.is_empty()) {
                let no_end = "the tokenizer names no end token: nothing would end an answer";
                let end = stop_ids.first().ok_or(Error::Task { task: task.name(), reason: no_end.into() })?;
                params = params.with_constraint(end_at(bytes.clone(), prompt.stops, *end));
            }
            let is_open = |sample: &usize| !done.contains(&(problem.name.clone(), *sample));
            let open: Vec<usize> = (0..config.samples).filter(is_open).collect();
            let seed_of = |sample| SamplingParams::seed_of_sample(seed, sample);
            if open.len() == config.samples {
                self.engines.submit(&prompt.token_ids, &params.with_seed(seed), config.samples)?;
            } else {
                for &sample in &open {
                    self.engines.submit(&prompt.token_ids, &params.clone().with_seed(seed_of(sample)), 1)?;
                }
            }
            submitted.extend(open.into_iter().map(|sample| (problem, prompt, sample, seed_of(sample))));
        }
        let tokenizer = self.tokenizer;
        self.engines.run_each(self.model, |index, completion| {
            let (problem, prompt, sample, seed) = submitted[index];
            on_answer(Answer::drawn(task, problem, prompt, (sample, seed), &completion, tokenizer)?)
        })
    }
}

/// What is asked of a model, and how.
#[derive(Clone, Copy)]
pub struct Questions<'a> {
    /// The task.
    pub task: &'a Task,
    /// Its problems.
    pub problems: &'a [Problem],
    /// A prompt for each of them: [`prompts`].
    pub prompts: &'a [Prompt],
    /// The mode.
    pub config: &'a EvalConfig,
}

/// The bytes of every token.
type Bytes = Arc<[Box<[u8]>]>;

fn bytes_of(tokenizer: &Tokenizer) -> Bytes {
    (0..tokenizer.vocab_size()).map(|id| tokenizer.token_bytes(id as u32).into()).collect()
}

/// Ends a sequence behind the token that completes one of these texts.
fn end_at(bytes: Bytes, stops: &'static [&'static str], end: u32) -> Constraint {
    let longest = stops.iter().map(|stop| stop.len()).max().unwrap_or(0);
    Constraint::new(move |ids, mask| {
        let of = |id: &u32| bytes.get(*id as usize).map_or(&[][..], |bytes| bytes);
        // As far back as a text reaches that the last token completes.
        let mut wanted = longest + ids.last().map_or(0, |id| of(id).len());
        let mut first = ids.len();
        while first > 0 && wanted > 0 {
            first -= 1;
            wanted = wanted.saturating_sub(of(&ids[first]).len());
        }
        let tail: Vec<u8> = ids[first..].iter().flat_map(of).copied().collect();
        let is_there = |stop: &&str| tail.windows(stop.len()).any(|window| window == stop.as_bytes());
        if stops.iter().any(is_there) {
            mask.force(end);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_ends_where_a_text_is_complete_however_it_is_cut_into_tokens() {
        let bytes: Bytes = [&b""[..], b"a", b"\n", b"de", b"f", b"\ndef x"].map(Into::into).into();
        let constraint = end_at(bytes, &["\ndef", "\n#"], 0);
        let forced = |ids: &[u32]| {
            let mut words = [0];
            let mut mask = minke_engine::Mask::full(&mut words, 6);
            constraint.apply(ids, &mut mask);
            (!mask.allows(1), mask.allows(0))
        };
        for going_on in [&[][..], &[1], &[1, 2, 3], &[3, 4], &[2, 1, 3, 4]] {
            assert_eq!(forced(going_on), (false, true), "{going_on:?}");
        }
        for ended in [&[2, 3, 4][..], &[1, 1, 2, 3, 4], &[5], &[1, 5]] {
            assert_eq!(forced(ended), (true, true), "{ended:?}");
        }
    }
}
