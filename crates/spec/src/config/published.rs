//! Reading and writing of `config.json`.
//!
//! Two spellings are accepted: that of the original files (`rope_theta`, `rope_scaling`) and that of transformers 5
//! (`rope_parameters`, `num_mtp_layers`, derived `head_dim` and `qk_head_dim`). The original one is written, with every
//! field whose default differs between readers.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value, json};

use super::other_keys::{CHANGES_NOTHING, CHANGES_NUMBERS};
use super::{
    AttentionConfig, GqaConfig, Llama3RopeConfig, MlaConfig, ModelConfig, ModelType, MoeConfig, RopeConfig,
    RopeScaling, ScoringFunc, TopkMethod, YarnConfig,
};
use crate::Error;
use crate::format::FP8_BLOCK;

/// A configuration, and the keys of its file that are not known.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The checked configuration.
    pub config: ModelConfig,
    /// Keys that are in no list, neither of those that change numbers nor of those that do not; in alphabetical order.
    pub unknown_keys: Vec<String>,
}

impl ModelConfig {
    /// The configuration in the text of a published `config.json`.
    ///
    /// # Errors
    /// The text is not a JSON object, or a field is missing, of another type, not supported, or out of range.
    pub fn from_json(text: &str) -> Result<Parsed, Error> {
        Self::from_value(serde_json::from_str(text)?)
    }

    /// The configuration in a JSON value with the published names.
    ///
    /// # Errors
    /// As [`ModelConfig::from_json`].
    pub fn from_value(value: Value) -> Result<Parsed, Error> {
        let Value::Object(map) = value else { return Err(Error::NotAnObject) };
        let mut fields = Fields { map };
        let config = read(&mut fields)?;
        config.validate()?;
        let mut unknown_keys: Vec<String> = fields.map.into_iter().map(|(key, _)| key).collect();
        unknown_keys.sort_unstable();
        Ok(Parsed { config, unknown_keys })
    }

    /// The published form, keys in alphabetical order. [`ModelConfig::from_json`] reads it back equal, and
    /// `transformers` loads it unchanged.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(&self.to_value()).expect("invariant: a tree of plain values is always JSON")
    }

    /// The published form as a JSON object, to which an exporter may add keys such as `torch_dtype`.
    pub fn to_value(&self) -> Value {
        write(self)
    }
}

/// Writes the published form.
impl Serialize for ModelConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // TOML has no null. An absent key means the same, save for `q_lora_rank`, where 0 does.
        let Value::Object(mut map) = self.to_value() else {
            unreachable!("invariant: the published form is an object")
        };
        if let Some(rank @ Value::Null) = map.get_mut("q_lora_rank") {
            *rank = json!(0);
        }
        serializer.collect_map(map.iter().filter(|(_, value)| !value.is_null()))
    }
}

/// Reads the published form. A key that means nothing is an error here: a hand-written `[model]` table is not allowed
/// to contain a typing error that changes nothing.
impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parsed = Self::from_value(Value::deserialize(deserializer)?).map_err(de::Error::custom)?;
        if parsed.unknown_keys.is_empty() {
            Ok(parsed.config)
        } else {
            Err(de::Error::custom(Error::UnknownKeys(parsed.unknown_keys)))
        }
    }
}

