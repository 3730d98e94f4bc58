//! The tuned kernels: blocks of query rows against tiles of keys, and single rows, several heads abreast; all products
//! through `tile`.

use super::{Gradients, Heads, Memory, Saved, Span, Strides, TILE};
use crate::device::{Cpu, Parts};
use crate::element::Element;
use crate::simd::{Simd, simd_fn};
use crate::tile::{Left, Output, Right, product, row_products};

/// Query rows per block: enough to pay for the transposition of a tile.
const ROWS: usize = 96;

/// Query rows of one head (or, for a single row, all heads of a group) that share keys.
#[derive(Clone, Copy)]
struct Block {
    span: Span,
    key_value_head: usize,
    /// First (row, head) pair: `row * H + head`.
    first_pair: usize,
    /// Pairs between neighbours: H for rows of a head, 1 for heads of a row.
    pair_stride: usize,
    count: usize,
    /// Position of the first pair; neighbours are `position_step` (0 or 1) apart.
    position: usize,
    position_step: usize,
}

/// Splits the query rows of one span and one key-value head into blocks.
fn blocks(span: Span, key_value_head: usize, heads: Heads) -> impl Iterator<Item = Block> {
    let group = heads.query / heads.key_value;
    // One row: its heads are neighbours. Several rows: one head at a time. The choice does not show in the result.
    let single = span.rows == 1;
    let (runs, length) = if single { (1, group) } else { (group, span.rows) };
    (0..runs).flat_map(move |run| {
        (0..length).step_by(ROWS).map(move |start| Block {
            span,
            key_value_head,
            first_pair: (span.first_row + if single { 0 } else { start }) * heads.query
                + key_value_head * group
                + if single { start } else { run },
            pair_stride: if single { 1 } else { heads.query },
            count: ROWS.min(length - start),
            position: span.first_position + if single { 0 } else { start },
            position_step: usize::from(!single),
        })
    })
}

impl Block {
    fn position_of(&self, i: usize) -> usize {
        self.position + i * self.position_step
    }

    /// The first pair that sees key `key`, or `count` if none does.
    fn first_seeing(&self, key: usize) -> usize {
        match (key.saturating_sub(self.position), self.position_step) {
            (0, _) => 0,
            (_, 0) => self.count,
            (ahead, _) => ahead.min(self.count),
        }
    }

    /// The view of `[T, H, width]` that starts at pair `i` of the block.
    fn left(&self, data: &[f32], width: usize, i: usize) -> Left {
        let row = self.pair_stride * width;
        Left { pointer: data.as_ptr(), row, column: 1 }.at(i, 0).at_offset(self.first_pair * width)
    }
}

impl Left {
    fn at_offset(self, floats: usize) -> Self {
        Self { pointer: self.pointer.wrapping_add(floats), ..self }
    }
}

/// Heads that decode abreast: enough that none waits for its own sums.
const ABREAST: usize = 4;

/// What a task computes: many rows of a head, or one row of [`ABREAST`] heads (or of a single one) in pages.
#[derive(Clone, Copy)]
enum Piece {
    Block(Block),
    Row { span: Span, first_head: usize },
}

/// Adds the work of one span. The choice of pieces does not show in the result.
fn add_pieces(all: &mut Vec<Piece>, span: Span, heads: Heads, in_pages: bool) {
    if span.rows == 0 {
        return;
    }
    if span.rows == 1 && in_pages && heads.query == heads.key_value {
        let whole = heads.query - heads.query % ABREAST;
        let firsts = (0..whole).step_by(ABREAST).chain(whole..heads.query);
        all.extend(firsts.map(|first_head| Piece::Row { span, first_head }));
    } else {
        all.extend((0..heads.key_value).flat_map(|head| blocks(span, head, heads)).map(Piece::Block));
    }
}

impl Piece {
    /// The products of queries and keys.
    fn products(&self, heads: Heads) -> usize {
        match self {
            Self::Block(block) => block.count * (block.position + block.count),
            Self::Row { span, first_head } => abreast(*first_head, heads) * span.keys(),
        }
    }
}

