//! Program synthesis: programs from examples of what they do to lists, found by trying and checked by hidden tests.

mod demonstrate;
mod language;

use std::collections::HashMap;
use std::sync::OnceLock;

use language::{LONGEST_PROGRAM, Program};
use minke_spec::draw::{Domain, Stream, draw, hash, hash_name};
use serde::{Deserialize, Serialize};

use super::{Demonstration, Gold, Guess, Problem, Split, Style, Verdict};
use crate::{Error, Result};

/// Short programs over lists of small numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Programs {
    /// Most operations of a program, 2 or 3; each length is as frequent as any other. Single operations are only posed in
    /// training.
    pub operations: usize,
    /// Examples that the question shows.
    pub examples: usize,
    /// Whether a thought restates the wanted output, as far as it is met, before it says `no` or `ok`.
    pub self_check: bool,
}

impl Default for Programs {
    fn default() -> Self {
        Self { operations: LONGEST_PROGRAM, examples: 3, self_check: true }
    }
}

/// A list and what the program makes of it.
type Pair = (Vec<u32>, Vec<u32>);

/// What the grader of a program problem needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramsGold {
    program: Program,
    visible: Vec<Pair>,
    hidden: Vec<Pair>,
}

impl ProgramsGold {
    /// Whether a program makes what is wanted of every example and every hidden test.
    fn is_met_by(&self, program: &Program) -> bool {
        let mut tests = self.visible.iter().chain(&self.hidden);
        tests.all(|(input, output)| program.run(input).as_ref() == Some(output))
    }
}

/// Tests that the question does not show.
const HIDDEN_TESTS: usize = 6;
/// Lists that tell behaviours apart.
const PROBES: u64 = 16;
/// Draws of a list until the program accepts it.
const TRIES: usize = 64;

/// The shortest program of every behaviour that is worth asking for, by split and length.
struct Behaviours {
    programs: [[Vec<Program>; LONGEST_PROGRAM]; Split::ALL.len()],
    /// What tells behaviours apart.
    probes: Vec<Vec<u32>>,
    /// The side of every behaviour in the table.
    sides: HashMap<Outputs, Split>,
}

/// What a program makes of each probe.
type Outputs = Vec<Option<Vec<u32>>>;

impl Behaviours {
    /// The table: made once, from the language alone.
    fn table() -> &'static Self {
        static TABLE: OnceLock<Behaviours> = OnceLock::new();
        TABLE.get_or_init(|| {
            let probes: Vec<Vec<u32>> = (0..PROBES).map(|i| list(&mut draw(0, Domain::Problem, &[i]))).collect();
            let mut sides: HashMap<Outputs, Split> = HashMap::new();
            let mut programs: [[Vec<Program>; LONGEST_PROGRAM]; Split::ALL.len()] = Default::default();
            for program in Program::all() {
                let outputs: Outputs = probes.iter().map(|probe| program.run(probe)).collect();
                let telling = outputs.iter().flatten().filter(|output| !output.is_empty()).count();
                let constant = outputs.iter().flatten().all(|output| Some(output) == outputs.iter().flatten().next());
                let idle = outputs.iter().zip(&probes).all(|(output, probe)| output.as_ref() == Some(probe));
                if telling * 4 < probes.len() * 3 || constant || idle || sides.contains_key(&outputs) {
                    continue;
                }
                let mix = |h: u64, output: &Option<Vec<u32>>| match output {
                    None => hash(h ^ u64::MAX),
                    Some(list) => list.iter().fold(hash(h ^ list.len() as u64), |h, &v| hash(h ^ u64::from(v))),
                };
                let behaviour = outputs.iter().fold(0, mix);
                // A single operation is a word of the language: only what words are put together to can be held out.
                let split = match behaviour % 8 {
                    _ if program.len() == 1 => Split::Train,
                    0 | 4 => Split::Test,
                    1 => Split::Validation,
                    _ => Split::Train,
                };
                programs[split as usize][program.len() - 1].push(program);
                sides.insert(outputs, split);
            }
            Self { programs, probes, sides }
        })
    }

    /// The side of what a program does; nothing for what is never asked for.
    fn side(&self, program: &Program) -> Option<Split> {
        let outputs: Outputs = self.probes.iter().map(|probe| program.run(probe)).collect();
        self.sides.get(&outputs).copied()
    }
}