fn read(fields: &mut Fields) -> Result<ModelConfig, Error> {
    let names = ModelType::ALL.map(ModelType::name);
    let model_type = fields.choice("model_type", &names, &ModelType::ALL)?;
    let Some(model_type) = model_type else {
        return Err(Error::Missing { field: "model_type", hint: "one of deepseek_v3, qwen2, qwen3, llama" });
    };
    read_fixed(fields, model_type)?;
    let num_attention_heads = fields.size("num_attention_heads")?;
    let hidden_size = fields.size("hidden_size")?;
    let num_hidden_layers = fields.size("num_hidden_layers")?;
    let max_position_embeddings = fields.size("max_position_embeddings")?;
    let num_nextn_predict_layers = if model_type == ModelType::DeepseekV3 {
        let other_spelling = fields.opt_size("num_mtp_layers")?;
        fields.opt_size("num_nextn_predict_layers")?.or(other_spelling).unwrap_or(0)
    } else {
        0
    };
    let (attention, moe) = if model_type.is_deepseek() {
        let attention = read_mla(fields, num_attention_heads)?;
        let num_layers = num_hidden_layers.saturating_add(num_nextn_predict_layers);
        (AttentionConfig::Mla(attention), read_moe(fields, model_type, num_layers)?)
    } else {
        (AttentionConfig::Gqa(read_gqa(fields, model_type, hidden_size, num_attention_heads)?), None)
    };
    Ok(ModelConfig {
        model_type,
        vocab_size: fields.size("vocab_size")?,
        hidden_size,
        num_hidden_layers,
        num_attention_heads,
        intermediate_size: fields.size("intermediate_size")?,
        mlp_bias: fields.bool("mlp_bias")?.unwrap_or(false),
        rms_norm_eps: fields.float("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        max_position_embeddings,
        tie_word_embeddings: fields.bool("tie_word_embeddings")?.unwrap_or(false),
        initializer_range: fields.float("initializer_range")?.unwrap_or(0.02) as f32,
        bos_token_id: fields.token("bos_token_id")?,
        eos_token_ids: fields.tokens("eos_token_id")?,
        pad_token_id: fields.token("pad_token_id")?,
        attention,
        rope: read_rope(fields, model_type, max_position_embeddings)?,
        moe,
        num_nextn_predict_layers,
    })
}

/// Reads the fields that allow one meaning only, and drops those that change no number.
fn read_fixed(fields: &mut Fields, model_type: ModelType) -> Result<(), Error> {
    fields.only("architectures", &json!([model_type.architecture()]))?;
    fields.only("hidden_act", &json!("silu"))?;
    fields.only("attention_dropout", &json!(0.0))?;
    if model_type.is_deepseek() {
        fields.only("attention_bias", &json!(false))?;
        fields.only("moe_layer_freq", &json!(1))?;
        fields.only("seq_aux", &json!(true))?;
    } else {
        if model_type == ModelType::Qwen2 {
            // Its queries, keys and values always have biases, whatever the file says.
            fields.map.remove("attention_bias");
            fields.only("attention_qkv_bias", &json!(true))?;
        }
        fields.only("rope_interleave", &json!(false))?;
        fields.only("use_sliding_window", &json!(false))?;
        let layer_types = fields.map.remove("layer_types").unwrap_or(Value::Null);
        for value in layer_types.as_array().into_iter().flatten() {
            if value != "full_attention" {
                return Err(unsupported("layer_types", value, "full_attention"));
            }
        }
        for key in ["sliding_window", "max_window_layers"] {
            fields.map.remove(key);
        }
    }
    if let Some(value) = fields.take("quantization_config") {
        check_quantization(&value)?;
    }
    for (key, neutral) in CHANGES_NUMBERS {
        match fields.take(key) {
            Some(value) if !neutral.holds(&value) => return Err(unsupported(key, &value, neutral.name())),
            _ => {}
        }
    }
    for key in CHANGES_NOTHING.iter().flat_map(|(_, keys)| *keys) {
        fields.map.remove(*key);
    }
    Ok(())
}

/// Refuses quantized weights other than DeepSeek's FP8. Which modules are not quantized (`modules_to_not_convert`) also
/// follows from the formats of the tensors.
fn check_quantization(value: &Value) -> Result<(), Error> {
    const FIELD: &str = "quantization_config";
    const SUPPORTED: &str = "fp8 (e4m3) in blocks of 128 x 128 with dynamic activations, or none";
    let is = |key: &str, expected: Value| value.get(key) == Some(&expected);
    let (Value::Object(map), true, true) =
        (value, is("quant_method", json!("fp8")), is("weight_block_size", json!([FP8_BLOCK, FP8_BLOCK])))
    else {
        return Err(unsupported(FIELD, value, SUPPORTED));
    };
    for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
        let known = match key.as_str() {
            "activation_scheme" => value == "dynamic",
            "fmt" => value == "e4m3",
            // Powers of two, stored as floats like any other scale.
            "scale_fmt" => value == "ue8m0" || value == "float",
            "dequantize" | "ignored_layers" | "modules_to_not_convert" | "quant_method" | "weight_block_size" => true,
            _ => false,
        };
        if !known {
            return Err(unsupported(FIELD, &json!({ key: value }), SUPPORTED));
        }
    }
    Ok(())
}

