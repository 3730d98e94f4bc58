//! What is f16? IEEE half precision: a sign, five bits of exponent (bias 15), ten of fraction. Block scales are stored so.

/// Returns the f32 that an f16 stands for, subnormals, infinities and not-a-numbers included.
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

/// Returns the f16 at the start of `bytes` as f32.
#[inline(always)]
pub(crate) fn read(bytes: &[u8]) -> f32 {
    decode(u16::from_le_bytes([bytes[0], bytes[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

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
