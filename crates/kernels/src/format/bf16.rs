//! What is bf16? The upper half of an f32: its sign, its exponent and seven bits of its fraction.

use crate::device::Cpu;
use crate::ops::split::by_rows;
use crate::simd::simd_fn;

/// Returns the nearest bf16, ties to even. What is too large becomes infinite; not a number stays so.
#[inline(always)]
pub fn encode(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    // Rounding could carry the fraction of a not-a-number over into infinity.
    if x.is_nan() { (bits >> 16) as u16 | 0x40 } else { rounded }
}

/// Returns the f32 that a bf16 stands for.
#[inline(always)]
pub fn decode(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

simd_fn! {
    fn encode_part<S>(_s: S, x: &[f32], y: &mut [u16]) {
        for (x, y) in x.iter().zip(y) {
            *y = encode(*x);
        }
    }

    fn decode_part<S>(_s: S, x: &[u16], y: &mut [f32]) {
        for (x, y) in x.iter().zip(y) {
            *y = decode(*x);
        }
    }
}

/// Computes the nearest bf16 of every float, as [`encode`] does.
pub fn encode_slice(cpu: &Cpu, x: &[f32], y: &mut [u16]) {
    assert_eq!(x.len(), y.len());
    by_rows(cpu, x.len(), 1, [(y, 1)], |at, [y]| encode_part(cpu.isa(), &x[at], y));
}

/// Computes the floats that bf16 values stand for.
pub fn decode_slice(cpu: &Cpu, x: &[u16], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    by_rows(cpu, x.len(), 1, [(y, 1)], |at, [y]| decode_part(cpu.isa(), &x[at], y));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::ops::testing::random;

    #[test]
    fn known_values() {
        let cases = [
            (0.0, 0x0000),
            (-0.0, 0x8000),
            (1.0, 0x3f80),
            (-2.0, 0xc000),
            (std::f32::consts::PI, 0x4049),
            // Ties: 1 + 2^-8 lies between 0x3f80 and 0x3f81, 1 + 3 * 2^-8 between 0x3f81 and 0x3f82.
            (1.0 + 2f32.powi(-8), 0x3f80),
            (1.0 + 3.0 * 2f32.powi(-8), 0x3f82),
            (f32::from_bits(0x3f80_8001), 0x3f81),
            (f32::MAX, 0x7f80),
            (f32::INFINITY, 0x7f80),
            (f32::NEG_INFINITY, 0xff80),
            (f32::from_bits(1), 0x0000),
        ];
        for (x, bits) in cases {
            assert_eq!(encode(x), bits, "{x}");
        }
        for bits in [0x7fc0_0000, 0x7f80_0001, 0xffff_ffff] {
            assert!(decode(encode(f32::from_bits(bits))).is_nan());
        }
    }

    #[test]
    fn every_value_survives_and_every_float_goes_to_the_nearest() {
        for bits in 0..=u16::MAX {
            let x = decode(bits);
            assert!(x.is_nan() || encode(x) == bits);
        }
        let x: Vec<f32> =
            random(1, 30_000).iter().enumerate().map(|(i, x)| x * 10f32.powi(i as i32 % 60 - 30)).collect();
        for isa in Isa::available() {
            for threads in [1, 2, 3] {
                let cpu = crate::ops::testing::cpu(threads, isa);
                let (mut y, mut back) = (vec![0; x.len()], vec![0.0; x.len()]);
                encode_slice(&cpu, &x, &mut y);
                decode_slice(&cpu, &y, &mut back);
                for ((&x, &y), &back) in x.iter().zip(&y).zip(&back) {
                    let distance = |bits: u16| (f64::from(decode(bits)) - f64::from(x)).abs();
                    assert!(distance(y) <= distance(y + 1) && distance(y) <= distance(y - 1), "{x}");
                    assert_eq!(back.to_bits(), decode(y).to_bits());
                }
            }
        }
    }
}