fn read_mla(fields: &mut Fields, num_attention_heads: usize) -> Result<MlaConfig, Error> {
    if !fields.map.contains_key("q_lora_rank") {
        return Err(Error::Missing { field: "q_lora_rank", hint: "the rank, or 0 for a direct q_proj" });
    }
    let mla = MlaConfig {
        // The reference code writes 0 where the published file has null.
        q_lora_rank: fields.opt_size("q_lora_rank")?.filter(|&rank| rank > 0),
        kv_lora_rank: fields.size("kv_lora_rank")?,
        qk_nope_head_dim: fields.size("qk_nope_head_dim")?,
        qk_rope_head_dim: fields.size("qk_rope_head_dim")?,
        v_head_dim: fields.size("v_head_dim")?,
    };
    fields.derived("num_key_value_heads", num_attention_heads, "num_attention_heads")?;
    fields.derived("head_dim", mla.qk_rope_head_dim, "qk_rope_head_dim")?;
    let qk_head_dim = mla.qk_nope_head_dim.saturating_add(mla.qk_rope_head_dim);
    fields.derived("qk_head_dim", qk_head_dim, "qk_nope_head_dim + qk_rope_head_dim")?;
    Ok(mla)
}

fn read_gqa(fields: &mut Fields, family: ModelType, hidden_size: usize, heads: usize) -> Result<GqaConfig, Error> {
    let head_dim = match fields.opt_size("head_dim")? {
        Some(head_dim) => head_dim,
        None if family == ModelType::Qwen3 => 128,
        None if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            return Err(Error::Missing {
                field: "head_dim",
                hint: "the width of a head: heads do not divide hidden_size",
            });
        }
    };
    let num_key_value_heads = match fields.opt_size("num_key_value_heads")? {
        None if family == ModelType::Llama => heads,
        None => return Err(Error::Missing { field: "num_key_value_heads", hint: "the number of key and value heads" }),
        Some(num) => num,
    };
    let bias = family != ModelType::Qwen2 && fields.bool("attention_bias")?.unwrap_or(false);
    Ok(GqaConfig {
        num_key_value_heads,
        head_dim,
        qkv_bias: bias || family == ModelType::Qwen2,
        o_bias: bias,
        qk_norm: family == ModelType::Qwen3,
    })
}

