//! IQ1_S: 256 codes, 8 an entry of a grid of 2048; per 32 of them a scale of 3 bits and an eighth added or taken away.
//!
//! ```text
//! d: f16 | qs: [u8; 32] | qh: [u16; 8]
//! qs[i] is the entry of codes 8i to 8i + 8; bits 3j to 3j + 3 of qh[s] are the high bits of qs[4s + j], then come the scale
//! and a bit that is set if the eighth is taken away
//! value = d * (2 * scale + 1) * (code - 1 +- 1/8)      code: 0, 1 or 2
//! ```

use super::grid::{fields, grid, odd, words, write};
use super::{BlockFactors, Coded, Factors, f16, u16_at};
use crate::simd::Simd;
use minke_spec::Format;

pub(super) static GRID: [[u8; 8]; 2048] = grid(include_bytes!("grids/iq1.hex"), 0, &[0, 1, 2]);

pub(crate) struct Iq1S;

impl Coded for Iq1S {
    const FORMAT: Format = Format::Iq1S;
    const SUB: usize = 32;
    const ZERO: i32 = 0;
    const SHIFTED: bool = true;
    const BITS: usize = 2;
    const FACTORS: Option<Factors> = Some(Factors::Eighths);

    #[inline(always)]
    fn expand<S: Simd>(s: S, block: &[u8], codes: &mut [u8], scales: &mut [f32], shifts: &mut [f32]) {
        let d = f16::read(block);
        let mut entries = fields::<3>(words::<8, 2>(&block[34..50]));
        for (entry, low) in entries.iter_mut().zip(&block[2..34]) {
            *entry = *entry << 8 | u16::from(*low);
        }
        write(s.gather_64(&GRID, &entries), codes);
        for ((scale, shift), high) in scales.iter_mut().zip(shifts).zip(block[34..50].as_chunks::<2>().0) {
            *scale = odd(d, high[1] >> 4 & 7);
            *shift = if high[1] < 128 { *scale * -0.875 } else { *scale * -1.125 };
        }
    }

    fn factors(block: &[u8]) -> BlockFactors {
        let mut factors = BlockFactors { halves: [u16_at(block, 0), 0], ..BlockFactors::default() };
        for (byte, high) in factors.bytes[0].iter_mut().zip(block[34..50].as_chunks::<2>().0) {
            *byte = (2 * (high[1] >> 4 & 7) + 1) | high[1] & 128;
        }
        factors
    }
}
