//! Memory of one rank in training, by what takes it.

use minke_spec::config::AttentionConfig;
use serde::Serialize;

use crate::Error;
use crate::assumption::Ledger;
use crate::cluster::{Batch, Cluster, Layout};
use crate::model::Model;

/// Bytes of the fullest rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct TrainMemory {
    /// Weights as they are multiplied.
    pub weights: f64,
    /// Gradients.
    pub gradients: f64,
    /// Master weights and moments, shared out over the ranks that hold the same weights.
    pub optimizer: f64,
    /// What the forward keeps for the backward.
    pub activations: f64,
    /// Logits and their gradients on the rank with the head.
    pub logits: f64,
    /// What the runtime and the buffers of links take.
    pub reserve: f64,
}

impl TrainMemory {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Its parts by name.
    pub fn parts(&self) -> [(&'static str, f64); 6] {
        [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("logits", self.logits),
            ("reserve", self.reserve),
        ]
    }

    /// The largest part.
    pub fn largest(&self) -> &'static str {
        let parts = self.parts();
        parts.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map_or("", |(name, _)| name)
    }
}

/// Bytes per element of what is kept for training.
#[derive(Clone, Copy, Debug)]
struct Bytes {
    weight: f64,
    gradient: f64,
    state: f64,
    reserve: f64,
}

impl Bytes {
    fn assumed(ledger: &mut Ledger) -> Result<Self, Error> {
        Ok(Self {
            weight: ledger.positive(
                "weight_bytes",
                2.0,
                "bytes per parameter",
                "a BF16 copy; V3 3.3.3 does not say",
            )?,
            gradient: ledger.positive("gradient_bytes", 4.0, "bytes per parameter", "V3 3.3.3: FP32")?,
            state: ledger.positive(
                "optimizer_bytes",
                8.0,
                "bytes per parameter",
                "V3 3.3.3: master weights in FP32, two moments in BF16, shared out (ZeRO-1, V3 3.2)",
            )?,
            reserve: ledger.not_negative(
                "reserve_bytes",
                4e9,
                "bytes",
                "assumed for runtime and buffers of links; not published",
            )?,
        })
    }
}

/// The memory of the fullest rank.
///
/// # Units
/// bytes
///
/// # Paper
/// V3 3.2.3 (what is recomputed, what is kept in FP8), 3.3.3
///
/// # Errors
/// If an assumption is out of range.
pub fn train_memory(
    model: &Model,
    cluster: &Cluster,
    layout: &Layout,
    batch: Batch,
    ledger: &mut Ledger,
) -> Result<TrainMemory, Error> {
    let bytes = Bytes::assumed(ledger)?;
    let stages = layout.stages(model);
    let last = stages.len() - 1;
    let fp8 = cluster.arithmetic == crate::cluster::Arithmetic::Fp8;
    let stage_memory = |stage: usize| {
        let (mut shared, mut experts, mut kept) = (0.0, 0.0, 0.0);
        let mut layers: Vec<usize> = stages[stage].clone().collect();
        if stage == last {
            layers.extend(model.layers.len() - model.mtp_layers..model.layers.len());
        }
        for layer in layers {
            shared += model.layers[layer].shared;
            experts += model.layers[layer].experts / layout.expert as f64;
            kept += kept_bytes(model, layer, fp8);
        }
        // Embedding and head: on one rank where both ends of the pipeline are.
        if stage == 0 {
            shared += model.embedding;
        }
        if stage == last && !(model.config.tie_word_embeddings && stage == 0) {
            shared += model.head;
        }
        let kept = kept * batch.sequence_tokens as f64;
        let (shared_copies, expert_copies) = layout.copies();
        let state = bytes.state * (shared / shared_copies as f64 + experts / expert_copies as f64);
        let logits =
            if stage == last { batch.sequence_tokens as f64 * model.config.vocab_size as f64 * 6.0 } else { 0.0 };
        let parameters = shared + experts;
        (bytes.weight * parameters, bytes.gradient * parameters, state, kept, logits)
    };
    let mut fullest = TrainMemory::default();
    for rank in 0..layout.pipeline {
        let mirror = layout.pipeline - 1 - rank;
        let held: Vec<usize> = if layout.stages_per_rank() == 2 { vec![rank, mirror] } else { vec![rank] };
        let mut memory = TrainMemory { reserve: bytes.reserve, ..TrainMemory::default() };
        let mut kept_per_chunk = 0.0f64;
        for &stage in &held {
            let (weights, gradients, state, kept, logits) = stage_memory(stage);
            memory.weights += weights;
            memory.gradients += gradients;
            memory.optimizer += state;
            memory.logits += logits;
            kept_per_chunk += kept / held.len() as f64;
        }
        let chunks = layout.schedule.activations(layout.pipeline).min(layout.micro_batches * held.len());
        memory.activations = kept_per_chunk * chunks as f64;
        if memory.total() > fullest.total() {
            fullest = memory;
        }
    }
    Ok(fullest)
}