fn read_moe(fields: &mut Fields, family: ModelType, num_layers: usize) -> Result<Option<MoeConfig>, Error> {
    let first_k_dense_replace = fields.opt_size("first_k_dense_replace")?;
    if first_k_dense_replace.is_some_and(|first| first >= num_layers) {
        for key in MOE_KEYS {
            fields.map.remove(key);
        }
        return Ok(None);
    }
    // DeepSeek's code takes absence for a dense model, transformers for 256 experts: so absence is an error.
    let Some(n_routed_experts) = fields.opt_size("n_routed_experts")? else {
        return Err(Error::Missing {
            field: "n_routed_experts",
            hint: "the number of experts, or first_k_dense_replace = number of layers (with MTP) for a dense model",
        });
    };
    let (method, scoring) = match family {
        ModelType::DeepseekV3 => (TopkMethod::NoauxTc, ScoringFunc::Sigmoid),
        _ => (TopkMethod::Greedy, ScoringFunc::Softmax),
    };
    let methods = TopkMethod::ALL.map(TopkMethod::name);
    let functions = ScoringFunc::ALL.map(ScoringFunc::name);
    let missing = |field, hint| Error::Missing { field, hint };
    // Published code disagrees about what V2 does with it: no model has it.
    if family == ModelType::DeepseekV2 && fields.map.get("norm_topk_prob") == Some(&Value::Bool(true)) {
        return Err(unsupported("norm_topk_prob", &Value::Bool(true), "false for deepseek_v2"));
    }
    Ok(Some(MoeConfig {
        n_routed_experts,
        n_shared_experts: fields.size("n_shared_experts")?,
        num_experts_per_tok: fields.size("num_experts_per_tok")?,
        moe_intermediate_size: fields.size("moe_intermediate_size")?,
        first_k_dense_replace: first_k_dense_replace.ok_or_else(|| {
            missing("first_k_dense_replace", "the number of dense layers before the first with experts")
        })?,
        n_group: fields.size("n_group")?,
        topk_group: fields.size("topk_group")?,
        topk_method: fields.choice("topk_method", &methods, &TopkMethod::ALL)?.unwrap_or(method),
        scoring_func: fields.choice("scoring_func", &functions, &ScoringFunc::ALL)?.unwrap_or(scoring),
        norm_topk_prob: fields
            .bool("norm_topk_prob")?
            .ok_or_else(|| missing("norm_topk_prob", "whether the weights of chosen experts are normalised"))?,
        routed_scaling_factor: fields
            .float("routed_scaling_factor")?
            .ok_or_else(|| missing("routed_scaling_factor", "the multiplier of expert weights"))?
            as f32,
        aux_loss_alpha: fields.float("aux_loss_alpha")?.unwrap_or(0.001) as f32,
    }))
}

fn read_rope(fields: &mut Fields, family: ModelType, longest: usize) -> Result<RopeConfig, Error> {
    let interleaved = match family {
        ModelType::DeepseekV3 => fields.bool("rope_interleave")?.unwrap_or(true),
        _ => family.is_deepseek(),
    };
    let outer_theta = fields.float("rope_theta")?;
    let outer_partial = fields.take("partial_rotary_factor");
    let outer_original = fields.opt_size("original_max_position_embeddings")?;
    // As transformers 5 does, `rope_scaling` comes first where both spellings are present.
    let parameters = fields.take("rope_parameters");
    let (name, value) = match fields.take("rope_scaling") {
        Some(scaling) => ("rope_scaling", scaling),
        None => ("rope_parameters", parameters.unwrap_or_else(|| json!({}))),
    };
    let Value::Object(map) = value else {
        return Err(Error::Type { field: name, found: abbreviate(&value), expected: "an object" });
    };
    let mut inner = Fields { map };
    if let Some(outer) = outer_partial {
        inner.map.entry("partial_rotary_factor").or_insert(outer);
    }
    inner.only("partial_rotary_factor", &json!(1.0))?;
    inner.only("truncate", &json!(true))?;
    let theta = inner.float("rope_theta")?.or(outer_theta).unwrap_or(10_000.0);
    // As transformers has it: beside the scaling, in it, or the longest sequence.
    let original = inner.opt_size("original_max_position_embeddings")?;
    let original = outer_original.or(original).unwrap_or(longest);
    let old_kind = inner.take("type");
    let kind = inner.take("rope_type").or(old_kind);
    if kind.is_none() && inner.map.get("factor").is_some_and(|factor| !factor.is_null()) {
        return Err(Error::Missing {
            field: "rope_type",
            hint: "the way in which `factor` scales: linear, yarn, llama3",
        });
    }
    let kind = kind.unwrap_or_else(|| json!("default"));
    let scaling = match kind.as_str() {
        Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear(inner.required_float("factor")?),
        Some("yarn") => RopeScaling::Yarn(read_yarn(&mut inner, original)?),
        Some("llama3") => RopeScaling::Llama3(Llama3RopeConfig {
            factor: inner.required_float("factor")?,
            low_freq_factor: inner.required_float("low_freq_factor")?,
            high_freq_factor: inner.required_float("high_freq_factor")?,
            original_max_position_embeddings: original,
        }),
        _ => return Err(unsupported("rope_type", &kind, "default, linear, yarn, llama3")),
    };
    // Whether a model was trained further with the scaling changes nothing; every other key is a number of some scaling.
    inner.map.remove("finetuned");
    if let Some((key, value)) = inner.map.into_iter().find(|(_, value)| !value.is_null()) {
        let supported = format!("the keys of type {}", kind.as_str().unwrap_or_default());
        return Err(unsupported(name, &json!({ key: value }), &supported));
    }
    Ok(RopeConfig { theta, scaling, interleaved })
}

