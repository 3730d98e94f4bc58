//! How does a model learn from documents? Gradients of all micro-batches, losses as means over the step, one update.

use minke_model::{Batch, ExpertLoad, LossWeights, Targets};
use minke_tensor::{Device, Pass, backward};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::data::Document;
use crate::optimizer::{LearningRates, OptimizerConfig};
use crate::record::Metrics;
use crate::stage::StepRecord;
use crate::trainer::{Trainer, load_violation, merge_loads};

/// What pre-training, fine-tuning and distillation have in common: the `training` table of a stage.
///
/// # Paper
/// - V3 4.2 (lambda 0.3, gamma 0.001, alpha 0.0001)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Training {
    /// Tokens of one update, at most.
    pub batch_tokens: usize,
    /// Tokens of one forward, at most; gradients add up over them.
    pub micro_batch_tokens: usize,
    /// Factor of multi-token prediction, lambda; zero leaves the module as it is.
    pub mtp_weight: f32,
    /// Factor of the sequence-wise balance loss, alpha.
    pub balance_weight: f32,
    /// Step by which the selection bias of experts moves, gamma.
    pub bias_gamma: f32,
    /// Whether blocks are computed again in the backward instead of kept: less memory, a third more time.
    pub recompute: bool,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// What is chosen about the optimizers.
    pub optimizer: OptimizerConfig,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            batch_tokens: 4096,
            micro_batch_tokens: 8192,
            mtp_weight: 0.3,
            balance_weight: 1e-4,
            bias_gamma: 1e-3,
            recompute: false,
            checkpoint_every: 50,
            optimizer: OptimizerConfig::default(),
        }
    }
}

impl Training {
    /// Returns what is wrong with the settings, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if self.batch_tokens == 0 || self.micro_batch_tokens == 0 || self.checkpoint_every == 0 {
            Some("batch_tokens, micro_batch_tokens and checkpoint_every must be at least 1")
        } else if ![self.mtp_weight, self.balance_weight, self.bias_gamma].iter().all(|w| (0.0..=100.0).contains(w)) {
            Some("mtp_weight, balance_weight and bias_gamma must lie between 0 and 100")
        } else {
            self.optimizer.fault()
        }
    }

    /// Makes one update from documents and reports it.
    pub(crate) fn step(
        &self,
        trainer: &mut Trainer,
        documents: &[Document],
        rates: LearningRates,
    ) -> Result<StepRecord> {
        let device = trainer.device.clone();
        let parts = micro_batches(documents, self.micro_batch_tokens);
        let prepared: Vec<(Batch, Vec<f32>)> = parts.iter().map(|part| pack(&device, part)).collect();
        let mut totals = (0.0, 0.0);
        for (batch, counts) in &prepared {
            let (next, mtp) = Targets::count(batch, counts);
            totals = (totals.0 + next, totals.1 + mtp);
        }
        let (mut next, mut mtp, mut balance) = (0.0, None, None);
        let mut loads: Vec<ExpertLoad> = Vec::new();
        for ((batch, counts), part) in prepared.iter().zip(&parts) {
            // The balance loss is a mean over sequences: a micro-batch counts as much as it has of them.
            let share = part.len() as f32 / documents.len() as f32;
            let factors = LossWeights { mtp: self.mtp_weight, balance: self.balance_weight * share };
            let targets = Targets::next_tokens(&device, batch, counts, totals);
            let pass = Pass::recording(&device).with_recompute(self.recompute);
            let (losses, output) = trainer.model.loss(pass, batch, &targets, factors)?;
            backward(&device, &losses.total, &mut trainer.gradients)?;
            next += f64::from(losses.next);
            mtp = add(mtp, losses.mtp, 1.0);
            balance = add(balance, losses.balance, share);
            merge_loads(&mut loads, output.loads);
        }
        let loss = next
            + f64::from(self.mtp_weight) * mtp.unwrap_or_default()
            + f64::from(self.balance_weight) * balance.unwrap_or_default();
        let outcome = trainer.apply(loss, rates);
        if !outcome.skipped {
            trainer.balance_experts(&loads, self.bias_gamma);
        }
        let tokens: usize = documents.iter().map(|document| document.token_ids.len()).sum();
        let mut metrics = Metrics::new();
        metrics
            .set("loss", loss)
            .set("next", next)
            .set_if("mtp", mtp)
            .set_if("balance", balance)
            .set("grad_norm", outcome.grad_norm)
            .set("learning_rate", rates.muon.unwrap_or(rates.adamw))
            .set("num_tokens", tokens)
            .set("skipped", u64::from(outcome.skipped))
            .set_if("expert_load/max_violation", load_violation(&loads));
        Ok(StepRecord { metrics, timings: Metrics::new(), tokens: tokens as u64, skipped: outcome.skipped })
    }
}

fn add(sum: Option<f64>, part: Option<f32>, share: f32) -> Option<f64> {
    part.map(|part| sum.unwrap_or_default() + f64::from(part) * f64::from(share)).or(sum)
}

/// Returns runs of documents of at most `tokens` tokens; a longer document is a run of its own.
fn micro_batches(documents: &[Document], tokens: usize) -> Vec<&[Document]> {
    let (mut parts, mut start, mut filled) = (Vec::new(), 0, 0);
    for (i, document) in documents.iter().enumerate() {
        if filled + document.token_ids.len() > tokens && filled > 0 {
            parts.push(&documents[start..i]);
            (start, filled) = (i, 0);
        }
        filled += document.token_ids.len();
    }
    parts.push(&documents[start..]);
    parts
}

/// Returns a batch of documents, each a sequence of its own, and how much the token that each row predicts counts.
fn pack(device: &Device, documents: &[Document]) -> (Batch, Vec<f32>) {
    let sequences: Vec<&[u32]> = documents.iter().map(|document| &document.token_ids[..]).collect();
    let count = |from: usize, row: usize| if row + 1 >= from { 1.0 } else { 0.0 };
    let counts = documents.iter().flat_map(|d| (0..d.token_ids.len()).map(|row| count(d.loss_from, row))).collect();
    (Batch::packed(device, &sequences), counts)
}
