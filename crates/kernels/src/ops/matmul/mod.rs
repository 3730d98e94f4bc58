//! How does a linear layer multiply? `y = x W^T` with W stored `[out, in]` as published, and its two gradients.
//!
//! The forward reads W in *panels*: columns of the product side by side, k outermost. A trainable weight keeps one
//! packed copy per version; the layout is invisible in the result (see `tile`).

mod cpu;
mod heads;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::Cpu;
pub(crate) use cpu::{blocked, pack_columns};
pub(crate) use heads::by_plain;
pub use heads::{HeadSlice, heads_by_plain, heads_matmul};

/// The size of one matrix product: `m` rows of x, `n` output columns, `k` terms per sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Rows of x and y.
    pub m: usize,
    /// Columns of y, rows of W.
    pub n: usize,
    /// Columns of x and W.
    pub k: usize,
}

/// Returns the floats that a packed `[n, k]` weight takes: n rounded up to whole panels.
pub fn packed_len(cpu: &Cpu, n: usize, k: usize) -> usize {
    let width = cpu::width(cpu.isa());
    n.div_ceil(width) * width * k
}

/// Packs W for `x W^T`.
///
/// # Shapes
/// w [n, k], packed [`packed_len(n, k)`]
pub fn pack(cpu: &Cpu, w: &[f32], n: usize, k: usize, packed: &mut [f32]) {
    assert_eq!((w.len(), packed.len()), (n * k, packed_len(cpu, n, k)));
    cpu::pack_rows(cpu, w, n, k, packed);
}

/// Computes `y = x W^T` from a packed W.
///
/// # Shapes
/// x [m, k], W [n, k], y [m, n]
///
/// # Numerics
/// One chain of fused multiply-adds per element, k ascending, in f32: a row's bits depend on the row and W alone.
pub fn matmul(cpu: &Cpu, x: &[f32], packed: &[f32], Size { m, n, k }: Size, y: &mut [f32]) {
    assert_eq!((x.len(), y.len(), packed.len()), (m * k, m * n, packed_len(cpu, n, k)));
    blocked(cpu, Size { m, n, k }, x, packed, y);
}

/// Computes `dx = dy W`: the gradient of the input, and the product with W itself (the other half of E13).
///
/// # Shapes
/// dy [m, n], w [n, k], dx [m, k]
///
/// # Numerics
/// One chain per element, n ascending.
pub fn matmul_by_plain(cpu: &Cpu, dy: &[f32], w: &[f32], Size { m, n, k }: Size, dx: &mut [f32]) {
    assert_eq!((dy.len(), w.len(), dx.len()), (m * n, n * k, m * k));
    let mut packed = cpu.buffer::<f32>(packed_len(cpu, k, n));
    cpu::pack_columns(cpu, w, n, k, packed.as_mut_slice());
    blocked(cpu, Size { m, n: k, k: n }, dy, packed.as_slice(), dx);
}

/// Adds `dy^T x` to `dw`: the gradient of the weight.
///
/// # Shapes
/// dy [m, n], x [m, k], dw [n, k]
///
/// # Numerics
/// One chain per element, rows (tokens) ascending, starting from what `dw` holds.
pub fn matmul_backward_weight_add(cpu: &Cpu, dy: &[f32], x: &[f32], size: Size, dw: &mut [f32]) {
    let Size { m, n, k } = size;
    assert_eq!((dy.len(), x.len(), dw.len()), (m * n, m * k, n * k));
    cpu::columns_product_add(cpu, dy, x, size, dw);
}