/// A random list of three or four digits.
fn list(stream: &mut Stream) -> Vec<u32> {
    (0..stream.between(3, 4)).map(|_| stream.below(10) as u32).collect()
}

impl Programs {
    pub(super) fn validate(&self) -> Result<()> {
        if (2..=LONGEST_PROGRAM).contains(&self.operations) && (1..=4).contains(&self.examples) {
            return Ok(());
        }
        let reason = "operations must be 2 or 3 (one alone is not held out), examples 1 to 4";
        Err(Error::Task { task: "programs", reason: reason.into() })
    }

    pub(super) fn problem(&self, seed: u64, split: Split, number: u64) -> Problem {
        let side = &Behaviours::table().programs[split as usize];
        let mut stream = draw(seed, Domain::Problem, &[hash_name("programs"), split as u64, number]);
        // Each length as often as any other: there are fifty times as many long programs as short ones.
        let lengths: Vec<&[Program]> =
            side[..self.operations].iter().filter(|all| !all.is_empty()).map(Vec::as_slice).collect();
        let programs = *stream.choose(&lengths);
        let program = stream.choose(programs).clone();
        let visible = pairs(&program, self.examples, &mut stream);
        let question = format!("io {}", visible.iter().map(show_pair).collect::<Vec<_>>().join("; "));
        let id = hash_name(&question);
        // Hidden tests follow from the problem alone, so that a problem is the same under every seed.
        let hidden = pairs(&program, HIDDEN_TESTS, &mut draw(id, Domain::Problem, &[1]));
        // Questions about one program are not independent of each other.
        let cluster = hash_name(&program.to_string());
        Problem { cluster, ..Problem::new(id, question, Gold::Programs(ProgramsGold { program, visible, hidden })) }
    }

    pub(super) fn side(&self, problem: &Problem) -> Split {
        match &problem.gold {
            Gold::Programs(gold) => Behaviours::table().side(&gold.program).unwrap_or(Split::Test),
            _ => Split::Test,
        }
    }

    pub(super) fn grade(&self, problem: &Problem, answer: &str) -> Verdict {
        let Gold::Programs(gold) = &problem.gold else { return Verdict::GoldUnusable };
        if gold.hidden.is_empty() || !gold.is_met_by(&gold.program) {
            return Verdict::GoldUnusable;
        }
        let is_met = Program::parse(answer).is_some_and(|program| gold.is_met_by(&program));
        if is_met { Verdict::Right } else { Verdict::Wrong }
    }

    pub(super) fn answer_key(&self, _problem: &Problem, answer: &str) -> Option<String> {
        Program::parse(answer).map(|program| program.to_string())
    }

    pub(super) fn attempts<'a>(&self, thought: &'a str) -> Vec<&'a str> {
        thought.lines().filter(|line| line.ends_with(" no") || line.ends_with(" ok")).collect()
    }

    /// What a search by random programs tries, each length as often as any other.
    pub(super) fn guesses(&self, problem: &Problem) -> Vec<Guess> {
        let Gold::Programs(gold) = &problem.gold else { return Vec::new() };
        let all = Program::all().into_iter().filter(|program| program.len() <= self.operations);
        let guess = |program: Program| Guess {
            answer: program.to_string(),
            chance: program.chance() / self.operations as f64,
            is_right: gold.is_met_by(&program),
        };
        all.map(guess).collect()
    }

    pub(super) fn claims_success(&self, thought: &str) -> bool {
        let last = thought.lines().rev().find(|line| line.ends_with(" no") || line.ends_with(" ok"));
        last.is_some_and(|line| line.ends_with(" ok"))
    }

    pub(super) fn demonstrate(&self, problem: &Problem, style: Style, stream: &mut Stream) -> Demonstration {
        match &problem.gold {
            Gold::Programs(gold) => self.write(gold, style, stream),
            _ => Demonstration { thought: None, answer: String::new() },
        }
    }
}

