//! The tuned product: packed panels, blocks that fit the caches, tasks over blocks of the output.

use super::Size;
use crate::device::{Cpu, Parts};
use crate::isa::Isa;
use crate::simd::simd_fn;
use crate::tile::{Left, Output, Right, panel_width, product};

/// Terms of a sum per pass: a panel of them stays in the first-level cache. Sums continue through memory, unchanged.
const DEPTH: usize = 256;
/// Rows per block of the output.
const ROWS: usize = 96;
/// Multiply-adds below which a second thread costs more than it brings.
const SERIAL: usize = 150_000;

/// A strided operand that borrows what it points to.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    row: usize,
    column: usize,
}

impl<'a> View<'a> {
    /// A row-major matrix with k columns as left operand.
    pub(crate) fn rows(data: &'a [f32], k: usize) -> Self {
        Self { data, row: k, column: 1 }
    }

    /// The transpose of a row-major matrix with n columns as left operand.
    pub(crate) fn columns(data: &'a [f32], n: usize) -> Self {
        Self { data, row: 1, column: n }
    }

    /// Packed panels of depth k as right operand (`row` is the stride between terms, `column` between panels).
    pub(crate) fn panels(data: &'a [f32], cpu: &Cpu, k: usize) -> Self {
        let width = width(cpu.isa());
        Self { data, row: width, column: width * k }
    }
}

simd_fn! {
    /// Returns the columns of a panel on this path.
    pub(crate) fn width<S>(_s: S) -> usize {
        panel_width::<S>()
    }

    /// Computes one block of the output, `[m, n]`, over all of k.
    pub(super) fn block<S>(s: S, size: Size, a: Left, b: Right, c: Output, accumulate: bool) {
        let Size { m, n, k } = size;
        let mut p = 0;
        loop {
            let depth = (k - p).min(DEPTH);
            // SAFETY: `blocked` checked that the operands cover the block, and blocks do not overlap.
            unsafe { product(s, (m, n, depth), a.at(0, p), b.at(p, 0), c, accumulate || p > 0) };
            p += depth;
            if p >= k {
                return;
            }
        }
    }

    /// Writes panel `panel` of `w [n, k]`: `[k, width]`, element (p, j) = w[panel * width + j, p].
    pub(super) fn pack_rows_panel<S>(_s: S, w: &[f32], k: usize, first: usize, rows: usize, out: &mut [f32]) {
        let width = panel_width::<S>();
        if rows < width {
            out.fill(0.0);
        }
        for j in 0..rows {
            let row = &w[(first + j) * k..][..k];
            for (p, &x) in row.iter().enumerate() {
                out[p * width + j] = x;
            }
        }
    }

    /// Writes a panel of columns of `w [n, k]`: `[n, width]`, element (p, j) = w[p, first + j].
    fn pack_columns_panel<S>(_s: S, w: &[f32], k: usize, first: usize, columns: usize, out: &mut [f32]) {
        let width = panel_width::<S>();
        for (row, to) in w.chunks_exact(k).zip(out.chunks_exact_mut(width)) {
            to[..columns].copy_from_slice(&row[first..first + columns]);
            to[columns..].fill(0.0);
        }
    }
}

/// Packs the rows of w [n, k] into panels of depth k.
pub(super) fn pack_rows(cpu: &Cpu, w: &[f32], n: usize, k: usize, out: &mut [f32]) {
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

fn pack_panels(cpu: &Cpu, n: usize, depth: usize, out: &mut [f32], pack: impl Fn(Isa, usize, &mut [f32]) + Sync) {
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

/// Computes `c = a b` or `c += a b` with the output split into blocks, one task each.
///
/// # Shapes
/// a [m, k], b in panels [k, n], c [m, n] with `c_row` floats between rows
pub(crate) fn blocked(cpu: &Cpu, size: Size, a: View<'_>, b: View<'_>, c: &mut [f32], c_row: usize, accumulate: bool) {
    let Size { m, n, k } = size;
    if m == 0 || n == 0 {
        return;
    }
    let width = width(cpu.isa());
    let panels = n.div_ceil(width);
    assert!(k == 0 || a.data.len() > (m - 1) * a.row + (k - 1) * a.column);
    assert!(b.data.len() >= panels * k * width && c_row >= n && c.len() >= (m - 1) * c_row + n);
    let parts = Parts::new(c);
    let row_blocks = m.div_ceil(ROWS);
    let column_blocks = if m * n * k < SERIAL { 1 } else { (4 * cpu.threads()).div_ceil(row_blocks).min(panels) };
    let group = panels.div_ceil(column_blocks);
    let column_blocks = panels.div_ceil(group);
    cpu.run_if(m * n * k >= SERIAL, row_blocks * column_blocks, |task| {
        let (i, panel) = (task / column_blocks * ROWS, task % column_blocks * group);
        let j = panel * width;
        let size = Size { m: ROWS.min(m - i), n: (group * width).min(n - j), k };
        let left = Left { pointer: a.data.as_ptr(), row: a.row, column: a.column }.at(i, 0);
        let right = Right { pointer: b.data.as_ptr(), row: b.row, panel: b.column }.at(0, panel);
        let output = Output { pointer: parts.pointer(i * c_row + j), row: c_row };
        block(cpu.isa(), size, left, right, output, accumulate);
    });
}
