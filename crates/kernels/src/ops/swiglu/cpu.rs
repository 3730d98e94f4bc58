//! The tuned version.

use std::ops::Range;

use crate::Floats;
use crate::device::Cpu;
use crate::ops::cast::cpu::widen;
use crate::ops::lanes::map;
use crate::ops::split::by_rows;
use crate::simd::simd_fn;

/// What an exponential costs, in floats moved.
const WORK: usize = 4;
/// Floats that are widened at once.
const PIECE: usize = 1024;

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

/// The values of a range as f32; those of bf16 are widened into `room`.
fn part<'a>(cpu: &Cpu, x: Floats<'a>, at: Range<usize>, room: &'a mut [f32]) -> &'a [f32] {
    match x {
        Floats::F32(x) => &x.host()[at],
        Floats::Bf16(x) => {
            let room = &mut room[..at.len()];
            widen(cpu.isa(), &x.host()[at], room);
            room
        }
    }
}

pub(super) fn backward(cpu: &Cpu, gate: Floats<'_>, up: Floats<'_>, dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    by_rows(cpu, dy.len(), WORK, [(dgate, 1), (dup, 1)], |at, [dgate, dup]| {
        let mut room = [[0.0; PIECE]; 2];
        let [of_gate, of_up] = &mut room;
        for (i, (dgate, dup)) in dgate.chunks_mut(PIECE).zip(dup.chunks_mut(PIECE)).enumerate() {
            let at = at.start + i * PIECE..at.start + i * PIECE + dup.len();
            let (gate, up) = (part(cpu, gate, at.clone(), of_gate), part(cpu, up, at.clone(), of_up));
            backward_part(cpu.isa(), gate, up, &dy[at], dgate, dup);
        }
    });
}
