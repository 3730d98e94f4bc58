//! Causal attention: a token attends to itself and all before it in its sequence, by softmax of scaled products.
//!
//! ```text
//! s_j = scale * q . k_j        for keys j <= position of the query
//! o   = sum_j softmax(s)_j v_j
//! ```
//!
//! Keys are walked in tiles of 32 that are aligned to position 0 of the sequence, with an online softmax in tile
//! order. So a query row has the same bits in a training batch, in a prefill chunk of any size and in decode. The one
//! kernel reads tiles through a list: in training it points into the batch, in serving into pages of the cache, which hold
//! f32 or bf16. A bf16 is widened when it is read; sums are f32 either way.

mod bf16;
mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::element::Element;
use crate::ops::bf16_matmul::cpu::block::Unit;
use crate::ops::cast;
use crate::{Device, Floats, Pod, View, ViewMut};

/// Keys per tile.
pub const TILE: usize = 32;

/// Heads and widths of one attention call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads, H.
    pub query: usize,
    /// Key-value heads; query head h reads key-value head `h / (query / key_value)`.
    pub key_value: usize,
    /// Width of queries and keys.
    pub width: usize,
    /// Width of values and outputs.
    pub value_width: usize,
}

/// Where an element lies in a buffer of tiles: key `j` of a tile, component `p`, head `h`, tile unit `u` is at
/// `u * unit + h * head + j * key + p * component`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// Elements per unit of the tile list.
    pub unit: usize,
    /// Elements between heads.
    pub head: usize,
    /// Elements between neighbouring keys.
    pub key: usize,
    /// Elements between neighbouring components.
    pub component: usize,
}

/// Keys and values that a call may read: views outside, slices in the arm of a device.
#[derive(Clone, Copy)]
pub struct Memory<'a, T> {
    /// Buffer of keys.
    pub keys: T,
    /// Buffer of values; their `component` stride is 1.
    pub values: T,
    /// Layout of `keys`.
    pub key_strides: Strides,
    /// Layout of `values`.
    pub value_strides: Strides,
    /// For each tile of each span its unit: a page, or the row in the batch where the tile begins.
    pub tiles: &'a [u32],
}

/// Neighbouring query rows of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First query row in the batch.
    pub first_row: usize,
    /// Number of query rows.
    pub rows: usize,
    /// Position of the first query in its sequence; keys 0..first_position + rows exist.
    pub first_position: usize,
    /// Where the tiles of the sequence begin in the tile list.
    pub first_tile: usize,
}

impl Span {
    /// The number of keys that the last row sees.
    pub fn keys(&self) -> usize {
        self.first_position + self.rows
    }
}

impl<'a, T: Pod> Memory<'a, View<'a, T>> {
    fn host(self) -> Memory<'a, &'a [T]> {
        let Self { keys, values, key_strides, value_strides, tiles } = self;
        Memory { keys: keys.host(), values: values.host(), key_strides, value_strides, tiles }
    }

    /// Panics unless every key and value that the spans name lies in the buffers.
    fn check(&self, heads: Heads, spans: &[Span]) {
        let last = |strides: Strides, unit: u32, keys: usize, width: usize| {
            unit as usize * strides.unit
                + (heads.key_value - 1) * strides.head
                + (keys - 1) * strides.key
                + (width - 1) * strides.component
        };
        // A transposed tile is read whole, so that its columns can be loaded without masks.
        let whole = self.key_strides.key == 1;
        assert_eq!(self.value_strides.component, 1);
        for span in spans.iter().filter(|span| span.rows > 0) {
            let tiles = &self.tiles[span.first_tile..][..span.keys().div_ceil(TILE)];
            for (t, &unit) in tiles.iter().enumerate() {
                let keys = TILE.min(span.keys() - t * TILE);
                let read = if whole { TILE } else { keys };
                assert!(last(self.key_strides, unit, read, heads.width) < self.keys.len());
                assert!(last(self.value_strides, unit, keys, heads.value_width) < self.values.len());
            }
        }
    }
}

/// Computes causal attention of the spans' query rows; rows outside every span are left alone.
///
/// # Shapes
/// q [T, H, width], out [T, H, value_width], log_sum [T, H] (log of the sum of exponentials, for the backward)
///
/// # Paper
/// V3 2.1.1 eqs. 10-11 (attention over given keys and values)
///
/// # Numerics
/// Sums in f32; products are chains over components, tiles are combined in order. Bits of a row depend on its sequence and
/// on the type of the memory alone.
#[allow(clippy::too_many_arguments)]
pub fn attention(
    device: &Device,
    q: View<'_, f32>,
    memory: Memory<'_, Floats<'_>>,
    spans: &[Span],
    heads: Heads,
    scale: f32,
    out: ViewMut<'_, f32>,
    log_sum: ViewMut<'_, f32>,
) {
    let Memory { key_strides, value_strides, tiles, .. } = memory;
    match (memory.keys, memory.values) {
        (Floats::F32(keys), Floats::F32(values)) => {
            let memory = Memory { keys, values, key_strides, value_strides, tiles };
            over(device, q, memory, spans, heads, scale, out, log_sum);
        }
        (Floats::Bf16(keys), Floats::Bf16(values)) => {
            let memory = Memory { keys, values, key_strides, value_strides, tiles };
            over(device, q, memory, spans, heads, scale, out, log_sum);
        }
        _ => panic!("keys and values are of one type"),
    }
}

