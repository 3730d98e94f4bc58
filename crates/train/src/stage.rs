//! What is a stage, to the loop that drives it? Something with a number of steps, each a function of where it stands.

use std::path::Path;

use minke_tensor::Device;
use minke_text::Tokenizer;

use crate::Result;
use crate::record::{Logs, Metrics};
use crate::task::NamedTask;
use crate::trainer::Trainer;

/// What a stage knows of its run.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Where it runs.
    pub device: &'a Device,
    /// Seed of every draw.
    pub seed: u64,
    /// Name of the stage.
    pub stage: &'a str,
    /// The tasks of the run.
    pub tasks: &'a [NamedTask],
    /// The tokenizer of the run.
    pub tokenizer: &'a Tokenizer,
    /// The folder of all stages: `stages/` in the output folder.
    pub stages: &'a Path,
}

/// Where a stage stands before a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Steps done so far, so the first is 0; schedules and logs go by it.
    pub step: u64,
    /// Number of the data that comes next; draws go by it. It runs ahead of the step where a rollback skipped data.
    pub cursor: u64,
}

/// What a step reports.
#[derive(Clone, Debug, Default)]
pub struct StepRecord {
    /// What the seed determines; the loop writes the number of the step before it.
    pub metrics: Metrics,
    /// What the machine determines; the loop writes number and seconds of the step before it.
    pub timings: Metrics,
    /// Tokens that went through the model.
    pub tokens: u64,
    /// Whether a value was not finite and an update was therefore left out.
    pub skipped: bool,
}

/// A stage as the loop in [`crate::run`] drives it.
///
/// A step must be a function of the trainer, of where it stands and of the configuration: nothing that it keeps between
/// steps may change what it does, because a resumed stage has forgotten it.
pub trait Stage {
    /// Returns the number of steps.
    fn total_steps(&self) -> u64;

    /// Does one step: changes the trainer and appends to logs other than metrics and timings, which the loop writes.
    ///
    /// # Errors
    /// What cannot be answered by skipping the step.
    fn step(&mut self, trainer: &mut Trainer, at: At, logs: &mut Logs) -> Result<StepRecord>;
}
