//! IQ1_M: 256 codes, 8 an entry of the grid of IQ1_S with an eighth added or taken away; per 16 of them a scale of 3 bits.
//!
//! ```text
//! qs: [u8; 32] | qh: [u8; 16] | scales: [u16; 4]
//! qs[i] is the entry of codes 8i to 8i + 8; the low half of qh[h] belongs to qs[2h], the high one to qs[2h + 1]: three high
//! bits, then one that is set if the eighth is taken away
//! scales[w]: bits 3j to 3j + 3 are scale 4w + j; the high four bits of all words, the first one's lowest, are d: f16
//! value = d * (2 * scale + 1) * (level +- 1/8)     as IQ1_S
//! ```

use super::grid::{ZERO, odd};
use super::iq1_s::eighths;
use super::{Coded, f16};
use minke_spec::Format;

pub(crate) struct Iq1M;

impl Coded for Iq1M {
    const FORMAT: Format = Format::Iq1M;
    const SUB: usize = 16;
    const ZERO: i32 = ZERO as i32;
    const SHIFTED: bool = false;

    #[inline(never)]
    fn expand(block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        let (low, high) = (&block[..32], &block[32..48]);
        let words = block[48..56].as_chunks().0;
        let d = words.iter().rev().fold(0, |d, word| d << 4 | u16::from_le_bytes(*word) >> 12);
        let d = f16::decode(d) / 8.0;
        for (word, scales) in words.iter().zip(scales.as_chunks_mut::<4>().0) {
            for (j, scale) in scales.iter_mut().enumerate() {
                *scale = odd(d, (u16::from_le_bytes(*word) >> (3 * j) & 7) as u8);
            }
        }
        for (i, codes) in codes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let high = high[i / 2] >> (4 * (i % 2));
            *codes = eighths(usize::from(low[i]) | usize::from(high & 7) << 8, high & 8 == 0);
        }
    }
}