/// So many random lists with what the program makes of them.
fn pairs(program: &Program, count: usize, stream: &mut Stream) -> Vec<Pair> {
    let pair = |stream: &mut Stream| {
        (0..TRIES).find_map(|_| {
            let input = list(stream);
            program.run(&input).map(|output| (input, output))
        })
    };
    (0..count).filter_map(|_| pair(stream)).collect()
}

fn show(list: &[u32]) -> String {
    let numbers: Vec<String> = list.iter().map(u32::to_string).collect();
    format!("[{}]", numbers.join(","))
}

fn show_pair((input, output): &Pair) -> String {
    format!("{}->{}", show(input), show(output))
}

#[cfg(test)]
mod tests {
    use super::super::Task;
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn task() -> Task {
        Task::Programs(Programs::default())
    }

    #[test]
    fn there_are_enough_behaviours_on_both_sides() {
        let table = Behaviours::table();
        let counts = |split: Split| table.programs[split as usize].iter().map(Vec::len).collect::<Vec<_>>();
        let [train, validation, test] = Split::ALL.map(counts);
        println!("by length: {train:?} behaviours to train on, {validation:?} to choose by, {test:?} to report");
        assert!(train.iter().sum::<usize>() >= 400 && test.iter().sum::<usize>() >= 150);
        assert!(train.iter().all(|&count| count > 0), "{train:?}");
        assert_eq!((validation[0], test[0]), (0, 0), "single operations are not held out");
        for split in [Split::Validation, Split::Test] {
            assert_eq!(task().problem_set(split, 1, 600).len(), 600);
        }
    }

    #[test]
    fn no_held_out_behaviour_is_trained_on() {
        let table = Behaviours::table();
        // Lists that the split did not look at: behaviours that differ on the probes must really differ somewhere.
        let lists: Vec<Vec<u32>> = (0..200).map(|i| list(&mut draw(9, Domain::Problem, &[i]))).collect();
        let of = |p: &Program| -> Vec<Option<Vec<u32>>> { lists.iter().map(|l| p.run(l)).collect() };
        let [train, validation, test] = Split::ALL.map(|split| table.programs[split as usize].iter().flatten());
        let held_out: HashSet<_> = validation.clone().chain(test.clone()).map(of).collect();
        assert_eq!(held_out.len(), validation.count() + test.count());
        assert_eq!(train.filter(|p| held_out.contains(&of(p))).count(), 0);
    }

    #[test]
    fn demonstrations_are_right_where_they_should_be() {
        let task = task();
        let (mut gave_up, mut fact_passes, mut characters) = (0, 0, 0);
        for number in 0..1000 {
            let problem = task.problem(1, Split::Train, number);
            let mut stream = draw(2, Domain::Data, &[number]);
            let bare = task.demonstrate(&problem, Style::Bare, &mut stream).unwrap();
            assert_eq!((bare.thought, task.grade(&problem, &bare.answer).unwrap()), (None, Verdict::Right));
            let clean = task.demonstrate(&problem, Style::Clean, &mut stream).unwrap();
            assert_eq!(task.grade(&problem, &clean.answer).unwrap(), Verdict::Right, "{}", problem.question);
            let thought = clean.thought.unwrap();
            assert!(
                task.claims_success(&thought) == Some(true)
                    && task.attempts(&thought).is_some_and(|attempts| !attempts.is_empty())
            );
            characters += thought.len();
            let noisy = task.demonstrate(&problem, Style::Noisy, &mut stream).unwrap();
            let claims = task.claims_success(&noisy.thought.clone().unwrap()).unwrap();
            gave_up += usize::from(!claims);
            let fact = task.demonstrate(&problem, Style::Fact, &mut stream).unwrap().answer;
            let (wanted, restated) = (fact.split(['>', ' ']).nth(1), fact.split(" ?").nth(1));
            let passes = restated.is_some_and(|restated| restated.ends_with("] ok"));
            assert!(!passes || restated.and_then(|restated| restated.split(' ').next()) == wanted, "{fact}");
            assert_eq!(passes, fact.ends_with(" ok"), "{fact}");
            fact_passes += usize::from(passes);
            if number < 4 {
                println!("{}\n{thought}\n=> {}\nnoisy {noisy:?}\n{fact}\n", problem.question, clean.answer);
            }
        }
        println!("mean characters of a clean thought: {}", characters / 1000);
        assert!((350..650).contains(&gave_up), "{gave_up} of 1000 noisy searches give up");
        assert!((400..600).contains(&fact_passes), "{fact_passes} of 1000 facts pass");
    }

