//! What can be had without a model, beside which a score stands: a blind search whose checks are perfect, one that never
//! repeats an attempt, and one answer to every question.

use std::collections::BTreeMap;

use minke_spec::draw::{Domain, draw, hash_name};
use serde::{Deserialize, Serialize};

use super::{Gold, Guess, Problem, Task};
use crate::Interval;

/// Searches without repetition that are tried at a problem.
const SEARCHES: usize = 128;
/// Attempts beyond which a blind search is not followed.
const MOST_ATTEMPTS: f64 = 1e6;

/// What blind searches come to at the problems of a task, beside a model that made so many attempts. A blind search draws its
/// attempts at random, as the noisy demonstrations of the task do, remembers none of them, and knows which one is right.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchBaseline {
    /// Attempts that the searches make at every problem: those of the model in the mean, where an answer without any counts
    /// as one.
    pub attempts: f64,
    /// The share of problems that a blind search solves with them.
    pub blind: f64,
    /// By how much the model is better, with the interval of the paired difference.
    pub gain: Interval,
    /// The share that a search solves which makes no attempt twice.
    pub without_repeats: f64,
    /// Attempts that a blind search makes in the mean which ends when it is right, and is right as often as the model;
    /// nothing if none is.
    pub attempts_as_right: Option<f64>,
}

impl SearchBaseline {
    /// The baselines of a model with these shares of right answers and clusters by problem; nothing for a task without
    /// search, or fewer than two clusters.
    pub(crate) fn new(
        task: &Task,
        problems: &[&Problem],
        attempts: f64,
        scores: &[f64],
        clusters: &[u64],
    ) -> Option<Self> {
        let searches: Option<Vec<Search>> = problems.iter().map(|problem| Search::at(task, problem)).collect();
        let searches = searches?;
        let mean = |of: &dyn Fn(&Search) -> f64| searches.iter().map(of).sum::<f64>() / searches.len() as f64;
        let blind: Vec<f64> = searches.iter().map(|search| search.solved(attempts)).collect();
        let score = scores.iter().sum::<f64>() / scores.len() as f64;
        Some(Self {
            attempts,
            blind: mean(&|search| search.solved(attempts)),
            gain: Interval::of_paired_difference(&blind, scores, clusters)?,
            without_repeats: mean(&|search| search.solved_without_repeats(attempts)),
            attempts_as_right: attempts_for(score, |most| mean(&|search| search.solved(most)))
                .map(|most| mean(&|search| search.attempts(most))),
        })
    }
}

/// The most attempts with which a share of problems is solved, given how the share rises with them.
fn attempts_for(share: f64, solved: impl Fn(f64) -> f64) -> Option<f64> {
    let (mut low, mut high) = (0.0, MOST_ATTEMPTS);
    if solved(high) < share {
        return None;
    }
    while high - low > 1e-9 * high {
        let middle = (low + high) / 2.0;
        (low, high) = if solved(middle) < share { (middle, high) } else { (low, middle) };
    }
    Some(high)
}

/// The search at one problem.
struct Search {
    /// How likely an attempt is right.
    hit: f64,
    /// In every search without repetition the number of the first right attempt, in rising order.
    firsts: Vec<usize>,
}

impl Search {
    fn at(task: &Task, problem: &Problem) -> Option<Self> {
        Some(Self::new(&task.guesses(problem)?, problem.id))
    }

    fn new(guesses: &[Guess], seed: u64) -> Self {
        let mut stream = draw(seed, Domain::Data, &[hash_name("blind search")]);
        let mut first = |_| {
            // Times that are exponential with the chances as rates are in the order of draws without repetition.
            let time = |guess: &Guess| (-(1.0 - stream.uniform()).ln() / guess.chance, guess.is_right);
            let times: Vec<(f64, bool)> = guesses.iter().map(time).collect();
            let right = times.iter().filter(|time| time.1).map(|time| time.0).fold(f64::INFINITY, f64::min);
            if right.is_infinite() { usize::MAX } else { 1 + times.iter().filter(|time| time.0 < right).count() }
        };
        let mut firsts: Vec<usize> = (0..SEARCHES).map(&mut first).collect();
        firsts.sort_unstable();
        let hit = guesses.iter().filter(|guess| guess.is_right).map(|guess| guess.chance).sum();
        Self { hit, firsts }
    }

