//! The targets that can be reached: all ways to combine the numbers, and random ones.

use super::expression::{Expression, Operator, Ratio};
use minke_spec::draw::Stream;
use std::fmt;
use std::ops::ControlFlow;

/// A way to combine all numbers into one, step by step, over positive whole numbers. Displayed as its steps:
/// `7-6=1, 1+1=2`.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// The numbers, then the result of each step.
    values: Vec<u32>,
    steps: Vec<Step>,
}

/// An operation on two earlier values, the larger one on the left: one way to write each sum and product leaves half
/// as many facts to learn.
#[derive(Clone, Copy, Debug)]
struct Step {
    left: usize,
    op: Operator,
    right: usize,
}

impl Attempt {
    /// A random attempt: two random numbers and a random operation that stays within `largest`, until one is
    /// left. `largest` is at least the largest number; then one of `a-b` and `a/a` is always possible.
    ///
    /// # Panics
    /// If a number is zero: then there may be no possible step.
    pub(super) fn random(numbers: &[u32], largest: u32, stream: &mut Stream) -> Self {
        let mut attempt = Self { values: numbers.to_vec(), steps: Vec::with_capacity(numbers.len()) };
        let mut free: Vec<usize> = (0..numbers.len()).collect();
        while free.len() > 1 {
            let i = free.swap_remove(stream.below(free.len() as u64) as usize);
            let j = free.swap_remove(stream.below(free.len() as u64) as usize);
            let possible: Vec<(Step, u32)> = attempt.possible_steps(i, j, largest).collect();
            let &(step, value) = stream.choose(&possible);
            free.push(attempt.values.len());
            attempt.push(step, value);
        }
        attempt
    }

    /// What the attempt comes to.
    pub(super) fn result(&self) -> u32 {
        self.values.last().copied().unwrap_or(0)
    }

    /// The attempt as one expression.
    ///
    /// # Panics
    /// If the attempt has no numbers.
    pub(super) fn expression(&self) -> Expression {
        self.expression_of(self.values.len() - 1)
    }

    /// One of the steps, written as `7+6=13`.
    ///
    /// # Panics
    /// If the attempt has no steps.
    pub(super) fn fact(&self, stream: &mut Stream) -> String {
        self.step_text(stream.below(self.steps.len() as u64) as usize)
    }

    fn expression_of(&self, value: usize) -> Expression {
        match value.checked_sub(self.values.len() - self.steps.len()) {
            None => Expression::Number(self.values[value]),
            Some(step) => {
                let Step { left, op, right } = self.steps[step];
                Expression::Binary(op, Box::new(self.expression_of(left)), Box::new(self.expression_of(right)))
            }
        }
    }

    fn step_text(&self, step: usize) -> String {
        let Step { left, op, right } = self.steps[step];
        let value = self.values[self.values.len() - self.steps.len() + step];
        format!("{}{}{}={value}", self.values[left], op.symbol(), self.values[right])
    }

    /// The steps that are possible with two values.
    fn possible_steps(&self, i: usize, j: usize, largest: u32) -> impl Iterator<Item = (Step, u32)> + Clone + use<> {
        let (left, right) = if self.values[i] >= self.values[j] { (i, j) } else { (j, i) };
        let (a, b) = (self.values[left], self.values[right]);
        Operator::ALL.into_iter().filter_map(move |op| {
            let value = match op {
                Operator::Add => a.checked_add(b),
                Operator::Subtract => a.checked_sub(b),
                Operator::Multiply => a.checked_mul(b),
                Operator::Divide => (a.checked_rem(b) == Some(0)).then(|| a / b),
            }?;
            (1..=largest).contains(&value).then_some((Step { left, op, right }, value))
        })
    }

    fn push(&mut self, step: Step, value: u32) {
        self.steps.push(step);
        self.values.push(value);
    }

    fn pop(&mut self) {
        self.steps.pop();
        self.values.pop();
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<String> = (0..self.steps.len()).map(|step| self.step_text(step)).collect();
        write!(f, "{}", steps.join(", "))
    }
}

/// Calls `visit` with every attempt whose steps stay within `largest`, and how likely [`Attempt::random`] makes it, until it
/// breaks. Independent steps come in both orders, the quotient of two equal values in one.
pub(super) fn for_each_attempt(
    numbers: &[u32],
    largest: u32,
    visit: &mut impl FnMut(&Attempt, f64) -> ControlFlow<()>,
) {
    let mut attempt = Attempt { values: numbers.to_vec(), steps: Vec::with_capacity(numbers.len()) };
    let _ = visit_from(&mut attempt, (1 << numbers.len()) - 1, largest, 1.0, visit);
}

/// Continues an attempt, made so far with this chance, whose values in `free` (a set of bits) are still to be used.
fn visit_from(
    attempt: &mut Attempt,
    free: u32,
    largest: u32,
    chance: f64,
    visit: &mut impl FnMut(&Attempt, f64) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let left = free.count_ones();
    if left == 1 {
        return visit(attempt, chance);
    }
    let of_pair = chance / f64::from(left * (left - 1) / 2);
    let next = attempt.values.len();
    for i in (0..next).filter(|i| free & (1 << i) != 0) {
        for j in (i + 1..next).filter(|j| free & (1 << j) != 0) {
            let steps = attempt.possible_steps(i, j, largest);
            let of_step = of_pair / steps.clone().count() as f64;
            for (step, value) in steps {
                attempt.push(step, value);
                let rest = visit_from(attempt, free & !(1 << i) & !(1 << j) | 1 << next, largest, of_step, visit);
                attempt.pop();
                rest?;
            }
        }
    }
    ControlFlow::Continue(())
}

