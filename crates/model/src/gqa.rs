//! Grouped-query attention of Qwen and Llama: several query heads share one key-value head.

use minke_spec::config::GqaConfig;
use minke_spec::{ModelConfig, rope};
use minke_tensor::{Param, Pass, Tensor};

use crate::Result;
use crate::batch::Rows;
use crate::cache::KvCache;
use crate::projection::Projection;
use crate::rope::Rope;
use crate::source::{ParamSource, params};

/// Grouped-query attention.
#[derive(Clone)]
pub(crate) struct Gqa {
    layer: usize,
    heads: usize,
    sizes: GqaConfig,
    scale: f32,
    epsilon: f32,
    rope: Rope,
    q_proj: Projection,
    k_proj: Projection,
    v_proj: Projection,
    o_proj: Projection,
    q_norm: Option<Param>,
    k_norm: Option<Param>,
}

params!(Gqa { q_proj, k_proj, v_proj, o_proj, q_norm, k_norm });

impl Gqa {
    pub(crate) fn new(config: &ModelConfig, sizes: &GqaConfig, source: &mut ParamSource, layer: usize) -> Self {
        let mut projection = |name: &str| Projection::new(source, &format!("model.layers.{layer}.self_attn.{name}"));
        Self {
            q_proj: projection("q_proj"),
            k_proj: projection("k_proj"),
            v_proj: projection("v_proj"),
            o_proj: projection("o_proj"),
            q_norm: source.take_if_any(&format!("model.layers.{layer}.self_attn.q_norm.weight")),
            k_norm: source.take_if_any(&format!("model.layers.{layer}.self_attn.k_norm.weight")),
            layer,
            heads: config.num_attention_heads,
            sizes: sizes.clone(),
            scale: rope::softmax_scale(config) as f32,
            epsilon: config.rms_norm_eps,
            rope: Rope::new(config),
        }
    }

    /// The output of attention for `queries`, rows of `all` or the same: without a cache, the same.
    ///
    /// # Shapes
    /// queries [R, D], all [T, D] -> [R, D]
    pub(crate) fn forward(
        &self,
        pass: Pass<'_>,
        queries: &Rows<'_>,
        all: &Rows<'_>,
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let (width, groups) = (self.sizes.head_dim, self.sizes.num_key_value_heads);
        let [q, k, v] = if queries.are(all) {
            Projection::forward_each([&self.q_proj, &self.k_proj, &self.v_proj], pass, all.x)?
        } else {
            let [k, v] = Projection::forward_each([&self.k_proj, &self.v_proj], pass, all.x)?;
            [self.q_proj.forward(pass, queries.x)?, k, v]
        };
        let rotated = |y: Tensor, rows: &Rows<'_>, norm: &Option<Param>, heads: usize| -> Result<Tensor> {
            let y = y.reshape(&[rows.batch.rows(), heads, width])?;
            let y = match norm {
                Some(norm) => y.rms_norm(pass, norm, self.epsilon)?,
                None => y,
            };
            Ok(y.rope(pass, rows.cos_sin, 0, self.rope.layout)?)
        };
        let q = rotated(q, queries, &self.q_norm, self.heads)?;
        let k = rotated(k, all, &self.k_norm, groups)?;
        let v = v.reshape(&[all.batch.rows(), groups, width])?;
        let batch = queries.batch;
        let out = match cache {
            None => Tensor::attention(pass, &q, &k, &v, batch.spans(), self.scale)?,
            Some(cache) => {
                let pages = cache.layer(self.layer);
                pages.append(pass, &k, Some(&v), all.batch.places())?;
                pages.attention(pass, &q, batch.spans(), batch.page_table(), self.scale)?
            }
        };
        Ok(self.o_proj.forward(pass, &out.reshape(&[batch.rows(), self.heads * width])?)?)
    }
}