    /// How likely it is right within so many attempts.
    fn solved(&self, attempts: f64) -> f64 {
        1.0 - (1.0 - self.hit).powf(attempts)
    }

    /// The attempts that it makes in the mean if it ends when it is right, and after so many at most.
    fn attempts(&self, most: f64) -> f64 {
        if self.hit > 0.0 { self.solved(most) / self.hit } else { most }
    }

    /// How likely it is right within so many attempts if it makes none twice.
    fn solved_without_repeats(&self, attempts: f64) -> f64 {
        let share = |most: usize| self.firsts.partition_point(|&first| first <= most) as f64 / SEARCHES as f64;
        let whole = attempts.floor();
        let (low, high) = (share(whole as usize), share(whole as usize + 1));
        low + (high - low) * (attempts - whole)
    }
}

/// The answer that is right at most of the problems, and at what share of them: what a program could score that does not read
/// its questions. Of answers that are right equally often it is the one that sorts first. Nothing where programs are asked for
/// that a search would not find.
pub(crate) fn best_constant(task: &Task, problems: &[&Problem]) -> Option<(String, f64)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for problem in problems {
        for answer in right_answers(task, problem)? {
            *counts.entry(answer).or_default() += 1;
        }
    }
    let most = counts.values().copied().max()?;
    let best = counts.into_iter().find(|(_, count)| *count == most)?;
    Some((best.0, most as f64 / problems.len() as f64))
}

