//! The model in a GGUF file: its metadata give the configuration, and each parameter has a name of its own there.
//!
//! Keys that begin with the name of the architecture are the hyperparameters: each is obeyed, listed here with the reason why
//! it changes nothing, or refused. Other keys (`general.`, `tokenizer.`, ...) change no number of the model.

use std::cell::RefCell;
use std::collections::HashSet;

use minke_spec::config::{AttentionConfig, ModelType, RopeScaling};
use minke_spec::{ModelConfig, ParamSpec};
use serde_json::{Map, Value as Json, json};

use crate::gguf::{Metadata, Value};

/// Name of the tensor with what Llama 3.1's scaling makes of each frequency: its divisor.
pub(crate) const DIVISORS: &str = "rope_freqs.weight";

/// The configuration that the metadata describe; `has` returns whether there is a tensor of a name, `divisors` are the
/// values of [`DIVISORS`].
///
/// # Errors
/// What is missing, of another type, or not supported, naming the key.
pub(crate) fn config(
    metadata: &Metadata,
    has: &dyn Fn(&str) -> bool,
    divisors: Option<Vec<f32>>,
) -> Result<ModelConfig, String> {
    let architecture = metadata.text("general.architecture")?.ok_or("general.architecture is missing")?;
    let keys = Hyperparameters { metadata, architecture, read: RefCell::default() };
    let model_type = match architecture {
        // DeepSeek-V3 and R1 score experts by sigmoid, V2 by softmax; llama.cpp takes absence for the latter.
        "deepseek2" => match keys.unsigned("expert_gating_func")? {
            Some(2) => ModelType::DeepseekV3,
            None | Some(1) => ModelType::DeepseekV2,
            Some(other) => return Err(format!("deepseek2.expert_gating_func is {other}; 1 and 2 are supported")),
        },
        "qwen2" => ModelType::Qwen2,
        "qwen3" => ModelType::Qwen3,
        "llama" => ModelType::Llama,
        other => {
            return Err(format!("general.architecture is {other}; supported are deepseek2, llama, qwen2, qwen3"));
        }
    };
    let mut published = keys.common(has)?;
    published.insert("model_type".into(), json!(model_type.name()));
    if model_type.is_deepseek() {
        keys.deepseek(model_type, &mut published)?;
    } else {
        keys.dense(model_type, &mut published)?;
    }
    keys.refuse_others()?;
    let parsed = ModelConfig::from_value(Json::Object(published)).map_err(|error| error.to_string())?;
    let mut config = parsed.config;
    // No key tells which biases there are: the tensors do.
    let layers = config.num_hidden_layers;
    let has_bias = |module: &str| (0..layers).any(|layer| has(&format!("blk.{layer}.{module}.bias")));
    config.mlp_bias = model_type == ModelType::Llama && ["ffn_gate", "ffn_up", "ffn_down"].into_iter().any(has_bias);
    if let (AttentionConfig::Gqa(gqa), true) = (&mut config.attention, model_type != ModelType::Qwen2) {
        gqa.qkv_bias = ["attn_q", "attn_k", "attn_v"].into_iter().any(has_bias);
        gqa.o_bias = has_bias("attn_output");
    }
    if model_type == ModelType::Llama {
        // Converters permute the rows of queries and keys, so that neighbours form a pair.
        config.rope.interleaved = true;
    }
    if let Some(divisors) = divisors {
        if config.rope.scaling != RopeScaling::None || divisors.len() != config.rope_dim() / 2 {
            let (len, scaled) = (divisors.len(), config.rope.scaling != RopeScaling::None);
            let reason = if scaled { "stands beside another scaling of the rotation" } else { "has another length" };
            return Err(format!("{DIVISORS}, of {len} values, {reason}, which is not supported"));
        }
        config.rope.scaling = RopeScaling::Divisors(divisors);
    }
    config.validate().map_err(|error| error.to_string())?;
    Ok(config)
}

/// The name that a parameter has in GGUF. Experts of a layer are stacked there as they are here.
pub(crate) fn name_of(spec: &ParamSpec) -> String {
    let name = spec.name.as_str();
    let Some(layer) = spec.layer else {
        return match name {
            "model.embed_tokens.weight" => "token_embd.weight",
            "model.norm.weight" => "output_norm.weight",
            "lm_head.weight" => "output.weight",
            _ => unreachable!("the table has no other parameter outside of layers"),
        }
        .into();
    };
    let within = name.strip_prefix(&format!("model.layers.{layer}.")).expect("invariant: a layer's name says which");
    let (module, kind) = within.rsplit_once('.').expect("invariant: a name ends in what it is of its module");
    let (module, kind) = match (module, kind) {
        ("mlp.gate", "e_score_correction_bias") => ("exp_probs_b", "bias"),
        (module, kind) => {
            (IN_LAYER.iter().find(|(published, _)| *published == module).map_or(module, |(_, own)| own), kind)
        }
    };
    format!("blk.{layer}.{module}.{kind}")
}

