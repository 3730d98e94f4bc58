//! IQ3_XXS: 256 codes, 4 an entry of a grid of 256; per 32 of them a scale of 4 bits, per 8 seven signs.
//!
//! ```text
//! d: f16 | qs: [u8; 64] | words: [u32; 8]
//! qs[i] is the entry of codes 4i to 4i + 4; words hold signs and scales as in IQ2_XXS
//! value = d / 4 * (2 * scale + 1) * level          level: 4, 12, 20, 28, 36, 44, 52 or 62, with a sign
//! ```

use super::grid::{ZERO, even, fields, grid, odd, words, write_signed};
use super::{Coded, f16};
use crate::simd::Simd;
use minke_spec::Format;

static GRID: [[u8; 4]; 256] = grid(include_bytes!("grids/iq3_xxs.hex"), ZERO, &[4, 12, 20, 28, 36, 44, 52, 62]);

pub(crate) struct Iq3Xxs;

impl Coded for Iq3Xxs {
    const FORMAT: Format = Format::Iq3Xxs;
    const SUB: usize = 32;
    const ZERO: i32 = ZERO as i32;
    const SHIFTED: bool = false;
    const BITS: usize = 7;

    #[inline(always)]
    fn expand<S: Simd>(s: S, block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        let (d, mut entries) = (f16::read(block) / 4.0, [0; 64]);
        for (entry, byte) in entries.iter_mut().zip(&block[2..66]) {
            *entry = u16::from(*byte);
        }
        for (scale, word) in scales.iter_mut().zip(block[66..98].as_chunks::<4>().0) {
            *scale = odd(d, word[3] >> 4);
        }
        let signs = even(fields::<7>(words::<8, 4>(&block[66..98])));
        write_signed(s.gather_32(&GRID, &entries), signs, codes);
    }
}
