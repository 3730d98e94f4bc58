//! Formats of weights: their sizes, and the names under which they are stored.
//!
//! The one table of formats: loader, exporter, planner and kernels read name and geometry here, so a new format is a
//! new variant and the compiler lists what else it needs.

/// Side of the square blocks that share one scale in DeepSeek's FP8 checkpoints.
///
/// # Paper
/// V3 3.3.2 (weights in blocks of 128 x 128)
pub const FP8_BLOCK: usize = 128;

/// How numbers are stored.
///
/// Formats whose name ends in a number of bits and an underscore are those of GGUF: elements in blocks along the last
/// axis, each with scales of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    Bf16,
    /// 8 bits, 4 of exponent, 3 of mantissa; a matrix of it has a scale per block ([`fp8_scale_shape`]).
    F8E4M3,
    /// 4-bit codes around zero, a scale per 32.
    Q4_0,
    /// 4-bit codes, a scale and a minimum per 32.
    Q4_1,
    /// 5-bit codes around zero, a scale per 32.
    Q5_0,
    /// 5-bit codes, a scale and a minimum per 32.
    Q5_1,
    /// 8-bit codes around zero, a scale per 32.
    Q8_0,
    /// 2-bit codes, a 4-bit scale and minimum per 16.
    Q2K,
    /// 3-bit codes around zero, a 6-bit scale per 16.
    Q3K,
    /// 4-bit codes, a 6-bit scale and minimum per 32.
    Q4K,
    /// 5-bit codes, a 6-bit scale and minimum per 32.
    Q5K,
    /// 6-bit codes around zero, an 8-bit scale per 16.
    Q6K,
    /// Eight -1, 0 or 1 from a list of 2048, all an eighth higher or lower; a 3-bit scale per 32.
    Iq1S,
    /// As `Iq1S`, a scale per 16.
    Iq1M,
    /// Eight magnitudes from a list of 256, with signs; a 4-bit scale per 32.
    Iq2Xxs,
    /// Eight magnitudes from a list of 512, with signs; a 4-bit scale per 16.
    Iq2Xs,
    /// Eight magnitudes from a list of 1024, with signs; a 4-bit scale per 16.
    Iq2S,
    /// Four magnitudes from a list of 256, with signs; a 4-bit scale per 32.
    Iq3Xxs,
    /// Four magnitudes from a list of 512, with signs; a 4-bit scale per 32.
    Iq3S,
    /// 4-bit codes for 16 uneven values, a scale per 32.
    Iq4Nl,
    /// 4-bit codes for 16 uneven values, a 6-bit scale per 32.
    Iq4Xs,
}

/// A row of the table: a format's name in a header, its number in GGUF, elements and bytes of a block.
struct Row(&'static str, Option<u32>, usize, usize);

impl Format {
    /// All formats.
    pub const ALL: [Format; 23] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::F8E4M3,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Iq1S,
        Self::Iq1M,
        Self::Iq2Xxs,
        Self::Iq2Xs,
        Self::Iq2S,
        Self::Iq3Xxs,
        Self::Iq3S,
        Self::Iq4Nl,
        Self::Iq4Xs,
    ];

    const fn row(self) -> Row {
        match self {
            Self::F32 => Row("F32", Some(0), 1, 4),
            Self::F16 => Row("F16", Some(1), 1, 2),
            Self::Bf16 => Row("BF16", Some(30), 1, 2),
            Self::F8E4M3 => Row("F8_E4M3", None, 1, 1),
            Self::Q4_0 => Row("Q4_0", Some(2), 32, 18),
            Self::Q4_1 => Row("Q4_1", Some(3), 32, 20),
            Self::Q5_0 => Row("Q5_0", Some(6), 32, 22),
            Self::Q5_1 => Row("Q5_1", Some(7), 32, 24),
            Self::Q8_0 => Row("Q8_0", Some(8), 32, 34),
            Self::Q2K => Row("Q2_K", Some(10), 256, 84),
            Self::Q3K => Row("Q3_K", Some(11), 256, 110),
            Self::Q4K => Row("Q4_K", Some(12), 256, 144),
            Self::Q5K => Row("Q5_K", Some(13), 256, 176),
            Self::Q6K => Row("Q6_K", Some(14), 256, 210),
            Self::Iq1S => Row("IQ1_S", Some(19), 256, 50),
            Self::Iq1M => Row("IQ1_M", Some(29), 256, 56),
            Self::Iq2Xxs => Row("IQ2_XXS", Some(16), 256, 66),
            Self::Iq2Xs => Row("IQ2_XS", Some(17), 256, 74),
            Self::Iq2S => Row("IQ2_S", Some(22), 256, 82),
            Self::Iq3Xxs => Row("IQ3_XXS", Some(18), 256, 98),
            Self::Iq3S => Row("IQ3_S", Some(21), 256, 110),
            Self::Iq4Nl => Row("IQ4_NL", Some(20), 32, 18),
            Self::Iq4Xs => Row("IQ4_XS", Some(23), 256, 136),
        }
    }

    /// The name in a safetensors header, or the one that GGUF tools use.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// The format of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Format> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The number that stands for the format in a GGUF file, if it can be in one.
    pub const fn gguf_type(self) -> Option<u32> {
        self.row().1
    }

    /// The format of that number in a GGUF file, if it is one of these.
    pub fn from_gguf_type(number: u32) -> Option<Format> {
        Self::ALL.into_iter().find(|format| format.gguf_type() == Some(number))
    }

    /// How many elements are stored together, along the last axis.
    #[inline]
    pub const fn block_elements(self) -> usize {
        self.row().2
    }

    /// How many bytes such a block takes.
    #[inline]
    pub const fn block_bytes(self) -> usize {
        self.row().3
    }

    /// The bytes of a tensor whose last axis is made of whole blocks.
    ///
    /// # Units
    /// elements -> bytes
    #[inline]
    pub const fn bytes(self, elements: usize) -> usize {
        elements / self.block_elements() * self.block_bytes()
    }
}

/// The shape of `weight_scale_inv`, the block scales (multipliers, despite their name) of an FP8 matrix.
///
/// # Shapes
/// `[O, I]` -> `[ceil(O / 128), ceil(I / 128)]`
pub fn fp8_scale_shape(out_features: usize, in_features: usize) -> [usize; 2] {
    [out_features.div_ceil(FP8_BLOCK), in_features.div_ceil(FP8_BLOCK)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_safetensors() {
        for (name, format, bytes) in [
            ("F32", Format::F32, 12),
            ("F16", Format::F16, 6),
            ("BF16", Format::Bf16, 6),
            ("F8_E4M3", Format::F8E4M3, 3),
        ] {
            assert_eq!((Format::from_name(name), format.name(), format.bytes(3)), (Some(format), name, bytes));
        }
        assert_eq!(Format::from_name("Q4_2"), None);
    }

    #[test]
    fn ragged_blocks_have_a_scale() {
        assert_eq!(fp8_scale_shape(576, 7168), [5, 56]);
    }
}
