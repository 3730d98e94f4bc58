//! Published files are read as what they mean, and refused where they mean something else.
#![allow(clippy::unwrap_used)]

use minke_spec::config::{AttentionConfig, MlaConfig, RopeScaling};
use minke_spec::{ModelConfig, presets};
use serde_json::{Map, Value, json};

const R1: &str = include_str!("../../../testdata/configs/deepseek-r1.config.json");
const DISTILLED: &str = include_str!("../../../testdata/configs/distilled-models.json");

fn distilled(name: &str) -> Value {
    serde_json::from_str::<Value>(DISTILLED).unwrap()[name].clone()
}

fn r1_with(changes: Value) -> Value {
    with(serde_json::from_str(R1).unwrap(), changes)
}

fn with(mut config: Value, changes: Value) -> Value {
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    config
}

fn refusal(config: Value) -> String {
    ModelConfig::from_value(config).expect_err("the value must be refused").to_string()
}

#[test]
fn r1() {
    let parsed = ModelConfig::from_json(R1).unwrap();
    assert_eq!(parsed.config, presets::r1());
    assert_eq!(parsed.unknown_keys, [""; 0]);
}

#[test]
fn distilled_models() {
    let all: Map<String, Value> = serde_json::from_str(DISTILLED).unwrap();
    assert_eq!(all.len(), presets::DISTILLED.len());
    for (name, value) in all {
        let parsed = ModelConfig::from_value(value.clone()).unwrap();
        assert_eq!(Some(parsed.config), presets::distilled(&name), "{name}");
        assert_eq!(parsed.unknown_keys, [""; 0], "{name}");
    }
    assert_eq!(presets::distilled("DeepSeek-R1-Distill-Qwen-3B"), None);
}

/// Made by transformers 5.23: fields renamed, derived ones added, those that its class does not have left out.
#[test]
fn the_spelling_of_transformers_5() {
    let text = include_str!("../../../testdata/configs/deepseek-r1.transformers-5.config.json");
    assert!(text.contains("rope_parameters") && text.contains("qk_head_dim") && !text.contains("topk_method"));
    let parsed = ModelConfig::from_json(text).unwrap();
    assert_eq!(parsed.config, presets::r1());
    assert_eq!(parsed.unknown_keys, [""; 0]);
    let config = ModelConfig::from_value(r1_with(json!({ "num_nextn_predict_layers": null, "num_mtp_layers": 2 })));
    assert_eq!(config.unwrap().config.num_nextn_predict_layers, 2);
}

#[test]
fn unknown_keys_are_reported_and_in_a_run_refused() {
    let mut value = r1_with(json!({ "num_experts_per_token": 4, "sparkles": true }));
    let parsed = ModelConfig::from_value(value.clone()).unwrap();
    assert_eq!(parsed.unknown_keys, ["num_experts_per_token", "sparkles"]);
    let error = serde_json::from_value::<ModelConfig>(value.clone()).unwrap_err().to_string();
    assert!(error.contains("num_experts_per_token, sparkles"), "{error}");
    // Every key of the rotation changes numbers.
    value["rope_scaling"]["speed"] = json!(1);
    assert!(refusal(value).contains("`rope_scaling` = {\"speed\":1}"));
}

#[test]
fn keys_that_change_no_number_are_no_keys_of_the_model() {
    let more = json!({ "torch_dtype": "float16", "use_cache": false, "temperature": 0.6, "id2label": { "0": "a" },
        "_name_or_path": "a/b", "pretraining_tp": 2, "attn_logit_softcapping": null, "logit_scale": 1, "is_causal": true,
        "pruned_heads": {}, "num_experts": 0, "clip_qkv": false, "is_decoder": true });
    for config in [r1_with(more.clone()), with(distilled("DeepSeek-R1-Distill-Llama-8B"), more)] {
        assert_eq!(ModelConfig::from_value(config).unwrap().unknown_keys, [""; 0]);
    }
}

#[test]
fn numbers_may_be_written_as_floats_and_tokens_may_be_none() {
    let floats = json!({ "num_hidden_layers": 61.0, "vocab_size": 129280.0, "eos_token_id": [1.0, -1], "bos_token_id": -1,
        "pad_token_id": -1.0 });
    let config = ModelConfig::from_value(r1_with(floats)).unwrap().config;
    assert_eq!((config.num_hidden_layers, config.vocab_size), (61, 129_280));
    assert_eq!((config.eos_token_ids.as_slice(), config.bos_token_id, config.pad_token_id), (&[1][..], None, None));
}

