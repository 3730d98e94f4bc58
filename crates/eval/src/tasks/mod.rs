//! Problems that can be posed and checked without a teacher. Three families have a generator, a grader and demonstrations;
//! a set has the problems of a file. Training rewards and evaluation scores go through the same graders.

mod arithmetic;
mod baseline;
mod countdown;
mod programs;
mod set;

pub use arithmetic::{Arithmetic, ArithmeticGold};
pub use baseline::SearchBaseline;
pub use countdown::{Countdown, CountdownGold};
pub use programs::{Programs, ProgramsGold};
pub use set::{ProblemSet, SetFiles, SetFormat};

use minke_spec::draw::Stream;
use minke_text::Message;
use serde::{Deserialize, Serialize};

use crate::verify::code::CodeProblem;
use crate::verify::math;
pub(crate) use baseline::best_constant;

use crate::{Result, Verdict};

/// Where problems come from: a family, or the files of a set. In a run's TOML: `family = "countdown"` with the family's
/// settings beside it, or `family = "file"` with the format and the files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "lowercase")]
pub enum Task {
    /// Reach a number with given numbers.
    Countdown(Countdown),
    /// Evaluate an expression step by step.
    Arithmetic(Arithmetic),
    /// Find a short program from examples of what it does.
    Programs(Programs),
    /// Problems that a file has.
    #[serde(rename = "file")]
    Set(ProblemSet),
}

/// Which side of a task a problem is on. The sides are disjoint by construction, for every seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// For training of any kind.
    Train,
    /// Held out, to choose by: between settings, steps and recipes.
    Validation,
    /// Held out, to report: nothing is chosen by it.
    Test,
}

impl Split {
    /// Every side.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// The name, as it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }

    /// The side of what has this hash, under every seed: one part in eight is for the test, one for validation.
    fn of_hash(hash: u64) -> Self {
        match hash % 8 {
            0 => Self::Test,
            1 => Self::Validation,
            _ => Self::Train,
        }
    }
}

/// A problem with what its grader needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// The same for the same problem under every seed.
    pub id: u64,
    /// What its file calls it; of a family its id.
    pub name: String,
    /// The same for problems that are not independent of each other; its id if it is on its own.
    pub cluster: u64,
    /// Messages before the question.
    pub context: Vec<Message>,
    /// What the model is asked.
    pub question: String,
    /// What the grader needs.
    pub gold: Gold,
}

impl Problem {
    /// A problem on its own.
    pub fn new(id: u64, question: String, gold: Gold) -> Self {
        Self { id, name: id.to_string(), cluster: id, context: Vec::new(), question, gold }
    }

    /// The conversation that the model answers.
    pub fn messages(&self) -> Vec<Message> {
        [&self.context[..], &[Message::user(&self.question)]].concat()
    }
}

/// What a grader needs of a problem.
#[derive(Clone, Debug, PartialEq)]
pub enum Gold {
    /// Of a countdown problem.
    Countdown(CountdownGold),
    /// Of an arithmetic problem.
    Arithmetic(ArithmeticGold),
    /// Of a program problem.
    Programs(ProgramsGold),
    /// The right answer to a question of mathematics, as its file has it.
    Math(String),
    /// Tests of a program that is asked for.
    Code(CodeProblem),
}

/// How a demonstration is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// A right answer without a thought.
    Bare,
    /// A random search of one to eight attempts, half of which give up with a wrong answer: the web as it is.
    Noisy,
    /// A readable, persistent search that ends in a right answer: cold-start data.
    Clean,
    /// A fact of the family on its own, such as `12*7=84`: a document without question.
    Fact,
}

/// An answer that a blind search may try: one that makes random attempts at what is asked and remembers nothing.
struct Guess {
    /// The answer, under the form in which equal ones are counted together.
    answer: String,
    /// How likely an attempt is this one.
    chance: f64,
    /// Whether it is right.
    is_right: bool,
}

