//! The tuned version.

use crate::device::Cpu;
use crate::ops::lanes::map;
use crate::ops::split::by_rows;
use crate::simd::simd_fn;

/// What an exponential costs, in floats moved.
const WORK: usize = 4;

simd_fn! {
    fn forward_part<S>(s: S, gate: &[f32], up: &[f32], y: &mut [f32]) {
        map(s, [gate, up], [y], |[g, u]| [s.mul(s.mul(g, s.sigmoid(g)), u)]);
    }

    fn backward_part<S>(s: S, gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
        let one = s.splat(1.0);
        map(s, [gate, up, dy], [dgate, dup], |[g, u, dy]| {
            let sigmoid = s.sigmoid(g);
            let slope = s.mul(sigmoid, s.fma(g, s.sub(one, sigmoid), one));
            [s.mul(s.mul(dy, u), slope), s.mul(dy, s.mul(g, sigmoid))]
        });
    }
}

pub(super) fn forward(cpu: &Cpu, gate: &[f32], up: &[f32], y: &mut [f32]) {
    by_rows(cpu, y.len(), WORK, [(y, 1)], |at, [y]| {
        forward_part(cpu.isa(), &gate[at.clone()], &up[at], y);
    });
}

pub(super) fn backward(cpu: &Cpu, gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    by_rows(cpu, dy.len(), WORK, [(dgate, 1), (dup, 1)], |at, [dgate, dup]| {
        backward_part(cpu.isa(), &gate[at.clone()], &up[at.clone()], &dy[at], dgate, dup);
    });
}
