//! IQ3_XXS: 256 codes, 4 an entry of a grid of 256; per 32 of them a scale of 4 bits, per 8 seven signs.
//!
//! ```text
//! d: f16 | qs: [u8; 64] | words: [u32; 8]
//! qs[i] is the entry of codes 4i to 4i + 4; words hold signs and scales as in IQ2_XXS
//! value = d / 4 * (2 * scale + 1) * level          level: 4, 12, 20, 28, 36, 44, 52 or 62, with a sign
//! ```

use super::grid::{EVEN_SIGNS, ZERO, grid, odd, pair, signed};
use super::{Coded, f16};
use minke_spec::Format;

static GRID: [[u8; 4]; 256] = grid(include_bytes!("grids/iq3_xxs.hex"), &[4, 12, 20, 28, 36, 44, 52, 62]);

pub(crate) struct Iq3Xxs;

impl Coded for Iq3Xxs {
    const FORMAT: Format = Format::Iq3Xxs;
    const SUB: usize = 32;
    const ZERO: i32 = ZERO as i32;
    const SHIFTED: bool = false;

    #[inline(never)]
    fn expand(block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        let d = f16::read(block) / 4.0;
        let groups = block[2..66].as_chunks::<8>().0.iter().zip(block[66..98].as_chunks().0);
        for (((group, word), codes), scale) in groups.zip(codes.as_chunks_mut::<32>().0).zip(scales) {
            let word = u32::from_le_bytes(*word);
            *scale = odd(d, (word >> 28) as u8);
            for (i, codes) in codes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let signs = EVEN_SIGNS[(word >> (7 * i) & 127) as usize];
                let [first, second] = [group[2 * i], group[2 * i + 1]].map(|entry| GRID[usize::from(entry)]);
                *codes = signed(pair(first, second), signs);
            }
        }
    }
}
