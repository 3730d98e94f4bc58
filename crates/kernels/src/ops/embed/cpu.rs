//! The tuned version: columns over threads, because tokens may share a row.

use crate::device::Cpu;
use crate::format::bf16::Bf16;
use crate::ops::cast::cpu::widen;
use crate::ops::lanes::update;
use crate::ops::split::{Columns, by_columns, by_rows};
use crate::simd::simd_fn;

simd_fn! {
    fn add_columns<S>(s: S, ids: &[u32], dy: &[f32], width: usize, dtable: &mut Columns<'_>) {
        for (&id, dy) in ids.iter().zip(dy.chunks_exact(width)) {
            update(s, [&dy[dtable.range()]], [dtable.row(id as usize)], |[sum], [dy]| [s.add(sum, dy)]);
        }
    }
}

pub(super) fn backward_add(cpu: &Cpu, width: usize, ids: &[u32], dy: &[f32], dtable: &mut [f32]) {
    by_columns(cpu, ids.len(), width, dtable, |mut columns| {
        add_columns(cpu.isa(), ids, dy, width, &mut columns);
    });
}

pub(super) fn embed_bf16(cpu: &Cpu, table: &[Bf16], width: usize, ids: &[u32], y: &mut [f32]) {
    by_rows(cpu, ids.len(), width, [(y, width)], |at, [y]| {
        for (i, &id) in ids[at].iter().enumerate() {
            widen(cpu.isa(), &table[id as usize * width..][..width], &mut y[i * width..][..width]);
        }
    });
}
