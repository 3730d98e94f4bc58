//! The tuned version: experts, or blocks of their rows, are tasks.

use crate::device::{Cpu, Parts};
use crate::ops::matmul::{Size, cpu as matmul};

/// Rows of one task.
const ROWS: usize = 96;

/// The number of experts whose rows `offsets` parts.
fn experts(offsets: &[u32], m: usize) -> usize {
    assert!(offsets.first() == Some(&0) && offsets.last() == Some(&(m as u32)));
    assert!(offsets.is_sorted());
    offsets.len() - 1
}

pub(super) fn pack(cpu: &Cpu, w: &[f32], experts: usize, n: usize, k: usize, packed: &mut [f32]) {
    let len = matmul::packed_len(cpu, n, k);
    let parts = Parts::new(packed);
    cpu.run(experts, |e| {
        // SAFETY: each expert's part is written by one task.
        matmul::pack(&cpu.serial(), &w[e * n * k..][..n * k], n, k, unsafe { parts.part(e * len, len) });
    });
}

pub(super) fn multiply(cpu: &Cpu, x: &[f32], packed: &[f32], offsets: &[u32], size: Size, y: &mut [f32]) {
    let Size { m, n, k } = size;
    let experts = experts(offsets, m);
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
        matmul::blocked(&cpu.serial(), size, &x[row * k..][..rows * k], &packed[e * len..][..len], y);
    });
}

pub(super) fn multiply_nn(cpu: &Cpu, dy: &[f32], w: &[f32], offsets: &[u32], size: Size, dx: &mut [f32]) {
    let Size { m, n, k } = size;
    let experts = experts(offsets, m);
    assert_eq!((dy.len(), w.len(), dx.len()), (m * n, experts * n * k, m * k));
    let parts = Parts::new(dx);
    cpu.run(experts, |e| {
        let (start, rows) = (offsets[e] as usize, (offsets[e + 1] - offsets[e]) as usize);
        // SAFETY: each expert's rows are written by one task.
        let dx = unsafe { parts.part(start * k, rows * k) };
        let size = Size { m: rows, n, k };
        matmul::matmul_nn(&cpu.serial(), &dy[start * n..][..rows * n], &w[e * n * k..][..n * k], size, dx);
    });
}

pub(super) fn backward_weight_add(cpu: &Cpu, dy: &[f32], x: &[f32], offsets: &[u32], size: Size, dw: &mut [f32]) {
    let Size { m, n, k } = size;
    let experts = experts(offsets, m);
    assert_eq!((dy.len(), x.len(), dw.len()), (m * n, m * k, experts * n * k));
    let parts = Parts::new(dw);
    cpu.run(experts, |e| {
        let (start, rows) = (offsets[e] as usize, (offsets[e + 1] - offsets[e]) as usize);
        // SAFETY: each expert's gradient is written by one task.
        let dw = unsafe { parts.part(e * n * k, n * k) };
        let (dy, x) = (&dy[start * n..][..rows * n], &x[start * k..][..rows * k]);
        matmul::backward_weight_add(&cpu.serial(), dy, x, Size { m: rows, n, k }, dw);
    });
}