    #[test]
    fn a_thought_compares_lists_up_to_the_first_difference() {
        let problem = |program: &str| {
            let program = Program::parse(program).unwrap();
            let visible: Vec<Pair> = vec![(vec![5, 1, 3], program.run(&[5, 1, 3]).unwrap())];
            ProgramsGold { program, hidden: visible.clone(), visible }
        };
        for (gold, candidate, line) in [
            ("sort", "sort", "sort [1,3,5] ?[1,3,5] ok"),
            ("sort", "rev", "rev [3,1,5] ?[1 no"),
            ("tail", "rot", "rot [1,3,5] ?[1,3] no"),
            ("rot", "tail", "tail [1,3] ?[1,3,5 no"),
            ("rot", "tail|rev", "tail [1,3] rev [3,1] ?[1 no"),
        ] {
            assert_eq!(Programs::default().line(&Program::parse(candidate).unwrap(), &problem(gold)), line);
        }
        let silent = Programs { self_check: false, ..Programs::default() };
        assert_eq!(silent.line(&Program::parse("rev").unwrap(), &problem("sort")), "rev [3,1,5] no");
    }

    #[test]
    fn a_program_that_only_meets_the_examples_is_wrong() {
        let program = |text: &str| Program::parse(text).unwrap();
        let pair = |input: &[u32]| (input.to_vec(), program("sort").run(input).unwrap());
        // On a list that falls, sorting is turning around: only hidden tests tell them apart.
        let (visible, hidden) = (vec![pair(&[8, 4, 2]), pair(&[9, 7, 1])], vec![pair(&[1, 3, 2])]);
        let gold = ProgramsGold { program: program("sort"), visible, hidden };
        let problem = Problem::new(0, String::new(), Gold::Programs(gold));
        assert_eq!(task().grade(&problem, "sort").unwrap(), Verdict::Right);
        assert_eq!(task().grade(&problem, "rev").unwrap(), Verdict::Wrong);
        // The other way round: what meets the hidden tests and not the examples.
        assert_eq!(task().grade(&problem, "rot|rev").unwrap(), Verdict::Wrong);
        // Of generated problems too: an answer that is right does what the gold does, on lists of any kind.
        let mut only_examples = 0;
        for number in 0..40 {
            let problem = task().problem(3, Split::Test, number);
            let Gold::Programs(gold) = &problem.gold else { panic!("a program problem") };
            for candidate in Program::all().iter().filter(|candidate| candidate.len() <= 2) {
                let meets = |tests: &[Pair]| tests.iter().all(|(i, o)| candidate.run(i).as_ref() == Some(o));
                let right = task().grade(&problem, &candidate.to_string()).unwrap() == Verdict::Right;
                assert_eq!(right, meets(&gold.visible) && meets(&gold.hidden), "{candidate}: {}", problem.question);
                only_examples += usize::from(meets(&gold.visible) && !right);
            }
        }
        assert!(only_examples > 0, "no program meets the examples alone: this part cannot fail");
    }

    #[test]
    fn a_gold_that_contradicts_itself_is_unusable() {
        let mut problem = task().problem(1, Split::Test, 0);
        let Gold::Programs(gold) = &mut problem.gold else { panic!("a program problem") };
        gold.hidden[0].1.push(77);
        let program = gold.program.to_string();
        assert_eq!(task().grade(&problem, &program).unwrap(), Verdict::GoldUnusable);
    }

    proptest! {
        #[test]
        fn any_answer_gets_a_verdict(answer in ".{0,80}") {
            let problem = task().problem(1, Split::Test, 0);
            prop_assert!(task().grade(&problem, &answer).unwrap() != Verdict::GoldUnusable);
        }
    }
}
