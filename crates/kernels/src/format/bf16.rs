//! bf16, the upper half of an f32: its sign, its exponent and seven bits of its fraction.

use crate::pod::Pod;

/// A bf16 by its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(pub u16);

// SAFETY: a plain number.
unsafe impl Pod for Bf16 {}

impl Bf16 {
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// The nearest bf16, ties to even. What is too large becomes infinite; not a number stays so.
    #[inline(always)]
    pub fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
        // Rounding could carry the fraction of a not-a-number over into infinity.
        Self(if x.is_nan() { (bits >> 16) as u16 | 0x40 } else { rounded })
    }

    /// The f32 of the same value.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            assert_eq!(Bf16::from_f32(x), Bf16(bits), "{x}");
        }
        for bits in [0x7fc0_0000, 0x7f80_0001, 0xffff_ffff] {
            assert!(Bf16::from_f32(f32::from_bits(bits)).to_f32().is_nan());
        }
    }

    #[test]
    fn every_value_survives_and_every_float_goes_to_the_nearest() {
        for bits in 0..=u16::MAX {
            let x = Bf16(bits).to_f32();
            assert!(x.is_nan() || Bf16::from_f32(x) == Bf16(bits));
        }
        for (i, x) in random(1, 30_000).into_iter().enumerate() {
            let x = x * 10f32.powi(i as i32 % 60 - 30);
            let distance = |bits: u16| (f64::from(Bf16(bits).to_f32()) - f64::from(x)).abs();
            let Bf16(y) = Bf16::from_f32(x);
            assert!(distance(y) <= distance(y + 1) && distance(y) <= distance(y - 1), "{x}");
        }
    }
}
