//! The tuned versions.

use crate::device::Cpu;
use crate::format::bf16::Bf16;
use crate::ops::split::by_rows;
use crate::simd::simd_fn;

simd_fn! {
    /// Rounds values.
    pub(crate) fn narrow<S>(_s: S, x: &[f32], y: &mut [Bf16]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = Bf16::from_f32(x);
        }
    }

    /// Widens values.
    pub(crate) fn widen<S>(_s: S, x: &[Bf16], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x.to_f32();
        }
    }
}

pub(super) fn narrow_all(cpu: &Cpu, x: &[f32], y: &mut [Bf16]) {
    by_rows(cpu, x.len(), 1, [(y, 1)], |at, [y]| narrow(cpu.isa(), &x[at], y));
}

pub(super) fn widen_all(cpu: &Cpu, x: &[Bf16], y: &mut [f32]) {
    by_rows(cpu, x.len(), 1, [(y, 1)], |at, [y]| widen(cpu.isa(), &x[at], y));
}
