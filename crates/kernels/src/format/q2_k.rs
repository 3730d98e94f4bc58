//! Q2_K: 256 codes of 2 bits; per 16 of them a scale and a minimum of 4 bits each.
//!
//! ```text
//! scales: [u8; 16] | qs: [u8; 64] | d: f16 | dmin: f16
//! scales[s]: scale in the low half, minimum in the high one
//! qs in two halves of 32 bytes, 128 codes each: bits 2j, 2j + 1 of byte i are code 32j + i
//! value = d * scale * code - dmin * minimum
//! ```

use super::{Coded, each, f16, scaled};
use minke_spec::Format;

pub(crate) struct Q2K;

impl Coded for Q2K {
    const FORMAT: Format = Format::Q2K;
    const SUB: usize = 16;
    const ZERO: i32 = 0;
    const SHIFTED: bool = true;

    #[inline(always)]
    fn expand(block: &[u8], codes: &mut [u8], scales: &mut [f32], shifts: &mut [f32]) {
        let (d, least) = (f16::read(&block[80..]), f16::read(&block[82..]));
        let (mut low, mut high) = ([0; 16], [0; 16]);
        each::<16>(block, &mut low, |byte, _| byte & 15);
        each::<16>(block, &mut high, |byte, _| byte >> 4);
        scaled(d, low, scales);
        scaled(-least, high, shifts);
        two_bits(&block[16..80], codes);
    }
}

/// Writes 256 codes of 2 bits.
#[inline(always)]
pub(super) fn two_bits(packed: &[u8], codes: &mut [u8]) {
    for (packed, codes) in packed.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<128>().0) {
        for (j, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            each::<32>(packed, codes, |byte, _| byte >> (2 * j) & 3);
        }
    }
}
