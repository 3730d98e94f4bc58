//! Every valid configuration is read back as it was written, and no file, however broken, ends in a panic.
#![allow(clippy::unwrap_used)]

use minke_spec::config::{
    AttentionConfig, GqaConfig, Llama3RopeConfig, MlaConfig, ModelType, MoeConfig, RopeConfig, RopeScaling,
    ScoringFunc, TopkMethod, YarnConfig,
};
use minke_spec::cost::{kv_bytes_per_token, parameter_counts, train_flops_per_token};
use minke_spec::{Format, ModelConfig, presets, rope};
use proptest::prelude::*;
use serde_json::{Value, json};

fn scaling() -> impl Strategy<Value = RopeScaling> {
    let weight = || proptest::option::of(0.01..2.0f64);
    let yarn = (1.0..100.0f64, 1.0..64.0f64, 0.1..1.0f64, weight(), weight(), 1usize..100_000, weight()).prop_map(
        |(factor, beta_fast, beta_slow, mscale, mscale_all_dim, original_max_position_embeddings, attention_factor)| {
            RopeScaling::Yarn(YarnConfig {
                factor,
                beta_fast,
                beta_slow,
                mscale,
                mscale_all_dim,
                original_max_position_embeddings,
                attention_factor,
            })
        },
    );
    let llama3 = (1.0..100.0f64, 0.1..2.0f64, 0.1..4.0f64, 1usize..100_000).prop_map(
        |(factor, low_freq_factor, more, original_max_position_embeddings)| {
            RopeScaling::Llama3(Llama3RopeConfig {
                factor,
                low_freq_factor,
                high_freq_factor: low_freq_factor + more,
                original_max_position_embeddings,
            })
        },
    );
    prop_oneof![Just(RopeScaling::None), (0.1..100.0f64).prop_map(RopeScaling::Linear), yarn, llama3]
}

fn experts(v3: bool) -> impl Strategy<Value = MoeConfig> {
    let groups = (1usize..6).prop_flat_map(|n_group| (Just(n_group), 1..=n_group, 2usize..6));
    let sizes = groups.prop_flat_map(|(n_group, topk_group, per_group)| {
        (Just((n_group, topk_group, per_group)), 1..=topk_group * per_group)
    });
    let floats = (1e-3..20.0f32, 0.0..1.0f32);
    (sizes, 1usize..4, 1usize..100, 0usize..5, any::<bool>(), floats).prop_map(
        move |(((n_group, topk_group, per_group), chosen), n_shared_experts, width, first, norm_topk_prob, floats)| {
            MoeConfig {
                n_routed_experts: n_group * per_group,
                n_shared_experts,
                num_experts_per_tok: chosen,
                moe_intermediate_size: width,
                first_k_dense_replace: first,
                n_group,
                topk_group,
                topk_method: if v3 { TopkMethod::NoauxTc } else { TopkMethod::GroupLimitedGreedy },
                scoring_func: if v3 { ScoringFunc::Sigmoid } else { ScoringFunc::Softmax },
                norm_topk_prob: v3 && norm_topk_prob,
                routed_scaling_factor: floats.0,
                aux_loss_alpha: floats.1,
            }
        },
    )
}

fn attention(family: ModelType, heads: usize) -> BoxedStrategy<AttentionConfig> {
    if family.is_deepseek() {
        (proptest::option::of(1usize..40), 1usize..40, 1usize..20, 1usize..10, 1usize..20)
            .prop_map(|(q_lora_rank, kv_lora_rank, qk_nope_head_dim, half, v_head_dim)| {
                AttentionConfig::Mla(MlaConfig {
                    q_lora_rank,
                    kv_lora_rank,
                    qk_nope_head_dim,
                    qk_rope_head_dim: 2 * half,
                    v_head_dim,
                })
            })
            .boxed()
    } else {
        let divisors: Vec<usize> = (1..=heads).filter(|&n| heads.is_multiple_of(n)).collect();
        (proptest::sample::select(divisors), 1usize..20, any::<bool>())
            .prop_map(move |(num_key_value_heads, half, bias)| {
                AttentionConfig::Gqa(GqaConfig {
                    num_key_value_heads,
                    head_dim: 2 * half,
                    qkv_bias: family == ModelType::Qwen2 || bias,
                    o_bias: family != ModelType::Qwen2 && bias,
                    qk_norm: family == ModelType::Qwen3,
                })
            })
            .boxed()
    }
}

