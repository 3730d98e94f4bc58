//! Arithmetic step by step: `compute 12+7*3-5`, one reduction per step in the thought.

use minke_spec::draw::{Domain, Stream, draw, hash, hash_name};
use serde::{Deserialize, Serialize};

use super::{Demonstration, Gold, Problem, Split, Style, Verdict};
use crate::{Error, Result};

/// Sums, differences and products of whole numbers, evaluated by precedence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Arithmetic {
    /// Fewest and most operations.
    pub operations: (usize, usize),
    /// Largest number in a question.
    pub largest_operand: u32,
    /// Largest value on the way; the smallest is 0.
    pub largest_value: u32,
}

impl Default for Arithmetic {
    fn default() -> Self {
        Self { operations: (2, 5), largest_operand: 20, largest_value: 999 }
    }
}

/// What the grader of an arithmetic problem needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArithmeticGold {
    value: i64,
    operands: Vec<u32>,
    operators: Vec<char>,
}

/// Longest answer that is read.
const LONGEST_ANSWER: usize = 32;
/// Draws of an expression until a problem is given up.
const TRIES: u64 = 100_000;

impl Arithmetic {
    pub(super) fn validate(&self) -> Result<()> {
        let (low, high) = self.operations;
        let fine = low >= 1 && low <= high && high <= 16 && (2..=999).contains(&self.largest_operand);
        let refuse = |reason: String| Err(Error::Task { task: "arithmetic", reason });
        if !fine || !(self.largest_operand..=1_000_000).contains(&self.largest_value) {
            let reason = "operations must lie in 1..=16, largest_operand in 2..=999, largest_value at or above it";
            return refuse(reason.into());
        }
        for split in Split::ALL {
            // A tenth of the tries of `problem` must do, so that those cannot run out.
            if (0..32).any(|number| self.draw_problem(0, split, number, TRIES / 10).is_none()) {
                return refuse(format!(
                    "these settings leave too few {} problems: fewer operations, larger operands or a larger \
                     largest_value",
                    split.name()
                ));
            }
        }
        Ok(())
    }

    pub(super) fn problem(&self, seed: u64, split: Split, number: u64) -> Problem {
        self.draw_problem(seed, split, number, TRIES)
            .expect("invariant: validated settings have problems on every side")
    }

    pub(super) fn side(&self, problem: &Problem) -> Split {
        match &problem.gold {
            Gold::Arithmetic(gold) => gold.side(),
            _ => Split::Test,
        }
    }

    /// The first expression on that side; nothing if there is none among so many draws.
    fn draw_problem(&self, seed: u64, split: Split, number: u64, tries: u64) -> Option<Problem> {
        (0..tries).find_map(|attempt| {
            let index = [hash_name("arithmetic"), split as u64, number, attempt];
            let gold = self.expression(&mut draw(seed, Domain::Problem, &index))?;
            (gold.side() == split).then(|| gold.into_problem())
        })
    }

    /// A random expression whose values on the way stay in bounds, if this draw is one.
    fn expression(&self, stream: &mut Stream) -> Option<ArithmeticGold> {
        let (low, high) = self.operations;
        let count = stream.between(low as i64, high as i64) as usize;
        let operand = |stream: &mut Stream| stream.between(1, i64::from(self.largest_operand)) as u32;
        let operands: Vec<u32> = (0..=count).map(|_| operand(stream)).collect();
        let operators: Vec<char> = (0..count).map(|_| *stream.choose(&['+', '-', '*'])).collect();
        let gold = ArithmeticGold { value: 0, operands, operators };
        let steps = gold.steps();
        let within = steps.iter().all(|step| (0..=i64::from(self.largest_value)).contains(&step.value));
        within.then(|| ArithmeticGold { value: steps.last().map_or(0, |step| step.value), ..gold })
    }

    pub(super) fn grade(&self, problem: &Problem, answer: &str) -> Verdict {
        let Gold::Arithmetic(gold) = &problem.gold else { return Verdict::GoldUnusable };
        if parse(answer) == Some(gold.value) { Verdict::Right } else { Verdict::Wrong }
    }

    pub(super) fn answer_key(&self, _problem: &Problem, answer: &str) -> Option<String> {
        parse(answer).map(|value| value.to_string())
    }

