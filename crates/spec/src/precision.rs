//! The precision of a model that is trained.

use serde::{Deserialize, Serialize};

/// With which numbers a model multiplies by its weights; one choice for the whole model.
///
/// The residual stream, norms, softmax, attention, the gate, rotation and loss are f32 in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32 throughout.
    #[default]
    F32,
    /// Operands of products with weights are rounded to bf16, sums are f32. Weights are held as bf16; what an optimizer adds up is
    /// f32.
    Bf16,
}

impl Precision {
    /// The name in a run's TOML.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}
