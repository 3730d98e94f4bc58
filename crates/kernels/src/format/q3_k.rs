//! Q3_K: 256 codes of 3 bits around 4; per 16 of them a scale of 6 bits around 32.
//!
//! ```text
//! hmask: [u8; 32] | qs: [u8; 64] | scales: [u8; 12] | d: f16
//! qs as in Q2_K; bit g of hmask[i] is the third bit of code 32g + i
//! scales: low halves of bytes 0..8 are the low 4 bits of scales 0..8, high halves those of 8..16;
//!         bits 2h, 2h + 1 of byte 8 + i are the high 2 bits of scale 4h + i
//! value = d * (scale - 32) * (code - 4)
//! ```

use super::fit::{Fitted, Grid, Levels};
use super::q2_k::{pack_two_bits, two_bits};
use super::{BlockFactors, Coded, Factors, Quantized, each, f16, u16_at};
use crate::isa::Isa;
use crate::simd::Simd;
use minke_spec::Format;

pub(crate) struct Q3K;

impl Coded for Q3K {
    const FORMAT: Format = Format::Q3K;
    const SUB: usize = 16;
    const ZERO: i32 = 4;
    const SHIFTED: bool = false;
    const BITS: usize = 3;
    const FACTORS: Option<Factors> = Some(Factors::Bytes { signed: true });

    #[inline(always)]
    fn expand<S: Simd>(_s: S, block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        let d = f16::read(&block[108..]);
        for (scale, factor) in scales.iter_mut().zip(scale_factors(block)) {
            *scale = d * f32::from(factor as i8);
        }
        two_bits(&block[32..96], codes);
        let mask = &block.as_chunks::<32>().0[0];
        for (group, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            each::<32>(mask, codes, |mask, code| code | (mask >> group & 1) << 2);
        }
    }

    fn factors(block: &[u8]) -> BlockFactors {
        BlockFactors { halves: [u16_at(block, 108), 0], bytes: [scale_factors(block), [0; 16]] }
    }
}

/// What the half of a block is multiplied with, by sub-block: bytes with a sign.
#[inline(always)]
fn scale_factors(block: &[u8]) -> [u8; 16] {
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    // Four scales at once, a byte each.
    let (four, two) = (0x0f0f_0f0f, 0x0303_0303);
    let mut factors = [0; 16];
    for (i, factors) in factors.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let low = word(96 + 4 * (i % 2)) >> (4 * (i / 2)) & four;
        let six = low | (word(104) >> (2 * i) & two) << 4;
        *factors = six.to_le_bytes().map(|scale| scale.wrapping_sub(32));
    }
    factors
}

impl Quantized for Q3K {
    fn quantize(isa: Isa, x: &[f32], w: &[f32], block: &mut [u8]) {
        const GRID: Grid = Grid { sub: 16, levels: Levels::Even(-4.0, 3.0), factors: (-32.0, 31.0), minimums: 0.0 };
        let fitted = Fitted::new(isa, x, w, &GRID);
        let codes = fitted.codes.map(|code| (code + 4) as u8);
        for (i, mask) in block[..32].iter_mut().enumerate() {
            *mask = (0..8).fold(0, |mask, group| mask | (codes[32 * group + i] >> 2 & 1) << group);
        }
        pack_two_bits(&codes, &mut block[32..96]);
        block[96..108].fill(0);
        for (s, factor) in fitted.factors.into_iter().enumerate() {
            let factor = (factor + 32) as u8;
            block[96 + s % 8] |= (factor & 15) << (4 * (s / 8));
            block[104 + s % 4] |= (factor >> 4) << (2 * (s / 4));
        }
        block[108..110].copy_from_slice(&fitted.d.to_le_bytes());
    }
}
