//! Conversion of a model to the other layout: its tensors in formats that the layout has, and its configuration:
//! metadata of a GGUF file, or a `config.json`.

use half::f16;
use minke_spec::config::{
    AttentionConfig, Llama3RopeConfig, ModelType, RopeConfig, RopeScaling, ScoringFunc, TopkMethod,
};
use minke_spec::rope::{cos_sin_multiplier, inverse_frequencies, softmax_scale};
use minke_spec::{Format, ModelConfig, ParamRole};
use serde_json::{Value as Json, json};

use crate::archive::Archive;
use crate::contents::read_text;
use crate::gguf::Metadata;
use crate::gguf_write::Pairs;
use crate::plan::{self, Data, PlannedTensor};
use crate::{CONFIG_FILE, gguf_model};
use crate::{Error, Result};

/// Keys that describe the file, not the model: a copy has its own.
const OF_THE_FILE: [&str; 6] = [
    "general.file_type",
    "general.quantization_version",
    "general.alignment",
    "split.no",
    "split.count",
    "split.tensors.count",
];

impl Archive {
    /// The tensors of a GGUF file with these weights, in the formats in which they are stored: FP8, which GGUF does not
    /// have, becomes BF16, and what is small (vectors, gates) F32. Layers that predict further tokens are left out of a
    /// folder's, since llama.cpp has no place for them.
    ///
    /// # Errors
    /// If a tensor is missing or of a format that is not supported, or the model has no form in GGUF.
    pub fn plan_gguf(&self) -> Result<Vec<PlannedTensor>> {
        self.check_weights()?;
        if self.metadata.is_some() {
            return plan::same(self);
        }
        self.check_gguf_form()?;
        let mut all = plan::to_gguf(self)?;
        for tensor in all.iter_mut().filter(|tensor| !tensor.is_matrix() || tensor.role == Some(ParamRole::Router)) {
            tensor.format = Format::F32;
        }
        Ok(all)
    }

    /// The tensors of a folder with these weights. Codes and FP8 become BF16; of a GGUF file, whatever had to be F32
    /// there gets the format of the other weights back, if that loses nothing.
    ///
    /// # Errors
    /// As [`Archive::plan_gguf`].
    pub fn plan_folder(&self) -> Result<Vec<PlannedTensor>> {
        self.check_weights()?;
        if self.metadata.is_none() {
            return plan::same(self);
        }
        let mut all = plan::to_folder(self)?;
        for tensor in all.iter_mut().filter(|tensor| tensor.format.block_elements() > 1) {
            tensor.format = Format::Bf16;
        }
        let matrices = || all.iter().filter(|tensor| tensor.is_matrix() && tensor.format != Format::F32);
        let Some(usual) = matrices().map(|tensor| tensor.format).max_by_key(|format| *format == Format::Bf16) else {
            return Ok(all);
        };
        for tensor in all.iter_mut().filter(|tensor| tensor.format == Format::F32) {
            if tensor.role != Some(ParamRole::CorrectionBias) && self.fits(tensor, usual) {
                tensor.format = usual;
            }
        }
        Ok(all)
    }

    /// Whether the F32 values of a tensor are all numbers of a format.
    fn fits(&self, tensor: &PlannedTensor, format: Format) -> bool {
        let Data::Parts(names, _) = &tensor.data else { return false };
        let fits = |value: f32| match format {
            Format::Bf16 => value.to_bits().trailing_zeros() >= 16,
            _ => f16::from_f32(value).to_f32() == value,
        };
        names.iter().all(|name| {
            let bytes = self.bytes(&self.tensors[name]);
            bytes.as_chunks().0.iter().all(|value| fits(f32::from_le_bytes(*value)))
        })
    }

    /// Refuses what llama.cpp has no place for.
    fn check_gguf_form(&self) -> Result<()> {
        let config = &self.config;
        let other_rows = |scaling: &RopeScaling| matches!(scaling, RopeScaling::Llama3(_) | RopeScaling::Divisors(_));
        let what = match &config.attention {
            AttentionConfig::Gqa(gqa) if config.model_type == ModelType::Qwen3 && gqa.o_bias => {
                "a bias of o_proj in Qwen3"
            }
            AttentionConfig::Mla(_) if !config.rope.interleaved => "a rotation of halves in a DeepSeek model",
            AttentionConfig::Mla(_) if config.moe.is_none() => "a DeepSeek model without experts",
            _ if config.model_type != ModelType::Llama && other_rows(&config.rope.scaling) => {
                "llama3 scaling outside of Llama"
            }
            _ => return Ok(()),
        };
        Err(self.no_place(what, "GGUF"))
    }

