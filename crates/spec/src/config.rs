//! The configuration of a model: every hyper-parameter of the published `config.json`, checked once.
//!
//! [`ModelConfig::from_json`] reads the file as published (both the spelling of DeepSeek's, Qwen's and Llama's own
//! files and that of transformers 5). A value with a meaning that is not implemented is an error that names the field;
//! a key that is not known is reported. Nothing is inferred from sizes.

mod other_keys;
mod published;

pub use published::Parsed;

use crate::Error;

/// A model: the published hyper-parameters, under their published names.
///
/// Made by [`ModelConfig::from_json`], [`ModelConfig::from_value`], serde (a `[model]` table of a run) or
/// [`crate::presets`]; all of them end in [`ModelConfig::validate`].
///
/// # Examples
/// ```
/// let r1 = minke_spec::presets::r1();
/// assert_eq!((r1.hidden_size, r1.num_hidden_layers, r1.moe.as_ref().unwrap().n_routed_experts), (7168, 61, 256));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The architecture's family.
    pub model_type: ModelType,
    /// Rows of the embedding, `W`.
    pub vocab_size: usize,
    /// Width of the residual stream, `D`.
    pub hidden_size: usize,
    /// Blocks of the main model; multi-token prediction adds `num_nextn_predict_layers`.
    pub num_hidden_layers: usize,
    /// Query heads, `H`.
    pub num_attention_heads: usize,
    /// Width of a dense feed-forward, `F`.
    pub intermediate_size: usize,
    /// Whether the projections of a dense feed-forward have a bias (Llama with `mlp_bias`).
    pub mlp_bias: bool,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f32,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the head is the embedding (then there is no `lm_head` parameter).
    pub tie_word_embeddings: bool,
    /// Standard deviation of initial weights.
    pub initializer_range: f32,
    /// Token that begins a sequence.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a sequence.
    pub eos_token_ids: Vec<u32>,
    /// Token that fills a batch; packed batches never contain it.
    pub pad_token_id: Option<u32>,
    /// The attention of every block.
    pub attention: AttentionConfig,
    /// The rotary embedding.
    pub rope: RopeConfig,
    /// Experts, unless every block, MTP's included, is dense.
    pub moe: Option<MoeConfig>,
    /// Multi-token prediction layers; their ids follow those of the main model.
    pub num_nextn_predict_layers: usize,
}

/// The architectures that are described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelType {
    /// DeepSeek-V2 and V2-Lite: MLA and MoE with a softmax gate.
    DeepseekV2,
    /// DeepSeek-V3, R1-Zero, R1: MLA and MoE with a sigmoid gate.
    DeepseekV3,
    /// Llama 3.
    Llama,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    /// Qwen3, dense.
    Qwen3,
}

impl ModelType {
    /// All families.
    pub const ALL: [ModelType; 5] = [Self::DeepseekV2, Self::DeepseekV3, Self::Llama, Self::Qwen2, Self::Qwen3];

    /// The published `model_type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeepseekV2 => "deepseek_v2",
            Self::DeepseekV3 => "deepseek_v3",
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// The published entry of `architectures`.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::DeepseekV2 => "DeepseekV2ForCausalLM",
            Self::DeepseekV3 => "DeepseekV3ForCausalLM",
            Self::Llama => "LlamaForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// Whether the family is one of DeepSeek's, with latent attention.
    pub fn is_deepseek(self) -> bool {
        matches!(self, Self::DeepseekV2 | Self::DeepseekV3)
    }
}

/// The two kinds of attention.
#[derive(Clone, Debug, PartialEq)]
pub enum AttentionConfig {
    /// Multi-head latent attention (DeepSeek).
    Mla(MlaConfig),
    /// Grouped-query attention (Qwen, Llama).
    Gqa(GqaConfig),
}

/// Sizes of multi-head latent attention.
///
/// # Paper
/// V3 2.1.1 eqs. 1-11
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MlaConfig {
    /// Width of the compressed query, `Q`; without it `q_proj` maps the input directly.
    pub q_lora_rank: Option<usize>,
    /// Width of the cached latent, `C`.
    pub kv_lora_rank: usize,
    /// Part of a query or key head without position, `N`.
    pub qk_nope_head_dim: usize,
    /// Rotated part of a query head, and the whole shared rotated key, `R`.
    pub qk_rope_head_dim: usize,
    /// Width of a value head, `V`.
    pub v_head_dim: usize,
}

impl MlaConfig {
    /// The width of a whole query or key head, `N + R`.
    pub fn qk_head_dim(&self) -> usize {
        self.qk_nope_head_dim + self.qk_rope_head_dim
    }
}