fn read_yarn(fields: &mut Fields, original: usize) -> Result<YarnConfig, Error> {
    // DeepSeek's code and transformers both take 0 for "not given".
    let given = |value: Option<f64>| value.filter(|&value| value != 0.0);
    let mut yarn = YarnConfig {
        factor: fields.required_float("factor")?,
        beta_fast: given(fields.float("beta_fast")?).unwrap_or(32.0),
        beta_slow: given(fields.float("beta_slow")?).unwrap_or(1.0),
        mscale: given(fields.float("mscale")?),
        mscale_all_dim: given(fields.float("mscale_all_dim")?),
        original_max_position_embeddings: original,
        attention_factor: fields.float("attention_factor")?,
    };
    if let Some(attn_factor) = fields.float("attn_factor")? {
        yarn.attention_factor = Some(crate::rope::yarn_attention_factor(&yarn) * attn_factor);
    }
    Ok(yarn)
}

/// Keys of experts that the file of a dense model may have.
const MOE_KEYS: [&str; 11] = [
    "aux_loss_alpha",
    "moe_intermediate_size",
    "n_group",
    "n_routed_experts",
    "n_shared_experts",
    "norm_topk_prob",
    "num_experts_per_tok",
    "routed_scaling_factor",
    "scoring_func",
    "topk_group",
    "topk_method",
];

fn write(config: &ModelConfig) -> Value {
    let mut map = BTreeMap::from([
        ("architectures", json!([config.model_type.architecture()])),
        ("attention_dropout", json!(0.0)),
        ("bos_token_id", json!(config.bos_token_id)),
        (
            "eos_token_id",
            match config.eos_token_ids.as_slice() {
                [] => Value::Null,
                [id] => json!(id),
                ids => json!(ids),
            },
        ),
        ("hidden_act", json!("silu")),
        ("hidden_size", json!(config.hidden_size)),
        ("initializer_range", decimal(config.initializer_range)),
        ("intermediate_size", json!(config.intermediate_size)),
        ("max_position_embeddings", json!(config.max_position_embeddings)),
        ("model_type", json!(config.model_type.name())),
        ("num_attention_heads", json!(config.num_attention_heads)),
        ("num_hidden_layers", json!(config.num_hidden_layers)),
        ("pad_token_id", json!(config.pad_token_id)),
        ("rms_norm_eps", decimal(config.rms_norm_eps)),
        ("rope_scaling", write_scaling(&config.rope.scaling)),
        ("rope_theta", json!(config.rope.theta)),
        ("tie_word_embeddings", json!(config.tie_word_embeddings)),
        ("use_cache", json!(true)),
        ("vocab_size", json!(config.vocab_size)),
    ]);
    match &config.attention {
        AttentionConfig::Mla(mla) => {
            map.extend([
                ("attention_bias", json!(false)),
                ("kv_lora_rank", json!(mla.kv_lora_rank)),
                ("num_key_value_heads", json!(config.num_attention_heads)),
                ("q_lora_rank", json!(mla.q_lora_rank)),
                ("qk_nope_head_dim", json!(mla.qk_nope_head_dim)),
                ("qk_rope_head_dim", json!(mla.qk_rope_head_dim)),
                ("v_head_dim", json!(mla.v_head_dim)),
            ]);
            if config.model_type == ModelType::DeepseekV3 {
                map.insert("num_nextn_predict_layers", json!(config.num_nextn_predict_layers));
                map.insert("rope_interleave", json!(config.rope.interleaved));
            }
            match &config.moe {
                Some(moe) => write_moe(&mut map, moe),
                None => {
                    map.insert("first_k_dense_replace", json!(config.num_layers_with_mtp()));
                }
            }
        }
        AttentionConfig::Gqa(gqa) => {
            map.insert("num_key_value_heads", json!(gqa.num_key_value_heads));
            map.insert("head_dim", json!(gqa.head_dim));
            if config.model_type != ModelType::Qwen2 {
                map.insert("attention_bias", json!(gqa.qkv_bias));
            }
            if config.model_type == ModelType::Llama {
                map.insert("mlp_bias", json!(config.mlp_bias));
            }
        }
    }
    object(map)
}

