//! Reading and writing of tokens by roofline: what memory, arithmetic and links allow, and the share of it that a service
//! was measured to reach.

use minke_spec::Format;
use serde::Serialize;

use crate::Error;
use crate::assumption::Ledger;
use crate::hardware::Part;
use crate::model::Model;

/// The figures of ranks that serve one copy of a model.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The part.
    pub part: Part,
    /// Ranks over which the experts are spread; each holds everything else and has users of its own.
    pub ranks: usize,
    memory: f64,
    bandwidth: f64,
    bf16: f64,
    fp8: Option<f64>,
    per_node: usize,
    link: Option<f64>,
    /// Copies of heavy experts, all ranks together.
    redundant: f64,
}

impl Unit {
    /// So many ranks of a part.
    ///
    /// # Errors
    /// If a figure that is needed has no source.
    pub fn new(part: &Part, ranks: usize, model: &Model, ledger: &mut Ledger) -> Result<Self, Error> {
        if ranks == 0 || ranks > 1 << 16 {
            return Err(Error::invalid("ranks", ranks, "must lie between 1 and 65536"));
        }
        let per_node = if ranks == 1 { 1 } else { ledger.figure(part, "parts_per_node")? as usize };
        let per_node = per_node.clamp(1, ranks);
        let routed = model.experts() > 1;
        let link = match (ranks, routed) {
            (1, _) | (_, false) => None,
            _ if ranks > per_node => Some(ledger.figure(part, "scale_out_bandwidth")?),
            _ => Some(ledger.figure(part, "scale_up_bandwidth")?),
        };
        let redundant = if routed && ranks > per_node {
            ledger.not_negative(
                "redundant_experts",
                32.0,
                "experts",
                "DeepSeek, inference system overview (2025-02)",
            )?
        } else {
            0.0
        };
        let fp8 = if ledger.has(part, "fp8_flops") { Some(ledger.figure(part, "fp8_flops")?) } else { None };
        Ok(Self {
            part: part.clone(),
            ranks,
            memory: ledger.figure(part, "memory_bytes")?,
            bandwidth: ledger.figure(part, "memory_bandwidth")?,
            bf16: ledger.figure(part, "bf16_flops")?,
            fp8,
            per_node,
            link,
            redundant,
        })
    }

    /// Bytes of weights on one rank: experts shared out, the rest whole, in FP8 where the part has it.
    ///
    /// # Paper
    /// V3 3.4 (expert parallelism, attention by data parallelism)
    pub fn weight_bytes(&self, model: &Model) -> f64 {
        let format = if self.fp8.is_some() { Format::F8E4M3 } else { Format::Bf16 };
        let experts = model.expert_bytes(format);
        let slots = (model.experts() as f64 + self.redundant) / model.experts() as f64;
        // Embedding and head stay in BF16.
        let wider = if self.fp8.is_some() { model.embedding + model.head } else { 0.0 };
        model.weight_bytes(format) - experts + wider + experts * slots / self.ranks as f64
    }

    /// Seconds per token of products with all weights that a token visits.
    fn linear_seconds(&self, model: &Model) -> f64 {
        let layers: f64 = model.layers[..model.config.num_hidden_layers].iter().map(|layer| layer.active).sum();
        2.0 * layers / self.fp8.unwrap_or(self.bf16) + 2.0 * model.head / self.bf16
    }

    /// Seconds per token of the way to experts and back, through all layers, to so many places.
    fn link_seconds(&self, model: &Model, places: f64) -> f64 {
        let bytes = if self.fp8.is_some() { 3.0 } else { 4.0 } * model.config.hidden_size as f64;
        let layers = model.layers[..model.config.num_hidden_layers].iter().filter(|layer| layer.routed).count();
        self.link.map_or(0.0, |link| layers as f64 * bytes * places / link)
    }
}

/// What bounds a number of tokens per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// Products.
    Arithmetic,
    /// Reading weights and cache.
    Memory,
    /// Tokens on their way to experts.
    Links,
}

/// Reading of prompts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Prefill {
    /// Tokens per second and rank that the roofline allows.
    pub roofline: f64,
    /// What bounds it.
    pub bound: Bound,
    /// Tokens per second and rank that are expected, those found in the cache not counted.
    pub computed: f64,
    /// The same with those found in the cache.
    pub with_hits: f64,
}

/// The rate at which prompts are read.
///
/// # Units
/// tokens per second and rank
///
/// # Paper
/// - V3 3.4.1
/// - Test: crates/plan/tests/published_costs.rs
///
/// # Errors
/// If an assumption is out of range.
pub fn prefill(model: &Model, unit: &Unit, prompt_tokens: usize, ledger: &mut Ledger) -> Result<Prefill, Error> {
    let attention = model.attention_flops(prompt_tokens) * model.config.num_hidden_layers as f64 / unit.bf16;
    let arithmetic = unit.linear_seconds(model) + attention;
    let nodes = unit.ranks.div_ceil(unit.per_node) as f64;
    let places = if nodes > 1.0 { model.remote_nodes(nodes) } else { model.experts_per_token().0 };
    let links = unit.link_seconds(model, places);
    let (seconds, bound) = if links > arithmetic { (links, Bound::Links) } else { (arithmetic, Bound::Arithmetic) };
    let share = ledger.share(
        "prefill_share",
        PREFILL_SHARE,
        "of the roofline",
        "solved from DeepSeek, inference system overview (2025-02): 73.7k tokens/s per node, mean of a day, 56.3 % hits",
    )?;
    let hits = ledger.not_negative(
        "cache_hits",
        0.563,
        "of prompt tokens",
        "DeepSeek, inference system overview (2025-02)",
    )?;
    if hits >= 1.0 {
        return Err(Error::invalid("cache_hits", hits, "must be a share below 1"));
    }
    let computed = share / seconds;
    Ok(Prefill { roofline: 1.0 / seconds, bound, computed, with_hits: computed / (1.0 - hits) })
}

