//! Time of a training step: chunks by what they compute and send, put together by the simulation of the pipeline.

use serde::Serialize;

use crate::Error;
use crate::assumption::Ledger;
use crate::cluster::{Arithmetic, Batch, Cluster, Layout};
use crate::model::Model;
use crate::pipeline::{self, RankTime};
use crate::schedule::{ChunkTimes, Schedule};

/// How fast chunks are computed, as shares of the dense BF16 rate.
///
/// For FP8 they are solved from the phases of V3's step (1F 1.13 s, 1B 1.99 s, 1W 0.48 s, 1F1B 13.95 s) by the counts of
/// DualPipe; DeepSeek's published trace of one pair of chunks has the same durations within 3 % for F and the input part
/// of B. The bubble and the whole step follow, and are compared with the published ones. For BF16 nothing
/// is published by phases; what whole steps reach stands in for all of them.
///
/// # Paper
/// ISCA25 Table 4
#[derive(Clone, Copy, Debug)]
struct Rates {
    forward: f64,
    input: f64,
    weight: f64,
    pair: f64,
}

impl Rates {
    fn assumed(arithmetic: Arithmetic, routed: bool, ledger: &mut Ledger) -> Result<Self, Error> {
        let mut rate = |name: &str, fp8: f64| {
            let (value, source) = match (arithmetic, routed) {
                (Arithmetic::Fp8, _) => {
                    (fp8, "solved from ISCA25 Table 4 (1F, 1B, 1W, 1F1B) by the counts of DualPipe")
                }
                (_, true) => (
                    0.252,
                    "DeepSeek-V2 3.2.3 (2024-05): 172.8K H800 hours per T tokens in BF16; of whole steps, so on the slow side",
                ),
                (_, false) => (
                    0.43,
                    "The Llama 3 Herd of Models, Table 4 (2024-07): 43 % MFU on 8,192 H100 in BF16; of whole steps",
                ),
            };
            ledger.positive(name, value, "of the dense BF16 rate", source)
        };
        Ok(Self {
            forward: rate("forward_rate", 0.635)?,
            input: rate("input_rate", 0.413)?,
            weight: rate("weight_rate", 0.476)?,
            pair: rate("pair_rate", 0.485)?,
        })
    }
}

/// Bytes that one rank sends per step, on average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Links {
    /// Tokens to experts of other nodes and back, forward and backward.
    pub experts_between_nodes: f64,
    /// Tokens to experts of the own node and back.
    pub experts_within_node: f64,
    /// Hidden states and their gradients to neighbours of the pipeline.
    pub pipeline: f64,
    /// Gradients and weights of ranks that hold the same weights.
    pub data: f64,
}

/// A training step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Its duration.
    pub seconds: f64,
    /// How a rank spends the pipeline's part of it, on average.
    pub phases: RankTime,
    /// Seconds of the exchange of gradients and weights and the update, behind the pipeline.
    pub optimizer: f64,
    /// Times of a chunk of a stage that has neither end of the model.
    pub chunk: ChunkTimes,
    /// Whether links, not arithmetic, bound the pairs of chunks.
    pub bound_by_links: bool,
    /// Bytes that one rank sends.
    pub links: Links,
    /// Share of the dense BF16 rate that the model's FLOPs reach; causal attention, multi-token prediction not counted.
    pub mfu: f64,
}