/// How many heads decode abreast from `first_head` on.
fn abreast(first_head: usize, heads: Heads) -> usize {
    if first_head + ABREAST <= heads.query { ABREAST } else { 1 }
}

/// Scratch of one task, cut from one buffer.
struct Scratch<'a> {
    scores: &'a mut [f32],
    keys: &'a mut [f32],
    sums: &'a mut [f32],
    row_max: &'a mut [f32],
    row_sum: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    fn len(heads: Heads) -> usize {
        ROWS * (TILE + heads.value_width + 2) + heads.width * TILE
    }

    fn cut(all: &'a mut [f32], heads: Heads) -> Self {
        let (scores, rest) = all.split_at_mut(ROWS * TILE);
        let (keys, rest) = rest.split_at_mut(heads.width * TILE);
        let (sums, rest) = rest.split_at_mut(ROWS * heads.value_width);
        let (row_max, row_sum) = rest.split_at_mut(ROWS);
        Self { scores, keys, sums, row_max, row_sum }
    }
}

/// Writes `rows` rows of `width` elements, `stride` apart, transposed to `[width, TILE]`; missing columns are zero.
#[inline(always)]
fn transpose<S: Simd, T: Element>(s: S, from: &[T], stride: usize, rows: usize, width: usize, to: &mut [f32]) {
    let to = &mut to[..width * TILE];
    if rows < TILE {
        to.fill(0.0);
    }
    assert!(rows <= TILE && (rows == 0 || from.len() >= (rows - 1) * stride + width));
    let (whole_rows, whole_width) = (rows - rows % S::LANES, width - width % S::LANES);
    let mut square = [0f32; 16 * 16];
    for j in (0..whole_rows).step_by(S::LANES) {
        for p in (0..whole_width).step_by(S::LANES) {
            // SAFETY: LANES rows of LANES elements lie in `from` and `square`, and as many of `to` behind (p, j).
            unsafe {
                for i in 0..S::LANES {
                    let row = T::load(s, from.as_ptr().add((j + i) * stride + p));
                    s.store_ptr(row, square.as_mut_ptr().add(i * S::LANES));
                }
                s.transpose(square.as_ptr().cast(), S::LANES, to.as_mut_ptr().add(p * TILE + j).cast(), TILE);
            }
        }
    }
    for j in 0..rows {
        let first = if j < whole_rows { whole_width } else { 0 };
        let row = &from[j * stride..][..width];
        for (p, &x) in row.iter().enumerate().skip(first) {
            to[p * TILE + j] = x.to_f32();
        }
    }
}

