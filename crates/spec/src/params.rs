//! The parameters of a model: their published names and shapes.
//!
//! This is the one table of parameters. Loader, exporter, optimizer groups, checkpoint and planner iterate over
//! [`parameters`]; nothing else in the project spells a tensor's name. One row may stand for many published tensors:
//! the experts of a layer are one stacked parameter and `E` tensors in the file.

use crate::config::{AttentionConfig, GqaConfig, MlaConfig, ModelConfig, ModelType, TopkMethod};
use crate::format::{Format, fp8_scale_shape};

/// One parameter: a row of the table.
///
/// # Examples
/// ```
/// let specs = minke_spec::parameters(&minke_spec::presets::r1());
/// let up = specs.iter().find(|spec| spec.name == "model.layers.3.mlp.experts.up_proj.weight").unwrap();
/// assert_eq!(up.shape, [256, 2048, 7168]);
/// assert_eq!(up.published()[7].name, "model.layers.3.mlp.experts.7.up_proj.weight");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamSpec {
    /// Published name; of stacked experts, the published name without the number of the expert.
    pub name: String,
    /// Shape: `[out, in]` for matrices, `[E, out, in]` for experts.
    pub shape: Vec<usize>,
    /// What the parameter does.
    pub role: ParamRole,
    /// Layer id; MTP layers follow those of the main model.
    pub layer: Option<usize>,
    /// How it is split over ranks.
    pub shard: Shard,
}

/// What a parameter does, as far as initialisation, optimizer, precision and formats care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParamRole {
    /// The token embedding, `[W, D]`.
    Embedding,
    /// The output head, `[W, D]`; absent where the embedding is tied.
    Head,
    /// A projection, `[out, in]`.
    Matrix,
    /// A projection of every expert of a layer, `[E, out, in]`.
    Experts,
    /// The gate of a layer with experts, `[E, D]`.
    Router,
    /// The weight of an RMSNorm.
    Norm,
    /// The bias of a projection.
    Bias,
    /// The selection bias of a gate, `[E]`: no gradient, moved by the load of the experts.
    CorrectionBias,
}

impl ParamRole {
    /// Whether a model of precision `Bf16` holds the values as bf16: those of embedding and head, and of what multiplies rows, but
    /// for the gate.
    pub fn is_rounded(self) -> bool {
        match self {
            Self::Embedding | Self::Head | Self::Matrix | Self::Experts => true,
            Self::Router | Self::Norm | Self::Bias | Self::CorrectionBias => false,
        }
    }
}

/// How a parameter is split over the ranks that share a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shard {
    /// Every rank holds all of it.
    Replicated,
    /// By output features (heads, channels of a feed-forward).
    Rows,
    /// By input features; partial results are summed.
    Columns,
    /// By experts.
    Experts,
    /// By tokens of the vocabulary.
    Vocabulary,
}

/// A tensor of a published checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTensor {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// A tensor of a published checkpoint, and where its values are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Where its values are.
    pub source: TensorSource,
}

/// Where the values of a published tensor are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TensorSource {
    /// In a parameter, or in one expert of it.
    Own {
        /// Row of [`parameters`].
        param: usize,
        /// The expert, if the parameter stacks them.
        expert: Option<usize>,
    },
    /// In the parameter of that name, of which the tensor is a physical copy: written on export, dropped on import.
    CopyOf(String),
}

impl ParamSpec {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The tensors of a published checkpoint that hold this parameter; for experts, in the order of experts.
    pub fn published(&self) -> Vec<PublishedTensor> {
        if self.role != ParamRole::Experts {
            return vec![PublishedTensor { name: self.name.clone(), shape: self.shape.clone() }];
        }
        let (prefix, suffix) =
            self.name.split_once(".experts.").expect("invariant: experts are named `...mlp.experts.<projection>`");
        let one = |expert| PublishedTensor {
            name: format!("{prefix}.experts.{expert}.{suffix}"),
            shape: self.shape[1..].to_vec(),
        };
        (0..self.shape[0]).map(one).collect()
    }

    /// The format in which DeepSeek publishes this parameter.
    ///
    /// # Paper
    /// V3 3.3.1: embedding, head, gate and norms stay in higher precision, and so does `eh_proj` in the checkpoint
    pub fn published_format(&self) -> Format {
        match self.role {
            ParamRole::Matrix | ParamRole::Experts if !self.name.ends_with(".eh_proj.weight") => Format::F8E4M3,
            ParamRole::CorrectionBias => Format::F32,
            _ => Format::Bf16,
        }
    }