/// Answers that are right at a problem.
fn right_answers(task: &Task, problem: &Problem) -> Option<Vec<String>> {
    match &problem.gold {
        Gold::Math(gold) => Some(vec![gold.clone()]),
        Gold::Arithmetic(gold) => Some(vec![gold.value().to_string()]),
        Gold::Code(_) => None,
        Gold::Countdown(_) | Gold::Programs(_) => {
            let right = task.guesses(problem)?.into_iter().filter(|guess| guess.is_right);
            Some(right.map(|guess| guess.answer).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Split;
    use crate::tasks::{Arithmetic, Countdown, Programs};

    fn countdown(question: &str) -> Problem {
        Countdown::parse(question).unwrap()
    }

    #[test]
    fn chances_are_those_of_an_enumeration_by_hand() {
        // 3 and 2: 5, 1 and 6, each with a third; 6 and 2: 8, 4, 12 and 3, each with a quarter.
        for (question, hit) in [("make 6 from 2 3", 1.0 / 3.0), ("make 3 from 6 2", 0.25), ("make 9 from 2 3", 0.0)] {
            let search = Search::at(&Task::Countdown(Countdown::default()), &countdown(question)).unwrap();
            assert!((search.hit - hit).abs() < 1e-12, "{question}: {}", search.hit);
            assert!((search.solved(2.0) - (1.0 - (1.0 - hit).powi(2))).abs() < 1e-12);
        }
        // Three attempts of equal chance, one of them right: it is first, second or third equally often.
        let search = Search::at(&Task::Countdown(Countdown::default()), &countdown("make 6 from 2 3")).unwrap();
        for (attempts, share) in [(0.0, 0.0), (1.0, 1.0 / 3.0), (1.5, 0.5), (2.0, 2.0 / 3.0), (3.0, 1.0), (9.0, 1.0)] {
            let found = search.solved_without_repeats(attempts);
            assert!((found - share).abs() < 0.15, "{found} of searches end within {attempts} attempts");
        }
        // One that ends when it is right makes 1 + 2/3 attempts of at most two.
        assert!((search.attempts(2.0) - 5.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn what_is_likely_is_tried_first() {
        let guess = |chance, is_right| Guess { answer: String::new(), chance, is_right };
        for (right, first) in [(0.1, 0.1), (0.9, 0.9)] {
            let search = Search::new(&[guess(1.0 - right, false), guess(right, true)], 7);
            let found = search.solved_without_repeats(1.0);
            assert!((found - first).abs() < 0.1, "{found} of the first attempts are right, not {first}");
            assert_eq!(search.solved_without_repeats(2.0), 1.0);
        }
    }

    #[test]
    fn guesses_are_what_random_attempts_are() {
        let tasks = [
            Task::Countdown(Countdown { counts: vec![3], ..Countdown::default() }),
            Task::Countdown(Countdown { counts: vec![4], ..Countdown::default() }),
            Task::Programs(Programs { operations: 2, ..Programs::default() }),
        ];
        for task in tasks {
            for number in 0..20 {
                let problem = task.problem(1, Split::Test, number);
                let guesses = task.guesses(&problem).unwrap();
                let sum: f64 = guesses.iter().map(|guess| guess.chance).sum();
                assert!((sum - 1.0).abs() < 1e-9, "{}: chances add up to {sum}", problem.question);
                assert!(guesses.iter().any(|guess| guess.is_right), "{} cannot be solved", problem.question);
                let answers: std::collections::HashSet<&str> = guesses.iter().map(|g| g.answer.as_str()).collect();
                assert_eq!(answers.len(), guesses.len(), "an answer is there twice");
            }
        }
    }

    #[test]
    fn a_blind_model_is_as_good_as_blind_search() {
        let task = Task::Countdown(Countdown::default());
        let problems = task.problem_set(Split::Test, 1, 300);
        let problems: Vec<&Problem> = problems.iter().collect();
        let clusters: Vec<u64> = problems.iter().map(|problem| problem.cluster).collect();
        let scores: Vec<f64> = problems.iter().map(|problem| Search::at(&task, problem).unwrap().solved(8.0)).collect();
        let SearchBaseline { attempts, blind, gain, without_repeats, attempts_as_right } =
            SearchBaseline::new(&task, &problems, 8.0, &scores, &clusters).unwrap();
        assert_eq!(attempts, 8.0);
        assert!((blind - scores.iter().sum::<f64>() / 300.0).abs() < 1e-12);
        assert!(gain.mean.abs() < 1e-12 && gain.high - gain.low < 1e-12);
        assert!(without_repeats > blind, "{without_repeats} {blind}");
        // It makes eight attempts where it is not right before, so fewer in the mean.
        assert!(attempts_as_right.is_some_and(|attempts| (4.0..8.0).contains(&attempts)), "{attempts_as_right:?}");
        let perfect = SearchBaseline::new(&task, &problems, 8.0, &vec![1.0; 300], &clusters).unwrap();
        assert!((perfect.gain.mean - (1.0 - blind)).abs() < 1e-12);
    }

    #[test]
    fn the_best_constant_answer_is_the_one_that_is_right_most_often() {
        let task = Task::Arithmetic(Arithmetic::default());
        let all = task.problem_set(Split::Test, 1, 200);
        let problems: Vec<&Problem> = all.iter().collect();
        let (answer, share) = best_constant(&task, &problems).unwrap();
        let right = all.iter().filter(|problem| task.grade(problem, &answer).unwrap() == crate::Verdict::Right).count();
        assert!(right > 1 && (share - right as f64 / 200.0).abs() < 1e-12, "{answer} is right {right} times");
        let task = Task::Countdown(Countdown::default());
        let asked = [countdown("make 6 from 2 3"), countdown("make 5 from 3 2"), countdown("make 6 from 3 2 1")];
        let asked: Vec<&Problem> = asked.iter().collect();
        assert_eq!(best_constant(&task, &asked).unwrap().1, 1.0 / 3.0, "no answer fits two of them");
        assert_eq!(best_constant(&task, &[]), None);
    }
}
