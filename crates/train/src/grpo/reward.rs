//! The reward of an output: for a right answer, by the grader of its task, and for its form.

use minke_eval::{Verdict, judge};
use minke_spec::draw::{Domain, draw, hash_name};

use super::config::RewardWeights;
use super::rollout::QuestionSampler;
use super::types::{Group, Rollout, Scored, ScoredGroup};
use crate::Result;
use crate::stage::Context;

/// The groups with their rewards, by rule: a learned reward model could be hacked. An output that the cap cut off is
/// worth what it shows.
///
/// # Paper
/// - R1 2.2.2 (accuracy and format rewards)
/// - Test: crates/train/tests/rewards_follow_the_graders.rs
///
/// # Errors
/// If a program that is to be judged cannot be run.
pub fn score(groups: Vec<Group>, sampler: &QuestionSampler<'_>, weights: RewardWeights) -> Result<Vec<ScoredGroup>> {
    let score = |group: Group| {
        let (task, question) = (&sampler.task(&group.question).task, &group.question);
        let output = |rollout: Rollout| {
            let text = sampler.tokenizer().decode(&rollout.token_ids, true);
            let judged = judge(task, &question.problem, &question.prompt, &text)?;
            let accuracy = f64::from(u8::from(judged.verdict == Verdict::Right));
            let format = f64::from(u8::from(judged.thought.format_ok));
            let reward = weights.accuracy * accuracy + weights.format * format;
            Ok(Scored { rollout, text, verdict: judged.verdict, accuracy, format, attempts: judged.attempts, reward })
        };
        let outputs = group.rollouts.into_iter().map(output).collect::<Result<_>>()?;
        Ok(ScoredGroup { question: group.question, outputs })
    };
    groups.into_iter().map(score).collect()
}

/// Deals the rewards of every group out anew: the control in which there is nothing to learn.
pub fn shuffle(groups: &mut [ScoredGroup], context: &Context<'_>, cursor: u64) {
    let purpose = hash_name("shuffled rewards");
    for (i, group) in groups.iter_mut().enumerate() {
        let mut rewards = group.rewards();
        draw(context.seed, Domain::Rollout, &[hash_name(context.stage), cursor, i as u64, purpose])
            .shuffle(&mut rewards);
        for (output, reward) in group.outputs.iter_mut().zip(rewards) {
            output.reward = reward;
        }
    }
}
