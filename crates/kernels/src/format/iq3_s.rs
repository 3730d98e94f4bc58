//! IQ3_S: 256 codes, 4 an entry of a grid of 512; per 32 of them a scale of 4 bits, per 8 eight signs.
//!
//! ```text
//! d: f16 | qs: [u8; 64] | qh: [u8; 8] | signs: [u8; 32] | scales: [u8; 4]
//! qs[i] is the entry of codes 4i to 4i + 4, bit j of qh[h] the ninth bit of qs[8h + j]; scales as in IQ2_XS
//! value = d * (2 * scale + 1) * level              level: 1, 3, 5, 7, 9, 11, 13 or 15, with a sign
//! ```

use super::grid::{ZERO, grid, odd_scales, ones, write, write_signed};
use super::{Coded, f16};
use crate::simd::Simd;
use minke_spec::Format;

static GRID: [[u8; 4]; 512] = grid(include_bytes!("grids/iq3_s.hex"), ZERO, &[1, 3, 5, 7, 9, 11, 13, 15]);

pub(crate) struct Iq3S;

impl Coded for Iq3S {
    const FORMAT: Format = Format::Iq3S;
    const SUB: usize = 32;
    const ZERO: i32 = ZERO as i32;
    const SHIFTED: bool = false;
    const BITS: usize = 7;

    #[inline(always)]
    fn expand<S: Simd>(s: S, block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        odd_scales(f16::read(block), &block[106..110], scales);
        let (mut words, mut ninths, mut entries, mut signs) = ([0; 8], [0; 64], [0; 64], [0; 32]);
        for (word, bits) in words.iter_mut().zip(&block[66..74]) {
            *word = ones(u64::from(*bits));
        }
        write(words, &mut ninths);
        for i in 0..64 {
            entries[i] = u16::from(ninths[i]) << 8 | u16::from(block[2 + i]);
        }
        for (signs, byte) in signs.iter_mut().zip(&block[74..106]) {
            *signs = u16::from(*byte);
        }
        write_signed(s.gather_32(&GRID, &entries), signs, codes);
    }
}