/// The duration of a training step of a layout, by simulation of its pipeline.
///
/// # Units
/// seconds, bytes
///
/// # Paper
/// - V3 3.2 (pipeline, experts, no tensor parallelism); ISCA25 Table 4
/// - Test: crates/plan/tests/published_costs.rs
///
/// # Errors
/// If the schedule does not exist for the layout, or an assumption or a figure is out of range.
pub fn train_step(
    model: &Model,
    cluster: &Cluster,
    layout: &Layout,
    batch: Batch,
    ledger: &mut Ledger,
) -> Result<Step, Error> {
    let rates = Rates::assumed(cluster.arithmetic, model.experts() > 1, ledger)?;
    let work = Work::new(model, cluster, layout, batch)?;
    let stages = layout.stages(model);
    let last = stages.len() - 1;
    let chunks: Vec<Chunk> = (0..stages.len()).map(|s| work.chunk(stages[s].clone(), s == last)).collect();
    let times: Vec<ChunkTimes> = chunks.iter().map(|chunk| chunk.times(rates, cluster.bf16_flops)).collect();
    let (seconds, phases) = pipeline::step(layout.schedule, &times, layout.micro_batches, 0.0)?;
    let (optimizer, data) = work.exchange(ledger)?;
    let seconds = seconds + optimizer;
    let sent =
        2.0 * layout.micro_batches as f64 * chunks.iter().map(|c| c.sent_layers).sum::<f64>() / stages.len() as f64;
    let handovers = if layout.pipeline == 1 { 0.0 } else { 2.0 * layout.micro_batches as f64 };
    let middle = stages.len() / 2;
    Ok(Step {
        seconds,
        phases,
        optimizer,
        chunk: times[middle],
        bound_by_links: 2.0 * chunks[middle].link_seconds >= times[middle].pair,
        links: Links {
            experts_between_nodes: sent * work.between_nodes,
            experts_within_node: sent * work.within_node,
            pipeline: handovers * work.handover_bytes,
            data,
        },
        mfu: batch.tokens() * model.train_flops(batch.sequence_tokens)
            / (seconds * cluster.count as f64 * cluster.bf16_flops),
    })
}

/// What a micro-batch costs in one stage.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    /// FLOPs of products with weights, forward.
    linear: f64,
    /// FLOPs of attention, forward.
    attention: f64,
    /// Layers whose tokens go to experts.
    sent_layers: f64,
    /// Seconds of one way through those layers: tokens to experts and back.
    link_seconds: f64,
}

impl Chunk {
    fn times(&self, rates: Rates, bf16_flops: f64) -> ChunkTimes {
        let seconds = |flops: f64, rate: f64| flops / (rate * bf16_flops);
        let Chunk { linear, attention, link_seconds, .. } = *self;
        ChunkTimes {
            forward: seconds(linear + attention, rates.forward) + link_seconds,
            input: seconds(linear + 2.0 * attention, rates.input) + link_seconds,
            weight: seconds(linear, rates.weight),
            pair: seconds(3.0 * (linear + attention), rates.pair).max(2.0 * link_seconds),
        }
    }
}

struct Work<'a> {
    model: &'a Model,
    layout: &'a Layout,
    cluster: &'a Cluster,
    batch: Batch,
    /// Bytes of one micro-batch and one layer to experts and back.
    between_nodes: f64,
    within_node: f64,
    layer_link_seconds: f64,
    handover_bytes: f64,
}

impl<'a> Work<'a> {
    fn new(model: &'a Model, cluster: &'a Cluster, layout: &'a Layout, batch: Batch) -> Result<Self, Error> {
        let tokens = batch.sequence_tokens as f64;
        let width = model.config.hidden_size as f64;
        // Out in FP8, back in BF16 (V3 3.3.3); in BF16 both ways otherwise.
        let bytes = if cluster.arithmetic == Arithmetic::Fp8 { 3.0 } else { 4.0 } * width;
        let nodes = layout.expert.div_ceil(cluster.per_node) as f64;
        let (visited, _) = model.experts_per_token();
        let between_nodes = tokens * bytes * model.remote_nodes(nodes);
        let others = 1.0 - 1.0 / layout.expert.min(cluster.per_node) as f64;
        let within_node = tokens * bytes * visited * others;
        let seconds = |bytes: f64, link: Option<f64>| link.map_or(0.0, |link| bytes / link);
        let layer_link_seconds = seconds(between_nodes, cluster.scale_out).max(seconds(within_node, cluster.scale_up));
        let handover_bytes = tokens * 2.0 * width;
        Ok(Self { model, layout, cluster, batch, between_nodes, within_node, layer_link_seconds, handover_bytes })
    }

    /// A micro-batch in one stage; the last has the head, and multi-token prediction with the head once more.
    fn chunk(&self, layers: std::ops::Range<usize>, last: bool) -> Chunk {
        let (model, tokens) = (self.model, self.batch.sequence_tokens as f64);
        let mut layers: Vec<usize> = layers.collect();
        let mut heads = 0.0;
        if last {
            layers.extend(model.layers.len() - model.mtp_layers..model.layers.len());
            heads = 1.0 + model.mtp_layers as f64;
        }
        let active: f64 = layers.iter().map(|&layer| model.layers[layer].active).sum();
        let sent_layers = layers.iter().filter(|&&layer| model.layers[layer].routed).count() as f64;
        let attention = model.attention_flops(self.batch.sequence_tokens);
        Chunk {
            linear: 2.0 * tokens * (active + heads * model.head),
            attention: tokens * attention * layers.len() as f64,
            sent_layers,
            link_seconds: sent_layers * self.layer_link_seconds,
        }
    }