/// Names of the two halves in which newer files hold `kv_b_proj`: per head the keys' transposed, and the values'.
pub(crate) fn split_names(layer: usize) -> [String; 2] {
    [format!("blk.{layer}.attn_k_b.weight"), format!("blk.{layer}.attn_v_b.weight")]
}

/// Names of the copies of embedding and head that a layer for multi-token prediction may carry.
pub(crate) fn mtp_copies(layer: usize) -> [String; 2] {
    ["embed_tokens", "shared_head_head"].map(|name| format!("blk.{layer}.nextn.{name}.weight"))
}

/// Modules of a layer, as published and in GGUF.
const IN_LAYER: [(&str, &str); 28] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_a_layernorm", "attn_q_a_norm"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
    ("self_attn.kv_b_proj", "attn_kv_b"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.experts.gate_proj", "ffn_gate_exps"),
    ("mlp.experts.up_proj", "ffn_up_exps"),
    ("mlp.experts.down_proj", "ffn_down_exps"),
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
    ("enorm", "nextn.enorm"),
    ("hnorm", "nextn.hnorm"),
    ("eh_proj", "nextn.eh_proj"),
    ("shared_head.norm", "nextn.shared_head_norm"),
];

/// Hyperparameters that change no number, by the reason.
const CHANGES_NOTHING: [(&str, &[&str]); 3] = [
    ("say where the file comes from", &["rope.scaling.finetuned", "tensor_data_layout"]),
    (
        "follow from others in this family",
        &["attention.head_count_kv", "attention.key_length", "attention.value_length"],
    ),
    ("belong to norms that these families do not have", &["attention.layer_norm_epsilon"]),
];

/// Hyperparameters that change numbers, with the value at which they do not.
const NEUTRAL: [(&str, f64); 9] = [
    ("attention.causal", 1.0),
    ("attention.clamp_kqv", 0.0),
    ("attention.max_alibi_bias", 0.0),
    ("attention.sliding_window", 0.0),
    ("expert_used_count", 0.0),
    ("logit_scale", 1.0),
    ("pooling_type", 0.0),
    ("rope.scaling.attn_factor", 1.0),
    ("use_parallel_residual", 0.0),
];

/// The hyperparameters of one architecture.
struct Hyperparameters<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
    /// Keys that were read, or are not there.
    read: RefCell<HashSet<String>>,
}