/// Computes [`attention`] over keys and values of one type.
#[allow(clippy::too_many_arguments)]
fn over<'a, T: Element>(
    device: &Device,
    q: View<'_, f32>,
    memory: Memory<'a, View<'a, T>>,
    spans: &[Span],
    heads: Heads,
    scale: f32,
    out: ViewMut<'_, f32>,
    log_sum: ViewMut<'_, f32>,
) {
    check_rows(q.len(), spans, heads, out.len(), log_sum.len());
    // Here and not where a batch is made, because it depends on the buffers: one comparison for every 32 keys.
    memory.check(heads, spans);
    match device {
        Device::Cpu(cpu) => cpu::forward(cpu, q.host(), memory.host(), spans, heads, scale, out.host(), log_sum.host()),
        Device::Reference(_) => {
            reference::over_memory(&q.wide(), memory.host(), spans, heads, scale.into(), out.host(), log_sum.host());
        }
    }
}

/// Gradients of attention inside a batch.
pub struct Gradients<T> {
    /// dq [T, H, width]
    pub q: T,
    /// dk [T, key_value heads, width]
    pub k: T,
    /// dv [T, key_value heads, value_width]
    pub v: T,
}

/// What the backward of attention reads: all in f32, or all but the log of the sums in bf16.
#[derive(Clone, Copy)]
pub struct Saved<'a, T> {
    /// q [T, H, width]
    pub q: T,
    /// k [T, key_value heads, width]
    pub k: T,
    /// v [T, key_value heads, value_width]
    pub v: T,
    /// out [T, H, value_width]
    pub out: T,
    /// log_sum [T, H]
    pub log_sum: View<'a, f32>,
}

impl<'a, T> Saved<'a, T> {
    fn map<U>(self, f: impl Fn(T) -> U) -> Saved<'a, U> {
        Saved { q: f(self.q), k: f(self.k), v: f(self.v), out: f(self.out), log_sum: self.log_sum }
    }
}

/// The layout of `[T, heads, width]` rows of a batch, whose tile list holds row numbers.
pub fn batch_strides(heads: usize, width: usize) -> Strides {
    Strides { unit: heads * width, head: width, key: heads * width, component: 1 }
}

/// Computes the gradients of [`attention`] over keys of the batch itself (every span starts at position 0). All rows of
/// the gradients are written; rows outside the spans get zeros.
///
/// # Numerics
/// Probabilities are recomputed from `log_sum`. Key and value gradients add queries in ascending order per head,
/// heads in ascending order. If what is saved is bf16, a path that has instructions for it rounds the other operands of the five
/// products too; sums and exponentials are f32.
pub fn attention_backward(
    device: &Device,
    saved: Saved<'_, Floats<'_>>,
    dout: View<'_, f32>,
    spans: &[Span],
    heads: Heads,
    scale: f32,
    gradients: Gradients<ViewMut<'_, f32>>,
) {
    check_rows(saved.q.len(), spans, heads, dout.len(), saved.log_sum.len());
    let rows = saved.q.len() / (heads.query * heads.width);
    let keys = rows * heads.key_value;
    assert_eq!((saved.k.len(), gradients.k.len()), (keys * heads.width, keys * heads.width));
    assert_eq!((saved.v.len(), gradients.v.len()), (keys * heads.value_width, keys * heads.value_width));
    assert_eq!((saved.out.len(), gradients.q.len()), (dout.len(), saved.q.len()));
    assert!(spans.iter().all(|span| span.first_position == 0));
    let Gradients { q, k, v } = gradients;
    match device {
        Device::Cpu(cpu) => {
            let gradients = Gradients { q: q.host(), k: k.host(), v: v.host() };
            match Unit::of(cpu.isa()).filter(|_| matches!(saved.q, Floats::Bf16(_))) {
                Some(unit) => bf16::backward(cpu, unit, saved, dout, spans, heads, scale, gradients),
                None => {
                    let wide = saved.map(|x| cast::cpu::Wide::new(cpu, x));
                    let saved = Saved { q: &wide.q, k: &wide.k, v: &wide.v, out: &wide.out, log_sum: saved.log_sum };
                    cpu::backward(cpu, saved.map(|x| x.values()), dout.host(), spans, heads, scale, gradients);
                }
            }
        }
        Device::Reference(_) => {
            let saved = [saved.q.wide(), saved.k.wide(), saved.v.wide()];
            let [dq, dk, dv] = reference::over_batch_backward(&saved, &dout.wide(), spans, heads, scale.into());
            q.set(&dq);
            k.set(&dk);
            v.set(&dv);
        }
    }
}

fn check_rows(q: usize, spans: &[Span], heads: Heads, out: usize, log_sum: usize) {
    let Heads { query, key_value, width, value_width } = heads;
    assert!(key_value > 0 && query % key_value == 0 && width > 0 && value_width > 0);
    let rows = q / (query * width);
    assert_eq!((q, out, log_sum), (rows * query * width, rows * query * value_width, rows * query));
    // Spans are disjoint and in order, so tasks write disjoint rows.
    let mut end = 0;
    for span in spans {
        assert!(span.first_row >= end);
        end = span.first_row + span.rows;
    }
    assert!(end <= rows);
}
