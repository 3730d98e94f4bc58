//! IQ4_XS: 256 codes as those of IQ4_NL; per 32 of them a scale of 6 bits around 32.
//!
//! ```text
//! d: f16 | high: u16 | low: [u8; 4] | qs: [u8; 128]
//! scale s: its low four bits are a half of low[s / 2], the low one if s is even; bits 2s, 2s + 1 of high are the others
//! qs in eight parts of 16 bytes, 32 codes each, and VALUES as IQ4_NL
//! value = d * (scale - 32) * VALUES[code]
//! ```

use super::fit::{Fitted, Grid};
use super::iq4_nl::{LEVELS, VALUES};
use super::{BlockFactors, Coded, Factors, Quantized, f16, nibbles, u16_at};
use crate::isa::Isa;
use crate::simd::Simd;
use minke_spec::Format;

pub(crate) struct Iq4Xs;

impl Coded for Iq4Xs {
    const FORMAT: Format = Format::Iq4Xs;
    const SUB: usize = 32;
    const ZERO: i32 = 128;
    const SHIFTED: bool = false;
    const BITS: usize = 4;
    const VALUES: Option<[u8; 16]> = Some(VALUES);
    const FACTORS: Option<Factors> = Some(Factors::Bytes { signed: true });

    #[inline(always)]
    fn expand<S: Simd>(_s: S, block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        let d = f16::read(block);
        for (scale, factor) in scales[..8].iter_mut().zip(scales_of(block)) {
            *scale = d * f32::from(factor);
        }
        for (packed, codes) in block[8..136].as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<32>().0) {
            nibbles(packed, codes);
        }
    }

    fn factors(block: &[u8]) -> BlockFactors {
        let mut factors = BlockFactors { halves: [u16_at(block, 0), 0], ..BlockFactors::default() };
        factors.bytes[0][..8].copy_from_slice(&scales_of(block).map(|scale| scale as u8));
        factors
    }
}

/// The scales of a block, without its half.
#[inline(always)]
fn scales_of(block: &[u8]) -> [i8; 8] {
    let high = u16_at(block, 2);
    let mut scales = [0; 8];
    for (s, scale) in scales.iter_mut().enumerate() {
        let low = block[4 + s / 2] >> (4 * (s % 2)) & 15;
        *scale = (low | ((high >> (2 * s) & 3) as u8) << 4) as i8 - 32;
    }
    scales
}

impl Quantized for Iq4Xs {
    fn quantize(isa: Isa, x: &[f32], w: &[f32], block: &mut [u8]) {
        const GRID: Grid = Grid { sub: 32, levels: LEVELS, factors: (-32.0, 31.0), minimums: 0.0 };
        let fitted = Fitted::new(isa, x, w, &GRID);
        block[..2].copy_from_slice(&fitted.d.to_le_bytes());
        let (mut high, mut low) = (0u16, [0u8; 4]);
        for (s, factor) in fitted.factors[..8].iter().enumerate() {
            let scale = (factor + 32) as u8;
            high |= u16::from(scale >> 4) << (2 * s);
            low[s / 2] |= (scale & 15) << (4 * (s % 2));
        }
        block[2..4].copy_from_slice(&high.to_le_bytes());
        block[4..8].copy_from_slice(&low);
        for (codes, packed) in fitted.codes.as_chunks::<32>().0.iter().zip(block[8..136].as_chunks_mut::<16>().0) {
            for (i, byte) in packed.iter_mut().enumerate() {
                *byte = (codes[i] | codes[16 + i] << 4) as u8;
            }
        }
    }
}
