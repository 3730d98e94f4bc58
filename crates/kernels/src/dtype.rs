//! Types of the elements of tensors.

use minke_spec::Format;

/// The type of the elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE single precision: what every operation computes with.
    F32,
    /// The upper half of an f32: what operations that say so read and write.
    Bf16,
}

impl Dtype {
    /// The name as published files write it.
    pub fn name(self) -> &'static str {
        self.format().name()
    }

    /// The bytes of one element.
    pub fn bytes(self) -> usize {
        self.format().bytes(1)
    }

    /// The format of stored weights with the same elements.
    pub fn format(self) -> Format {
        match self {
            Self::F32 => Format::F32,
            Self::Bf16 => Format::Bf16,
        }
    }
}
