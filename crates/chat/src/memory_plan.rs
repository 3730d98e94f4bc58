//! Memory that a model takes with a context, the longest context that fits, and the weights that a token meets: all from the
//! headers of its files. What loads the model uses the same functions as what only reports.

use std::collections::BTreeMap;

use minke_model::Transformer;
use minke_spec::config::AttentionConfig;
use minke_spec::cost::kv_bytes_per_token;
use minke_spec::{Format, ModelConfig};
use minke_tensor::{Device, Dtype, PAGE_TOKENS, StoredWeight};
use minke_weights::{Archive, Component, ComponentBytes, Packed};
use serde::Serialize;

use crate::units::gigabytes;
use crate::{Error, Result};

/// Prompt tokens of a step: Ctrl-C waits for one step at most.
pub const CHUNK_TOKENS: usize = 256;
/// The shortest context with which it makes sense to start, in tokens.
pub const MIN_CONTEXT: usize = 256;
/// How the engine keeps keys, values and latents of a conversation.
pub const CACHE_DTYPE: Dtype = Dtype::Bf16;

/// Bytes of the program, its threads and what it links to.
const PROGRAM: u64 = 9 << 20;
/// Bytes of an id of the vocabulary: its text, its merges, and the tables that find them.
const TEXT_PER_ID: u64 = 420;
/// Bytes around one that is asked for which the system maps at once.
const FAULT_AROUND: f64 = 65536.0;

/// What a model takes in memory, in bytes, when a sequence has filled the context.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemoryPlan {
    /// Everything.
    pub total: u64,
    /// Weights that were read, with what small ones become.
    pub weights: u64,
    /// Keys and values, or latents, of all positions.
    pub cache: u64,
    /// What is computed of a chunk of the prompt.
    pub work: u64,
    /// What turns text into ids and back.
    pub vocabulary: u64,
    /// The program itself.
    pub program: u64,
}

/// Plans the memory of a model from its configuration and the bytes of its components.
pub struct MemoryPlanner<'a> {
    archive: &'a Archive,
    components: BTreeMap<(Component, &'a str), ComponentBytes>,
    /// Ids of the vocabulary.
    ids: u64,
    /// Sequences that may sample in one step.
    max_running: usize,
    layout: Layout,
}

/// How rows of weights lie when products read them.
enum Layout {
    /// As in the model's files.
    Mapped,
    /// Interleaved in memory.
    Interleaved,
    /// Interleaved in a packed copy.
    Packed(Packed),
}

impl<'a> MemoryPlanner<'a> {
    /// What the headers say.
    pub fn new(archive: &'a Archive) -> Self {
        let listed = archive.metadata.as_ref().and_then(|metadata| metadata.list("tokenizer.ggml.tokens").ok()?);
        let ids = listed.map_or(archive.config.vocab_size, <[_]>::len) as u64;
        Self { archive, components: archive.components(), ids, max_running: 1, layout: Layout::Mapped }
    }

    /// Plans for so many bytes: where the weights with their rows interleaved take half of them at most, they are so in memory,
    /// otherwise they stay mapped.
    #[must_use]
    pub fn for_memory(self, have: u64) -> Self {
        let interleaved = Self { layout: Layout::Interleaved, ..self };
        let becomes = |((_, format), bytes): (&(Component, &str), &ComponentBytes)| {
            interleaved.interleaved(format, bytes.stored).unwrap_or(bytes.stored)
        };
        let fits = interleaved.components.iter().map(becomes).sum::<u64>() <= have / 2;
        if fits { interleaved } else { Self { layout: Layout::Mapped, ..interleaved } }
    }

    /// Plans with a packed copy, if there is one: it is mapped.
    #[must_use]
    pub fn with_packed(self, packed: Option<Packed>) -> Self {
        Self { layout: packed.map_or(self.layout, Layout::Packed), ..self }
    }

    /// Loads the model as it was planned.
    ///
    /// # Errors
    /// If a tensor is missing, of another shape or of a format that is not supported.
    pub fn load(&self, device: &Device) -> Result<Transformer> {
        Ok(match &self.layout {
            Layout::Mapped => self.archive.load(device)?,
            Layout::Interleaved => self.archive.load_interleaved(device)?,
            Layout::Packed(packed) => self.archive.load_packed(device, packed)?,
        })
    }

    /// Sets how many requests are worked on at once; each has a row of logits.
    #[must_use]
    pub fn with_max_running(self, max_running: usize) -> Self {
        Self { max_running, ..self }
    }