/// Sizes and variants of grouped-query attention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GqaConfig {
    /// Key and value heads; each serves `num_attention_heads / num_key_value_heads` query heads.
    pub num_key_value_heads: usize,
    /// Width of every head.
    pub head_dim: usize,
    /// Whether `q_proj`, `k_proj` and `v_proj` have a bias (Qwen2 always; others with `attention_bias`).
    pub qkv_bias: bool,
    /// Whether `o_proj` has a bias (Llama and Qwen3 with `attention_bias`; GGUF files give it apart).
    pub o_bias: bool,
    /// Whether queries and keys are normalised per head before rotation (Qwen3).
    pub qk_norm: bool,
}

/// The rotary position embedding. The numbers that follow from it are in [`crate::rope`].
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies, `rope_theta`.
    pub theta: f64,
    /// How the frequencies are stretched for long contexts.
    pub scaling: RopeScaling,
    /// Whether neighbours `(2i, 2i + 1)` form a pair (DeepSeek), or `(i, i + dim / 2)` do (Qwen, Llama).
    pub interleaved: bool,
}

/// How rotary frequencies are stretched for long contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every frequency is divided by this factor.
    Linear(f64),
    /// YaRN (V3 4.3).
    Yarn(YarnConfig),
    /// Llama 3.1's.
    Llama3(Llama3RopeConfig),
    /// A divisor for the frequency of each pair: what a GGUF file has in place of Llama 3.1's fields.
    Divisors(Vec<f32>),
}

/// Fields of a YaRN scaling.
#[derive(Clone, Debug, PartialEq)]
pub struct YarnConfig {
    /// Context multiplier.
    pub factor: f64,
    /// Rotations within the original context above which a frequency is kept.
    pub beta_fast: f64,
    /// Rotations within the original context below which a frequency is divided by `factor`.
    pub beta_slow: f64,
    /// Weight of the magnitude correction of cos and sin; counts only together with `mscale_all_dim`.
    pub mscale: Option<f64>,
    /// Weight of the magnitude correction of the softmax scale (MLA only).
    pub mscale_all_dim: Option<f64>,
    /// Context length of pre-training, in tokens.
    pub original_max_position_embeddings: usize,
    /// Multiplier of cos and sin, if given outright. R1-0528-Qwen3-8B gives it as `attn_factor`, a factor on YaRN's
    /// own; it is resolved to the product when the file is read.
    pub attention_factor: Option<f64>,
}

/// Fields of Llama 3.1's scaling.
#[derive(Clone, Debug, PartialEq)]
pub struct Llama3RopeConfig {
    /// Divisor of the low frequencies.
    pub factor: f64,
    /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are divided.
    pub low_freq_factor: f64,
    /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are kept.
    pub high_freq_factor: f64,
    /// Context length of pre-training, in tokens.
    pub original_max_position_embeddings: usize,
}

/// The experts of DeepSeekMoE.
///
/// # Paper
/// V3 2.1.2 eqs. 12-20
#[derive(Clone, Debug, PartialEq)]
pub struct MoeConfig {
    /// Routed experts per layer, `E`.
    pub n_routed_experts: usize,
    /// Shared experts per layer, stored as one feed-forward of `n_shared_experts * moe_intermediate_size`.
    pub n_shared_experts: usize,
    /// Routed experts that a token visits, `K`.
    pub num_experts_per_tok: usize,
    /// Width of an expert, `F`.
    pub moe_intermediate_size: usize,
    /// Layers below this id are dense.
    pub first_k_dense_replace: usize,
    /// Groups of consecutive experts.
    pub n_group: usize,
    /// Groups that a token may visit.
    pub topk_group: usize,
    /// How experts are chosen.
    pub topk_method: TopkMethod,
    /// How logits of the gate become scores.
    pub scoring_func: ScoringFunc,
    /// Whether the weights of the chosen experts are normalised to sum 1.
    pub norm_topk_prob: bool,
    /// Multiplier of the weights of the chosen experts.
    pub routed_scaling_factor: f32,
    /// Weight of the sequence-wise balance loss.
    pub aux_loss_alpha: f32,
}

impl MoeConfig {
    /// The width of the shared feed-forward.
    pub fn shared_intermediate_size(&self) -> usize {
        self.n_shared_experts * self.moe_intermediate_size
    }
}

/// How experts are chosen from their scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopkMethod {
    /// V3: scores plus correction bias; a group counts its two best.
    NoauxTc,
    /// V2: a group counts its best.
    GroupLimitedGreedy,
    /// V2-Lite: no groups.
    Greedy,
}

