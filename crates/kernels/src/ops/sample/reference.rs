//! Reference implementation of sampling: sorted lists and sums in f64.

use super::{Edit, NOT_FINITE, NOTHING_ALLOWED, SampleOutputs, SampleRow, SampleRows};
use crate::ops::log_prob::reference::log_prob;

/// What one row gives: (token, log-probability, entropy), and its alternatives with their log-probabilities.
pub type SampledRow = ((u32, f64, f64), Vec<(u32, f64)>);

/// Samples all rows of logits.
pub fn sample_rows(logits: &[f32], sampling: &SampleRows<'_>, sampled: SampleOutputs<&mut [u32], &mut [f32]>) {
    let (n, width) = (logits.len() / sampling.rows.len(), sampled.alternative_ids.len() / sampling.rows.len());
    for (i, row) in sampling.rows.iter().enumerate() {
        let ((token, log_prob, entropy), alternatives) = sample(&logits[i * n..][..n], row, sampling);
        let (log_prob, entropy) = (log_prob as f32, entropy as f32);
        let told = token >= NOTHING_ALLOWED || log_prob.is_finite() && entropy.is_finite();
        sampled.token_ids[i] = if told { token } else { NOT_FINITE };
        (sampled.log_prob[i], sampled.entropy[i]) = (log_prob, entropy);
        for (j, (id, log_prob)) in alternatives.into_iter().enumerate() {
            sampled.alternative_ids[i * width + j] = id;
            sampled.alternative_log_probs[i * width + j] = log_prob as f32;
        }
    }
}

/// Samples one row of logits.
pub fn sample(logits: &[f32], row: &SampleRow, sampling: &SampleRows<'_>) -> SampledRow {
    let token = match distribution(logits, row, sampling) {
        Err(instead) => return ((instead, f64::NAN, f64::NAN), Vec::new()),
        Ok(probabilities) => draw(&probabilities, row.uniform),
    };
    // The number that training multiplies with, so that both give a token the same log-probability.
    let inverse_temperature = f64::from(SampleRow::inverse_temperature(row.log_prob_temperature));
    let wide: Vec<f64> = logits.iter().map(|&z| f64::from(z)).collect();
    let of = |id: u32| log_prob(&wide, id as usize, inverse_temperature);
    let (log_prob, _, entropy) = of(token);
    let alternatives = ranked(&wide).into_iter().take(row.alternatives).map(|id| (id, of(id).0));
    ((token, log_prob, entropy), alternatives.collect())
}

/// The probability of every token to be drawn, or what stands in place of a token.
pub fn distribution(logits: &[f32], row: &SampleRow, sampling: &SampleRows<'_>) -> Result<Vec<f64>, u32> {
    if !logits.iter().all(|z| z.is_finite()) {
        return Err(NOT_FINITE);
    }
    let edited = edited(logits, row, sampling);
    let order = ranked(&edited);
    let largest = edited[order[0] as usize];
    if largest == f64::NEG_INFINITY {
        return Err(NOTHING_ALLOWED);
    }
    if !largest.is_finite() {
        return Err(NOT_FINITE);
    }
    let mut probabilities = vec![0.0; logits.len()];
    if row.temperature == 0.0 {
        probabilities[order[0] as usize] = 1.0;
        return Ok(probabilities);
    }
    let weight = |id: u32| ((edited[id as usize] - largest) / f64::from(row.temperature)).exp();
    let sum = |ids: &[u32]| ids.iter().map(|&id| weight(id)).sum::<f64>();
    let mut kept = order;
    if row.top_k > 0 {
        kept.truncate(row.top_k);
    }
    if row.top_p < 1.0 {
        let wanted = f64::from(row.top_p) * sum(&kept);
        let enough = (1..kept.len()).find(|&count| sum(&kept[..count]) >= wanted);
        kept.truncate(enough.unwrap_or(kept.len()));
    }
    kept.retain(|&id| weight(id) >= f64::from(row.min_p));
    let total = sum(&kept);
    kept.iter().for_each(|&id| probabilities[id as usize] = weight(id) / total);
    Ok(probabilities)
}

/// The token into whose share the draw falls.
fn draw(probabilities: &[f64], uniform: f64) -> u32 {
    let mut sum = 0.0;
    let mut last = 0;
    for (id, &probability) in probabilities.iter().enumerate().filter(|(_, probability)| **probability > 0.0) {
        sum += probability;
        last = id as u32;
        if sum > uniform {
            break;
        }
    }
    last
}

/// The logits after edits and mask. Edits are made in f32, as a logit is.
fn edited(logits: &[f32], row: &SampleRow, sampling: &SampleRows<'_>) -> Vec<f64> {
    let edits = &sampling.edits[row.edits.clone()];
    let mask = sampling.mask(row, logits.len());
    let one = |(id, &logit): (usize, &f32)| {
        if mask.is_some_and(|words| words[id / 32] >> (id % 32) & 1 == 0) {
            return f64::NEG_INFINITY;
        }
        let edit = edits.iter().find(|edit| edit.token_id as usize == id);
        let Some(Edit { bias, repetition, subtract, .. }) = edit else { return f64::from(logit) };
        let biased = logit + bias;
        let penalized = if biased > 0.0 { biased / repetition } else { biased * repetition };
        f64::from(penalized - subtract)
    };
    logits.iter().enumerate().map(one).collect()
}

/// All tokens, the largest logit first, equal ones by id.
fn ranked(logits: &[f64]) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    let of = |id: u32| logits[id as usize];
    // A NaN compares as equal: it is never the largest, and rows with one give no token.
    ids.sort_by(|&a, &b| of(b).partial_cmp(&of(a)).unwrap_or(std::cmp::Ordering::Equal));
    ids
}
