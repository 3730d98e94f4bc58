//! The tuned versions.

use crate::device::Cpu;
use crate::isa::Isa;
use crate::ops::lanes::{map, update};
use crate::ops::split::by_rows;
use crate::simd::simd_fn;

/// Floats per partial sum of [`dot`].
const CHUNK: usize = 4096;
/// Partial sums that wait on the stack.
const WAITING: usize = 256;
/// Running sums within a chunk: float i goes to sum i % 16.
const SUMS: usize = 16;

/// Runs `f` over parts of x and y.
pub(super) fn one(cpu: &Cpu, x: &[f32], y: &mut [f32], f: impl Fn(Isa, &[f32], &mut [f32]) + Sync) {
    assert_eq!(x.len(), y.len());
    by_rows(cpu, y.len(), 1, [(y, 1)], |at, [y]| f(cpu.isa(), &x[at], y));
}

/// Runs `f` over parts of a, b and y.
pub(super) fn two(cpu: &Cpu, a: &[f32], b: &[f32], y: &mut [f32], f: impl Fn(Isa, &[f32], &[f32], &mut [f32]) + Sync) {
    assert_eq!((a.len(), b.len()), (y.len(), y.len()));
    by_rows(cpu, y.len(), 1, [(y, 1)], |at, [y]| f(cpu.isa(), &a[at.clone()], &b[at], y));
}

simd_fn! {
    pub(super) fn add_scaled<S>(s: S, a: &[f32], b: &[f32], scale: f32, y: &mut [f32]) {
        let scale = s.splat(scale);
        map(s, [a, b], [y], |[a, b]| [s.fma(scale, b, a)]);
    }

    pub(super) fn accumulate<S>(s: S, x: &[f32], scale: f32, y: &mut [f32]) {
        let scale = s.splat(scale);
        update(s, [x], [y], |[y], [x]| [s.fma(scale, x, y)]);
    }

    pub(super) fn scale<S>(s: S, x: &[f32], scale: f32, y: &mut [f32]) {
        let scale = s.splat(scale);
        map(s, [x], [y], |[x]| [s.mul(scale, x)]);
    }

    pub(super) fn mul<S>(s: S, a: &[f32], b: &[f32], y: &mut [f32]) {
        map(s, [a, b], [y], |[a, b]| [s.mul(a, b)]);
    }

    pub(super) fn sigmoid<S>(s: S, x: &[f32], y: &mut [f32]) {
        map(s, [x], [y], |[x]| [s.sigmoid(x)]);
    }

    pub(super) fn sigmoid_backward<S>(s: S, y: &[f32], dy: &[f32], dx: &mut [f32]) {
        let one = s.splat(1.0);
        map(s, [y, dy], [dx], |[y, dy]| [s.mul(dy, s.mul(y, s.sub(one, y)))]);
    }

    pub(super) fn clamp<S>(s: S, x: &[f32], low: f32, high: f32, y: &mut [f32]) {
        let (low, high) = (s.splat(low), s.splat(high));
        // `max` and `min` return their second argument for not a number.
        map(s, [x], [y], |[x]| [s.min(high, s.max(low, x))]);
    }

    pub(super) fn clamp_backward<S>(s: S, x: &[f32], low: f32, high: f32, dy: &[f32], dx: &mut [f32]) {
        let (low, high, zero) = (s.splat(low), s.splat(high), s.splat(0.0));
        map(s, [x, dy], [dx], |[x, dy]| {
            let above = s.select_less(x, low, zero, dy);
            [s.select_less(high, x, zero, above)]
        });
    }

    pub(super) fn min<S>(_s: S, a: &[f32], b: &[f32], y: &mut [f32]) {
        for ((a, b), y) in a.iter().zip(b).zip(y) {
            *y = if a < b || a.is_nan() { *a } else { *b };
        }
    }

    fn min_backward_part<S>(s: S, a: &[f32], b: &[f32], dy: &[f32], da: &mut [f32], db: &mut [f32]) {
        let (zero, half) = (s.splat(0.0), s.splat(0.5));
        map(s, [a, b, dy], [da, db], |[a, b, dy]| {
            let shared = s.mul(dy, half);
            let to_a = s.select_less(a, b, dy, s.select_less(b, a, zero, shared));
            let to_b = s.select_less(b, a, dy, s.select_less(a, b, zero, shared));
            [to_a, to_b]
        });
    }

    /// The sum of products of one chunk; products are exact in f64, so the paths agree.
    fn dot_chunk<S>(_s: S, a: &[f32], b: &[f32]) -> f64 {
        let mut sums = [0.0f64; SUMS];
        let (a, b) = (a.chunks_exact(SUMS), b.chunks_exact(SUMS));
        let tail = a.remainder().iter().zip(b.remainder());
        for (a, b) in a.zip(b) {
            for i in 0..SUMS {
                sums[i] += f64::from(a[i]) * f64::from(b[i]);
            }
        }
        for (sum, (&a, &b)) in sums.iter_mut().zip(tail) {
            *sum += f64::from(a) * f64::from(b);
        }
        let mut half = SUMS / 2;
        while half > 0 {
            for i in 0..half {
                sums[i] += sums[i + half];
            }
            half /= 2;
        }
        sums[0]
    }

    /// The largest exponent field of a chunk.
    fn largest_exponent<S>(_s: S, x: &[f32]) -> u32 {
        x.iter().fold(0, |largest, v| largest.max(v.to_bits() & 0x7f80_0000))
    }
}

