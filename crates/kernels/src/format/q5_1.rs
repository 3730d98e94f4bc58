//! Q5_1: 32 codes of 5 bits, one scale, one minimum.
//!
//! ```text
//! d: f16 | m: f16 | qh: u32 | qs: [u8; 16]   as Q5_0
//! value = d * code + m
//! ```

use super::fit::{self, Levels, Minimum};
use super::q5_0::{fifth_bits, pack_fifth_bits};
use super::{BlockFactors, Coded, Factors, Quantized, f16, nibbles, pack_nibbles, u16_at};
use crate::isa::Isa;
use crate::simd::Simd;
use minke_spec::Format;

pub(crate) struct Q5_1;

impl Coded for Q5_1 {
    const FORMAT: Format = Format::Q5_1;
    const SUB: usize = 32;
    const ZERO: i32 = 0;
    const SHIFTED: bool = true;
    const BITS: usize = 5;
    const FACTORS: Option<Factors> = Some(Factors::Halves);

    #[inline(always)]
    fn expand<S: Simd>(_s: S, block: &[u8], codes: &mut [u8], scales: &mut [f32], shifts: &mut [f32]) {
        scales[0] = f16::read(block);
        shifts[0] = f16::read(&block[2..]);
        nibbles(&block[8..24], codes);
        fifth_bits(&block[4..8], codes);
    }

    fn factors(block: &[u8]) -> BlockFactors {
        BlockFactors { halves: [u16_at(block, 0), u16_at(block, 2)], ..BlockFactors::default() }
    }
}

impl Quantized for Q5_1 {
    fn quantize(isa: Isa, x: &[f32], w: &[f32], block: &mut [u8]) {
        let mut codes = [0; 32];
        let (scale, shift) = fit::flat(isa, x, w, Levels::Even(0.0, 31.0), Minimum::Any, &mut codes);
        let codes = codes.map(|code| code as u8);
        block[..2].copy_from_slice(&scale.to_le_bytes());
        block[2..4].copy_from_slice(&shift.to_le_bytes());
        block[4..8].copy_from_slice(&pack_fifth_bits(&codes));
        pack_nibbles(&codes, &mut block[8..24]);
    }
}
