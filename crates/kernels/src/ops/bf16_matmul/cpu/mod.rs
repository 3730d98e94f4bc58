//! The tuned version. With instructions for bf16 (tiles, or products of pairs) the left operand lies as rows and the right one as
//! pairs of rows, `[k / 2][16][2]` for every 16 columns; without, bf16 is widened and goes through the products of f32.

pub(crate) mod block;
#[cfg_attr(not(target_arch = "x86_64"), path = "dots/none.rs")]
mod dots;
pub(crate) mod layout;
pub(crate) mod part;
mod wide;

use super::{STEP, row_len};
use crate::device::{Buffer, Cpu, Parts};
use crate::format::bf16::Bf16;
use crate::ops::matmul::{Size, cpu as matmul};
use crate::ops::split::by_rows;
use block::{Operands, Unit};
use layout::COLUMNS;

/// Rows (tokens) whose operands are laid out at once, so that they stay in the second-level cache.
const CHUNK: usize = 512;
/// Rows of a task.
const ROWS: usize = 256;
/// Panels of columns of a task.
const PANELS: usize = 8;
/// Elements of W that are laid out at once for dy W alone.
const BAND: usize = 1 << 20;
/// Multiply-adds below which a second thread costs more than it brings.
const SERIAL: usize = 2_000_000;

pub(super) fn round_rows(cpu: &Cpu, x: &[f32], m: usize, k: usize, rounded: &mut [Bf16]) {
    let len = row_len(k);
    by_rows(cpu, m, len, [(rounded, len)], |rows, [to]| {
        for (row, to) in rows.zip(to.chunks_exact_mut(len.max(1))) {
            layout::round_row(cpu.isa(), &x[row * k..][..k], to);
        }
    });
}

/// The panels of columns that cover `n` of them.
fn panels(n: usize) -> usize {
    n.div_ceil(COLUMNS)
}

pub(crate) fn packed_len(cpu: &Cpu, n: usize, k: usize) -> usize {
    match Unit::of(cpu.isa()) {
        Some(_) => panels(n) * COLUMNS * row_len(k),
        None => matmul::packed_len(cpu, n, k),
    }
}

pub(crate) fn pack(cpu: &Cpu, w: &[Bf16], n: usize, k: usize, packed: &mut [Bf16]) {
    if Unit::of(cpu.isa()).is_none() {
        return matmul::pack(cpu, w, n, k, packed);
    }
    let len = COLUMNS * row_len(k);
    by_rows(cpu, panels(n), len, [(packed, len)], |range, [to]| {
        for (panel, to) in range.zip(to.chunks_exact_mut(len.max(1))) {
            layout::pack_rows(cpu.isa(), &w[panel * COLUMNS * k..n.min((panel + 1) * COLUMNS) * k], k, to);
        }
    });
}

/// Computes `y = x W^T`. x [m, `row_len(k)`], packed W [n, k] -> y [m, n]
pub(crate) fn matmul(cpu: &Cpu, x: &[Bf16], packed: &[Bf16], size: Size, y: &mut [f32]) {
    let Size { m, n, k } = size;
    assert!(x.len() >= m * row_len(k) && packed.len() >= packed_len(cpu, n, k) && y.len() >= m * n);
    if k == 0 {
        return y.fill(0.0);
    }
    match Unit::of(cpu.isa()) {
        Some(unit) => {
            let (steps, y) = (row_len(k) / STEP, Parts::new(y));
            let all = Operands { a: x, a_row: row_len(k), b: packed, n, steps, c: &y, c_row: n, accumulate: false };
            let tasks = Tasks::new(m, n, k, cpu);
            cpu.run_if(tasks.parallel, tasks.count(), |task| tasks.multiply(unit, all, task));
        }
        None => wide::matmul(cpu, x, packed, size, y),
    }
}

/// The blocks of an output that tasks share out.
#[derive(Clone, Copy)]
struct Tasks {
    m: usize,
    n: usize,
    parallel: bool,
}

impl Tasks {
    fn new(m: usize, n: usize, k: usize, cpu: &Cpu) -> Self {
        // Tiles take as long for one row as for all of theirs.
        Self { m, n, parallel: cpu.threads() > 1 && m.max(COLUMNS) * n * k >= SERIAL }
    }