    pub(super) fn attempts<'a>(&self, thought: &'a str) -> Vec<&'a str> {
        Some(thought.trim()).filter(|thought| !thought.is_empty()).into_iter().collect()
    }

    pub(super) fn claims_success(&self, thought: &str) -> bool {
        // The family has no self-check: every thought claims success.
        !thought.trim().is_empty()
    }

    pub(super) fn demonstrate(&self, problem: &Problem, style: Style, stream: &mut Stream) -> Demonstration {
        let Gold::Arithmetic(gold) = &problem.gold else {
            return Demonstration { thought: None, answer: String::new() };
        };
        let mut steps = gold.steps();
        match style {
            Style::Bare => return Demonstration { thought: None, answer: gold.value.to_string() },
            Style::Fact => return Demonstration { thought: None, answer: stream.choose(&steps).to_string() },
            Style::Noisy if stream.chance(0.5) => {
                // A slip that is carried on: everything behind it is computed rightly from a wrong number.
                let at = stream.below(steps.len() as u64) as usize;
                let slip = *stream.choose(&[-10, -2, -1, 1, 2, 10]);
                steps = gold.steps_with_slip(Some((at, slip)));
            }
            Style::Noisy | Style::Clean => {}
        }
        let answer = steps.last().map_or(gold.value, |step| step.value);
        let lines: Vec<String> = steps.iter().map(Step::to_string).collect();
        Demonstration { thought: Some(lines.join(", ")), answer: answer.to_string() }
    }
}

/// One reduction.
struct Step {
    left: i64,
    operator: char,
    right: i64,
    value: i64,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}{}={}", self.left, self.operator, self.right, self.value)
    }
}

impl ArithmeticGold {
    /// What the expression comes to.
    pub(super) fn value(&self) -> i64 {
        self.value
    }

    fn into_problem(self) -> Problem {
        let text = self.text();
        Problem::new(hash_name(&text), format!("compute {text}"), Gold::Arithmetic(self))
    }

    fn side(&self) -> Split {
        Split::of_hash(hash(hash_name(&self.text())))
    }

    fn text(&self) -> String {
        let mut text = self.operands[0].to_string();
        for (operator, operand) in self.operators.iter().zip(&self.operands[1..]) {
            text.push(*operator);
            text.push_str(&operand.to_string());
        }
        text
    }

    fn steps(&self) -> Vec<Step> {
        self.steps_with_slip(None)
    }

    /// The reductions: products from left to right, then sums and differences.
    fn steps_with_slip(&self, slip: Option<(usize, i64)>) -> Vec<Step> {
        let mut operands: Vec<i64> = self.operands.iter().map(|&v| i64::from(v)).collect();
        let mut operators = self.operators.clone();
        let mut steps = Vec::new();
        while !operators.is_empty() {
            let at = operators.iter().position(|&o| o == '*').unwrap_or(0);
            let (left, right, operator) = (operands[at], operands[at + 1], operators[at]);
            let value = match operator {
                '+' => left.saturating_add(right),
                '-' => left.saturating_sub(right),
                _ => left.saturating_mul(right),
            };
            let value = match slip {
                Some((step, by)) if step == steps.len() => (value + by).max(0),
                _ => value,
            };
            steps.push(Step { left, operator, right, value });
            operands[at] = value;
            operands.remove(at + 1);
            operators.remove(at);
        }
        steps
    }
}

