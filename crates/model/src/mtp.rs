//! Multi-token prediction: one more block, fed with the next token's embedding, predicts the token after it.

use minke_spec::ModelConfig;
use minke_tensor::{Param, Pass, Tensor};

use crate::block::Block;
use crate::cache::KvCache;
use crate::moe::Routed;
use crate::source::{ParamSource, params};
use crate::{Batch, Result};

/// The multi-token prediction module; embedding and head are the main model's.
#[derive(Clone)]
pub(crate) struct Mtp {
    epsilon: f32,
    enorm: Param,
    hnorm: Param,
    eh_proj: Param,
    pub(crate) block: Block,
    norm: Param,
}

params!(Mtp { enorm, hnorm, eh_proj, block, norm });

impl Mtp {
    pub(crate) fn new(config: &ModelConfig, source: &mut ParamSource, layer: usize) -> Self {
        let mut take = |name: &str| source.take(&format!("model.layers.{layer}.{name}.weight"));
        let (enorm, hnorm, eh_proj) = (take("enorm"), take("hnorm"), take("eh_proj"));
        let norm = take("shared_head.norm");
        Self { epsilon: config.rms_norm_eps, enorm, hnorm, eh_proj, block: Block::new(config, source, layer), norm }
    }

    /// The normed states that the shared head reads: row i predicts token i + 2. With a cache, attention goes through its
    /// pages, as in the main model.
    ///
    /// # Shapes
    /// hidden [T, D] (after the main model's final norm), next [T, D] (embedding of token i + 1) -> [T, D]
    ///
    /// # Paper
    /// - V3 2.2 eqs. 21-25 (multi-token prediction; order `[embedding, hidden]` as in the checkpoint)
    /// - Test: crates/weights/tests/mtp_and_balance_match_pytorch.rs
    /// - Vector: testdata/tiny-v3-mtp/golden.safetensors
    pub(crate) fn forward(
        &self,
        pass: Pass<'_>,
        hidden: &Tensor,
        next: &Tensor,
        batch: &Batch,
        cos_sin: &Tensor,
        cache: Option<&mut KvCache>,
    ) -> Result<(Tensor, Option<Routed>)> {
        let next = next.rms_norm(pass, &self.enorm, self.epsilon)?;
        let hidden = hidden.rms_norm(pass, &self.hnorm, self.epsilon)?;
        let x = next.concat_columns(pass, &hidden)?.matmul(pass, &self.eh_proj)?;
        let (y, report) = self.block.forward(pass, &x, batch, None, cos_sin, cache)?;
        Ok((y.rms_norm(pass, &self.norm, self.epsilon)?, report))
    }
}
