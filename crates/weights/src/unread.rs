//! Tensors that belong to no parameter and change nothing, with the reason. Every other one is refused: a program that
//! reads less than a file holds computes other numbers than the one that wrote it.

use minke_spec::ModelConfig;
use minke_spec::params::HEAD;

/// Why a tensor that belongs to no parameter changes nothing; nothing if it may change something.
pub(crate) fn reason(config: &ModelConfig, name: &str) -> Option<&'static str> {
    let within = layer_of(name).map_or(name, |_| name.splitn(4, '.').nth(3).unwrap_or_default());
    match within {
        "self_attn.rotary_emb.inv_freq" | "model.rotary_emb.inv_freq" => {
            Some("frequencies of the rotation follow from the configuration")
        }
        "self_attn.k_scale" | "self_attn.v_scale" => Some("they scale a cache in FP8, which is not used"),
        _ if name == HEAD && config.tie_word_embeddings => Some("the head is the embedding"),
        _ if config.model_type.is_deepseek() && name.starts_with("model.") => layer_of(name)
            .filter(|&layer| layer >= config.num_layers_with_mtp())
            .map(|_| "layers behind the last predict further tokens, which the configuration leaves out"),
        _ => None,
    }
}

/// The number of the layer in a published name, or one of GGUF.
pub(crate) fn layer_of(name: &str) -> Option<usize> {
    let rest = name.strip_prefix("model.layers.").or_else(|| name.strip_prefix("blk."))?;
    rest.split_once('.')?.0.parse().ok()
}