impl TopkMethod {
    /// All methods.
    pub const ALL: [TopkMethod; 3] = [Self::NoauxTc, Self::GroupLimitedGreedy, Self::Greedy];

    /// The published name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoauxTc => "noaux_tc",
            Self::GroupLimitedGreedy => "group_limited_greedy",
            Self::Greedy => "greedy",
        }
    }
}

/// How logits of the gate become scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoringFunc {
    /// V3.
    Sigmoid,
    /// V2.
    Softmax,
}

impl ScoringFunc {
    /// All functions.
    pub const ALL: [ScoringFunc; 2] = [Self::Sigmoid, Self::Softmax];

    /// The published name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sigmoid => "sigmoid",
            Self::Softmax => "softmax",
        }
    }
}

impl ModelConfig {
    /// Whether the feed-forward of a layer consists of experts. Ids from `num_hidden_layers` on are MTP layers.
    pub fn is_moe_layer(&self, layer: usize) -> bool {
        self.moe.as_ref().is_some_and(|moe| layer >= moe.first_k_dense_replace)
    }

    /// The number of layers with MTP layers, which is also the number of layers of the cache.
    pub fn num_layers_with_mtp(&self) -> usize {
        self.num_hidden_layers + self.num_nextn_predict_layers
    }

    /// Takes the multi-token prediction layers away, for weights that lack them.
    pub fn remove_mtp(&mut self) {
        self.num_nextn_predict_layers = 0;
        // Experts that only those layers had are gone with them.
        let num_layers = self.num_hidden_layers;
        self.moe.take_if(|moe| moe.first_k_dense_replace >= num_layers);
    }

    /// How many channels of a head are rotated.
    pub fn rope_dim(&self) -> usize {
        match &self.attention {
            AttentionConfig::Mla(mla) => mla.qk_rope_head_dim,
            AttentionConfig::Gqa(gqa) => gqa.head_dim,
        }
    }

    /// The width of a query or key head and that of a value head, as multiplied in expanded attention.
    pub fn head_dims(&self) -> (usize, usize) {
        match &self.attention {
            AttentionConfig::Mla(mla) => (mla.qk_head_dim(), mla.v_head_dim),
            AttentionConfig::Gqa(gqa) => (gqa.head_dim, gqa.head_dim),
        }
    }

