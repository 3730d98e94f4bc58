//! Splitting of simple work over threads: by rows, or by columns where rows are summed; never within a sum.

use crate::device::{Cpu, Parts};
use std::ops::Range;

/// Floats below which a second thread costs more than it brings.
const SERIAL: usize = 20_000;
/// Floats per task.
const TASK: usize = 8_192;
/// Columns per task at least: four cache lines of every row.
const COLUMNS: usize = 64;

/// Runs `task` over ranges that cover `0..count`; an item is worth `work` floats.
fn ranges(cpu: &Cpu, count: usize, work: usize, least: usize, task: impl Fn(Range<usize>) + Sync) {
    if count == 0 {
        return;
    }
    if count.saturating_mul(work) <= SERIAL || cpu.threads() == 1 {
        return task(0..count);
    }
    let group = (TASK / work.max(1)).max(least).next_multiple_of(least);
    cpu.run(count.div_ceil(group), |i| task(i * group..count.min((i + 1) * group)));
}

/// Runs `task` over ranges of rows that cover `0..rows`, with the part of each output that belongs to them. An output
/// is a slice and its values per row; a row is worth `work` floats.
pub(crate) fn by_rows<T: Send, const N: usize>(
    cpu: &Cpu,
    rows: usize,
    work: usize,
    outputs: [(&mut [T], usize); N],
    task: impl Fn(Range<usize>, [&mut [T]; N]) + Sync,
) {
    let parts = outputs.map(|(slice, width)| {
        assert_eq!(slice.len(), rows * width);
        (Parts::new(slice), width)
    });
    ranges(cpu, rows, work, 1, |range| {
        let here = std::array::from_fn(|i| {
            let (parts, width) = &parts[i];
            // SAFETY: ranges do not overlap, so neither do their parts.
            unsafe { parts.part(range.start * width, range.len() * width) }
        });
        task(range, here);
    });
}

/// A range of columns of a matrix that one task writes.
pub(crate) struct Columns<'a> {
    parts: &'a Parts<'a, f32>,
    width: usize,
    range: Range<usize>,
}

impl Columns<'_> {
    /// The range.
    pub(crate) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The columns of one row.
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        // SAFETY: tasks have disjoint columns, and the borrow of `self` lends one row at a time.
        unsafe { self.parts.part(row * self.width + self.range.start, self.range.len()) }
    }
}

/// Runs `task` over ranges of columns that cover the rows of `out`, `width` floats each. `work` rows are read.
pub(crate) fn by_columns(cpu: &Cpu, work: usize, width: usize, out: &mut [f32], task: impl Fn(Columns<'_>) + Sync) {
    let parts = Parts::new(out);
    ranges(cpu, width, work, COLUMNS, |range| task(Columns { parts: &parts, width, range }));
}