#[test]
fn biases_are_those_of_the_family() {
    let biases = |name: &str, more: Value| {
        let config = ModelConfig::from_value(with(distilled(name), more)).unwrap().config;
        let AttentionConfig::Gqa(gqa) = config.attention else { panic!("{name} has grouped queries") };
        (gqa.qkv_bias, gqa.o_bias, config.mlp_bias)
    };
    let (llama, qwen2) = ("DeepSeek-R1-Distill-Llama-8B", "DeepSeek-R1-Distill-Qwen-7B");
    assert_eq!(biases(llama, json!({})), (false, false, false));
    assert_eq!(biases(llama, json!({ "attention_bias": true })), (true, true, false));
    assert_eq!(biases(llama, json!({ "mlp_bias": true })), (false, false, true));
    assert_eq!(biases("DeepSeek-R1-0528-Qwen3-8B", json!({ "attention_bias": true })), (true, true, false));
    for ignored in [json!({}), json!({ "attention_bias": false })] {
        assert_eq!(biases(qwen2, ignored), (true, false, false));
    }
}

#[test]
fn a_scaling_of_the_rotation_has_a_type() {
    let qwen = "DeepSeek-R1-Distill-Qwen-7B";
    let scaling = |value: Value| ModelConfig::from_value(with(distilled(qwen), json!({ "rope_scaling": value })));
    let of = |value: Value| scaling(value).unwrap().config.rope.scaling;
    assert_eq!(of(json!({ "type": "linear", "factor": 4 })), RopeScaling::Linear(4.0));
    assert_eq!(of(json!({ "rope_type": "default" })), RopeScaling::None);
    assert_eq!(of(json!({ "type": "default", "factor": null })), RopeScaling::None);
    for (value, said) in [
        (json!({ "factor": 4.0 }), "`rope_type` is missing"),
        (json!({ "type": "default", "factor": 4.0 }), "`rope_scaling` = {\"factor\":4.0}"),
        (json!({ "type": "dynamic", "factor": 4.0 }), "`rope_type` = \"dynamic\""),
        (json!({ "type": "linear" }), "`factor` is missing"),
        (json!({ "type": "linear", "factor": 4.0, "beta_fast": 8 }), "`rope_scaling` = {\"beta_fast\":8}"),
    ] {
        let error = scaling(value).expect_err("must be refused").to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn no_query_compression_is_null_or_zero() {
    for rank in [json!(null), json!(0)] {
        let config = ModelConfig::from_value(r1_with(json!({ "q_lora_rank": rank }))).unwrap().config;
        assert!(matches!(config.attention, AttentionConfig::Mla(MlaConfig { q_lora_rank: None, .. })));
    }
}

#[test]
fn a_dense_deepseek_says_so() {
    let mut value = r1_with(json!({ "first_k_dense_replace": 62 }));
    let parsed = ModelConfig::from_value(value.clone()).unwrap();
    assert!(parsed.config.moe.is_none() && !parsed.config.is_moe_layer(61));
    assert_eq!(parsed.unknown_keys, [""; 0]);
    value["n_routed_experts"] = json!(null);
    assert_eq!(ModelConfig::from_value(value.clone()).unwrap(), parsed);
    // Readers disagree about a file without the number of experts.
    value["first_k_dense_replace"] = json!(3);
    assert!(refusal(value).contains("`n_routed_experts`"));
}

#[test]
fn several_tokens_may_end_a_sequence() {
    let config = ModelConfig::from_value(r1_with(json!({ "eos_token_id": [1, 7], "pad_token_id": 2 }))).unwrap().config;
    assert_eq!((config.eos_token_ids.as_slice(), config.pad_token_id), (&[1, 7][..], Some(2)));
}

#[test]
fn what_is_not_implemented_is_refused_by_name() {
    for (field, value) in [
        ("model_type", json!("mixtral")),
        ("architectures", json!(["DeepseekV3ForSequenceClassification"])),
        ("hidden_act", json!("gelu")),
        ("attention_bias", json!(true)),
        ("attention_dropout", json!(0.1)),
        ("moe_layer_freq", json!(2)),
        ("seq_aux", json!(false)),
        ("attn_logit_softcapping", json!(30.0)),
        ("index_topk", json!(2048)),
        ("is_causal", json!(false)),
        ("mlp_bias", json!(true)),
        ("logit_scale", json!(0.5)),
        ("quantization", json!({ "bits": 4, "group_size": 64 })),
        ("topk_method", json!("greedy")),
        ("topk_method", json!("best")),
        ("scoring_func", json!("softmax")),
        ("quantization_config", json!({ "quant_method": "awq", "bits": 4 })),
        ("rope_type", json!(null)),
        ("partial_rotary_factor", json!(0.5)),
        ("num_key_value_heads", json!(8)),
        ("head_dim", json!(192)),
        ("qk_head_dim", json!(128)),
    ] {
        let mut config = r1_with(json!({ field: value }));
        if field == "rope_type" {
            config["rope_scaling"]["type"] = json!("longrope");
        }
        let message = refusal(config);
        assert!(message.contains(&format!("`{field}`")) && !message.contains('\n'), "{field}: {message}");
    }
    for (name, field, value) in [
        ("DeepSeek-R1-Distill-Qwen-7B", "use_sliding_window", json!(true)),
        ("DeepSeek-R1-Distill-Qwen-7B", "layer_types", json!(["full_attention", "sliding_attention"])),
        ("DeepSeek-R1-Distill-Qwen-7B", "attention_qkv_bias", json!(false)),
        ("DeepSeek-R1-Distill-Llama-8B", "rope_interleave", json!(true)),
        ("DeepSeek-R1-Distill-Llama-8B", "num_local_experts", json!(8)),
    ] {
        let message = refusal(with(distilled(name), json!({ field: value })));
        assert!(message.contains(&format!("`{field}`")), "{field}: {message}");
    }
}

#[test]
fn sizes_that_contradict_each_other_are_refused_by_name() {
    for (field, value) in [
        ("hidden_size", json!(0)),
        ("hidden_size", json!(-7168)),
        ("hidden_size", json!("7168")),
        ("hidden_size", json!(u64::MAX)),
        ("vocab_size", json!(1u64 << 40)),
        ("num_hidden_layers", json!(61.5)),
        ("v_head_dim", json!(1u64 << 19)),
        ("num_attention_heads", json!(null)),
        ("q_lora_rank", json!(true)),
        ("qk_rope_head_dim", json!(63)),
        ("n_group", json!(7)),
        ("n_group", json!(0)),
        ("topk_group", json!(9)),
        ("num_experts_per_tok", json!(129)),
        ("n_shared_experts", json!(0)),
        ("n_shared_experts", json!(4096)),
        ("routed_scaling_factor", json!(0)),
        ("rms_norm_eps", json!(0)),
        ("initializer_range", json!(-0.1)),
        ("eos_token_id", json!(129_280)),
        ("bos_token_id", json!(-2)),
        ("eos_token_id", json!([1, 1.5])),
        ("rope_theta", json!(1)),
        ("num_nextn_predict_layers", json!(1u64 << 60)),
        ("first_k_dense_replace", json!(-1)),
    ] {
        let message = refusal(r1_with(json!({ field: value })));
        assert!(message.contains(&format!("`{field}`")) && !message.contains('\n'), "{field}: {message}");
    }
    let wide = refusal(r1_with(json!({ "v_head_dim": 1 << 17 })));
    assert!(wide.contains("`num_attention_heads`") && wide.contains("131200"), "{wide}");
    let lonely = refusal(r1_with(json!({ "n_group": 256, "num_experts_per_tok": 4 })));
    assert!(lonely.contains("`n_group`") && lonely.contains("two"), "{lonely}");
    for (field, value) in [
        ("factor", json!(0.5)),
        ("factor", json!(null)),
        ("beta_fast", json!(0.5)),
        ("mscale", json!(-1)),
        ("original_max_position_embeddings", json!(0)),
        ("truncate", json!(false)),
    ] {
        let mut config = r1_with(json!({}));
        config["rope_scaling"][field] = value;
        let message = refusal(config);
        assert!(message.contains(&format!("`{field}`")), "{field}: {message}");
    }
    let llama = "DeepSeek-R1-Distill-Llama-8B";
    for (field, value) in [
        ("num_key_value_heads", json!(5)),
        ("head_dim", json!(127)),
        ("hidden_size", json!(4095)),
        ("high_freq_factor", json!(1)),
    ] {
        let mut config = with(distilled(llama), json!({}));
        let target = if field == "high_freq_factor" { &mut config["rope_scaling"] } else { &mut config };
        target[field] = value;
        let expected = if field == "hidden_size" { "num_attention_heads" } else { field };
        let message = refusal(config);
        assert!(message.contains(&format!("`{expected}`")), "{field}: {message}");
    }
}

#[test]
fn text_that_is_no_object_is_refused() {
    for text in ["", "{", "[]", "7", "{\"model_type\": 3}", "{}"] {
        assert!(!ModelConfig::from_json(text).unwrap_err().to_string().contains('\n'));
    }
}