    /// The error of a target that has no place for something.
    fn no_place(&self, what: &str, target: &str) -> Error {
        let reason = format!("has {what}, for which {target} has no place; nothing was written");
        Error::BadFile { path: self.path.clone(), reason }
    }

    /// The metadata of a GGUF file with these tensors of this model: those that it has, or those of its configuration,
    /// with this name.
    ///
    /// # Errors
    /// If a reader of the file would compute with another configuration.
    pub fn gguf_pairs(&self, name: &str, planned: &[PlannedTensor]) -> Result<Pairs> {
        let mut pairs = Pairs::default();
        match &self.metadata {
            Some(metadata) => {
                let file = &self.files[0].bytes;
                let own = metadata.places().iter().filter(|(key, _)| !OF_THE_FILE.contains(&key.as_str()));
                own.for_each(|(key, place)| pairs.raw(key, &file[place.clone()]));
            }
            None => {
                pairs.text("general.architecture", architecture(&self.config));
                pairs.text("general.type", "model");
                pairs.text("general.name", name);
                HyperparameterWriter { pairs: &mut pairs, config: &self.config }.write();
                self.check_read_back(&pairs, planned)?;
            }
        }
        pairs.unsigned("general.quantization_version", 2);
        Ok(pairs)
    }

    /// Refuses metadata of a GGUF file that describe another model than the configuration.
    fn check_read_back(&self, pairs: &Pairs, planned: &[PlannedTensor]) -> Result<()> {
        let broken = |reason: String| Error::BadFile { path: self.path.clone(), reason };
        let metadata = Metadata::of_pairs(&pairs.0).map_err(broken)?;
        let divisors = planned.iter().find_map(|tensor| match &tensor.data {
            Data::Values(values) if tensor.name == gguf_model::DIVISORS => Some(values.clone()),
            _ => None,
        });
        let has = |name: &str| planned.iter().any(|tensor| tensor.name == name);
        let read = gguf_model::config(&metadata, &has, divisors).map_err(broken)?;
        let mut own = self.config.clone();
        own.remove_mtp();
        // Rows are in the order that belongs to neighbours.
        own.rope.interleaved |= own.model_type == ModelType::Llama;
        difference(&own, &read).map_or(Ok(()), |field| Err(self.no_place(&format!("its {field}"), "GGUF")))
    }

    /// The `config.json` of a folder with this model, whose weights are mostly of a format.
    ///
    /// # Errors
    /// If the file of the archive cannot be read, the divisors of its rotation are not those of Llama 3.1, or a reader would
    /// compute with another configuration.
    pub fn folder_config(&self, format: Format) -> Result<Json> {
        let mut published = if self.metadata.is_none() {
            let path = self.path.join(CONFIG_FILE);
            let text = read_text(&path)?;
            serde_json::from_str(&text).map_err(|error| Error::BadFile { path, reason: error.to_string() })?
        } else {
            let mut config = self.config.clone();
            if let RopeScaling::Divisors(divisors) = &config.rope.scaling {
                let reason = format!("{} does not hold the divisors of Llama 3.1's scaling", gguf_model::DIVISORS);
                let found = llama3(&config.rope, divisors);
                config.rope.scaling =
                    RopeScaling::Llama3(found.ok_or_else(|| Error::BadFile { path: self.path.clone(), reason })?);
            }
            config.rope.interleaved &= config.model_type.is_deepseek();
            let written = config.to_value();
            let read = ModelConfig::from_value(written.clone())?.config;
            if let Some(field) = difference(&config, &read) {
                return Err(self.no_place(&format!("its {field}"), CONFIG_FILE));
            }
            written
        };
        if let Some(map) = published.as_object_mut() {
            map.remove("quantization_config");
            map.remove("dtype");
            if !self.config.tie_word_embeddings {
                map.insert("tie_word_embeddings".into(), json!(false));
            }
        }
        published["torch_dtype"] = match format {
            Format::F32 => json!("float32"),
            Format::F16 => json!("float16"),
            _ => json!("bfloat16"),
        };
        Ok(published)
    }
}

