//! Configurations of the models of the papers.

use crate::config::{
    AttentionConfig, GqaConfig, Llama3RopeConfig, MlaConfig, ModelConfig, ModelType, MoeConfig, RopeConfig,
    RopeScaling, ScoringFunc, TopkMethod, YarnConfig,
};

/// Names of the distilled models, as published.
pub const DISTILLED: [&str; 7] = [
    "DeepSeek-R1-Distill-Qwen-1.5B",
    "DeepSeek-R1-Distill-Qwen-7B",
    "DeepSeek-R1-Distill-Qwen-14B",
    "DeepSeek-R1-Distill-Qwen-32B",
    "DeepSeek-R1-Distill-Llama-8B",
    "DeepSeek-R1-Distill-Llama-70B",
    "DeepSeek-R1-0528-Qwen3-8B",
];

/// DeepSeek-V3, R1-Zero and R1, which share one configuration: 671B parameters, 37B active.
pub fn r1() -> ModelConfig {
    deepseek(
        ModelType::DeepseekV3,
        129_280,
        [7168, 61, 128, 18_432, 163_840],
        Some(1536),
        1.0,
        MoeConfig {
            n_routed_experts: 256,
            n_shared_experts: 1,
            num_experts_per_tok: 8,
            moe_intermediate_size: 2048,
            first_k_dense_replace: 3,
            n_group: 8,
            topk_group: 4,
            topk_method: TopkMethod::NoauxTc,
            scoring_func: ScoringFunc::Sigmoid,
            norm_topk_prob: true,
            routed_scaling_factor: 2.5,
            aux_loss_alpha: 0.001,
        },
    )
}

/// The configuration of a repository of the Hub that publishes one of these models.
pub fn known(repo: &str) -> Option<ModelConfig> {
    match repo.strip_prefix("deepseek-ai/")? {
        "DeepSeek-V3" | "DeepSeek-V3-0324" | "DeepSeek-V3.1" | "DeepSeek-R1" | "DeepSeek-R1-Zero"
        | "DeepSeek-R1-0528" => Some(r1()),
        "DeepSeek-V2" => Some(v2()),
        "DeepSeek-V2-Lite" => Some(v2_lite()),
        name => distilled(name),
    }
}

/// DeepSeek-V2: 236B parameters, 21B active.
pub fn v2() -> ModelConfig {
    let moe = MoeConfig {
        n_routed_experts: 160,
        moe_intermediate_size: 1536,
        n_group: 8,
        topk_group: 3,
        topk_method: TopkMethod::GroupLimitedGreedy,
        routed_scaling_factor: 16.0,
        ..v2_lite_experts()
    };
    deepseek(ModelType::DeepseekV2, 102_400, [5120, 60, 128, 12_288, 163_840], Some(1536), 0.707, moe)
}

/// DeepSeek-V2-Lite: 16B parameters, 2.4B active.
pub fn v2_lite() -> ModelConfig {
    deepseek(ModelType::DeepseekV2, 102_400, [2048, 27, 16, 10_944, 163_840], None, 0.707, v2_lite_experts())
}

/// A distilled model, by its published name (one of [`DISTILLED`]).
pub fn distilled(name: &str) -> Option<ModelConfig> {
    let eos = 151_643;
    let config = match name {
        "DeepSeek-R1-Distill-Qwen-1.5B" => {
            let config = dense(ModelType::Qwen2, 151_936, [1536, 8960, 28, 12, 2], eos, eos);
            ModelConfig { rope: half_split(1e4, RopeScaling::None), rms_norm_eps: 1e-6, ..config }
        }
        "DeepSeek-R1-Distill-Qwen-7B" => {
            let config = dense(ModelType::Qwen2, 152_064, [3584, 18_944, 28, 28, 4], eos, eos);
            ModelConfig { rope: half_split(1e4, RopeScaling::None), rms_norm_eps: 1e-6, ..config }
        }
        "DeepSeek-R1-Distill-Qwen-14B" => dense(ModelType::Qwen2, 152_064, [5120, 13_824, 48, 40, 8], eos, eos),
        "DeepSeek-R1-Distill-Qwen-32B" => dense(ModelType::Qwen2, 152_064, [5120, 27_648, 64, 40, 8], eos, eos),
        "DeepSeek-R1-Distill-Llama-8B" => llama([4096, 14_336, 32, 32, 8]),
        "DeepSeek-R1-Distill-Llama-70B" => llama([8192, 28_672, 80, 64, 8]),
        "DeepSeek-R1-0528-Qwen3-8B" => {
            let scaling = RopeScaling::Yarn(YarnConfig {
                factor: 4.0,
                beta_fast: 32.0,
                beta_slow: 1.0,
                mscale: None,
                mscale_all_dim: None,
                original_max_position_embeddings: 32_768,
                // The file's `attn_factor` is the reciprocal of YaRN's own factor.
                attention_factor: Some(1.0),
            });
            let config = dense(ModelType::Qwen3, 151_936, [4096, 12_288, 36, 32, 8], eos, 151_645);
            ModelConfig { rope: half_split(1e6, scaling), rms_norm_eps: 1e-6, ..config }
        }
        _ => return None,
    };
    Some(config)
}

