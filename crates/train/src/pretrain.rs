//! How does a base model come to be? From random weights, by predicting demonstrations without end.

use minke_spec::ModelConfig;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::data::{Corpus, TaskShare};
use crate::optimizer::LearningRates;
use crate::record::Logs;
use crate::schedule::Schedule;
use crate::stage::{At, Context, Stage, StepRecord};
use crate::trainer::Trainer;
use crate::training::Training;

/// A stage of pre-training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// Name of the stage.
    pub name: String,
    /// The model; by default that of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelConfig>,
    /// Updates.
    pub steps: u64,
    /// Learning rates at factor 1 of the schedule.
    #[serde(default = "learning_rate")]
    pub learning_rate: LearningRates,
    /// How they change.
    #[serde(default = "schedule")]
    pub schedule: Schedule,
    /// Shares of the run's tasks; by default all alike.
    #[serde(default)]
    pub mixture: Vec<TaskShare>,
    /// Longest document in tokens, what is behind that is cut; by default what the model can hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence_length: Option<usize>,
    /// What it has in common with fine-tuning.
    #[serde(default)]
    pub training: Training,
}

fn learning_rate() -> LearningRates {
    LearningRates { muon: Some(0.02), adamw: 3e-3 }
}

fn schedule() -> Schedule {
    Schedule::warm_up_and_cosine(20, 0.1)
}

/// Pre-training as the loop drives it.
pub(crate) struct Pretraining<'a> {
    config: &'a PretrainConfig,
    corpus: Corpus<'a>,
}

impl<'a> Pretraining<'a> {
    pub(crate) fn new(context: Context<'a>, config: &'a PretrainConfig, positions: usize) -> Result<Self> {
        let longest = config.sequence_length.unwrap_or(positions).min(positions);
        Ok(Self { config, corpus: Corpus::new(context, &config.mixture, longest)? })
    }
}

impl Stage for Pretraining<'_> {
    fn total_steps(&self) -> u64 {
        self.config.steps
    }

    fn step(&mut self, trainer: &mut Trainer, at: At, _logs: &mut Logs) -> Result<StepRecord> {
        let documents = self.corpus.documents(at.cursor, self.config.training.batch_tokens);
        let factor = self.config.schedule.factor(at.step, self.config.steps);
        self.config.training.step(trainer, &documents, self.config.learning_rate.scaled(factor))
    }
}
