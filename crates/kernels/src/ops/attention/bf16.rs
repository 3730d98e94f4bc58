//! The backward whose products round their operands to bf16, on paths with instructions for it.
//!
//! A task has a sequence and a head of keys. Operands of whole sequences are laid out once: rows of queries and of the output's
//! gradient as left operands, and they, keys and values as right ones. Then blocks of keys meet blocks of queries.

use super::cpu::{dot, probability_gradients};
use super::{Gradients, Heads, Saved, Span};
use crate::device::{Buffer, Cpu, Parts};
use crate::format::bf16::Bf16;
use crate::isa::Isa;
use crate::ops::bf16_matmul::cpu::block::Unit;
use crate::ops::bf16_matmul::cpu::layout::{COLUMNS, pack_rows, pair_rows, round_row, turn_rows};
use crate::ops::bf16_matmul::cpu::part::Part;
use crate::ops::bf16_matmul::{STEP, row_len};
use crate::ops::cast::cpu::widen;
use crate::simd::simd_fn;
use crate::{Floats, View};

/// Queries, and keys, of a block.
const BLOCK: usize = 64;

simd_fn! {
    /// Turns a block of raw scores and of dO V^T into probabilities and the gradient of the scores. Row i sees the keys up to
    /// `ahead + i`; rows from `log_sum.len()` on are no queries and see none.
    fn weigh<S>(
        s: S, p: &mut [f32], dp: &mut [f32], ahead: usize, scale: f32, log_sum: &[f32], delta: &[f32]
    ) {
        for (i, (p, dp)) in p.chunks_exact_mut(BLOCK).zip(dp.chunks_exact_mut(BLOCK)).enumerate() {
            let visible = if i < log_sum.len() { BLOCK.min(ahead + i + 1) } else { 0 };
            let (log_sum, delta) = if visible > 0 { (log_sum[i], delta[i]) } else { (0.0, 0.0) };
            probability_gradients(s, p, dp, visible, scale, log_sum, delta);
        }
    }

    fn inner<S>(s: S, a: &[f32], b: &[f32]) -> f32 {
        dot(s, a, b)
    }
}

/// Rows of a head: row t lies at `first + t * stride` and has `width` values.
#[derive(Clone, Copy)]
struct Rows<'a> {
    values: Floats<'a>,
    first: usize,
    stride: usize,
    width: usize,
}

/// Rounded rows of a sequence, padded with zeros to whole blocks of rows and whole steps of columns, and their layouts as right
/// operands.
struct Laid {
    width: usize,
    /// `[padded, row_len(width)]`
    rows: Buffer,
    /// For sums over columns: `[padded / 16][row_len(width) / 2][16][2]`
    packed: Option<Buffer>,
    /// For sums over rows: `[width / 16][padded / 2][16][2]`
    pairs: Option<Buffer>,
}

impl Laid {
    fn new(cpu: &Cpu, from: Rows<'_>, count: usize, packed: bool, pairs: bool) -> Self {
        let Rows { values, first, stride, width } = from;
        let (isa, padded, len) = (cpu.isa(), count.next_multiple_of(BLOCK), row_len(width));
        let mut buffer = cpu.buffer::<Bf16>(padded * len);
        let rows = buffer.as_mut_slice::<Bf16>();
        for (t, to) in rows.chunks_exact_mut(len).enumerate() {
            let at = first + t * stride..first + t * stride + width;
            match values {
                _ if t >= count => to.fill(Bf16::ZERO),
                Floats::F32(values) => round_row(isa, &values.host()[at], to),
                Floats::Bf16(values) => {
                    to[..width].copy_from_slice(&values.host()[at]);
                    to[width..].fill(Bf16::ZERO);
                }
            }
        }
        let packed = packed.then(|| {
            let mut packed = cpu.buffer::<Bf16>(padded * len);
            let panels = packed.as_mut_slice::<Bf16>().chunks_exact_mut(COLUMNS * len);
            panels.zip(rows.chunks_exact(COLUMNS * len)).for_each(|(panel, rows)| pack_rows(isa, rows, len, panel));
            packed
        });
        let pairs = pairs.then(|| {
            let mut pairs = cpu.buffer::<Bf16>(width.next_multiple_of(COLUMNS) * padded);
            let parts = Parts::new(pairs.as_mut_slice::<Bf16>());
            for step in 0..padded / STEP {
                // SAFETY: nothing else writes the buffer.
                unsafe { pair_rows(isa, rows, len, padded, width, step, padded, &parts) };
            }
            pairs
        });
        Self { width, rows: buffer, packed, pairs }
    }

