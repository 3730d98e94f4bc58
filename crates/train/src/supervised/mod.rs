//! Learning from documents: pre-training, fine-tuning and distillation differ in where the documents come from.
//!
//! An update adds up the gradients of all micro-batches; its losses are means over the whole update.

mod distill;
mod pipeline;
mod pretrain;
mod sft;

use std::time::Instant;

use minke_model::{Batch, ExpertLoad, Targets, Transformer};
use minke_tensor::{Comm, Device};
use serde::{Deserialize, Serialize};

use pipeline::Passes;

pub use distill::DistillConfig;
pub use pretrain::PretrainConfig;
pub use sft::SftConfig;

use crate::data::Document;
use crate::lora::LoraConfig;
use crate::optimizer::{LearningRates, OptimizerConfig};
use crate::ranks::Ranks;
use crate::record::{Logs, Metrics};
use crate::schedule::Schedule;
use crate::stage::{Progress, Stage, StepRecord};
use crate::trainer::{StepOutcome, Trainer, load_violation, merge_loads};
use crate::{Result, metric};

/// What pre-training, fine-tuning and distillation have in common: the `training` table of a stage.
///
/// # Paper
/// - V3 4.2 (lambda 0.3, gamma 0.001, alpha 0.0001)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SupervisedConfig {
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

impl Default for SupervisedConfig {
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

impl SupervisedConfig {
    /// What is wrong with the settings, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if self.batch_tokens == 0 || self.micro_batch_tokens == 0 || self.checkpoint_every == 0 {
            Some("batch_tokens, micro_batch_tokens and checkpoint_every must be at least 1")
        } else if ![self.mtp_weight, self.balance_weight, self.bias_gamma].iter().all(|w| (0.0..=100.0).contains(w)) {
            Some("mtp_weight, balance_weight and bias_gamma must lie between 0 and 100")
        } else {
            self.optimizer.fault()
        }
    }

    /// The model with the optimizer of these settings.
    fn trainer(&self, device: &Device, model: Transformer, rates: LearningRates, ranks: &Ranks) -> Trainer {
        Trainer::shared(device, model, rates, self.optimizer, self.mtp_weight != 0.0, ranks)
    }

    /// Adds the gradients of this rank's share of documents to those of a trainer, and returns the losses of all documents.
    fn accumulate(&self, trainer: &mut Trainer, documents: &[Document]) -> Result<Losses> {
        let began = Instant::now();
        let (device, comm) = (trainer.device.clone(), trainer.ranks.comm().clone());
        let stage = trainer.ranks.stage().clone();
        let parts_of = |rank| micro_batches(share(documents, rank, stage.ranks()), self.micro_batch_tokens);
        let mut parts = parts_of(stage.rank());
        let own = parts.len();
        let filler = [Document::counting_from(4, vec![0; 4])];
        if trainer.ranks.experts().ranks() > 1 {
            // Ranks that send each other rows do the same number of passes; one with fewer documents fills up with some that count nothing.
            let most = (0..stage.ranks()).map(|rank| parts_of(rank).len()).max().unwrap_or(0);
            parts.resize(most, &filler);
        }
        let prepared: Vec<(Batch, Vec<f32>)> = parts.iter().map(|part| pack(&device, part)).collect();
        let mut totals = (0.0, 0.0);
        for (batch, counts) in &prepared {
            let (next, mtp) = Targets::count(batch, counts);
            totals = (totals.0 + next, totals.1 + mtp);
        }
        // Counts are whole numbers: their sums are exact in any order.
        let of_ranks = stage.all_gather(&[totals.0, totals.1])?;
        totals = of_ranks.iter().fold((0.0, 0.0), |sum, of_rank| (sum.0 + of_rank[0], sum.1 + of_rank[1]));
        // The balance loss is a mean over sequences: a micro-batch counts as much as it has of them.
        let share = |part: &[Document]| part.len() as f32 / documents.len() as f32;
        let shares = parts.iter().enumerate().map(|(i, part)| if i < own { share(part) } else { 0.0 }).collect();
        let mut sum = Passes::new(self, trainer, prepared, shares, totals).run()?;
        sum.seconds.push(began.elapsed().as_secs_f64());
        let mut sum = sum.of_all(&comm)?;
        sum.total = sum.next
            + f64::from(self.mtp_weight) * sum.mtp.unwrap_or_default()
            + f64::from(self.balance_weight) * sum.balance.unwrap_or_default();
        sum.tokens = documents.iter().map(|document| document.token_ids.len()).sum();
        Ok(sum)
    }
}