fn write_moe(map: &mut BTreeMap<&'static str, Value>, moe: &MoeConfig) {
    map.extend([
        ("aux_loss_alpha", decimal(moe.aux_loss_alpha)),
        ("first_k_dense_replace", json!(moe.first_k_dense_replace)),
        ("moe_intermediate_size", json!(moe.moe_intermediate_size)),
        ("moe_layer_freq", json!(1)),
        ("n_group", json!(moe.n_group)),
        ("n_routed_experts", json!(moe.n_routed_experts)),
        ("n_shared_experts", json!(moe.n_shared_experts)),
        ("norm_topk_prob", json!(moe.norm_topk_prob)),
        ("num_experts_per_tok", json!(moe.num_experts_per_tok)),
        ("routed_scaling_factor", decimal(moe.routed_scaling_factor)),
        ("scoring_func", json!(moe.scoring_func.name())),
        ("seq_aux", json!(true)),
        ("topk_group", json!(moe.topk_group)),
        ("topk_method", json!(moe.topk_method.name())),
    ]);
}

fn write_scaling(scaling: &RopeScaling) -> Value {
    match scaling {
        // Divisors have no published form: an export names the scaling that they come from first.
        RopeScaling::None | RopeScaling::Divisors(_) => Value::Null,
        RopeScaling::Linear(factor) => {
            object(BTreeMap::from([("factor", json!(factor)), ("rope_type", json!("linear"))]))
        }
        RopeScaling::Yarn(yarn) => {
            let mut map = BTreeMap::from([
                ("beta_fast", json!(yarn.beta_fast)),
                ("beta_slow", json!(yarn.beta_slow)),
                ("factor", json!(yarn.factor)),
                ("original_max_position_embeddings", json!(yarn.original_max_position_embeddings)),
                ("type", json!("yarn")),
            ]);
            for (name, value) in [
                ("attention_factor", yarn.attention_factor),
                ("mscale", yarn.mscale),
                ("mscale_all_dim", yarn.mscale_all_dim),
            ] {
                map.extend(value.map(|value| (name, json!(value))));
            }
            object(map)
        }
        RopeScaling::Llama3(llama3) => object(BTreeMap::from([
            ("factor", json!(llama3.factor)),
            ("high_freq_factor", json!(llama3.high_freq_factor)),
            ("low_freq_factor", json!(llama3.low_freq_factor)),
            ("original_max_position_embeddings", json!(llama3.original_max_position_embeddings)),
            ("rope_type", json!("llama3")),
        ])),
    }
}

