//! Recipes of quantization: the format of each tensor, by what it does and in which layer.
//!
//! The recipes of llama.cpp keep their names and choices: values, down projections and the head weigh more on the output than
//! their size suggests, and get more bits.

use minke_spec::config::AttentionConfig;
use minke_spec::{Format, ModelConfig, ParamRole};
use minke_tensor::can_quantize;

use crate::plan::PlannedTensor;

/// A way to choose formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Recipe {
    Q8_0,
    Q4_0,
    Q2K,
    Q3KM,
    Q4KS,
    Q4KM,
    Q5KM,
    Q6K,
    Iq4Xs,
    /// For models with experts: Q2_K for routed experts, Q3_K for their down projections, Q6_K for all else (attention,
    /// dense layers, shared experts, embedding and head): almost all bytes are in routed experts, of which a token meets few.
    ExpertsLow,
}

impl Recipe {
    /// All recipes.
    pub const ALL: [Recipe; 10] = [
        Self::Q8_0,
        Self::Q4_0,
        Self::Q2K,
        Self::Q3KM,
        Self::Q4KS,
        Self::Q4KM,
        Self::Q5KM,
        Self::Q6K,
        Self::Iq4Xs,
        Self::ExpertsLow,
    ];

    /// Its name, its number in GGUF files, and the format of what is not named in it.
    fn row(self) -> (&'static str, usize, Format) {
        match self {
            Self::Q8_0 => ("q8_0", 7, Format::Q8_0),
            Self::Q4_0 => ("q4_0", 2, Format::Q4_0),
            Self::Q2K => ("q2_k", 10, Format::Q2K),
            Self::Q3KM => ("q3_k_m", 12, Format::Q3K),
            Self::Q4KS => ("q4_k_s", 14, Format::Q4K),
            Self::Q4KM => ("q4_k_m", 15, Format::Q4K),
            Self::Q5KM => ("q5_k_m", 17, Format::Q5K),
            Self::Q6K => ("q6_k", 18, Format::Q6K),
            Self::Iq4Xs => ("iq4_xs", 30, Format::Iq4Xs),
            Self::ExpertsLow => ("experts_low", 10, Format::Q6K),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Its number in `general.file_type`.
    pub fn file_type(self) -> usize {
        self.row().1
    }

    /// The format for a tensor, before it is known whether its rows fit.
    fn choice(self, config: &ModelConfig, tensor: &PlannedTensor) -> Format {
        let (_, _, base) = self.row();
        let layers = config.num_hidden_layers;
        let (layer, name) = match tensor.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((layer, name)) => (layer.parse().unwrap_or(layers), name),
            None => (layers, tensor.name.as_str()),
        };
        let is_head = match tensor.role {
            Some(ParamRole::Head) => true,
            Some(ParamRole::Embedding) => config.tie_word_embeddings,
            _ => false,
        };
        if is_head {
            return if self == Self::Q8_0 { Format::Q8_0 } else { Format::Q6K };
        }
        let shared_keys = match &config.attention {
            AttentionConfig::Gqa(gqa) => config.num_attention_heads / gqa.num_key_value_heads,
            AttentionConfig::Mla(_) => config.num_attention_heads,
        };
        let values = name == "attn_v.weight";
        let down = name.starts_with("ffn_down");
        // The first eighth, the last eighth, every third between.
        let eighth = layers / 8;
        let more = layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
        match self {
            Self::Q2K if values && shared_keys >= 4 => Format::Q4K,
            Self::Q2K if values || down || name == "attn_output.weight" => Format::Q3K,
            Self::Q3KM if values && layer < 2 || down && layer < layers / 16 => Format::Q5K,
            Self::Q3KM if values || down || name == "attn_output.weight" => Format::Q4K,
            Self::Q4KS if values && layer < 4 || down && layer < eighth => Format::Q5K,
            Self::Iq4Xs if values && shared_keys >= 4 || down && layer < eighth => Format::Q5K,
            Self::Q4KM | Self::Q5KM if (values || down) && more => Format::Q6K,
            Self::ExpertsLow if tensor.role == Some(ParamRole::Experts) => {
                if down {
                    Format::Q3K
                } else {
                    Format::Q2K
                }
            }
            _ => base,
        }
    }
}

/// A format given for tensors of certain names.
#[derive(Clone, Debug)]
pub struct Override {
    /// A name, in which `*` stands for anything.
    pub pattern: String,
    /// The format of the tensors that have it.
    pub format: Format,
}

impl Override {
    /// Whether a tensor is meant.
    fn matches(&self, name: &str) -> bool {
        let mut parts = self.pattern.split('*');
        let Some(mut rest) = parts.next().and_then(|start| name.strip_prefix(start)) else { return false };
        let Some(end) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            match rest.split_once(part) {
                Some((_, behind)) => rest = behind,
                None => return false,
            }
        }
        rest.ends_with(end)
    }
}