pub(super) fn min_backward(cpu: &Cpu, a: &[f32], b: &[f32], dy: &[f32], da: &mut [f32], db: &mut [f32]) {
    by_rows(cpu, dy.len(), 1, [(da, 1), (db, 1)], |at, [da, db]| {
        min_backward_part(cpu.isa(), &a[at.clone()], &b[at.clone()], &dy[at], da, db);
    });
}

pub(super) fn exp(x: &[f32], y: &mut [f32]) {
    x.iter().zip(y).for_each(|(x, y)| *y = x.exp());
}

pub(super) fn fill(cpu: &Cpu, value: f32, y: &mut [f32]) {
    by_rows(cpu, y.len(), 1, [(y, 1)], |_, [y]| y.fill(value));
}

/// The sum of `a_i b_i` in f64.
pub(crate) fn dot(cpu: &Cpu, a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let mut total = 0.0;
    for (a, b) in a.chunks(CHUNK * WAITING).zip(b.chunks(CHUNK * WAITING)) {
        let mut sums = [0.0f64; WAITING];
        let count = a.len().div_ceil(CHUNK);
        by_rows(cpu, count, CHUNK, [(&mut sums[..count], 1)], |chunks, [sums]| {
            for (chunk, sum) in chunks.zip(sums) {
                let at = chunk * CHUNK..a.len().min((chunk + 1) * CHUNK);
                *sum = dot_chunk(cpu.isa(), &a[at.clone()], &b[at]);
            }
        });
        for sum in &sums[..count] {
            total += sum;
        }
    }
    total
}

/// The sum of `a_i^2` in f64, as [`dot`] does.
pub(crate) fn sum_squares(cpu: &Cpu, a: &[f32]) -> f64 {
    dot(cpu, a, a)
}

/// Whether no float is infinite or not a number.
pub(super) fn all_finite(cpu: &Cpu, x: &[f32]) -> bool {
    x.chunks(CHUNK * WAITING).all(|x| {
        let mut largest = [0u32; WAITING];
        let count = x.len().div_ceil(CHUNK);
        by_rows(cpu, count, CHUNK, [(&mut largest[..count], 1)], |chunks, [largest]| {
            for (chunk, largest) in chunks.zip(largest) {
                *largest = largest_exponent(cpu.isa(), &x[chunk * CHUNK..x.len().min((chunk + 1) * CHUNK)]);
            }
        });
        largest.iter().all(|&exponent| exponent < 0x7f80_0000)
    })
}