    /// The block scales (`..._scale_inv`) that accompany each tensor of [`ParamSpec::published`] in DeepSeek's
    /// FP8 checkpoints; empty for parameters that are not FP8 there.
    pub fn published_scales(&self) -> Vec<PublishedTensor> {
        if self.published_format() != Format::F8E4M3 {
            return Vec::new();
        }
        let scale = |weight: PublishedTensor| PublishedTensor {
            name: format!("{}_scale_inv", weight.name),
            shape: fp8_scale_shape(weight.shape[0], weight.shape[1]).to_vec(),
        };
        self.published().into_iter().map(scale).collect()
    }
}

/// Every parameter of a model, in the order of the forward pass; MTP layers come last.
///
/// # Paper
/// V3 2.1, 2.2; facts sheet 1.6, 1.7, 1.12
pub fn parameters(config: &ModelConfig) -> Vec<ParamSpec> {
    let mut table = Table { config, specs: Vec::new(), layer: None };
    let width = config.hidden_size;
    table.push(EMBEDDING, &[config.vocab_size, width], ParamRole::Embedding, Shard::Vocabulary);
    for layer in 0..config.num_hidden_layers {
        table.block(layer);
    }
    table.layer = None;
    table.push("model.norm.weight", &[width], ParamRole::Norm, Shard::Replicated);
    if !config.tie_word_embeddings {
        table.push(HEAD, &[config.vocab_size, width], ParamRole::Head, Shard::Vocabulary);
    }
    for layer in config.num_hidden_layers..config.num_layers_with_mtp() {
        table.layer = Some(layer);
        table.norm("enorm", width);
        table.norm("hnorm", width);
        table.matrix("eh_proj", [width, 2 * width], Shard::Replicated);
        table.block(layer);
        table.norm("shared_head.norm", width);
    }
    table.specs
}

/// Every tensor of a published checkpoint, block scales aside: those of all parameters, and the copies of
/// embedding and head that each MTP layer carries.
pub fn published_tensors(config: &ModelConfig) -> Vec<Published> {
    let mut tensors = Vec::new();
    for (param, spec) in parameters(config).iter().enumerate() {
        for (expert, tensor) in spec.published().into_iter().enumerate() {
            let expert = (spec.role == ParamRole::Experts).then_some(expert);
            let source = TensorSource::Own { param, expert };
            tensors.push(Published { name: tensor.name, shape: tensor.shape, source });
        }
    }
    let head = if config.tie_word_embeddings { EMBEDDING } else { HEAD };
    for layer in config.num_hidden_layers..config.num_layers_with_mtp() {
        for (name, original) in [("embed_tokens", EMBEDDING), ("shared_head.head", head)] {
            tensors.push(Published {
                name: format!("model.layers.{layer}.{name}.weight"),
                shape: vec![config.vocab_size, config.hidden_size],
                source: TensorSource::CopyOf(original.to_owned()),
            });
        }
    }
    tensors
}

/// Names, formats and shapes of all tensors of a published checkpoint, block scales included: FP8 with its exceptions where
/// DeepSeek-V3's architecture is published, BF16 elsewhere.
pub fn published_files(config: &ModelConfig) -> Vec<(String, Format, Vec<usize>)> {
    let specs = parameters(config);
    let mut files = Vec::new();
    for tensor in published_tensors(config) {
        let format = match tensor.source {
            TensorSource::Own { param, .. } if config.model_type == ModelType::DeepseekV3 => {
                specs[param].published_format()
            }
            _ => Format::Bf16,
        };
        if format == Format::F8E4M3 {
            let scales = fp8_scale_shape(tensor.shape[0], tensor.shape[1]).to_vec();
            files.push((format!("{}_scale_inv", tensor.name), Format::F32, scales));
        }
        files.push((tensor.name, format, tensor.shape));
    }
    files
}

/// Name of the token embedding.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the head, where it is not the embedding.
pub const HEAD: &str = "lm_head.weight";

/// The table while it is written.
struct Table<'a> {
    config: &'a ModelConfig,
    specs: Vec<ParamSpec>,
    layer: Option<usize>,
}