    /// Checks that all sizes agree with each other and that no product of them can overflow.
    ///
    /// # Errors
    /// The first field that is out of range, contradicts another or does not exist in the family.
    pub fn validate(&self) -> Result<(), Error> {
        within("vocab_size", self.vocab_size, MAX_VOCABULARY)?;
        within("hidden_size", self.hidden_size, MAX_WIDTH)?;
        within("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS)?;
        within("num_attention_heads", self.num_attention_heads, MAX_WIDTH)?;
        within("intermediate_size", self.intermediate_size, MAX_WIDTH)?;
        within("max_position_embeddings", self.max_position_embeddings, MAX_POSITIONS)?;
        require(
            self.num_nextn_predict_layers <= MAX_LAYERS,
            "num_nextn_predict_layers",
            self.num_nextn_predict_layers,
            || format!("must not exceed {MAX_LAYERS}"),
        )?;
        require(
            self.num_nextn_predict_layers == 0 || self.model_type == ModelType::DeepseekV3,
            "num_nextn_predict_layers",
            self.num_nextn_predict_layers,
            || format!("{} has no multi-token prediction", self.model_type.name()),
        )?;
        require(!self.mlp_bias || self.model_type == ModelType::Llama, "mlp_bias", self.mlp_bias, || {
            format!("{} has no biases in feed-forwards", self.model_type.name())
        })?;
        positive("rms_norm_eps", self.rms_norm_eps.into())?;
        require((0.0..=1.0).contains(&self.initializer_range), "initializer_range", self.initializer_range, || {
            "must lie between 0 and 1".to_owned()
        })?;
        self.validate_tokens()?;
        match &self.attention {
            AttentionConfig::Mla(mla) => self.validate_mla(mla)?,
            AttentionConfig::Gqa(gqa) => self.validate_gqa(gqa)?,
        }
        require(self.rope_dim().is_multiple_of(2), self.rope_dim_field(), self.rope_dim(), || {
            "rotary channels come in pairs, so it must be even".to_owned()
        })?;
        self.rope.validate()?;
        if let Some(moe) = &self.moe {
            require(self.model_type.is_deepseek(), "n_routed_experts", moe.n_routed_experts, || {
                format!("{} has no experts", self.model_type.name())
            })?;
            let (first, num_layers) = (moe.first_k_dense_replace, self.num_layers_with_mtp());
            require(first < num_layers, "first_k_dense_replace", first, || {
                format!("must be below the number of layers ({num_layers}); a dense model has no experts")
            })?;
            moe.validate(self.model_type)?;
        }
        Ok(())
    }

    fn validate_tokens(&self) -> Result<(), Error> {
        let ids = self.bos_token_id.iter().map(|id| ("bos_token_id", id));
        let ids = ids.chain(self.eos_token_ids.iter().map(|id| ("eos_token_id", id)));
        for (field, &id) in ids.chain(self.pad_token_id.iter().map(|id| ("pad_token_id", id))) {
            require((id as usize) < self.vocab_size, field, id, || {
                format!("must be below vocab_size ({})", self.vocab_size)
            })?;
        }
        Ok(())
    }

    fn validate_mla(&self, mla: &MlaConfig) -> Result<(), Error> {
        require(self.model_type.is_deepseek(), "model_type", self.model_type.name(), || {
            "latent attention belongs to the DeepSeek families".to_owned()
        })?;
        if let Some(rank) = mla.q_lora_rank {
            within("q_lora_rank", rank, MAX_WIDTH)?;
        }
        within("kv_lora_rank", mla.kv_lora_rank, MAX_WIDTH)?;
        within("qk_nope_head_dim", mla.qk_nope_head_dim, MAX_WIDTH)?;
        within("qk_rope_head_dim", mla.qk_rope_head_dim, MAX_WIDTH)?;
        within("v_head_dim", mla.v_head_dim, MAX_WIDTH)?;
        self.validate_heads(mla.qk_head_dim())?;
        self.validate_heads(mla.qk_nope_head_dim + mla.v_head_dim)
    }

    fn validate_gqa(&self, gqa: &GqaConfig) -> Result<(), Error> {
        let family = self.model_type;
        require(!family.is_deepseek(), "model_type", family.name(), || {
            "grouped-query attention belongs to the Qwen and Llama families".to_owned()
        })?;
        within("num_key_value_heads", gqa.num_key_value_heads, MAX_WIDTH)?;
        within("head_dim", gqa.head_dim, MAX_WIDTH)?;
        self.validate_heads(gqa.head_dim)?;
        require(
            self.num_attention_heads.is_multiple_of(gqa.num_key_value_heads),
            "num_key_value_heads",
            gqa.num_key_value_heads,
            || format!("must divide num_attention_heads ({})", self.num_attention_heads),
        )?;
        require(
            family != ModelType::Llama || self.hidden_size.is_multiple_of(self.num_attention_heads),
            "num_attention_heads",
            self.num_attention_heads,
            || format!("must divide hidden_size ({})", self.hidden_size),
        )?;
        let biases_exist = match family {
            ModelType::Qwen2 => gqa.qkv_bias && !gqa.o_bias,
            ModelType::Llama => true,
            _ => gqa.qkv_bias || !gqa.o_bias,
        };
        require(biases_exist, "attention_bias", gqa.qkv_bias, || {
            format!("{} does not have this combination of biases", family.name())
        })?;
        require(gqa.qk_norm == (family == ModelType::Qwen3), "model_type", family.name(), || {
            "queries and keys are normalised in qwen3 and only there".to_owned()
        })
    }

    fn validate_heads(&self, head_dim: usize) -> Result<(), Error> {
        let width = self.num_attention_heads.checked_mul(head_dim);
        require(width.is_some_and(|width| width <= MAX_WIDTH), "num_attention_heads", self.num_attention_heads, || {
            format!("times the width of a head ({head_dim}) must not exceed {MAX_WIDTH}")
        })
    }

    fn rope_dim_field(&self) -> &'static str {
        match self.attention {
            AttentionConfig::Mla(_) => "qk_rope_head_dim",
            AttentionConfig::Gqa(_) => "head_dim",
        }
    }
}

