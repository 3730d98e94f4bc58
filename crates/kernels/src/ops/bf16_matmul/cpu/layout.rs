//! Layouts of operands: rounded rows, turned rows, pairs of rows.

use super::STEP;
use crate::device::Parts;
use crate::format::bf16::Bf16;
use crate::simd::simd_fn;

/// Columns of a panel.
pub(crate) const COLUMNS: usize = 16;
/// Pairs of rows of a step.
const PAIRS: usize = STEP / 2;

/// Words of two values: 16 rows of 16.
type Words = [[[Bf16; 2]; 16]; 16];

/// Up to 16 values, zeros behind them.
#[cold]
fn padded(row: &[Bf16]) -> [Bf16; 16] {
    let mut all = [Bf16::ZERO; 16];
    all[..row.len()].copy_from_slice(row);
    all
}

/// Writes the values of two rows in turn.
#[inline(always)]
fn write_pairs(first: &[Bf16; 16], second: &[Bf16; 16], to: &mut [Bf16; 32]) {
    let mut words = [0u32; 16];
    for ((word, a), b) in words.iter_mut().zip(first).zip(second) {
        *word = u32::from(a.0) | u32::from(b.0) << 16;
    }
    // SAFETY: 16 words have the size of 32 values, and their lower halves come first on all processors that there are paths for.
    unsafe { to.as_mut_ptr().cast::<[u32; 16]>().write_unaligned(words) };
}

simd_fn! {
    /// Rounds a row and writes zeros behind it. The row behind x is fetched meanwhile: the processor's own prefetching ends with a
    /// page, and a row is as long as one.
    pub(crate) fn round_row<S>(s: S, x: &[f32], to: &mut [Bf16]) {
        let len = x.len();
        let (values, padding) = to.split_at_mut(x.len());
        let ((groups, rest), (to_groups, to_rest)) = (x.as_chunks::<16>(), values.as_chunks_mut::<16>());
        for (to, x) in to_groups.iter_mut().zip(groups) {
            s.prefetch(x.as_ptr().wrapping_add(len));
            for (to, &x) in to.iter_mut().zip(x) {
                *to = Bf16::from_f32(x);
            }
        }
        for (to, &x) in to_rest.iter_mut().zip(rest) {
            *to = Bf16::from_f32(x);
        }
        padding.fill(Bf16::ZERO);
    }

    /// Writes up to 16 rows `w [rows, k]` as a panel of pairs: `[row_len(k) / 2][16][2]`, element (p, j, i) = w[j, 2 p + i].
    pub(crate) fn pack_rows<S>(s: S, w: &[Bf16], k: usize, panel: &mut [Bf16]) {
        assert!(S::LANES == 16 && panel.len().is_multiple_of(16 * STEP));
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
    pub(crate) unsafe fn pair_rows<S>(
        _s: S, x: &[Bf16], row: usize, rows: usize, columns: usize, step: usize, depth: usize, out: &Parts<'_, Bf16>
    ) {
        for first in (0..columns).step_by(COLUMNS) {
            let here = COLUMNS.min(columns - first);
            let at = first * depth + step * 16 * STEP;
            // SAFETY: the caller's promise.
            let to = unsafe { out.part(at, 16 * STEP) };
            for (pair, to) in to.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let at = 2 * (step * PAIRS + pair);
                let row_of = |i: usize| if i < rows { &x[i * row + first..][..here] } else { &[] };
                let both = [row_of(at), row_of(at + 1)];
                match both.map(<[Bf16]>::as_array) {
                    [Some(first), Some(second)] => write_pairs(first, second, to),
                    _ => write_pairs(&padded(both[0]), &padded(both[1]), to),
                }
            }
        }
    }

    /// Writes a step of rows of `x [STEP, width]`, whole steps too, turned: element (j, STEP step + i) of `[width, depth]` = x[i, j].
    ///
    /// # Safety
    /// The step's columns of `out` are this call's alone.
    pub(crate) unsafe fn turn_rows<S>(s: S, x: &[Bf16], width: usize, step: usize, depth: usize, out: &Parts<'_, Bf16>) {
        assert!(S::LANES == 16 && x.len() == STEP * width && width.is_multiple_of(16));
        for first in (0..width).step_by(16) {
            let mut words: Words = [[[Bf16::ZERO; 2]; 16]; 16];
            for (pair, words) in words.as_flattened_mut().as_flattened_mut().as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let [even, odd] = [0, 1].map(|i| x[(2 * pair + i) * width + first..].first_chunk());
                write_pairs(even.expect("a whole step"), odd.expect("a whole step"), words);
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
