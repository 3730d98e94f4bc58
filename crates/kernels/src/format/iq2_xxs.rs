//! IQ2_XXS: 256 codes, 8 an entry of a grid of 256; per 32 of them a scale of 4 bits, per 8 seven signs.
//!
//! ```text
//! d: f16 | eight times: (qs: [u8; 4] | word: u32)
//! byte i of qs is the entry of codes 8i to 8i + 8, bits 7i to 7i + 7 of word are their signs, the last four bits the scale
//! value = d / 8 * (2 * scale + 1) * level          level: 8, 25 or 43, with a sign
//! ```

use super::grid::{ZERO, even, fields, grid, odd, words, write_signed};
use super::{Coded, f16};
use crate::simd::Simd;
use minke_spec::Format;

static GRID: [[u8; 8]; 256] = grid(include_bytes!("grids/iq2_xxs.hex"), ZERO, &super::iq2_s::LEVELS);

pub(crate) struct Iq2Xxs;

impl Coded for Iq2Xxs {
    const FORMAT: Format = Format::Iq2Xxs;
    const SUB: usize = 32;
    const ZERO: i32 = ZERO as i32;
    const SHIFTED: bool = false;
    const BITS: usize = 7;

    #[inline(always)]
    fn expand<S: Simd>(s: S, block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        let d = f16::read(block) / 8.0;
        let mut words = words::<8, 8>(&block[2..66]);
        let entries = fields::<8>(words);
        for (scale, group) in scales.iter_mut().zip(block[2..66].as_chunks::<8>().0) {
            *scale = odd(d, group[7] >> 4);
        }
        for word in &mut words {
            *word >>= 32;
        }
        let signs = fields::<7>(words);
        write_signed(s.gather_64(&GRID, &entries), even(signs), codes);
    }
}