simd_fn! {
    /// Computes the outputs of one block.
    fn forward_block<S, T: Element>(
        s: S, q: &[f32], memory: Memory<'_, &[T]>, block: Block, heads: Heads, scale: f32, scratch: &mut [f32],
        out: &Parts<'_, f32>, log_sum: &Parts<'_, f32>,
    ) {
        let Scratch { scores, keys, sums, row_max, row_sum } = Scratch::cut(scratch, heads);
        let value_width = heads.value_width;
        let last = block.position_of(block.count - 1);
        for t in 0..=last / TILE {
            let unit = memory.tiles[block.span.first_tile + t] as usize;
            let valid = TILE.min(block.span.keys() - t * TILE);
            // Rows before the tile do not see it at all: they take no step here, as they would take none alone.
            let first = block.first_seeing(t * TILE);
            let rows = block.count - first;
            let strides = memory.key_strides;
            let tile = &memory.keys[unit * strides.unit + block.key_value_head * strides.head..];
            if strides.key == 1 {
                // Pages of one head lie far apart: fetch what comes next while this tile is computed.
                fetch_ahead(s, memory, block, t, last / TILE, heads);
            }
            let queries = block.left(q, heads.width, first);
            let output = Output { pointer: scores[first * TILE..].as_mut_ptr(), row: TILE };
            let shape = (rows, TILE, heads.width);
            // SAFETY: q, the tile (checked by `Memory::check`) and the scratch cover these shapes.
            unsafe {
                if strides.key == 1 {
                    let transposed = Right::plain::<S>(tile.as_ptr(), strides.component);
                    product(s, shape, queries, transposed, output, false);
                } else {
                    transpose(s, tile, strides.key, valid, heads.width, keys);
                    product(s, shape, queries, Right::plain::<S>(keys.as_ptr(), TILE), output, false);
                }
            }
            for i in first..block.count {
                let row = &mut scores[i * TILE..][..TILE];
                let visible = (block.position_of(i) - t * TILE + 1).min(TILE);
                let sums = &mut sums[i * value_width..][..value_width];
                online_softmax(s, row, visible, scale, t == 0, &mut row_max[i], &mut row_sum[i], sums);
            }
            let strides = memory.value_strides;
            let tile = &memory.values[unit * strides.unit + block.key_value_head * strides.head..];
            let weights = Left { pointer: scores.as_ptr(), row: TILE, column: 1 }.at(first, 0);
            let output = Output { pointer: sums[first * value_width..].as_mut_ptr(), row: value_width };
            let values = Right::plain::<S>(tile.as_ptr(), strides.key);
            // SAFETY: as above.
            unsafe { product(s, (rows, value_width, valid), weights, values, output, t > 0) };
        }
        for i in 0..block.count {
            let pair = block.first_pair + i * block.pair_stride;
            let sums = &sums[i * value_width..][..value_width];
            // SAFETY: a pair belongs to one block.
            unsafe { finish(s, pair, sums, row_max[i], row_sum[i], out, log_sum) };
        }
    }

    /// Computes the outputs of one row for the heads that decode abreast, which read key-value heads of their own from
    /// pages. `then` is the row and head behind them, whose first tile is fetched at the end.
    fn forward_row<S, T: Element>(
        s: S, q: &[f32], memory: Memory<'_, &[T]>, here: (Span, usize), then: (Span, usize), heads: Heads, scale: f32,
        scratch: &mut [f32], out: &Parts<'_, f32>, log_sum: &Parts<'_, f32>,
    ) {
        match abreast(here.1, heads) {
            ABREAST => decode::<S, T, ABREAST>(s, q, memory, here, then, heads, scale, scratch, out, log_sum),
            _ => decode::<S, T, 1>(s, q, memory, here, then, heads, scale, scratch, out, log_sum),
        }
    }

    /// Adds the contributions of one span and key-value head to the gradients.
    fn backward_head<S>(
        s: S, saved: Saved<'_, &[f32]>, dout: &[f32], span: Span, key_value_head: usize, heads: Heads, scale: f32,
        scratch: &mut [f32], gradients: [&Parts<'_, f32>; 3],
    ) {
        let Heads { key_value, width, value_width, .. } = heads;
        let (keys_t, rest) = scratch.split_at_mut(width * TILE);
        let (values_t, rest) = rest.split_at_mut(value_width * TILE);
        let (p, rest) = rest.split_at_mut(ROWS * TILE);
        let (dp, delta) = rest.split_at_mut(ROWS * TILE);
        let [dq, dk, dv] = gradients;
        let (key_row, value_row) = (key_value * width, key_value * value_width);
        for t in 0..span.keys().div_ceil(TILE) {
            let valid = TILE.min(span.keys() - t * TILE);
            let row = span.first_row + t * TILE;
            let (key_at, value_at) = (row * key_row + key_value_head * width, row * value_row + key_value_head * value_width);
            transpose(s, &saved.k[key_at..], key_row, valid, width, keys_t);
            transpose(s, &saved.v[value_at..], value_row, valid, value_width, values_t);
            let keys = Right::plain::<S>(saved.k[key_at..].as_ptr(), key_row);
            for block in blocks(span, key_value_head, heads) {
                let first = block.first_seeing(t * TILE);
                let rows = block.count - first;
                if rows == 0 {
                    continue;
                }
                let queries = block.left(saved.q, width, first);
                let douts = block.left(dout, value_width, first);
                // SAFETY: all operands cover these shapes; a span and key-value head write their own rows.
                unsafe {
                    let to = Output { pointer: p.as_mut_ptr(), row: TILE };
                    product(s, (rows, TILE, width), queries, Right::plain::<S>(keys_t.as_ptr(), TILE), to, false);
                    let to = Output { pointer: dp.as_mut_ptr(), row: TILE };
                    product(s, (rows, TILE, value_width), douts, Right::plain::<S>(values_t.as_ptr(), TILE), to, false);
                }
                for i in 0..rows {
                    let pair = block.first_pair + (first + i) * block.pair_stride;
                    if t == 0 {
                        let at = pair * value_width..(pair + 1) * value_width;
                        delta[pair_index(&block, first + i, span, heads)] = dot(s, &dout[at.clone()], &saved.out[at]);
                    }
                    let visible = (block.position_of(first + i) - t * TILE + 1).min(TILE);
                    let delta = delta[pair_index(&block, first + i, span, heads)];
                    let (p, dp) = (&mut p[i * TILE..][..TILE], &mut dp[i * TILE..][..TILE]);
                    probability_gradients(s, p, dp, visible, scale, saved.log_sum.host()[pair], delta);
                }
                let pt = Left { pointer: p.as_ptr(), row: 1, column: TILE };
                let dst = Left { pointer: dp.as_ptr(), row: 1, column: TILE };
                let (q_rows, dout_rows) =
                    (Right::plain::<S>(queries.pointer, queries.row), Right::plain::<S>(douts.pointer, douts.row));
                let to = |parts: &Parts<'_, f32>, at: usize, row: usize| Output { pointer: parts.pointer(at), row };
                // SAFETY: as above. The first block of the span is the first to touch a tile's gradients.
                unsafe {
                    product(s, (valid, value_width, rows), pt, dout_rows, to(dv, value_at, value_row), true);
                    product(s, (valid, width, rows), dst, q_rows, to(dk, key_at, key_row), true);
                    let ds = Left { pointer: dp.as_ptr(), row: TILE, column: 1 };
                    let pair = block.first_pair + first * block.pair_stride;
                    product(s, (rows, width, valid), ds, keys, to(dq, pair * width, block.pair_stride * width), t > 0);
                }
            }
        }
    }
}

/// Computes [`forward_row`] for R heads.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn decode<S: Simd, T: Element, const R: usize>(
    s: S,
    q: &[f32],
    memory: Memory<'_, &[T]>,
    (span, head): (Span, usize),
    (next, next_head): (Span, usize),
    heads: Heads,
    scale: f32,
    scratch: &mut [f32],
    out: &Parts<'_, f32>,
    log_sum: &Parts<'_, f32>,
) {
    let Heads { width, value_width, .. } = heads;
    let (scores, sums) = scratch[..R * (TILE + value_width)].split_at_mut(R * TILE);
    let (mut row_max, mut row_sum) = ([0.0; R], [0.0; R]);
    let pair = span.first_row * heads.query + head;
    let tiles = span.keys().div_ceil(TILE);
    for t in 0..tiles {
        let valid = TILE.min(span.keys() - t * TILE);
        let place = |span: Span, t: usize, head: usize| (memory.tiles[span.first_tile + t], head);
        let here = place(span, t, head);
        let then = if t + 1 < tiles { place(span, t + 1, head) } else { place(next, 0, next_head) };
        let starts = |data: &[T], strides: Strides, (unit, head): (u32, usize)| -> [*const T; R] {
            let first = unit as usize * strides.unit + head * strides.head;
            std::array::from_fn(|r| data.as_ptr().wrapping_add(first + r * strides.head))
        };
        let queries = std::array::from_fn(|r| q[(pair + r) * width..].as_ptr());
        let strides = memory.key_strides;
        let [keys, ahead] = [here, then].map(|place| starts(memory.keys, strides, place));
        let to = std::array::from_fn(|r| scores[r * TILE..].as_mut_ptr());
        // SAFETY: q, the tiles (checked by `Memory::check`) and the scratch cover these shapes.
        unsafe { row_products::<S, T, R>(s, (TILE, width, strides.component), queries, keys, ahead, to, false) };
        for r in 0..R {
            let row = &mut scores[r * TILE..][..TILE];
            let sums = &mut sums[r * value_width..][..value_width];
            online_softmax(s, row, valid, scale, t == 0, &mut row_max[r], &mut row_sum[r], sums);
        }
        let weights = std::array::from_fn(|r| scores[r * TILE..].as_ptr());
        let strides = memory.value_strides;
        let [values, ahead] = [here, then].map(|place| starts(memory.values, strides, place));
        let to = std::array::from_fn(|r| sums[r * value_width..].as_mut_ptr());
        // SAFETY: as above.
        unsafe { row_products::<S, T, R>(s, (value_width, valid, strides.key), weights, values, ahead, to, t > 0) };
    }
    for r in 0..R {
        let sums = &sums[r * value_width..][..value_width];
        // SAFETY: a row and a head belong to one task.
        unsafe { finish(s, pair + r, sums, row_max[r], row_sum[r], out, log_sum) };
    }
}

