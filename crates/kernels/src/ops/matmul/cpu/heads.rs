//! Products per head with a slice of a stored matrix: what absorbed attention does with `kv_b_proj`, both ways, without
//! a copy of it.

use super::{block, pack_rows_panel, width};
use crate::device::{Cpu, Parts};
use crate::ops::matmul::{HeadSlice, Size};
use crate::tile::{Left, Output, Right};

/// Computes `y[t, h] = x[t, h] W_h`. x [m, H, count] -> y [m, H, latent]
pub(crate) fn matmul_nn(cpu: &Cpu, x: &[f32], w: &[f32], slice: HeadSlice, m: usize, y: &mut [f32]) {
    let HeadSlice { heads, count, latent, .. } = slice;
    let parts = Parts::new(y);
    cpu.run_if(x.len() * latent > 100_000, heads, |h| {
        let size = Size { m, n: latent, k: count };
        // SAFETY: heads write disjoint columns of y.
        unsafe {
            strided_nn(cpu, size, x, (h * count, heads * count), slice.rows(w, h), &parts, (h * latent, heads * latent))
        };
    });
}

/// Computes `y = x w` with w as it is stored, on the caller's thread; rows of x and y begin at `first` and lie `row` apart.
///
/// # Shapes
/// x [m, k], w [k, n] -> y [m, n]
///
/// # Safety
/// Nothing else reads or writes these columns of y meanwhile.
pub(crate) unsafe fn strided_nn(
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
    // SAFETY: the operands cover these shapes, checked above; y by the caller's promise.
    unsafe { block(cpu.isa(), size, a, b, c, false) };
}

/// Computes `y[t, h] = x[t, h] W_h^T`. x [m, H, latent] -> y [m, H, count]
pub(crate) fn matmul(cpu: &Cpu, x: &[f32], w: &[f32], slice: HeadSlice, m: usize, y: &mut [f32]) {
    let HeadSlice { heads, count, latent, .. } = slice;
    assert!(x.len() >= m * heads * latent && y.len() >= m * heads * count);
    if m == 0 {
        return;
    }
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
            // SAFETY: x, the panel and y cover these shapes, and heads write disjoint columns of y.
            unsafe { block(cpu.isa(), Size { m, n: columns, k: latent }, a, b, c, false) };
        }
    });
}
