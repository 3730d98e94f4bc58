//! IQ1_S: 256 codes, 8 an entry of a grid of 2048; per 32 of them a scale of 3 bits and an eighth added or taken away.
//!
//! ```text
//! d: f16 | qs: [u8; 32] | qh: [u16; 8]
//! qs[i] is the entry of codes 8i to 8i + 8; bits 3j to 3j + 3 of qh[s] are the high bits of qs[4s + j], then come the scale
//! and a bit that is set if the eighth is taken away
//! value = d * (2 * scale + 1) * (level +- 1/8)     level: -1, 0 or 1; stored here as code = 64 + 8 * level +- 1
//! ```

use super::grid::{ZERO, grid, odd};
use super::{Coded, f16};
use minke_spec::Format;

/// With the eighth taken away.
static GRID: [[u8; 8]; 2048] = grid(include_bytes!("grids/iq1.hex"), &[-9, -1, 7]);

pub(crate) struct Iq1S;

impl Coded for Iq1S {
    const FORMAT: Format = Format::Iq1S;
    const SUB: usize = 32;
    const ZERO: i32 = ZERO as i32;
    const SHIFTED: bool = false;

    #[inline(never)]
    fn expand(block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        let d = f16::read(block) / 8.0;
        let groups = block[2..34].as_chunks::<4>().0.iter().zip(block[34..50].as_chunks().0);
        for (((low, high), codes), scale) in groups.zip(codes.as_chunks_mut::<32>().0).zip(scales) {
            let high = u16::from_le_bytes(*high);
            *scale = odd(d, (high >> 12 & 7) as u8);
            for (i, codes) in codes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                *codes = eighths(usize::from(low[i]) | usize::from(high >> (3 * i) & 7) << 8, high >> 15 == 0);
            }
        }
    }
}

/// Returns the codes of an entry, an eighth added or taken away.
#[inline(always)]
pub(super) fn eighths(entry: usize, added: bool) -> [u8; 8] {
    (u64::from_le_bytes(GRID[entry & 2047]) + u64::from(added) * 0x0202_0202_0202_0202).to_le_bytes()
}
