//! Q4_0: 32 codes of 4 bits around 8, one scale.
//!
//! ```text
//! d: f16 | qs: [u8; 16]            byte i: code i in the low half, code 16 + i in the high one
//! value = d * (code - 8)
//! ```

use super::{Coded, f16, nibbles};
use minke_spec::Format;

pub(crate) struct Q4_0;

impl Coded for Q4_0 {
    const FORMAT: Format = Format::Q4_0;
    const SUB: usize = 32;
    const ZERO: i32 = 8;
    const SHIFTED: bool = false;

    #[inline(always)]
    fn expand(block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        scales[0] = f16::read(block);
        nibbles(&block[2..18], codes);
    }
}
