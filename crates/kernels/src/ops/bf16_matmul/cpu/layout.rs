//! Layouts of operands: rounded rows, turned rows, pairs of rows.

use super::STEP;
use crate::device::Parts;
use crate::format::bf16::Bf16;
use crate::simd::simd_fn;

/// Columns of a panel.
pub(super) const COLUMNS: usize = 16;
/// Pairs of rows of a step.
const PAIRS: usize = STEP / 2;

/// Words of two values: 16 rows of 16.
type Words = [[[Bf16; 2]; 16]; 16];

simd_fn! {
    /// Rounds a row and writes zeros behind it.
    pub(super) fn round_row<S>(_s: S, x: &[f32], to: &mut [Bf16]) {
        let (values, padding) = to.split_at_mut(x.len());
        for (to, &x) in values.iter_mut().zip(x) {
            *to = Bf16::from_f32(x);
        }
        padding.fill(Bf16::ZERO);
    }

    /// Writes up to 16 rows `w [rows, k]` as a panel of pairs: `[row_len(k) / 2][16][2]`, element (p, j, i) = w[j, 2 p + i].
    pub(super) fn pack_rows<S>(s: S, w: &[Bf16], k: usize, panel: &mut [Bf16]) {
        assert!(S::LANES == 16 && panel.len() % (16 * STEP) == 0);
        for (step, to) in panel.chunks_exact_mut(16 * STEP).enumerate() {
            let mut words: Words = [[[Bf16::ZERO; 2]; 16]; 16];
            let terms = STEP.min(k - step * STEP);
            for (row, to) in w.chunks_exact(k).zip(&mut words) {
                to.as_flattened_mut()[..terms].copy_from_slice(&row[step * STEP..][..terms]);
            }
            // SAFETY: both are 16 rows of 16 words.
            unsafe { s.transpose(words.as_ptr().cast(), 16, to.as_mut_ptr().cast(), 16) };
        }
    }

    /// Writes a step of rows of `x [rows, columns]`, `row` values apart, as pairs of rows: `[depth / 2][16][2]` for every 16
    /// columns, element (p, j, i) = x[2 p + i, j].
    ///
    /// # Safety
    /// The step's part of every panel is this call's alone.
    pub(super) unsafe fn pair_rows<S>(
        _s: S, x: &[Bf16], row: usize, rows: usize, columns: usize, step: usize, depth: usize, out: &Parts<'_, Bf16>
    ) {
        const NONE: [Bf16; 16] = [Bf16::ZERO; 16];
        for first in (0..columns).step_by(COLUMNS) {
            let here = COLUMNS.min(columns - first);
            let at = first * depth + step * 16 * STEP;
            // SAFETY: the caller's promise.
            let to = unsafe { out.part(at, 16 * STEP) };
            for (pair, to) in to.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let mut both = [NONE; 2];
                for (i, values) in both.iter_mut().enumerate() {
                    let at = 2 * (step * PAIRS + pair) + i;
                    if at < rows {
                        let from = &x[at * row + first..][..here];
                        // A whole panel is copied as one register.
                        match from.as_array::<COLUMNS>() {
                            Some(whole) => *values = *whole,
                            None => values[..here].copy_from_slice(from),
                        }
                    }
                }
                for j in 0..COLUMNS {
                    (to[2 * j], to[2 * j + 1]) = (both[0][j], both[1][j]);
                }
            }
        }
    }

    /// Writes a step of rows of `x [STEP, width]`, whole steps too, turned: element (j, STEP step + i) of `[width, depth]` = x[i, j].
    ///
    /// # Safety
    /// The step's columns of `out` are this call's alone.
    pub(super) unsafe fn turn_rows<S>(s: S, x: &[Bf16], width: usize, step: usize, depth: usize, out: &Parts<'_, Bf16>) {
        assert!(S::LANES == 16 && x.len() == STEP * width && width % 16 == 0);
        for first in (0..width).step_by(16) {
            let mut words: Words = [[[Bf16::ZERO; 2]; 16]; 16];
            for (pair, words) in words.iter_mut().enumerate() {
                let (even, odd) = (&x[2 * pair * width + first..][..16], &x[(2 * pair + 1) * width + first..][..16]);
                for j in 0..16 {
                    words[j] = [even[j], odd[j]];
                }
            }
            assert!((first + 16) * depth <= out.len() && (step + 1) * STEP <= depth);
            // SAFETY: 16 rows of `out`, of each the step's 16 words, by the assertion; nothing else writes them.
            unsafe {
                let to = out.pointer(first * depth + step * STEP);
                s.transpose(words.as_ptr().cast(), 16, to.cast(), depth / 2);
            }
        }
    }
}
