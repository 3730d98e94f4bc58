//! Costs of a model: parameters, FLOPs and cached bytes, GPU-hours and dollars.
//!
//! The counts of a model are exact integers that follow from the table of parameters; the papers print them. The money
//! is arithmetic over published rates.

use crate::config::{AttentionConfig, ModelConfig};
use crate::format::Format;
use crate::params::{ParamRole, ParamSpec, parameters};

/// Parameters of a model, counted in the ways in which papers count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterCounts {
    /// The main model, without multi-token prediction.
    pub total: usize,
    /// Used by one token: everything but the experts that it does not visit.
    pub activated: usize,
    /// `activated` without the embedding table, of which a token reads one row; the papers' "37B". A tied table stays,
    /// since it is the head too.
    pub activated_excluding_embedding: usize,
    /// `activated` without embedding and head.
    pub activated_excluding_embedding_and_head: usize,
    /// Multiplied with each token: matrices, visited experts, gates and the head.
    pub activated_in_matmuls: usize,
    /// The attention of one layer, its norms included.
    pub attention_per_layer: usize,
    /// Multi-token prediction, the copies of embedding and head not counted.
    pub mtp: usize,
}

/// The parameter counts of a model.
///
/// # Paper
/// - costs (parameter counts)
/// - Test: crates/spec/tests/counts_are_those_of_the_papers.rs
/// - Vector: testdata/vectors/parameter_counts.json
/// - V3 2.1, 4.2 (671B, of which 37B are activated); facts sheet 1.9
pub fn parameter_counts(config: &ModelConfig) -> ParameterCounts {
    let specs = parameters(config);
    let (mtp, main): (Vec<_>, Vec<_>) =
        specs.iter().partition(|spec| spec.layer.is_some_and(|layer| layer >= config.num_hidden_layers));
    let sum = |keep: &dyn Fn(&ParamSpec) -> bool, count: &dyn Fn(&ParamSpec) -> usize| -> usize {
        main.iter().filter(|spec| keep(spec)).map(|spec| count(spec)).sum()
    };
    let activated = |spec: &ParamSpec| activated_elements(config, spec);
    let table = config.vocab_size * config.hidden_size;
    let multiplied = |spec: &ParamSpec| match spec.role {
        ParamRole::Matrix | ParamRole::Experts | ParamRole::Router | ParamRole::Head => true,
        ParamRole::Embedding => config.tie_word_embeddings,
        ParamRole::Norm | ParamRole::Bias | ParamRole::CorrectionBias => false,
    };
    let all_activated = sum(&|_| true, &activated);
    let untied_table = if config.tie_word_embeddings { 0 } else { table };
    ParameterCounts {
        total: sum(&|_| true, &ParamSpec::elements),
        activated: all_activated,
        activated_excluding_embedding: all_activated - untied_table,
        activated_excluding_embedding_and_head: all_activated - untied_table - table,
        activated_in_matmuls: sum(&multiplied, &activated),
        attention_per_layer: sum(
            &|spec| spec.layer == Some(0) && spec.name.contains(".self_attn."),
            &ParamSpec::elements,
        ),
        mtp: mtp.iter().map(|spec| spec.elements()).sum(),
    }
}

/// The elements of a parameter that one token uses.
fn activated_elements(config: &ModelConfig, spec: &ParamSpec) -> usize {
    match (&config.moe, spec.role) {
        (Some(moe), ParamRole::Experts) => spec.elements() / moe.n_routed_experts * moe.num_experts_per_tok,
        _ => spec.elements(),
    }
}

/// Training FLOPs per token of the main model; a multiply-add is two, a backward pass two forward ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainFlops {
    /// Matrices, experts, gates and head.
    pub linear: usize,
    /// Query-key and probability-value products that a causal mask leaves, on average over the sequence.
    pub attention_causal: usize,
    /// The same without regard to the mask.
    pub attention_full: usize,
}

