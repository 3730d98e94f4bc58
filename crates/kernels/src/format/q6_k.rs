//! Q6_K: 256 codes of 6 bits around 32; per 16 of them a scale of 8 bits with a sign.
//!
//! ```text
//! ql: [u8; 128] | qh: [u8; 64] | scales: [i8; 16] | d: f16
//! in two halves of 128 codes, each with 64 bytes of ql and 32 of qh; of code 32j + i the low 4 bits are the low half of
//! ql[i], ql[32 + i] (j = 0, 1) or the high half of them (j = 2, 3), the high 2 bits are bits 2j, 2j + 1 of qh[i]
//! value = d * scale * (code - 32)
//! ```

use super::fit::{Fitted, Grid, Levels};
use super::{BlockFactors, Coded, Factors, Quantized, each, f16, u16_at};
use crate::isa::Isa;
use crate::simd::Simd;
use minke_spec::Format;

pub(crate) struct Q6K;

impl Coded for Q6K {
    const FORMAT: Format = Format::Q6K;
    const SUB: usize = 16;
    const ZERO: i32 = 32;
    const SHIFTED: bool = false;
    const BITS: usize = 6;
    const FACTORS: Option<Factors> = Some(Factors::Bytes { signed: true });

    #[inline(always)]
    fn expand<S: Simd>(_s: S, block: &[u8], codes: &mut [u8], scales: &mut [f32], _shifts: &mut [f32]) {
        let d = f16::read(&block[208..]);
        let (mut signed, mut values) = ([0; 16], [0.0; 16]);
        signed.copy_from_slice(&block[192..208]);
        for i in 0..16 {
            values[i] = d * f32::from(signed[i] as i8);
        }
        scales[..16].copy_from_slice(&values);
        let (low, high) = (block.as_chunks::<32>().0, block[128..].as_chunks::<32>().0);
        for (half, codes) in codes.as_chunks_mut::<128>().0.iter_mut().enumerate() {
            for (j, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let (low, high) = (&low[2 * half + j % 2], &high[half]);
                each::<32>(low, codes, |low, _| low >> (4 * (j / 2)) & 15);
                each::<32>(high, codes, |high, code| code | (high >> (2 * j) & 3) << 4);
            }
        }
    }

    fn factors(block: &[u8]) -> BlockFactors {
        let mut factors = BlockFactors { halves: [u16_at(block, 208), 0], ..BlockFactors::default() };
        factors.bytes[0].copy_from_slice(&block[192..208]);
        factors
    }
}

impl Quantized for Q6K {
    fn quantize(isa: Isa, x: &[f32], w: &[f32], block: &mut [u8]) {
        const GRID: Grid = Grid { sub: 16, levels: Levels::Even(-32.0, 31.0), factors: (-128.0, 127.0), minimums: 0.0 };
        let fitted = Fitted::new(isa, x, w, &GRID);
        let codes = fitted.codes.map(|code| (code + 32) as u8);
        for (half, codes) in codes.as_chunks::<128>().0.iter().enumerate() {
            for i in 0..32 {
                for j in 0..2 {
                    block[64 * half + 32 * j + i] = codes[32 * j + i] & 15 | codes[64 + 32 * j + i] << 4;
                }
                block[128 + 32 * half + i] = (0..4).fold(0, |high, j| high | (codes[32 * j + i] >> 4) << (2 * j));
            }
        }
        block[192..208].copy_from_slice(&fitted.factors.map(|factor| factor as u8));
        block[208..210].copy_from_slice(&fitted.d.to_le_bytes());
    }
}