/// Writes the output of a (row, head) pair and the log of its sum of exponentials.
///
/// # Safety
/// The pair belongs to the caller's task.
#[inline(always)]
unsafe fn finish<S: Simd>(
    s: S,
    pair: usize,
    sums: &[f32],
    row_max: f32,
    row_sum: f32,
    out: &Parts<'_, f32>,
    log_sum: &Parts<'_, f32>,
) {
    // SAFETY: the caller's promise.
    let (to, log) = unsafe { (out.part(pair * sums.len(), sums.len()), log_sum.part(pair, 1)) };
    let inverse = s.splat(1.0 / row_sum);
    for (from, to) in sums.chunks(S::LANES).zip(to.chunks_mut(S::LANES)) {
        s.store_partial(s.mul(s.load_partial(from), inverse), to);
    }
    log[0] = row_max + row_sum.ln();
}

/// Prefetches the values of tile t and the keys of the tile behind it.
#[inline(always)]
fn fetch_ahead<S: Simd, T>(s: S, memory: Memory<'_, &[T]>, block: Block, t: usize, last: usize, heads: Heads) {
    let line = 64 / size_of::<T>();
    let start = |tile: usize, strides: Strides| {
        let unit = memory.tiles[block.span.first_tile + tile] as usize;
        unit * strides.unit + block.key_value_head * strides.head
    };
    let values = memory.values.as_ptr().wrapping_add(start(t, memory.value_strides));
    for at in (0..TILE * heads.value_width).step_by(line) {
        s.prefetch(values.wrapping_add(at));
    }
    if t < last {
        let keys = memory.keys.as_ptr().wrapping_add(start(t + 1, memory.key_strides));
        for at in (0..TILE * heads.width).step_by(line) {
            s.prefetch(keys.wrapping_add(at));
        }
    }
}