/// Most attempts of a noisy search before its last. A model that never sees an attempt far from its question breaks
/// down where it goes on for longer, and one that sees no longest search does not come to an end.
const LONGEST_NOISY: u64 = 7;

/// Whether a noisy search gives up, and how many blind attempts it makes: at least one if it does.
fn noisy_search(stream: &mut Stream) -> (bool, u64) {
    let gives_up = stream.chance(0.5);
    (gives_up, stream.below(LONGEST_NOISY + 1) + u64::from(gives_up))
}

/// Training text for one problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demonstration {
    /// The thought, if there is one.
    pub thought: Option<String>,
    /// The answer; for [`Style::Fact`] the whole document.
    pub answer: String,
}

macro_rules! each {
    ($task:expr, $family:ident => $call:expr) => {
        match $task {
            Task::Countdown($family) => $call,
            Task::Arithmetic($family) => $call,
            Task::Programs($family) => $call,
            Task::Set($family) => $call,
        }
    };
}

/// What families have and sets do not: searches that can be shown and recognized.
macro_rules! of_family {
    ($task:expr, $family:ident => $call:expr) => {
        match $task {
            Task::Countdown($family) => Some($call),
            Task::Arithmetic($family) => Some($call),
            Task::Programs($family) => Some($call),
            Task::Set(_) => None,
        }
    };
}

/// A problem of the training side: the only kind that documents, rewards and kept samples are made of.
///
/// # Examples
/// ```
/// use minke_eval::{Split, Task, TrainingProblem, tasks::Countdown};
/// let task = Task::Countdown(Countdown::default());
/// assert_eq!(task.side(&TrainingProblem::draw(&task, 1, 0)), Split::Train);
/// assert!(TrainingProblem::new(&task, task.problem(1, Split::Test, 0)).is_none());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingProblem(Problem);

impl TrainingProblem {
    /// Problem `number` of the training split of a task, as [`Task::problem`] has it.
    ///
    /// # Panics
    /// If the generator of the task gives a held-out problem.
    pub fn draw(task: &Task, seed: u64, number: u64) -> Self {
        let problem = Self::new(task, task.problem(seed, Split::Train, number));
        problem.expect("invariant: a problem that is drawn for training is not held out")
    }

    /// The problem as one to train on; nothing if it is held out.
    pub fn new(task: &Task, problem: Problem) -> Option<Self> {
        (task.side(&problem) == Split::Train).then_some(Self(problem))
    }
}

impl std::ops::Deref for TrainingProblem {
    type Target = Problem;

    fn deref(&self) -> &Problem {
        &self.0
    }
}

