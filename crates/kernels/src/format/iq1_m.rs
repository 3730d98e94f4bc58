//! IQ1_M: 256 codes, 8 an entry of the grid of IQ1_S with an eighth added or taken away; per 16 of them a scale of 3 bits.
//!
//! ```text
//! qs: [u8; 32] | qh: [u8; 16] | scales: [u16; 4]
//! qs[i] is the entry of codes 8i to 8i + 8; the low half of qh[h] belongs to qs[2h], the high one to qs[2h + 1]: three high
//! bits, then one that is set if the eighth is taken away
//! scales[w]: bits 3j to 3j + 3 are scale 4w + j; the high four bits of all words, the first one's lowest, are d: f16
//! value = d * (2 * scale + 1) * (code - 1 +- 1/8)      code as in IQ1_S; here 64 + 8 * (code - 1) +- 1
//! ```

use super::grid::{ZERO, fields, odd, words, write};
use super::iq1_s::GRID;
use super::{Coded, f16};
use crate::simd::Simd;
use minke_spec::Format;

pub(crate) struct Iq1M;

impl Coded for Iq1M {
    const FORMAT: Format = Format::Iq1M;
    const SUB: usize = 16;
    const ZERO: i32 = ZERO as i32;
    const SHIFTED: bool = false;
    const BITS: usize = 7;

    #[inline(always)]
    fn expand<S: Simd>(s: S, block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        let words_of_scales = block[48..56].as_chunks().0;
        let d = words_of_scales.iter().rev().fold(0, |d, word| d << 4 | u16::from_le_bytes(*word) >> 12);
        let d = f16::decode(d) / 8.0;
        for (word, scales) in words_of_scales.iter().zip(scales.as_chunks_mut::<4>().0) {
            for (j, scale) in scales.iter_mut().enumerate() {
                *scale = odd(d, (u16::from_le_bytes(*word) >> (3 * j) & 7) as u8);
            }
        }
        let (high, mut entries) = (fields::<4>(words::<8, 2>(&block[32..48])), [0; 32]);
        for i in 0..32 {
            entries[i] = u16::from(block[i]) | (high[i] & 7) << 8;
        }
        let mut entries = s.gather_64(&GRID, &entries);
        for (entry, high) in entries.iter_mut().zip(high) {
            let eighth = if high & 8 == 0 { 0x3939_3939_3939_3939 } else { 0x3737_3737_3737_3737 };
            *entry = (*entry << 3) + eighth;
        }
        write(entries, codes);
    }
}
