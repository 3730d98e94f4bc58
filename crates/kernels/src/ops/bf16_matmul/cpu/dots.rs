//! Products by `vdpbf16ps`: a pair of products is added to each of 16 sums.

use std::arch::x86_64::*;

use super::STEP;
use super::layout::COLUMNS;
use super::part::Part;
use crate::format::bf16::Bf16;
use crate::isa::{Isa, Kind};

/// Proof that the path has the instruction.
#[derive(Clone, Copy)]
pub(crate) struct Dots(());

impl Dots {
    /// The proof, if the path is the one that uses it.
    pub(crate) fn of(isa: Isa) -> Option<Self> {
        (isa.0 == Kind::Avx512Bf16).then_some(Self(()))
    }

    /// Computes a part.
    ///
    /// # Safety
    /// The pointers are valid for the part, which nothing else reads or writes.
    pub(super) unsafe fn multiply(self, part: Part) {
        for j in (0..part.n).step_by(2 * COLUMNS) {
            let mut i = 0;
            while i < part.m {
                // SAFETY: the caller's promise; the proof says that the instructions exist.
                unsafe {
                    i += match part.m - i {
                        12.. => tile::<12>(part, i, j),
                        8.. => tile::<8>(part, i, j),
                        4.. => tile::<4>(part, i, j),
                        2.. => tile::<2>(part, i, j),
                        _ => tile::<1>(part, i, j),
                    };
                }
            }
        }
    }
}

/// Computes R rows and up to 32 columns, from row i and column j on; returns R.
///
/// # Safety
/// As [`Dots::multiply`].
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16")]
unsafe fn tile<const R: usize>(part: Part, i: usize, j: usize) -> usize {
    let columns = part.n - j;
    let masks = [columns, columns.saturating_sub(COLUMNS)].map(|n| ((1u32 << n.min(COLUMNS)) - 1) as __mmask16);
    let c = part.c.wrapping_add(i * part.c_row + j);
    let a = part.a.wrapping_add(i * part.a_row).cast::<i32>();
    let b: *const Bf16 = part.b.wrapping_add(j / COLUMNS * part.panel);
    // A single panel is read twice, and its second sums are not written.
    let right = if columns > COLUMNS { b.wrapping_add(part.panel) } else { b };
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: the caller's promise.
    unsafe {
        if part.accumulate {
            for (row, sums) in sums.iter_mut().enumerate() {
                let c = c.wrapping_add(row * part.c_row);
                sums[0] = _mm512_maskz_loadu_ps(masks[0], c);
                sums[1] = _mm512_maskz_loadu_ps(masks[1], c.wrapping_add(COLUMNS));
            }
        }
        for pair in 0..part.steps * STEP / 2 {
            let left = bf16(_mm512_loadu_si512(b.wrapping_add(2 * COLUMNS * pair).cast()));
            let right = bf16(_mm512_loadu_si512(right.wrapping_add(2 * COLUMNS * pair).cast()));
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = bf16(_mm512_set1_epi32(a.wrapping_add(row * part.a_row / 2 + pair).read_unaligned()));
                sums[0] = _mm512_dpbf16_ps(sums[0], x, left);
                sums[1] = _mm512_dpbf16_ps(sums[1], x, right);
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let c = c.wrapping_add(row * part.c_row);
            _mm512_mask_storeu_ps(c, masks[0], sums[0]);
            _mm512_mask_storeu_ps(c.wrapping_add(COLUMNS), masks[1], sums[1]);
        }
    }
    R
}

/// The same bits as pairs of bf16.
#[inline]
#[target_feature(enable = "avx512f")]
fn bf16(x: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits, and any bits are a value of either.
    unsafe { std::mem::transmute(x) }
}