impl Table<'_> {
    fn push(&mut self, name: &str, shape: &[usize], role: ParamRole, shard: Shard) {
        let name = match self.layer {
            Some(layer) => format!("model.layers.{layer}.{name}"),
            None => name.to_owned(),
        };
        self.specs.push(ParamSpec { name, shape: shape.to_vec(), role, layer: self.layer, shard });
    }

    fn norm(&mut self, module: &str, width: usize) {
        self.push(&format!("{module}.weight"), &[width], ParamRole::Norm, Shard::Replicated);
    }

    fn matrix(&mut self, module: &str, shape: [usize; 2], shard: Shard) {
        self.push(&format!("{module}.weight"), &shape, ParamRole::Matrix, shard);
    }

    fn block(&mut self, layer: usize) {
        self.layer = Some(layer);
        self.norm("input_layernorm", self.config.hidden_size);
        match &self.config.attention {
            AttentionConfig::Mla(mla) => self.mla(mla),
            AttentionConfig::Gqa(gqa) => self.gqa(gqa),
        }
        self.norm("post_attention_layernorm", self.config.hidden_size);
        if self.config.is_moe_layer(layer) {
            self.experts();
        } else {
            self.mlp("mlp", self.config.intermediate_size);
        }
    }

    fn mla(&mut self, mla: &MlaConfig) {
        let (width, heads) = (self.config.hidden_size, self.config.num_attention_heads);
        let query = heads * mla.qk_head_dim();
        match mla.q_lora_rank {
            Some(rank) => {
                self.matrix("self_attn.q_a_proj", [rank, width], Shard::Replicated);
                self.norm("self_attn.q_a_layernorm", rank);
                self.matrix("self_attn.q_b_proj", [query, rank], Shard::Rows);
            }
            None => self.matrix("self_attn.q_proj", [query, width], Shard::Rows),
        }
        let latent = mla.kv_lora_rank;
        self.matrix("self_attn.kv_a_proj_with_mqa", [latent + mla.qk_rope_head_dim, width], Shard::Replicated);
        self.norm("self_attn.kv_a_layernorm", latent);
        self.matrix("self_attn.kv_b_proj", [heads * (mla.qk_nope_head_dim + mla.v_head_dim), latent], Shard::Rows);
        self.matrix("self_attn.o_proj", [width, heads * mla.v_head_dim], Shard::Columns);
    }

    fn gqa(&mut self, gqa: &GqaConfig) {
        let (width, query) = (self.config.hidden_size, self.config.num_attention_heads * gqa.head_dim);
        let key = gqa.num_key_value_heads * gqa.head_dim;
        for (module, out) in [("self_attn.q_proj", query), ("self_attn.k_proj", key), ("self_attn.v_proj", key)] {
            self.matrix(module, [out, width], Shard::Rows);
            if gqa.qkv_bias {
                self.push(&format!("{module}.bias"), &[out], ParamRole::Bias, Shard::Rows);
            }
        }
        if gqa.qk_norm {
            self.norm("self_attn.q_norm", gqa.head_dim);
            self.norm("self_attn.k_norm", gqa.head_dim);
        }
        self.matrix("self_attn.o_proj", [width, query], Shard::Columns);
        if gqa.o_bias {
            self.push("self_attn.o_proj.bias", &[width], ParamRole::Bias, Shard::Replicated);
        }
    }

    fn mlp(&mut self, module: &str, intermediate: usize) {
        let width = self.config.hidden_size;
        for (projection, shape, shard, bias) in [
            ("gate_proj", [intermediate, width], Shard::Rows, Shard::Rows),
            ("up_proj", [intermediate, width], Shard::Rows, Shard::Rows),
            ("down_proj", [width, intermediate], Shard::Columns, Shard::Replicated),
        ] {
            self.matrix(&format!("{module}.{projection}"), shape, shard);
            if self.config.mlp_bias {
                self.push(&format!("{module}.{projection}.bias"), &shape[..1], ParamRole::Bias, bias);
            }
        }
    }

    fn experts(&mut self) {
        let config = self.config;
        let moe = config.moe.as_ref().expect("invariant: a layer with experts has their configuration");
        let (experts, width, intermediate) = (moe.n_routed_experts, config.hidden_size, moe.moe_intermediate_size);
        self.push("mlp.gate.weight", &[experts, width], ParamRole::Router, Shard::Replicated);
        if moe.topk_method == TopkMethod::NoauxTc {
            self.push("mlp.gate.e_score_correction_bias", &[experts], ParamRole::CorrectionBias, Shard::Replicated);
        }
        for (projection, shape) in [
            ("gate_proj", [experts, intermediate, width]),
            ("up_proj", [experts, intermediate, width]),
            ("down_proj", [experts, width, intermediate]),
        ] {
            self.push(&format!("mlp.experts.{projection}.weight"), &shape, ParamRole::Experts, Shard::Experts);
        }
        self.mlp("mlp.shared_experts", moe.shared_intermediate_size());
    }
}
