//! Countdown: `make 24 from 3 8 1` asks for an expression that uses every number once. Finding one takes search,
//! checking one takes arithmetic, so a thought that tries and checks is worth its tokens.

mod demonstrate;
mod expression;
mod solver;

use super::{Demonstration, Gold, Guess, Problem, Split, Style, Verdict};
use expression::{Expression, Ratio};
use minke_spec::draw::{Domain, Stream, draw, hash};
use serde::{Deserialize, Serialize};
use solver::{for_each_attempt, has_solution};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// The settings of countdown. Every problem has a solution over positive whole numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Countdown {
    /// How many numbers are given, each as often as any other: 2 to 4.
    pub counts: Vec<usize>,
    /// The largest given number.
    pub largest_number: u32,
    /// The smallest target.
    pub smallest_target: u32,
    /// The largest target.
    pub largest_target: u32,
    /// The largest result of a step, in problems and in demonstrations; graders accept larger ones.
    pub largest_intermediate: u32,
    /// Whether an attempt restates the target before it says `ok` or `no`.
    pub self_check: bool,
}

impl Default for Countdown {
    fn default() -> Self {
        Self {
            counts: vec![3],
            largest_number: 20,
            smallest_target: 10,
            largest_target: 99,
            largest_intermediate: 199,
            self_check: true,
        }
    }
}

/// What the grader of countdown needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountdownGold {
    /// The given numbers, in the order of the question.
    pub numbers: Vec<u32>,
    /// What they must make.
    pub target: u32,
}

impl Countdown {
    /// Checks the settings.
    ///
    /// # Errors
    /// If a setting is out of its range or one side of the split has (nearly) no problems.
    pub fn validate(&self) -> crate::Result<()> {
        let refuse = |reason: String| Err(crate::Error::Task { task: "countdown", reason });
        if self.counts.is_empty() || self.counts.iter().any(|count| !(2..=4).contains(count)) {
            return refuse(format!("counts = {:?}, but 2, 3 or 4 numbers can be given: use [3]", self.counts));
        }
        if !(1..=MAX_NUMBER).contains(&self.largest_intermediate) {
            let intermediate = self.largest_intermediate;
            return refuse(format!("largest_intermediate = {intermediate} must be between 1 and {MAX_NUMBER}"));
        }
        if self.largest_number == 0 || self.largest_number > self.largest_intermediate {
            return refuse(format!(
                "largest_number = {} must be between 1 and largest_intermediate = {}",
                self.largest_number, self.largest_intermediate
            ));
        }
        if self.smallest_target > self.largest_target || self.largest_target > self.largest_intermediate {
            return refuse(format!(
                "targets {} to {} must rise and stay within largest_intermediate = {}",
                self.smallest_target, self.largest_target, self.largest_intermediate
            ));
        }
        for split in Split::ALL {
            // A hundredth of the tries of `problem` must do, so that those cannot run out.
            if (0..32).any(|number| self.draw_problem(0, split, number, TRIES / 100).is_none()) {
                return refuse(format!("these settings leave no {} problems: widen numbers or targets", split.name()));
            }
        }
        Ok(())
    }

    /// Problem `number` of a split: random numbers of that side and one of the targets that they reach.
    ///
    /// # Panics
    /// If the settings, which [`Countdown::validate`] refuses then, leave no problems.
    pub fn problem(&self, seed: u64, split: Split, number: u64) -> Problem {
        self.draw_problem(seed, split, number, TRIES)
            .expect("invariant: validated settings have problems on every side")
    }

    /// The side that a problem is on, which its numbers alone decide, in any order: an attempt at one target is an attempt
    /// at every other, so that numbers seen in training would be no new problem.
    pub fn side(&self, problem: &Problem) -> Split {
        match &problem.gold {
            Gold::Countdown(gold) => Split::of_hash(gold.numbers_hash()),
            _ => Split::Test,
        }
    }

