//! IQ3_S: 256 codes, 4 an entry of a grid of 512; per 32 of them a scale of 4 bits, per 8 eight signs.
//!
//! ```text
//! d: f16 | qs: [u8; 64] | qh: [u8; 8] | signs: [u8; 32] | scales: [u8; 4]
//! qs[i] is the entry of codes 4i to 4i + 4, bit j of qh[h] the ninth bit of qs[8h + j]; scales as in IQ2_XS
//! value = d * (2 * scale + 1) * level              level: 1, 3, 5, 7, 9, 11, 13 or 15, with a sign
//! ```

use super::grid::{SIGNS, ZERO, grid, odd_scales, pair, signed};
use super::{Coded, f16};
use minke_spec::Format;

static GRID: [[u8; 4]; 512] = grid(include_bytes!("grids/iq3_s.hex"), &[1, 3, 5, 7, 9, 11, 13, 15]);

pub(crate) struct Iq3S;

impl Coded for Iq3S {
    const FORMAT: Format = Format::Iq3S;
    const SUB: usize = 32;
    const ZERO: i32 = ZERO as i32;
    const SHIFTED: bool = false;

    #[inline(never)]
    fn expand(block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        odd_scales(f16::read(block), &block[106..110], scales);
        let (low, high, signs) = (&block[2..66], &block[66..74], &block[74..106]);
        for (i, codes) in codes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let ninth = usize::from(high[i / 4]) << 8 >> (2 * (i % 4));
            let first = GRID[usize::from(low[2 * i]) | ninth & 256];
            let second = GRID[usize::from(low[2 * i + 1]) | ninth >> 1 & 256];
            *codes = signed(pair(first, second), SIGNS[usize::from(signs[i])]);
        }
    }
}
