//! The tuned versions.

use crate::Floats;
use crate::device::{Buffer, Cpu};
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

/// Values as f32: those that are, or widened in memory of their own.
pub(crate) enum Wide<'a> {
    Own(Buffer),
    Lent(&'a [f32]),
}

impl<'a> Wide<'a> {
    pub(crate) fn new(cpu: &Cpu, x: Floats<'a>) -> Self {
        match x {
            Floats::F32(x) => Self::Lent(x.host()),
            Floats::Bf16(x) => {
                let mut wide = cpu.buffer::<f32>(x.len());
                widen_all(cpu, x.host(), wide.as_mut_slice());
                Self::Own(wide)
            }
        }
    }

    pub(crate) fn values(&self) -> &[f32] {
        match self {
            Self::Own(buffer) => buffer.as_slice(),
            Self::Lent(values) => values,
        }
    }
}

pub(crate) fn narrow_all(cpu: &Cpu, x: &[f32], y: &mut [Bf16]) {
    by_rows(cpu, x.len(), 1, [(y, 1)], |at, [y]| narrow(cpu.isa(), &x[at], y));
}

pub(super) fn widen_all(cpu: &Cpu, x: &[Bf16], y: &mut [f32]) {
    by_rows(cpu, x.len(), 1, [(y, 1)], |at, [y]| widen(cpu.isa(), &x[at], y));
}
