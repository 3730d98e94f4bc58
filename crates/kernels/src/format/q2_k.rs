//! Q2_K: 256 codes of 2 bits; per 16 of them a scale and a minimum of 4 bits each.
//!
//! ```text
//! scales: [u8; 16] | qs: [u8; 64] | d: f16 | dmin: f16
//! scales[s]: scale in the low half, minimum in the high one
//! qs in two halves of 32 bytes, 128 codes each: bits 2j, 2j + 1 of byte i are code 32j + i
//! value = d * scale * code - dmin * minimum
//! ```

use super::fit::{Fitted, Grid, Levels};
use super::{BlockFactors, Coded, Factors, Quantized, each, f16, scaled, u16_at};
use crate::isa::Isa;
use crate::simd::Simd;
use minke_spec::Format;

pub(crate) struct Q2K;

impl Coded for Q2K {
    const FORMAT: Format = Format::Q2K;
    const SUB: usize = 16;
    const ZERO: i32 = 0;
    const SHIFTED: bool = true;
    const BITS: usize = 2;
    const FACTORS: Option<Factors> = Some(Factors::Nibbles);

    #[inline(always)]
    fn expand<S: Simd>(_s: S, block: &[u8], codes: &mut [u8], scales: &mut [f32], shifts: &mut [f32]) {
        let (d, least) = (f16::read(&block[80..]), f16::read(&block[82..]));
        let (mut low, mut high) = ([0; 16], [0; 16]);
        each::<16>(block, &mut low, |byte, _| byte & 15);
        each::<16>(block, &mut high, |byte, _| byte >> 4);
        scaled(d, low, scales);
        scaled(-least, high, shifts);
        two_bits(&block[16..80], codes);
    }

    /// Shifts are minimums times a half with the other sign.
    fn factors(block: &[u8]) -> BlockFactors {
        let mut factors =
            BlockFactors { halves: [u16_at(block, 80), u16_at(block, 82) ^ 0x8000], ..BlockFactors::default() };
        for (s, byte) in block[..16].iter().enumerate() {
            (factors.bytes[0][s], factors.bytes[1][s]) = (byte & 15, byte >> 4);
        }
        factors
    }
}

impl Quantized for Q2K {
    fn quantize(isa: Isa, x: &[f32], w: &[f32], block: &mut [u8]) {
        const GRID: Grid = Grid { sub: 16, levels: Levels::Even(0.0, 3.0), factors: (0.0, 15.0), minimums: 15.0 };
        let fitted = Fitted::new(isa, x, w, &GRID);
        for (byte, (factor, minimum)) in block.iter_mut().zip(fitted.factors.into_iter().zip(fitted.minimums)) {
            *byte = factor as u8 | minimum << 4;
        }
        pack_two_bits(&fitted.codes.map(|code| code as u8), &mut block[16..80]);
        block[80..82].copy_from_slice(&fitted.d.to_le_bytes());
        block[82..84].copy_from_slice(&fitted.least.to_le_bytes());
    }
}

/// Packs the low 2 bits of 256 codes.
pub(super) fn pack_two_bits(codes: &[u8; 256], packed: &mut [u8]) {
    for (codes, packed) in codes.as_chunks::<128>().0.iter().zip(packed.as_chunks_mut::<32>().0) {
        for (i, byte) in packed.iter_mut().enumerate() {
            *byte = (0..4).fold(0, |byte, j| byte | (codes[32 * j + i] & 3) << (2 * j));
        }
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
