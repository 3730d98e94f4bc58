//! Verdicts on answers to questions that pose a countdown problem, as those that the embedded model was trained for.

use minke_eval::Verdict;
use minke_eval::tasks::{Countdown, Gold};

/// The verdict of the grader of countdown on an answer, and the target; nothing if the question is no such problem.
pub fn check(question: &str, answer: &str) -> Option<(Verdict, u32)> {
    let problem = Countdown::parse(question)?;
    let Gold::Countdown(gold) = &problem.gold else { return None };
    // With the largest limit, a problem counts as unusable only if no whole steps lead to its target.
    let grader = Countdown { largest_intermediate: 9_999, ..Countdown::default() };
    Some((grader.grade(&problem, answer), gold.target))
}

/// A line about a verdict.
pub fn remark((verdict, target): (Verdict, u32), answer: &str) -> String {
    match verdict {
        Verdict::Right => format!("checked: {} = {target}", answer.trim()),
        Verdict::Wrong => format!("checked: wrong, that is not {target} from these numbers"),
        Verdict::GoldUnusable => format!("checked: wrong, but nothing else was found to make {target} either"),
    }
}
