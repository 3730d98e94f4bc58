//! Is an answer right? Said about questions that pose a countdown problem, as those that the embedded model was trained for.

use minke_eval::Verdict;
use minke_eval::tasks::{Countdown, Gold};

/// What the grader of countdown says about an answer, and the target; nothing if the question is no such problem.
pub fn check(question: &str, answer: &str) -> Option<(Verdict, u32)> {
    let problem = Countdown::parse(question)?;
    let Gold::Countdown(gold) = &problem.gold else { return None };
    // It doubts a problem only if no whole steps lead to its target, as large as they may be.
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
