//! Products of experts, each with its own rows: `y[s] = x[s] W_e^T` for the rows s that expert e was given.
//!
//! Rows come sorted by expert; `offsets [E + 1]` holds the first row of each expert. A row's bits depend on the row and
//! its expert's weight alone.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use super::matmul::{self, Size};
use crate::{Device, View, ViewMut};

/// Packs stacked expert weights for [`grouped_matmul`], one after the other.
///
/// # Shapes
/// w [E, n, k], packed [E, `packed_len(n, k)`]
pub fn pack(device: &Device, w: View<'_, f32>, experts: usize, n: usize, k: usize, packed: ViewMut<'_, f32>) {
    assert_eq!((w.len(), packed.len()), (experts * n * k, experts * matmul::packed_len(device, n, k)));
    match device {
        Device::Cpu(cpu) => cpu::pack(cpu, w.host(), experts, n, k, packed.host()),
        Device::Reference(_) => packed.host().copy_from_slice(w.host()),
    }
}

/// Computes `y = x W_e^T` by expert.
///
/// # Shapes
/// x [m, k] sorted by expert, W [E, n, k] packed, offsets [E + 1], y [m, n]
///
/// # Paper
/// V3 2.1.2 eq. 12 (routed experts)
pub fn grouped_matmul(
    device: &Device,
    x: View<'_, f32>,
    packed: View<'_, f32>,
    offsets: View<'_, u32>,
    size: Size,
    y: ViewMut<'_, f32>,
) {
    let (Size { m, n, k }, experts) = (size, offsets.len() - 1);
    assert_eq!((x.len(), y.len(), packed.len()), (m * k, m * n, experts * matmul::packed_len(device, n, k)));
    match device {
        Device::Cpu(cpu) => cpu::multiply(cpu, x.host(), packed.host(), offsets.host(), size, y.host()),
        Device::Reference(_) => y.set(&reference::grouped_matmul(&x.wide(), &packed.wide(), offsets.host(), size)),
    }
}

/// Computes `dx = dy W_e` by expert.
///
/// # Shapes
/// dy [m, n], w [E, n, k] stacked, dx [m, k]
pub fn grouped_matmul_nn(
    device: &Device,
    dy: View<'_, f32>,
    w: View<'_, f32>,
    offsets: View<'_, u32>,
    size: Size,
    dx: ViewMut<'_, f32>,
) {
    let (Size { m, n, k }, experts) = (size, offsets.len() - 1);
    assert_eq!((dy.len(), w.len(), dx.len()), (m * n, experts * n * k, m * k));
    match device {
        Device::Cpu(cpu) => cpu::multiply_nn(cpu, dy.host(), w.host(), offsets.host(), size, dx.host()),
        Device::Reference(_) => dx.set(&reference::grouped_matmul_nn(&dy.wide(), &w.wide(), offsets.host(), size)),
    }
}

/// Adds `dy^T x` by expert to the stacked weight gradient.
///
/// # Shapes
/// dy [m, n], x [m, k], dw [E, n, k]
///
/// # Numerics
/// Rows of an expert ascending, starting from what `dw` holds.
pub fn grouped_matmul_backward_weight_add(
    device: &Device,
    dy: View<'_, f32>,
    x: View<'_, f32>,
    offsets: View<'_, u32>,
    size: Size,
    dw: ViewMut<'_, f32>,
) {
    let (Size { m, n, k }, experts) = (size, offsets.len() - 1);
    assert_eq!((dy.len(), x.len(), dw.len()), (m * n, m * k, experts * n * k));
    match device {
        Device::Cpu(cpu) => cpu::backward_weight_add(cpu, dy.host(), x.host(), offsets.host(), size, dw.host()),
        Device::Reference(_) => {
            dw.add(&reference::grouped_matmul_backward_weight(&dy.wide(), &x.wide(), offsets.host(), size));
        }
    }
}
