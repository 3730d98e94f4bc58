//! MLA, the attention of R1: a latent of 512 values per token, from which keys and values of all heads are made.
//!
//! Two forms compute the same: *expanded* makes keys and values of every head (training, exact mode), *absorbed* moves
//! `kv_b_proj` to the query and the output and works on latents alone (serving).

use minke_spec::config::{AttentionConfig, MlaConfig};
use minke_spec::{ModelConfig, rope};
use minke_tensor::{Param, Pass, Tap, Tensor};

use crate::batch::Rows;
use crate::cache::{KvCache, MlaForm};
use crate::rope::Rope;
use crate::source::{ParamSource, params};
use crate::{Batch, Result};

/// Epsilon of the two inner norms, whatever `rms_norm_eps` says (facts sheet 1.2).
const INNER_EPSILON: f32 = 1e-6;

/// Multi-head latent attention.
#[derive(Clone)]
pub(crate) struct Mla {
    layer: usize,
    heads: usize,
    sizes: MlaConfig,
    scale: f32,
    rope: Rope,
    q_proj: Option<Param>,
    q_a_proj: Option<Param>,
    q_a_layernorm: Option<Param>,
    q_b_proj: Option<Param>,
    kv_a_proj_with_mqa: Param,
    kv_a_layernorm: Param,
    kv_b_proj: Param,
    o_proj: Param,
}

params!(Mla { q_proj, q_a_proj, q_a_layernorm, q_b_proj, kv_a_proj_with_mqa, kv_a_layernorm, kv_b_proj, o_proj });

impl Mla {
    pub(crate) fn new(config: &ModelConfig, sizes: &MlaConfig, source: &mut ParamSource, layer: usize) -> Self {
        debug_assert!(matches!(config.attention, AttentionConfig::Mla(_)));
        let mut any = |name: &str| source.take_if_any(&format!("model.layers.{layer}.self_attn.{name}.weight"));
        let mut some = |name: &str| any(name).unwrap_or_else(|| panic!("invariant: MLA has {name}"));
        Self {
            kv_a_proj_with_mqa: some("kv_a_proj_with_mqa"),
            kv_a_layernorm: some("kv_a_layernorm"),
            kv_b_proj: some("kv_b_proj"),
            o_proj: some("o_proj"),
            q_proj: any("q_proj"),
            q_a_proj: any("q_a_proj"),
            q_a_layernorm: any("q_a_layernorm"),
            q_b_proj: any("q_b_proj"),
            layer,
            heads: config.num_attention_heads,
            sizes: sizes.clone(),
            scale: rope::softmax_scale(config) as f32,
            rope: Rope::new(config),
        }
    }

    /// The output of attention for `queries`, rows of `all` or the same: without a cache, the same.
    ///
    /// # Shapes
    /// queries [R, D], all [T, D] -> [R, D]
    ///
    /// # Paper
    /// - V3 2.1.1 eqs. 1-11 (latents, decoupled rotary keys, attention)
    /// - Test: crates/weights/tests/families_match_transformers.rs
    /// - Vector: testdata/tiny-v3/golden.safetensors
    pub(crate) fn forward(
        &self,
        pass: Pass<'_>,
        queries: &Rows<'_>,
        all: &Rows<'_>,
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let MlaConfig { kv_lora_rank: c, qk_nope_head_dim: n, qk_rope_head_dim: r, v_head_dim: v, .. } = self.sizes;
        let (asked, tokens, heads) = (queries.batch.rows(), all.batch.rows(), self.heads);
        let (first, kv_a_proj) = (self.first_of_queries(), &self.kv_a_proj_with_mqa);
        let [q, compressed] = if queries.are(all) {
            all.x.matmul_each(pass, [first, kv_a_proj])?
        } else {
            [queries.x.matmul(pass, first)?, all.x.matmul(pass, kv_a_proj)?]
        };
        let q = self.queries(pass, q)?.reshape(&[asked, heads, n + r])?;
        let q = q.rope(pass, queries.cos_sin, n, self.rope.layout)?;
        let c_kv = compressed.columns(pass, 0, c)?.rms_norm(pass, &self.kv_a_layernorm, INNER_EPSILON)?;
        pass.tap(Tap::Layer { layer: self.layer, value: "c_kv" }, &c_kv);
        let k_rope = compressed.columns(pass, c, r)?.reshape(&[tokens, 1, r])?;
        let k_rope = k_rope.rope(pass, all.cos_sin, 0, self.rope.layout)?.reshape(&[tokens, r])?;
        let out = match cache {
            Some(cache) if cache.form() == MlaForm::Absorbed => {
                self.absorbed(pass, &q, &c_kv, &k_rope, (queries.batch, all.batch), cache)?
            }
            cache => self.expanded(pass, &q, &c_kv, &k_rope, (queries.batch, all.batch), cache)?,
        };
        Ok(out.reshape(&[asked, heads * v])?.matmul(pass, &self.o_proj)?)
    }