    fn columns(self) -> usize {
        self.n.div_ceil(PANELS * COLUMNS)
    }

    fn count(self) -> usize {
        self.m.div_ceil(ROWS) * self.columns()
    }

    fn multiply(self, unit: Unit, all: Operands<'_>, task: usize) {
        let (i, panel) = (task / self.columns() * ROWS, task % self.columns() * PANELS);
        // SAFETY: blocks of tasks do not overlap.
        unsafe { block::multiply(unit, all, i..self.m.min(i + ROWS), panel..panels(self.n).min(panel + PANELS)) };
    }
}

/// W [n, k] as the right operand of dy W, for the units that multiply bf16.
fn columns(cpu: &Cpu, w: &[Bf16], n: usize, k: usize) -> Buffer {
    let mut buffer = cpu.buffer::<Bf16>(panels(k) * COLUMNS * row_len(n));
    let parts = Parts::new(buffer.as_mut_slice::<Bf16>());
    cpu.run_if(n * k > 20_000, row_len(n) / STEP, |group| {
        // SAFETY: a group of rows is written by one task.
        unsafe { layout::pair_rows(cpu.isa(), w, k, n, k, group, row_len(n), &parts) };
    });
    buffer
}

/// Computes `dx = dy W`; `read` writes the rows of W from the given one on, a band of them at a time. dy [m, n] -> dx [m, k]
pub(crate) fn matmul_nn(
    cpu: &Cpu,
    dy: &[f32],
    (n, k): (usize, usize),
    dx: &mut [f32],
    read: impl Fn(usize, &mut [Bf16]),
) {
    if dx.is_empty() || n == 0 {
        return dx.fill(0.0);
    }
    let (m, width, rows) = (dx.len() / k, row_len(n), (BAND / k).max(1).next_multiple_of(STEP).min(n));
    let (mut rounded, mut band) = (cpu.buffer::<Bf16>(m * width), cpu.buffer::<Bf16>(rows * k));
    round_rows(cpu, dy, m, n, rounded.as_mut_slice());
    for first in (0..n).step_by(rows) {
        let here = rows.min(n - first);
        let band = &mut band.as_mut_slice()[..here * k];
        read(first, band);
        match Unit::of(cpu.isa()) {
            Some(unit) => {
                let (columns, c) = (columns(cpu, band, here, k), Parts::new(&mut *dx));
                let all = Operands {
                    a: &rounded.as_slice()[first..],
                    a_row: width,
                    b: columns.as_slice(),
                    n: k,
                    steps: row_len(here) / STEP,
                    c: &c,
                    c_row: k,
                    accumulate: first > 0,
                };
                let tasks = Tasks::new(m, k, here, cpu);
                cpu.run_if(tasks.parallel, tasks.count(), |task| tasks.multiply(unit, all, task));
            }
            None => wide::matmul_nn_add(cpu, rounded.as_slice(), (first, n), band, k, dx),
        }
    }
}

/// The backward of products with one weight: what its rows need of the weight is laid out once.
pub(crate) struct Backward {
    n: usize,
    k: usize,
    /// W as the right operand of dy W, if dx is wanted.
    columns: Option<Buffer>,
}

impl Backward {
    /// For `w [n, k]`.
    pub(crate) fn new(cpu: &Cpu, w: &[Bf16], n: usize, k: usize, wants_dx: bool) -> Self {
        let columns = wants_dx.then(|| match Unit::of(cpu.isa()) {
            Some(_) => columns(cpu, w, n, k),
            None => wide::columns(cpu, w, n, k),
        });
        Self { n, k, columns }
    }

