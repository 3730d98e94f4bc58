//! How do experts multiply? Each its own rows: `y[s] = x[s] W_e^T` for the rows s that expert e was given.
//!
//! Rows come sorted by expert; `offsets [E + 1]` says where each expert's rows begin. A row's bits depend on the row
//! and its expert's weight alone.

pub mod reference;
#[cfg(test)]
mod tests;

use super::matmul::{self, Size};
use crate::device::{Cpu, Parts};

/// Rows of one task.
const ROWS: usize = 96;

fn check(offsets: &[u32], m: usize) -> usize {
    assert!(offsets.first() == Some(&0) && offsets.last() == Some(&(m as u32)));
    assert!(offsets.is_sorted());
    offsets.len() - 1
}

/// Packs stacked expert weights for [`grouped_matmul`], one after the other.
///
/// # Shapes
/// w [E, n, k], packed [E, `packed_len(n, k)`]
pub fn pack(cpu: &Cpu, w: &[f32], experts: usize, n: usize, k: usize, packed: &mut [f32]) {
    let len = matmul::packed_len(cpu, n, k);
    assert_eq!((w.len(), packed.len()), (experts * n * k, experts * len));
    let parts = Parts::new(packed);
    cpu.run(experts, |e| {
        // SAFETY: each expert's part is written by one task.
        matmul::pack(&cpu.serial(), &w[e * n * k..][..n * k], n, k, unsafe { parts.part(e * len, len) });
    });
}

/// Computes `y = x W_e^T` by expert.
///
/// # Shapes
/// x [m, k] sorted by expert, W [E, n, k] packed, offsets [E + 1], y [m, n]
///
/// # Paper
/// V3 2.1.2 eq. 12 (routed experts)
pub fn grouped_matmul(cpu: &Cpu, x: &[f32], packed: &[f32], offsets: &[u32], size: Size, y: &mut [f32]) {
    let Size { m, n, k } = size;
    let experts = check(offsets, m);
    let len = matmul::packed_len(cpu, n, k);
    assert_eq!((x.len(), y.len(), packed.len()), (m * k, m * n, experts * len));
    let tasks: Vec<(usize, usize, usize)> = (0..experts)
        .flat_map(|e| {
            let (start, end) = (offsets[e] as usize, offsets[e + 1] as usize);
            (start..end).step_by(ROWS).map(move |row| (e, row, ROWS.min(end - row)))
        })
        .collect();
    let parts = Parts::new(y);
    cpu.run_if(m * n * k > 150_000, tasks.len(), |task| {
        let (e, row, rows) = tasks[task];
        // SAFETY: each row is written by one task.
        let y = unsafe { parts.part(row * n, rows * n) };
        let size = Size { m: rows, n, k };
        matmul::matmul(&cpu.serial(), &x[row * k..][..rows * k], &packed[e * len..][..len], size, y);
    });
}

/// Computes `dx = dy W_e` by expert.
///
/// # Shapes
/// dy [m, n], w [E, n, k] stacked, dx [m, k]
pub fn grouped_matmul_by_plain(cpu: &Cpu, dy: &[f32], w: &[f32], offsets: &[u32], size: Size, dx: &mut [f32]) {
    let Size { m, n, k } = size;
    let experts = check(offsets, m);
    assert_eq!((dy.len(), w.len(), dx.len()), (m * n, experts * n * k, m * k));
    let parts = Parts::new(dx);
    cpu.run(experts, |e| {
        let (start, rows) = (offsets[e] as usize, (offsets[e + 1] - offsets[e]) as usize);
        // SAFETY: each expert's rows are written by one task.
        let dx = unsafe { parts.part(start * k, rows * k) };
        let size = Size { m: rows, n, k };
        matmul::matmul_by_plain(&cpu.serial(), &dy[start * n..][..rows * n], &w[e * n * k..][..n * k], size, dx);
    });
}

/// Adds `dy^T x` by expert to the stacked weight gradient.
///
/// # Shapes
/// dy [m, n], x [m, k], dw [E, n, k]
///
/// # Numerics
/// Rows of an expert ascending, starting from what `dw` holds.
pub fn grouped_matmul_backward_weight_add(
    cpu: &Cpu,
    dy: &[f32],
    x: &[f32],
    offsets: &[u32],
    size: Size,
    dw: &mut [f32],
) {
    let Size { m, n, k } = size;
    let experts = check(offsets, m);
    assert_eq!((dy.len(), x.len(), dw.len()), (m * n, m * k, experts * n * k));
    let parts = Parts::new(dw);
    cpu.run(experts, |e| {
        let (start, rows) = (offsets[e] as usize, (offsets[e + 1] - offsets[e]) as usize);
        // SAFETY: each expert's gradient is written by one task.
        let dw = unsafe { parts.part(e * n * k, n * k) };
        let (dy, x) = (&dy[start * n..][..rows * n], &x[start * k..][..rows * k]);
        matmul::matmul_backward_weight_add(&cpu.serial(), dy, x, Size { m: rows, n, k }, dw);
    });
}