/// The name of an architecture in GGUF.
fn architecture(config: &ModelConfig) -> &'static str {
    match config.model_type {
        ModelType::DeepseekV2 | ModelType::DeepseekV3 => "deepseek2",
        ModelType::Llama => "llama",
        ModelType::Qwen2 => "qwen2",
        ModelType::Qwen3 => "qwen3",
    }
}

/// Writes the configuration as metadata: the inverse of `gguf_model::config`.
struct HyperparameterWriter<'a> {
    pairs: &'a mut Pairs,
    config: &'a ModelConfig,
}

impl HyperparameterWriter<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", architecture(self.config))
    }

    fn unsigned(&mut self, key: &str, value: usize) {
        self.pairs.unsigned(&self.name(key), value);
    }

    fn float(&mut self, key: &str, value: f64) {
        self.pairs.float(&self.name(key), value);
    }

    fn write(&mut self) {
        let config = self.config;
        self.unsigned("vocab_size", config.vocab_size);
        self.unsigned("block_count", config.num_hidden_layers);
        self.unsigned("context_length", config.max_position_embeddings);
        self.unsigned("embedding_length", config.hidden_size);
        self.unsigned("feed_forward_length", config.intermediate_size);
        self.unsigned("attention.head_count", config.num_attention_heads);
        self.float("attention.layer_norm_rms_epsilon", config.rms_norm_eps.into());
        self.float("rope.freq_base", config.rope.theta);
        self.scaling();
        match &config.attention {
            AttentionConfig::Gqa(gqa) => {
                self.unsigned("attention.head_count_kv", gqa.num_key_value_heads);
                for key in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
                    self.unsigned(key, gqa.head_dim);
                }
            }
            AttentionConfig::Mla(mla) => {
                let turned = mla.qk_rope_head_dim;
                self.unsigned("rope.dimension_count", turned);
                mla.q_lora_rank.iter().for_each(|&rank| self.unsigned("attention.q_lora_rank", rank));
                self.unsigned("attention.kv_lora_rank", mla.kv_lora_rank);
                // What is cached has one head, of the latent and the rotated key.
                self.unsigned("attention.head_count_kv", 1);
                self.unsigned("attention.key_length", mla.kv_lora_rank + turned);
                self.unsigned("attention.value_length", mla.kv_lora_rank);
                self.unsigned("attention.key_length_mla", mla.qk_head_dim());
                self.unsigned("attention.value_length_mla", mla.v_head_dim);
                self.experts();
            }
        }
    }

    fn experts(&mut self) {
        let moe = self.config.moe.as_ref().expect("invariant: models without experts were refused");
        self.unsigned("leading_dense_block_count", moe.first_k_dense_replace.min(self.config.num_hidden_layers));
        self.unsigned("expert_count", moe.n_routed_experts);
        self.unsigned("expert_used_count", moe.num_experts_per_tok);
        self.unsigned("expert_shared_count", moe.n_shared_experts);
        self.unsigned("expert_feed_forward_length", moe.moe_intermediate_size);
        self.unsigned("expert_group_count", moe.n_group);
        self.unsigned("expert_group_used_count", moe.topk_group);
        self.float("expert_weights_scale", moe.routed_scaling_factor.into());
        self.pairs.bool(&self.name("expert_weights_norm"), moe.norm_topk_prob);
        let gate = match moe.scoring_func {
            ScoringFunc::Softmax => 1,
            ScoringFunc::Sigmoid => 2,
        };
        self.unsigned("expert_gating_func", gate);
    }

    fn scaling(&mut self) {
        if let RopeScaling::Linear(factor) = self.config.rope.scaling {
            self.pairs.text(&self.name("rope.scaling.type"), "linear");
            self.float("rope.scaling.factor", factor);
        }
        let RopeScaling::Yarn(yarn) = &self.config.rope.scaling else { return };
        self.pairs.text(&self.name("rope.scaling.type"), "yarn");
        self.float("rope.scaling.factor", yarn.factor);
        self.unsigned("rope.scaling.original_context_length", yarn.original_max_position_embeddings);
        self.float("rope.scaling.yarn_beta_fast", yarn.beta_fast);
        self.float("rope.scaling.yarn_beta_slow", yarn.beta_slow);
        if let Some(factor) = yarn.attention_factor {
            // A factor on YaRN's own.
            self.float("rope.scaling.attn_factor", factor / (0.1 * yarn.factor.ln() + 1.0));
        }
        if let Some(mscale) = yarn.mscale_all_dim {
            self.float("rope.scaling.yarn_log_multiplier", 0.1 * mscale);
        }
    }
}