/// A random attempt of those that reach the target within `largest`; nothing if none does.
pub(super) fn random_solution(numbers: &[u32], target: u32, largest: u32, stream: &mut Stream) -> Option<Attempt> {
    let mut solution = None;
    let mut seen = 0;
    for_each_attempt(numbers, largest, &mut |attempt, _| {
        if attempt.result() == target {
            seen += 1;
            // The n-th replaces the one kept with probability 1/n: all are equally likely in the end.
            if stream.below(seen) == 0 {
                solution = Some(attempt.clone());
            }
        }
        ControlFlow::Continue(())
    });
    solution
}

/// Whether any expression reaches the target, through fractions and negative numbers too.
pub(super) fn has_solution(numbers: &[u32], target: u32, largest: u32) -> bool {
    // Whole numbers first: that is quick and nearly always enough.
    let mut found = false;
    for_each_attempt(numbers, largest, &mut |attempt, _| {
        found = attempt.result() == target;
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let exact: Vec<Ratio> = numbers.iter().map(|&number| Ratio::from(number)).collect();
    found || reaches(&exact, Ratio::from(target))
}

fn reaches(values: &[Ratio], target: Ratio) -> bool {
    if let [value] = values {
        return *value == target;
    }
    (0..values.len()).any(|i| {
        (0..values.len()).filter(|&j| j != i).any(|j| {
            // A sum or product needs only one of the two orders.
            let ops =
                Operator::ALL.into_iter().filter(|op| i < j || matches!(op, Operator::Subtract | Operator::Divide));
            ops.filter_map(|op| values[i].apply(op, values[j])).any(|value| {
                let others = (0..values.len()).filter(|&k| k != i && k != j).map(|k| values[k]);
                reaches(&others.chain([value]).collect::<Vec<_>>(), target)
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use minke_spec::draw::{Domain, draw};

    #[test]
    fn the_24_game_has_its_known_number_of_solvable_hands() {
        // A classic: of the 715 hands of four cards from 1 to 10, 566 make 24 when fractions are allowed.
        let (mut hands, mut solvable) = (0, 0);
        for a in 1..=10 {
            for b in a..=10 {
                for c in b..=10 {
                    for d in c..=10 {
                        hands += 1;
                        solvable += usize::from(has_solution(&[a, b, c, d], 24, 199));
                    }
                }
            }
        }
        assert_eq!((hands, solvable), (715, 566));
    }

    #[test]
    fn fractions_are_found_where_whole_numbers_do_not_suffice() {
        // The well-known hard hands of the game: 8/(3-8/3), 6/(1-3/4), 5*(5-1/5).
        for hand in [[3, 3, 8, 8], [1, 3, 4, 6], [1, 5, 5, 5]] {
            assert!(has_solution(&hand, 24, 199), "{hand:?}");
            assert!(random_solution(&hand, 24, 199, &mut draw(0, Domain::Data, &[])).is_none(), "{hand:?}");
        }
        assert!(!has_solution(&[1, 1, 1, 1], 24, 199));
    }

    #[test]
    fn attempts_read_as_their_steps_and_their_expression() {
        let mut lines = Vec::new();
        for_each_attempt(&[6, 1, 7], 199, &mut |attempt, _| {
            lines.push(format!("{attempt} {}", attempt.expression()));
            ControlFlow::Continue(())
        });
        for line in ["7-6=1, 1+1=2 1+7-6", "7+6=13, 13*1=13 (7+6)*1", "6*1=6, 7+6=13 7+6*1", "6+1=7, 7/7=1 7/(6+1)"] {
            assert!(lines.iter().any(|other| other == line), "{line}");
        }
        assert!(lines.iter().all(|line| !line.contains("=0") && !line.contains("=-")));
    }

    #[test]
    fn chances_are_those_of_random_attempts() {
        for numbers in [&[6, 1, 7][..], &[20, 3], &[2, 2, 5, 9]] {
            // By their steps: a quotient of equal values has two expressions.
            let steps_of = |attempt: &Attempt| {
                let mut steps: Vec<String> = (0..attempt.steps.len()).map(|step| attempt.step_text(step)).collect();
                steps.sort_unstable();
                steps.join(", ")
            };
            let mut chances = std::collections::BTreeMap::new();
            for_each_attempt(numbers, 199, &mut |attempt, chance| {
                *chances.entry(steps_of(attempt)).or_insert(0.0) += chance;
                ControlFlow::Continue(())
            });
            assert!((chances.values().sum::<f64>() - 1.0).abs() < 1e-12);
            let mut counts = std::collections::BTreeMap::new();
            let draws = 20_000;
            for i in 0..draws {
                let attempt = Attempt::random(numbers, 199, &mut draw(3, Domain::Data, &[i]));
                *counts.entry(steps_of(&attempt)).or_insert(0.0) += 1.0;
            }
            for (key, chance) in &chances {
                let count: f64 = counts.remove(key).unwrap_or_default();
                let spread = 5.0 * (draws as f64 * chance).sqrt() + 1.0;
                assert!((count - draws as f64 * chance).abs() < spread, "{key}: {count} of {draws}, not {chance}");
            }
            assert!(counts.is_empty(), "drawn and not enumerated: {counts:?}");
        }
    }

    #[test]
    fn every_solution_is_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        let draws = 8_000;
        for i in 0..draws {
            let solution = random_solution(&[6, 1, 7], 13, 199, &mut draw(1, Domain::Data, &[i])).unwrap();
            *counts.entry(solution.to_string()).or_insert(0u64) += 1;
        }
        // 7+6 times or divided by 1, before or after, on either number.
        assert_eq!(counts.len(), 6, "{counts:?}");
        let expected = draws / counts.len() as u64;
        assert!(counts.values().all(|&count| count.abs_diff(expected) < expected / 6), "{counts:?}");
    }
}
