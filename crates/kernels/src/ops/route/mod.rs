//! Routing: the experts that each token visits, the order in which they are computed, and the sum of their outputs.
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

use crate::{Device, View, ViewMut};

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
    /// The number of experts of a group.
    fn group_size(&self) -> usize {
        self.experts / self.groups
    }

    /// The experts of a group.
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
pub fn select(
    device: &Device,
    scores: View<'_, f32>,
    bias: Option<View<'_, f32>>,
    routing: &Routing,
    indices: ViewMut<'_, u32>,
) {
    routing.check();
    let tokens = scores.len() / routing.experts;
    assert_eq!(scores.len(), tokens * routing.experts);
    assert!(bias.is_none_or(|bias| bias.len() == routing.experts));
    assert_eq!(indices.len(), tokens * routing.per_token);
    match device {
        Device::Cpu(cpu) => cpu::select(cpu, scores.host(), bias.map(View::host), routing, indices.host()),
        Device::Reference(_) => {
            let zeros = vec![0.0; routing.experts];
            let bias = bias.map_or(&zeros[..], View::host);
            let rows = scores.host().chunks_exact(routing.experts);
            indices.write(&rows.flat_map(|scores| reference::select(scores, bias, routing)).collect::<Vec<_>>());
        }
    }
}

/// Computes the slots: a stable counting sort of the pairs of token and expert by expert.
///
/// # Shapes
/// indices [T, K] below E, offsets [E + 1] (expert e has the slots `offsets[e]..offsets[e + 1]`), token_of [T K] (by slot),
/// slot_of [T, K]
///
/// # Panics
/// If an index is not an expert.
pub fn plan(
    device: &Device,
    indices: View<'_, u32>,
    per_token: usize,
    offsets: ViewMut<'_, u32>,
    token_of: ViewMut<'_, u32>,
    slot_of: ViewMut<'_, u32>,
) {
    assert!(!offsets.is_empty());
    assert_eq!((token_of.len(), slot_of.len()), (indices.len(), indices.len()));
    assert!(u32::try_from(indices.len()).is_ok());
    match device {
        Device::Cpu(_) => cpu::plan(indices.host(), per_token, offsets.host(), token_of.host(), slot_of.host()),
        Device::Reference(_) => {
            let experts = offsets.len() - 1;
            let plan = reference::plan(indices.host(), per_token, experts);
            offsets.write(&plan.0);
            token_of.write(&plan.1);
            slot_of.write(&plan.2);
        }
    }
}

/// Computes the gradient of gathering rows into slots: the sum over the slots of a token, in the order of its experts.
///
/// # Shapes
/// dxs [S, width], slot_of [T, K], dx [T, width]
pub fn gather_backward(
    device: &Device,
    dxs: View<'_, f32>,
    slot_of: View<'_, u32>,
    per_token: usize,
    width: usize,
    dx: ViewMut<'_, f32>,
) {
    assert_eq!((slot_of.len() * width, dxs.len()), (dx.len() * per_token, slot_of.len() * width));
    match device {
        Device::Cpu(cpu) => cpu::gather_backward(cpu, dxs.host(), slot_of.host(), per_token, width, dx.host()),
        Device::Reference(_) if per_token == 0 => dx.host().fill(0.0),
        Device::Reference(_) => dx.set(&reference::gather_backward(&dxs.wide(), slot_of.host(), per_token, width)),
    }
}

/// Computes the weighted sum of the slots of each token, in the order of its experts.
///
/// # Shapes
/// ys [S, width], weights [T, K], slot_of [T, K], y [T, width]
///
/// # Paper
/// - V3 2.1.2 eq. 12 (the routed part)
pub fn combine(
    device: &Device,
    ys: View<'_, f32>,
    weights: View<'_, f32>,
    slot_of: View<'_, u32>,
    width: usize,
    y: ViewMut<'_, f32>,
) {
    let per_token = per_token(slot_of.len(), width, y.len());
    assert_eq!((weights.len(), ys.len()), (slot_of.len(), slot_of.len() * width));
    match device {
        Device::Cpu(cpu) => {
            cpu::combine(cpu, ys.host(), weights.host(), slot_of.host(), per_token, width, y.host());
        }
        Device::Reference(_) if per_token == 0 => y.host().fill(0.0),
        Device::Reference(_) => {
            y.set(&reference::combine(&ys.wide(), &weights.wide(), slot_of.host(), per_token, width));
        }
    }
}

