//! Sampling: one token per row of logits z, with log-probability, entropy and alternatives.
//!
//! ```text
//! z'    = z + bias                            edits of single logits, in this order: bias,
//! z'    = z' / r if z' > 0, else z' r         repetition penalty r,
//! z'    = z' - s                              what presence and frequency penalties subtract
//! z'    = -inf where the mask has no bit
//! w     = e^((z' - max z') / T)
//! top_k   keeps the k largest w
//! top_p   keeps the fewest of the largest of them whose sum is at least top_p of the sum of what is left
//! min_p   keeps those of at least min_p
//! token = where uniform * (sum of the kept w) falls when the kept w are added up by id; the largest z' if T is 0
//!
//! log p(e) = z_e / R - log sum exp(z / R)     of the token and of the alternatives, R = 1 where it is 0
//! ```
//!
//! Equal logits rank by id. A filter that keeps everything changes nothing, bit for bit. Log-probabilities and entropy are
//! those of the model at the temperature R that is asked for: before edits, mask and filters.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::{Device, View, ViewMut};

/// In place of a token: a logit, or an edited one, is not a finite number.
pub const NOT_FINITE: u32 = u32::MAX;
/// In place of a token: edits and mask leave none.
pub const NOTHING_ALLOWED: u32 = u32::MAX - 1;

/// How one row is sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRow {
    /// Temperature T, which divides the logits; 0 takes the largest one.
    pub temperature: f32,
    /// Temperature R of the log-probabilities and the entropy that are reported: most often T.
    pub log_prob_temperature: f32,
    /// Most tokens kept; 0 for all.
    pub top_k: usize,
    /// Share of the sum of weights that the kept tokens reach, up to 1 for all.
    pub top_p: f32,
    /// Least weight relative to the largest; 0 for all.
    pub min_p: f32,
    /// The random number of the draw, from 0 to below 1.
    pub uniform: f64,
    /// Which of the edits change this row.
    pub edits: Range<usize>,
    /// Which of the masks holds for this row.
    pub mask: Option<usize>,
    /// How many of the most likely tokens are reported, at most the width of the report.
    pub alternatives: usize,
}

impl SampleRow {
    /// 1 / T; 1 where T is 0. Logits are multiplied by it wherever this crate divides them by a temperature.
    pub fn inverse_temperature(temperature: f32) -> f32 {
        if temperature == 0.0 { 1.0 } else { 1.0 / temperature }
    }
}

/// A change of one logit of a row. Ids of a row are all different.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edit {
    /// The token.
    pub token_id: u32,
    /// Added first; negative infinity forbids the token.
    pub bias: f32,
    /// Divides what is then positive and multiplies what is not.
    pub repetition: f32,
    /// Subtracted last.
    pub subtract: f32,
}

impl Edit {
    /// The logit after the edit.
    #[inline]
    fn apply(&self, logit: f32) -> f32 {
        let biased = logit + self.bias;
        let penalized = if biased > 0.0 { biased / self.repetition } else { biased * self.repetition };
        penalized - self.subtract
    }
}

/// How the rows of one call are sampled: small tables of the host.
#[derive(Clone, Copy, Debug)]
pub struct SampleRows<'a> {
    /// One per row. `[R]`
    pub rows: &'a [SampleRow],
    /// Edits of all rows.
    pub edits: &'a [Edit],
    /// Allowed tokens, 32 to a word from its lowest bit up. [masks, ceil(W / 32)]
    pub masks: &'a [u32],
}

impl SampleRows<'_> {
    fn check(&self, vocab_size: usize, width: usize) {
        let words = vocab_size.div_ceil(32);
        assert!(vocab_size > 0 && vocab_size < NOTHING_ALLOWED as usize);
        assert_eq!(self.masks.len() % words, 0);
        for row in self.rows {
            assert!(row.alternatives <= width && row.mask.is_none_or(|mask| (mask + 1) * words <= self.masks.len()));
            assert!(self.edits[row.edits.clone()].iter().all(|edit| (edit.token_id as usize) < vocab_size));
        }
    }

    /// The words of a row's mask.
    fn mask(&self, row: &SampleRow, vocab_size: usize) -> Option<&[u32]> {
        let words = vocab_size.div_ceil(32);
        row.mask.map(|mask| &self.masks[mask * words..][..words])
    }
}

/// What is written for each row: views outside, slices in the arm of a device.
pub struct SampleOutputs<U, F> {
    /// The token, [`NOT_FINITE`] or [`NOTHING_ALLOWED`]. `[R]`
    pub token_ids: U,
    /// Its log-probability. `[R]`
    pub log_prob: F,
    /// Entropy of the model's distribution, in nats. `[R]`
    pub entropy: F,
    /// The most likely tokens, the first one first; only as many as the row asks for are written. [R, A]
    pub alternative_ids: U,
    /// Their log-probabilities. [R, A]
    pub alternative_log_probs: F,
}

impl<'a> SampleOutputs<ViewMut<'a, u32>, ViewMut<'a, f32>> {
    fn host(self) -> SampleOutputs<&'a mut [u32], &'a mut [f32]> {
        SampleOutputs {
            token_ids: self.token_ids.host(),
            log_prob: self.log_prob.host(),
            entropy: self.entropy.host(),
            alternative_ids: self.alternative_ids.host(),
            alternative_log_probs: self.alternative_log_probs.host(),
        }
    }
}

/// Samples a token for every row; the row decides alone, whatever stands beside it.
///
/// # Shapes
/// logits [R, W], sampled `[R]` and [R, A]
///
/// # Numerics
/// Log-probability and entropy are, to the bit, those of [`super::log_prob::log_prob_rows`].
pub fn sample(
    device: &Device,
    logits: View<'_, f32>,
    sampling: &SampleRows<'_>,
    sampled: SampleOutputs<ViewMut<'_, u32>, ViewMut<'_, f32>>,
) {
    let rows = sampling.rows.len();
    if rows == 0 {
        return;
    }
    let width = sampled.alternative_ids.len() / rows;
    assert_eq!(logits.len() % rows, 0);
    sampling.check(logits.len() / rows, width);
    assert_eq!((sampled.token_ids.len(), sampled.log_prob.len(), sampled.entropy.len()), (rows, rows, rows));
    assert_eq!((sampled.alternative_ids.len(), sampled.alternative_log_probs.len()), (rows * width, rows * width));
    match device {
        Device::Cpu(cpu) => cpu::sample(cpu, logits.host(), sampling, sampled.host()),
        Device::Reference(_) => reference::sample_rows(logits.host(), sampling, sampled.host()),
    }
}