    /// The problem that a person typed, such as `Make 24 from 3, 8 and 1`; nothing if the text is no such
    /// question. Whether it has a solution is not checked.
    pub fn parse(question: &str) -> Option<Problem> {
        if question.len() > MAX_QUESTION {
            return None;
        }
        let (mut targets, mut numbers, mut after_make) = (Vec::new(), Vec::new(), None);
        for word in question.split(|c: char| c.is_whitespace() || ",;()[]{}".contains(c)) {
            match word.trim_end_matches(['.', ':', '?', '!']).to_ascii_lowercase().as_str() {
                "" | "and" => {}
                "make" => after_make = Some(true),
                "from" | "with" | "using" => after_make = Some(false),
                digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                    let list = if after_make? { &mut targets } else { &mut numbers };
                    list.push(digits.parse().ok()?);
                }
                _ => return None,
            }
        }
        let [target] = targets[..] else { return None };
        let gold = CountdownGold { numbers, target };
        (gold.is_sane() && target > 0).then(|| gold.into_problem())
    }

    /// The verdict on an answer: right if it is an expression of `+ - * / ( )` that uses every given number
    /// exactly once and is exactly the target.
    ///
    /// # Paper
    /// - R1 2.2.2 (accuracy reward: a rule decides)
    /// - Test: crates/eval/src/tasks/countdown/tests.rs::graders_see_through_wrong_answers
    pub fn grade(&self, problem: &Problem, answer: &str) -> Verdict {
        let Gold::Countdown(gold) = &problem.gold else { return Verdict::GoldUnusable };
        if !gold.is_sane() {
            return Verdict::GoldUnusable;
        }
        if gold.is_reached_by(answer) {
            return Verdict::Right;
        }
        // A right answer is its own proof, so only a wrong one needs the solver.
        let quick = gold.numbers.len() <= 4;
        if quick && !has_solution(&gold.numbers, gold.target, self.largest_intermediate) {
            return Verdict::GoldUnusable;
        }
        Verdict::Wrong
    }

    /// The expression up to the order and grouping of its terms and factors; nothing for no expression.
    ///
    /// Not its value: the question names the right one, which would bias a vote on values.
    pub fn answer_key(&self, _problem: &Problem, answer: &str) -> Option<String> {
        Expression::parse(answer).map(|expression| expression.key())
    }

    /// The attempts that a thought makes: its lines that end in ` no` or ` ok`.
    pub fn attempts<'a>(&self, thought: &'a str) -> Vec<&'a str> {
        thought.lines().filter(|line| claim(line).is_some()).collect()
    }

    /// Whether the last attempt of a thought claims success.
    pub fn claims_success(&self, thought: &str) -> bool {
        thought.lines().rev().find_map(claim) == Some(true)
    }

    /// Training text for a problem. Its attempts use all numbers, its steps are true, and its `ok` and `no` too.
    ///
    /// # Panics
    /// If the problem is of another family or its numbers are not [sane](Countdown::parse).
    pub fn demonstrate(&self, problem: &Problem, style: Style, stream: &mut Stream) -> Demonstration {
        let Gold::Countdown(gold) = &problem.gold else { panic!("a problem of another family: {}", problem.question) };
        assert!(gold.is_sane() && gold.numbers.len() > 1, "nothing to demonstrate: {}", problem.question);
        self.write(gold, style, stream)
    }

    /// What a search by [random attempts](Attempt::random) tries.
    pub(super) fn guesses(&self, problem: &Problem) -> Vec<Guess> {
        let Gold::Countdown(gold) = &problem.gold else { return Vec::new() };
        let mut chances: BTreeMap<String, (f64, bool)> = BTreeMap::new();
        for_each_attempt(&gold.numbers, gold.largest(self), &mut |attempt, chance| {
            let is_right = attempt.result() == gold.target;
            chances.entry(attempt.expression().key()).or_insert((0.0, is_right)).0 += chance;
            ControlFlow::Continue(())
        });
        chances.into_iter().map(|(answer, (chance, is_right))| Guess { answer, chance, is_right }).collect()
    }

    fn draw_problem(&self, seed: u64, split: Split, number: u64, tries: u64) -> Option<Problem> {
        (0..tries).find_map(|attempt| {
            let mut stream = draw(seed, Domain::Problem, &[split as u64, number, attempt]);
            let count = *stream.choose(&self.counts);
            let mut gold = CountdownGold { numbers: vec![0; count], target: 0 };
            gold.numbers.fill_with(|| 1 + stream.below(u64::from(self.largest_number)) as u32);
            if Split::of_hash(gold.numbers_hash()) != split {
                return None;
            }
            let targets = self.reachable_targets(&gold.numbers);
            gold.target = *stream.choose(targets.first().map(|_| &targets[..])?);
            Some(gold.into_problem())
        })
    }

    /// The targets within the settings that the numbers reach, in rising order.
    fn reachable_targets(&self, numbers: &[u32]) -> Vec<u32> {
        let mut reached = vec![false; self.largest_target as usize + 1];
        for_each_attempt(numbers, self.largest_intermediate, &mut |attempt, _| {
            if let Some(slot) = reached.get_mut(attempt.result() as usize) {
                *slot = true;
            }
            ControlFlow::Continue(())
        });
        (self.smallest_target..=self.largest_target).filter(|&target| reached[target as usize]).collect()
    }
}

impl CountdownGold {
    fn into_problem(self) -> Problem {
        let numbers: Vec<String> = self.numbers.iter().map(u32::to_string).collect();
        let question = format!("make {} from {}", self.target, numbers.join(" "));
        let cluster = self.numbers_hash();
        let id = hash(cluster ^ u64::from(self.target));
        Problem { cluster, ..Problem::new(id, question, Gold::Countdown(self)) }
    }

    /// The largest result of an attempt.
    fn largest(&self, task: &Countdown) -> u32 {
        self.numbers.iter().copied().fold(task.largest_intermediate, u32::max)
    }

    /// Whether an answer can be evaluated exactly: products of so few and so small numbers fit in 128 bits.
    fn is_sane(&self) -> bool {
        (1..=MAX_NUMBERS).contains(&self.numbers.len()) && self.numbers.iter().all(|n| (1..=MAX_NUMBER).contains(n))
    }

    fn is_reached_by(&self, answer: &str) -> bool {
        let Some(expression) = Expression::parse(answer) else { return false };
        let (mut used, mut given) = (expression.numbers(), self.numbers.clone());
        used.sort_unstable();
        given.sort_unstable();
        used == given && expression.value() == Some(Ratio::from(self.target))
    }

    /// A hash of the numbers that does not depend on their order.
    fn numbers_hash(&self) -> u64 {
        let mut numbers = self.numbers.clone();
        numbers.sort_unstable();
        numbers.iter().fold(numbers.len() as u64, |state, &number| hash(state ^ u64::from(number)))
    }
}

/// What a line of a thought claims about its attempt; nothing if it is no attempt.
fn claim(line: &str) -> Option<bool> {
    let line = line.trim_end();
    if line.ends_with(" ok") { Some(true) } else { line.ends_with(" no").then_some(false) }
}

/// How often numbers are drawn before a problem is given up.
const TRIES: u64 = 100_000;
/// The largest number that may be given or reached.
const MAX_NUMBER: u32 = 9_999;
/// The most numbers of a question that is typed.
const MAX_NUMBERS: usize = 8;
/// Bytes of the longest question that is read.
const MAX_QUESTION: usize = 256;

#[cfg(test)]
mod tests;