/// The losses of an update, over all its micro-batches, and what its forwards saw.
#[derive(Default)]
struct Losses {
    /// What is minimised.
    total: f64,
    /// Cross-entropy of the next token, in nats.
    next: f64,
    /// Cross-entropy of the token after it, in nats.
    mtp: Option<f64>,
    /// Balance loss without its factor.
    balance: Option<f64>,
    loads: Vec<ExpertLoad>,
    tokens: usize,
    /// Of each rank, in forwards and backwards, and in waiting for rows and for other stages.
    seconds: Vec<f64>,
}

impl Losses {
    /// Those of all ranks together, added up in the order of ranks.
    fn of_all(self, comm: &Comm) -> Result<Self> {
        if comm.ranks() == 1 {
            return Ok(self);
        }
        let seconds = comm.all_gather(&self.seconds)?.concat();
        let mut sum = Self { seconds, ..Self::default() };
        sum.next = comm.all_gather(&[self.next])?.concat().into_iter().sum();
        // A rank without documents has none of the others.
        sum.mtp = comm.all_gather(self.mtp.as_slice())?.concat().into_iter().reduce(|sum, part| sum + part);
        sum.balance = comm.all_gather(self.balance.as_slice())?.concat().into_iter().reduce(|sum, part| sum + part);
        // Layer, number of experts, tokens by expert; all of them whole numbers that f64 has.
        let line = |load: &ExpertLoad| -> Vec<f64> {
            let head = [load.layer as f64, load.tokens.len() as f64];
            head.into_iter().chain(load.tokens.iter().map(|&tokens| tokens as f64)).collect()
        };
        let own: Vec<f64> = self.loads.iter().flat_map(line).collect();
        for of_rank in comm.all_gather(&own)? {
            let mut rest = &of_rank[..];
            while let [layer, experts, tokens @ ..] = rest {
                let (tokens, behind) = tokens.split_at(*experts as usize);
                let tokens = tokens.iter().map(|&tokens| tokens as u64).collect();
                merge_loads(&mut sum.loads, vec![ExpertLoad { layer: *layer as usize, tokens }]);
                rest = behind;
            }
        }
        Ok(sum)
    }

    fn record(&self, outcome: StepOutcome, rates: LearningRates) -> StepRecord {
        let mut metrics = Metrics::new();
        metrics
            .set(metric::LOSS, self.total)
            .set(metric::NEXT, self.next)
            .set_if(metric::MTP, self.mtp)
            .set_if(metric::BALANCE, self.balance)
            .set(metric::GRAD_NORM, outcome.grad_norm)
            .set(metric::LEARNING_RATE, rates.shown())
            .set(metric::NUM_TOKENS, self.tokens)
            .set(metric::SKIPPED, u64::from(outcome.skipped))
            .set_if(metric::MAX_VIOLATION, load_violation(&self.loads));
        let mut timings = Metrics::new();
        if self.seconds.len() > 1 {
            timings.set(metric::RANK_TIMES, self.seconds.clone());
        }
        StepRecord { metrics, timings, tokens: self.tokens as u64, skipped: outcome.skipped, advice: None }
    }
}

/// The documents of a stage, by number of the step's data.
pub(crate) trait Documents {
    fn total_steps(&self) -> u64;

    /// The documents with number `cursor`.
    ///
    /// # Errors
    /// If one cannot be made.
    fn at(&self, cursor: u64) -> Result<Vec<Document>>;
}

/// A stage that learns from documents.
pub(crate) struct Supervised<'a> {
    pub(crate) documents: Box<dyn Documents + 'a>,
    pub(crate) learning_rate: LearningRates,
    pub(crate) schedule: &'a Schedule,
    pub(crate) training: &'a SupervisedConfig,
}

impl Stage for Supervised<'_> {
    fn total_steps(&self) -> u64 {
        self.documents.total_steps()
    }

    fn step(&mut self, trainer: &mut Trainer, progress: Progress, _logs: &mut Logs) -> Result<StepRecord> {
        let documents = self.documents.at(progress.cursor)?;
        let rates = self.learning_rate.scaled(self.schedule.factor(progress.step, self.total_steps()));
        let losses = self.training.accumulate(trainer, &documents)?;
        let outcome = trainer.apply(losses.total, rates)?;
        if !outcome.skipped {
            trainer.balance_experts(&losses.loads, self.training.bias_gamma);
        }
        Ok(losses.record(outcome, rates))
    }
}

