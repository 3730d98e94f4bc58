//! The tuned versions.

use std::ops::Range;

use super::reference::key;
use super::{GroupScore, Routing};
use crate::device::Cpu;
use crate::ops::lanes::{dot, map, update};
use crate::ops::split::{Columns, by_columns, by_rows};
use crate::simd::simd_fn;

pub(super) fn select(cpu: &Cpu, scores: &[f32], bias: Option<&[f32]>, routing: &Routing, indices: &mut [u32]) {
    let Routing { experts, groups, kept_groups, per_token, group_score } = *routing;
    let tokens = scores.len() / experts;
    let mut group_scores = cpu.buffer::<f32>(tokens * groups);
    by_rows(cpu, tokens, experts, [(group_scores.as_mut_slice(), groups)], |rows, [out]| {
        for (t, out) in rows.zip(out.chunks_exact_mut(groups)) {
            let scores = &scores[t * experts..][..experts];
            for (g, out) in out.iter_mut().enumerate() {
                *out = counted(scores, bias, routing.group(g), group_score);
            }
        }
    });
    let group_scores = group_scores.as_slice::<f32>();
    by_rows(cpu, tokens, experts, [(indices, per_token)], |rows, [chosen]| {
        for (i, t) in rows.enumerate() {
            let scores = &scores[t * experts..][..experts];
            let group_scores = &group_scores[t * groups..][..groups];
            let chosen = &mut chosen[i * per_token..][..per_token];
            let mut found = 0;
            for g in (0..groups).filter(|&g| rank(group_scores, g) < kept_groups) {
                insert_best(scores, bias, routing.group(g), chosen, &mut found);
            }
        }
    });
}

/// The biased score by which experts are chosen.
fn biased(scores: &[f32], bias: Option<&[f32]>, expert: usize) -> f32 {
    key(scores[expert] + bias.map_or(0.0, |bias| bias[expert]))
}

/// The score of a group; with one expert, its only score.
fn counted(scores: &[f32], bias: Option<&[f32]>, group: Range<usize>, score: GroupScore) -> f32 {
    let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for e in group.clone() {
        let value = biased(scores, bias, e);
        second = if value > first { first } else { second.max(value) };
        first = first.max(value);
    }
    match score {
        GroupScore::TwoBest if group.len() > 1 => key(first + second),
        GroupScore::TwoBest | GroupScore::Best => first,
    }
}

/// How many groups come before group `g`.
fn rank(group_scores: &[f32], g: usize) -> usize {
    let mine = group_scores[g];
    group_scores.iter().enumerate().filter(|&(h, &other)| other > mine || (other == mine && h < g)).count()
}

/// Inserts the experts of a range, given in ascending order, into the list of the best so far.
fn insert_best(scores: &[f32], bias: Option<&[f32]>, experts: Range<usize>, chosen: &mut [u32], found: &mut usize) {
    let value = |e: usize| biased(scores, bias, e);
    for e in experts {
        let mine = value(e);
        let mut at = *found;
        while at > 0 && mine > value(chosen[at - 1] as usize) {
            at -= 1;
        }
        if at < chosen.len() {
            chosen.copy_within(at..(*found).min(chosen.len() - 1), at + 1);
            chosen[at] = e as u32;
            *found = (*found + 1).min(chosen.len());
        }
    }
}

pub(super) fn plan(indices: &[u32], per_token: usize, offsets: &mut [u32], token_of: &mut [u32], slot_of: &mut [u32]) {
    let experts = offsets.len() - 1;
    offsets.fill(0);
    for &e in indices {
        assert!((e as usize) < experts, "expert {e} of {experts}");
        offsets[e as usize + 1] += 1;
    }
    for e in 0..experts {
        offsets[e + 1] += offsets[e];
    }
    // While slots are handed out, `offsets[e]` is the next of expert e; in the end it is the first of e + 1.
    for (i, &e) in indices.iter().enumerate() {
        let next = &mut offsets[e as usize];
        token_of[*next as usize] = (i / per_token) as u32;
        slot_of[i] = *next;
        *next += 1;
    }
    offsets.copy_within(0..experts, 1);
    offsets[0] = 0;
}

