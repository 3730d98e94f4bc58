//! IQ2_XS: 256 codes, 8 an entry of a grid of 512 with seven signs; per 16 of them a scale of 4 bits.
//!
//! ```text
//! d: f16 | qs: [u16; 32] | scales: [u8; 8]
//! qs[i]: low 9 bits are the entry of codes 8i to 8i + 8, the others their signs
//! scales[s]: scale 2s in the low half, 2s + 1 in the high one
//! value = d / 8 * (2 * scale + 1) * level          levels as in IQ2_XXS
//! ```

use super::grid::{ZERO, even, grid, odd_scales, write_signed};
use super::{Coded, f16};
use crate::simd::Simd;
use minke_spec::Format;

static GRID: [[u8; 8]; 512] = grid(include_bytes!("grids/iq2_xs.hex"), ZERO, &super::iq2_s::LEVELS);

pub(crate) struct Iq2Xs;

impl Coded for Iq2Xs {
    const FORMAT: Format = Format::Iq2Xs;
    const SUB: usize = 16;
    const ZERO: i32 = ZERO as i32;
    const SHIFTED: bool = false;
    const BITS: usize = 7;

    #[inline(always)]
    fn expand<S: Simd>(s: S, block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        odd_scales(f16::read(block) / 8.0, &block[66..74], scales);
        let (mut entries, mut signs) = ([0; 32], [0; 32]);
        for ((entry, signs), q) in entries.iter_mut().zip(&mut signs).zip(block[2..66].as_chunks().0) {
            *entry = u16::from_le_bytes(*q);
            *signs = *entry >> 9;
        }
        write_signed(s.gather_64(&GRID, &entries), even(signs), codes);
    }
}
