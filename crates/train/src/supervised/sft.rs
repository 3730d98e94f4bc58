//! Supervised fine-tuning: a model learns to answer like examples. Only what the assistant says counts.

use std::path::Path;

use minke_model::Transformer;
use minke_spec::ModelConfig;
use minke_spec::draw::{Domain, draw, hash_name};
use minke_tensor::Device;
use serde::{Deserialize, Serialize};

use super::{Documents, Supervised, SupervisedConfig, fault};
use crate::data::{Document, ExampleSource, load};
use crate::lora::LoraConfig;
use crate::optimizer::LearningRates;
use crate::ranks::Ranks;
use crate::schedule::Schedule;
use crate::stage::{Context, Stage, StageSettings};
use crate::trainer::Trainer;
use crate::{Error, Result};

/// A stage of supervised fine-tuning: R1's cold start, and its second start from kept samples.
///
/// # Paper
/// - R1 2.3.1, 2.3.3 (cold start, fine-tuning on 800K samples; 2-3 epochs, cosine to a tenth)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftConfig {
    /// Name of the stage.
    pub name: String,
    /// The stage whose model is trained, or a published model.
    pub from: String,
    /// Where the examples come from.
    pub data: Vec<ExampleSource>,
    /// The adapter that is trained, instead of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// How often each example is seen.
    #[serde(default = "epochs")]
    pub epochs: usize,
    /// Learning rates at factor 1 of the schedule.
    #[serde(default = "learning_rate")]
    pub learning_rate: LearningRates,
    /// How they change.
    #[serde(default = "schedule")]
    pub schedule: Schedule,
    /// What it has in common with pre-training.
    #[serde(default)]
    pub training: SupervisedConfig,
}

pub(super) fn epochs() -> usize {
    2
}

fn learning_rate() -> LearningRates {
    LearningRates { muon: Some(0.005), adamw: 1e-3 }
}

pub(super) fn schedule() -> Schedule {
    Schedule::warm_up_and_cosine(5, 0.1)
}

impl StageSettings for SftConfig {
    fn kind(&self) -> &'static str {
        "sft"
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn from(&self) -> Option<&str> {
        Some(&self.from)
    }

    fn lora(&self) -> Option<&LoraConfig> {
        self.lora.as_ref()
    }

    fn data(&self) -> Vec<&str> {
        self.data.iter().filter_map(ExampleSource::stage).collect()
    }

    fn tasks(&self) -> Vec<&str> {
        self.data.iter().filter_map(ExampleSource::task).collect()
    }

    fn files(&self) -> Vec<&Path> {
        self.data.iter().filter_map(ExampleSource::file).collect()
    }

    fn needs_tasks(&self) -> bool {
        self.data.iter().any(|source| matches!(source, ExampleSource::Demonstrations { .. }))
    }

    fn checkpoint_every(&self) -> u64 {
        self.training.checkpoint_every
    }

    fn fault(&self) -> Option<String> {
        let reason = if self.epochs == 0 {
            "epochs is 0; choose at least 1"
        } else if self.data.is_empty() {
            "data is empty; name demonstrations or a stage that made samples"
        } else if let Some(reason) = self.data.iter().find_map(ExampleSource::fault) {
            reason
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

    /// # Paper
    /// - R1 2.3.1 (cold start)
    /// - Test: crates/train/tests/a_tiny_run_learns.rs
    fn start<'a>(&'a self, context: Context<'a>, model: &ModelConfig) -> Result<Box<dyn Stage + 'a>> {
        let documents = load(&context, &self.data, model.max_position_embeddings)?;
        Ok(Box::new(Supervised {
            documents: Box::new(Epochs::new(context, documents, self.epochs, self.training.batch_tokens)?),
            learning_rate: self.learning_rate,
            schedule: &self.schedule,
            training: &self.training,
        }))
    }
}

/// The same documents several times over.
pub(super) struct Epochs {
    documents: Vec<Document>,
    /// Which documents each step learns from: all epochs, each in an order of its own.
    plan: Vec<Vec<usize>>,
}

impl Epochs {
    /// All documents in every epoch, in steps of at most `tokens` tokens or one document.
    ///
    /// # Errors
    /// If there is no document.
    pub(super) fn new(context: Context<'_>, documents: Vec<Document>, epochs: usize, tokens: usize) -> Result<Self> {
        if documents.is_empty() {
            let reason = "there is nothing to learn from: no example is short enough for the model, or none was kept \
                          (a reject stage with thought = false also keeps answers without a thought)";
            return Err(Error::Config(format!("stage {}: {reason}", context.stage)));
        }
        let mut plan = Vec::new();
        for epoch in 0..epochs as u64 {
            let mut order: Vec<usize> = (0..documents.len()).collect();
            draw(context.seed, Domain::Data, &[hash_name(context.stage), epoch]).shuffle(&mut order);
            let (mut step, mut filled) = (Vec::new(), 0);
            for i in order {
                let length = documents[i].token_ids.len();
                if filled + length > tokens && filled > 0 {
                    plan.push(std::mem::take(&mut step));
                    filled = 0;
                }
                step.push(i);
                filled += length;
            }
            plan.push(step);
        }
        Ok(Self { documents, plan })
    }
}

impl Documents for Epochs {
    fn total_steps(&self) -> u64 {
        self.plan.len() as u64
    }

    fn at(&self, cursor: u64) -> Result<Vec<Document>> {
        // After a rollback the cursor runs ahead of the step: what is behind the last epoch is the first one again.
        let step = &self.plan[(cursor % self.plan.len() as u64) as usize];
        Ok(step.iter().map(|&i| self.documents[i].clone()).collect())
    }
}
