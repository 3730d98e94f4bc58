//! Pre-training: a base model from random weights, by predicting a corpus of demonstrations without end.

use minke_model::Transformer;
use minke_spec::ModelConfig;
use minke_tensor::Device;
use serde::{Deserialize, Serialize};

use super::{Documents, Supervised, SupervisedConfig, fault};
use crate::Result;
use crate::data::{Corpus, Document, TaskShare};
use crate::lora::LoraConfig;
use crate::optimizer::LearningRates;
use crate::ranks::Ranks;
use crate::schedule::Schedule;
use crate::stage::{Context, Stage, StageSettings};
use crate::trainer::Trainer;

/// A stage of pre-training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// Name of the stage.
    pub name: String,
    /// The model; by default that of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelConfig>,
    /// The stage or published model that is trained on; random weights without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The adapter that is trained, instead of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
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
    pub training: SupervisedConfig,
}

fn learning_rate() -> LearningRates {
    LearningRates { muon: Some(0.02), adamw: 3e-3 }
}

fn schedule() -> Schedule {
    Schedule::warm_up_and_cosine(20, 0.1)
}

impl StageSettings for PretrainConfig {
    fn kind(&self) -> &'static str {
        "pretrain"
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn from(&self) -> Option<&str> {
        self.from.as_deref()
    }

    fn lora(&self) -> Option<&LoraConfig> {
        self.lora.as_ref()
    }

    fn tasks(&self) -> Vec<&str> {
        self.mixture.iter().map(|share| share.task.as_str()).collect()
    }

    fn own_model(&self) -> Option<&ModelConfig> {
        self.model.as_ref()
    }

    fn checkpoint_every(&self) -> u64 {
        self.training.checkpoint_every
    }

    fn fault(&self) -> Option<String> {
        let reason = if self.steps == 0 {
            "steps is 0; choose at least 1"
        } else if self.sequence_length.is_some_and(|n| n < 4) {
            "sequence_length must be at least 4"
        } else if !self.mixture.iter().all(TaskShare::is_fine) {
            "mixture: weights must not be negative, nor all 0"
        } else if self.model.is_some() && self.from.is_some() {
            "give either `model`, for random weights, or `from`"
        } else {
            return fault(self.learning_rate, &self.schedule, &self.training, self.lora());
        };
        Some(reason.into())
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn trainer(&self, device: &Device, model: Transformer, ranks: &Ranks) -> Trainer {
        self.training.trainer(device, model, self.learning_rate, ranks)
    }

    fn start<'a>(&'a self, context: Context<'a>, model: &ModelConfig) -> Result<Box<dyn Stage + 'a>> {
        let positions = model.max_position_embeddings;
        let longest = self.sequence_length.unwrap_or(positions).min(positions);
        let corpus = Corpus::new(context, &self.mixture, longest)?;
        Ok(Box::new(Supervised {
            documents: Box::new(Endless { corpus, tokens: self.training.batch_tokens, steps: self.steps }),
            learning_rate: self.learning_rate,
            schedule: &self.schedule,
            training: &self.training,
        }))
    }
}

/// New documents in every step.
struct Endless<'a> {
    corpus: Corpus<'a>,
    /// Of a step, at most.
    tokens: usize,
    steps: u64,
}

impl Documents for Endless<'_> {
    fn total_steps(&self) -> u64 {
        self.steps
    }

    fn at(&self, cursor: u64) -> Result<Vec<Document>> {
        self.corpus.documents(cursor, self.tokens)
    }
}
