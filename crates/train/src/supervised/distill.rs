//! Distillation: a smaller model inherits the reasoning of a larger one by fine-tuning on what the teacher's samples kept.

use minke_model::Transformer;
use minke_spec::ModelConfig;
use minke_tensor::Device;
use serde::{Deserialize, Serialize};

use super::sft::{Epochs, epochs, schedule};
use super::{Supervised, SupervisedConfig, fault};
use crate::Result;
use crate::data::{ExampleSource, load};
use crate::lora::LoraConfig;
use crate::optimizer::LearningRates;
use crate::ranks::Ranks;
use crate::schedule::Schedule;
use crate::stage::{Context, Stage, StageSettings};
use crate::trainer::Trainer;

/// A stage of distillation: a student learns from samples that a teacher drew and a grader kept. The student is fresh
/// (`model`) or pre-trained by a stage of its own (`from`); it shares the tokenizer of the run.
///
/// # Paper
/// - R1 2.4 (distillation by fine-tuning alone; 2-3 epochs, cosine to a tenth)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistillConfig {
    /// Name of the stage.
    pub name: String,
    /// The rejection-sampling stage that kept the teacher's samples.
    pub data: String,
    /// A fresh student.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelConfig>,
    /// The stage that pre-trained the student, or a published model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The adapter that is trained, instead of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// How often each sample is seen.
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

fn learning_rate() -> LearningRates {
    LearningRates { muon: Some(0.02), adamw: 3e-3 }
}

impl StageSettings for DistillConfig {
    fn kind(&self) -> &'static str {
        "distill"
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

    fn data(&self) -> Vec<&str> {
        vec![&self.data]
    }

    fn needs_tasks(&self) -> bool {
        false
    }

    fn own_model(&self) -> Option<&ModelConfig> {
        self.model.as_ref()
    }

    fn checkpoint_every(&self) -> u64 {
        self.training.checkpoint_every
    }

    fn fault(&self) -> Option<String> {
        let reason = if self.epochs == 0 {
            "epochs is 0; choose at least 1"
        } else if self.model.is_some() == self.from.is_some() {
            "give the student either `model` or `from`"
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
    /// - R1 2.4 (distillation)
    /// - Test: crates/train/tests/distillation_makes_a_student.rs
    fn start<'a>(&'a self, context: Context<'a>, model: &ModelConfig) -> Result<Box<dyn Stage + 'a>> {
        let kept = [ExampleSource::Stage { name: self.data.clone() }];
        let documents = load(&context, &kept, model.max_position_embeddings)?;
        Ok(Box::new(Supervised {
            documents: Box::new(Epochs::new(context, documents, self.epochs, self.training.batch_tokens)?),
            learning_rate: self.learning_rate,
            schedule: &self.schedule,
            training: &self.training,
        }))
    }
}
