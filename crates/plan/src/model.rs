//! A model as the planner sees it: what each layer holds and multiplies.

use minke_spec::config::{AttentionConfig, ModelConfig};
use minke_spec::{Format, ParamRole, cost, parameters, presets};

use crate::Error;

/// The names of models, beside the published names of the Hub.
const NAMES: [&str; 5] = ["deepseek-v3", "deepseek-r1", "deepseek-r1-zero", "deepseek-v2", "deepseek-v2-lite"];

/// Every name of [`named`].
pub fn names() -> Vec<String> {
    let distilled = presets::DISTILLED.iter().map(|name| name.to_lowercase());
    NAMES.iter().map(|name| (*name).to_owned()).chain(distilled).collect()
}

/// The model of a name, in lower case or as published.
///
/// # Errors
/// If there is none.
pub fn named(name: &str) -> Result<ModelConfig, Error> {
    let lower = name.to_lowercase();
    let found = match lower.as_str() {
        "deepseek-v3" | "deepseek-r1" | "deepseek-r1-zero" => Some(presets::r1()),
        "deepseek-v2" => Some(presets::v2()),
        "deepseek-v2-lite" => Some(presets::v2_lite()),
        _ => presets::DISTILLED.iter().find(|known| known.to_lowercase() == lower).and_then(|n| presets::distilled(n)),
    };
    found.ok_or_else(|| Error::unknown("model", name, names().iter().map(String::as_str)))
}

/// A layer: parameters it holds and multiplies.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Layer {
    /// All but the routed experts.
    pub shared: f64,
    /// All routed experts.
    pub experts: f64,
    /// Multiplied with each token.
    pub active: f64,
    /// Whether tokens are sent to experts.
    pub routed: bool,
}

/// A model with all that its costs depend on.
#[derive(Clone, Debug)]
pub struct Model {
    /// The name by which it was asked for.
    pub name: String,
    /// Its configuration.
    pub config: ModelConfig,
    /// Layers of the main model, then those of multi-token prediction.
    pub layers: Vec<Layer>,
    /// How many of the layers are for multi-token prediction.
    pub mtp_layers: usize,
    /// Parameters of the embedding.
    pub embedding: f64,
    /// Parameters that one product with the head multiplies.
    pub head: f64,
}

impl Model {
    /// A model by its configuration.
    pub fn new(name: impl Into<String>, config: ModelConfig) -> Self {
        let mut layers = vec![Layer::default(); config.num_layers_with_mtp()];
        let visited = config.moe.as_ref().map_or(0.0, |m| m.num_experts_per_tok as f64 / m.n_routed_experts as f64);
        for spec in parameters(&config) {
            let Some(layer) = spec.layer.and_then(|layer| layers.get_mut(layer)) else { continue };
            let elements = spec.elements() as f64;
            match spec.role {
                ParamRole::Experts => {
                    layer.experts += elements;
                    layer.active += elements * visited;
                    layer.routed = true;
                }
                ParamRole::Matrix | ParamRole::Router => {
                    layer.shared += elements;
                    layer.active += elements;
                }
                _ => layer.shared += elements,
            }
        }
        let table = (config.vocab_size * config.hidden_size) as f64;
        let mtp_layers = config.num_nextn_predict_layers;
        Self { name: name.into(), mtp_layers, layers, embedding: table, head: table, config }
    }

    /// The model of a name.
    ///
    /// # Errors
    /// As [`named`].
    pub fn named(name: &str) -> Result<Self, Error> {
        Ok(Self::new(name, named(name)?))
    }

    /// Parameters of embedding and head.
    pub fn tables(&self) -> f64 {
        if self.config.tie_word_embeddings { self.embedding } else { self.embedding + self.head }
    }

    /// Parameters of the main model.
    pub fn parameters(&self) -> f64 {
        cost::parameter_counts(&self.config).total as f64
    }

    /// Parameters with those of multi-token prediction.
    pub fn trained_parameters(&self) -> f64 {
        let counts = cost::parameter_counts(&self.config);
        (counts.total + counts.mtp) as f64
    }

    /// FLOPs of training on a token, multi-token prediction not counted, as papers count them.
    ///
    /// # Paper
    /// ISCA25 Table 2
    pub fn train_flops(&self, sequence_tokens: usize) -> f64 {
        cost::train_flops_per_token(&self.config, sequence_tokens).total_causal() as f64
    }

    /// FLOPs of reading a token of a prompt of that length, on average.
    pub fn forward_flops(&self, sequence_tokens: usize) -> f64 {
        self.train_flops(sequence_tokens) / 3.0
    }

    /// FLOPs of the attention core of one layer, per token of a sequence, forward, under a causal mask.
    pub fn attention_flops(&self, sequence_tokens: usize) -> f64 {
        let (qk, v) = self.config.head_dims();
        (self.config.num_attention_heads * (qk + v)) as f64 * (sequence_tokens as f64 + 1.0)
    }

    /// FLOPs of attention of one layer for one written token behind so many others: absorbed, where there are latents.
    ///
    /// # Paper
    /// V3 2.1.1
    pub fn decode_attention_flops(&self, context_tokens: f64) -> f64 {
        let per_key = match &self.config.attention {
            AttentionConfig::Mla(mla) => 2 * mla.kv_lora_rank + mla.qk_rope_head_dim,
            AttentionConfig::Gqa(gqa) => 2 * gqa.head_dim,
        };
        2.0 * (self.config.num_attention_heads * per_key) as f64 * context_tokens
    }

