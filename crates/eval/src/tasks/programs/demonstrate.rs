//! The search for a program, written down: one candidate per line, run on the first example and, if it passes, on the
//! second.

use super::language::Program;
use super::{Pair, Programs, ProgramsGold, show, show_pair};
use crate::tasks::{Demonstration, Style, noisy_search};
use minke_spec::draw::Stream;

/// The most wrong candidates of a clean search.
const MAX_CLEAN_WRONG: u64 = 7;
/// How often a candidate that happens to pass is drawn again.
const REDRAWS: usize = 16;

impl Programs {
    /// Training text for a problem.
    pub(super) fn write(&self, gold: &ProgramsGold, style: Style, stream: &mut Stream) -> Demonstration {
        let candidates = match style {
            Style::Bare => return Demonstration { thought: None, answer: gold.program.to_string() },
            Style::Fact => return Demonstration { thought: None, answer: self.fact(gold, stream) },
            Style::Noisy => {
                let (gives_up, wrong) = noisy_search(stream);
                let mut candidates: Vec<Program> = (0..wrong).filter_map(|_| self.failing(gold, stream)).collect();
                if !gives_up || candidates.is_empty() {
                    candidates.push(gold.program.clone());
                }
                candidates
            }
            Style::Clean => self.search(gold, stream),
        };
        let lines: Vec<String> = candidates.iter().map(|candidate| self.line(candidate, gold)).collect();
        let answer = candidates.last().map(Program::to_string).unwrap_or_default();
        Demonstration { thought: Some(lines.join("\n")), answer }
    }

    /// A search that ends well: one operation first, then more, each time the nearest way to end a random beginning.
    fn search(&self, gold: &ProgramsGold, stream: &mut Stream) -> Vec<Program> {
        let mut candidates: Vec<Program> = Vec::new();
        for _ in 0..stream.below(MAX_CLEAN_WRONG + 1) {
            let (shortest, longest) = if candidates.is_empty() { (1, 1) } else { (2, self.operations as i64) };
            let length = stream.between(shortest, longest) as usize;
            let Some(candidate) = nearest(length, gold, stream) else { continue };
            if gold.is_met_by(&candidate) {
                candidates.push(candidate);
                return candidates;
            }
            // What only the third example or a hidden test refutes would be claimed to be right.
            if !checks(&candidate, gold) && !candidates.contains(&candidate) {
                candidates.push(candidate);
            }
        }
        candidates.push(gold.program.clone());
        candidates
    }

    /// A random candidate that does not pass the shown checks.
    fn failing(&self, gold: &ProgramsGold, stream: &mut Stream) -> Option<Program> {
        let random = |_| Program::random(stream.between(1, self.operations as i64) as usize, stream);
        (0..REDRAWS)
            .map(random)
            .find(|candidate| candidate.run(&gold.visible[0].0).is_some() && !checks(candidate, gold))
    }

    /// One candidate on one example as a document of its own: `[8,4,2]->[2,4,8] rev [2,4,8] ?[2,4,8] ok`.
    fn fact(&self, gold: &ProgramsGold, stream: &mut Stream) -> String {
        let pair = stream.choose(&gold.visible);
        let wrong = if stream.chance(0.5) { self.failing(gold, stream) } else { None };
        let (trace, passes) = self.trace(wrong.as_ref().unwrap_or(&gold.program), pair);
        format!("{} {trace}{}", show_pair(pair), verdict(passes))
    }

    /// An attempt: the trace on the first example, on the second if the first passes, and the verdict.
    pub(super) fn line(&self, candidate: &Program, gold: &ProgramsGold) -> String {
        let mut line = String::new();
        let mut examples = gold.visible.iter().take(2);
        let passes = examples.all(|pair| {
            let (trace, passes) = self.trace(candidate, pair);
            line.push_str(&trace);
            passes
        });
        line + verdict(passes)
    }

    /// What every operation makes of an example, then what was wanted, and whether that is it.
    fn trace(&self, candidate: &Program, (input, wanted): &Pair) -> (String, bool) {
        let mut trace = String::new();
        let mut list = input.clone();
        for op in candidate.operations() {
            let Some(output) = op.run(&list) else {
                trace.push_str(&format!("{} - ", op.name()));
                return (trace, false);
            };
            trace.push_str(&format!("{} {} ", op.name(), show(&output)));
            list = output;
        }
        if self.self_check {
            trace.push_str(&format!("?{} ", compared(wanted, &list)));
        }
        (trace, list == *wanted)
    }
}

fn verdict(passes: bool) -> &'static str {
    if passes { "ok" } else { "no" }
}

/// The wanted list up to the first place where the output is another: what a reader who compares them element by
/// element has said when the verdict is clear. A whole list at a time is too much for a small model: it learns to claim.
fn compared(wanted: &[u32], output: &[u32]) -> String {
    let same = wanted.iter().zip(output).take_while(|(a, b)| a == b).count();
    match wanted.get(..=same) {
        // An output that ends too early, or one that has another number there.
        Some(restated) => show(restated).trim_end_matches(']').to_owned(),
        None => show(wanted),
    }
}

/// Whether a candidate passes the checks that a thought shows.
fn checks(candidate: &Program, gold: &ProgramsGold) -> bool {
    gold.visible.iter().take(2).all(|(input, output)| candidate.run(input).as_ref() == Some(output))
}

/// A random beginning with the operation behind it that comes nearest to the first output: by length, then by
/// differing places.
fn nearest(length: usize, gold: &ProgramsGold, stream: &mut Stream) -> Option<Program> {
    let (input, wanted) = &gold.visible[0];
    let distance = |candidate: &Program| {
        let output = candidate.run(input)?;
        let places = output.iter().zip(wanted).filter(|(a, b)| a != b).count();
        Some(output.len().abs_diff(wanted.len()) * 10 + places)
    };
    let beginning = Program::random(length - 1, stream);
    let mut ends: Vec<(usize, Program)> = beginning.extended().filter_map(|end| Some((distance(&end)?, end))).collect();
    let least = ends.iter().map(|(distance, _)| *distance).min()?;
    ends.retain(|(distance, _)| *distance == least);
    Some(stream.choose(&ends).1.clone())
}