simd_fn! {
    /// Sums slots of some tokens.
    fn sum_slots<S>(s: S, dxs: &[f32], slot_of: &[u32], per_token: usize, width: usize, dx: &mut [f32]) {
        for (slots, dx) in slot_of.chunks_exact(per_token).zip(dx.chunks_exact_mut(width)) {
            let (first, rest) = slots.split_first().expect("invariant: a chunk of K > 0 slots");
            dx.copy_from_slice(&dxs[*first as usize * width..][..width]);
            for &slot in rest {
                update(s, [&dxs[slot as usize * width..][..width]], [&mut *dx], |[sum], [x]| [s.add(sum, x)]);
            }
        }
    }

    fn combine_slots<S>(
        s: S, ys: &[f32], weights: &[f32], slot_of: &[u32], per_token: usize, width: usize, y: &mut [f32],
    ) {
        let chosen = slot_of.chunks_exact(per_token).zip(weights.chunks_exact(per_token));
        for ((slots, weights), y) in chosen.zip(y.chunks_exact_mut(width)) {
            for (k, (&slot, &weight)) in slots.iter().zip(weights).enumerate() {
                let (row, weight) = (&ys[slot as usize * width..][..width], s.splat(weight));
                if k == 0 {
                    map(s, [row], [&mut *y], |[x]| [s.mul(weight, x)]);
                } else {
                    update(s, [row], [&mut *y], |[sum], [x]| [s.fma(weight, x, sum)]);
                }
            }
        }
    }

    /// Writes some columns of the gradients of all slots.
    fn spread<S>(s: S, weights: &[f32], slot_of: &[u32], per_token: usize, dy: &[f32], width: usize, dys: &mut Columns<'_>) {
        let range = dys.range();
        for (i, (&slot, &weight)) in slot_of.iter().zip(weights).enumerate() {
            let (dy, weight) = (&dy[i / per_token * width..][range.clone()], s.splat(weight));
            map(s, [dy], [dys.row(slot as usize)], |[dy]| [s.mul(weight, dy)]);
        }
    }

    fn softmax_of_rows<S>(s: S, x: &[f32], width: usize, y: &mut [f32]) {
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            map(s, [x], [&mut *y], |[x]| [s.exp(s.sub(x, s.splat(largest)))]);
            let sum = y.iter().sum::<f32>();
            y.iter_mut().for_each(|y| *y /= sum);
        }
    }

    fn weight_gradients<S>(
        s: S, ys: &[f32], slot_of: &[u32], per_token: usize, dy: &[f32], width: usize, dweights: &mut [f32],
    ) {
        for (i, (&slot, out)) in slot_of.iter().zip(dweights).enumerate() {
            *out = dot(s, &ys[slot as usize * width..][..width], &dy[i / per_token * width..][..width]);
        }
    }
}

pub(super) fn gather_backward(cpu: &Cpu, dxs: &[f32], slot_of: &[u32], per_token: usize, width: usize, dx: &mut [f32]) {
    if per_token == 0 || width == 0 {
        return dx.fill(0.0);
    }
    by_rows(cpu, dx.len() / width, per_token * width, [(dx, width)], |rows, [dx]| {
        sum_slots(cpu.isa(), dxs, &slot_of[rows.start * per_token..rows.end * per_token], per_token, width, dx);
    });
}

pub(super) fn combine(
    cpu: &Cpu,
    ys: &[f32],
    weights: &[f32],
    slot_of: &[u32],
    per_token: usize,
    width: usize,
    y: &mut [f32],
) {
    if per_token == 0 || width == 0 {
        return y.fill(0.0);
    }
    by_rows(cpu, y.len() / width, per_token * width, [(y, width)], |rows, [y]| {
        let at = rows.start * per_token..rows.end * per_token;
        combine_slots(cpu.isa(), ys, &weights[at.clone()], &slot_of[at], per_token, width, y);
    });
}

