//! The tuned product: packed panels, blocks that fit the caches, tasks over blocks of the output.

pub(crate) mod heads;

use super::Size;
use crate::device::{Cpu, Parts};
use crate::element::Element;
use crate::isa::Isa;
use crate::simd::simd_fn;
use crate::tile::{Left, Output, Right, panel_width, product};

/// Terms of a sum per pass: a panel of them stays in the first-level cache. Sums continue through memory, unchanged.
const DEPTH: usize = 256;
/// Rows per block of the output.
const ROWS: usize = 96;
/// Multiply-adds below which a second thread costs more than it brings.
const SERIAL: usize = 150_000;

simd_fn! {
    /// The columns of a panel on this path.
    fn width<S>(_s: S) -> usize {
        panel_width::<S>()
    }

    /// Computes one block of the output, `[m, n]`, over all of k.
    ///
    /// # Safety
    /// The operands are valid for these shapes, and the block of the output is this call's alone.
    unsafe fn block<S, T: Element>(s: S, size: Size, a: Left, b: Right<T>, c: Output, accumulate: bool) {
        let Size { m, n, k } = size;
        let mut p = 0;
        loop {
            let depth = (k - p).min(DEPTH);
            // SAFETY: the caller's promise, for a part of the terms.
            unsafe { product(s, (m, n, depth), a.at(0, p), b.at(p, 0), c, accumulate || p > 0) };
            p += depth;
            if p >= k {
                return;
            }
        }
    }

    /// Writes panel `panel` of `w [n, k]`: `[k, width]`, element (p, j) = w[panel * width + j, p].
    fn pack_rows_panel<S, T: Element>(_s: S, w: &[T], k: usize, first: usize, rows: usize, out: &mut [T]) {
        let width = panel_width::<S>();
        if rows < width {
            out.fill(T::from_f32(0.0));
        }
        for j in 0..rows {
            let row = &w[(first + j) * k..][..k];
            for (p, &x) in row.iter().enumerate() {
                out[p * width + j] = x;
            }
        }
    }

    /// Writes a panel of columns of `w [n, k]`: `[n, width]`, element (p, j) = w[p, first + j].
    fn pack_columns_panel<S>(s: S, w: &[f32], k: usize, first: usize, columns: usize, out: &mut [f32]) {
        let (width, lanes) = (panel_width::<S>(), S::LANES);
        for (row, to) in w.chunks_exact(k).zip(out.chunks_exact_mut(width)) {
            let row = &row[first..first + columns];
            let (low, high) = to.split_at_mut(lanes);
            if columns == width {
                s.store(s.load(row), low);
                s.store(s.load(&row[lanes..]), high);
            } else {
                let first = columns.min(lanes);
                s.store(s.load_partial(&row[..first]), low);
                s.store(s.load_partial(&row[first..]), high);
            }
        }
    }
}

/// The floats that a packed `[n, k]` weight takes: n rounded up to whole panels.
pub(crate) fn packed_len(cpu: &Cpu, n: usize, k: usize) -> usize {
    let width = width(cpu.isa());
    n.div_ceil(width) * width * k
}

/// Packs the rows of w [n, k] into panels of depth k.
pub(crate) fn pack<T: Element>(cpu: &Cpu, w: &[T], n: usize, k: usize, out: &mut [T]) {
    let width = width(cpu.isa());
    pack_panels(cpu, n, k, out, |isa, panel, to| {
        pack_rows_panel(isa, w, k, panel * width, width.min(n - panel * width), to);
    });
}

/// Packs the columns of w [n, k] into panels of depth n.
pub(crate) fn pack_columns(cpu: &Cpu, w: &[f32], n: usize, k: usize, out: &mut [f32]) {
    let width = width(cpu.isa());
    pack_panels(cpu, k, n, out, |isa, panel, to| {
        pack_columns_panel(isa, w, k, panel * width, width.min(k - panel * width), to);
    });
}

fn pack_panels<T: Element>(
    cpu: &Cpu,
    n: usize,
    depth: usize,
    out: &mut [T],
    pack: impl Fn(Isa, usize, &mut [T]) + Sync,
) {
    if n == 0 || depth == 0 {
        return;
    }
    let width = width(cpu.isa());
    let len = width * depth;
    let panels = n.div_ceil(width);
    let parts = Parts::new(out);
    let group = (8192 / len).max(1);
    cpu.run(panels.div_ceil(group), |task| {
        for panel in task * group..((task + 1) * group).min(panels) {
            // SAFETY: each panel is written by one task.
            pack(cpu.isa(), panel, unsafe { parts.part(panel * len, len) });
        }
    });
}

/// The rows and panels of a block such that about `tasks` blocks or more cover the output: panels are parted
/// first, so that each is read by as many rows as possible, then rows, down to two register tiles.
fn split(m: usize, panels: usize, tasks: usize) -> (usize, usize) {
    let group = panels.div_ceil(tasks.div_ceil(m.div_ceil(ROWS)).min(panels));
    let row_blocks = tasks.div_ceil(panels.div_ceil(group));
    (m.div_ceil(row_blocks).next_multiple_of(24).min(ROWS), group)
}

