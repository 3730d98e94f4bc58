//! How good was an output? The grader of its task says whether it is right, its form whether it thought.

use minke_eval::{Task, Verdict, judge};
use minke_spec::draw::{Domain, draw, hash_name};
use minke_text::Tokenizer;

use super::advantage::group_relative;
use super::config::GrpoConfig;
use super::types::{Group, Scored, ScoredGroup};

/// Returns the groups with rewards and advantages. No model judges: a reward that can be learned can be cheated.
///
/// A group whose problem cannot be graded, or whose rewards are all the same, has no advantages.
///
/// # Paper
/// - R1 2.2.2 (accuracy and format rewards)
/// - Test: crates/train/tests/rewards_follow_the_graders.rs
pub fn score(groups: Vec<Group>, tasks: &[(Task, f64)], tokenizer: &Tokenizer, config: &GrpoConfig) -> Vec<ScoredGroup> {
    let score = |group: Group| {
        let (task, question) = (&tasks[group.question.task].0, &group.question);
        let output = |rollout: super::types::Rollout| {
            let text = tokenizer.decode(&rollout.token_ids, true);
            let judged = judge(task, &question.problem, &question.prompt, &text);
            let accuracy = f64::from(u8::from(judged.verdict == Verdict::Right));
            let format = f64::from(u8::from(judged.thought.format_ok));
            let reward = config.rewards.accuracy * accuracy + config.rewards.format * format;
            Scored { rollout, text, verdict: judged.verdict, accuracy, format, attempts: judged.attempts, reward }
        };
        let outputs: Vec<Scored> = group.rollouts.into_iter().map(output).collect();
        let usable = outputs.iter().all(|output| output.verdict != Verdict::GoldUnusable);
        let rewards: Vec<f64> = outputs.iter().map(|output| output.reward).collect();
        let advantages = if usable { group_relative(&rewards, config.std) } else { None };
        ScoredGroup { question: group.question, outputs, advantages }
    };
    groups.into_iter().map(score).collect()
}

/// Deals the rewards of every group out anew: the control in which there is nothing to learn.
pub fn shuffle(groups: &mut [ScoredGroup], config: &GrpoConfig, seed: u64, step: usize) {
    let purpose = hash_name("shuffled rewards");
    for (i, group) in groups.iter_mut().enumerate() {
        let mut rewards: Vec<f64> = group.outputs.iter().map(|output| output.reward).collect();
        draw(seed, Domain::Rollout, &[hash_name(&config.name), step as u64, i as u64, purpose]).shuffle(&mut rewards);
        for (output, &reward) in group.outputs.iter_mut().zip(&rewards) {
            output.reward = reward;
        }
        if group.advantages.is_some() {
            group.advantages = group_relative(&rewards, config.std);
        }
    }
}