/// Where a pair's delta lies in the scratch of its task.
fn pair_index(block: &Block, i: usize, span: Span, heads: Heads) -> usize {
    let pair = block.first_pair + i * block.pair_stride;
    let group = heads.query / heads.key_value;
    (pair / heads.query - span.first_row) * group + pair % heads.query % group
}

/// Turns a row of raw scores into softmax weights relative to the running maximum, and rescales what was summed.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn online_softmax<S: Simd>(
    s: S,
    row: &mut [f32],
    visible: usize,
    scale: f32,
    first_tile: bool,
    row_max: &mut f32,
    row_sum: &mut f32,
    sums: &mut [f32],
) {
    row[visible..].fill(f32::NEG_INFINITY);
    let mut largest = s.splat(f32::NEG_INFINITY);
    for chunk in row.chunks_exact_mut(S::LANES) {
        // Minus infinity times a positive scale is itself.
        let v = s.mul(s.load(chunk), s.splat(scale));
        largest = s.max(largest, v);
        s.store(v, chunk);
    }
    let before = if first_tile { f32::NEG_INFINITY } else { *row_max };
    let now = before.max(s.largest(largest));
    let mut sum = s.splat(0.0);
    for chunk in row.chunks_exact_mut(S::LANES) {
        let p = s.exp(s.sub(s.load(chunk), s.splat(now)));
        sum = s.add(sum, p);
        s.store(p, chunk);
    }
    let sum = s.sum(sum);
    *row_max = now;
    if first_tile {
        *row_sum = sum;
        return;
    }
    let decay = s.exp(s.splat(before - now));
    *row_sum = s.to_array(s.fma(s.splat(*row_sum), decay, s.splat(sum)))[0];
    if before < now {
        for chunk in sums.chunks_mut(S::LANES) {
            s.store_partial(s.mul(s.load_partial(chunk), decay), chunk);
        }
    }
}

