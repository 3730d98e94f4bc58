//! Rotary positions: pairs of a head's components are rotated by an angle that grows with position.

use minke_spec::{ModelConfig, rope};
use minke_tensor::{Indices, Layout, Pass, Tensor};

/// The rotary embedding of a model; its numbers come from `minke_spec::rope`.
#[derive(Clone)]
pub(crate) struct Rope {
    inverse_frequencies: Vec<f32>,
    multiplier: f32,
    pub(crate) layout: Layout,
}

impl Rope {
    pub(crate) fn new(config: &ModelConfig) -> Self {
        Self {
            inverse_frequencies: rope::inverse_frequencies(&config.rope, config.rope_dim()),
            multiplier: rope::cos_sin_multiplier(&config.rope) as f32,
            layout: if config.rope.interleaved { Layout::Interleaved } else { Layout::Halves },
        }
    }

    /// Cosine and sine for the given positions: computed once per forward, read by every layer.
    ///
    /// # Shapes
    /// positions `[T]` -> [T, R]
    ///
    /// # Paper
    /// - V3 4.3 (YaRN: stretched frequencies, magnitude)
    /// - Test: crates/spec/tests/rope_matches_published_vectors.rs
    /// - Vector: testdata/vectors/yarn_deepseek_r1.json
    pub(crate) fn cos_sin(&self, pass: Pass<'_>, positions: &Indices) -> Tensor {
        Tensor::cos_sin(pass, positions, &self.inverse_frequencies, self.multiplier)
    }
}
