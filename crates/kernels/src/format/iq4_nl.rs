//! IQ4_NL: 32 codes of 4 bits that stand for 16 values at uneven distances, one scale.
//!
//! ```text
//! d: f16 | qs: [u8; 16]            as Q4_0
//! value = d * VALUES[code]
//! ```

use super::fit::{self, Levels, Minimum};
use super::{BlockFactors, Coded, Factors, Quantized, f16, nibbles, u16_at};
use crate::isa::Isa;
use crate::simd::Simd;
use minke_spec::Format;

/// The values, with 128 for zero.
pub(super) const VALUES: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

/// The values themselves.
pub(super) const LEVELS: Levels = Levels::Listed(&{
    let mut levels = [0.0; 16];
    let mut i = 0;
    while i < 16 {
        levels[i] = VALUES[i] as f32 - 128.0;
        i += 1;
    }
    levels
});

pub(crate) struct Iq4Nl;

impl Coded for Iq4Nl {
    const FORMAT: Format = Format::Iq4Nl;
    const SUB: usize = 32;
    const ZERO: i32 = 128;
    const SHIFTED: bool = false;
    const BITS: usize = 4;
    const VALUES: Option<[u8; 16]> = Some(VALUES);
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

impl Quantized for Iq4Nl {
    fn quantize(isa: Isa, x: &[f32], w: &[f32], block: &mut [u8]) {
        let mut codes = [0; 32];
        let (scale, _) = fit::flat(isa, x, w, LEVELS, Minimum::Absent, &mut codes);
        block[..2].copy_from_slice(&scale.to_le_bytes());
        for (i, byte) in block[2..18].iter_mut().enumerate() {
            *byte = (codes[i] | codes[16 + i] << 4) as u8;
        }
    }
}
