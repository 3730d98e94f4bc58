//! IQ2_XXS: 256 codes, 8 an entry of a grid of 256; per 32 of them a scale of 4 bits, per 8 seven signs.
//!
//! ```text
//! d: f16 | eight times: (qs: [u8; 4] | word: u32)
//! byte i of qs is the entry of codes 8i to 8i + 8, bits 7i to 7i + 7 of word are their signs, the last four bits the scale
//! value = d / 8 * (2 * scale + 1) * level          level: 8, 25 or 43, with a sign
//! ```

use super::grid::{EVEN_SIGNS, ZERO, grid, odd, signed};
use super::{Coded, f16};
use minke_spec::Format;

static GRID: [[u8; 8]; 256] = grid(include_bytes!("grids/iq2_xxs.hex"), &super::iq2_s::LEVELS);

pub(crate) struct Iq2Xxs;

impl Coded for Iq2Xxs {
    const FORMAT: Format = Format::Iq2Xxs;
    const SUB: usize = 32;
    const ZERO: i32 = ZERO as i32;
    const SHIFTED: bool = false;

    #[inline(never)]
    fn expand(block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        let d = f16::read(block) / 8.0;
        let groups = block[2..66].as_chunks::<8>().0;
        for ((group, codes), scale) in groups.iter().zip(codes.as_chunks_mut::<32>().0).zip(scales) {
            let word = u64::from_le_bytes(*group);
            *scale = odd(d, (word >> 60) as u8);
            for (i, codes) in codes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let signs = EVEN_SIGNS[(word >> (32 + 7 * i) & 127) as usize];
                *codes = signed(u64::from_le_bytes(GRID[usize::from(group[i])]), signs);
            }
        }
    }
}