fn v2_lite_experts() -> MoeConfig {
    MoeConfig {
        n_routed_experts: 64,
        n_shared_experts: 2,
        num_experts_per_tok: 6,
        moe_intermediate_size: 1408,
        first_k_dense_replace: 1,
        n_group: 1,
        topk_group: 1,
        topk_method: TopkMethod::Greedy,
        scoring_func: ScoringFunc::Softmax,
        norm_topk_prob: false,
        routed_scaling_factor: 1.0,
        aux_loss_alpha: 0.001,
    }
}

/// `sizes`: hidden size, layers, heads, intermediate size, positions.
fn deepseek(
    model_type: ModelType,
    vocab_size: usize,
    sizes: [usize; 5],
    q_lora_rank: Option<usize>,
    mscale: f64,
    moe: MoeConfig,
) -> ModelConfig {
    let [hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, max_position_embeddings] = sizes;
    let v3 = model_type == ModelType::DeepseekV3;
    ModelConfig {
        model_type,
        vocab_size,
        hidden_size,
        num_hidden_layers,
        num_attention_heads,
        intermediate_size,
        mlp_bias: false,
        rms_norm_eps: 1e-6,
        max_position_embeddings,
        tie_word_embeddings: false,
        initializer_range: 0.02,
        bos_token_id: Some(if v3 { 0 } else { 100_000 }),
        eos_token_ids: vec![if v3 { 1 } else { 100_001 }],
        pad_token_id: None,
        attention: AttentionConfig::Mla(MlaConfig {
            q_lora_rank,
            kv_lora_rank: 512,
            qk_nope_head_dim: 128,
            qk_rope_head_dim: 64,
            v_head_dim: 128,
        }),
        rope: RopeConfig {
            theta: 1e4,
            scaling: RopeScaling::Yarn(YarnConfig {
                factor: 40.0,
                beta_fast: 32.0,
                beta_slow: 1.0,
                mscale: Some(mscale),
                mscale_all_dim: Some(mscale),
                original_max_position_embeddings: 4096,
                attention_factor: None,
            }),
            interleaved: true,
        },
        moe: Some(moe),
        num_nextn_predict_layers: usize::from(v3),
    }
}

/// `sizes`: hidden size, intermediate size, layers, heads, key and value heads.
fn dense(model_type: ModelType, vocab_size: usize, sizes: [usize; 5], bos: u32, eos: u32) -> ModelConfig {
    let [hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads] = sizes;
    ModelConfig {
        model_type,
        vocab_size,
        hidden_size,
        num_hidden_layers,
        num_attention_heads,
        intermediate_size,
        mlp_bias: false,
        rms_norm_eps: 1e-5,
        max_position_embeddings: 131_072,
        tie_word_embeddings: false,
        initializer_range: 0.02,
        bos_token_id: Some(bos),
        eos_token_ids: vec![eos],
        pad_token_id: None,
        attention: AttentionConfig::Gqa(GqaConfig {
            num_key_value_heads,
            head_dim: 128,
            qkv_bias: model_type == ModelType::Qwen2,
            o_bias: false,
            qk_norm: model_type == ModelType::Qwen3,
        }),
        rope: half_split(1e6, RopeScaling::None),
        moe: None,
        num_nextn_predict_layers: 0,
    }
}

fn llama(sizes: [usize; 5]) -> ModelConfig {
    let scaling = RopeScaling::Llama3(Llama3RopeConfig {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    });
    let config = dense(ModelType::Llama, 128_256, sizes, 128_000, 128_001);
    ModelConfig { rope: half_split(5e5, scaling), ..config }
}

fn half_split(theta: f64, scaling: RopeScaling) -> RopeConfig {
    RopeConfig { theta, scaling, interleaved: false }
}