/// The whole number that an answer is.
fn parse(answer: &str) -> Option<i64> {
    let answer = answer.trim();
    (answer.len() <= LONGEST_ANSWER).then(|| answer.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::Task;
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn task() -> Task {
        Task::Arithmetic(Arithmetic::default())
    }

    #[test]
    fn precedence_is_that_of_arithmetic() {
        let gold = ArithmeticGold { value: 28, operands: vec![12, 7, 3, 5], operators: vec!['+', '*', '-'] };
        let steps: Vec<String> = gold.steps().iter().map(Step::to_string).collect();
        assert_eq!(steps, ["7*3=21", "12+21=33", "33-5=28"]);
        assert_eq!(gold.text(), "12+7*3-5");
    }

    #[test]
    fn demonstrations_are_right_where_they_should_be() {
        let task = task();
        let mut wrong = 0;
        for number in 0..2000 {
            let problem = task.problem(1, Split::Train, number);
            let mut stream = draw(2, Domain::Data, &[number]);
            for style in [Style::Bare, Style::Clean] {
                let shown = task.demonstrate(&problem, style, &mut stream).unwrap();
                assert_eq!(task.grade(&problem, &shown.answer).unwrap(), Verdict::Right);
            }
            let noisy = task.demonstrate(&problem, Style::Noisy, &mut stream).unwrap();
            wrong += usize::from(task.grade(&problem, &noisy.answer).unwrap() == Verdict::Wrong);
        }
        assert!((700..1100).contains(&wrong), "{wrong} of 2000 noisy answers are wrong");
    }

    #[test]
    fn an_answer_is_the_whole_number_and_nothing_else() {
        let gold = ArithmeticGold { value: 7, operands: vec![9, 2], operators: vec!['-'] };
        let (problem, zero) =
            (gold.into_problem(), ArithmeticGold { value: 0, operands: vec![2, 2], operators: vec!['-'] });
        for right in ["7", " 7\n", "07", "+7"] {
            assert_eq!(task().grade(&problem, right).unwrap(), Verdict::Right, "{right:?}");
        }
        let wrong = [
            "7 or 8",
            "7 8",
            "7, 8",
            "7.",
            "7.0",
            "7=7",
            "9-2=7",
            "=7",
            "the answer is 7",
            "-7",
            "- 7",
            "--7",
            "\u{2212}7",
            "77",
            "17",
            "7e0",
            "0x7",
            "7\n8",
            "seven",
            "",
            " ",
            "8",
            "00000000000000000000000000000000007",
        ];
        for wrong in wrong {
            assert_eq!(task().grade(&problem, wrong).unwrap(), Verdict::Wrong, "{wrong:?}");
        }
        assert_eq!(task().grade(&zero.into_problem(), "0").unwrap(), Verdict::Right);
        // Votes are counted by value, and what is no number has none.
        let key = |answer: &str| task().answer_key(&problem, answer);
        assert_eq!(
            (key("7"), key("07"), key("-7"), key("7 or 8")),
            (Some("7".into()), key("7"), Some("-7".into()), None)
        );
    }

    #[test]
    fn settings_without_problems_on_a_side_are_refused() {
        let with =
            |operations, largest_operand, largest_value| Arithmetic { operations, largest_operand, largest_value };
        // One expression in five thousand, or none at all, whose values stay in bounds.
        for few in [with((8, 8), 999, 999), with((16, 16), 999, 999)] {
            let message = few.validate().unwrap_err().to_string();
            assert!(message.contains("task arithmetic: these settings leave too few t"), "{message}");
        }
        for enough in [Arithmetic::default(), with((1, 1), 2, 2), with((2, 4), 20, 199), with((1, 16), 3, 1_000_000)] {
            enough.validate().unwrap();
            let task = Task::Arithmetic(enough);
            for split in Split::ALL {
                let problems = (0..300).map(|number| task.problem(5, split, number));
                assert!(problems.map(|problem| task.side(&problem)).all(|side| side == split));
            }
        }
    }

    #[test]
    fn sides_are_disjoint_and_the_test_side_is_large() {
        let task = task();
        let ids = |split| -> HashSet<u64> { task.problem_set(split, 3, 600).iter().map(|p| p.id).collect() };
        let (validation, test) = (ids(Split::Validation), ids(Split::Test));
        assert_eq!((validation.len(), test.len(), validation.intersection(&test).count()), (600, 600, 0));
        for seed in 0..3 {
            let trained = (0..3000).map(|number| task.problem(seed, Split::Train, number).id);
            assert!(trained.into_iter().all(|id| !test.contains(&id) && !validation.contains(&id)));
        }
    }

    proptest! {
        #[test]
        fn any_answer_gets_a_verdict(answer in ".{0,80}") {
            let problem = task().problem(1, Split::Test, 0);
            let verdict = task().grade(&problem, &answer).unwrap();
            prop_assert!(verdict != Verdict::GoldUnusable);
        }
    }
}
