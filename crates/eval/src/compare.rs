//! Two files of answers to the same problems, problem by problem.

use std::collections::HashMap;

use serde::Serialize;

use crate::{Answer, Error, Header, Interval, Result, Verdict};

/// How two files of answers to the same problems differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Name of the task.
    pub task: String,
    /// Problems that both have and that can be graded.
    pub problems: usize,
    /// Share of right answers of the first.
    pub before: Interval,
    /// Share of right answers of the second.
    pub after: Interval,
    /// The second less the first, with the interval of the paired difference.
    pub gain: Interval,
    /// The same with the interval of a paired bootstrap.
    pub bootstrap: Interval,
    /// Problems at which the first is better.
    pub lost: usize,
    /// Problems at which the second is better.
    pub won: usize,
}

/// Seed of the bootstrap: a comparison is a function of its files.
const SEED: u64 = 0;

/// Compares two files of answers.
///
/// # Errors
/// If they are about other problems, or an answer is missing.
pub fn compare(before: &(Header, Vec<Answer>), after: &(Header, Vec<Answer>)) -> Result<Comparison> {
    let refuse = |reason: String| Error::Compare { reason };
    let facts = |header: &Header| [("task", header.task.clone()), ("data", header.data.clone())];
    for ((fact, first), (_, second)) in facts(&before.0).into_iter().zip(facts(&after.0)) {
        if first != second {
            return Err(refuse(format!("the {fact} of the first is {first}, of the second {second}")));
        }
    }
    let (first, second) = (scores(before)?, scores(after)?);
    let names = |scores: &[Score]| scores.iter().map(|score| score.id.clone()).collect::<Vec<_>>();
    if let Some(missing) = names(&first).into_iter().find(|name| !second.iter().any(|score| score.id == *name)) {
        return Err(refuse(format!("the second has no answer to {missing}")));
    }
    if let Some(missing) = names(&second).into_iter().find(|name| !first.iter().any(|score| score.id == *name)) {
        return Err(refuse(format!("the first has no answer to {missing}")));
    }
    let of_second: HashMap<&str, &Score> = second.iter().map(|score| (score.id.as_str(), score)).collect();
    let pairs = first.iter().map(|score| (score, of_second[score.id.as_str()]));
    let usable: Vec<(&Score, &Score)> = pairs.filter(|(a, b)| a.is_usable && b.is_usable).collect();
    let left: Vec<f64> = usable.iter().map(|(score, _)| score.mean).collect();
    let right: Vec<f64> = usable.iter().map(|(_, score)| score.mean).collect();
    let clusters: Vec<u64> = usable.iter().map(|(score, _)| score.cluster).collect();
    let few = || refuse(format!("{} problems give no interval; at least 2 are needed", usable.len()));
    let interval = |scores: &[f64]| Interval::over_clusters(scores, &clusters).ok_or_else(few);
    Ok(Comparison {
        task: before.0.task.clone(),
        problems: usable.len(),
        before: interval(&left)?,
        after: interval(&right)?,
        gain: Interval::of_paired_difference(&left, &right, &clusters).ok_or_else(few)?,
        bootstrap: Interval::of_paired_bootstrap(&left, &right, &clusters, SEED).ok_or_else(few)?,
        lost: usable.iter().filter(|(a, b)| a.mean > b.mean).count(),
        won: usable.iter().filter(|(a, b)| a.mean < b.mean).count(),
    })
}

/// What the answers to one problem came to.
struct Score {
    id: String,
    cluster: u64,
    mean: f64,
    is_usable: bool,
}

/// The scores of the problems in the order in which the file first has them.
fn scores((header, answers): &(Header, Vec<Answer>)) -> Result<Vec<Score>> {
    let (mut scores, mut places): (Vec<Score>, HashMap<&str, usize>) = (Vec::new(), HashMap::new());
    let expected = header.problems.saturating_mul(header.samples);
    if answers.len() != expected || header.samples == 0 {
        let (have, model) = (answers.len(), &header.model);
        let reason = format!("{model} has {have} of {expected} answers; let its evaluation go on to its end");
        return Err(Error::Compare { reason });
    }
    for answer in answers {
        let place = *places.entry(answer.id.as_str()).or_insert(scores.len());
        if place == scores.len() {
            let cluster = answer.cluster.unwrap_or_else(|| minke_spec::draw::hash_name(&answer.id));
            scores.push(Score { id: answer.id.clone(), cluster, mean: 0.0, is_usable: true });
        }
        let score = &mut scores[place];
        score.mean += f64::from(u8::from(answer.is_right())) / header.samples as f64;
        score.is_usable &= answer.verdict != Verdict::GoldUnusable;
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(model: &str, verdicts: &[(&str, Verdict)]) -> (Header, Vec<Answer>) {
        let header = Header {
            minke: "0".into(),
            task: "t".into(),
            data: "d".into(),
            problems: verdicts.len(),
            samples: 1,
            model: model.into(),
            model_sha256: String::new(),
            config: None,
            prompts: None,
        };
        let answer = |(id, verdict): &(&str, Verdict)| Answer {
            id: (*id).into(),
            cluster: None,
            sample: 0,
            text: String::new(),
            verdict: *verdict,
            vote: None,
            format: false,
            attempts: None,
            repeats: None,
            claims_success: None,
            drawn: None,
        };
        (header, verdicts.iter().map(answer).collect())
    }

    use Verdict::{GoldUnusable, Right, Wrong};

    #[test]
    fn a_comparison_is_the_one_computed_by_hand() {
        let first = file("a", &[("1", Wrong), ("2", Right), ("3", Wrong), ("4", Right), ("5", Right), ("6", Wrong)]);
        // In another order, with one problem that cannot be graded.
        let second =
            file("b", &[("6", GoldUnusable), ("5", Right), ("4", Right), ("3", Right), ("2", Wrong), ("1", Right)]);
        let found = compare(&first, &second).unwrap();
        // Differences 1, -1, 1, 0, 0: mean 1/5, s^2 = (3 - 5/25) / 4 = 0.7, e = sqrt(0.7 / 5).
        let half = 1.959_964 * (0.7f64 / 5.0).sqrt();
        assert_eq!((found.problems, found.won, found.lost), (5, 2, 1));
        assert!((found.before.mean - 0.6).abs() < 1e-12 && (found.after.mean - 0.8).abs() < 1e-12);
        assert!((found.gain.mean - 0.2).abs() < 1e-12 && (found.gain.low - (0.2 - half)).abs() < 1e-6);
        assert!(
            (found.bootstrap.mean - 0.2).abs() < 1e-12 && found.bootstrap.low >= -0.6 && found.bootstrap.high <= 1.0
        );
        // The other way round it is the opposite.
        let back = compare(&second, &first).unwrap();
        assert!((back.gain.mean + 0.2).abs() < 1e-12 && (back.won, back.lost) == (1, 2));
    }

    #[test]
    fn files_about_other_problems_are_refused() {
        let whole = file("a", &[("1", Wrong), ("2", Right)]);
        let mut other_task = whole.clone();
        other_task.0.task = "u".into();
        let mut cut = whole.clone();
        cut.1.pop();
        let others = file("b", &[("1", Wrong), ("3", Right)]);
        let refused = [
            (&other_task, "the task of the first is t, of the second u"),
            (&cut, "a has 1 of 2 answers"),
            (&others, "the second has no answer to 2"),
        ];
        for (second, expected) in refused {
            let message = compare(&whole, second).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
