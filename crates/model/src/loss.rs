//! The training loss: the next token, the one after it, and evenly loaded experts.

use minke_tensor::{Device, Indices, Pass, Tensor};

use crate::{Batch, Output, Result, Transformer};

/// What each row should predict, and how much it counts.
pub struct Targets {
    ids: Indices,
    weights: Tensor,
    /// Counts before they were divided, by row.
    counts: Vec<f32>,
    mtp_total: f32,
}

/// Factors of the parts of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossWeights {
    /// Factor of multi-token prediction, lambda; zero leaves the module out.
    pub mtp: f32,
    /// Factor of the sequence-wise balance loss, alpha.
    pub balance: f32,
}

/// The loss and its parts.
pub struct Losses {
    /// What is minimised: next + mtp factor * mtp + balance factor * balance. Differentiable.
    pub total: Tensor,
    /// Cross-entropy of the next token, in nats.
    pub next: f32,
    /// Cross-entropy of the token after it, in nats.
    pub mtp: Option<f32>,
    /// Balance loss without its factor.
    pub balance: Option<f32>,
}

impl Targets {
    /// Targets for a batch of whole sequences: row i predicts token i + 1 of its sequence and counts `counts[i]`; last
    /// rows count nothing. The losses are means over counts: `totals` are the sums of [`Targets::count`] over all
    /// batches of a step.
    pub fn next_tokens(device: &Device, batch: &Batch, counts: &[f32], totals: (f32, f32)) -> Self {
        let tokens = batch.tokens();
        assert_eq!(counts.len(), tokens.len());
        let (mut ids, mut counts) = (tokens.to_vec(), counts.to_vec());
        for span in batch.spans().iter().filter(|span| span.rows > 0) {
            let last = span.first_row + span.rows - 1;
            ids[span.first_row..last].copy_from_slice(&tokens[span.first_row + 1..=last]);
            counts[last] = 0.0;
        }
        let weights: Vec<f32> = counts.iter().map(|count| count / totals.0.max(f32::MIN_POSITIVE)).collect();
        Self {
            ids: Indices::from_slice(device, &ids),
            weights: Tensor::from_slice(device, &[tokens.len()], &weights),
            counts,
            mtp_total: totals.1,
        }
    }

    /// How much a batch counts: for the next token, and for the one after it. A token counts as the second next
    /// as much as it does as the next.
    pub fn count(batch: &Batch, counts: &[f32]) -> (f32, f32) {
        let of = |skip: usize| -> f32 {
            let rows = |s: &minke_tensor::Span| s.first_row + skip..(s.first_row + s.rows).saturating_sub(1);
            batch.spans().iter().filter(|s| s.rows > skip + 1).flat_map(rows).map(|row| counts[row]).sum()
        };
        (of(0), of(1))
    }
}

impl Transformer {
    /// The loss of a batch of whole sequences and what the forward reported.
    ///
    /// # Paper
    /// - V3 2.2 eqs. 24-25 (multi-token prediction loss)
    /// - V3 2.1.2 eq. 17 (balance loss)
    ///
    /// # Errors
    /// If the batch does not fit the model.
    pub fn loss(
        &self,
        pass: Pass<'_>,
        batch: &Batch,
        targets: &Targets,
        factors: LossWeights,
    ) -> Result<(Losses, Output)> {
        self.loss_behind(pass, batch, None, targets, factors)
    }

    /// [`loss`](Self::loss) of the last stage of a pipeline, behind what the stage before it handed on.
    ///
    /// # Shapes
    /// x [T, D], unless there is no stage before
    ///
    /// # Errors
    /// If the batch does not fit the model.
    pub fn loss_behind(
        &self,
        pass: Pass<'_>,
        batch: &Batch,
        x: Option<&Tensor>,
        targets: &Targets,
        factors: LossWeights,
    ) -> Result<(Losses, Output)> {
        let output = self.forward_behind(pass, batch, x, None, factors.mtp != 0.0)?;
        let cross_entropy = |hidden: &Tensor, ids: &Indices, weights: &Tensor| -> Result<Tensor> {
            let log_prob = self.log_probs(pass, hidden, ids, 1.0)?.log_prob;
            Ok(log_prob.weighted_sum(pass, weights)?.scale(pass, -1.0)?)
        };
        let next = cross_entropy(&output.hidden, &targets.ids, &targets.weights)?;
        let mut total = next.clone();
        let mut mtp = None;
        if let Some(module) = &output.mtp {
            let weight = |&row: &u32| targets.counts[row as usize + 1] / targets.mtp_total.max(f32::MIN_POSITIVE);
            let weights: Vec<f32> = module.rows.iter().map(weight).collect();
            let weights = Tensor::from_slice(pass.device, &[weights.len()], &weights);
            let loss = cross_entropy(&module.hidden, &module.target_ids, &weights)?;
            total = total.add_scaled(pass, &loss, factors.mtp)?;
            mtp = Some(loss.item());
        }
        if let Some(balance) = &output.balance {
            total = total.add_scaled(pass, balance, factors.balance)?;
        }
        let balance = output.balance.as_ref().map(Tensor::item);
        Ok((Losses { next: next.item(), total, mtp, balance }, output))
    }
}
