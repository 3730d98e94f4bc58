//! Which token comes next? One number between 0 and 1, drawn for this position of this sequence, falls into the
//! distribution of the model.
//!
//! In order: the logits are divided by the temperature; `top_k` keeps the most likely tokens; `top_p` keeps the fewest
//! of those whose probability reaches its share of what is left; `min_p` keeps those at least so likely relative to the
//! most likely one. Equal tokens rank by id. The draw walks what is left by id, so that a filter that removes nothing
//! changes nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use minke_model::Transformer;
use minke_spec::draw::{Domain, draw};
use minke_tensor::{Device, Indices, Pass, Tensor};

use crate::{Result, SamplingParams};

/// One token to be sampled.
pub(crate) struct Request<'a> {
    /// Row of the batch whose state predicts it.
    pub row: usize,
    pub params: &'a SamplingParams,
    /// Where the token will stand in its sequence.
    pub position: usize,
}

/// One token that was sampled.
#[derive(Clone, Copy)]
pub(crate) struct Sampled {
    pub token_id: u32,
    pub log_prob: f32,
    pub entropy: f32,
}

/// Returns a token for every request, or nothing where logits are not finite. Logits exist only for rows that are asked
/// for, one temperature after the other.
///
/// # Shapes
/// hidden [T, D]
pub(crate) fn sample(
    device: &Device,
    model: &Transformer,
    hidden: &Tensor,
    requests: &[Request<'_>],
) -> Result<Vec<Option<Sampled>>> {
    let pass = Pass::inference(device);
    let mut results = vec![None; requests.len()];
    let mut temperatures: Vec<f32> = Vec::new();
    for request in requests {
        let inverse = request.params.inverse_temperature();
        if !temperatures.contains(&inverse) {
            temperatures.push(inverse);
        }
    }
    for inverse in temperatures {
        let of_these = |&i: &usize| requests[i].params.inverse_temperature() == inverse;
        let which: Vec<usize> = (0..requests.len()).filter(of_these).collect();
        let rows: Vec<u32> = which.iter().map(|&i| requests[i].row as u32).collect();
        let logits = model.logits(pass, &hidden.gather_rows(pass, &Indices::from_slice(device, &rows))?)?;
        let weights = logits.weigh_rows(pass, inverse);
        let chosen = choose_rows(device, &logits, &weights, which.iter().map(|&i| &requests[i]).collect());
        let targets: Vec<u32> = chosen.iter().map(|token| token.unwrap_or(0)).collect();
        let said = logits.log_prob_rows(pass, &Indices::from_slice(device, &targets), inverse)?;
        let numbers = said.log_prob.values().iter().zip(said.entropy.values());
        for ((&i, token), (&log_prob, &entropy)) in which.iter().zip(chosen).zip(numbers) {
            let finite = log_prob.is_finite() && entropy.is_finite();
            results[i] = token.filter(|_| finite).map(|token_id| Sampled { token_id, log_prob, entropy });
        }
    }
    Ok(results)
}

/// Chooses one token per row of logits. [R, W] -> `[R]`
fn choose_rows(device: &Device, logits: &Tensor, weights: &Tensor, requests: Vec<&Request<'_>>) -> Vec<Option<u32>> {
    const NONE: u64 = u64::MAX;
    let width = logits.shape().width();
    let chosen: Vec<AtomicU64> = requests.iter().map(|_| AtomicU64::new(NONE)).collect();
    let Device::Cpu(cpu) = device;
    cpu.run(requests.len(), |i| {
        let Request { params, position, .. } = requests[i];
        let row = i * width..(i + 1) * width;
        let token = choose(&logits.values()[row.clone()], &weights.values()[row], params, *position);
        chosen[i].store(token.map_or(NONE, u64::from), Ordering::Relaxed);
    });
    chosen.into_iter().map(|token| u32::try_from(token.into_inner()).ok()).collect()
}

/// Chooses the token for one position, or nothing if a logit is not finite. `weights` are probabilities over the largest
/// one.
fn choose(logits: &[f32], weights: &[f32], params: &SamplingParams, position: usize) -> Option<u32> {
    if logits.is_empty() || !logits.iter().all(|z| z.is_finite()) {
        return None;
    }
    if params.temperature == 0.0 {
        return Some((1..logits.len()).fold(0, |best, id| if logits[id] > logits[best] { id } else { best }) as u32);
    }
    let uniform = draw(params.seed, Domain::Token, &[position as u64]).uniform();
    if params.filters() {
        let kept = filter(logits, weights, params);
        walk(uniform, || kept.iter().map(|&id| (id, weights[id as usize])))
    } else {
        walk(uniform, || (0..).zip(weights.iter().copied()))
    }
}

/// Returns the token into whose share of the sum of weights `uniform` falls.
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

/// Returns the tokens that `top_k`, `top_p` and `min_p` leave, by id; `weights` are probabilities over the largest one.
fn filter(logits: &[f32], weights: &[f32], params: &SamplingParams) -> Vec<u32> {
    let weight = |&id: &u32| f64::from(weights[id as usize]);
    let mut kept: Vec<u32> = (0..logits.len() as u32).collect();
    if params.top_k > 0 && params.top_k < kept.len() {
        let mut ranked: Vec<u64> = kept.iter().map(|&id| rank(logits, id)).collect();
        ranked.select_nth_unstable(params.top_k - 1);
        kept = ranked[..params.top_k].iter().map(|&rank| rank as u32).collect();
        // The order of sums below must not depend on how the selection went.
        kept.sort_unstable();
    }
    if params.top_p < 1.0 {
        let total: f64 = kept.iter().map(weight).sum();
        let wanted = f64::from(params.top_p) * total;
        // All tokens under this weight together are less than half of what `top_p` removes: they need no sorting.
        let least = 0.5 * (total - wanted) / kept.len() as f64;
        let mut ranked: Vec<u64> = kept.iter().filter(|id| weight(id) >= least).map(|&id| rank(logits, id)).collect();
        ranked.sort_unstable();
        let (mut sum, mut count) = (0.0, 0);
        while sum < wanted && count < ranked.len() {
            sum += weight(&(ranked[count] as u32));
            count += 1;
        }
        kept = ranked[..count].iter().map(|&rank| rank as u32).collect();
        kept.sort_unstable();
    }
    if params.min_p > 0.0 {
        kept.retain(|id| weight(id) >= f64::from(params.min_p));
    }
    kept
}

/// Returns a number that orders tokens by falling logit, equal ones by id, and has the id in its lower half. The logit
/// is finite.
fn rank(logits: &[f32], id: u32) -> u64 {
    // Adding zero makes -0.0 equal to 0.0.
    let bits = (logits[id as usize] + 0.0).to_bits();
    // Bits of floats rise with their size: turn them around, for negative ones they already are.
    let falling = if bits >> 31 == 0 { !bits ^ (1 << 31) } else { bits };
    u64::from(falling) << 32 | u64::from(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(temperature: f32, top_k: usize, top_p: f32, min_p: f32) -> SamplingParams {
        SamplingParams::default()
            .with_temperature(temperature)
            .with_top_k(top_k)
            .with_top_p(top_p)
            .with_min_p(min_p)
            .with_seed(11)
    }

    /// Chooses as [`super::choose`] does, from weights computed here.
    fn choose(logits: &[f32], params: &SamplingParams, position: usize) -> Option<u32> {
        let top = logits.iter().copied().fold(f32::MIN, f32::max);
        let weights: Vec<f32> = logits.iter().map(|z| ((z - top) * params.inverse_temperature()).exp()).collect();
        super::choose(logits, &weights, params, position)
    }

    #[test]
    fn frequencies_are_those_of_the_filtered_distribution() {
        // Ids are not in order of probability, so that an order by id and one by rank differ.
        let logits: Vec<f32> = [0.2f32, 0.4, 0.1, 0.3].iter().map(|p| p.ln() + 3.0).collect();
        let cases = [
            (params(1.0, 0, 1.0, 0.0), [0.2, 0.4, 0.1, 0.3]),
            (params(0.5, 0, 1.0, 0.0), [4.0 / 30.0, 16.0 / 30.0, 1.0 / 30.0, 9.0 / 30.0]),
            (params(1.0, 2, 1.0, 0.0), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
            (params(1.0, 0, 0.69, 0.0), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
            (params(1.0, 0, 0.71, 0.0), [2.0 / 9.0, 4.0 / 9.0, 0.0, 3.0 / 9.0]),
            (params(1.0, 0, 1.0, 0.49), [2.0 / 9.0, 4.0 / 9.0, 0.0, 3.0 / 9.0]),
            // `top_p` looks at what `top_k` left: 7 of 9 parts suffice for 0.75, of 10 they would not.
            (params(1.0, 3, 0.75, 0.0), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
            // `top_p` looks at probabilities after the temperature.
            (params(0.5, 0, 0.5, 0.0), [0.0, 1.0, 0.0, 0.0]),
            // `min_p` removes what the other two would keep.
            (params(1.0, 3, 0.99, 0.7), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
            (params(0.0, 0, 1.0, 0.0), [0.0, 1.0, 0.0, 0.0]),
        ];
        let draws = 40_000;
        for (params, want) in cases {
            let mut counts = [0u32; 4];
            (0..draws).for_each(|position| counts[choose(&logits, &params, position).unwrap() as usize] += 1);
            for (id, (&count, want)) in counts.iter().zip(want).enumerate() {
                let (n, got) = (draws as f64, f64::from(count) / draws as f64);
                let bound = 4.5 * (want * (1.0 - want) / n).sqrt();
                assert!((got - want).abs() <= bound, "{params:?}: token {id} has {got}, not {want}");
            }
        }
    }

    #[test]
    fn filters_that_remove_nothing_change_nothing_and_ties_go_to_the_lower_id() {
        let mut stream = draw(5, Domain::Data, &[]);
        let logits: Vec<f32> = (0..997).map(|_| stream.normal() as f32 * 4.0).collect();
        for position in 0..200 {
            let plain = choose(&logits, &params(0.9, 0, 1.0, 0.0), position);
            assert_eq!(plain, choose(&logits, &params(0.9, 997, 1.0, 1e-30), position));
        }
        let flat = [1.0f32, 2.0, 2.0, 0.0, 2.0];
        assert_eq!(choose(&flat, &params(0.0, 0, 1.0, 0.0), 0), Some(1));
        for (top_k, top_p) in [(2, 1.0), (0, 0.55)] {
            let seen: std::collections::BTreeSet<u32> =
                (0..500).map(|position| choose(&flat, &params(1.0, top_k, top_p, 0.0), position).unwrap()).collect();
            assert_eq!(seen, [1, 2].into());
        }
        for top_k in [1, 0] {
            assert_eq!(choose(&flat, &params(1.0, top_k, if top_k == 0 { 1e-6 } else { 1.0 }, 0.0), 3), Some(1));
        }
    }

    #[test]
    fn the_nucleus_is_that_of_a_plain_sort() {
        for case in 0..50u64 {
            let mut stream = draw(case, Domain::Data, &[]);
            let logits: Vec<f32> = (0..300).map(|_| (stream.normal() * 3.0) as f32).collect();
            let top_p = stream.uniform().max(0.01);
            let mut order: Vec<usize> = (0..300).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            let weights: Vec<f64> = logits.iter().map(|&z| f64::from(z).exp()).collect();
            let total: f64 = weights.iter().sum();
            let (mut want, mut sum) = (vec![], 0.0);
            for id in order {
                want.push(id as u32);
                sum += weights[id] / total;
                if sum >= f64::from(top_p as f32) {
                    break;
                }
            }
            want.sort_unstable();
            let top = weights.iter().copied().fold(0.0, f64::max);
            let scaled: Vec<f32> = weights.iter().map(|w| (w / top) as f32).collect();
            assert_eq!(filter(&logits, &scaled, &params(1.0, 0, top_p as f32, 0.0)), want, "case {case}, {top_p}");
        }
    }

    #[test]
    fn extreme_logits_give_a_token_and_those_that_are_not_finite_none() {
        let extreme = [f32::MAX, f32::MIN, 0.0, f32::MIN_POSITIVE];
        for temperature in [0.0, 1e-3, 1.0, 100.0] {
            assert_eq!(choose(&extreme, &params(temperature, 0, 0.9, 0.1), 1), Some(0));
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                assert_eq!(choose(&[0.0, bad, 1.0], &params(temperature, 2, 0.9, 0.1), 1), None);
            }
        }
        assert_eq!(choose(&[], &params(0.0, 0, 1.0, 0.0), 0), None);
    }

    #[test]
    fn ranks_fall_with_the_logit_and_rise_with_the_id() {
        let falling = [f32::MAX, 1.5, 1.0, f32::MIN_POSITIVE, 0.0, -0.0, -f32::MIN_POSITIVE, -1.0, -1.5, f32::MIN];
        let ranks: Vec<u64> = (0..falling.len() as u32).map(|id| rank(&falling, id)).collect();
        assert!(ranks.is_sorted());
        assert_eq!(ranks[4] >> 32, ranks[5] >> 32);
        assert_ne!(ranks[5] >> 32, ranks[6] >> 32);
    }
}