/// An object with its keys in order, whatever kind of map `serde_json` was built with.
fn object(map: BTreeMap<&'static str, Value>) -> Value {
    Value::Object(map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// The shortest decimal of an f32, so that 1e-6 is written and not 9.999999974752427e-7.
fn decimal(value: f32) -> Value {
    json!(value.to_string().parse::<f64>().expect("invariant: Rust reads the floats that it writes"))
}

/// The fields of one object that have not been read yet. Null counts as absent.
struct Fields {
    map: Map<String, Value>,
}

impl Fields {
    fn take(&mut self, field: &'static str) -> Option<Value> {
        self.map.remove(field).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &mut self,
        field: &'static str,
        expected: &'static str,
        convert: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.take(field) else { return Ok(None) };
        match convert(&value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(Error::Type { field, found: abbreviate(&value), expected }),
        }
    }

    fn opt_size(&mut self, field: &'static str) -> Result<Option<usize>, Error> {
        self.typed(field, "a non-negative integer", |value| usize::try_from(whole(value)?).ok())
    }

    fn size(&mut self, field: &'static str) -> Result<usize, Error> {
        self.opt_size(field)?.ok_or(Error::Missing { field, hint: "a positive integer" })
    }

    fn float(&mut self, field: &'static str) -> Result<Option<f64>, Error> {
        self.typed(field, "a number", Value::as_f64)
    }

    fn required_float(&mut self, field: &'static str) -> Result<f64, Error> {
        self.float(field)?.ok_or(Error::Missing { field, hint: "a number" })
    }

    fn bool(&mut self, field: &'static str) -> Result<Option<bool>, Error> {
        self.typed(field, "true or false", Value::as_bool)
    }

    fn token(&mut self, field: &'static str) -> Result<Option<u32>, Error> {
        Ok(self.typed(field, "a token id or null", token_id)?.flatten())
    }

    fn tokens(&mut self, field: &'static str) -> Result<Vec<u32>, Error> {
        let ids = self.typed(field, "a token id, a list of them, or null", |value| match value {
            Value::Array(ids) => ids.iter().map(token_id).collect::<Option<Vec<_>>>(),
            id => Some(vec![token_id(id)?]),
        })?;
        Ok(ids.into_iter().flatten().flatten().collect())
    }

    fn choice<T: Copy>(&mut self, field: &'static str, names: &[&str], values: &[T]) -> Result<Option<T>, Error> {
        let Some(value) = self.take(field) else { return Ok(None) };
        match names.iter().position(|&name| value == name) {
            Some(index) => Ok(Some(values[index])),
            None => Err(unsupported(field, &value, &names.join(", "))),
        }
    }

    /// Refuses every value but one.
    fn only(&mut self, field: &'static str, supported: &Value) -> Result<(), Error> {
        match self.take(field) {
            // 0 and 0.0 are two JSON values and one number.
            Some(value) if value != *supported && !(value.is_number() && value.as_f64() == supported.as_f64()) => {
                Err(unsupported(field, &value, &supported.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a value that contradicts the fields from which it follows.
    fn derived(&mut self, field: &'static str, expected: usize, source: &str) -> Result<(), Error> {
        match self.opt_size(field)? {
            Some(value) if value != expected => Err(Error::Invalid {
                field,
                value: value.to_string(),
                reason: format!("must equal {source} ({expected}) in this family"),
            }),
            _ => Ok(()),
        }
    }
}

/// An integer without sign; a float that is whole is one, since some writers have no other numbers.
fn whole(value: &Value) -> Option<u64> {
    let of_float = |float: f64| (float >= 0.0 && float < 2f64.powi(53) && float.fract() == 0.0).then_some(float as u64);
    value.as_u64().or_else(|| of_float(value.as_f64()?))
}

/// An id, or nothing inside for -1, which stands for none in files of older versions of transformers.
fn token_id(value: &Value) -> Option<Option<u32>> {
    if value.as_f64() == Some(-1.0) { Some(None) } else { Some(Some(u32::try_from(whole(value)?).ok()?)) }
}

fn unsupported(field: &'static str, value: &Value, supported: &str) -> Error {
    Error::Unsupported { field, value: abbreviate(value), supported: supported.to_owned() }
}

/// The value as JSON, cut where a message would become longer than a line.
fn abbreviate(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
