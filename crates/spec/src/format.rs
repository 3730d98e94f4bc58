//! How many bytes does a weight take, and under which name is its format stored?
//!
//! The one table of formats: loader, exporter, planner and kernels read name and geometry here, so a new format is a
//! new variant and the compiler lists what else it needs.

/// Side of the square blocks that share one scale in DeepSeek's FP8 checkpoints.
///
/// # Paper
/// V3 3.3.2 (weights in blocks of 128 x 128)
pub const FP8_BLOCK: usize = 128;

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    Bf16,
    /// 8 bits, 4 of exponent, 3 of mantissa; a matrix of it has a scale per block ([`fp8_scale_shape`]).
    F8E4M3,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 4] = [Self::F32, Self::F16, Self::Bf16, Self::F8E4M3];

    /// Returns the name in a safetensors header.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::F8E4M3 => "F8_E4M3",
        }
    }

    /// Returns the format of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Format> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Returns how many elements are stored together, along the last axis.
    pub fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 | Self::F8E4M3 => 1,
        }
    }

    /// Returns how many bytes such a block takes.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::F8E4M3 => 1,
        }
    }

    /// Returns the bytes of a tensor whose last axis is made of whole blocks.
    ///
    /// # Units
    /// elements -> bytes
    pub fn bytes(self, elements: usize) -> usize {
        elements / self.block_elements() * self.block_bytes()
    }
}

/// Returns the shape of `weight_scale_inv`, the block scales (multipliers, despite their name) of an FP8 matrix.
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
        assert_eq!(Format::from_name("Q4_K"), None);
    }

    #[test]
    fn ragged_blocks_have_a_scale() {
        assert_eq!(fp8_scale_shape(576, 7168), [5, 56]);
    }
}