/// What is wrong with the settings that all three kinds have, if anything.
fn fault(
    rates: LearningRates,
    schedule: &Schedule,
    training: &SupervisedConfig,
    lora: Option<&LoraConfig>,
) -> Option<String> {
    let lora = lora.and_then(|lora| lora.fault_with(rates));
    lora.or(rates.fault()).or(schedule.fault()).or(training.fault()).map(str::to_owned)
}

fn add(sum: Option<f64>, part: Option<f64>) -> Option<f64> {
    part.map(|part| sum.unwrap_or_default() + part).or(sum)
}

/// The documents that a rank learns from: some that follow each other, with about as many tokens as those of every other rank.
fn share(documents: &[Document], rank: usize, ranks: usize) -> &[Document] {
    let length = |document: &Document| document.token_ids.len();
    let total: usize = documents.iter().map(length).sum();
    // A document belongs to the rank in whose part of the tokens its middle lies.
    let first_of = |rank: usize| {
        let mut before = 0;
        let is_earlier = |document: &&Document| {
            let middle = 2 * before + length(document);
            before += length(document);
            middle * ranks < 2 * total * rank
        };
        documents.iter().take_while(is_earlier).count()
    };
    match rank + 1 == ranks {
        true => &documents[first_of(rank)..],
        false => &documents[first_of(rank)..first_of(rank + 1)],
    }
}

/// Runs of documents of at most `tokens` tokens; a longer document is a run of its own.
fn micro_batches(documents: &[Document], tokens: usize) -> Vec<&[Document]> {
    let (mut parts, mut start, mut filled) = (Vec::new(), 0, 0);
    for (i, document) in documents.iter().enumerate() {
        if filled + document.token_ids.len() > tokens && filled > 0 {
            parts.push(&documents[start..i]);
            (start, filled) = (i, 0);
        }
        filled += document.token_ids.len();
    }
    if start < documents.len() {
        parts.push(&documents[start..]);
    }
    parts
}

/// A batch of documents, each a sequence of its own, and how much the token that each row predicts counts.
fn pack(device: &Device, documents: &[Document]) -> (Batch, Vec<f32>) {
    let sequences: Vec<&[u32]> = documents.iter().map(|document| &document.token_ids[..]).collect();
    // A row predicts the token behind it.
    let count =
        |d: &Document, row: usize| if d.counted.iter().any(|range| range.contains(&(row + 1))) { 1.0 } else { 0.0 };
    let counts = documents.iter().flat_map(|d| (0..d.token_ids.len()).map(|row| count(d, row))).collect();
    (Batch::packed(device, &sequences), counts)
}

#[cfg(test)]
mod tests {
    use minke_tensor::Pass;

    use super::*;
    use crate::testing::{RATES, documents, trainer, update, weights};

    fn training(micro_batch_tokens: usize) -> SupervisedConfig {
        SupervisedConfig { micro_batch_tokens, balance_weight: 0.01, ..SupervisedConfig::default() }
    }

    #[test]
    fn micro_batches_hold_every_document_once_and_few_tokens() {
        let documents = documents();
        for tokens in [1, 13, 30, 1000] {
            let parts = micro_batches(&documents, tokens);
            assert_eq!(parts.concat(), documents);
            let size = |part: &&[Document]| part.iter().map(|d| d.token_ids.len()).sum::<usize>();
            assert!(parts.iter().all(|part| part.len() == 1 || size(part) <= tokens));
        }
        assert_eq!((micro_batches(&documents, 1).len(), micro_batches(&documents, 1000).len()), (7, 1));
    }

    #[test]
    fn losses_and_gradients_do_not_depend_on_the_micro_batch() {
        let (mut whole, mut parts) = (trainer(true), trainer(true));
        let a = update(&training(1000), &mut whole, &documents(), RATES).unwrap().metrics;
        let b = update(&training(1), &mut parts, &documents(), RATES).unwrap().metrics;
        for name in ["loss", "next", "mtp", "balance", "grad_norm"] {
            let (a, b) = (a.number(name).unwrap(), b.number(name).unwrap());
            assert!((a / b - 1.0).abs() < 1e-5, "{name}: {a} and {b}");
        }
        assert_eq!(a.number("expert_load/max_violation"), b.number("expert_load/max_violation"));
    }

