//! The tuned versions.

use super::count;
use crate::device::Cpu;
use crate::ops::lanes::{map, update};
use crate::ops::split::{Columns, by_columns, by_rows};
use crate::simd::simd_fn;

simd_fn! {
    fn add_to_columns<S>(s: S, dy: &[f32], len: usize, dx: &mut [f32], width: usize, start: usize) {
        for (dy, dx) in dy.chunks_exact(len).zip(dx.chunks_exact_mut(width)) {
            update(s, [dy], [&mut dx[start..start + len]], |[sum], [dy]| [s.add(sum, dy)]);
        }
    }

    fn add_row_to_each<S>(s: S, x: &[f32], row: &[f32], y: &mut [f32]) {
        for (x, y) in x.chunks_exact(row.len()).zip(y.chunks_exact_mut(row.len())) {
            map(s, [x, row], [y], |[x, row]| [s.add(x, row)]);
        }
    }

    fn sum_columns<S>(s: S, dy: &[f32], width: usize, drow: &mut Columns<'_>) {
        let range = drow.range();
        for dy in dy.chunks_exact(width) {
            update(s, [&dy[range.clone()]], [drow.row(0)], |[sum], [dy]| [s.add(sum, dy)]);
        }
    }

    /// Splits the heads of some tokens; `n + r > 0` and `heads > 0`.
    fn split_heads<S>(s: S, dy: &[f32], heads: usize, n: usize, r: usize, dx: &mut [f32], dshared: &mut [f32]) {
        for (i, head) in dy.chunks_exact(n + r).enumerate() {
            dx[i * n..][..n].copy_from_slice(&head[..n]);
            let shared = &mut dshared[i / heads * r..][..r];
            if i % heads == 0 {
                shared.copy_from_slice(&head[n..]);
            } else {
                update(s, [&head[n..]], [shared], |[sum], [dy]| [s.add(sum, dy)]);
            }
        }
    }
}

pub(super) fn columns(cpu: &Cpu, x: &[f32], width: usize, start: usize, len: usize, y: &mut [f32]) {
    by_rows(cpu, count(x.len(), width), len, [(y, len)], |rows, [y]| {
        for (i, t) in rows.enumerate() {
            y[i * len..][..len].copy_from_slice(&x[t * width + start..][..len]);
        }
    });
}

pub(super) fn columns_backward_add(cpu: &Cpu, dy: &[f32], width: usize, start: usize, len: usize, dx: &mut [f32]) {
    if len == 0 {
        return;
    }
    by_rows(cpu, count(dx.len(), width), len, [(dx, width)], |rows, [dx]| {
        add_to_columns(cpu.isa(), &dy[rows.start * len..rows.end * len], len, dx, width, start);
    });
}

pub(super) fn concat_columns(
    cpu: &Cpu,
    (a, a_width): (&[f32], usize),
    (b, b_width): (&[f32], usize),
    rows: usize,
    y: &mut [f32],
) {
    let width = a_width + b_width;
    by_rows(cpu, rows, width, [(y, width)], |rows, [y]| {
        for (t, y) in rows.zip(y.chunks_exact_mut(width)) {
            let (to_a, to_b) = y.split_at_mut(a_width);
            to_a.copy_from_slice(&a[t * a_width..][..a_width]);
            to_b.copy_from_slice(&b[t * b_width..][..b_width]);
        }
    });
}

pub(super) fn append_shared(cpu: &Cpu, x: &[f32], shared: &[f32], (heads, n, r): (usize, usize, usize), y: &mut [f32]) {
    let width = heads * (n + r);
    by_rows(cpu, count(y.len(), width), width, [(y, width)], |tokens, [y]| {
        let first = tokens.start * heads;
        for (i, y) in y.chunks_exact_mut(n + r).enumerate() {
            let (own, common) = y.split_at_mut(n);
            own.copy_from_slice(&x[(first + i) * n..][..n]);
            common.copy_from_slice(&shared[(first + i) / heads * r..][..r]);
        }
    });
}

pub(super) fn append_shared_backward(
    cpu: &Cpu,
    dy: &[f32],
    (heads, n, r): (usize, usize, usize),
    dx: &mut [f32],
    dshared: &mut [f32],
) {
    let width = heads * (n + r);
    by_rows(cpu, count(dy.len(), width), width, [(dx, heads * n), (dshared, r)], |tokens, [dx, dshared]| {
        split_heads(cpu.isa(), &dy[tokens.start * width..tokens.end * width], heads, n, r, dx, dshared);
    });
}

pub(super) fn add_row(cpu: &Cpu, x: &[f32], row: &[f32], y: &mut [f32]) {
    let n = row.len();
    by_rows(cpu, count(y.len(), n), n, [(y, n)], |rows, [y]| {
        add_row_to_each(cpu.isa(), &x[rows.start * n..rows.end * n], row, y);
    });
}

pub(super) fn column_sums_add(cpu: &Cpu, dy: &[f32], drow: &mut [f32]) {
    let width = drow.len();
    by_columns(cpu, count(dy.len(), width), width, drow, |mut columns| sum_columns(cpu.isa(), dy, width, &mut columns));
}

pub(super) fn gather_rows(cpu: &Cpu, x: &[f32], width: usize, ids: &[u32], y: &mut [f32]) {
    by_rows(cpu, ids.len(), width, [(y, width)], |at, [y]| {
        for (i, &id) in ids[at].iter().enumerate() {
            y[i * width..][..width].copy_from_slice(&x[id as usize * width..][..width]);
        }
    });
}
