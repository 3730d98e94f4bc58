//! The tuned version: a row per task, and lists only where a filter needs them.

use super::{NOT_FINITE, NOTHING_ALLOWED, SampleOutputs, SampleRow, SampleRows};
use crate::device::{Cpu, Parts};
use crate::isa::Isa;
use crate::ops::log_prob::{cpu::row as log_prob_row, of_logit};
use crate::simd::simd_fn;

simd_fn! {
    /// Writes `e^((z - max z) / T)` for one row.
    pub(super) fn weigh<S>(s: S, logits: &[f32], inverse_temperature: f32, weights: &mut [f32]) {
        let mut largest = s.splat(f32::NEG_INFINITY);
        for chunk in logits.chunks_exact(S::LANES) {
            largest = s.max(largest, s.load(chunk));
        }
        let tail = logits.chunks_exact(S::LANES).remainder();
        let largest = s.splat(tail.iter().copied().fold(s.largest(largest), f32::max));
        for (z, weight) in logits.chunks(S::LANES).zip(weights.chunks_mut(S::LANES)) {
            let z = s.mul(s.sub(s.load_partial(z), largest), s.splat(inverse_temperature));
            s.store_partial(s.exp(z), weight);
        }
    }
}

simd_fn! {
    /// The sum of weights, as sixteen sums of every sixteenth.
    fn total<S>(_s: S, weights: &[f32]) -> f64 {
        let (chunks, tail) = weights.as_chunks::<16>();
        let mut sums = [0.0; 16];
        for chunk in chunks {
            for (sum, &weight) in sums.iter_mut().zip(chunk) {
                *sum += f64::from(weight);
            }
        }
        sums.iter().sum::<f64>() + tail.iter().map(|&weight| f64::from(weight)).sum::<f64>()
    }
}

pub(super) fn sample(
    cpu: &Cpu,
    logits: &[f32],
    sampling: &SampleRows<'_>,
    sampled: SampleOutputs<&mut [u32], &mut [f32]>,
) {
    let rows = sampling.rows.len();
    let (n, width) = (logits.len() / rows, sampled.alternative_ids.len() / rows);
    let token_ids = Parts::new(sampled.token_ids);
    let (log_probs, entropies) = (Parts::new(sampled.log_prob), Parts::new(sampled.entropy));
    let (ids, id_log_probs) = (Parts::new(sampled.alternative_ids), Parts::new(sampled.alternative_log_probs));
    cpu.run(rows, |i| {
        let (row, logits) = (&sampling.rows[i], &logits[i * n..][..n]);
        // SAFETY: each row is written by one task.
        let (token_id, log_prob, entropy, ids, id_log_probs) = unsafe {
            let (ids, id_log_probs) = (ids.part(i * width, width), id_log_probs.part(i * width, width));
            (
                &mut token_ids.part(i, 1)[0],
                &mut log_probs.part(i, 1)[0],
                &mut entropies.part(i, 1)[0],
                ids,
                id_log_probs,
            )
        };
        (*token_id, *log_prob, *entropy) = (NOT_FINITE, f32::NAN, f32::NAN);
        if !logits.iter().all(|z| z.is_finite()) {
            return;
        }
        let inverse_temperature = SampleRow::inverse_temperature(row.log_prob_temperature);
        let token = choose(cpu, logits, row, sampling);
        if token == NOT_FINITE || token == NOTHING_ALLOWED {
            *token_id = token;
            return;
        }
        let log_sum;
        (*log_prob, log_sum, *entropy) = log_prob_row(cpu.isa(), logits, token as usize, inverse_temperature);
        if log_prob.is_finite() && entropy.is_finite() {
            *token_id = token;
        }
        if row.alternatives > 0 {
            let alternatives = most_likely(logits, row.alternatives);
            for ((id, log_prob), alternative) in ids.iter_mut().zip(id_log_probs).zip(alternatives) {
                (*id, *log_prob) = (alternative, of_logit(logits[alternative as usize], inverse_temperature, log_sum));
            }
        }
    });
}

/// Chooses the token of a row whose logits are finite.
pub(super) fn choose(cpu: &Cpu, logits: &[f32], row: &SampleRow, sampling: &SampleRows<'_>) -> u32 {
    let (edits, mask) = (&sampling.edits[row.edits.clone()], sampling.mask(row, logits.len()));
    if edits.is_empty() && mask.is_none() {
        return draw(cpu, logits, row);
    }
    let mut edited = cpu.buffer::<f32>(logits.len());
    let edited = edited.as_mut_slice::<f32>();
    edited.copy_from_slice(logits);
    for edit in edits {
        let logit = &mut edited[edit.token_id as usize];
        *logit = edit.apply(*logit);
    }
    if let Some(words) = mask {
        for (logits, &word) in edited.chunks_mut(32).zip(words) {
            if word != u32::MAX {
                let forbid = |(bit, logit): (usize, &mut f32)| {
                    if word >> bit & 1 == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                };
                logits.iter_mut().enumerate().for_each(forbid);
            }
        }
    }
    let largest = edited.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if largest == f32::NEG_INFINITY {
        NOTHING_ALLOWED
    } else if largest.is_finite() {
        draw(cpu, edited, row)
    } else {
        NOT_FINITE
    }
}

