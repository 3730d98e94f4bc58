//! What does a search for a program look like when it is written down? One candidate per line, run on the first example
//! and, if it passes, on the second.

use super::language::Program;
use super::{Programs, ProgramsGold, show};
use crate::tasks::{Demonstration, Style};
use minke_spec::draw::Stream;

/// The most wrong candidates of a clean search.
const MAX_CLEAN_WRONG: u64 = 3;
/// How many blind candidates a clean one is the best of.
const NEAREST_OF: usize = 3;
/// How often a candidate that happens to pass is drawn again.
const REDRAWS: usize = 16;

impl Programs {
    /// Returns training text for a problem.
    pub(super) fn write(&self, gold: &ProgramsGold, style: Style, stream: &mut Stream) -> Demonstration {
        let right = || gold.program.clone();
        let candidates = match style {
            Style::Bare => return Demonstration { thought: None, answer: gold.program.to_string() },
            Style::Fact => return Demonstration { thought: None, answer: self.fact(gold, stream) },
            Style::Noisy => {
                let gives_up = stream.chance(0.5);
                let wrong = stream.below(4) + u64::from(gives_up);
                let mut candidates: Vec<Program> = (0..wrong).filter_map(|_| self.failing(gold, stream)).collect();
                if !gives_up || candidates.is_empty() {
                    candidates.push(right());
                }
                candidates
            }
            Style::Clean => {
                let mut candidates: Vec<Program> = Vec::new();
                for _ in 0..stream.below(MAX_CLEAN_WRONG + 1) {
                    let blind = (0..NEAREST_OF).filter_map(|_| self.failing(gold, stream));
                    let fresh = blind.filter(|candidate| !candidates.contains(candidate));
                    candidates.extend(fresh.min_by_key(|candidate| distance(candidate, gold)));
                }
                candidates.push(right());
                candidates
            }
        };
        let lines: Vec<String> = candidates.iter().map(|candidate| self.line(candidate, gold)).collect();
        let answer = candidates.last().map(Program::to_string).unwrap_or_default();
        Demonstration { thought: Some(lines.join("\n")), answer }
    }

    /// Returns a random candidate that does not pass the shown checks.
    fn failing(&self, gold: &ProgramsGold, stream: &mut Stream) -> Option<Program> {
        let random = |stream: &mut Stream| {
            let length = stream.between(1, self.operations as i64);
            let op = |_| Program::operation(stream.below(Program::operation_count()));
            Program::new((0..length).map(op).collect())
        };
        (0..REDRAWS).map(|_| random(stream)).find(|candidate| {
            let first = &gold.visible[0].0;
            candidate.run(first).is_some() && !checks(candidate, gold)
        })
    }

    /// Returns one execution as a document of its own: `rev [8,4,2] [2,4,8]`.
    fn fact(&self, gold: &ProgramsGold, stream: &mut Stream) -> String {
        let (input, _) = stream.choose(&gold.visible);
        let runs: Vec<String> = (0..REDRAWS)
            .filter_map(|_| {
                let op = Program::operation(stream.below(Program::operation_count()));
                op.run(input).map(|output| format!("{} {} {}", op.name(), show(input), show(&output)))
            })
            .take(1)
            .collect();
        runs.concat()
    }

    /// Returns an attempt: the trace on the first example, on the second if the first passes, and the verdict.
    pub(super) fn line(&self, candidate: &Program, gold: &ProgramsGold) -> String {
        let mut line = String::new();
        for (input, wanted) in gold.visible.iter().take(2) {
            let mut list = input.clone();
            for op in candidate.operations() {
                let Some(output) = op.run(&list) else {
                    // Such a candidate is only ever wrong on the second example.
                    line.push_str(&format!("{} - ", op.name()));
                    list.clear();
                    break;
                };
                line.push_str(&format!("{} {} ", op.name(), show(&output)));
                list = output;
            }
            if self.self_check {
                line.push_str(&format!("?{} ", compared(wanted, &list)));
            }
            if list != *wanted {
                break;
            }
        }
        line.push_str(if checks(candidate, gold) { "ok" } else { "no" });
        line
    }
}

/// Returns the wanted list up to the first place where the output is another: what a reader who compares them element by
/// element has said when the verdict is clear. A whole list at a time is too much for a small model: it learns to claim.
fn compared(wanted: &[u32], output: &[u32]) -> String {
    let same = wanted.iter().zip(output).take_while(|(a, b)| a == b).count();
    match wanted.get(..=same) {
        // An output that ends too early, or one that has another number there.
        Some(restated) => show(restated).trim_end_matches(']').to_owned(),
        None => show(wanted),
    }
}

/// Returns whether a candidate passes the checks that a thought shows.
fn checks(candidate: &Program, gold: &ProgramsGold) -> bool {
    gold.visible.iter().take(2).all(|(input, output)| candidate.run(input).as_ref() == Some(output))
}

/// Returns how far a candidate's first output is from the wanted one: by length, then by differing places.
fn distance(candidate: &Program, gold: &ProgramsGold) -> usize {
    let (input, wanted) = &gold.visible[0];
    let output = candidate.run(input).unwrap_or_default();
    let places = output.iter().zip(wanted).filter(|(a, b)| a != b).count();
    output.len().abs_diff(wanted.len()) * 10 + places
}
