//! The product of a linear layer whose operands are rounded to bf16 on entry and whose sums are f32: `y = x W^T`, and its two
//! gradients. What the precision `Bf16` of a model multiplies with; the weight is held as bf16.
//!
//! x is rounded once, to rows of whole steps ([`row_len`]), for all products that read it and for their backward. The
//! forward reads W *packed*; the layout is the device's own. Sums go over k in an order that the instruction-set path alone
//! decides: for one row or a thousand, for any number of threads.

pub(crate) mod cpu;
pub mod grouped;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::format::bf16::Bf16;
use crate::ops::matmul::Size;
use crate::{Device, View, ViewMut};

/// Terms of a sum that one step takes; rounded rows are padded with zeros to whole steps.
pub(crate) const STEP: usize = 32;

/// The values that a rounded row of `k` values takes.
pub fn row_len(k: usize) -> usize {
    k.next_multiple_of(STEP)
}

/// Rounds rows to the nearest bf16 and pads them with zeros.
///
/// # Shapes
/// x [m, k], rounded [m, [`row_len`]\(k)]
pub fn round_rows(device: &Device, x: View<'_, f32>, k: usize, rounded: ViewMut<'_, Bf16>) {
    let m = rows_of(x.len(), k);
    assert_eq!((x.len(), rounded.len()), (m * k, m * row_len(k)));
    match device {
        Device::Cpu(cpu) => cpu::round_rows(cpu, x.host(), m, k, rounded.host()),
        Device::Reference(_) => {
            let rows = rounded.host().chunks_exact_mut(row_len(k).max(1));
            for (to, from) in rows.zip(x.host().chunks_exact(k.max(1))) {
                to.fill(Bf16::ZERO);
                to.iter_mut().zip(from).for_each(|(to, &x)| *to = Bf16::from_f32(x));
            }
        }
    }
}

/// The number of rows of `k` values.
fn rows_of(len: usize, k: usize) -> usize {
    len.checked_div(k).unwrap_or(0)
}

/// Rounded rows in f64, without their padding.
pub(crate) fn wide_rows(x: View<'_, Bf16>, k: usize) -> Vec<f64> {
    let wide = |row: &[Bf16]| row[..k].iter().map(|v| f64::from(v.to_f32())).collect::<Vec<_>>();
    x.host().chunks_exact(row_len(k).max(1)).flat_map(wide).collect()
}

/// A weight in f64.
pub(crate) fn wide(w: View<'_, Bf16>) -> Vec<f64> {
    w.host().iter().map(|v| f64::from(v.to_f32())).collect()
}

/// The values that a packed `[n, k]` weight takes.
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
pub fn pack(device: &Device, w: View<'_, Bf16>, n: usize, k: usize, packed: ViewMut<'_, Bf16>) {
    assert_eq!((w.len(), packed.len()), (n * k, packed_len(device, n, k)));
    match device {
        Device::Cpu(cpu) => cpu::pack(cpu, w.host(), n, k, packed.host()),
        Device::Reference(_) => packed.host().copy_from_slice(w.host()),
    }
}

/// Computes `y = x W^T` from rounded rows and a packed W.
///
/// # Shapes
/// x [m, [`row_len`]\(k)], W [n, k], y [m, n]
///
/// # Numerics
/// Sums of products of bf16 in f32, k ascending, in the order of the path's instruction: a row's bits depend on the row and W alone.
pub fn matmul(device: &Device, x: View<'_, Bf16>, packed: View<'_, Bf16>, size: Size, y: ViewMut<'_, f32>) {
    let Size { m, n, k } = size;
    assert_eq!((x.len(), y.len(), packed.len()), (m * row_len(k), m * n, packed_len(device, n, k)));
    match device {
        Device::Cpu(cpu) => cpu::matmul(cpu, x.host(), packed.host(), size, y.host()),
        Device::Reference(_) => y.set(&reference::matmul(&wide_rows(x, k), &wide(packed), size)),
    }
}

/// Computes `dx = dy W`: the gradient of the input where W is not trained. dy is rounded as x was.
///
/// # Shapes
/// dy [m, n], w [n, k] as it is held, dx [m, k]
///
/// # Numerics
/// The bits of [`backward`].
pub fn matmul_nn(device: &Device, dy: View<'_, f32>, w: View<'_, Bf16>, size: Size, dx: ViewMut<'_, f32>) {
    let Size { m, n, k } = size;
    assert_eq!((dy.len(), w.len(), dx.len()), (m * n, n * k, m * k));
    match device {
        Device::Cpu(cpu) => {
            let w = w.host();
            let read = |first: usize, band: &mut [Bf16]| band.copy_from_slice(&w[first * k..][..band.len()]);
            cpu::matmul_nn(cpu, dy.host(), (n, k), dx.host(), read);
        }
        Device::Reference(_) => dx.set(&reference::matmul_nn(&dy.wide(), &wide(w), size)),
    }
}

/// Computes both gradients: `dx = dy W` if it is wanted, and `dW += dy^T x`. dy is rounded as x was.
///
/// # Shapes
/// dy [m, n], x [m, [`row_len`]\(k)], w [n, k] as it is held, dx [m, k], dw [n, k]
///
/// # Numerics
/// As [`matmul`]: n ascending for dx; rows (tokens) ascending for dW, starting from what it holds.
pub fn backward(
    device: &Device,
    dy: View<'_, f32>,
    x: View<'_, Bf16>,
    w: View<'_, Bf16>,
    size: Size,
    dx: Option<ViewMut<'_, f32>>,
    dw: ViewMut<'_, f32>,
) {
    let Size { m, n, k } = size;
    assert_eq!((dy.len(), x.len(), w.len(), dw.len()), (m * n, m * row_len(k), n * k, n * k));
    assert!(dx.as_ref().is_none_or(|dx| dx.len() == m * k));
    match device {
        Device::Cpu(cpu) => {
            cpu::backward(cpu, dy.host(), x.host(), w.host(), size, dx.map(ViewMut::host), dw.host());
        }
        Device::Reference(_) => {
            let dy = dy.wide();
            if let Some(dx) = dx {
                dx.set(&reference::matmul_nn(&dy, &wide(w), size));
            }
            dw.add(&reference::matmul_backward_weight(&dy, &wide_rows(x, k), size));
        }
    }
}
