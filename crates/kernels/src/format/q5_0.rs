//! Q5_0: 32 codes of 5 bits around 16, one scale.
//!
//! ```text
//! d: f16 | qh: u32 | qs: [u8; 16]  qs as Q4_0; bit i of qh is the fifth bit of code i
//! value = d * (code - 16)
//! ```

use super::{Coded, f16, nibbles};
use minke_spec::Format;

pub(crate) struct Q5_0;

impl Coded for Q5_0 {
    const FORMAT: Format = Format::Q5_0;
    const SUB: usize = 32;
    const ZERO: i32 = 16;
    const SHIFTED: bool = false;

    #[inline(always)]
    fn expand(block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        scales[0] = f16::read(block);
        nibbles(&block[6..22], codes);
        fifth_bits(&block[2..6], codes);
    }
}

/// Adds the fifth bits of 32 codes.
#[inline(always)]
pub(super) fn fifth_bits(high: &[u8], codes: &mut [u8]) {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    for (i, code) in codes[..32].iter_mut().enumerate() {
        *code |= ((high >> i & 1) << 4) as u8;
    }
}