    /// A block of rows as the left operand.
    fn left(&self, block: usize) -> (*const Bf16, usize) {
        let len = row_len(self.width);
        (self.rows.as_slice::<Bf16>()[block * BLOCK * len..].as_ptr(), len)
    }

    /// A block of rows as the right operand of a sum over columns: pointer, distance of panels, columns, steps.
    fn by_columns(&self, block: usize) -> Right {
        let (len, packed) = (row_len(self.width), self.packed.as_ref().expect("invariant: it was asked for"));
        let pointer = packed.as_slice::<Bf16>()[block * BLOCK * len..].as_ptr();
        Right { pointer, panel: COLUMNS * len, n: BLOCK, steps: len / STEP }
    }

    /// A block of rows as the right operand of a sum over rows.
    fn by_rows(&self, block: usize) -> Right {
        let pairs = self.pairs.as_ref().expect("invariant: it was asked for").as_slice::<Bf16>();
        let padded = self.rows.as_slice::<Bf16>().len() / row_len(self.width);
        let pointer = pairs[block * BLOCK * COLUMNS..].as_ptr();
        Right { pointer, panel: COLUMNS * padded, n: self.width, steps: BLOCK / STEP }
    }
}

/// A right operand.
#[derive(Clone, Copy)]
struct Right {
    pointer: *const Bf16,
    panel: usize,
    n: usize,
    steps: usize,
}

/// Computes `c = a b` or `c += a b` for `m` rows, `c_row` values apart.
///
/// # Safety
/// The operands are valid for these sizes, and nothing else reads or writes these rows and columns of c.
unsafe fn product(
    unit: Unit,
    m: usize,
    (a, a_row): (*const Bf16, usize),
    b: Right,
    (c, c_row): (*mut f32, usize),
    accumulate: bool,
) {
    let Right { pointer, panel, n, steps } = b;
    // SAFETY: the caller's promise.
    unsafe { unit.multiply(Part { m, n, steps, a, a_row, b: pointer, panel, c, c_row, accumulate }) };
}

/// Rounds a block, and writes it turned as well.
fn round_block(isa: Isa, from: &[f32], rounded: &mut [Bf16], turned: &mut [Bf16]) {
    for (from, to) in from.chunks_exact(BLOCK).zip(rounded.chunks_exact_mut(BLOCK)) {
        round_row(isa, from, to);
    }
    let turned = Parts::new(turned);
    for (step, rows) in rounded.chunks_exact(STEP * BLOCK).enumerate() {
        // SAFETY: nothing else writes the buffer.
        unsafe { turn_rows(isa, rows, BLOCK, step, BLOCK, &turned) };
    }
}

#[allow(clippy::too_many_arguments)]
pub(super) fn backward(
    cpu: &Cpu,
    unit: Unit,
    saved: Saved<'_, Floats<'_>>,
    dout: View<'_, f32>,
    spans: &[Span],
    heads: Heads,
    scale: f32,
    gradients: Gradients<&mut [f32]>,
) {
    let Gradients { q, k, v } = gradients;
    for gradient in [&mut *q, &mut *k, &mut *v] {
        gradient.fill(0.0);
    }
    let parts = [Parts::new(q), Parts::new(k), Parts::new(v)];
    cpu.run(spans.len() * heads.key_value, |task| {
        let (span, head) = (spans[task / heads.key_value], task % heads.key_value);
        backward_head(cpu, unit, saved, dout, span, head, heads, scale, &parts);
    });
}

