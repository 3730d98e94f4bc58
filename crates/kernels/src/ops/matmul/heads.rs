//! Products per head with a slice of a stored matrix: what absorbed attention does with `kv_b_proj`, both ways, without
//! a copy of it.

use super::Size;
use super::cpu::{block, pack_rows_panel, width};
use crate::device::{Cpu, Parts};
use crate::tile::{Left, Output, Right};

/// A slice of each head's rows of `w [heads * per_head, latent]`.
#[derive(Clone, Copy, Debug)]
pub struct HeadSlice {
    /// Number of heads, H.
    pub heads: usize,
    /// Rows of w per head.
    pub per_head: usize,
    /// First row of the slice within a head.
    pub first: usize,
    /// Rows of the slice.
    pub count: usize,
    /// Columns of w.
    pub latent: usize,
}

impl HeadSlice {
    fn rows<'a>(&self, w: &'a [f32], head: usize) -> &'a [f32] {
        &w[(head * self.per_head + self.first) * self.latent..][..self.count * self.latent]
    }

    /// Returns the number of tokens of x [T, H, from] and y [T, H, to].
    pub(crate) fn tokens(&self, x: &[f32], y: &[f32], (from, to): (usize, usize)) -> usize {
        assert!(self.first + self.count <= self.per_head);
        let tokens = x.len() / (self.heads * from).max(1);
        assert_eq!((x.len(), y.len()), (tokens * self.heads * from, tokens * self.heads * to));
        tokens
    }
}

/// Computes `y[t, h] = x[t, h] W_h`: queries into the latent space.
///
/// # Shapes
/// x [T, H, count], W_h [count, latent] -> y [T, H, latent]
///
/// # Paper
/// V3 2.1.1 eq. 9 (absorbed into the query)
pub fn heads_by_plain(cpu: &Cpu, x: &[f32], w: &[f32], slice: HeadSlice, y: &mut [f32]) {
    let HeadSlice { heads, count, latent, .. } = slice;
    let m = slice.tokens(x, y, (count, latent));
    let parts = Parts::new(y);
    cpu.run_if(x.len() * latent > 100_000, heads, |h| {
        let size = Size { m, n: latent, k: count };
        by_plain(cpu, size, x, (h * count, heads * count), slice.rows(w, h), &parts, (h * latent, heads * latent));
    });
}

/// Computes `y = x w` with w as it is stored, on the caller's thread; rows of x and y begin at `first` and lie `row` apart.
///
/// # Shapes
/// x [m, k], w [k, n] -> y [m, n]
pub(crate) fn by_plain(
    cpu: &Cpu,
    size: Size,
    x: &[f32],
    (x_first, x_row): (usize, usize),
    w: &[f32],
    y: &Parts<'_, f32>,
    (y_first, y_row): (usize, usize),
) {
    let Size { m, n, k } = size;
    if m == 0 {
        return;
    }
    assert!(x_first + (m - 1) * x_row + k <= x.len() && w.len() == k * n);
    assert!(y_first + (m - 1) * y_row + n <= y.len() && n <= y_row);
    let a = Left { pointer: x[x_first..].as_ptr(), row: x_row, column: 1 };
    let b = Right { pointer: w.as_ptr(), row: n, panel: width(cpu.isa()) };
    let c = Output { pointer: y.pointer(y_first), row: y_row };
    block(cpu.isa(), size, a, b, c, false);
}

/// Computes `y[t, h] = x[t, h] W_h^T`: weighted latents into values.
///
/// # Shapes
/// x [T, H, latent], W_h [count, latent] -> y [T, H, count]
///
/// # Paper
/// V3 2.1.1 eq. 10 (absorbed into the output)
pub fn heads_matmul(cpu: &Cpu, x: &[f32], w: &[f32], slice: HeadSlice, y: &mut [f32]) {
    let HeadSlice { heads, count, latent, .. } = slice;
    let m = slice.tokens(x, y, (latent, count));
    let parts = Parts::new(y);
    let width = width(cpu.isa());
    cpu.run_if(x.len() * count > 100_000, heads, |h| {
        let rows = slice.rows(w, h);
        let mut packed = cpu.buffer::<f32>(width * latent);
        for j in (0..count).step_by(width) {
            let columns = width.min(count - j);
            pack_rows_panel(cpu.isa(), rows, latent, j, columns, packed.as_mut_slice());
            let a = Left { pointer: x.as_ptr(), row: heads * latent, column: 1 }.at(0, h * latent);
            let b = Right { pointer: packed.as_slice::<f32>().as_ptr(), row: width, panel: width * latent };
            let c = Output { pointer: parts.pointer(h * count + j), row: heads * count };
            block(cpu.isa(), Size { m, n: columns, k: latent }, a, b, c, false);
        }
    });
}
