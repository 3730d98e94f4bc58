//! Q8_0: 32 codes of 8 bits with a sign, one scale.
//!
//! ```text
//! d: f16 | qs: [i8; 32]
//! value = d * q                    stored here as code = q + 128
//! ```

use super::{Coded, each, f16};
use minke_spec::Format;

pub(crate) struct Q8_0;

impl Coded for Q8_0 {
    const FORMAT: Format = Format::Q8_0;
    const SUB: usize = 32;
    const ZERO: i32 = 128;
    const SHIFTED: bool = false;

    #[inline(always)]
    fn expand(block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        scales[0] = f16::read(block);
        each::<32>(&block[2..34], codes, |q, _| q ^ 0x80);
    }
}
