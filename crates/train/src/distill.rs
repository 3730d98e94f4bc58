//! How does a smaller model inherit a larger one's reasoning? By fine-tuning on what the teacher's samples kept.

use minke_spec::ModelConfig;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::data::{Source, load};
use crate::optimizer::LearningRates;
use crate::schedule::Schedule;
use crate::sft::{FineTuning, epochs, schedule};
use crate::stage::Context;
use crate::training::Training;

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
    /// The stage that pre-trained the student.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
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
    pub training: Training,
}

fn learning_rate() -> LearningRates {
    LearningRates { muon: Some(0.02), adamw: 3e-3 }
}

/// Returns the stage for a student that holds so many positions.
///
/// # Paper
/// - R1 2.4 (distillation)
/// - Test: crates/train/tests/distillation_makes_a_student.rs
pub(crate) fn student<'a>(context: Context<'a>, config: &'a DistillConfig, positions: usize) -> Result<FineTuning<'a>> {
    let documents = load(&context, &[Source::Stage { name: config.data.clone() }], positions)?;
    FineTuning::on(context, documents, config.epochs, (config.learning_rate, &config.schedule, &config.training))
}
