//! Which experts does a token visit, in which order are they computed, and how do their outputs come back?
//!
//! ```text
//! c_te  = s_te + b_e                      s = sigmoid (V3) or softmax (V2) of the gate's logits; b, which only V3
//!                                         has, selects and never weighs
//! g_tk  = sum of the two largest c of group k (V3), or the largest (V2)
//! E_t   = the K largest c among the groups with the largest g
//! w_te  = s_te / (sum over E_t of s + eps) (V3), or s_te (V2)
//! y_t   = sum over E_t, in order, of w_te expert_e(x_t)
//! ```
//!
//! Experts are computed over *slots*: the pairs of token and expert, sorted by expert, then by token. [`plan`] makes
//! the order, `ops::rows::gather_rows` brings rows into it, [`combine`] brings them back.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::Cpu;

/// How experts are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routing {
    /// Experts, E.
    pub experts: usize,
    /// Groups of neighbouring experts.
    pub groups: usize,
    /// Groups that a token may choose from.
    pub kept_groups: usize,
    /// Experts per token, K.
    pub per_token: usize,
    /// What a group counts.
    pub group_score: GroupScore,
}

/// What a group of experts counts when groups are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupScore {
    /// The sum of its two largest scores (V3).
    TwoBest,
    /// Its largest score (V2).
    Best,
}

impl Routing {
    /// Returns the number of experts of a group.
    fn group_size(&self) -> usize {
        self.experts / self.groups
    }

    /// Returns the experts of a group.
    fn group(&self, group: usize) -> Range<usize> {
        group * self.group_size()..(group + 1) * self.group_size()
    }

    fn check(&self) {
        assert!(self.groups > 0 && self.experts > 0 && self.experts.is_multiple_of(self.groups), "{self:?}");
        assert!((1..=self.groups).contains(&self.kept_groups), "{self:?}");
        assert!(self.per_token <= self.kept_groups * self.group_size(), "{self:?}");
    }
}

/// Computes the experts of each token, the largest biased score first.
///
/// # Shapes
/// scores [T, E], bias `[E]` if there is one, indices [T, K]
///
/// # Paper
/// - V3 2.1.2 eq. 16 (the biased choice), with the node-limited routing of the same section as groups
/// - Test: crates/kernels/src/ops/route/tests.rs::published_routing_is_reproduced
/// - Vector: testdata/vectors/gate_routing.json
///
/// # Numerics
/// Sums in f32. Experts of discarded groups are never chosen. Equal scores go to the lower index; not a number counts
/// as minus infinity.
pub fn select(cpu: &Cpu, scores: &[f32], bias: Option<&[f32]>, routing: &Routing, indices: &mut [u32]) {
    routing.check();
    let tokens = scores.len() / routing.experts;
    assert_eq!(scores.len(), tokens * routing.experts);
    assert!(bias.is_none_or(|bias| bias.len() == routing.experts));
    assert_eq!(indices.len(), tokens * routing.per_token);
    cpu::select(cpu, scores, bias, routing, indices);
}

/// Computes the slots: a stable counting sort of the pairs of token and expert by expert.
///
/// # Shapes
/// indices [T, K], offsets [E + 1] (expert e has the slots `offsets[e]..offsets[e + 1]`), token_of [T K] (by slot),
/// slot_of [T, K]
///
/// # Panics
/// If an index is not an expert.
pub fn plan(
    indices: &[u32],
    per_token: usize,
    experts: usize,
    offsets: &mut [u32],
    token_of: &mut [u32],
    slot_of: &mut [u32],
) {
    assert_eq!((offsets.len(), token_of.len(), slot_of.len()), (experts + 1, indices.len(), indices.len()));
    assert!(u32::try_from(indices.len()).is_ok());
    cpu::plan(indices, per_token, offsets, token_of, slot_of);
}

/// Computes the gradient of gathering rows into slots: the sum over the slots of a token, in the order of its experts.
///
/// # Shapes
/// dxs [S, width], slot_of [T, K], dx [T, width]
pub fn gather_backward(cpu: &Cpu, dxs: &[f32], slot_of: &[u32], per_token: usize, width: usize, dx: &mut [f32]) {
    assert_eq!((slot_of.len() * width, dxs.len()), (dx.len() * per_token, slot_of.len() * width));
    cpu::gather_backward(cpu, dxs, slot_of, per_token, width, dx);
}

/// Computes the weighted sum of the slots of each token, in the order of its experts.
///
/// # Shapes
/// ys [S, width], weights [T, K], slot_of [T, K], y [T, width]
///
/// # Paper
/// - V3 2.1.2 eq. 12 (the routed part)
pub fn combine(cpu: &Cpu, ys: &[f32], weights: &[f32], slot_of: &[u32], width: usize, y: &mut [f32]) {
    let per_token = per_token(slot_of, width, y);
    assert_eq!((weights.len(), ys.len()), (slot_of.len(), slot_of.len() * width));
    cpu::combine(cpu, ys, weights, slot_of, per_token, width, y);
}

