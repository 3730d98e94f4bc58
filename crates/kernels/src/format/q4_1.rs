//! Q4_1: 32 codes of 4 bits, one scale, one minimum.
//!
//! ```text
//! d: f16 | m: f16 | qs: [u8; 16]   as Q4_0
//! value = d * code + m
//! ```

use super::{Coded, f16, nibbles};
use minke_spec::Format;

pub(crate) struct Q4_1;

impl Coded for Q4_1 {
    const FORMAT: Format = Format::Q4_1;
    const SUB: usize = 32;
    const ZERO: i32 = 0;
    const SHIFTED: bool = true;

    #[inline(always)]
    fn expand(block: &[u8], codes: &mut [u8], scales: &mut [f32], shifts: &mut [f32]) {
        scales[0] = f16::read(block);
        shifts[0] = f16::read(&block[2..]);
        nibbles(&block[4..20], codes);
    }
}
