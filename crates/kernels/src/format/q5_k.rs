//! Q5_K: 256 codes of 5 bits; per 32 of them a scale and a minimum of 6 bits each.
//!
//! ```text
//! d: f16 | dmin: f16 | scales: [u8; 12] | qh: [u8; 32] | qs: [u8; 128]
//! scales and qs as in Q4_K; bit g of qh[i] is the fifth bit of code 32g + i
//! value = d * scale * code - dmin * minimum
//! ```

use super::fit::{Fitted, Grid, Levels};
use super::q4_k::{four_bits, pack_four_bits, pack_six_bit_scales, six_bit_factors, six_bit_scales};
use super::{BlockFactors, Coded, Factors, Quantized, each};
use crate::isa::Isa;
use crate::simd::Simd;
use minke_spec::Format;

pub(crate) struct Q5K;

impl Coded for Q5K {
    const FORMAT: Format = Format::Q5K;
    const SUB: usize = 32;
    const ZERO: i32 = 0;
    const SHIFTED: bool = true;
    const BITS: usize = 5;
    const FACTORS: Option<Factors> = Some(Factors::Bytes { signed: false });

    #[inline(always)]
    fn expand<S: Simd>(_s: S, block: &[u8], codes: &mut [u8], scales: &mut [f32], shifts: &mut [f32]) {
        six_bit_scales(block, scales, shifts);
        four_bits(&block[48..176], codes);
        let high = &block[16..].as_chunks::<32>().0[0];
        for (group, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            each::<32>(high, codes, |high, code| code | (high >> group & 1) << 4);
        }
    }

    fn factors(block: &[u8]) -> BlockFactors {
        six_bit_factors(block)
    }
}

impl Quantized for Q5K {
    fn quantize(isa: Isa, x: &[f32], w: &[f32], block: &mut [u8]) {
        const GRID: Grid = Grid { sub: 32, levels: Levels::Even(0.0, 31.0), factors: (0.0, 63.0), minimums: 63.0 };
        let fitted = Fitted::new(isa, x, w, &GRID);
        pack_six_bit_scales(&fitted, block);
        let codes = fitted.codes.map(|code| code as u8);
        for (i, high) in block[16..48].iter_mut().enumerate() {
            *high = (0..8).fold(0, |high, group| high | (codes[32 * group + i] >> 4 & 1) << group);
        }
        pack_four_bits(&codes, &mut block[48..176]);
    }
}
