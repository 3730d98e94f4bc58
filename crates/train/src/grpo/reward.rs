//! The reward of an output: for a right answer, by the grader of its task, and for its form.

use minke_eval::verify::language::share;
use minke_eval::{Verdict, judge};
use minke_spec::draw::{Domain, draw, hash_name};

use super::config::RewardWeights;
use super::rollout::QuestionSampler;
use super::types::{Group, Rollout, Scored, ScoredGroup};
use crate::Result;
use crate::stage::Context;

/// The groups with their rewards, by rule: a learned reward model could be hacked. An output that the cap cut off is
/// worth what it shows, less what the penalty for long ones takes. `cap` is the longest allowed.
///
/// # Paper
/// - R1 2.2.2 (accuracy and format rewards)
/// - R1 2.3.2 (language consistency: the share of the thought's words)
/// - Test: crates/train/tests/rewards_follow_the_graders.rs
///
/// # Errors
/// If a program that is to be judged cannot be run.
pub fn score(
    groups: Vec<Group>,
    sampler: &QuestionSampler<'_>,
    weights: RewardWeights,
    cap: usize,
) -> Result<Vec<ScoredGroup>> {
    let score = |group: Group| {
        let (task, question) = (&sampler.task(&group.question).task, &group.question);
        let output = |rollout: Rollout| {
            let text = sampler.tokenizer().decode(&rollout.token_ids, true);
            let judged = judge(task, &question.problem, &question.prompt, &text)?;
            let accuracy = f64::from(u8::from(judged.verdict == Verdict::Right));
            let format = f64::from(u8::from(judged.thought.format_ok));
            let words = judged.thought.reasoning.as_deref().unwrap_or(&text);
            let language = weights.language_consistency.map(|of| (of.weight, share(words, of.language)));
            let overlong = weights.overlong.map(|of| (of.weight, of.of(rollout.token_ids.len(), cap)));
            let parts =
                [(weights.accuracy, accuracy), (weights.format, format)].into_iter().chain(language).chain(overlong);
            Ok(Scored {
                reward: parts.map(|(weight, part)| weight * part).sum(),
                verdict: judged.verdict,
                attempts: judged.attempts,
                language: language.map(|(_, share)| share),
                overlong: overlong.map(|(_, penalty)| penalty),
                rollout,
                text,
                accuracy,
                format,
            })
        };
        let outputs = group.rollouts.into_iter().map(output).collect::<Result<_>>()?;
        Ok(ScoredGroup { question: group.question, outputs })
    };
    groups.into_iter().map(score).collect()
}

/// Deals the rewards of every group out anew: the control in which there is nothing to learn.
pub fn shuffle(groups: &mut [ScoredGroup], context: &Context<'_>, cursor: u64) {
    let purpose = hash_name("shuffled rewards");
    for group in groups.iter_mut() {
        let (mut rewards, number) = (group.rewards(), group.question.number);
        draw(context.seed, Domain::Rollout, &[hash_name(context.stage), cursor, number, purpose]).shuffle(&mut rewards);
        for (output, reward) in group.outputs.iter_mut().zip(rewards) {
            output.reward = reward;
        }
    }
}
