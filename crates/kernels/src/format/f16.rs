//! f16, IEEE half precision: a sign, five bits of exponent (bias 15), ten of fraction. Block scales are stored so.

use crate::pod::Pod;

/// An f16 by its bits.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct F16(pub u16);

// SAFETY: a plain number.
unsafe impl Pod for F16 {}

/// The f32 that an f16 stands for, subnormals, infinities and not-a-numbers included.
#[inline(always)]
pub const fn decode(bits: u16) -> f32 {
    let (sign, magnitude) = ((bits as u32 & 0x8000) << 16, bits as u32 & 0x7fff);
    // Exponent and fraction move to their places in f32. A subnormal has no leading one: it is given that of 2^-14, which is
    // then taken away. (Multiplying a subnormal f32 by 2^112 would do as well, at a hundred cycles each.)
    const LEADING: u32 = 113 << 23;
    let bits = match magnitude {
        0x7c00.. => 0x7f80_0000 | (magnitude & 0x3ff) << 13,
        0x400.. => (magnitude << 13) + (112 << 23),
        _ => (f32::from_bits(LEADING | magnitude << 13) - f32::from_bits(LEADING)).to_bits(),
    };
    f32::from_bits(bits | sign)
}

/// The nearest f16, ties to even. What is too large becomes the largest, infinities too.
#[inline(always)]
pub fn encode(x: f32) -> u16 {
    const LARGEST: u32 = 0x7bff;
    let (sign, magnitude) = ((x.to_bits() >> 16) as u16 & 0x8000, x.to_bits() & 0x7fff_ffff);
    let bits = match magnitude {
        0x7f80_0001.. => 0x7e00,
        // Half of the fraction's last place, a bit less where ties go down.
        0x3880_0000.. => (((magnitude + 0xfff + (magnitude >> 13 & 1)) >> 13) - (112 << 10)).min(LARGEST),
        // Subnormals are steps of 2^-24, the last place of numbers around 1/2.
        _ => (f32::from_bits(magnitude) + 0.5).to_bits() - 0.5f32.to_bits(),
    };
    bits as u16 | sign
}

/// The f16 at the start of `bytes` as f32.
#[inline(always)]
pub(crate) fn read(bytes: &[u8]) -> f32 {
    decode(u16::from_le_bytes([bytes[0], bytes[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_survives_and_what_lies_between_goes_to_the_nearest() {
        for bits in (0..0x7c00u16).chain(0x8000..0xfc00) {
            assert_eq!(encode(decode(bits)), bits);
            if bits & 0x7fff < 0x7bff {
                let (low, high) = (decode(bits), decode(bits + 1));
                let even = if bits.is_multiple_of(2) { bits } else { bits + 1 };
                assert_eq!(encode((low + high) / 2.0), even, "{bits:x}");
                assert_eq!((encode(low + (high - low) * 0.49), encode(low + (high - low) * 0.51)), (bits, bits + 1));
            }
        }
        assert_eq!((encode(1e9), encode(f32::NEG_INFINITY), encode(65519.0)), (0x7bff, 0xfbff, 0x7bff));
        assert!(decode(encode(f32::NAN)).is_nan());
    }

    #[test]
    fn known_values() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65504.0),
            (0x0001, 2f32.powi(-24)),
            (0x83ff, -1023.0 * 2f32.powi(-24)),
            (0x0400, 2f32.powi(-14)),
            (0x7c00, f32::INFINITY),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(decode(bits), value, "{bits:x}");
        }
        assert!(decode(0x8000).is_sign_negative() && decode(0x7e00).is_nan() && decode(0xfc01).is_nan());
    }
}
