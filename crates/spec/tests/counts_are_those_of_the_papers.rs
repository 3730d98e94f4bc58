//! Parameters, FLOPs, cached bytes and costs as the papers print them.
#![allow(clippy::unwrap_used)]

use minke_spec::cost::{
    GpuHours, TokenPrices, kv_bytes_per_token, parameter_counts, tokens_per_day, train_flops_per_token,
};
use minke_spec::{Format, ModelConfig, presets};
use serde_json::Value;

fn counts() -> Value {
    serde_json::from_str(include_str!("../../../testdata/vectors/parameter_counts.json")).unwrap()
}

fn check(config: &ModelConfig, expected: &Value) {
    let counts = parameter_counts(config);
    assert_eq!(expected["total"], counts.total);
    assert_eq!(expected["activated_incl_embed_and_head"], counts.activated);
    assert_eq!(expected["activated_excl_embed"], counts.activated_excluding_embedding);
    assert_eq!(expected["attention_per_layer"], counts.attention_per_layer);
    assert_eq!(expected["kv_bytes_per_token_bf16"], kv_bytes_per_token(config, Format::Bf16));
}

#[test]
fn deepseek_models() {
    let expected = counts();
    check(&presets::v2_lite(), &expected["DeepSeek-V2-Lite (16B)"]);
    check(&presets::v2(), &expected["DeepSeek-V2 (236B)"]);
    check(&presets::r1(), &expected["DeepSeek-V3/R1 (671B)"]);
}

#[test]
fn r1_in_detail() {
    let expected = &counts()["DeepSeek-V3/R1 (671B)"];
    let (counts, flops) = (parameter_counts(&presets::r1()), train_flops_per_token(&presets::r1(), 4096));
    assert_eq!(expected["matmul_params_activated_incl_head"], counts.activated_in_matmuls);
    assert_eq!(expected["mtp_unique"], counts.mtp);
    assert_eq!(expected["train_flops_per_token_linear"], flops.linear);
    assert_eq!(expected["train_flops_per_token_attention_causal_4096"], flops.attention_causal);
    assert_eq!(expected["train_flops_per_token_total_causal_4096"], flops.total_causal());
    assert_eq!(expected["train_flops_per_token_total_full_4096"], flops.total_full());
    // Facts sheet 1.9.
    assert_eq!(counts.activated_excluding_embedding_and_head, 35_698_939_392);
}

#[test]
fn distilled_models() {
    let expected = counts();
    // Cached bytes: facts sheet 1.12.
    for (name, key, kv_bytes) in [
        ("DeepSeek-R1-Distill-Qwen-1.5B", "Qwen-1.5B", 28_672),
        ("DeepSeek-R1-Distill-Qwen-7B", "Qwen-7B", 57_344),
        ("DeepSeek-R1-Distill-Qwen-14B", "Qwen-14B", 196_608),
        ("DeepSeek-R1-Distill-Qwen-32B", "Qwen-32B", 262_144),
        ("DeepSeek-R1-Distill-Llama-8B", "Llama-8B", 131_072),
        ("DeepSeek-R1-Distill-Llama-70B", "Llama-70B", 327_680),
        ("DeepSeek-R1-0528-Qwen3-8B", "R1-0528-Qwen3-8B", 147_456),
    ] {
        let config = presets::distilled(name).unwrap();
        let counts = parameter_counts(&config);
        assert_eq!(expected["distilled"][key], counts.total, "{name}");
        assert_eq!((counts.activated, counts.mtp), (counts.total, 0), "{name}");
        assert_eq!(kv_bytes_per_token(&config, Format::Bf16), kv_bytes, "{name}");
    }
    assert_eq!(presets::DISTILLED.len(), expected["distilled"].as_object().unwrap().len());
}

/// Qwen2.5-1.5B ties its embedding; the table is then read as a head, so it counts once and is multiplied.
#[test]
fn a_tied_embedding_counts_once() {
    let untied = presets::distilled("DeepSeek-R1-Distill-Qwen-1.5B").unwrap();
    let tied = ModelConfig { tie_word_embeddings: true, ..untied.clone() };
    let (untied, tied) = (parameter_counts(&untied), parameter_counts(&tied));
    assert_eq!(untied.total - tied.total, 151_936 * 1536);
    assert_eq!(untied.activated_in_matmuls, tied.activated_in_matmuls);
    assert_eq!(untied.activated_excluding_embedding, tied.activated_excluding_embedding);
    assert_eq!(untied.activated_excluding_embedding_and_head, tied.activated_excluding_embedding_and_head);
}

#[test]
fn training_and_serving() {
    let expected: Value = serde_json::from_str(include_str!("../../../testdata/vectors/cost.json")).unwrap();
    let check = |key: &str, actual: f64| {
        let expected = expected[key].as_f64().unwrap();
        assert!((actual - expected).abs() <= 1e-12 * expected.abs(), "{key}: {actual} instead of {expected}");
    };
    // V3 Table 1.
    let per_trillion = 180_000.0;
    let pretraining = GpuHours::of_tokens(14.8e12, per_trillion);
    let total = GpuHours(pretraining.0 + 119_000.0 + 5_000.0);
    check("v3_pretrain_gpu_hours", pretraining.0);
    check("total", total.0);
    check("usd", total.usd(2.0));
    check("days_per_T_on_2048", GpuHours(per_trillion).days_on(2048));
    check("pretrain_days", pretraining.days_on(2048));
    // R1 (second version) Table 7.
    let (r1_zero, r1) = (GpuHours::of_cluster(512, 198.0), GpuHours::of_cluster(512, 80.0));
    let r1_total = GpuHours(r1_zero.0 + 5_000.0 + r1.0);
    check("r1_zero_gpu_hours", r1_zero.0);
    check("r1_gpu_hours", r1.0);
    check("r1_total_gpu_hours", r1_total.0);
    check("r1_total_usd", r1_total.usd(2.0));
    // ISCA25 Table 4.
    let flops = train_flops_per_token(&presets::r1(), 4096).total_causal();
    check("tflops_per_gpu_from_180K", GpuHours(per_trillion).flops_per_second(1e12, flops) / 1e12);
    let tokens_per_step = 15_360 * 4096;
    check("tokens_per_step", tokens_per_step as f64);
    check("tokens_per_day_at_19_926s", tokens_per_day(tokens_per_step, 19.926));
    // One day of serving, February 2025.
    let cost = GpuHours::of_cluster(8, 226.75 * 24.0).usd(2.0);
    let prices = TokenPrices { cache_hit_usd: 0.14, cache_miss_usd: 0.55, output_usd: 2.19 };
    let revenue = prices.revenue_usd(342e9, 266e9, 168e9);
    check("serving_cost_day", cost);
    check("serving_revenue_day", revenue);
    // The published margin is of the published revenue, which was summed before rounding.
    assert!(((562_027.0 - 87_072.0) / 87_072.0 - expected["margin"].as_f64().unwrap()).abs() < 1e-6);
    assert!(((revenue - cost) / cost - 5.45).abs() < 0.01);
}