/// Computes the gradients of [`combine`].
///
/// # Shapes
/// ys [S, width], weights [T, K], slot_of [T, K] (a permutation of the slots), dy [T, width], dys [S, width],
/// dweights [T, K]
#[allow(clippy::too_many_arguments)]
pub fn combine_backward(
    device: &Device,
    ys: View<'_, f32>,
    weights: View<'_, f32>,
    slot_of: View<'_, u32>,
    dy: View<'_, f32>,
    width: usize,
    dys: ViewMut<'_, f32>,
    dweights: ViewMut<'_, f32>,
) {
    let per_token = per_token(slot_of.len(), width, dy.len());
    assert_eq!((weights.len(), dweights.len()), (slot_of.len(), slot_of.len()));
    assert_eq!((ys.len(), dys.len()), (slot_of.len() * width, slot_of.len() * width));
    match device {
        Device::Cpu(cpu) => {
            let (ys, weights, slot_of, dy) = (ys.host(), weights.host(), slot_of.host(), dy.host());
            cpu::combine_backward(cpu, ys, weights, slot_of, per_token, dy, width, dys.host(), dweights.host());
        }
        Device::Reference(_) => {
            let (ys, weights, dy) = (ys.wide(), weights.wide(), dy.wide());
            let both = reference::combine_backward(&ys, &weights, slot_of.host(), per_token, &dy, width);
            dys.set(&both.0);
            dweights.set(&both.1);
        }
    }
}