/// The scaling of Llama 3.1 that has these divisors, if there is one with its low and high factors, 1 and 4.
fn llama3(rope: &RopeConfig, divisors: &[f32]) -> Option<Llama3RopeConfig> {
    let (low, high) = (1.0, 4.0);
    let factor = f64::from(divisors.iter().copied().fold(1.0, f32::max));
    let divisors_of = |original: usize| -> Vec<f32> {
        let mut with = rope.clone();
        let frequencies = |with: &RopeConfig| inverse_frequencies(with, 2 * divisors.len());
        with.scaling = RopeScaling::None;
        let plain = frequencies(&with);
        with.scaling = RopeScaling::Llama3(Llama3RopeConfig {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: original,
        });
        plain.into_iter().zip(frequencies(&with)).map(|(plain, scaled)| plain / scaled).collect()
    };
    // Between kept and divided ones lies a ramp, whose values give the original context.
    let on_ramp = divisors.iter().position(|&divisor| divisor > 1.001 && f64::from(divisor) < 0.999 * factor);
    let original = on_ramp.map_or(8192.0, |i| {
        let kept = (1.0 / f64::from(divisors[i]) - 1.0 / factor) / (1.0 - 1.0 / factor);
        let wavelength = std::f64::consts::TAU * rope.theta.powf(i as f64 / divisors.len() as f64);
        wavelength * (low + kept * (high - low))
    });
    let original = original.round() as usize;
    let close = |(a, b): (f32, &f32)| (a - b).abs() <= 1e-4 * b;
    divisors_of(original).into_iter().zip(divisors).all(close).then_some(Llama3RopeConfig {
        factor,
        low_freq_factor: low,
        high_freq_factor: high,
        original_max_position_embeddings: original,
    })
}

/// The first field in which two configurations compute other numbers.
fn difference(a: &ModelConfig, b: &ModelConfig) -> Option<&'static str> {
    // Metadata are f32, and divisors ratios of two.
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs();
    let frequencies = |config: &ModelConfig| inverse_frequencies(&config.rope, config.rope_dim());
    let rotation_agrees = || {
        let pairs = frequencies(a).into_iter().zip(frequencies(b));
        pairs.into_iter().all(|(a, b)| close(a.into(), b.into()))
            && close(cos_sin_multiplier(&a.rope), cos_sin_multiplier(&b.rope))
            && close(softmax_scale(a), softmax_scale(b))
    };
    let experts = |config: &ModelConfig| {
        let mut moe = config.moe.clone();
        if let Some(moe) = &mut moe {
            moe.aux_loss_alpha = 0.0;
            // With one group, both ways to choose from groups are the same.
            if moe.n_group == 1 && moe.topk_method == TopkMethod::GroupLimitedGreedy {
                moe.topk_method = TopkMethod::Greedy;
            }
        }
        moe
    };
    let fields = [
        ("model_type", a.model_type == b.model_type),
        ("vocab_size", a.vocab_size == b.vocab_size),
        ("hidden_size", a.hidden_size == b.hidden_size),
        ("num_hidden_layers", a.num_hidden_layers == b.num_hidden_layers),
        ("num_attention_heads", a.num_attention_heads == b.num_attention_heads),
        ("intermediate_size", a.intermediate_size == b.intermediate_size),
        ("mlp_bias", a.mlp_bias == b.mlp_bias),
        ("rms_norm_eps", a.rms_norm_eps == b.rms_norm_eps),
        ("max_position_embeddings", a.max_position_embeddings == b.max_position_embeddings),
        ("tie_word_embeddings", a.tie_word_embeddings == b.tie_word_embeddings),
        ("attention (heads, widths or biases)", a.attention == b.attention),
        ("experts (number, groups, scores or weights)", experts(a) == experts(b)),
    ];
    let other = fields.into_iter().find(|(_, same)| !same).map(|(field, _)| field);
    // Frequencies of other widths cannot be compared.
    other.or_else(|| {
        let agrees = a.rope.interleaved == b.rope.interleaved && rotation_agrees();
        (!agrees).then_some("rope_scaling")
    })
}
