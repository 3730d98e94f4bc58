//! The product of a linear layer, `y = x W^T` with W stored `[out, in]` as published, and its two gradients.
//!
//! The forward reads W *packed*: panels of columns of the product side by side, k outermost. A trainable weight keeps one
//! packed copy per version; the layout is the device's own and invisible in the result (see `tile`).

pub(crate) mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::{Device, View, ViewMut};

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
    /// A head's rows of the slice.
    pub(crate) fn rows<'a, T>(&self, w: &'a [T], head: usize) -> &'a [T] {
        &w[(head * self.per_head + self.first) * self.latent..][..self.count * self.latent]
    }

    /// The number of tokens of x [T, H, from] and y [T, H, to], by their lengths.
    pub(crate) fn tokens(&self, x: usize, y: usize, (from, to): (usize, usize)) -> usize {
        assert!(self.first + self.count <= self.per_head);
        let tokens = x / (self.heads * from).max(1);
        assert_eq!((x, y), (tokens * self.heads * from, tokens * self.heads * to));
        tokens
    }
}

/// The floats that a packed `[n, k]` weight takes.
pub fn packed_len(device: &Device, n: usize, k: usize) -> usize {
    match device {
        Device::Cpu(cpu) => cpu::packed_len(cpu, n, k),
        Device::Reference(_) => n * k,
    }
}

/// Packs W for `x W^T`.
///
/// # Shapes
/// w [n, k], packed [`packed_len(n, k)`]
pub fn pack(device: &Device, w: View<'_, f32>, n: usize, k: usize, packed: ViewMut<'_, f32>) {
    assert_eq!((w.len(), packed.len()), (n * k, packed_len(device, n, k)));
    match device {
        Device::Cpu(cpu) => cpu::pack(cpu, w.host(), n, k, packed.host()),
        Device::Reference(_) => packed.host().copy_from_slice(w.host()),
    }
}

/// Computes `y = x W^T` from a packed W.
///
/// # Shapes
/// x [m, k], W [n, k], y [m, n]
///
/// # Numerics
/// One chain of fused multiply-adds per element, k ascending, in f32: a row's bits depend on the row and W alone.
pub fn matmul(device: &Device, x: View<'_, f32>, packed: View<'_, f32>, size: Size, y: ViewMut<'_, f32>) {
    let Size { m, n, k } = size;
    assert_eq!((x.len(), y.len(), packed.len()), (m * k, m * n, packed_len(device, n, k)));
    match device {
        Device::Cpu(cpu) => cpu::blocked(cpu, size, x.host(), packed.host(), y.host()),
        Device::Reference(_) => y.set(&reference::matmul(&x.wide(), &packed.wide(), size)),
    }
}

/// Computes `dx = dy W`, with neither operand transposed: the gradient of the input, and the other half of E13.
///
/// # Shapes
/// dy [m, n], w [n, k], dx [m, k]
///
/// # Numerics
/// One chain per element, n ascending.
pub fn matmul_nn(device: &Device, dy: View<'_, f32>, w: View<'_, f32>, size: Size, dx: ViewMut<'_, f32>) {
    let Size { m, n, k } = size;
    assert_eq!((dy.len(), w.len(), dx.len()), (m * n, n * k, m * k));
    match device {
        Device::Cpu(cpu) => cpu::matmul_nn(cpu, dy.host(), w.host(), size, dx.host()),
        Device::Reference(_) => dx.set(&reference::matmul_nn(&dy.wide(), &w.wide(), size)),
    }
}

/// Adds `dy^T x` to `dw`: the gradient of the weight.
///
/// # Shapes
/// dy [m, n], x [m, k], dw [n, k]
///
/// # Numerics
/// One chain per element, rows (tokens) ascending, starting from what `dw` holds.
pub fn matmul_backward_weight_add(
    device: &Device,
    dy: View<'_, f32>,
    x: View<'_, f32>,
    size: Size,
    dw: ViewMut<'_, f32>,
) {
    let Size { m, n, k } = size;
    assert_eq!((dy.len(), x.len(), dw.len()), (m * n, m * k, n * k));
    match device {
        Device::Cpu(cpu) => cpu::backward_weight_add(cpu, dy.host(), x.host(), size, dw.host()),
        Device::Reference(_) => dw.add(&reference::matmul_backward_weight(&dy.wide(), &x.wide(), size)),
    }
}

/// Computes `y[t, h] = x[t, h] W_h`: queries into the latent space.
///
/// # Shapes
/// x [T, H, count], W_h [count, latent] -> y [T, H, latent]
///
/// # Paper
/// V3 2.1.1 eq. 9 (absorbed into the query)
pub fn heads_matmul_nn(device: &Device, x: View<'_, f32>, w: View<'_, f32>, slice: HeadSlice, y: ViewMut<'_, f32>) {
    let tokens = slice.tokens(x.len(), y.len(), (slice.count, slice.latent));
    assert_eq!(w.len(), slice.heads * slice.per_head * slice.latent);
    match device {
        Device::Cpu(cpu) => cpu::heads::matmul_nn(cpu, x.host(), w.host(), slice, tokens, y.host()),
        Device::Reference(_) => y.set(&reference::heads_matmul_nn(&x.wide(), &w.wide(), slice, tokens)),
    }
}

/// Computes `y[t, h] = x[t, h] W_h^T`: weighted latents into values.
///
/// # Shapes
/// x [T, H, latent], W_h [count, latent] -> y [T, H, count]
///
/// # Paper
/// V3 2.1.1 eq. 10 (absorbed into the output)
pub fn heads_matmul(device: &Device, x: View<'_, f32>, w: View<'_, f32>, slice: HeadSlice, y: ViewMut<'_, f32>) {
    let tokens = slice.tokens(x.len(), y.len(), (slice.latent, slice.count));
    assert_eq!(w.len(), slice.heads * slice.per_head * slice.latent);
    match device {
        Device::Cpu(cpu) => cpu::heads::matmul(cpu, x.host(), w.host(), slice, tokens, y.host()),
        Device::Reference(_) => y.set(&reference::heads_matmul(&x.wide(), &w.wide(), slice, tokens)),
    }
}
