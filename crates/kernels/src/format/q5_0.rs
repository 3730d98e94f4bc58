//! Q5_0: 32 codes of 5 bits around 16, one scale.
//!
//! ```text
//! d: f16 | qh: u32 | qs: [u8; 16]  qs as Q4_0; bit i of qh is the fifth bit of code i
//! value = d * (code - 16)
//! ```

use super::fit::{self, Levels, Minimum};
use super::grid::ones;
use super::{BlockFactors, Coded, Factors, Quantized, f16, nibbles, pack_nibbles, u16_at};
use crate::isa::Isa;
use crate::simd::Simd;
use minke_spec::Format;

pub(crate) struct Q5_0;

impl Coded for Q5_0 {
    const FORMAT: Format = Format::Q5_0;
    const SUB: usize = 32;
    const ZERO: i32 = 16;
    const SHIFTED: bool = false;
    const BITS: usize = 5;
    const FACTORS: Option<Factors> = Some(Factors::Halves);

    #[inline(always)]
    fn expand<S: Simd>(_s: S, block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        scales[0] = f16::read(block);
        nibbles(&block[6..22], codes);
        fifth_bits(&block[2..6], codes);
    }

    fn factors(block: &[u8]) -> BlockFactors {
        BlockFactors { halves: [u16_at(block, 0), 0], ..BlockFactors::default() }
    }
}

impl Quantized for Q5_0 {
    fn quantize(isa: Isa, x: &[f32], w: &[f32], block: &mut [u8]) {
        let mut codes = [0; 32];
        let (scale, _) = fit::flat(isa, x, w, Levels::Even(-16.0, 15.0), Minimum::Absent, &mut codes);
        let codes = codes.map(|code| (code + 16) as u8);
        block[..2].copy_from_slice(&scale.to_le_bytes());
        block[2..6].copy_from_slice(&pack_fifth_bits(&codes));
        pack_nibbles(&codes, &mut block[6..22]);
    }
}

/// The fifth bits of 32 codes.
pub(super) fn pack_fifth_bits(codes: &[u8; 32]) -> [u8; 4] {
    codes.iter().enumerate().fold(0, |high, (i, code)| high | u32::from(code >> 4 & 1) << i).to_le_bytes()
}

/// Adds the fifth bits of 32 codes.
#[inline(always)]
pub(super) fn fifth_bits(high: &[u8], codes: &mut [u8]) {
    let mut fifths = [0; 4];
    for (fifth, bits) in fifths.iter_mut().zip(high) {
        *fifth = ones(u64::from(*bits)) << 4;
    }
    for (codes, fifth) in codes.as_chunks_mut::<8>().0.iter_mut().zip(fifths) {
        *codes = (u64::from_le_bytes(*codes) | fifth).to_le_bytes();
    }
}
