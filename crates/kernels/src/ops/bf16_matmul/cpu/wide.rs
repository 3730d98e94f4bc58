//! Paths without instructions for bf16: operands are rounded, widened, and multiplied as f32 are, so that a result has the
//! bits of the f32 product of the rounded operands.

use super::layout::round_row;
use super::{CHUNK, row_len};
use crate::device::{Buffer, Cpu};
use crate::format::bf16::Bf16;
use crate::ops::cast::cpu::widen;
use crate::ops::matmul::{Size, cpu as matmul};
use crate::ops::split::by_rows;

/// Rounded rows as f32, without their padding.
fn widen_rows(cpu: &Cpu, x: &[Bf16], m: usize, k: usize, to: &mut [f32]) {
    by_rows(cpu, m, k, [(to, k)], |rows, [to]| {
        for (row, to) in rows.zip(to.chunks_exact_mut(k.max(1))) {
            widen(cpu.isa(), &x[row * row_len(k)..][..k], to);
        }
    });
}

pub(super) fn matmul(cpu: &Cpu, x: &[Bf16], packed: &[Bf16], Size { m, n, k }: Size, y: &mut [f32]) {
    let mut buffer = cpu.buffer::<f32>(CHUNK.min(m) * k);
    for start in (0..m).step_by(CHUNK) {
        let rows = CHUNK.min(m - start);
        let wide = &mut buffer.as_mut_slice()[..rows * k];
        widen_rows(cpu, &x[start * row_len(k)..], rows, k, wide);
        matmul::blocked(cpu, Size { m: rows, n, k }, wide, packed, &mut y[start * n..][..rows * n]);
    }
}

/// W [n, k] as the right operand of dy W.
pub(super) fn columns(cpu: &Cpu, w: &[Bf16], n: usize, k: usize) -> Buffer {
    let mut wide = cpu.buffer::<f32>(n * k);
    by_rows(cpu, n, k, [(wide.as_mut_slice(), k)], |rows, [to]| widen(cpu.isa(), &w[rows.start * k..rows.end * k], to));
    let mut packed = cpu.buffer::<f32>(matmul::packed_len(cpu, k, n));
    matmul::pack_columns(cpu, wide.as_slice(), n, k, packed.as_mut_slice());
    packed
}

/// Sets (`first` = 0) or adds to dx what rows `first..` of W bring, of rounded rows of `n` values. band [rows, k]
pub(super) fn matmul_nn_add(
    cpu: &Cpu,
    dy: &[Bf16],
    (first, n): (usize, usize),
    band: &[Bf16],
    k: usize,
    dx: &mut [f32],
) {
    let (m, rows) = (dx.len() / k, band.len() / k);
    if first == 0 {
        dx.fill(0.0);
    }
    let mut buffer = cpu.buffer::<f32>(m * rows + band.len());
    let (left, right) = buffer.as_mut_slice::<f32>().split_at_mut(m * rows);
    by_rows(cpu, m, rows, [(&mut *left, rows)], |range, [to]| {
        for (row, to) in range.zip(to.chunks_exact_mut(rows)) {
            widen(cpu.isa(), &dy[row * row_len(n) + first..][..rows], to);
        }
    });
    by_rows(cpu, rows, k, [(&mut *right, k)], |range, [to]| {
        widen(cpu.isa(), &band[range.start * k..range.end * k], to)
    });
    matmul::matmul_nn_add(cpu, left, (0, rows), right, k, dx);
}

/// Both gradients of a chunk of rows; dx comes with the columns of W.
pub(super) fn backward(
    cpu: &Cpu,
    dy: &[f32],
    x: &[Bf16],
    size: Size,
    dx: Option<(&mut [f32], &[f32])>,
    dw: &mut [f32],
) {
    let Size { m, n, k } = size;
    let mut buffer = cpu.buffer::<f32>(m * (n + k));
    let (rounded, wide) = buffer.as_mut_slice::<f32>().split_at_mut(m * n);
    by_rows(cpu, m, n, [(&mut *rounded, n)], |rows, [to]| {
        let mut row = cpu.buffer::<Bf16>(row_len(n));
        for (from, to) in dy[rows.start * n..rows.end * n].chunks_exact(n).zip(to.chunks_exact_mut(n)) {
            round_row(cpu.isa(), from, row.as_mut_slice());
            widen(cpu.isa(), &row.as_slice()[..n], to);
        }
    });
    widen_rows(cpu, x, m, k, wide);
    if let Some((dx, columns)) = dx {
        matmul::blocked(cpu, Size { m, n: k, k: n }, rounded, columns, dx);
    }
    matmul::backward_weight_add(cpu, rounded, wide, size, dw);
}