    /// Computes dx, if it is wanted, and adds to dW. dy [m, n], x [m, `row_len(k)`] -> dx [m, k], dw [n, k]
    pub(crate) fn rows(&self, cpu: &Cpu, dy: &[f32], x: &[Bf16], dx: Option<&mut [f32]>, dw: &mut [f32]) {
        let Self { n, k, .. } = *self;
        if n * k == 0 {
            return dx.into_iter().for_each(|dx| dx.fill(0.0));
        }
        let (m, mut dx) = (dy.len() / n, dx);
        let columns = self.columns.as_ref().map(|columns| columns.as_slice());
        for start in (0..m).step_by(CHUNK) {
            let rows = start..m.min(start + CHUNK);
            let (dy, x) = (&dy[start * n..rows.end * n], &x[start * row_len(k)..rows.end * row_len(k)]);
            let dx = dx.as_deref_mut().map(|dx| &mut dx[start * k..rows.end * k]);
            match Unit::of(cpu.isa()) {
                Some(unit) => chunk(cpu, unit, dy, x, (n, k), dx.zip(columns), dw),
                None => {
                    let dx = dx.zip(self.columns.as_ref().map(|columns| columns.as_slice::<f32>()));
                    wide::backward(cpu, dy, x, Size { m: rows.len(), n, k }, dx, dw);
                }
            }
        }
    }
}

/// Does [`Backward::rows`] for at most [`CHUNK`] of them: first lays out both operands of dW and the left one of dx, then multiplies.
fn chunk(
    cpu: &Cpu,
    unit: Unit,
    dy: &[f32],
    x: &[Bf16],
    (n, k): (usize, usize),
    dx: Option<(&mut [f32], &[Bf16])>,
    dw: &mut [f32],
) {
    let (m, depth, width) = (dy.len() / n, row_len(dy.len() / n), row_len(n));
    let lens = [depth * width, width * depth, panels(k) * COLUMNS * depth];
    let mut buffer = cpu.buffer::<Bf16>(lens.iter().sum());
    let (rounded, rest) = buffer.as_mut_slice::<Bf16>().split_at_mut(lens[0]);
    let (turned, pairs) = rest.split_at_mut(lens[1]);
    {
        let (rounded, turned, pairs) = (Parts::new(rounded), Parts::new(turned), Parts::new(pairs));
        let parallel = cpu.threads() > 1 && m * (n + k) > 20_000;
        cpu.run_if(parallel, depth / STEP, |group| {
            let rows = group * STEP..m.min((group + 1) * STEP);
            // SAFETY: a group of rows is written by one task.
            unsafe {
                let to = rounded.part(group * STEP * width, STEP * width);
                to[rows.len() * width..].fill(Bf16::ZERO);
                for (row, to) in rows.zip(to.chunks_exact_mut(width)) {
                    layout::round_row(cpu.isa(), &dy[row * n..][..n], to);
                }
                layout::turn_rows(cpu.isa(), to, width, group, depth, &turned);
                layout::pair_rows(cpu.isa(), x, row_len(k), m, k, group, depth, &pairs);
            }
        });
    }
    let dw = Parts::new(dw);
    let of_weight =
        Operands { a: turned, a_row: depth, b: pairs, n: k, steps: depth / STEP, c: &dw, c_row: k, accumulate: true };
    let weight = Tasks::new(n, k, m, cpu);
    let Some((dx, columns)) = dx else {
        return cpu.run_if(weight.parallel, weight.count(), |task| weight.multiply(unit, of_weight, task));
    };
    let dx = Parts::new(dx);
    let of_input = Operands {
        a: rounded,
        a_row: width,
        b: columns,
        n: k,
        steps: width / STEP,
        c: &dx,
        c_row: k,
        accumulate: false,
    };
    let input = Tasks::new(m, k, n, cpu);
    cpu.run_if(weight.parallel, weight.count() + input.count(), |task| match task.checked_sub(weight.count()) {
        None => weight.multiply(unit, of_weight, task),
        Some(task) => input.multiply(unit, of_input, task),
    });
}

/// Computes both gradients of one product.
pub(crate) fn backward(
    cpu: &Cpu,
    dy: &[f32],
    x: &[Bf16],
    w: &[Bf16],
    size: Size,
    dx: Option<&mut [f32]>,
    dw: &mut [f32],
) {
    let Size { m, n, k } = size;
    assert!(dy.len() == m * n && x.len() >= m * row_len(k) && w.len() == n * k && dw.len() == n * k);
    if m > 0 {
        Backward::new(cpu, w, n, k, dx.is_some()).rows(cpu, dy, x, dx, dw);
    }
}