    /// Seconds and bytes of the exchange between ranks with the same weights: gradients one way, weights the other.
    fn exchange(&self, ledger: &mut Ledger) -> Result<(f64, f64), Error> {
        let gradient = ledger.positive("gradient_bytes", 4.0, "bytes per parameter", "V3 3.3.3: FP32")?;
        let weight =
            ledger.positive("weight_bytes", 2.0, "bytes per parameter", "a BF16 copy; V3 3.3.3 does not say")?;
        let per_rank = self.layout.pipeline as f64 / self.layout.stages_per_rank() as f64;
        let sum = |of: fn(&crate::model::Layer) -> f64| self.model.layers.iter().map(of).sum::<f64>() / per_rank;
        let shared = sum(|layer| layer.shared) + self.model.tables() / per_rank;
        let experts = sum(|layer| layer.experts) / self.layout.expert as f64;
        let others = |copies: usize| 1.0 - 1.0 / copies as f64;
        let (shared_copies, expert_copies) = self.layout.copies();
        let bytes = (gradient + weight) * (shared * others(shared_copies) + experts * others(expert_copies));
        let Some(link) = self.cluster.link(self.cluster.count).filter(|_| bytes > 0.0) else {
            return Ok((0.0, bytes));
        };
        let rate = ledger.positive(
            "exchange_rate",
            EXCHANGE_RATE,
            "times the slowest link",
            "solved from ISCA25 Table 4 (optimizer, 0.29 s); above 1, as the ranks of a node first add among themselves",
        )?;
        Ok((bytes / (rate * link), bytes))
    }
}

/// By how much the exchange of V3's step is faster than its slowest link.
const EXCHANGE_RATE: f64 = 1.3;

/// The fastest layout of those that fit, and what each needs; the schedule may be given.
///
/// # Errors
/// If no layout fits; the message has the one that comes nearest.
pub fn best_layout(
    model: &Model,
    cluster: &Cluster,
    batch: Batch,
    schedule: Option<Schedule>,
    ledger: &mut Ledger,
) -> Result<(Layout, Step, crate::memory::TrainMemory), Error> {
    let mut best: Option<(Layout, Step, crate::memory::TrainMemory)> = None;
    let mut nearest: Option<(Layout, crate::memory::TrainMemory)> = None;
    for layout in Layout::candidates(cluster.count, batch, model) {
        // ZB1P is asked for by name: DualPipe overlaps links too, and 1F1B holds fewer weights.
        let wanted = schedule.map_or(layout.schedule != Schedule::Zb1p, |asked| layout.schedule == asked);
        if layout.pipeline > 1 && !wanted {
            continue;
        }
        let memory = crate::memory::train_memory(model, cluster, &layout, batch, ledger)?;
        if memory.total() > cluster.memory {
            if nearest.as_ref().is_none_or(|(_, least)| memory.total() < least.total()) {
                nearest = Some((layout, memory));
            }
            continue;
        }
        let step = train_step(model, cluster, &layout, batch, ledger)?;
        if best.as_ref().is_none_or(|(_, fastest, _)| step.seconds < fastest.seconds) {
            best = Some((layout, step, memory));
        }
    }
    best.ok_or_else(|| {
        let (part, count) = (&cluster.part.name, cluster.count);
        let name = &model.name;
        Error::Impossible(match nearest {
            Some((layout, memory)) => format!(
                "{name} cannot be trained on {count} x {part}: the leanest layout (pipeline {}, experts over {}) needs {:.1} GB \
                 of {:.1}, most of it {}; take more of them or a part with more memory",
                layout.pipeline,
                layout.expert,
                memory.total() / 1e9,
                cluster.memory / 1e9,
                memory.largest()
            ),
            None => format!(
                "{name}: a batch of {} sequences cannot be shared out over {count} ranks; choose a multiple of a divisor \
                 of the ranks",
                batch.sequences
            ),
        })
    })
}