/// Shares of the roofline that DeepSeek's service reached on average, solved from its published rates.
const PREFILL_SHARE: f64 = 0.2711;
/// As [`PREFILL_SHARE`].
const DECODE_SHARE: f64 = 0.3486;

/// Writing of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Decode {
    /// Users per rank.
    pub users: f64,
    /// Users per rank that fit beside the weights.
    pub most_users: f64,
    /// Bytes of cache of one user.
    pub bytes_per_user: f64,
    /// Bytes of weights on a rank.
    pub weight_bytes: f64,
    /// Seconds of a step that the roofline allows.
    pub roofline: f64,
    /// What bounds it.
    pub bound: Bound,
    /// Seconds of a step that are expected: what a user waits for a token.
    pub seconds: f64,
    /// Tokens per second and rank that are expected.
    pub tokens_per_second: f64,
}

/// The rate at which tokens are written for users with so much context each.
///
/// Arithmetic and links overlap, as two micro-batches take turns.
///
/// # Units
/// users per rank -> tokens per second and rank
///
/// # Paper
/// - V3 3.4.2
/// - Test: crates/plan/tests/published_costs.rs
///
/// # Errors
/// If not even one user fits, or an assumption is out of range.
pub fn decode(
    model: &Model,
    unit: &Unit,
    users: Option<f64>,
    context_tokens: f64,
    ledger: &mut Ledger,
) -> Result<Decode, Error> {
    let share = ledger.share(
        "decode_share",
        DECODE_SHARE,
        "of the roofline",
        "solved from DeepSeek, inference system overview (2025-02): 14.8k tokens/s per node at 20 to 22 per user, mean of a day, drafts included",
    )?;
    let free = ledger.share("memory_share", 0.9, "of memory", "assumed; the rest is for work and buffers")?;
    let weight_bytes = unit.weight_bytes(model);
    let bytes_per_user = context_tokens * model.kv_bytes();
    let most_users = ((unit.memory * free - weight_bytes) / bytes_per_user).floor();
    if most_users < 1.0 {
        return Err(Error::Impossible(format!(
            "{} on {} x {}: weights of {:.1} GB per rank leave no room for {context_tokens} tokens of cache in {:.1} GB; \
             take more ranks, fewer tokens or a part with more memory",
            model.name,
            unit.ranks,
            unit.part.name,
            weight_bytes / 1e9,
            unit.memory / 1e9
        )));
    }
    let users = users.unwrap_or(most_users);
    if !(users >= 1.0 && users <= most_users) {
        return Err(Error::invalid("users", users, format!("must lie between 1 and the {most_users} that fit")));
    }
    let layers = model.config.num_hidden_layers as f64;
    // Experts of this rank that any user of the unit visits in a step.
    let (visited, _) = model.experts_per_token();
    let touched = 1.0 - (1.0 - visited / model.experts() as f64).powf(users * unit.ranks as f64);
    let format = if unit.fp8.is_some() { Format::F8E4M3 } else { Format::Bf16 };
    let slots = (model.experts() as f64 + unit.redundant) / model.experts() as f64;
    let experts = model.expert_bytes(format) * slots / unit.ranks as f64;
    let read = weight_bytes - experts * (1.0 - touched) - 2.0 * model.embedding;
    let (weights_memory, weights_arithmetic) = (read / unit.bandwidth, users * unit.linear_seconds(model));
    let cache_memory = users * bytes_per_user / unit.bandwidth;
    let cache_arithmetic = users * layers * model.decode_attention_flops(context_tokens) / unit.bf16;
    let computing = weights_memory.max(weights_arithmetic) + cache_memory.max(cache_arithmetic);
    let nodes = unit.ranks.div_ceil(unit.per_node) as f64;
    let apart = if nodes > 1.0 { 1.0 - 1.0 / nodes } else { 1.0 - 1.0 / unit.ranks as f64 };
    let links = users * unit.link_seconds(model, visited * apart);
    let bound = if links > computing {
        Bound::Links
    } else if weights_arithmetic + cache_arithmetic > weights_memory + cache_memory {
        Bound::Arithmetic
    } else {
        Bound::Memory
    };
    let roofline = computing.max(links);
    let seconds = roofline / share;
    Ok(Decode {
        users,
        most_users,
        bytes_per_user,
        weight_bytes,
        roofline,
        bound,
        seconds,
        tokens_per_second: users / seconds,
    })
}

/// DeepSeek's bound on decoding by links: tokens of two micro-batches go to their experts in FP8 and come back in BF16, layer
/// by layer, and arithmetic hides behind them.
///
/// Returns the seconds of one way there and back, those of a token, and the tokens per second of a user.
///
/// # Paper
/// - V3 3.4.2; ISCA25 2.3.2 (120.96 us, 14.76 ms, 67 tokens/s)
/// - Test: crates/plan/tests/published_costs.rs
pub fn link_bound(tokens: f64, experts: f64, width: f64, bytes_per_second: f64, layers: f64) -> (f64, f64, f64) {
    let way = (1.0 + 2.0) * tokens * experts * width / bytes_per_second;
    let token = 2.0 * way * layers;
    (way, token, 1.0 / token)
}
