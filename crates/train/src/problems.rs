//! The problems of a stage: which of the run's tasks is asked next, and what.

use std::collections::BTreeMap;

use minke_eval::TrainingProblem;
use minke_spec::draw::{Domain, draw, hash_name};

use crate::task::NamedTask;

/// Draws training problems of the tasks of a stage.
#[derive(Clone)]
pub(crate) struct Problems<'a> {
    seed: u64,
    stage: u64,
    /// The tasks of the stage with their shares, in the order of the run.
    tasks: Vec<(&'a NamedTask, f64)>,
}

impl<'a> Problems<'a> {
    /// Those of a stage with these shares of the run's tasks; without any, all count alike.
    pub(crate) fn new(seed: u64, stage: &str, tasks: &'a [NamedTask], shares: &BTreeMap<String, f64>) -> Self {
        let share = |task: &'a NamedTask| match shares.is_empty() {
            true => Some((task, 1.0)),
            false => Some((task, *shares.get(&task.name)?)),
        };
        Self { seed, stage: hash_name(stage), tasks: tasks.iter().filter_map(share).collect() }
    }

    /// The tasks of the stage, in the order of the run.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &'a NamedTask> {
        self.tasks.iter().map(|(task, _)| *task)
    }

    /// A task by its number among those of the stage.
    pub(crate) fn task(&self, number: usize) -> &'a NamedTask {
        self.tasks[number].0
    }

    /// Problem `number` of the step's data `cursor`, and the number of its task: a function of the run's seed, the stage's name and
    /// these.
    pub(crate) fn draw(&self, cursor: u64, number: u64) -> (usize, TrainingProblem) {
        let total: f64 = self.tasks.iter().map(|(_, share)| share).sum();
        let mut stream = draw(self.seed, Domain::Data, &[self.stage, cursor, number]);
        let mut left = stream.uniform() * total;
        let taken = self.tasks.iter().position(|(_, share)| {
            left -= share;
            left < 0.0
        });
        let task = taken.unwrap_or(self.tasks.len() - 1);
        (task, TrainingProblem::draw(&self.tasks[task].0.task, self.seed, stream.bits()))
    }
}