impl Hyperparameters<'_> {
    /// The name of a key, which counts as read.
    fn name(&self, key: &str) -> String {
        let name = format!("{}.{key}", self.architecture);
        self.read.borrow_mut().insert(name.clone());
        name
    }

    /// Refuses hyperparameters that were not read, unless they change nothing.
    fn refuse_others(&self) -> Result<(), String> {
        let read = self.read.borrow();
        for (name, _) in self.metadata.places().iter().filter(|(name, _)| !read.contains(name)) {
            let key = name.strip_prefix(self.architecture).and_then(|rest| rest.strip_prefix('.'));
            let Some(key) = key.filter(|key| !CHANGES_NOTHING.iter().any(|(_, keys)| keys.contains(key))) else {
                continue;
            };
            let number = match self.metadata.get(name) {
                Some(Value::Bool(value)) => Some(f64::from(u8::from(*value))),
                _ => self.metadata.float(name).unwrap_or(None),
            };
            match NEUTRAL.iter().find(|(known, _)| *known == key) {
                Some((_, neutral)) if number == Some(*neutral) => {}
                Some((_, neutral)) => return Err(format!("{name} is not {neutral}, and no other value is supported")),
                None => {
                    return Err(format!(
                        "{name} is a hyperparameter that is not known: it may change what the model says"
                    ));
                }
            }
        }
        Ok(())
    }

    fn unsigned(&self, key: &str) -> Result<Option<u64>, String> {
        self.metadata.unsigned(&self.name(key))
    }

    fn size(&self, key: &str) -> Result<u64, String> {
        self.unsigned(key)?.ok_or_else(|| format!("{} is missing", self.name(key)))
    }

    fn float(&self, key: &str) -> Result<Option<f64>, String> {
        self.metadata.float(&self.name(key))
    }

    /// A number with the digits that its f32 has: 1e-6, not 9.999999974752427e-7.
    fn decimal(&self, key: &str) -> Result<Option<Json>, String> {
        let shortest = |value: f64| (value as f32).to_string().parse::<f64>().map_or(Json::Null, |value| json!(value));
        Ok(self.float(key)?.map(shortest))
    }

    /// What all families have.
    fn common(&self, has: &dyn Fn(&str) -> bool) -> Result<Map<String, Json>, String> {
        let tokens = self.metadata.list("tokenizer.ggml.tokens")?.map(|tokens| tokens.len() as u64);
        let vocabulary = self.unsigned("vocab_size")?.or(tokens);
        let mut map = Map::new();
        let mut put = |key: &str, value: Json| map.insert(key.into(), value);
        let vocabulary = vocabulary.ok_or("neither a vocabulary nor its size is in the file")?;
        put("vocab_size", json!(vocabulary));
        put("hidden_size", json!(self.size("embedding_length")?));
        let mtp = self.unsigned("nextn_predict_layers")?.unwrap_or(0);
        put("num_hidden_layers", json!(self.size("block_count")?.saturating_sub(mtp)));
        if mtp > 0 {
            put("num_nextn_predict_layers", json!(mtp));
        }
        put("num_attention_heads", json!(self.size("attention.head_count")?));
        put("intermediate_size", json!(self.size("feed_forward_length")?));
        put("max_position_embeddings", json!(self.size("context_length")?));
        let epsilon = self.decimal("attention.layer_norm_rms_epsilon")?;
        let name = self.name("attention.layer_norm_rms_epsilon");
        put("rms_norm_eps", epsilon.ok_or_else(|| format!("{name} is missing"))?);
        put("rope_theta", self.decimal("rope.freq_base")?.unwrap_or_else(|| json!(10_000.0)));
        put("tie_word_embeddings", json!(!has("output.weight")));
        put("bos_token_id", json!(self.tokens("bos_token_id", vocabulary).first()));
        put("pad_token_id", json!(self.tokens("padding_token_id", vocabulary).first()));
        // Every token that ends a turn; the list is Ollama's.
        let ends = ["eos_token_id", "eot_token_id", "eom_token_id", "eos_token_ids"];
        let mut ids: Vec<u64> = Vec::new();
        for id in ends.into_iter().flat_map(|key| self.tokens(key, vocabulary)) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        put("eos_token_id", json!(ids));
        if let Some(scaling) = self.scaling()? {
            put("rope_scaling", scaling);
        }
        Ok(map)
    }

    /// The tokens that a key of the vocabulary names; an id of no token (-1, say) is none, as in llama.cpp.
    fn tokens(&self, key: &str, vocabulary: u64) -> Vec<u64> {
        let value = self.metadata.get(&format!("tokenizer.ggml.{key}"));
        let values = match value {
            Some(Value::List(values)) => values.as_slice(),
            value => value.map_or(&[][..], std::slice::from_ref),
        };
        values.iter().filter_map(Value::unsigned).filter(|&id| id < vocabulary).collect()
    }

    /// The scaling of the rotation. A factor without a type is linear, as in llama.cpp.
    fn scaling(&self) -> Result<Option<Json>, String> {
        let old = self.decimal("rope.scale_linear")?;
        let factor = self.decimal("rope.scaling.factor")?.or(old);
        let original = self.unsigned("rope.scaling.original_context_length")?;
        match self.metadata.text(&self.name("rope.scaling.type"))? {
            None | Some("linear") => {
                let factor = factor.filter(|factor| ![Some(0.0), Some(1.0)].contains(&factor.as_f64()));
                Ok(factor.map(|factor| json!({ "rope_type": "linear", "factor": factor })))
            }
            Some("none") => {
                for key in ["attn_factor", "yarn_beta_fast", "yarn_beta_slow", "yarn_log_multiplier"] {
                    self.name(&format!("rope.scaling.{key}"));
                }
                Ok(None)
            }
            Some("yarn") => {
                let mut yarn = Map::new();
                yarn.insert("type".into(), json!("yarn"));
                yarn.insert("factor".into(), factor.unwrap_or_else(|| json!(1.0)));
                for (published, key) in [
                    ("attn_factor", "rope.scaling.attn_factor"),
                    ("beta_fast", "rope.scaling.yarn_beta_fast"),
                    ("beta_slow", "rope.scaling.yarn_beta_slow"),
                ] {
                    if let Some(value) = self.decimal(key)? {
                        yarn.insert(published.into(), value);
                    }
                }
                let original = original.map_or_else(|| self.size("context_length"), Ok)?;
                yarn.insert("original_max_position_embeddings".into(), json!(original));
                // A tenth of `mscale_all_dim`, rounded to f32. DeepSeek's `mscale` is the same in every model.
                if let Some(multiplier) = self.float("rope.scaling.yarn_log_multiplier")? {
                    let mscale = json!((multiplier * 10.0 * 1e6).round() / 1e6);
                    yarn.insert("mscale".into(), mscale.clone());
                    yarn.insert("mscale_all_dim".into(), mscale);
                }
                Ok(Some(Json::Object(yarn)))
            }
            Some(other) => {
                Err(format!("{} is {other}; none, linear and yarn are supported", self.name("rope.scaling.type")))
            }
        }
    }

    /// Adds what Qwen and Llama have.
    fn dense(&self, family: ModelType, map: &mut Map<String, Json>) -> Result<(), String> {
        let heads = self.size("attention.head_count")?;
        map.insert("num_key_value_heads".into(), json!(self.unsigned("attention.head_count_kv")?.unwrap_or(heads)));
        let width = match self.unsigned("attention.key_length")? {
            Some(width) => width,
            None => self.size("embedding_length")?.checked_div(heads).unwrap_or(0),
        };
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(other) = self.unsigned(key)?.filter(|&other| other != width) {
                return Err(format!("{} is {other}; only the width of a head, {width}, is supported", self.name(key)));
            }
        }
        if let Some(experts) = self.unsigned("expert_count")?.filter(|&experts| experts > 0) {
            return Err(format!(
                "{} is {experts}: {} with experts is not supported",
                self.name("expert_count"),
                family.name()
            ));
        }
        map.insert("head_dim".into(), json!(width));
        Ok(())
    }

    /// Adds what DeepSeek's families have.
    fn deepseek(&self, family: ModelType, map: &mut Map<String, Json>) -> Result<(), String> {
        let rope = self.size("rope.dimension_count")?;
        // Newer files have the widths of heads apart from those of the latent that is cached.
        let key = self.unsigned("attention.key_length_mla")?.map_or_else(|| self.size("attention.key_length"), Ok)?;
        let value =
            self.unsigned("attention.value_length_mla")?.map_or_else(|| self.size("attention.value_length"), Ok)?;
        let nope = key
            .checked_sub(rope)
            .ok_or_else(|| format!("{} is below the rotated width", self.name("attention.key_length")))?;
        let mut put = |key: &str, value: Json| map.insert(key.into(), value);
        put("q_lora_rank", json!(self.unsigned("attention.q_lora_rank")?.unwrap_or(0)));
        put("kv_lora_rank", json!(self.size("attention.kv_lora_rank")?));
        put("qk_nope_head_dim", json!(nope));
        put("qk_rope_head_dim", json!(rope));
        put("v_head_dim", json!(value));
        put("first_k_dense_replace", json!(self.unsigned("leading_dense_block_count")?.unwrap_or(0)));
        put("n_routed_experts", json!(self.size("expert_count")?));
        put("num_experts_per_tok", json!(self.size("expert_used_count")?));
        put("n_shared_experts", json!(self.unsigned("expert_shared_count")?.unwrap_or(0)));
        put("moe_intermediate_size", json!(self.size("expert_feed_forward_length")?));
        put("routed_scaling_factor", self.decimal("expert_weights_scale")?.unwrap_or_else(|| json!(1.0)));
        put("norm_topk_prob", json!(self.metadata.bool(&self.name("expert_weights_norm"))?.unwrap_or(false)));
        // Files of before groups were written hold R1 as if it had one: then all experts compete, as llama.cpp has it.
        let groups = self.unsigned("expert_group_count")?.unwrap_or(1);
        put("n_group", json!(groups));
        put("topk_group", json!(self.unsigned("expert_group_used_count")?.unwrap_or(groups)));
        if family == ModelType::DeepseekV2 {
            put("topk_method", json!(if groups > 1 { "group_limited_greedy" } else { "greedy" }));
        }
        Ok(())
    }
}

/// The texts of a list of the metadata.
///
/// # Errors
/// If it is not a list of texts, or one is not UTF-8.
pub fn texts<'a>(metadata: &'a Metadata, key: &str) -> Result<Option<Vec<&'a str>>, String> {
    let Some(list) = metadata.list(key)? else { return Ok(None) };
    let text = |(i, value): (usize, &'a Value)| match value {
        Value::Text(text) => Ok(text.as_str()),
        Value::Bytes(_) => Err(format!("{key}: text {i} is not UTF-8")),
        _ => Err(format!("{key} is not a list of texts")),
    };
    list.iter().enumerate().map(text).collect::<Result<_, _>>().map(Some)
}