    #[test]
    fn only_what_counts_is_learned() {
        // A document whose last token alone counts: its loss is that token's.
        let mut trainer = trainer(false);
        let token_ids = vec![5, 6, 7, 8];
        let document = Document::counting_from(3, token_ids.clone());
        let device = trainer.device.clone();
        let batch = Batch::packed(&device, &[&token_ids]);
        let pass = Pass::inference(&device);
        let hidden = trainer.model.forward(pass, &batch, None, false).unwrap().hidden;
        let logits = trainer.model.logits(pass, &hidden).unwrap();
        let row: Vec<f64> = logits.read()[2 * 40..3 * 40].iter().map(|&x| f64::from(x)).collect();
        let expected = row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[8];
        let how = SupervisedConfig { mtp_weight: 0.0, ..training(1000) };
        let metrics = update(&how, &mut trainer, &[document], RATES).unwrap().metrics;
        assert!((metrics.number("next").unwrap() - expected).abs() < 1e-5);
    }

    #[test]
    fn a_step_that_is_not_finite_changes_nothing() {
        let mut trainer = trainer(true);
        let device = trainer.device.clone();
        trainer.model.params_mut()[3].update(&device, |values| values[0] = f32::NAN);
        let before = weights(&trainer.model);
        let record = update(&training(1000), &mut trainer, &documents(), RATES).unwrap();
        assert!(record.skipped && !trainer.is_finite().unwrap());
        assert_eq!((record.metrics.number("skipped"), record.metrics.number("loss")), (Some(1.0), None));
        let bits = |all: &[(String, Vec<f32>)]| -> Vec<u32> {
            all.iter().flat_map(|(_, values)| values).map(|value| value.to_bits()).collect()
        };
        assert_eq!(bits(&weights(&trainer.model)), bits(&before));
        assert_eq!(trainer.optimizer.updates(), 0);
        assert!(trainer.optimizer.tensors(&trainer.model).iter().all(|(_, t)| t.read().iter().all(|&v| v == 0.0)));
    }

    #[test]
    fn each_factor_of_the_loss_reaches_the_gradient() {
        // The first momentum of Muon is the gradient times a constant. That of the module of multi-token prediction comes
        // from its loss alone; that of the gate has a part from the balance loss.
        let momentum = |training: &SupervisedConfig, of: &str| -> Vec<f64> {
            let mut trainer = trainer(true);
            update(training, &mut trainer, &documents(), RATES).unwrap();
            let tensors = trainer.optimizer.tensors(&trainer.model);
            let (_, tensor) = tensors.iter().find(|(name, _)| name.starts_with(of)).unwrap();
            tensor.read().into_iter().map(f64::from).collect()
        };
        let optimizer = OptimizerConfig { clip_norm: 1e9, ..OptimizerConfig::default() };
        let plain = SupervisedConfig { mtp_weight: 0.0, balance_weight: 0.0, optimizer, ..training(1000) };
        let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        let size = |a: &[f64]| distance(a, &vec![0.0; a.len()]);

        let module = "model.layers.4.eh_proj.weight";
        let of = |mtp_weight| momentum(&SupervisedConfig { mtp_weight, ..plain.clone() }, module);
        let (none, once, twice) = (of(0.0), of(0.1), of(0.2));
        let doubled: Vec<f64> = once.iter().map(|value| 2.0 * value).collect();
        assert!(size(&none) == 0.0 && size(&once) > 0.0);
        assert!(distance(&doubled, &twice) < 1e-4 * size(&twice), "multi-token prediction");

        let gate = "model.layers.1.mlp.gate.weight";
        let of = |balance_weight| momentum(&SupervisedConfig { balance_weight, ..plain.clone() }, gate);
        let (none, once, twice) = (of(0.0), of(0.5), of(1.0));
        let middle: Vec<f64> = none.iter().zip(&twice).map(|(none, twice)| (none + twice) / 2.0).collect();
        assert!(distance(&none, &once) > 1e-3 * size(&none), "the balance loss does not reach the gate");
        assert!(distance(&middle, &once) < 1e-4 * size(&once), "balance");
    }
}
