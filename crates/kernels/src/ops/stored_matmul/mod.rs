//! The products of a linear layer with weights that stay as they lie in their file: `y = x W^T` and `y = x W`, for
//! every format, without a decoded copy of W: a task expands a few rows of it at a time into its caches.
//!
//! Each format has one arithmetic for one row of x and for thousands (E2):
//!
//! ```text
//! floats   one chain of fused multiply-adds per element in f32, k ascending: the bits of `matmul` with W decoded
//! codes    x in blocks of 32, each row by itself:   scale_x = max |x| / 127     q = nearest integer of x / scale_x
//!          y = sum over sub-blocks s of scale_w[s] scale_x[s] (sum over s of (code - zero) q) + shift[s] scale_x[s] (sum of q)
//! ```
//!
//! Sums within a sub-block are exact integers; those over sub-blocks are one chain in f32, k ascending. So a row's bits
//! depend on the row and W alone.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use minke_spec::{Format, Precision};

use super::matmul::HeadSlice;
pub use crate::format::panel::LAYOUT;
use crate::format::{Stored, panel};
use crate::{Device, View, ViewMut};

/// Computes `y = x W^T` for some matrices that read the same rows: rounded once for those of one format, and all columns shared out
/// among the threads together.
///
/// # Shapes
/// x [m, k], W [n, k], y [m, n], with one k and an n for each matrix
///
/// # Numerics
/// As stated for the module.
pub fn matmul<const N: usize>(
    device: &Device,
    x: View<'_, f32>,
    w: [Stored<'_>; N],
    m: usize,
    y: [ViewMut<'_, f32>; N],
) {
    for (w, y) in w.iter().zip(&y) {
        let [n, k] = w.shape();
        assert_eq!((x.len(), y.len()), (m * k, m * n));
    }
    match device {
        Device::Cpu(cpu) => cpu::matmul(cpu, x.host(), w, m, y.map(ViewMut::host)),
        Device::Reference(_) => w.into_iter().zip(y).for_each(|(w, y)| y.set(&reference::matmul(x.host(), w))),
    }
}

/// Computes `dx = dy W`: the gradient of the input of [`matmul`], as if x had not been rounded.
///
/// # Shapes
/// dy [m, n], W [n, k], dx [m, k]
///
/// # Numerics
/// For every format W is decoded a band of rows at a time. In `F32`: one chain per element, n ascending. In `Bf16`: dy and the
/// values of W are rounded, and sums are those of [`bf16_matmul`](super::bf16_matmul).
pub fn matmul_nn(
    device: &Device,
    dy: View<'_, f32>,
    w: Stored<'_>,
    m: usize,
    precision: Precision,
    dx: ViewMut<'_, f32>,
) {
    let [n, k] = w.shape();
    assert_eq!((dy.len(), dx.len()), (m * n, m * k));
    match (device, precision) {
        (Device::Cpu(cpu), Precision::F32) => cpu::matmul_nn(cpu, dy.host(), w, dx.host()),
        (Device::Cpu(cpu), Precision::Bf16) => cpu::bf16_matmul_nn(cpu, dy.host(), w, dx.host()),
        (Device::Reference(_), _) => dx.set(&reference::matmul_nn(&dy.wide(), w, m, precision)),
    }
}

/// How many rows of a format a device interleaves; none if one of the two has no such layout.
pub fn interleaved_lanes(device: &Device, format: Format) -> Option<usize> {
    match device {
        Device::Cpu(cpu) => panel::interleaved_lanes(cpu.isa(), format),
        Device::Reference(_) => None,
    }
}

/// Writes a matrix with its rows interleaved, as [`Stored::interleaved`] takes it: products with it have the same bits in less
/// time.
///
/// # Shapes
/// out: [`Stored::interleaved_len`] bytes for as many rows as [`interleaved_lanes`] says
///
/// # Panics
/// If there are none, or the rows are interleaved already.
pub fn interleave(device: &Device, w: Stored<'_>, out: &mut [u8]) {
    match device {
        Device::Cpu(cpu) => panel::interleave(cpu, w, out),
        Device::Reference(_) => panic!("the reference reads rows as a file has them"),
    }
}

/// Computes rows of an embedding table.
///
/// # Shapes
/// w [vocabulary, k], ids `[m]`, y [m, k]
///
/// # Panics
/// If an id is not a row of the table.
pub fn embed(device: &Device, w: Stored<'_>, ids: View<'_, u32>, y: ViewMut<'_, f32>) {
    let [_, k] = w.shape();
    assert_eq!(y.len(), ids.len() * k);
    match device {
        Device::Cpu(cpu) => cpu::embed(cpu, w, ids.host(), y.host()),
        Device::Reference(_) => {
            for (&id, y) in ids.host().iter().zip(y.host().chunks_exact_mut(k.max(1))) {
                reference::decode(w, id as usize, y);
            }
        }
    }
}

/// Computes `y = x W_e^T` by expert, for rows sorted by expert.
///
/// # Shapes
/// x [m, k], experts E of [n, k], offsets [E + 1], y [m, n]
///
/// # Paper
/// V3 2.1.2 eq. 12 (routed experts)
pub fn grouped_matmul<'a>(
    device: &Device,
    x: View<'_, f32>,
    experts: impl Fn(usize) -> Stored<'a>,
    offsets: View<'_, u32>,
    [n, k]: [usize; 2],
    y: ViewMut<'_, f32>,
) {
    assert_eq!(x.len() * n, y.len() * k);
    match device {
        Device::Cpu(cpu) => cpu::grouped_matmul(cpu, x.host(), experts, offsets.host(), [n, k], y.host()),
        Device::Reference(_) => y.set(&reference::grouped_matmul(x.host(), experts, offsets.host(), k)),
    }
}

/// Computes `y[t, h] = x[t, h] W_h^T`: weighted latents into values.
///
/// # Shapes
/// x [T, H, latent], W_h [count, latent] -> y [T, H, count]
///
/// # Paper
/// V3 2.1.1 eq. 10 (absorbed into the output)
pub fn heads_matmul(device: &Device, x: View<'_, f32>, w: Stored<'_>, slice: HeadSlice, y: ViewMut<'_, f32>) {
    assert_eq!(w.shape(), [slice.heads * slice.per_head, slice.latent]);
    let tokens = slice.tokens(x.len(), y.len(), (slice.latent, slice.count));
    match device {
        Device::Cpu(cpu) => cpu::heads_matmul(cpu, x.host(), w, slice, tokens, y.host()),
        Device::Reference(_) => y.set(&reference::heads_matmul(x.host(), w, slice, tokens)),
    }
}

/// Computes `y[t, h] = x[t, h] W_h`: queries into the latent space.
///
/// # Shapes
/// x [T, H, count], W_h [count, latent] -> y [T, H, latent]
///
/// # Paper
/// V3 2.1.1 eq. 9 (absorbed into the query)
///
/// # Numerics
/// In f32 for every format, the head's rows decoded: one chain per element, rows ascending.
pub fn heads_matmul_nn(device: &Device, x: View<'_, f32>, w: Stored<'_>, slice: HeadSlice, y: ViewMut<'_, f32>) {
    assert_eq!(w.shape(), [slice.heads * slice.per_head, slice.latent]);
    let tokens = slice.tokens(x.len(), y.len(), (slice.count, slice.latent));
    match device {
        Device::Cpu(cpu) => cpu::heads_matmul_nn(cpu, x.host(), w, slice, tokens, y.host()),
        Device::Reference(_) => y.set(&reference::heads_matmul_nn(&x.wide(), w, slice, tokens)),
    }
}

/// Computes `y = x W^T` for `W [H (N + V), C]` of which each head's rows are held in two halves: the first N transposed.
///
/// # Shapes
/// x [m, C], keys [H C, N], values [H V, C] -> y [m, H (N + V)]
///
/// # Numerics
/// Keys in f32 as in [`heads_matmul_nn`], values as in [`matmul`].
pub fn split_heads_matmul(
    device: &Device,
    x: View<'_, f32>,
    keys: Stored<'_>,
    values: Stored<'_>,
    heads: usize,
    y: ViewMut<'_, f32>,
) {
    let ([rows, n], [value_rows, latent]) = (keys.shape(), values.shape());
    let v = value_rows / heads;
    assert!(rows == heads * latent && value_rows == heads * v && x.len().is_multiple_of(latent));
    assert_eq!(y.len(), x.len() / latent * heads * (n + v));
    match device {
        Device::Cpu(cpu) => cpu::split_heads_matmul(cpu, x.host(), keys, values, heads, y.host()),
        Device::Reference(_) => y.set(&reference::split_heads_matmul(x.host(), keys, values, heads)),
    }
}

/// Computes the values of rows `first..` of a matrix, as many as `out` holds.
///
/// # Shapes
/// w [n, k], out [rows, k]
pub fn decode(device: &Device, w: Stored<'_>, first: usize, out: ViewMut<'_, f32>) {
    let [n, k] = w.shape();
    assert!(first + out.len() / k <= n);
    match device {
        Device::Cpu(cpu) => cpu::decode(cpu, w, first, out.host()),
        Device::Reference(_) => reference::decode(w, first, out.host()),
    }
}

/// Computes the values of `W [H (N + V), C]` of which each head's rows are held in two halves: the first N transposed.
///
/// # Shapes
/// keys [H C, N], values [H V, C], out [H (N + V), C]
pub fn decode_split(device: &Device, keys: Stored<'_>, values: Stored<'_>, heads: usize, out: ViewMut<'_, f32>) {
    let ([rows, n], [value_rows, latent]) = (keys.shape(), values.shape());
    assert!(rows == heads * latent && value_rows.is_multiple_of(heads));
    assert_eq!(out.len(), (heads * n + value_rows) * latent);
    let (mut of_keys, mut of_values) = (device.buffer::<f32>(rows * n), device.buffer::<f32>(value_rows * latent));
    decode(device, keys, 0, of_keys.view_mut());
    decode(device, values, 0, of_values.view_mut());
    match device {
        // Once per weight, when it is loaded for training or converted: there is nothing to tune.
        Device::Cpu(_) | Device::Reference(_) => {
            let (keys, values) = (of_keys.view().host(), of_values.view().host());
            reference::join_halves(keys, values, [heads, n, latent], out.host());
        }
    }
}
