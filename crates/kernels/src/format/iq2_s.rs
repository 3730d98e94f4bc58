//! IQ2_S: 256 codes, 8 an entry of a grid of 1024 with eight signs; per 16 of them a scale of 4 bits.
//!
//! ```text
//! d: f16 | qs: [u8; 32] | signs: [u8; 32] | qh: [u8; 8] | scales: [u8; 8]
//! qs[i] is the entry of codes 8i to 8i + 8, bits 2j, 2j + 1 of qh[h] are the ninth and tenth bit of qs[4h + j]
//! scales as in IQ2_XS
//! value = d / 8 * (2 * scale + 1) * level          levels as in IQ2_XXS
//! ```

use super::grid::{ZERO, fields, grid, odd_scales, words, write_signed};
use super::{Coded, f16};
use crate::simd::Simd;
use minke_spec::Format;

/// What the levels of the IQ2 formats stand for.
pub(super) const LEVELS: [i8; 3] = [8, 25, 43];

static GRID: [[u8; 8]; 1024] = grid(include_bytes!("grids/iq2_s.hex"), ZERO, &LEVELS);

pub(crate) struct Iq2S;

impl Coded for Iq2S {
    const FORMAT: Format = Format::Iq2S;
    const SUB: usize = 16;
    const ZERO: i32 = ZERO as i32;
    const SHIFTED: bool = false;
    const BITS: usize = 7;

    #[inline(always)]
    fn expand<S: Simd>(s: S, block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        odd_scales(f16::read(block) / 8.0, &block[74..82], scales);
        let (mut entries, mut signs) = (fields::<2>(words::<8, 1>(&block[66..74])), [0; 32]);
        for i in 0..32 {
            entries[i] = entries[i] << 8 | u16::from(block[2 + i]);
            signs[i] = u16::from(block[34 + i]);
        }
        write_signed(s.gather_64(&GRID, &entries), signs, codes);
    }
}
