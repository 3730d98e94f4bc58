//! Q4_K: 256 codes of 4 bits; per 32 of them a scale and a minimum of 6 bits each.
//!
//! ```text
//! d: f16 | dmin: f16 | scales: [u8; 12] | qs: [u8; 128]
//! scales: low 6 bits of bytes 0..4 are scales 0..4, of bytes 4..8 minimums 0..4; byte 8 + i has the low 4 bits of
//!         scale 4 + i and of minimum 4 + i, whose high 2 bits are those of bytes i and 4 + i
//! qs in four parts of 32 bytes, 64 codes each: low halves are codes 0..32, high ones 32..64
//! value = d * scale * code - dmin * minimum
//! ```

use super::fit::{Fitted, Grid, Levels};
use super::{BlockFactors, Coded, Factors, Quantized, each, f16, scaled, u16_at};
use crate::isa::Isa;
use crate::simd::Simd;
use minke_spec::Format;

pub(crate) struct Q4K;

impl Coded for Q4K {
    const FORMAT: Format = Format::Q4K;
    const SUB: usize = 32;
    const ZERO: i32 = 0;
    const SHIFTED: bool = true;
    const BITS: usize = 4;
    const FACTORS: Option<Factors> = Some(Factors::Bytes { signed: false });

    #[inline(always)]
    fn expand<S: Simd>(_s: S, block: &[u8], codes: &mut [u8], scales: &mut [f32], shifts: &mut [f32]) {
        six_bit_scales(block, scales, shifts);
        four_bits(&block[16..144], codes);
    }

    fn factors(block: &[u8]) -> BlockFactors {
        six_bit_factors(block)
    }
}

impl Quantized for Q4K {
    fn quantize(isa: Isa, x: &[f32], w: &[f32], block: &mut [u8]) {
        const GRID: Grid = Grid { sub: 32, levels: Levels::Even(0.0, 15.0), factors: (0.0, 63.0), minimums: 63.0 };
        let fitted = Fitted::new(isa, x, w, &GRID);
        pack_six_bit_scales(&fitted, block);
        pack_four_bits(&fitted.codes.map(|code| code as u8), &mut block[16..144]);
    }
}

/// Packs the scales and minimums of a block that begins as Q4_K does.
pub(super) fn pack_six_bit_scales(fitted: &Fitted, block: &mut [u8]) {
    block[..2].copy_from_slice(&fitted.d.to_le_bytes());
    block[2..4].copy_from_slice(&fitted.least.to_le_bytes());
    let (scales, minimums) = (fitted.factors.map(|factor| factor as u8), fitted.minimums);
    for i in 0..4 {
        block[4 + i] = scales[i] | scales[4 + i] >> 4 << 6;
        block[8 + i] = minimums[i] | minimums[4 + i] >> 4 << 6;
        block[12 + i] = scales[4 + i] & 15 | minimums[4 + i] << 4;
    }
}

/// Packs the low 4 bits of 256 codes.
pub(super) fn pack_four_bits(codes: &[u8; 256], packed: &mut [u8]) {
    for (codes, packed) in codes.as_chunks::<64>().0.iter().zip(packed.as_chunks_mut::<32>().0) {
        for (i, byte) in packed.iter_mut().enumerate() {
            *byte = codes[i] & 15 | codes[32 + i] << 4;
        }
    }
}

/// Writes the scales and shifts of a block that begins as Q4_K does.
#[inline(always)]
pub(super) fn six_bit_scales(block: &[u8], scales: &mut [f32], shifts: &mut [f32]) {
    let (d, least) = (f16::read(block), f16::read(&block[2..]));
    let [factors, minimums] = six_bits(block);
    scaled(d, factors, scales);
    scaled(-least, minimums, shifts);
}

/// The same as they are stored; shifts are minimums times a half with the other sign.
pub(super) fn six_bit_factors(block: &[u8]) -> BlockFactors {
    let mut factors = BlockFactors { halves: [u16_at(block, 0), u16_at(block, 2) ^ 0x8000], ..BlockFactors::default() };
    for (out, bytes) in factors.bytes.iter_mut().zip(six_bits(block)) {
        out[..8].copy_from_slice(&bytes);
    }
    factors
}

/// The scales and minimums of a block that begins as Q4_K does.
#[inline(always)]
fn six_bits(block: &[u8]) -> [[u8; 8]; 2] {
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    // Four scales or minimums at once, a byte each.
    let (low, middle, high) = (word(4), word(8), word(12));
    let (six, four, two) = (0x3f3f_3f3f, 0x0f0f_0f0f, 0x0303_0303);
    let bytes = |first: u32, second: u32| (u64::from(first) | u64::from(second) << 32).to_le_bytes();
    [
        bytes(low & six, high & four | (low >> 6 & two) << 4),
        bytes(middle & six, high >> 4 & four | (middle >> 6 & two) << 4),
    ]
}

/// Writes 256 codes of 4 bits.
#[inline(always)]
pub(super) fn four_bits(packed: &[u8], codes: &mut [u8]) {
    for (packed, codes) in packed.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<64>().0) {
        let (low, high) = codes.split_at_mut(32);
        each::<32>(packed, low, |byte, _| byte & 15);
        each::<32>(packed, high, |byte, _| byte >> 4);
    }
}