    /// The matrix that reads states for queries: that of their latents, or of the queries themselves.
    fn first_of_queries(&self) -> &Param {
        let first = self.q_proj.as_ref().or(self.q_a_proj.as_ref());
        first.expect("invariant: the table of parameters gives MLA either q_proj or q_a_proj")
    }

    /// The queries of all heads before rotation, from what the first matrix gave. -> [T, H * (N + R)]
    fn queries(&self, pass: Pass<'_>, first: Tensor) -> Result<Tensor> {
        let (Some(norm), Some(q_b_proj)) = (&self.q_a_layernorm, &self.q_b_proj) else { return Ok(first) };
        let c_q = first.rms_norm(pass, norm, INNER_EPSILON)?;
        pass.tap(Tap::Layer { layer: self.layer, value: "c_q" }, &c_q);
        Ok(c_q.matmul(pass, q_b_proj)?)
    }

    /// Attends with keys and values of every head. q [R, H, N + R], c_kv [T, C], k_rope [T, R] -> [R, H, V]
    fn expanded(
        &self,
        pass: Pass<'_>,
        q: &Tensor,
        c_kv: &Tensor,
        k_rope: &Tensor,
        (batch, all): (&Batch, &Batch),
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let (n, v) = (self.sizes.qk_nope_head_dim, self.sizes.v_head_dim);
        let kv = c_kv.matmul(pass, &self.kv_b_proj)?.reshape(&[all.rows(), self.heads, n + v])?;
        let k = kv.columns(pass, 0, n)?.append_shared(pass, k_rope)?;
        let v = kv.columns(pass, n, v)?;
        let Some(cache) = cache else {
            return Ok(Tensor::attention(pass, q, &k, &v, batch.spans(), self.scale)?);
        };
        let pages = cache.layer(self.layer);
        pages.append(pass, &k, Some(&v), all.places())?;
        Ok(pages.attention(pass, q, batch.spans(), batch.page_table(), self.scale)?)
    }

    /// Attends to latents, with `kv_b_proj` moved to the query and to the output. Shapes as in `expanded`.
    fn absorbed(
        &self,
        pass: Pass<'_>,
        q: &Tensor,
        c_kv: &Tensor,
        k_rope: &Tensor,
        (batch, all): (&Batch, &Batch),
        cache: &mut KvCache,
    ) -> Result<Tensor> {
        let (n, r) = (self.sizes.qk_nope_head_dim, self.sizes.qk_rope_head_dim);
        let pages = cache.layer(self.layer);
        pages.append(pass, &c_kv.concat_columns(pass, k_rope)?, None, all.places())?;
        // States of latent width are the largest there are: each goes as soon as the next is made.
        let q = q
            .columns(pass, 0, n)?
            .heads_matmul_nn(pass, &self.kv_b_proj, 0)?
            .concat_columns(pass, &q.columns(pass, n, r)?)?;
        let z = pages.attention(pass, &q, batch.spans(), batch.page_table(), self.scale)?;
        drop(q);
        Ok(z.heads_matmul(pass, &self.kv_b_proj, n)?)
    }
}
