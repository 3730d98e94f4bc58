//! The search for an expression, written down: one attempt per line, checked against the target.

use super::solver::{Attempt, random_solution};
use super::{Countdown, CountdownGold};
use crate::tasks::{Demonstration, Style, noisy_search};
use minke_spec::draw::Stream;

impl Countdown {
    /// Training text for a problem that is known to be usable.
    pub(super) fn write(&self, gold: &CountdownGold, style: Style, stream: &mut Stream) -> Demonstration {
        let search = Search { task: self, gold, largest: gold.largest(self) };
        match style {
            Style::Bare => Demonstration { thought: None, answer: search.solution(stream).expression().to_string() },
            Style::Noisy => search.told(&search.noisy(stream)),
            Style::Clean => search.told(&search.clean(stream)),
            Style::Fact => Demonstration { thought: None, answer: search.random(stream).fact(stream) },
        }
    }
}

struct Search<'a> {
    task: &'a Countdown,
    gold: &'a CountdownGold,
    largest: u32,
}

impl Search<'_> {
    /// Random attempts; in half of the searches the last one is right, in the others none is.
    fn noisy(&self, stream: &mut Stream) -> Vec<Attempt> {
        let (gives_up, wrong) = noisy_search(stream);
        let mut attempts: Vec<Attempt> = (0..wrong)
            // A blind attempt that happens to be right is drawn again; where all are right, the search is shorter.
            .filter_map(|_| {
                (0..REDRAWS).map(|_| self.random(stream)).find(|attempt| attempt.result() != self.gold.target)
            })
            .collect();
        if !gives_up || attempts.is_empty() {
            attempts.push(self.solution(stream));
        }
        attempts
    }

    /// Up to six wrong attempts and a right one. Each wrong one is the nearest of a few blind ones, and none comes
    /// to what an earlier one came to.
    fn clean(&self, stream: &mut Stream) -> Vec<Attempt> {
        let mut attempts: Vec<Attempt> = Vec::new();
        for _ in 0..stream.below(MAX_CLEAN_WRONG + 1) {
            let fresh = (0..NEAREST_OF).map(|_| self.random(stream)).filter(|attempt| {
                let result = attempt.result();
                result != self.gold.target && attempts.iter().all(|earlier| earlier.result() != result)
            });
            attempts.extend(fresh.min_by_key(|attempt| attempt.result().abs_diff(self.gold.target)));
        }
        attempts.push(self.solution(stream));
        attempts
    }

    /// A random right attempt; a random one if no attempt is right, which happens to no generated problem.
    fn solution(&self, stream: &mut Stream) -> Attempt {
        random_solution(&self.gold.numbers, self.gold.target, self.largest, stream)
            .unwrap_or_else(|| self.random(stream))
    }

    fn random(&self, stream: &mut Stream) -> Attempt {
        Attempt::random(&self.gold.numbers, self.largest, stream)
    }

    /// The search as text, with the last attempt as the answer.
    fn told(&self, attempts: &[Attempt]) -> Demonstration {
        let line = |attempt: &Attempt| {
            let verdict = if attempt.result() == self.gold.target { "ok" } else { "no" };
            if self.task.self_check {
                format!("{attempt} ?{} {verdict}", self.gold.target)
            } else {
                format!("{attempt} {verdict}")
            }
        };
        let lines: Vec<String> = attempts.iter().map(line).collect();
        let answer = attempts.last().map(|attempt| attempt.expression().to_string()).unwrap_or_default();
        Demonstration { thought: Some(lines.join("\n")), answer }
    }
}

/// How often a blind attempt is redrawn when it is right by accident.
const REDRAWS: usize = 32;
/// The most wrong attempts of a clean search.
const MAX_CLEAN_WRONG: u64 = 6;
/// How many blind attempts a clean one is the best of.
const NEAREST_OF: usize = 6;
