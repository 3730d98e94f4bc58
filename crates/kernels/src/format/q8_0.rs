//! Q8_0: 32 codes of 8 bits with a sign, one scale.
//!
//! ```text
//! d: f16 | qs: [i8; 32]
//! value = d * q                    stored here as code = q + 128
//! ```

use super::fit::{self, Levels, Minimum};
use super::{BlockFactors, Coded, Factors, Quantized, each, f16, u16_at};
use crate::isa::Isa;
use crate::simd::Simd;
use minke_spec::Format;

pub(crate) struct Q8_0;

impl Coded for Q8_0 {
    const FORMAT: Format = Format::Q8_0;
    const SUB: usize = 32;
    const ZERO: i32 = 128;
    const SHIFTED: bool = false;
    const BITS: usize = 8;
    const FACTORS: Option<Factors> = Some(Factors::Halves);

    #[inline(always)]
    fn expand<S: Simd>(_s: S, block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        scales[0] = f16::read(block);
        each::<32>(&block[2..34], codes, |q, _| q ^ 0x80);
    }

    fn factors(block: &[u8]) -> BlockFactors {
        BlockFactors { halves: [u16_at(block, 0), 0], ..BlockFactors::default() }
    }
}

impl Quantized for Q8_0 {
    fn quantize(isa: Isa, x: &[f32], w: &[f32], block: &mut [u8]) {
        let mut codes = [0; 32];
        let (scale, _) = fit::flat(isa, x, w, Levels::Even(-127.0, 127.0), Minimum::Absent, &mut codes);
        block[..2].copy_from_slice(&scale.to_le_bytes());
        block[2..34].copy_from_slice(&codes.map(|code| code as u8));
    }
}
