//! Problems that can be posed and checked without a teacher: three families, each with a generator, a grader and
//! demonstrations. Training rewards and evaluation scores go through the same graders.

mod arithmetic;
mod countdown;
mod programs;

pub use arithmetic::{Arithmetic, ArithmeticGold};
pub use countdown::{Countdown, CountdownGold};
pub use programs::{Programs, ProgramsGold};

use crate::Verdict;
use minke_spec::draw::Stream;
use serde::{Deserialize, Serialize};

/// A family of problems. In a run's TOML: `family = "countdown"` with the family's settings beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "lowercase")]
pub enum Task {
    /// Reach a number with given numbers.
    Countdown(Countdown),
    /// Evaluate an expression step by step.
    Arithmetic(Arithmetic),
    /// Find a short program from examples of what it does.
    Programs(Programs),
}

/// Which side of a family a problem is on. The sides are disjoint by construction, for every seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// For training of any kind.
    Train,
    /// Held out.
    Test,
}

/// A problem with what its grader needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// The same for the same problem under every seed.
    pub id: u64,
    /// What the model is asked.
    pub question: String,
    /// What the grader needs.
    pub gold: Gold,
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
    /// The name of the family.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Countdown(_) => "countdown",
            Self::Arithmetic(_) => "arithmetic",
            Self::Programs(_) => "programs",
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// If a setting leaves no problems to pose.
    pub fn validate(&self) -> crate::Result<()> {
        each!(self, family => family.validate())
    }

    /// Problem `number` of a split: a function of its arguments. Numbers may repeat problems.
    pub fn problem(&self, seed: u64, split: Split, number: u64) -> Problem {
        each!(self, family => family.problem(seed, split, number))
    }

    /// The side that a problem is on, from what is asked alone: under every seed, and whatever it was drawn for. What is
    /// no problem of this family counts as held out.
    pub fn side(&self, problem: &Problem) -> Split {
        each!(self, family => family.side(problem))
    }

    /// Up to `count` distinct problems of the test split, in the order in which they are first drawn.
    pub fn test_set(&self, seed: u64, count: usize) -> Vec<Problem> {
        let mut seen = std::collections::HashSet::new();
        // A family with fewer problems than asked for ends the search, not the program.
        let tries = 200 * count as u64 + 10_000;
        let problems = (0..tries).map(|number| self.problem(seed, Split::Test, number));
        problems.filter(|problem| seen.insert(problem.id)).take(count).collect()
    }

    /// The verdict on an answer: the text behind the thought.
    pub fn grade(&self, problem: &Problem, answer: &str) -> Verdict {
        each!(self, family => family.grade(problem, answer))
    }

    /// The form under which equal answers are counted together in a majority vote; nothing for no answer.
    pub fn answer_key(&self, problem: &Problem, answer: &str) -> Option<String> {
        each!(self, family => family.answer_key(problem, answer))
    }

    /// How many attempts a thought makes.
    pub fn attempts(&self, thought: &str) -> usize {
        each!(self, family => family.attempts(thought))
    }

    /// Whether a thought ends by claiming success.
    pub fn claims_success(&self, thought: &str) -> bool {
        each!(self, family => family.claims_success(thought))
    }

    /// Training text for a problem.
    pub fn demonstrate(&self, problem: &Problem, style: Style, stream: &mut Stream) -> Demonstration {
        each!(self, family => family.demonstrate(problem, style, stream))
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
                let held_out = task.problem(seed, Split::Test, number);
                assert_eq!(task.side(&held_out), Split::Test, "{}", held_out.question);
                assert_eq!(TrainingProblem::new(task, held_out), None);
            }
        }
        // Of another family, so that nothing is known about its side.
        let foreign = tasks[2].problem(1, Split::Train, 0);
        assert_eq!(TrainingProblem::new(&tasks[0], foreign), None);
    }
}
