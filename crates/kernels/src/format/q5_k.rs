//! Q5_K: 256 codes of 5 bits; per 32 of them a scale and a minimum of 6 bits each.
//!
//! ```text
//! d: f16 | dmin: f16 | scales: [u8; 12] | qh: [u8; 32] | qs: [u8; 128]
//! scales and qs as in Q4_K; bit g of qh[i] is the fifth bit of code 32g + i
//! value = d * scale * code - dmin * minimum
//! ```

use super::q4_k::{four_bits, six_bit_scales};
use super::{Coded, each};
use minke_spec::Format;

pub(crate) struct Q5K;

impl Coded for Q5K {
    const FORMAT: Format = Format::Q5K;
    const SUB: usize = 32;
    const ZERO: i32 = 0;
    const SHIFTED: bool = true;

    #[inline(always)]
    fn expand(block: &[u8], codes: &mut [u8], scales: &mut [f32], shifts: &mut [f32]) {
        six_bit_scales(block, scales, shifts);
        four_bits(&block[48..176], codes);
        let high = &block[16..].as_chunks::<32>().0[0];
        for (group, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            each::<32>(high, codes, |high, code| code | (high >> group & 1) << 4);
        }
    }
}