#[allow(clippy::too_many_arguments)]
pub(super) fn combine_backward(
    cpu: &Cpu,
    ys: &[f32],
    weights: &[f32],
    slot_of: &[u32],
    per_token: usize,
    dy: &[f32],
    width: usize,
    dys: &mut [f32],
    dweights: &mut [f32],
) {
    if per_token == 0 {
        return;
    }
    // Columns, not slots: the tasks are disjoint even if a slot stood in the list twice.
    by_columns(cpu, slot_of.len(), width, dys, |mut columns| {
        spread(cpu.isa(), weights, slot_of, per_token, dy, width, &mut columns);
    });
    by_rows(cpu, dy.len() / width, per_token * width, [(dweights, per_token)], |rows, [dweights]| {
        let slots = &slot_of[rows.start * per_token..rows.end * per_token];
        weight_gradients(cpu.isa(), ys, slots, per_token, &dy[rows.start * width..], width, dweights);
    });
}

pub(super) fn pick_columns(
    cpu: &Cpu,
    scores: &[f32],
    experts: usize,
    indices: &[u32],
    per_token: usize,
    y: &mut [f32],
) {
    let tokens = scores.len().checked_div(experts).unwrap_or(0);
    by_rows(cpu, tokens, per_token, [(y, per_token)], |rows, [y]| {
        let indices = &indices[rows.start * per_token..rows.end * per_token];
        for (i, (&e, y)) in indices.iter().zip(y).enumerate() {
            *y = scores[(rows.start + i / per_token) * experts..][..experts][e as usize];
        }
    });
}

pub(super) fn pick_columns_backward(
    cpu: &Cpu,
    dy: &[f32],
    indices: &[u32],
    per_token: usize,
    experts: usize,
    dscores: &mut [f32],
) {
    let tokens = dscores.len().checked_div(experts).unwrap_or(0);
    by_rows(cpu, tokens, experts, [(dscores, experts)], |rows, [dscores]| {
        dscores.fill(0.0);
        let at = rows.start * per_token..rows.end * per_token;
        for (i, (&e, &dy)) in indices[at.clone()].iter().zip(&dy[at]).enumerate() {
            dscores[i / per_token * experts..][..experts][e as usize] += dy;
        }
    });
}

pub(super) fn normalize_rows(cpu: &Cpu, x: &[f32], width: usize, eps: f32, y: &mut [f32]) {
    let rows = x.len().checked_div(width).unwrap_or(0);
    by_rows(cpu, rows, width, [(y, width)], |rows, [y]| {
        for (t, y) in rows.zip(y.chunks_exact_mut(width)) {
            let x = &x[t * width..][..width];
            let sum = x.iter().sum::<f32>() + eps;
            x.iter().zip(y).for_each(|(x, y)| *y = x / sum);
        }
    });
}

pub(super) fn normalize_rows_backward(cpu: &Cpu, x: &[f32], width: usize, eps: f32, dy: &[f32], dx: &mut [f32]) {
    let rows = x.len().checked_div(width).unwrap_or(0);
    by_rows(cpu, rows, width, [(dx, width)], |rows, [dx]| {
        for (t, dx) in rows.zip(dx.chunks_exact_mut(width)) {
            let (x, dy) = (&x[t * width..][..width], &dy[t * width..][..width]);
            let sum = x.iter().sum::<f32>() + eps;
            let along = x.iter().zip(dy).map(|(x, dy)| x * dy).sum::<f32>() / sum;
            dy.iter().zip(dx).for_each(|(dy, dx)| *dx = (dy - along) / sum);
        }
    });
}

pub(super) fn softmax_rows(cpu: &Cpu, x: &[f32], width: usize, y: &mut [f32]) {
    let rows = x.len().checked_div(width).unwrap_or(0);
    by_rows(cpu, rows, width, [(y, width)], |rows, [y]| {
        softmax_of_rows(cpu.isa(), &x[rows.start * width..rows.end * width], width, y);
    });
}

pub(super) fn softmax_rows_backward(cpu: &Cpu, y: &[f32], width: usize, dy: &[f32], dx: &mut [f32]) {
    let rows = y.len().checked_div(width).unwrap_or(0);
    by_rows(cpu, rows, width, [(dx, width)], |rows, [dx]| {
        for (t, dx) in rows.zip(dx.chunks_exact_mut(width)) {
            let (y, dy) = (&y[t * width..][..width], &dy[t * width..][..width]);
            let along = y.iter().zip(dy).map(|(y, dy)| y * dy).sum::<f32>();
            y.iter().zip(dy).zip(dx).for_each(|((y, dy), dx)| *dx = y * (dy - along));
        }
    });
}
