//! A stage: what its settings say about it, and the steps that the loop takes.

use std::path::Path;

use minke_model::Transformer;
use minke_spec::ModelConfig;
use minke_tensor::Device;
use minke_text::Tokenizer;

use crate::base::{Base, Bases};
use crate::lora::LoraConfig;
use crate::ranks::Ranks;
use crate::record::{Logs, Metrics};
use crate::task::NamedTask;
use crate::trainer::Trainer;
use crate::{Error, Result};

/// The parts of a run that a stage uses.
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
    /// The tokenizer of the stage's model: of the run, or of the published model that it comes from.
    pub tokenizer: &'a Tokenizer,
    /// The published model that the stage's comes from; none if it comes from random weights.
    pub published: Option<&'a Base>,
    /// The folder of all stages: `stages/` in the output folder.
    pub stages: &'a Path,
    /// What only some stages need.
    pub outside: Outside<'a>,
}

/// What a stage needs that reads or writes beyond its own folder.
#[derive(Clone, Copy, Default)]
pub struct Outside<'a> {
    /// What came from standard input, and keys of endpoints; none where nothing of the like is needed.
    pub bases: Option<&'a Bases>,
    /// A hash of all that the result of the stage depends on.
    pub config_hash: &'a str,
    /// The adapter that the stage trains, and the model beside which it stands, as the adapter's files name it.
    pub adapter: Option<(&'a LoraConfig, &'a str)>,
}

impl<'a> Outside<'a> {
    /// What came from standard input, if the run reads it.
    pub(crate) fn stdin(&self) -> Option<&'a str> {
        self.bases.and_then(Bases::stdin)
    }

    /// As [`Bases::key_of`].
    pub(crate) fn key(&self, stage: &str, key_env: Option<&str>) -> Result<Option<String>> {
        self.bases.unwrap_or(&Bases::default()).key_of(stage, key_env)
    }
}

impl Context<'_> {
    /// The ids that end an answer.
    ///
    /// # Errors
    /// If there is none.
    pub fn end_ids(&self) -> Result<Vec<u32>> {
        let ids = self.published.map_or_else(|| self.tokenizer.end_ids(&[]), Base::end_ids);
        match ids.is_empty() {
            true => Err(Error::Config("the tokenizer names no eos_token: nothing would end an answer".into())),
            false => Ok(ids),
        }
    }
}

/// The settings of a kind of stage: its table in the TOML of a run. Each kind implements it beside its settings, and
/// [`StageConfig::settings`](crate::StageConfig::settings) is the one place that tells the kinds apart.
pub trait StageSettings {
    /// What kind of stage it is, as the TOML says it.
    fn kind(&self) -> &'static str;

    /// The name of the stage.
    fn name(&self) -> &str;

    /// The stage or the published model that it starts from; nothing for random weights, and where an endpoint answers.
    fn from(&self) -> Option<&str>;

    /// The adapter that it trains; none if it trains the weights themselves.
    fn lora(&self) -> Option<&LoraConfig> {
        None
    }

    /// The files of the user that it learns from; `-` is standard input.
    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    /// Whether it draws problems from the tasks of the run.
    fn needs_tasks(&self) -> bool {
        true
    }

    /// The stages whose data it learns from.
    fn data(&self) -> Vec<&str> {
        Vec::new()
    }

    /// The tasks that it names.
    fn tasks(&self) -> Vec<&str> {
        Vec::new()
    }

    /// A model that it makes from random weights, if it is not the run's.
    fn own_model(&self) -> Option<&ModelConfig> {
        None
    }

    /// Whether it makes a model, not data.
    fn trains(&self) -> bool {
        true
    }

    /// Steps between checkpoints.
    fn checkpoint_every(&self) -> u64;

    /// What is wrong with the settings on their own, if anything.
    fn fault(&self) -> Option<String>;

    /// Whether several ranks can share its work.
    fn is_shared(&self) -> bool {
        false
    }

    /// The model with the optimizer that the stage begins with, on one of the ranks that share it.
    fn trainer(&self, device: &Device, model: Transformer, ranks: &Ranks) -> Trainer;

    /// The stage, ready for any of its steps, for a model of this configuration.
    ///
    /// # Errors
    /// If its data cannot be read, or an engine of its sizes cannot be made.
    fn start<'a>(&'a self, context: Context<'a>, model: &ModelConfig) -> Result<Box<dyn Stage + 'a>>;
}

/// Where a stage stands before a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Steps done so far, so the first is 0; schedules and logs go by it.
    pub step: u64,
    /// Number of the data that comes next; draws go by it. It runs ahead of the step where a rollback skipped data.
    pub cursor: u64,
}

/// What a step reports.
#[derive(Clone, Debug, Default)]
pub struct StepRecord {
    /// What a person should do about how the stage goes, if something is amiss.
    pub advice: Option<String>,
    /// What the seed determines; the loop writes the number of the step before it.
    pub metrics: Metrics,
    /// What the machine determines; the loop writes number and seconds of the step before it.
    pub timings: Metrics,
    /// Tokens that went through the model.
    pub tokens: u64,
    /// Whether a value was not finite and an update was therefore left out.
    pub skipped: bool,
}

/// A stage that is at work.
///
/// A step must be a function of the trainer, of the progress, of the settings and of answers of endpoints that it wrote down: nothing
/// else that it keeps between steps may change what it does, because a resumed stage does not have it.
pub trait Stage {
    /// The number of steps.
    fn total_steps(&self) -> u64;

    /// Does one step: changes the trainer and appends to logs other than metrics and timings, which the loop writes.
    ///
    /// # Errors
    /// What cannot be answered by skipping the step.
    fn step(&mut self, trainer: &mut Trainer, progress: Progress, logs: &mut Logs) -> Result<StepRecord>;
}