/// Computes the gradients of [`combine`].
///
/// # Shapes
/// ys [S, width], weights [T, K], slot_of [T, K] (a permutation of the slots), dy [T, width], dys [S, width],
/// dweights [T, K]
#[allow(clippy::too_many_arguments)]
pub fn combine_backward(
    cpu: &Cpu,
    ys: &[f32],
    weights: &[f32],
    slot_of: &[u32],
    dy: &[f32],
    width: usize,
    dys: &mut [f32],
    dweights: &mut [f32],
) {
    let per_token = per_token(slot_of, width, dy);
    assert_eq!((weights.len(), dweights.len()), (slot_of.len(), slot_of.len()));
    assert_eq!((ys.len(), dys.len()), (slot_of.len() * width, slot_of.len() * width));
    cpu::combine_backward(cpu, ys, weights, slot_of, per_token, dy, width, dys, dweights);
}

/// Returns K from the slots and the rows `y [T, width]`.
fn per_token(slot_of: &[u32], width: usize, y: &[f32]) -> usize {
    let tokens = y.len().checked_div(width).unwrap_or(0);
    let per_token = slot_of.len().checked_div(tokens).unwrap_or(0);
    assert_eq!((y.len(), slot_of.len()), (tokens * width, tokens * per_token));
    per_token
}

/// Computes `y[t, k] = scores[t, indices[t, k]]`.
///
/// # Shapes
/// scores [T, E], indices [T, K], y [T, K]
///
/// # Paper
/// - V3 2.1.2 eqs. 14-15 (the affinities of the chosen experts, without the bias)
///
/// # Panics
/// If an index is not an expert.
pub fn pick_columns(cpu: &Cpu, scores: &[f32], experts: usize, indices: &[u32], per_token: usize, y: &mut [f32]) {
    assert_eq!((indices.len() * experts, y.len()), (scores.len() * per_token, indices.len()));
    cpu::pick_columns(cpu, scores, experts, indices, per_token, y);
}

/// Computes the gradient of [`pick_columns`]: zero for experts that were not picked.
///
/// # Shapes
/// dy [T, K], indices [T, K], dscores [T, E]
pub fn pick_columns_backward(
    cpu: &Cpu,
    dy: &[f32],
    indices: &[u32],
    per_token: usize,
    experts: usize,
    dscores: &mut [f32],
) {
    assert_eq!((indices.len() * experts, dy.len()), (dscores.len() * per_token, indices.len()));
    cpu::pick_columns_backward(cpu, dy, indices, per_token, experts, dscores);
}

/// Computes `y = x / (sum of the row + eps)`.
///
/// # Shapes
/// x [T, width], y [T, width]
///
/// # Paper
/// - V3 2.1.2 eq. 13 (the weights; eps is of the published code)
pub fn normalize_rows(cpu: &Cpu, x: &[f32], width: usize, eps: f32, y: &mut [f32]) {
    assert!(x.len() == y.len() && (width == 0 || x.len().is_multiple_of(width)));
    cpu::normalize_rows(cpu, x, width, eps, y);
}

/// Computes the gradient of [`normalize_rows`]: `dx_j = (dy_j - sum_i dy_i y_i) / (sum of x + eps)`.
///
/// # Shapes
/// x, dy, dx [T, width]
pub fn normalize_rows_backward(cpu: &Cpu, x: &[f32], width: usize, eps: f32, dy: &[f32], dx: &mut [f32]) {
    assert!(x.len() == dx.len() && dy.len() == dx.len() && (width == 0 || x.len().is_multiple_of(width)));
    cpu::normalize_rows_backward(cpu, x, width, eps, dy, dx);
}

/// Computes `y = e^x / (sum of e^x over the row)`.
///
/// # Shapes
/// x [T, width], y [T, width]
///
/// # Numerics
/// The largest of the row is subtracted first; one sum per row, ascending.
pub fn softmax_rows(cpu: &Cpu, x: &[f32], width: usize, y: &mut [f32]) {
    assert!(x.len() == y.len() && (width == 0 || x.len().is_multiple_of(width)));
    cpu::softmax_rows(cpu, x, width, y);
}

/// Computes the gradient of [`softmax_rows`]: `dx_j = y_j (dy_j - sum_i dy_i y_i)`.
///
/// # Shapes
/// y, dy, dx [T, width]
pub fn softmax_rows_backward(cpu: &Cpu, y: &[f32], width: usize, dy: &[f32], dx: &mut [f32]) {
    assert!(y.len() == dx.len() && dy.len() == dx.len() && (width == 0 || y.len().is_multiple_of(width)));
    cpu::softmax_rows_backward(cpu, y, width, dy, dx);
}

/// Computes how many tokens chose each expert.
///
/// # Shapes
/// indices [T, K], counts `[E]`
///
/// # Panics
/// If an index is not an expert.
pub fn expert_load(indices: &[u32], experts: usize, counts: &mut [u32]) {
    assert_eq!(counts.len(), experts);
    counts.fill(0);
    indices.iter().for_each(|&e| counts[e as usize] += 1);
}
