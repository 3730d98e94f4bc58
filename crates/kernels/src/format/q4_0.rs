//! Q4_0: 32 codes of 4 bits around 8, one scale.
//!
//! ```text
//! d: f16 | qs: [u8; 16]            byte i: code i in the low half, code 16 + i in the high one
//! value = d * (code - 8)
//! ```

use super::fit::{self, Levels, Minimum};
use super::{BlockFactors, Coded, Factors, Quantized, f16, nibbles, pack_nibbles, u16_at};
use crate::isa::Isa;
use crate::simd::Simd;
use minke_spec::Format;

pub(crate) struct Q4_0;

impl Coded for Q4_0 {
    const FORMAT: Format = Format::Q4_0;
    const SUB: usize = 32;
    const ZERO: i32 = 8;
    const SHIFTED: bool = false;
    const BITS: usize = 4;
    const FACTORS: Option<Factors> = Some(Factors::Halves);

    #[inline(always)]
    fn expand<S: Simd>(_s: S, block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        scales[0] = f16::read(block);
        nibbles(&block[2..18], codes);
    }

    fn factors(block: &[u8]) -> BlockFactors {
        BlockFactors { halves: [u16_at(block, 0), 0], ..BlockFactors::default() }
    }
}

impl Quantized for Q4_0 {
    fn quantize(isa: Isa, x: &[f32], w: &[f32], block: &mut [u8]) {
        let mut codes = [0; 32];
        let (scale, _) = fit::flat(isa, x, w, Levels::Even(-8.0, 7.0), Minimum::Absent, &mut codes);
        block[..2].copy_from_slice(&scale.to_le_bytes());
        pack_nibbles(&codes.map(|code| (code + 8) as u8), &mut block[2..18]);
    }
}