/// What a layer keeps of each token for the backward, with what V3 recomputes (norms, up-projections of MLA, SwiGLU) left out.
///
/// # Units
/// bytes per token
///
/// # Paper
/// V3 3.2.3, 3.3.3: inputs of attention and of experts, latents, the output of attention in 12 bits, inputs of SwiGLU in FP8
fn kept_bytes(model: &Model, layer: usize, fp8: bool) -> f64 {
    let config = &model.config;
    let (width, heads) = (config.hidden_size as f64, config.num_attention_heads as f64);
    let (activation, attention_out) = if fp8 { (1.0, 1.5) } else { (2.0, 2.0) };
    // FlashAttention keeps one number of FP32 per head.
    let attention = match &config.attention {
        AttentionConfig::Mla(mla) => {
            let latents = mla.q_lora_rank.unwrap_or(0) + mla.kv_lora_rank + mla.qk_rope_head_dim;
            2.0 * latents as f64 + attention_out * heads * mla.v_head_dim as f64 + 4.0 * heads
        }
        AttentionConfig::Gqa(gqa) => {
            let projected = (config.num_attention_heads + 2 * gqa.num_key_value_heads) * gqa.head_dim;
            2.0 * projected as f64 + attention_out * heads * gqa.head_dim as f64 + 4.0 * heads
        }
    };
    let feed_forward = match &config.moe {
        Some(moe) if config.is_moe_layer(layer) => {
            let visited = moe.num_experts_per_tok as f64;
            let hidden = 2.0 * moe.moe_intermediate_size as f64 * (visited + moe.n_shared_experts as f64);
            activation * (visited * width + hidden)
        }
        _ => activation * 2.0 * config.intermediate_size as f64,
    };
    // The inputs of both halves of the block, in BF16.
    4.0 * width + attention + feed_forward
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::Hardware;

    fn memory(ranks: usize) -> TrainMemory {
        let (hardware, mut ledger) = (Hardware::known().unwrap(), Ledger::default());
        let cluster = Cluster::new(hardware.part("h800").unwrap(), ranks, None, &mut ledger).unwrap();
        let model = Model::named("deepseek-v3").unwrap();
        let batch = Batch { sequences: 15_360, sequence_tokens: 4096 };
        let layout = Layout::of_v3(ranks, batch, &model).unwrap();
        train_memory(&model, &cluster, &layout, batch, &mut ledger).unwrap()
    }

    #[test]
    fn v3_fits_where_it_was_trained_and_not_on_a_quarter_of_it() {
        // V3 3.1, 3.2: 2,048 H800 of 80 GB, without tensor parallelism.
        let (all, quarter) = (memory(2048), memory(512));
        assert!(all.total() < 84.9e9, "{all:?}");
        assert!(all.total() > 40e9, "{all:?}");
        assert!(quarter.total() > 84.9e9 || quarter.weights > 1.5 * all.weights, "{quarter:?}");
    }

    #[test]
    fn a_kept_token_of_v3_by_hand() {
        let model = Model::named("deepseek-v3").unwrap();
        // 4 x 7168 + 2 x (1536 + 512 + 64) + 1.5 x 16384 + 4 x 128 + 8 x 7168 + 2 x 2048 x 9 = 152,192
        assert_eq!(kept_bytes(&model, 3, true), 28_672.0 + 4_224.0 + 24_576.0 + 512.0 + 57_344.0 + 36_864.0);
    }
}