/// K, from the numbers of slots and of elements of the rows `y [T, width]`.
fn per_token(slots: usize, width: usize, y: usize) -> usize {
    let tokens = y.checked_div(width).unwrap_or(0);
    let per_token = slots.checked_div(tokens).unwrap_or(0);
    assert_eq!((y, slots), (tokens * width, tokens * per_token));
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
pub fn pick_columns(
    device: &Device,
    scores: View<'_, f32>,
    experts: usize,
    indices: View<'_, u32>,
    per_token: usize,
    y: ViewMut<'_, f32>,
) {
    assert_eq!((indices.len() * experts, y.len()), (scores.len() * per_token, indices.len()));
    match device {
        Device::Cpu(cpu) => cpu::pick_columns(cpu, scores.host(), experts, indices.host(), per_token, y.host()),
        Device::Reference(_) => {
            y.set(&reference::pick_columns(&scores.wide(), experts, indices.host(), per_token));
        }
    }
}

/// Computes the gradient of [`pick_columns`]: zero for experts that were not picked.
///
/// # Shapes
/// dy [T, K], indices [T, K], dscores [T, E]
pub fn pick_columns_backward(
    device: &Device,
    dy: View<'_, f32>,
    indices: View<'_, u32>,
    per_token: usize,
    experts: usize,
    dscores: ViewMut<'_, f32>,
) {
    assert_eq!((indices.len() * experts, dy.len()), (dscores.len() * per_token, indices.len()));
    match device {
        Device::Cpu(cpu) => {
            cpu::pick_columns_backward(cpu, dy.host(), indices.host(), per_token, experts, dscores.host());
        }
        Device::Reference(_) if per_token == 0 => dscores.host().fill(0.0),
        Device::Reference(_) => {
            dscores.set(&reference::pick_columns_backward(&dy.wide(), indices.host(), per_token, experts));
        }
    }
}

/// Computes `y = x / (sum of the row + eps)`.
///
/// # Shapes
/// x [T, width], y [T, width]
///
/// # Paper
/// - V3 2.1.2 eq. 13 (the weights; eps is of the published code)
pub fn normalize_rows(device: &Device, x: View<'_, f32>, width: usize, eps: f32, y: ViewMut<'_, f32>) {
    assert!(x.len() == y.len() && (width == 0 || x.len().is_multiple_of(width)));
    match device {
        Device::Cpu(cpu) => cpu::normalize_rows(cpu, x.host(), width, eps, y.host()),
        Device::Reference(_) => y.set(&reference::normalize_rows(&x.wide(), width, eps.into())),
    }
}

/// Computes the gradient of [`normalize_rows`]: `dx_j = (dy_j - sum_i dy_i y_i) / (sum of x + eps)`.
///
/// # Shapes
/// x, dy, dx [T, width]
pub fn normalize_rows_backward(
    device: &Device,
    x: View<'_, f32>,
    width: usize,
    eps: f32,
    dy: View<'_, f32>,
    dx: ViewMut<'_, f32>,
) {
    assert!(x.len() == dx.len() && dy.len() == dx.len() && (width == 0 || x.len().is_multiple_of(width)));
    match device {
        Device::Cpu(cpu) => cpu::normalize_rows_backward(cpu, x.host(), width, eps, dy.host(), dx.host()),
        Device::Reference(_) => {
            dx.set(&reference::normalize_rows_backward(&x.wide(), width, eps.into(), &dy.wide()));
        }
    }
}

/// Computes `y = e^x / (sum of e^x over the row)`.
///
/// # Shapes
/// x [T, width], y [T, width]
///
/// # Numerics
/// The largest of the row is subtracted first; one sum per row, ascending.
pub fn softmax_rows(device: &Device, x: View<'_, f32>, width: usize, y: ViewMut<'_, f32>) {
    assert!(x.len() == y.len() && (width == 0 || x.len().is_multiple_of(width)));
    match device {
        Device::Cpu(cpu) => cpu::softmax_rows(cpu, x.host(), width, y.host()),
        Device::Reference(_) => y.set(&reference::softmax_rows(&x.wide(), width)),
    }
}

/// Computes the gradient of [`softmax_rows`]: `dx_j = y_j (dy_j - sum_i dy_i y_i)`.
///
/// # Shapes
/// y, dy, dx [T, width]
pub fn softmax_rows_backward(device: &Device, y: View<'_, f32>, width: usize, dy: View<'_, f32>, dx: ViewMut<'_, f32>) {
    assert!(y.len() == dx.len() && dy.len() == dx.len() && (width == 0 || y.len().is_multiple_of(width)));
    match device {
        Device::Cpu(cpu) => cpu::softmax_rows_backward(cpu, y.host(), width, dy.host(), dx.host()),
        Device::Reference(_) => dx.set(&reference::softmax_rows_backward(&y.wide(), width, &dy.wide())),
    }
}

/// Computes the constants of the sequence-wise balance loss: for every score of a sequence of L tokens
/// `E / (K L) * (tokens of the sequence that chose the expert) / L / (sequences that have tokens)`; zero for rows outside
/// all sequences.
///
/// # Shapes
/// indices [T, K] below E, sequences: their rows, factors [T, E]
///
/// # Paper
/// - V3 2.1.2 eq. 18 (the share of an expert), with the means of eqs. 17 and 20
///
/// # Numerics
/// In f64, rounded once.
pub fn balance_factors(
    device: &Device,
    indices: View<'_, u32>,
    sequences: &[Range<usize>],
    [per_token, experts]: [usize; 2],
    factors: ViewMut<'_, f32>,
) {
    assert_eq!(indices.len() * experts, factors.len() * per_token);
    match device {
        // A few numbers per row, once per layer and step of training: there is nothing to tune.
        Device::Cpu(_) | Device::Reference(_) => {
            reference::balance_factors(indices.host(), sequences, [per_token, experts], factors.host());
        }
    }
}