/// Computes `c = a b` with the output split into blocks, one task each.
///
/// # Shapes
/// a [m, k], b [k, n] in panels, c [m, n]
pub(crate) fn blocked<T: Element>(cpu: &Cpu, size: Size, a: &[f32], b: &[T], c: &mut [f32]) {
    let Size { m, n, k } = size;
    if m == 0 || n == 0 {
        return;
    }
    let width = width(cpu.isa());
    let panels = n.div_ceil(width);
    assert!(a.len() >= m * k && b.len() >= panels * k * width && c.len() >= m * n);
    let parts = Parts::new(c);
    let worth_it = m * n * k >= SERIAL && cpu.threads() > 1;
    let (rows, group) = if worth_it { split(m, panels, 4 * cpu.threads()) } else { (ROWS, panels) };
    let column_blocks = panels.div_ceil(group);
    cpu.run_if(worth_it, m.div_ceil(rows) * column_blocks, |task| {
        let (i, panel) = (task / column_blocks * rows, task % column_blocks * group);
        let j = panel * width;
        let size = Size { m: rows.min(m - i), n: (group * width).min(n - j), k };
        let left = Left { pointer: a.as_ptr(), row: k, column: 1 }.at(i, 0);
        let right = Right { pointer: b.as_ptr(), row: width, panel: width * k }.at(0, panel);
        let output = Output { pointer: parts.pointer(i * n + j), row: n };
        // SAFETY: the operands cover the block, checked above, and blocks do not overlap.
        unsafe { block(cpu.isa(), size, left, right, output, false) };
    });
}

/// Computes `dx = dy w`. dy [m, n], w [n, k], dx [m, k]
pub(crate) fn matmul_nn(cpu: &Cpu, dy: &[f32], w: &[f32], Size { m, n, k }: Size, dx: &mut [f32]) {
    let mut packed = cpu.buffer::<f32>(packed_len(cpu, k, n));
    pack_columns(cpu, w, n, k, packed.as_mut_slice());
    blocked::<f32>(cpu, Size { m, n: k, k: n }, dy, packed.as_slice(), dx);
}

/// Adds `dy^T x` to dw. Each task has a block of dw and goes through the rows once, [`DEPTH`] at a time, which it packs
/// where they stay in its cache.
///
/// # Shapes
/// dy [m, n], x [m, k], dw [n, k]
pub(crate) fn backward_weight_add(cpu: &Cpu, dy: &[f32], x: &[f32], size: Size, dw: &mut [f32]) {
    add_product(cpu, Strided { values: dy, first: 0, row: 1, column: size.n }, x, size, dw);
}

/// Adds `dy w` to dx for a band of rows of a matrix: `w [band, k]` is multiplied with as many columns of dy from `first` on.
///
/// # Shapes
/// dy [m, n], w [band, k], dx [m, k]
pub(crate) fn matmul_nn_add(cpu: &Cpu, dy: &[f32], (first, n): (usize, usize), w: &[f32], k: usize, dx: &mut [f32]) {
    let (m, band) = (dy.len() / n, w.len() / k);
    assert!(first + band <= n);
    add_product(cpu, Strided { values: dy, first, row: n, column: 1 }, w, Size { m: band, n: m, k }, dx);
}

/// A matrix of which element (i, p) is `values[first + i * row + p * column]`.
#[derive(Clone, Copy)]
struct Strided<'a> {
    values: &'a [f32],
    first: usize,
    row: usize,
    column: usize,
}

/// Adds `left x` to the output. left [n, m], x [m, k], output [n, k]
fn add_product(cpu: &Cpu, left: Strided<'_>, x: &[f32], size: Size, dw: &mut [f32]) {
    let Size { m, n, k } = size;
    if m * n * k == 0 {
        return;
    }
    let last = left.first + (n - 1) * left.row + (m - 1) * left.column;
    assert!(last < left.values.len() && x.len() >= m * k && dw.len() >= n * k);
    let width = width(cpu.isa());
    let panels = k.div_ceil(width);
    let worth_it = m * n * k >= SERIAL && cpu.threads() > 1;
    let (rows, group) = if worth_it { split(n, panels, 2 * cpu.threads()) } else { (n, panels) };
    let column_blocks = panels.div_ceil(group);
    let parts = Parts::new(dw);
    cpu.run_if(worth_it, n.div_ceil(rows) * column_blocks, |task| {
        let (i, j) = (task / column_blocks * rows, task % column_blocks * group * width);
        let (rows, columns) = (rows.min(n - i), (group * width).min(k - j));
        let mut packed = cpu.buffer::<f32>(group * width * DEPTH.min(m));
        let packed = packed.as_mut_slice();
        for p in (0..m).step_by(DEPTH) {
            let depth = DEPTH.min(m - p);
            for (panel, to) in packed.chunks_exact_mut(width * depth).take(columns.div_ceil(width)).enumerate() {
                let first = j + panel * width;
                pack_columns_panel(cpu.isa(), &x[p * k..][..depth * k], k, first, width.min(k - first), to);
            }
            let Strided { values, first, row, column } = left;
            let left = Left { pointer: values[first..].as_ptr(), row, column }.at(i, p);
            let right = Right { pointer: packed.as_ptr(), row: width, panel: width * depth };
            let output = Output { pointer: parts.pointer(i * k + j), row: k };
            // SAFETY: the left matrix, the panels and the output cover the block, and blocks do not overlap.
            unsafe { block(cpu.isa(), Size { m: rows, n: columns, k: depth }, left, right, output, true) };
        }
    });
}
