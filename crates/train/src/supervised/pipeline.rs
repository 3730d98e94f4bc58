//! The passes of an update: forward and backward of every micro-batch, on one of the stages of a pipeline. One process is a pipeline of
//! one stage.

use std::collections::VecDeque;

use minke_model::{Batch, LossWeights, Targets};
use minke_tensor::{Pass, Tensor, backward, backward_to};

use super::{Losses, SupervisedConfig, add};
use crate::Result;
use crate::trainer::{Trainer, merge_loads};

/// The passes of an update on one rank.
pub(super) struct Passes<'a> {
    training: &'a SupervisedConfig,
    trainer: &'a mut Trainer,
    /// The micro-batches, and how much the token that each row predicts counts.
    batches: Vec<(Batch, Vec<f32>)>,
    /// How much each counts in what is a mean over sequences.
    shares: Vec<f32>,
    /// What counts in the whole update.
    totals: (f32, f32),
    /// Micro-batches whose forward was begun.
    begun: usize,
    /// Those whose backward is still to come, the first first.
    under_way: VecDeque<UnderWay>,
    sum: Losses,
}

/// A micro-batch between its forward and its backward.
struct UnderWay {
    /// What the stage before handed on, as a leaf of the tape.
    x: Option<Tensor>,
    end: End,
}

/// Where the tape of a stage ends.
enum End {
    Loss(Tensor),
    /// At what is handed on, and the balance loss of the layers here with its factor.
    Hidden(Tensor, Option<Tensor>, f32),
}

impl<'a> Passes<'a> {
    pub(super) fn new(
        training: &'a SupervisedConfig,
        trainer: &'a mut Trainer,
        batches: Vec<(Batch, Vec<f32>)>,
        shares: Vec<f32>,
        totals: (f32, f32),
    ) -> Self {
        let (begun, under_way, sum) = (0, VecDeque::new(), Losses::default());
        Self { training, trainer, batches, shares, totals, begun, under_way, sum }
    }

    /// Does all of them, so that at most as many micro-batches are under way as stages are behind this one, and one (1F1B); adds up the
    /// gradients, and returns the losses that arise here.
    ///
    /// # Paper
    /// - V3 3.2.1 (1F1B, to which DualPipe is compared; Narayanan et al. 2021, 2.2)
    /// - Test: crates/train/tests/ranks_share_a_run.rs
    pub(super) fn run(mut self) -> Result<Losses> {
        let (ranks, count) = (self.trainer.ranks.clone(), self.batches.len());
        let behind = ranks.pipeline().ranks() - ranks.pipeline().rank() - 1;
        let ahead = behind.min(count);
        for _ in 0..ahead {
            let x = ranks.swap_with_previous(&[])?;
            let y = self.forward(&x)?;
            ranks.swap_with_next(&y)?;
        }
        let mut x = if ahead < count { ranks.swap_with_previous(&[])? } else { Vec::new() };
        for _ in ahead..count {
            let y = self.forward(&x)?;
            let dy = ranks.swap_with_next(&y)?;
            let dx = self.backward(&dy)?;
            // What comes back is the next micro-batch; nothing behind the last.
            x = ranks.swap_with_previous(&dx)?;
        }
        for _ in 0..ahead {
            let dy = ranks.swap_with_next(&[])?;
            let dx = self.backward(&dy)?;
            ranks.swap_with_previous(&dx)?;
        }
        Ok(self.sum)
    }

    /// The forward of the next micro-batch; returns what is handed on, if a stage is behind.
    fn forward(&mut self, x: &[f32]) -> Result<Vec<f32>> {
        let Self { training, trainer, batches, shares, totals, begun, under_way, sum } = self;
        let ((batch, counts), share, device) = (&batches[*begun], shares[*begun], &trainer.device);
        *begun += 1;
        let experts = trainer.ranks.experts();
        let pass = Pass::recording(device).with_recompute(training.recompute).with_expert_ranks(experts);
        let factors = LossWeights { mtp: training.mtp_weight, balance: training.balance_weight * share };
        let placement = trainer.ranks.placement();
        let width = trainer.model.config().hidden_size;
        let is_first = trainer.ranks.pipeline().rank() == 0;
        let x = (!is_first).then(|| Tensor::from_slice(device, &[batch.rows(), width], x).leaf());
        let (end, handed, balance, loads) = if placement.is_last() {
            let targets = Targets::next_tokens(device, batch, counts, *totals);
            let (losses, output) = trainer.model.loss_behind(pass, batch, x.as_ref(), &targets, factors)?;
            sum.next += f64::from(losses.next);
            sum.mtp = add(sum.mtp, losses.mtp.map(f64::from));
            (End::Loss(losses.total), Vec::new(), losses.balance, output.loads)
        } else {
            let output = trainer.model.forward_stage(pass, batch, x.as_ref())?;
            let (handed, balance) = (output.hidden.read(), output.balance.as_ref().map(Tensor::item));
            (End::Hidden(output.hidden, output.balance, factors.balance), handed, balance, output.loads)
        };
        sum.balance = add(sum.balance, balance.map(|part| f64::from(part) * f64::from(share)));
        if share > 0.0 {
            merge_loads(&mut sum.loads, loads);
        }
        under_way.push_back(UnderWay { x, end });
        Ok(handed)
    }

    /// The backward of the first micro-batch that is under way, from the gradient of what was handed on; returns that of what the stage
    /// before handed on.
    fn backward(&mut self, dy: &[f32]) -> Result<Vec<f32>> {
        let UnderWay { x, end } = self.under_way.pop_front().expect("invariant: a forward was done before");
        let Trainer { device, gradients, .. } = &mut *self.trainer;
        let loss = match end {
            End::Loss(total) => total,
            End::Hidden(hidden, balance, factor) => {
                // A scalar with this gradient.
                let pass = Pass::recording(device);
                let along = hidden.weighted_sum(pass, &Tensor::from_slice(device, hidden.shape().dims(), dy))?;
                match balance {
                    Some(balance) => along.add_scaled(pass, &balance, factor)?,
                    None => along,
                }
            }
        };
        match x {
            Some(x) => Ok(backward_to(device, &loss, gradients, &x)?.read()),
            None => backward(device, &loss, gradients).map(|()| Vec::new()).map_err(Into::into),
        }
    }
}
