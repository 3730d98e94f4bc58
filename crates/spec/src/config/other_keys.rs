//! Keys of a `config.json` that no field of [`ModelConfig`](super::ModelConfig) is read from: those that would change the
//! numbers of a model, and those that change none, with the reason.

use serde_json::Value;

/// The values at which a key changes nothing; null is always one.
#[derive(Clone, Copy)]
pub(super) enum Neutral {
    /// False, 0, an empty list or object.
    Off,
    /// 1, of a multiplier.
    One,
    /// True.
    On,
}

impl Neutral {
    pub(super) fn holds(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null) | (Self::On, Value::Bool(true)) | (Self::Off, Value::Bool(false)) => true,
            (Self::One, Value::Number(number)) => number.as_f64() == Some(1.0),
            (Self::Off, Value::Number(number)) => number.as_f64() == Some(0.0),
            (Self::Off, Value::Array(list)) => list.is_empty(),
            (Self::Off, Value::Object(map)) => map.is_empty(),
            _ => false,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Off => "none",
            Self::One => "1",
            Self::On => "true",
        }
    }
}

/// Keys that change the numbers of a model of these families, as other families or runtimes use them.
pub(super) const CHANGES_NUMBERS: [(&str, Neutral); 29] = [
    ("add_cross_attention", Neutral::Off),
    ("alibi", Neutral::Off),
    ("attention_chunk_size", Neutral::Off),
    ("attention_multiplier", Neutral::Off),
    ("attn_logit_softcapping", Neutral::Off),
    ("attn_temperature_tuning", Neutral::Off),
    ("clip_qkv", Neutral::Off),
    ("compression_config", Neutral::Off),
    ("embedding_multiplier", Neutral::One),
    ("final_logit_softcapping", Neutral::Off),
    ("index_topk", Neutral::Off),
    ("is_causal", Neutral::On),
    ("is_encoder_decoder", Neutral::Off),
    ("logit_scale", Neutral::One),
    ("logits_scaling", Neutral::One),
    ("no_rope_layers", Neutral::Off),
    ("num_experts", Neutral::Off),
    ("num_local_experts", Neutral::Off),
    ("parallel_attn", Neutral::Off),
    ("pruned_heads", Neutral::Off),
    ("qk_layernorm", Neutral::Off),
    ("quantization", Neutral::Off),
    ("query_pre_attn_scalar", Neutral::Off),
    ("residual_multiplier", Neutral::One),
    ("rope_traditional", Neutral::Off),
    ("scale_emb", Neutral::One),
    ("use_bidirectional_attention", Neutral::Off),
    ("use_parallel_residual", Neutral::Off),
    ("use_qk_norm", Neutral::Off),
];

/// Keys that change no number, by the reason.
pub(super) const CHANGES_NOTHING: [(&str, &[&str]); 7] = [
    (
        "say what the file is, or who wrote it",
        &[
            "_commit_hash",
            "_name_or_path",
            "auto_map",
            "custom_pipelines",
            "model_name",
            "tokenizer_class",
            "transformers.js_config",
            "transformers_version",
            "unsloth_fixed",
            "unsloth_version",
        ],
    ),
    (
        "say how a runtime holds or computes the model",
        &[
            "_attn_implementation",
            "_attn_implementation_autoset",
            "_flash_attn_2_enabled",
            "attn_implementation",
            "chunk_size_feed_forward",
            "dtype",
            "ep_size",
            "pretraining_tp",
            "torch_dtype",
            "torchscript",
            "use_bfloat16",
            "use_cache",
            "use_flash_attn",
        ],
    ),
    (
        "say what a forward returns beside logits",
        &[
            "output_attentions",
            "output_hidden_states",
            "output_router_logits",
            "output_scores",
            "return_dict",
            "return_dict_in_generate",
        ],
    ),
    (
        "advise on generation, as generation_config.json does",
        &[
            "bad_words_ids",
            "begin_suppress_tokens",
            "diversity_penalty",
            "do_sample",
            "early_stopping",
            "encoder_no_repeat_ngram_size",
            "exponential_decay_length_penalty",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "length_penalty",
            "max_length",
            "min_length",
            "no_repeat_ngram_size",
            "num_beam_groups",
            "num_beams",
            "num_return_sequences",
            "prefix",
            "remove_invalid_values",
            "repetition_penalty",
            "suppress_tokens",
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
        ],
    ),
    (
        "belong to classification",
        &["finetuning_task", "id2label", "label2id", "problem_type", "task_specific_params", "tf_legacy_loss"],
    ),
    (
        "belong to encoders and decoders",
        &["cross_attention_hidden_size", "decoder_start_token_id", "is_decoder", "sep_token_id", "tie_encoder_decoder"],
    ),
    (
        "belong to training",
        &["embd_pdrop", "gradient_checkpointing", "hidden_dropout", "resid_pdrop", "router_aux_loss_coef"],
    ),
];