impl RopeConfig {
    fn validate(&self) -> Result<(), Error> {
        positive("rope_theta", self.theta)?;
        require(self.theta > 1.0, "rope_theta", self.theta, || "must be greater than 1".to_owned())?;
        let (factor, original) = match &self.scaling {
            RopeScaling::None => return Ok(()),
            RopeScaling::Linear(factor) => return positive("factor", *factor),
            RopeScaling::Yarn(yarn) => {
                positive("beta_slow", yarn.beta_slow)?;
                at_least(yarn.beta_slow, "beta_fast", yarn.beta_fast)?;
                for (field, value) in [
                    ("mscale", yarn.mscale),
                    ("mscale_all_dim", yarn.mscale_all_dim),
                    ("attention_factor", yarn.attention_factor),
                ] {
                    value.map_or(Ok(()), |value| positive(field, value))?;
                }
                (yarn.factor, yarn.original_max_position_embeddings)
            }
            RopeScaling::Llama3(llama3) => {
                let (low, high) = (llama3.low_freq_factor, llama3.high_freq_factor);
                positive("low_freq_factor", low)?;
                positive("high_freq_factor", high)?;
                require(high > low, "high_freq_factor", high, || {
                    format!("must be greater than low_freq_factor ({low})")
                })?;
                (llama3.factor, llama3.original_max_position_embeddings)
            }
            RopeScaling::Divisors(divisors) => {
                return divisors.iter().try_for_each(|&divisor| positive("rope_freqs", divisor.into()));
            }
        };
        at_least(1.0, "factor", factor)?;
        within("original_max_position_embeddings", original, MAX_POSITIONS)
    }
}

impl MoeConfig {
    fn validate(&self, family: ModelType) -> Result<(), Error> {
        within("n_routed_experts", self.n_routed_experts, MAX_EXPERTS)?;
        within("moe_intermediate_size", self.moe_intermediate_size, MAX_WIDTH)?;
        within("n_shared_experts", self.n_shared_experts, MAX_EXPERTS)?;
        let shared = self.shared_intermediate_size();
        require(shared <= MAX_WIDTH, "n_shared_experts", self.n_shared_experts, || {
            format!("times moe_intermediate_size ({}) must not exceed {MAX_WIDTH}", self.moe_intermediate_size)
        })?;
        within("n_group", self.n_group, self.n_routed_experts)?;
        require(self.n_routed_experts.is_multiple_of(self.n_group), "n_group", self.n_group, || {
            format!("must divide n_routed_experts ({})", self.n_routed_experts)
        })?;
        let per_group = self.n_routed_experts / self.n_group;
        within("topk_group", self.topk_group, self.n_group)?;
        within("num_experts_per_tok", self.num_experts_per_tok, self.topk_group * per_group)?;
        let v3 = family == ModelType::DeepseekV3;
        require(v3 == (self.topk_method == TopkMethod::NoauxTc), "topk_method", self.topk_method.name(), || {
            format!("{} chooses experts in another way", family.name())
        })?;
        require(v3 == (self.scoring_func == ScoringFunc::Sigmoid), "scoring_func", self.scoring_func.name(), || {
            format!("{} scores experts in another way", family.name())
        })?;
        require(!v3 || per_group >= 2, "n_group", self.n_group, || {
            "a group is scored by its two best experts, so it needs at least two".to_owned()
        })?;
        positive("routed_scaling_factor", self.routed_scaling_factor.into())?;
        at_least(0.0, "aux_loss_alpha", self.aux_loss_alpha.into())
    }
}

fn require(
    holds: bool,
    field: &'static str,
    value: impl ToString,
    reason: impl FnOnce() -> String,
) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::Invalid { field, value: value.to_string(), reason: reason() }) }
}

fn within(field: &'static str, value: usize, most: usize) -> Result<(), Error> {
    require((1..=most).contains(&value), field, value, || format!("must lie between 1 and {most}"))
}

fn positive(field: &'static str, value: f64) -> Result<(), Error> {
    require(value > 0.0 && value <= MAX_FACTOR, field, value, || {
        format!("must be positive and not exceed {MAX_FACTOR}")
    })
}

fn at_least(least: f64, field: &'static str, value: f64) -> Result<(), Error> {
    require((least..=MAX_FACTOR).contains(&value), field, value, || {
        format!("must lie between {least} and {MAX_FACTOR}")
    })
}

// Several times the largest model that anyone has published, and small enough that elements, bytes and training FLOPs
// of all layers together stay below 2^64: 3 matrices * 2^18 * 2^18 * 2^12 experts * 2^11 layers < 2^61.
const MAX_WIDTH: usize = 1 << 18;
const MAX_VOCABULARY: usize = 1 << 22;
const MAX_LAYERS: usize = 1 << 10;
const MAX_EXPERTS: usize = 1 << 12;
const MAX_POSITIONS: usize = 1 << 28;
/// Bounds every real number of a configuration, so that what is computed from several of them stays finite.
const MAX_FACTOR: f64 = 1e9;
const _: () = assert!(usize::BITS == 64);