    /// The bytes in the files by what they do.
    pub fn components(&self) -> BTreeMap<&'static str, u64> {
        let mut components = BTreeMap::new();
        for ((component, _), bytes) in &self.components {
            *components.entry(component.name()).or_insert(0) += bytes.stored;
        }
        components
    }

    /// What a model takes with a context of so many tokens.
    pub fn plan(&self, context: usize) -> MemoryPlan {
        let config = &self.archive.config;
        let weights = self.resident_weights(context);
        let per_layer = kv_bytes_per_token(config, CACHE_DTYPE.format()) / config.num_hidden_layers;
        // One module at most makes drafts.
        let layers = config.num_hidden_layers + config.num_nextn_predict_layers.min(1);
        let cache = (context.next_multiple_of(PAGE_TOKENS) * per_layer * layers) as u64;
        // Three rows more while one is sampled from.
        let logits = 4 * (self.max_running as u64 + 3) * config.vocab_size as u64;
        let rows = CHUNK_TOKENS.min(context).max(self.max_running) as u64;
        let work = rows * work_per_token(config) + logits;
        let vocabulary = TEXT_PER_ID * self.ids;
        let total = weights + cache + work + vocabulary + PROGRAM;
        MemoryPlan { total, weights, cache, work, vocabulary, program: PROGRAM }
    }

    /// The longest context that fits into so many bytes, in tokens, at most the model's own; nothing if none fits.
    pub fn longest_context(&self, memory: u64) -> Option<usize> {
        let fits = |pages: usize| self.plan(pages * PAGE_TOKENS).total <= memory;
        let most = self.archive.config.max_position_embeddings;
        let (mut fitting, mut beyond) = (0, most.div_ceil(PAGE_TOKENS) + 1);
        while beyond - fitting > 1 {
            let middle = fitting.midpoint(beyond);
            if fits(middle) { fitting = middle } else { beyond = middle }
        }
        (fitting > 0).then_some((fitting * PAGE_TOKENS).min(most))
    }

    /// The bytes of weights that are in memory after a sequence of so many tokens.
    fn resident_weights(&self, tokens: usize) -> u64 {
        let config = &self.archive.config;
        // What so many draws touch, each of which touches a share.
        let touched = |share: f64| 1.0 - (1.0 - share.min(1.0)).powf(tokens as f64);
        let mut sum = 0.0;
        for ((component, format), bytes) in &self.components {
            let mut stored = bytes.stored as f64;
            let share = match component {
                // What becomes f32 is read whole.
                _ if bytes.decoded > 0 => 1.0,
                // Token by token, drafts come to all of it.
                Component::Mtp => 1.0,
                Component::Embedding if !config.tie_word_embeddings => touched(FAULT_AROUND / stored.max(1.0)),
                component => {
                    let interleaved = self.interleaved(format, bytes.stored);
                    stored = interleaved.map_or(stored, |bytes| bytes as f64);
                    let in_memory = interleaved.is_some() && matches!(self.layout, Layout::Interleaved);
                    if in_memory { 1.0 } else { touched(visited(config, *component)) }
                }
            };
            sum += stored * share + bytes.decoded as f64;
        }
        sum as u64
    }

    /// What bytes of a format become, if their rows are interleaved.
    fn interleaved(&self, format: &str, bytes: u64) -> Option<u64> {
        Format::from_name(format)
            .filter(|_| !matches!(self.layout, Layout::Mapped))
            .and_then(|format| StoredWeight::interleaved_bytes(format, bytes))
    }

    /// The bytes of weights that one token meets, by format: of all layers, and of the product that gives logits.
    pub fn met_by_a_token(&self) -> [BTreeMap<Format, f64>; 2] {
        let config = &self.archive.config;
        let [mut layers, mut head] = [const { BTreeMap::new() }; 2];
        for ((component, name), bytes) in &self.components {
            let share = visited(config, *component);
            if let Some(format) = Format::from_name(name).filter(|_| share > 0.0) {
                let to = match component {
                    Component::Embedding | Component::Head => &mut head,
                    _ => &mut layers,
                };
                *to.entry(format).or_default() += bytes.stored as f64 * share;
            }
        }
        [layers, head]
    }

    /// Whether products read interleaved rows, where a format has them.
    pub fn is_interleaved(&self) -> bool {
        !matches!(self.layout, Layout::Mapped)
    }

    /// The context that a model gets in so much memory: what was asked for, else the longest that fits.
    ///
    /// # Errors
    /// If that does not fit, with what to change.
    pub fn context(&self, have: u64, asked: Option<usize>) -> Result<usize> {
        let most = self.archive.config.max_position_embeddings;
        let longest = self.longest_context(have).unwrap_or(0);
        let least = asked.unwrap_or(MIN_CONTEXT.min(most));
        if longest >= least {
            return Ok(asked.unwrap_or(longest));
        }
        let plan = self.plan(least);
        let room = have.saturating_sub(plan.total - plan.weights);
        let advice = if longest >= MIN_CONTEXT.min(most) {
            format!("{longest} tokens of context fit; take fewer, or free memory")
        } else if room > 0 {
            format!("free memory, or take a quantization whose weights have at most {}", gigabytes(room))
        } else {
            "free memory, or take a smaller model".into()
        };
        Err(Error::DoesNotFit {
            path: self.archive.path.clone(),
            context: least,
            needed: plan.total,
            weights: plan.weights,
            cache: plan.cache,
            available: have,
            advice,
        })
    }
}

/// The share of a component's bytes that one token visits.
fn visited(config: &ModelConfig, component: Component) -> f64 {
    match (component, &config.moe) {
        (Component::Embedding, _) if !config.tie_word_embeddings => 0.0,
        (Component::Experts, Some(moe)) => moe.num_experts_per_tok as f64 / moe.n_routed_experts as f64,
        (Component::Mtp | Component::Unread, _) => 0.0,
        _ => 1.0,
    }
}

/// The bytes that a token of a chunk takes while a layer computes: what the widest of its operations hold at once.
fn work_per_token(config: &ModelConfig) -> u64 {
    let (width, heads) = (config.hidden_size, config.num_attention_heads);
    let (key, value) = config.head_dims();
    let attention = match &config.attention {
        AttentionConfig::Gqa(_) => 4 * heads * key,
        AttentionConfig::Mla(mla) => heads * (3 * key + value + 3 * mla.kv_lora_rank + mla.qk_rope_head_dim),
    };
    let dense = config.intermediate_size;
    let experts =
        config.moe.as_ref().map_or(0, |moe| moe.num_experts_per_tok * (2 * width + 3 * moe.moe_intermediate_size));
    // A quarter more for the codes that inputs of products become, and for sizes that buffers are rounded to.
    5 * (6 * width + attention + (3 * dense).max(experts)) as u64
}
