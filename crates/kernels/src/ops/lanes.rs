//! Loops of kernels over floats: whole registers and one partial one, so that a float's result does not depend on where
//! it lies.

use crate::simd::Simd;

/// Writes `outputs = f(inputs)`, float by float.
#[inline(always)]
pub(crate) fn map<S: Simd, const N: usize, const M: usize>(
    s: S,
    inputs: [&[f32]; N],
    outputs: [&mut [f32]; M],
    f: impl Fn([S::V; N]) -> [S::V; M],
) {
    walk::<S, N, M, false>(s, inputs, outputs, |_, x| f(x));
}

/// Replaces `outputs` by `f(outputs, inputs)`, float by float.
#[inline(always)]
pub(crate) fn update<S: Simd, const N: usize, const M: usize>(
    s: S,
    inputs: [&[f32]; N],
    outputs: [&mut [f32]; M],
    f: impl Fn([S::V; M], [S::V; N]) -> [S::V; M],
) {
    walk::<S, N, M, true>(s, inputs, outputs, f);
}

#[inline(always)]
fn walk<S: Simd, const N: usize, const M: usize, const READ: bool>(
    s: S,
    inputs: [&[f32]; N],
    outputs: [&mut [f32]; M],
    f: impl Fn([S::V; M], [S::V; N]) -> [S::V; M],
) {
    let len = outputs[0].len();
    assert!(inputs.iter().all(|x| x.len() == len) && outputs.iter().all(|y| y.len() == len));
    // `f` is called in one place, for whole and partial registers: so the compiler puts it into the loop, and with it
    // the instructions of the path. Called in two places it becomes a function without them.
    let mut at = 0;
    while at < len {
        let n = S::LANES.min(len - at);
        let whole = n == S::LANES;
        let (mut x, mut y) = ([s.splat(0.0); N], [s.splat(0.0); M]);
        // SAFETY: all slices have `len` floats, and `at + n <= len`; n is LANES in the whole case.
        unsafe {
            for i in 0..N {
                let from = inputs[i].as_ptr().add(at);
                x[i] = if whole { s.load_ptr(from) } else { s.load_ptr_n(from, n) };
            }
            if READ {
                for i in 0..M {
                    let from = outputs[i].as_ptr().add(at);
                    y[i] = if whole { s.load_ptr(from) } else { s.load_ptr_n(from, n) };
                }
            }
        }
        let y = f(y, x);
        for i in 0..M {
            let to = outputs[i][at..].as_mut_ptr();
            // SAFETY: as above.
            unsafe { if whole { s.store_ptr(y[i], to) } else { s.store_ptr_n(y[i], to, n) } }
        }
        at += n;
    }
}

/// The sum of products in an order that depends on the length and the path: four registers of sums in turn.
#[inline(always)]
pub(crate) fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let (a, b) = (a.chunks_exact(4 * S::LANES), b.chunks_exact(4 * S::LANES));
    let tail = a.remainder().chunks(S::LANES).zip(b.remainder().chunks(S::LANES));
    let mut sums = [s.splat(0.0); 4];
    for (a, b) in a.zip(b) {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = s.fma(s.load(&a[i * S::LANES..]), s.load(&b[i * S::LANES..]), *sum);
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(tail) {
        *sum = s.fma(s.load_partial(a), s.load_partial(b), *sum);
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}