impl TrainFlops {
    /// The total under a causal mask.
    pub fn total_causal(&self) -> usize {
        self.linear + self.attention_causal
    }

    /// The total as if every token attended to the whole sequence.
    pub fn total_full(&self) -> usize {
        self.linear + self.attention_full
    }
}

/// The FLOPs of training on one token of a sequence of `sequence_tokens`.
///
/// # Units
/// tokens -> FLOPs per token
///
/// # Paper
/// - costs (FLOPs of one token)
/// - facts sheet 1.9; ISCA25 Table 2 (250 GFLOPs per token for V3)
pub fn train_flops_per_token(config: &ModelConfig, sequence_tokens: usize) -> TrainFlops {
    let (qk_head_dim, v_head_dim) = config.head_dims();
    let per_pair = config.num_hidden_layers * config.num_attention_heads * (qk_head_dim + v_head_dim);
    TrainFlops {
        linear: 6 * parameter_counts(config).activated_in_matmuls,
        // The average token sees (n + 1) / 2 positions.
        attention_causal: 3 * per_pair * (sequence_tokens + 1),
        attention_full: 6 * per_pair * sequence_tokens,
    }
}

/// What one token takes in the cache of the main model.
///
/// # Units
/// bytes per token
///
/// # Paper
/// - costs (bytes of the cache)
/// - V3 2.1.1 (latent and rotated key are cached); ISCA25 Table 1 (70.272 KB for V3)
pub fn kv_bytes_per_token(config: &ModelConfig, format: Format) -> usize {
    let per_layer = match &config.attention {
        AttentionConfig::Mla(mla) => mla.kv_lora_rank + mla.qk_rope_head_dim,
        AttentionConfig::Gqa(gqa) => 2 * gqa.num_key_value_heads * gqa.head_dim,
    };
    format.bytes(per_layer) * config.num_hidden_layers
}

/// Time on accelerators, the currency of training.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct GpuHours(pub f64);

impl GpuHours {
    /// The time that `num_gpus` take in `hours`.
    pub fn of_cluster(num_gpus: usize, hours: f64) -> Self {
        Self(num_gpus as f64 * hours)
    }

    /// The time for `tokens` at a measured rate.
    pub fn of_tokens(tokens: f64, gpu_hours_per_trillion_tokens: f64) -> Self {
        Self(tokens / TRILLION * gpu_hours_per_trillion_tokens)
    }

    /// The duration on a cluster, in days.
    pub fn days_on(self, num_gpus: usize) -> f64 {
        self.0 / num_gpus as f64 / 24.0
    }

    /// The rent, in dollars.
    pub fn usd(self, usd_per_gpu_hour: f64) -> f64 {
        self.0 * usd_per_gpu_hour
    }

    /// The useful FLOPs per second and GPU, if this time was spent on `tokens`.
    pub fn flops_per_second(self, tokens: f64, train_flops_per_token: usize) -> f64 {
        train_flops_per_token as f64 * tokens / (self.0 * 3600.0)
    }
}

/// The tokens of a day of optimizer steps.
///
/// # Units
/// tokens per step, seconds per step -> tokens per day
pub fn tokens_per_day(tokens_per_step: usize, step_s: f64) -> f64 {
    tokens_per_step as f64 * 86_400.0 / step_s
}

/// Prices of a served model, in dollars per million tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenPrices {
    /// Prompt tokens found in the cache.
    pub cache_hit_usd: f64,
    /// Prompt tokens computed.
    pub cache_miss_usd: f64,
    /// Generated tokens.
    pub output_usd: f64,
}

impl TokenPrices {
    /// The revenue of so many tokens, in dollars.
    pub fn revenue_usd(&self, cache_hits: f64, cache_misses: f64, outputs: f64) -> f64 {
        (cache_hits * self.cache_hit_usd + cache_misses * self.cache_miss_usd + outputs * self.output_usd) / 1e6
    }
}

const TRILLION: f64 = 1e12;