/// Turns raw scores and dO V^T into probabilities and the gradient of the raw scores.
#[inline(always)]
pub(super) fn probability_gradients<S: Simd>(
    s: S,
    p: &mut [f32],
    dp: &mut [f32],
    visible: usize,
    scale: f32,
    log_sum: f32,
    delta: f32,
) {
    p[visible..].fill(f32::NEG_INFINITY);
    for (p, dp) in p.chunks_exact_mut(S::LANES).zip(dp.chunks_exact_mut(S::LANES)) {
        let weight = s.exp(s.sub(s.mul(s.load(p), s.splat(scale)), s.splat(log_sum)));
        let change = s.mul(s.mul(weight, s.sub(s.load(dp), s.splat(delta))), s.splat(scale));
        s.store(weight, p);
        s.store(change, dp);
    }
    // A masked key has weight zero; its score gradient must be zero too, whatever stands in the unread values.
    dp[visible..].fill(0.0);
}

#[inline(always)]
pub(super) fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = s.splat(0.0);
    for (a, b) in a.chunks(S::LANES).zip(b.chunks(S::LANES)) {
        sum = s.fma(s.load_partial(a), s.load_partial(b), sum);
    }
    s.sum(sum)
}

#[allow(clippy::too_many_arguments)]
pub(super) fn forward<T: Element>(
    cpu: &Cpu,
    q: &[f32],
    memory: Memory<'_, &[T]>,
    spans: &[Span],
    heads: Heads,
    scale: f32,
    out: &mut [f32],
    log_sum: &mut [f32],
) {
    let in_pages = memory.key_strides.key == 1;
    let mut all = Vec::new();
    spans.iter().for_each(|&span| add_pieces(&mut all, span, heads, in_pages));
    let work: usize = all.iter().map(|piece| piece.products(heads)).sum();
    let (out, log_sum) = (Parts::new(out), Parts::new(log_sum));
    // In decode a piece is a single row: tasks of several share one scratch.
    let per_task = (all.len() / (16 * cpu.threads())).max(1);
    cpu.run_if(work * heads.width > 20_000, all.len().div_ceil(per_task), |task| {
        let mut scratch = cpu.buffer::<f32>(Scratch::len(heads));
        let scratch = scratch.as_mut_slice();
        let range = task * per_task..all.len().min((task + 1) * per_task);
        for at in range {
            match all[at] {
                Piece::Block(block) => {
                    forward_block(cpu.isa(), q, memory, block, heads, scale, scratch, &out, &log_sum);
                }
                Piece::Row { span, first_head } => {
                    let here = (span, first_head);
                    let then = match all.get(at + 1) {
                        Some(&Piece::Row { span, first_head }) => (span, first_head),
                        _ => here,
                    };
                    forward_row(cpu.isa(), q, memory, here, then, heads, scale, scratch, &out, &log_sum);
                }
            }
        }
    });
}

pub(super) fn backward(
    cpu: &Cpu,
    saved: Saved<'_, &[f32]>,
    dout: &[f32],
    spans: &[Span],
    heads: Heads,
    scale: f32,
    gradients: Gradients<&mut [f32]>,
) {
    let Gradients { q, k, v } = gradients;
    q.fill(0.0);
    k.fill(0.0);
    v.fill(0.0);
    let (dq, dk, dv) = (Parts::new(q), Parts::new(k), Parts::new(v));
    let group = heads.query / heads.key_value;
    let longest = spans.iter().map(|span| span.rows).max().unwrap_or(0);
    let scratch_len = (heads.width + heads.value_width + 2 * ROWS) * TILE + longest * group;
    cpu.run(spans.len() * heads.key_value, |task| {
        let (span, head) = (spans[task / heads.key_value], task % heads.key_value);
        let mut scratch = cpu.buffer::<f32>(scratch_len);
        let parts = [&dq, &dk, &dv];
        backward_head(cpu.isa(), saved, dout, span, head, heads, scale, scratch.as_mut_slice(), parts);
    });
}