fn valid_config() -> impl Strategy<Value = ModelConfig> {
    (proptest::sample::select(ModelType::ALL.to_vec()), 1usize..9).prop_flat_map(|(family, heads)| {
        let moe = if family.is_deepseek() {
            proptest::option::of(experts(family == ModelType::DeepseekV3)).boxed()
        } else {
            Just(None).boxed()
        };
        let sizes = (2u32..1000, 1usize..50, 1usize..6, 1usize..200, 1usize..10_000, 0usize..3);
        let tokens = (any::<Option<u16>>(), proptest::collection::vec(any::<u16>(), 0..3), any::<Option<u16>>());
        let rest = (1e-12..1e-2f32, 0.0..1.0f32, 1.001..1e7f64, any::<bool>(), any::<bool>());
        (sizes, tokens, rest, attention(family, heads), scaling(), moe).prop_map(
            move |(sizes, tokens, rest, attention, scaling, moe)| {
                let (vocab, width, layers, intermediate_size, max_position_embeddings, mtp) = sizes;
                let token = |id: u16| u32::from(id) % vocab;
                let v3 = family == ModelType::DeepseekV3;
                let num_layers = layers + if v3 { mtp } else { 0 };
                ModelConfig {
                    model_type: family,
                    vocab_size: vocab as usize,
                    hidden_size: width * heads,
                    num_hidden_layers: layers,
                    num_attention_heads: heads,
                    intermediate_size,
                    mlp_bias: family == ModelType::Llama && rest.3,
                    rms_norm_eps: rest.0,
                    max_position_embeddings,
                    tie_word_embeddings: rest.3,
                    initializer_range: rest.1,
                    bos_token_id: tokens.0.map(token),
                    eos_token_ids: tokens.1.into_iter().map(token).collect(),
                    pad_token_id: tokens.2.map(token),
                    attention,
                    rope: RopeConfig {
                        theta: rest.2,
                        scaling,
                        interleaved: if v3 { rest.4 } else { family == ModelType::DeepseekV2 },
                    },
                    moe: moe.filter(|moe| moe.first_k_dense_replace < num_layers),
                    num_nextn_predict_layers: if v3 { mtp } else { 0 },
                }
            },
        )
    })
}

/// Touches everything that follows from a configuration.
fn use_it(config: &ModelConfig) {
    let counts = parameter_counts(config);
    assert!(counts.activated <= counts.total && counts.activated_in_matmuls <= counts.activated);
    assert!(train_flops_per_token(config, 1).linear > 0 && kv_bytes_per_token(config, Format::F32) > 0);
    assert!(rope::inverse_frequencies(&config.rope, config.rope_dim()).iter().all(|f| f.is_finite()));
    assert!(rope::softmax_scale(config).is_finite() && rope::cos_sin_multiplier(&config.rope).is_finite());
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2i64..70).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!("yarn")),
        Just(json!("qwen3")),
        Just(json!("llama3")),
        Just(json!({})),
        Just(json!([1, "two"])),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn written_configs_read_back_equal(config in valid_config()) {
        prop_assert!(config.validate().is_ok(), "{:?}", config.validate());
        let parsed = ModelConfig::from_json(&config.to_json()).unwrap();
        prop_assert_eq!(&parsed.config, &config);
        prop_assert!(parsed.unknown_keys.is_empty(), "{:?}", parsed.unknown_keys);
        // The way of a run's `[model]` table, which has no null.
        let table = serde_json::to_value(&config).unwrap();
        prop_assert!(!table.as_object().unwrap().values().any(Value::is_null));
        prop_assert_eq!(&serde_json::from_value::<ModelConfig>(table).unwrap(), &config);
        use_it(&config);
    }

    #[test]
    fn a_changed_file_is_read_or_refused(
        which in 0..=presets::DISTILLED.len(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<bool>(), values()), 1..4),
    ) {
        let config = presets::DISTILLED.get(which).and_then(|name| presets::distilled(name)).unwrap_or_else(presets::r1);
        let mut file = config.to_value();
        for (index, inner, value) in changes {
            let object = match file.get("rope_scaling") {
                Some(Value::Object(map)) if inner && !map.is_empty() => file["rope_scaling"].as_object_mut().unwrap(),
                _ => file.as_object_mut().unwrap(),
            };
            let key = index.get(&object.keys().cloned().collect::<Vec<_>>()).clone();
            object.insert(key, value);
        }
        if let Ok(parsed) = ModelConfig::from_value(file) {
            use_it(&parsed.config);
            prop_assert_eq!(ModelConfig::from_json(&parsed.config.to_json()).unwrap().config, parsed.config);
        }
    }

    #[test]
    fn text_that_is_not_json_is_refused(text in "\\PC*", cut in any::<proptest::sample::Index>()) {
        let _ = ModelConfig::from_json(&text);
        let whole = presets::r1().to_json();
        prop_assert!(ModelConfig::from_json(&whole[..cut.index(whole.len())]).is_err());
    }
}