impl Task {
    /// The name of the family, or of the format of the set.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Countdown(_) => "countdown",
            Self::Arithmetic(_) => "arithmetic",
            Self::Programs(_) => "programs",
            Self::Set(set) => set.files().format.name(),
        }
    }

    /// The set, if it is one.
    pub fn set(&self) -> Option<&ProblemSet> {
        match self {
            Self::Set(set) => Some(set),
            Self::Countdown(_) | Self::Arithmetic(_) | Self::Programs(_) => None,
        }
    }

    /// Checks the settings of a task that is trained on.
    ///
    /// # Errors
    /// If a setting leaves no problems to pose on a side.
    pub fn validate(&self) -> Result<()> {
        each!(self, family => family.validate())
    }

    /// Problem `number` of a split: a function of its arguments. Numbers may repeat problems.
    ///
    /// # Panics
    /// If there is none on that side, which [`Task::validate`] refuses.
    pub fn problem(&self, seed: u64, split: Split, number: u64) -> Problem {
        each!(self, family => family.problem(seed, split, number))
    }

    /// The side that a problem is on, from what is asked alone: under every seed, and whatever it was drawn for. What is
    /// no problem of this family counts as held out.
    pub fn side(&self, problem: &Problem) -> Split {
        each!(self, family => family.side(problem))
    }

    /// Up to `count` distinct problems of a side: of a family in the order in which they are first drawn, of a set in the
    /// order of its file, whatever the seed.
    pub fn problem_set(&self, split: Split, seed: u64, count: usize) -> Vec<Problem> {
        if let Self::Set(set) = self {
            return set.on_side(split).take(count).cloned().collect();
        }
        let mut seen = std::collections::HashSet::new();
        // A family with fewer problems than asked for ends the search, not the program.
        let tries = 200 * count as u64 + 10_000;
        let problems = (0..tries).map(|number| self.problem(seed, split, number));
        problems.filter(|problem| seen.insert(problem.id)).take(count).collect()
    }

    /// The verdict on an answer: the text behind the thought.
    ///
    /// # Errors
    /// If a program that is to be judged cannot be run.
    pub fn grade(&self, problem: &Problem, answer: &str) -> Result<Verdict> {
        match self {
            Self::Set(set) => set.grade(problem, answer),
            Self::Countdown(family) => Ok(family.grade(problem, answer)),
            Self::Arithmetic(family) => Ok(family.grade(problem, answer)),
            Self::Programs(family) => Ok(family.grade(problem, answer)),
        }
    }

    /// The form under which equal answers are counted together in a majority vote; nothing for no answer. Answers to questions
    /// of mathematics can also be equal in other forms: [`Task::same_vote`].
    pub fn answer_key(&self, problem: &Problem, answer: &str) -> Option<String> {
        each!(self, family => family.answer_key(problem, answer))
    }

    /// Whether two answers to a problem vote for the same, by their keys.
    pub fn same_vote(&self, one: &str, other: &str) -> bool {
        one == other || self.set().is_some_and(|_| math::judge(one, &format!("\\boxed{{{other}}}")) == Verdict::Right)
    }

    /// Whether equal answers can be counted together.
    pub fn has_votes(&self) -> bool {
        self.set().is_none_or(|set| !set.files().format.asks_for_code())
    }

    /// The attempts that a thought makes, as it writes them; nothing for a set, whose thoughts have no form.
    pub fn attempts<'a>(&self, thought: &'a str) -> Option<Vec<&'a str>> {
        of_family!(self, family => family.attempts(thought))
    }

    /// What a blind search may try at a problem; nothing where there is nothing to search.
    fn guesses(&self, problem: &Problem) -> Option<Vec<Guess>> {
        match self {
            Self::Countdown(family) => Some(family.guesses(problem)),
            Self::Programs(family) => Some(family.guesses(problem)),
            Self::Arithmetic(_) | Self::Set(_) => None,
        }
    }

    /// Whether a thought ends by claiming success; nothing for a set.
    pub fn claims_success(&self, thought: &str) -> Option<bool> {
        of_family!(self, family => family.claims_success(thought))
    }

    /// Training text for a problem; nothing for a set.
    pub fn demonstrate(&self, problem: &Problem, style: Style, stream: &mut Stream) -> Option<Demonstration> {
        of_family!(self, family => family.demonstrate(problem, style, stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_for_a_side_is_on_it_and_nothing_held_out_is_trained_on() {
        let tasks = [
            Task::Countdown(Countdown::default()),
            Task::Countdown(Countdown { counts: vec![2, 4], ..Countdown::default() }),
            Task::Arithmetic(Arithmetic::default()),
            Task::Programs(Programs::default()),
        ];
        for task in &tasks {
            for (seed, number) in (0..400).map(|i| (i % 3, i)) {
                let drawn = TrainingProblem::draw(task, seed, number);
                assert_eq!(*drawn, task.problem(seed, Split::Train, number));
                assert_eq!(task.side(&drawn), Split::Train);
                for side in [Split::Validation, Split::Test] {
                    let held_out = task.problem(seed, side, number);
                    assert_eq!(task.side(&held_out), side, "{}", held_out.question);
                    assert_eq!(TrainingProblem::new(task, held_out), None);
                }
            }
        }
        // Of another family, so that nothing is known about its side.
        let foreign = tasks[2].problem(1, Split::Train, 0);
        assert_eq!(TrainingProblem::new(&tasks[0], foreign), None);
    }
}
