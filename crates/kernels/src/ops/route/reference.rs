//! Reference implementation of routing.

use std::ops::Range;

use super::{GroupScore, Routing};

/// A score as it is compared: not a number counts as minus infinity.
pub fn key(score: f32) -> f32 {
    if score.is_nan() { f32::NEG_INFINITY } else { score }
}

/// The positions of `values`, the largest first, equal ones in order.
fn sorted(values: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| key(values[b]).partial_cmp(&key(values[a])).expect("invariant: keys are numbers"));
    order
}

/// The score of each group, for one token: its largest biased score, or the sum of its two largest.
pub fn group_scores(scores: &[f32], bias: &[f32], routing: &Routing) -> Vec<f32> {
    let counted = match routing.group_score {
        GroupScore::TwoBest => 2,
        GroupScore::Best => 1,
    };
    let biased: Vec<f32> = scores.iter().zip(bias).map(|(s, b)| key(s + b)).collect();
    let best =
        |group: &[f32]| key(sorted(group).iter().take(counted).map(|&e| group[e]).reduce(|a, b| a + b).unwrap_or(0.0));
    biased.chunks(routing.experts / routing.groups).map(best).collect()
}

/// The experts of one token. scores `[E]`, bias `[E]` -> `[K]`
pub fn select(scores: &[f32], bias: &[f32], routing: &Routing) -> Vec<u32> {
    let size = routing.experts / routing.groups;
    let groups = sorted(&group_scores(scores, bias, routing));
    let kept = &groups[..routing.kept_groups];
    let biased: Vec<f32> = scores.iter().zip(bias).map(|(s, b)| s + b).collect();
    let order = sorted(&biased).into_iter().filter(|e| kept.contains(&(e / size)));
    order.take(routing.per_token).map(|e| e as u32).collect()
}

/// Offsets [E + 1], token_of [T K] and slot_of [T, K] of slots: the pairs of token and expert, sorted by expert, then
/// by token. indices [T, K]
pub fn plan(indices: &[u32], per_token: usize, experts: usize) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let mut pairs: Vec<usize> = (0..indices.len()).collect();
    pairs.sort_by_key(|&i| indices[i]);
    let before = |expert: usize| indices.iter().filter(|&&e| (e as usize) < expert).count() as u32;
    let mut slot_of = vec![0; indices.len()];
    pairs.iter().enumerate().for_each(|(slot, &pair)| slot_of[pair] = slot as u32);
    let token_of = pairs.iter().map(|pair| (pair / per_token) as u32).collect();
    ((0..=experts).map(before).collect(), token_of, slot_of)
}

/// Writes the constants of the balance loss.
pub fn balance_factors(
    indices: &[u32],
    sequences: &[Range<usize>],
    [per_token, experts]: [usize; 2],
    factors: &mut [f32],
) {
    factors.fill(0.0);
    let with_tokens = sequences.iter().filter(|rows| !rows.is_empty()).count().max(1);
    for rows in sequences {
        let mut chosen = vec![0u32; experts];
        for &expert in &indices[rows.start * per_token..rows.end * per_token] {
            chosen[expert as usize] += 1;
        }
        let tokens = rows.len() as f64;
        let factor = experts as f64 / (per_token as f64 * tokens) / tokens / with_tokens as f64;
        for row in factors[rows.start * experts..rows.end * experts].chunks_exact_mut(experts.max(1)) {
            row.iter_mut().zip(&chosen).for_each(|(to, &count)| *to = (f64::from(count) * factor) as f32);
        }
    }
}

/// The gradient dx. dxs [S, width], slot_of [T, K] -> [T, width]
pub fn gather_backward(dxs: &[f64], slot_of: &[u32], per_token: usize, width: usize) -> Vec<f64> {
    let ones = vec![1.0; slot_of.len()];
    combine(dxs, &ones, slot_of, per_token, width)
}

/// The weighted sums of slots by token. ys [S, width], weights [T, K], slot_of [T, K] -> [T, width]
pub fn combine(ys: &[f64], weights: &[f64], slot_of: &[u32], per_token: usize, width: usize) -> Vec<f64> {
    let mut y = vec![0.0; slot_of.len() / per_token * width];
    for (i, &slot) in slot_of.iter().enumerate() {
        for j in 0..width {
            y[i / per_token * width + j] += weights[i] * ys[slot as usize * width + j];
        }
    }
    y
}

/// The gradients dys and dweights.
pub fn combine_backward(
    ys: &[f64],
    weights: &[f64],
    slot_of: &[u32],
    per_token: usize,
    dy: &[f64],
    width: usize,
) -> (Vec<f64>, Vec<f64>) {
    let (mut dys, mut dweights) = (vec![0.0; ys.len()], vec![0.0; weights.len()]);
    for (i, &slot) in slot_of.iter().enumerate() {
        for j in 0..width {
            let (at, dy) = (slot as usize * width + j, dy[i / per_token * width + j]);
            dys[at] = weights[i] * dy;
            dweights[i] += ys[at] * dy;
        }
    }
    (dys, dweights)
}

/// The picked scores. scores [T, E], indices [T, K] -> [T, K]
pub fn pick_columns(scores: &[f64], experts: usize, indices: &[u32], per_token: usize) -> Vec<f64> {
    indices.iter().enumerate().map(|(i, &e)| scores[i / per_token * experts + e as usize]).collect()
}

/// The gradient dscores. dy [T, K], indices [T, K] -> [T, E]
pub fn pick_columns_backward(dy: &[f64], indices: &[u32], per_token: usize, experts: usize) -> Vec<f64> {
    let mut dscores = vec![0.0; indices.len() / per_token * experts];
    for (i, &e) in indices.iter().enumerate() {
        dscores[i / per_token * experts + e as usize] += dy[i];
    }
    dscores
}

/// `x / (sum + eps)` by rows.
pub fn normalize_rows(x: &[f64], width: usize, eps: f64) -> Vec<f64> {
    x.chunks(width).flat_map(|x| x.iter().map(|v| v / (x.iter().sum::<f64>() + eps))).collect()
}

/// The gradient dx.
pub fn normalize_rows_backward(x: &[f64], width: usize, eps: f64, dy: &[f64]) -> Vec<f64> {
    let mut dx = Vec::new();
    for (x, dy) in x.chunks(width).zip(dy.chunks(width)) {
        let sum = x.iter().sum::<f64>() + eps;
        let along: f64 = x.iter().zip(dy).map(|(x, dy)| x * dy).sum::<f64>() / sum;
        dx.extend(dy.iter().map(|dy| (dy - along) / sum));
    }
    dx
}

/// `e^x / (sum of e^x)` by rows.
pub fn softmax_rows(x: &[f64], width: usize) -> Vec<f64> {
    let exp: Vec<f64> = x.iter().map(|x| x.exp()).collect();
    normalize_rows(&exp, width, 0.0)
}

/// The gradient dx.
pub fn softmax_rows_backward(y: &[f64], width: usize, dy: &[f64]) -> Vec<f64> {
    let mut dx = Vec::new();
    for (y, dy) in y.chunks(width).zip(dy.chunks(width)) {
        let along: f64 = y.iter().zip(dy).map(|(y, dy)| y * dy).sum();
        dx.extend(y.iter().zip(dy).map(|(y, dy)| y * (dy - along)));
    }
    dx
}