/// A tensor that did not get the format that was meant for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// The tensor.
    pub name: String,
    /// What was meant.
    pub meant: Format,
    /// What its rows can have.
    pub format: Format,
}

/// Gives every tensor its format; the last override that names a tensor counts. Vectors and gates stay F32. Returns what fell
/// back because its rows are no whole blocks: Q2_K and Q3_K to Q4_0, Q4_K to Q5_0, Q5_K to Q5_1, Q6_K to Q8_0, IQ4_XS to
/// IQ4_NL, and all of them to F16 where rows are no multiples of 32 either.
///
/// # Errors
/// The first override that names no tensor, or whose format cannot be written.
pub fn choose(
    config: &ModelConfig,
    recipe: Recipe,
    overrides: &[Override],
    planned: &mut [PlannedTensor],
) -> Result<Vec<Fallback>, String> {
    for Override { pattern, format } in overrides {
        if !can_quantize(*format) {
            return Err(format!("{pattern}={}: no such weights can be written", format.name()));
        }
        let named = Override { pattern: pattern.clone(), format: *format };
        if !planned.iter().any(|tensor| quantized(tensor) && named.matches(&tensor.name)) {
            let example = planned.iter().find(|tensor| quantized(tensor)).map_or("", |tensor| &tensor.name);
            return Err(format!("{pattern} names no weight that is quantized; names look like {example}"));
        }
    }
    let mut fallen = Vec::new();
    for tensor in planned.iter_mut().filter(|tensor| quantized(tensor)) {
        let said = overrides.iter().rev().find(|one| one.matches(&tensor.name));
        let meant = said.map_or_else(|| recipe.choice(config, tensor), |one| one.format);
        let fits = |format: &Format| tensor.width().is_multiple_of(format.block_elements());
        let format = [meant, smaller_blocks(meant)].into_iter().find(fits).unwrap_or(Format::F16);
        if format != meant {
            fallen.push(Fallback { name: tensor.name.clone(), meant, format });
        }
        tensor.format = format;
    }
    Ok(fallen)
}

/// Whether a tensor is quantized at all.
fn quantized(tensor: &PlannedTensor) -> bool {
    let matrix =
        matches!(tensor.role, Some(ParamRole::Embedding | ParamRole::Head | ParamRole::Matrix | ParamRole::Experts));
    matrix && tensor.is_matrix()
}

/// The format in blocks of 32 that takes the place of one in blocks of 256.
fn smaller_blocks(format: Format) -> Format {
    match format {
        Format::Q2K | Format::Q3K => Format::Q4_0,
        Format::Q4K => Format::Q5_0,
        Format::Q5K => Format::Q5_1,
        Format::Iq4Xs => Format::Iq4Nl,
        _ => Format::Q8_0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_tensors() {
        let matches =
            |pattern: &str, name: &str| Override { pattern: pattern.into(), format: Format::F16 }.matches(name);
        for pattern in ["blk.3.ffn_down.weight", "*", "*ffn_down*", "blk.*.ffn_*.weight", "*.weight", "blk.3.*"] {
            assert!(matches(pattern, "blk.3.ffn_down.weight"), "{pattern}");
        }
        for pattern in ["blk.3.ffn_down", "ffn_down*", "*ffn_up*", "", "blk.4.*", "*.weight.*t"] {
            assert!(!matches(pattern, "blk.3.ffn_down.weight"), "{pattern}");
        }
    }
}