/// Draws the token of a row of logits of which the largest is finite.
fn draw(cpu: &Cpu, logits: &[f32], row: &SampleRow) -> u32 {
    if row.temperature == 0.0 {
        return (1..logits.len()).fold(0, |best, id| if logits[id] > logits[best] { id } else { best }) as u32;
    }
    let mut weights = cpu.buffer::<f32>(logits.len());
    let weights = weights.as_mut_slice::<f32>();
    weigh(cpu.isa(), logits, SampleRow::inverse_temperature(row.temperature), weights);
    let token = if row.top_k > 0 || row.top_p < 1.0 || row.min_p > 0.0 {
        let kept = filter(cpu.isa(), logits, weights, row);
        walk(row.uniform, || kept.iter().map(|&id| (id, weights[id as usize])))
    } else {
        walk(row.uniform, || (0..).zip(weights.iter().copied()))
    };
    token.unwrap_or(NOT_FINITE)
}

/// The token into whose share of the sum of weights `uniform` falls.
fn walk<I: Iterator<Item = (u32, f32)>>(uniform: f64, tokens: impl Fn() -> I) -> Option<u32> {
    let mut left = uniform * tokens().map(|(_, weight)| f64::from(weight)).sum::<f64>();
    let mut last = None;
    for (id, weight) in tokens() {
        left -= f64::from(weight);
        if left < 0.0 {
            return Some(id);
        }
        // Rounding may leave a crumb: it belongs to the last token that has a weight; the best always has.
        last = if weight > 0.0 { Some(id) } else { last };
    }
    last
}

/// The tokens that `top_k`, `top_p` and `min_p` leave, by id; `weights` are probabilities over the largest one.
pub(super) fn filter(isa: Isa, logits: &[f32], weights: &[f32], row: &SampleRow) -> Vec<u32> {
    let weight = |&id: &u32| f64::from(weights[id as usize]);
    let all = || 0..logits.len() as u32;
    let mut kept: Vec<u32>;
    if row.top_k > 0 && row.top_k < logits.len() {
        kept = most_likely(logits, row.top_k);
        // The order of sums below must not depend on the logits.
        kept.sort_unstable();
        if row.top_p < 1.0 {
            let total = kept.iter().map(weight).sum();
            keep_top_p(logits, weights, row, total, &mut kept);
        }
    } else if row.top_p < 1.0 {
        let total = total(isa, weights);
        // All that are smaller have together at most half of what top_p leaves out.
        let least = (0.5 * (1.0 - f64::from(row.top_p)) * total / logits.len() as f64) as f32;
        kept = all().filter(|&id| weights[id as usize] >= least).collect();
        keep_top_p(logits, weights, row, total, &mut kept);
    } else {
        kept = all().collect();
    }
    if row.min_p > 0.0 {
        kept.retain(|id| weight(id) >= f64::from(row.min_p));
    }
    kept
}

/// Keeps the fewest of the largest tokens whose weights reach `top_p` of `total`.
///
/// Tokens are added up by how far their logit is below the largest. Only those are ranked that are as far below as the last
/// one kept: of flat distributions, in which most tokens are kept, a few hundred of a hundred thousand.
fn keep_top_p(logits: &[f32], weights: &[f32], row: &SampleRow, total: f64, kept: &mut Vec<u32>) {
    const STEPS: usize = 2048;
    const STEPS_PER_NAT: f32 = 64.0;
    let logit = |id: u32| logits[id as usize];
    let weight = |id: u32| f64::from(weights[id as usize]);
    let largest = kept.iter().fold(f32::NEG_INFINITY, |largest, &id| largest.max(logit(id)));
    let per_logit = SampleRow::inverse_temperature(row.temperature) * STEPS_PER_NAT;
    let step = |id: u32| (((largest - logit(id)) * per_logit) as usize).min(STEPS - 1);
    let mut sums = [0.0; STEPS];
    for &id in kept.iter() {
        sums[step(id)] += weight(id);
    }
    let wanted = f64::from(row.top_p) * total;
    let (mut sum, mut last) = (0.0, 0);
    while last + 1 < STEPS && sum + sums[last] < wanted {
        sum += sums[last];
        last += 1;
    }
    let mut ranked: Vec<u64> = kept.iter().filter(|&&id| step(id) == last).map(|&id| rank(logits, id)).collect();
    ranked.sort_unstable();
    let mut lowest = 0;
    for &rank in &ranked {
        if sum >= wanted {
            break;
        }
        (sum, lowest) = (sum + weight(rank as u32), rank);
    }
    kept.retain(|&id| step(id) < last || step(id) == last && rank(logits, id) <= lowest);
}

/// The tokens with the largest logits, the largest first; all of them if there are no more.
fn most_likely(logits: &[f32], count: usize) -> Vec<u32> {
    let mut ranked: Vec<u64> = (0..logits.len() as u32).map(|id| rank(logits, id)).collect();
    if count < ranked.len() {
        ranked.select_nth_unstable(count);
        ranked.truncate(count);
    }
    ranked.sort_unstable();
    ranked.into_iter().map(|rank| rank as u32).collect()
}

/// A number that orders tokens by falling logit, equal ones by id, and has the id in its lower half. The logit is not
/// NaN.
pub(super) fn rank(logits: &[f32], id: u32) -> u64 {
    // Adding zero makes -0.0 equal to 0.0.
    let bits = (logits[id as usize] + 0.0).to_bits();
    // Bits of floats rise with their size: turn them around, for negative ones they already are.
    let falling = if bits >> 31 == 0 { !bits ^ (1 << 31) } else { bits };
    u64::from(falling) << 32 | u64::from(id)
}
