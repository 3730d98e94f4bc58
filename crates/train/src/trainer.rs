//! What changes while a stage trains? A model, its optimizer, perhaps a reference; and how does one update go?

use minke_model::{Batch, ExpertLoad, LossWeights, Targets, Transformer};
use minke_tensor::{Device, Gradients, Pass, backward};

use crate::Result;
use crate::data::Document;
use crate::optimizer::{LearningRates, Optimizer, OptimizerConfig};

/// Everything that a training stage changes, and everything that a checkpoint holds of it.
pub struct Trainer {
    /// Where it runs.
    pub device: Device,
    /// The model that is trained.
    pub model: Transformer,
    /// A frozen model that the loss looks at; saved in checkpoints while there is one.
    pub reference: Option<Transformer>,
    /// What the optimizers remember.
    pub optimizer: Optimizer,
    /// Gradients since the last update; their memory is kept.
    pub gradients: Gradients,
}

/// How one update went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// Norm of all gradients before clipping.
    pub grad_norm: f64,
    /// Whether loss or gradients were not finite, so that nothing was changed.
    pub skipped: bool,
}

/// How documents are learned from in one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SupervisedStep {
    pub rates: LearningRates,
    pub factors: LossWeights,
    pub bias_gamma: f32,
    pub micro_batch_tokens: usize,
    pub recompute: bool,
}

/// What one step on documents gave.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SupervisedOutcome {
    pub loss: f64,
    pub next: f64,
    pub mtp: Option<f64>,
    pub balance: Option<f64>,
    pub load_violation: Option<f64>,
    pub tokens: usize,
    pub outcome: StepOutcome,
}

impl Trainer {
    /// Returns a trainer with nothing remembered yet.
    pub fn new(
        device: &Device,
        model: Transformer,
        rates: LearningRates,
        config: OptimizerConfig,
        train_mtp: bool,
    ) -> Self {
        let optimizer = Optimizer::new(device, &model, rates, config, train_mtp);
        Self { device: device.clone(), model, reference: None, optimizer, gradients: Gradients::default(), }
    }

    /// Moves the weights along the gradients collected so far and clears them. If the loss or a gradient is not finite,
    /// the weights stay as they are.
    pub fn apply(&mut self, loss: f64, rates: LearningRates) -> StepOutcome {
        let grad_norm = if loss.is_finite() {
            self.optimizer.step(&self.device, &mut self.model, &self.gradients, rates)
        } else {
            f64::NAN
        };
        self.gradients.clear(&self.device);
        StepOutcome { grad_norm, skipped: !grad_norm.is_finite() }
    }

    /// Moves the selection biases of the experts by what all forwards of an update saw together.
    pub fn balance_experts(&mut self, loads: &[ExpertLoad], gamma: f32) {
        if gamma != 0.0 {
            self.model.balance_experts(&self.device, loads, gamma);
        }
    }

    /// Learns from documents: gradients of all micro-batches, losses as means over the whole step, one update.
    pub(crate) fn learn(&mut self, documents: &[Document], how: &SupervisedStep) -> Result<SupervisedOutcome> {
        let device = self.device.clone();
        let micro_batches = micro_batches(documents, how.micro_batch_tokens);
        let prepared: Vec<(Batch, Vec<f32>)> = micro_batches.iter().map(|part| pack(&device, part)).collect();
        let mut totals = (0.0, 0.0);
        for (batch, counts) in &prepared {
            let (next, mtp) = Targets::count(batch, counts);
            totals = (totals.0 + next, totals.1 + mtp);
        }
        let (mut next, mut mtp, mut balance) = (0.0, None, None);
        let mut loads: Vec<ExpertLoad> = Vec::new();
        for ((batch, counts), part) in prepared.iter().zip(&micro_batches) {
            let share = part.len() as f32 / documents.len() as f32;
            let targets = Targets::next_tokens(&device, batch, counts, totals);
            let pass = Pass::recording(&device).with_recompute(how.recompute);
            // The balance loss is a mean over sequences: a micro-batch counts as much as it has of them.
            let factors = LossWeights { balance: how.factors.balance * share, ..how.factors };
            let (losses, output) = self.model.loss(pass, batch, &targets, factors)?;
            backward(&device, &losses.total, &mut self.gradients)?;
            next += f64::from(losses.next);
            mtp = add(mtp, losses.mtp, 1.0);
            balance = add(balance, losses.balance, share);
            merge_loads(&mut loads, output.loads);
        }
        let loss = next
            + f64::from(how.factors.mtp) * mtp.unwrap_or_default()
            + f64::from(how.factors.balance) * balance.unwrap_or_default();
        let outcome = self.apply(loss, how.rates);
        if !outcome.skipped {
            self.balance_experts(&loads, how.bias_gamma);
        }
        let tokens = documents.iter().map(|document| document.token_ids.len()).sum();
        Ok(SupervisedOutcome { loss, next, mtp, balance, load_violation: load_violation(&loads), tokens, outcome })
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
    let row = |document: &Document, row: usize| if row + 1 >= document.loss_from { 1.0 } else { 0.0 };
    let counts = documents.iter().flat_map(|d| (0..d.token_ids.len()).map(move |i| row(d, i))).collect();
    (Batch::packed(device, &sequences), counts)
}

/// Adds the loads of one forward to those of others, layer by layer.
pub(crate) fn merge_loads(sum: &mut Vec<ExpertLoad>, loads: Vec<ExpertLoad>) {
    for load in loads {
        match sum.iter_mut().find(|have| have.layer == load.layer) {
            Some(have) => have.tokens.iter_mut().zip(&load.tokens).for_each(|(have, more)| *have += more),
            None => sum.push(load),
        }
    }
}

/// Returns by how much the fullest expert of any layer exceeds the mean load, as a share of the mean; V3's maximal
/// violation.
pub(crate) fn load_violation(loads: &[ExpertLoad]) -> Option<f64> {
    let of_layer = |load: &ExpertLoad| {
        let mean = load.tokens.iter().sum::<u64>() as f64 / load.tokens.len() as f64;
        let most = load.tokens.iter().copied().max().unwrap_or(0) as f64;
        if mean > 0.0 { most / mean - 1.0 } else { 0.0 }
    };
    loads.iter().map(of_layer).reduce(f64::max)
}
