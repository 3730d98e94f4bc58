//! The same products by expert: rows come sorted by expert; `offsets [E + 1]` holds the first row of each. A row's bits depend on
//! the row and its expert's weight alone.

use super::{cpu, pack as pack_one, packed_len, reference, row_len, wide, wide_rows};
use crate::device::{Cpu, Parts};
use crate::format::bf16::Bf16;
use crate::ops::grouped_matmul::reference as grouped;
use crate::ops::matmul::Size;
use crate::{Device, View, ViewMut};

/// Rows of one task.
const ROWS: usize = 128;

/// Packs stacked expert weights, one after the other.
///
/// # Shapes
/// w [E, n, k], packed [E, `packed_len(n, k)`]
pub fn pack(device: &Device, w: View<'_, Bf16>, experts: usize, n: usize, k: usize, mut packed: ViewMut<'_, Bf16>) {
    let len = packed_len(device, n, k);
    assert_eq!((w.len(), packed.len()), (experts * n * k, experts * len));
    for e in 0..experts {
        let (w, packed) = (w.part(e * n * k..(e + 1) * n * k), packed.again().part(e * len..(e + 1) * len));
        pack_one(device, w, n, k, packed);
    }
}

/// Computes `y = x W_e^T` by expert.
///
/// # Shapes
/// x [m, [`row_len`]\(k)] sorted by expert, W [E, n, k] packed, offsets [E + 1], y [m, n]
///
/// # Paper
/// V3 2.1.2 eq. 12 (routed experts)
pub fn matmul(
    device: &Device,
    x: View<'_, Bf16>,
    packed: View<'_, Bf16>,
    offsets: View<'_, u32>,
    size: Size,
    y: ViewMut<'_, f32>,
) {
    let (Size { m, n, k }, experts) = (size, offsets.len() - 1);
    assert_eq!((x.len(), y.len(), packed.len()), (m * row_len(k), m * n, experts * packed_len(device, n, k)));
    match device {
        Device::Cpu(cpu) => multiply(cpu, x.host(), packed.host(), offsets.host(), size, y.host()),
        Device::Reference(_) => {
            y.set(&grouped::grouped_matmul(&wide_rows(x, k), &wide(packed), offsets.host(), size));
        }
    }
}

/// Computes both gradients by expert: `dx = dy W_e` if it is wanted, and `dW_e += dy^T x`.
///
/// # Shapes
/// dy [m, n], x [m, [`row_len`]\(k)], w [E, n, k], dx [m, k], dw [E, n, k]
///
/// # Numerics
/// As [`backward`](super::backward), over the rows of each expert.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    device: &Device,
    dy: View<'_, f32>,
    x: View<'_, Bf16>,
    w: View<'_, Bf16>,
    offsets: View<'_, u32>,
    size: Size,
    dx: Option<ViewMut<'_, f32>>,
    dw: ViewMut<'_, f32>,
) {
    let (Size { m, n, k }, experts) = (size, offsets.len() - 1);
    assert_eq!((dy.len(), x.len()), (m * n, m * row_len(k)));
    assert_eq!((w.len(), dw.len()), (experts * n * k, experts * n * k));
    assert!(dx.as_ref().is_none_or(|dx| dx.len() == m * k));
    match device {
        Device::Cpu(cpu) => {
            let dx = dx.map(ViewMut::host);
            gradients(cpu, dy.host(), x.host(), w.host(), offsets.host(), size, dx, dw.host());
        }
        Device::Reference(_) => {
            let (dy, x, offsets) = (reference::rounded(&dy.wide()), wide_rows(x, k), offsets.host());
            if let Some(dx) = dx {
                dx.set(&grouped::grouped_matmul_nn(&dy, &wide(w), offsets, size));
            }
            dw.add(&grouped::grouped_matmul_backward_weight(&dy, &x, offsets, size));
        }
    }
}

/// The first row and the number of rows of every expert.
fn ranges(offsets: &[u32], m: usize) -> impl Iterator<Item = (usize, usize)> {
    assert!(offsets.first() == Some(&0) && offsets.last() == Some(&(m as u32)) && offsets.is_sorted());
    offsets.windows(2).map(|at| (at[0] as usize, (at[1] - at[0]) as usize))
}

fn multiply(cpu: &Cpu, x: &[Bf16], packed: &[Bf16], offsets: &[u32], Size { m, n, k }: Size, y: &mut [f32]) {
    let len = cpu::packed_len(cpu, n, k);
    let tasks: Vec<(usize, usize, usize)> = ranges(offsets, m)
        .enumerate()
        .flat_map(|(e, (start, rows))| {
            (start..start + rows).step_by(ROWS).map(move |row| (e, row, ROWS.min(start + rows - row)))
        })
        .collect();
    let parts = Parts::new(y);
    cpu.run_if(m * n * k > 500_000, tasks.len(), |task| {
        let (e, row, rows) = tasks[task];
        // SAFETY: each row is written by one task.
        let y = unsafe { parts.part(row * n, rows * n) };
        let (x, w) = (&x[row * row_len(k)..][..rows * row_len(k)], &packed[e * len..][..len]);
        cpu::matmul(&cpu.serial(), x, w, Size { m: rows, n, k }, y);
    });
}

#[allow(clippy::too_many_arguments)]
fn gradients(
    cpu: &Cpu,
    dy: &[f32],
    x: &[Bf16],
    w: &[Bf16],
    offsets: &[u32],
    Size { m, n, k }: Size,
    dx: Option<&mut [f32]>,
    dw: &mut [f32],
) {
    let experts: Vec<(usize, usize)> = ranges(offsets, m).collect();
    let (dx, dw) = (dx.map(Parts::new), Parts::new(dw));
    cpu.run(experts.len(), |e| {
        let (start, rows) = experts[e];
        // SAFETY: each expert's rows and gradient are written by one task.
        let (dx, dw) = unsafe { (dx.as_ref().map(|dx| dx.part(start * k, rows * k)), dw.part(e * n * k, n * k)) };
        let (dy, x) = (&dy[start * n..][..rows * n], &x[start * row_len(k)..][..rows * row_len(k)]);
        cpu::backward(&cpu.serial(), dy, x, &w[e * n * k..][..n * k], Size { m: rows, n, k }, dx, dw);
    });
}