/// Adds the contributions of one span and key-value head to the gradients.
#[allow(clippy::too_many_arguments)]
fn backward_head(
    cpu: &Cpu,
    unit: Unit,
    saved: Saved<'_, Floats<'_>>,
    dout: View<'_, f32>,
    span: Span,
    key_value_head: usize,
    heads: Heads,
    scale: f32,
    [dq, dk, dv]: &[Parts<'_, f32>; 3],
) {
    let Heads { query, key_value, width, value_width } = heads;
    let (isa, count) = (cpu.isa(), span.rows);
    let rows = |values, heads: usize, head: usize, width: usize| Rows {
        values,
        first: (span.first_row * heads + head) * width,
        stride: heads * width,
        width,
    };
    let of_keys = rows(saved.k, key_value, key_value_head, width);
    let of_values = rows(saved.v, key_value, key_value_head, value_width);
    let keys = Laid::new(cpu, of_keys, count, true, true);
    let values = Laid::new(cpu, of_values, count, true, false);
    let mut floats = cpu.buffer::<f32>(2 * BLOCK * BLOCK + 2 * count + value_width);
    let (p, rest) = floats.as_mut_slice::<f32>().split_at_mut(BLOCK * BLOCK);
    let (dp, rest) = rest.split_at_mut(BLOCK * BLOCK);
    let (delta, rest) = rest.split_at_mut(count);
    let (log_sum, wide) = rest.split_at_mut(count);
    let mut rounded = cpu.buffer::<Bf16>(2 * BLOCK * BLOCK);
    let (rounded, turned) = rounded.as_mut_slice::<Bf16>().split_at_mut(BLOCK * BLOCK);
    let group = query / key_value;
    for head in key_value_head * group..(key_value_head + 1) * group {
        let of_queries = rows(saved.q, query, head, width);
        let of_douts = rows(Floats::F32(dout), query, head, value_width);
        let queries = Laid::new(cpu, of_queries, count, false, true);
        let douts = Laid::new(cpu, of_douts, count, false, true);
        for t in 0..count {
            let (pair, at) = ((span.first_row + t) * query + head, of_douts.first + t * of_douts.stride);
            log_sum[t] = saved.log_sum.host()[pair];
            let (dout, range) = (&dout.host()[at..at + value_width], at..at + value_width);
            delta[t] = match saved.out {
                Floats::F32(out) => inner(isa, dout, &out.host()[range]),
                Floats::Bf16(out) => {
                    widen(isa, &out.host()[range], wide);
                    inner(isa, dout, wide)
                }
            };
        }
        for key_block in 0..count.div_ceil(BLOCK) {
            let first_key = key_block * BLOCK;
            let visible = BLOCK.min(count - first_key);
            for block in key_block..count.div_ceil(BLOCK) {
                let first = block * BLOCK;
                let here = BLOCK.min(count - first);
                let seen = first..first + here;
                // SAFETY: the operands have whole blocks, the outputs the rows that the span has, which are this task's alone.
                unsafe {
                    product(
                        unit,
                        BLOCK,
                        queries.left(block),
                        keys.by_columns(key_block),
                        (p.as_mut_ptr(), BLOCK),
                        false,
                    );
                    product(
                        unit,
                        BLOCK,
                        douts.left(block),
                        values.by_columns(key_block),
                        (dp.as_mut_ptr(), BLOCK),
                        false,
                    );
                    weigh(isa, p, dp, first - first_key, scale, &log_sum[seen.clone()], &delta[seen]);
                    round_block(isa, p, rounded, turned);
                    let to = |parts: &Parts<'_, f32>, rows: Rows<'_>, t: usize| {
                        assert!(rows.first + (count - 1) * rows.stride + rows.width <= parts.len());
                        (parts.pointer(rows.first + t * rows.stride), rows.stride)
                    };
                    let left = (turned.as_ptr(), BLOCK);
                    product(unit, visible, left, douts.by_rows(block), to(dv, of_values, first_key), true);
                    round_block(isa, dp, rounded, turned);
                    let left = (turned.as_ptr(), BLOCK);
                    product(unit, visible, left, queries.by_rows(block), to(dk, of_keys, first_key), true);
                    let left = (rounded.as_ptr(), BLOCK);
                    product(unit, here, left, keys.by_rows(key_block), to(dq, of_queries, first), true);
                }
            }
        }
    }
}
