//! The cache of earlier tokens: per layer either keys and values of heads, or MLA's latents.

use minke_spec::ModelConfig;
use minke_spec::config::AttentionConfig;
use minke_tensor::{Device, Dtype, Pages};

/// The form in which MLA computes with cached tokens. A fact of a cache's whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MlaForm {
    /// Keys and values of every head, as in training: the sampler's log-probabilities are the trainer's to the bit.
    Expanded,
    /// Latents only, with `kv_b_proj` absorbed into queries and outputs: R1's 576 values per token and layer.
    Absorbed,
}

/// Pages of all layers; page p of every layer belongs to the same tokens.
pub struct KvCache {
    /// Those of the main model, and behind them that of multi-token prediction, if it has one.
    layers: Vec<Pages>,
    num_hidden_layers: usize,
    form: MlaForm,
    dtype: Dtype,
}

impl KvCache {
    /// A cache of `pages` pages of 32 tokens for the main model's layers, whose values are kept as `dtype`.
    pub fn new(device: &Device, config: &ModelConfig, pages: usize, form: MlaForm, dtype: Dtype) -> Self {
        let num_hidden_layers = config.num_hidden_layers;
        let layers = (0..num_hidden_layers).map(|_| layer(device, config, pages, form, dtype)).collect();
        Self { layers, num_hidden_layers, form, dtype }
    }

    /// Adds a layer for [`Transformer::forward_mtp`](crate::Transformer::forward_mtp). What it holds is not part of a page
    /// that is exported.
    #[must_use]
    pub fn with_mtp(mut self, device: &Device, config: &ModelConfig) -> Self {
        self.layers.push(layer(device, config, self.pages(), self.form, self.dtype));
        self
    }

    /// The form of MLA that the cache serves.
    pub fn form(&self) -> MlaForm {
        self.form
    }

    /// How keys, values and latents are kept.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The number of pages.
    pub fn pages(&self) -> usize {
        self.layers.first().map_or(0, Pages::count)
    }

    /// The bytes of one page over the main model's layers.
    pub fn page_bytes(&self) -> usize {
        self.layers[..self.num_hidden_layers].iter().map(Pages::page_bytes).sum()
    }

    /// Copies one page onto another, in all layers.
    pub fn copy_page(&mut self, device: &Device, from: u32, to: u32) {
        for layer in &mut self.layers {
            layer.copy_page(device, from as usize, to as usize);
        }
    }

    /// The contents of one page, layer by layer of the main model: [`KvCache::page_bytes`] bytes, as they lie in memory.
    pub fn export_page(&self, page: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.page_bytes());
        self.layers[..self.num_hidden_layers].iter().for_each(|layer| layer.export_page(page as usize, &mut bytes));
        bytes
    }

    /// Makes a page hold what [`KvCache::export_page`] gave.
    ///
    /// # Panics
    /// If there are not exactly [`KvCache::page_bytes`] bytes.
    pub fn import_page(&mut self, page: u32, bytes: &[u8]) {
        let mut rest = bytes;
        for layer in &mut self.layers[..self.num_hidden_layers] {
            let (own, behind) = rest.split_at(layer.page_bytes());
            layer.import_page(page as usize, own);
            rest = behind;
        }
        assert!(rest.is_empty(), "the contents of one page");
    }

    /// The pages of one layer.
    pub(crate) fn layer(&mut self, layer: usize) -> &mut Pages {
        &mut self.layers[layer]
    }
}

/// The pages of one layer, empty.
fn layer(device: &Device, config: &ModelConfig, pages: usize, form: MlaForm, dtype: Dtype) -> Pages {
    let heads = config.num_attention_heads;
    match (&config.attention, form) {
        (AttentionConfig::Gqa(gqa), _) => {
            Pages::keys_and_values(device, dtype, pages, gqa.num_key_value_heads, gqa.head_dim, gqa.head_dim)
        }
        (AttentionConfig::Mla(mla), MlaForm::Expanded) => {
            Pages::keys_and_values(device, dtype, pages, heads, mla.qk_head_dim(), mla.v_head_dim)
        }
        (AttentionConfig::Mla(mla), MlaForm::Absorbed) => {
            Pages::latents(device, dtype, pages, mla.kv_lora_rank + mla.qk_rope_head_dim, mla.kv_lora_rank)
        }
    }
}
