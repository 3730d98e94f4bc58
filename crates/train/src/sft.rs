//! How does a model learn to answer like examples? Supervised fine-tuning: only what the assistant says counts.

use minke_spec::draw::{Domain, draw, hash_name};
use serde::{Deserialize, Serialize};

use crate::data::{Document, Source, load};
use crate::optimizer::LearningRates;
use crate::record::Logs;
use crate::schedule::Schedule;
use crate::stage::{At, Context, Stage, StepRecord};
use crate::trainer::Trainer;
use crate::training::Training;
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
    /// The stage whose model is trained.
    pub from: String,
    /// Where the examples come from.
    pub data: Vec<Source>,
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
    pub training: Training,
}

pub(crate) fn epochs() -> usize {
    2
}

fn learning_rate() -> LearningRates {
    LearningRates { muon: Some(0.005), adamw: 1e-3 }
}

pub(crate) fn schedule() -> Schedule {
    Schedule::warm_up_and_cosine(5, 0.1)
}

/// Fine-tuning as the loop drives it, whatever the examples and the model.
pub(crate) struct FineTuning<'a> {
    learning_rate: LearningRates,
    schedule: &'a Schedule,
    training: &'a Training,
    documents: Vec<Document>,
    /// Which documents each step learns from: all epochs, each in an order of its own.
    plan: Vec<Vec<usize>>,
}

impl<'a> FineTuning<'a> {
    /// Returns the stage for a model that holds so many positions.
    ///
    /// # Paper
    /// - R1 2.3.1 (cold start)
    /// - Test: crates/train/tests/a_tiny_run_learns.rs
    pub(crate) fn new(context: Context<'a>, config: &'a SftConfig, positions: usize) -> Result<Self> {
        let documents = load(&context, &config.data, positions)?;
        Self::on(context, documents, config.epochs, (config.learning_rate, &config.schedule, &config.training))
    }

    pub(crate) fn on(
        context: Context<'a>,
        documents: Vec<Document>,
        epochs: usize,
        (learning_rate, schedule, training): (LearningRates, &'a Schedule, &'a Training),
    ) -> Result<Self> {
        if documents.is_empty() {
            let reason = "there is nothing to learn from: no example is short enough for the model, or none was kept";
            return Err(Error::Config(format!("stage {}: {reason}", context.stage)));
        }
        let mut plan = Vec::new();
        for epoch in 0..epochs as u64 {
            let mut order: Vec<usize> = (0..documents.len()).collect();
            draw(context.seed, Domain::Data, &[hash_name(context.stage), epoch]).shuffle(&mut order);
            let (mut step, mut filled) = (Vec::new(), 0);
            for i in order {
                let tokens = documents[i].token_ids.len();
                if filled + tokens > training.batch_tokens && filled > 0 {
                    plan.push(std::mem::take(&mut step));
                    filled = 0;
                }
                step.push(i);
                filled += tokens;
            }
            plan.push(step);
        }
        Ok(Self { learning_rate, schedule, training, documents, plan })
    }
}

impl Stage for FineTuning<'_> {
    fn total_steps(&self) -> u64 {
        self.plan.len() as u64
    }

    fn step(&mut self, trainer: &mut Trainer, at: At, _logs: &mut Logs) -> Result<StepRecord> {
        // After a rollback the cursor runs ahead of the step: what is behind the last epoch is the first one again.
        let step = &self.plan[(at.cursor % self.plan.len() as u64) as usize];
        let documents: Vec<Document> = step.iter().map(|&i| self.documents[i].clone()).collect();
        let factor = self.schedule.factor(at.step, self.total_steps());
        self.training.step(trainer, &documents, self.learning_rate.scaled(factor))
    }
}