    /// Bytes of the cache per token, in BF16.
    pub fn kv_bytes(&self) -> f64 {
        cost::kv_bytes_per_token(&self.config, Format::Bf16) as f64
    }

    /// Experts that a token visits, those that it shares with all counted as `shared`.
    pub fn experts_per_token(&self) -> (f64, f64) {
        self.config.moe.as_ref().map_or((0.0, 0.0), |m| (m.num_experts_per_tok as f64, m.n_shared_experts as f64))
    }

    /// Routed experts per layer, 1 for a dense model.
    pub fn experts(&self) -> usize {
        self.config.moe.as_ref().map_or(1, |moe| moe.n_routed_experts)
    }

    /// Bytes of the main model's weights in a format: norms and gates in F32, the rest in the format. A row that is not of
    /// whole blocks counts by its bits.
    pub fn weight_bytes(&self, format: Format) -> f64 {
        let per_element = format.block_bytes() as f64 / format.block_elements() as f64;
        let main = parameters(&self.config).into_iter();
        main.filter(|spec| spec.layer.is_none_or(|layer| layer < self.config.num_hidden_layers))
            .map(|spec| spec.elements() as f64 * if spec.role.is_rounded() { per_element } else { 4.0 })
            .sum()
    }

    /// Of [`Model::weight_bytes`], those of routed experts.
    pub fn expert_bytes(&self, format: Format) -> f64 {
        let per_element = format.block_bytes() as f64 / format.block_elements() as f64;
        self.layers[..self.config.num_hidden_layers].iter().map(|layer| layer.experts * per_element).sum()
    }

    /// Bytes of weights that one written token reads, and of those what belongs to routed experts.
    pub fn bytes_per_token(&self, format: Format) -> (f64, f64) {
        let (visited, _) = self.experts_per_token();
        let experts = self.expert_bytes(format);
        let read = experts * visited / self.experts() as f64;
        // Of the embedding a token reads one row, unless it is the head too.
        let per_element = format.block_bytes() as f64 / format.block_elements() as f64;
        let table = if self.config.tie_word_embeddings { 0.0 } else { self.embedding * per_element };
        (self.weight_bytes(format) - experts - table + read, read)
    }

    /// Nodes other than its own that a token is sent to, if experts are spread over so many: the expected number for
    /// experts that are drawn evenly, within the limit of groups.
    ///
    /// # Paper
    /// V3 2.1.2, 3.2.2 (at most 4 nodes)
    pub fn remote_nodes(&self, nodes: f64) -> f64 {
        let Some(moe) = &self.config.moe else { return 0.0 };
        if nodes <= 1.0 {
            return 0.0;
        }
        let drawn = nodes * (1.0 - (1.0 - 1.0 / nodes).powf(moe.num_experts_per_tok as f64));
        let limit = if moe.n_group > 1 { moe.topk_group as f64 * (nodes / moe.n_group as f64).max(1.0) } else { nodes };
        drawn.min(limit) * (1.0 - 1.0 / nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_add_up_to_the_published_parameters() {
        let model = Model::named("deepseek-v3").unwrap();
        let sum: f64 = model.layers[..61].iter().map(|layer| layer.shared + layer.experts).sum();
        assert_eq!(sum + model.embedding + model.head + 7168.0, model.parameters());
        assert_eq!(model.parameters(), 671_026_419_200.0);
        // The multi-token prediction layer with its copies left out: facts of README_WEIGHTS, 11.61 B.
        assert_eq!(model.trained_parameters() - model.parameters(), 11_610_068_224.0);
    }

    #[test]
    fn names_are_those_of_the_presets() {
        for name in names() {
            assert!(named(&name).is_ok(), "{name}");
        }
        assert!(named("DeepSeek-R1-Distill-Qwen-7B").is_ok());
        assert!(named("gpt-2").unwrap_err().to_string().contains("deepseek-v3"));
    }

    #[test]
    fn a_token_of_v3_goes_to_four_nodes_at_most() {
        let model = Model::named("deepseek-v3").unwrap();
        // V3 2.1.2: 8 nodes, at most 4, of which one is its own in half of the cases.
        assert_eq!(model.remote_nodes(8.0), 3.5);
        assert_eq!(model.remote_nodes(1.0), 0.0);
    }

    #[test]
    fn decode_attention_is_that_of_the_absorbed_form() {
        // 128 * 2 * (576 + 512) per cached token and layer: V3 2.1.1 with its sizes.
        assert_eq!(Model::named("deepseek-r1").unwrap().decode_attention_flops(1.0), 278_528.0);
    }

    #[test]
    fn bytes_of_experts_per_token_are_those_of_the_format() {
        // 58 layers x 8 experts x 44.04 M in Q4_K, 4.5 bits: 11.5 GB.
        let (_, experts) = Model::named("deepseek-r1").unwrap().bytes_per_token(Format::Q4K);
        assert!((experts / 1e9 - 11.49).abs() < 0.01, "{experts}");
    }
}
