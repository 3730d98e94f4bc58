//! One machine that was measured: how long a training step, a prompt and a token of an answer take on it, and the memory of
//! training.
//!
//! What is counted follows from the model; the rates are figures of the part, each measured by itself with the engine's kernels
//! (`minke doctor --part`). Times of kinds of work add up, as the engine runs one operation at a time.

use std::collections::BTreeMap;

use minke_spec::config::AttentionConfig;
use minke_spec::{Format, ModelConfig};

use crate::Error;
use crate::assumption::Ledger;
use crate::cluster::{Arithmetic, Batch};
use crate::hardware::Part;
use crate::model::Model;

/// Named parts of a whole: seconds or bytes.
pub type Parts = Vec<(&'static str, f64)>;

/// The sum of parts.
pub fn total(parts: &[(&'static str, f64)]) -> f64 {
    parts.iter().map(|(_, value)| value).sum()
}

/// The weights that a token meets, as the headers of a model's files say: bytes by format.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Read {
    /// Of all layers; of experts the share that a token visits.
    pub layers: BTreeMap<Format, f64>,
    /// Of the product that gives logits.
    pub head: BTreeMap<Format, f64>,
}

impl Read {
    /// The formats with their bytes, without those of less than a hundredth of the whole: norms and biases, whose rate is not
    /// worth a measurement.
    pub fn formats(&self) -> BTreeMap<Format, f64> {
        let mut sum = self.layers.clone();
        for (format, bytes) in &self.head {
            *sum.entry(*format).or_default() += bytes;
        }
        let least = 0.01 * sum.values().sum::<f64>();
        sum.retain(|_, bytes| *bytes > least);
        sum
    }

    /// All bytes.
    pub fn bytes(&self) -> f64 {
        self.layers.values().chain(self.head.values()).sum()
    }
}

/// Operations of one layer on rows, products included, as `crates/model` runs them.
fn operations(config: &ModelConfig) -> f64 {
    let attention = match &config.attention {
        // Norm, three products, two rotations, two writes into the cache, attention, a product, the sum.
        AttentionConfig::Gqa(gqa) => 11 + 3 * usize::from(gqa.qkv_bias) + usize::from(gqa.o_bias),
        // Norm, products down and up with two norms, three parts of columns, two rotations, a write, two absorbed products,
        // columns put together, attention, a product, the sum.
        AttentionConfig::Mla(_) => 18,
    };
    // Norm, three products, their activation, the sum; with experts the gate, the choice, rows there and back, and the shared
    // expert.
    let feed_forward = if config.moe.is_some() { 14 } else { 6 };
    (attention + feed_forward) as f64
}

/// Seconds of one token of an answer behind so much context.
///
/// # Units
/// tokens -> seconds by kind of work
///
/// # Errors
/// If a figure has no value.
pub fn decode(
    config: &ModelConfig,
    read: &Read,
    context_tokens: f64,
    part: &Part,
    ledger: &mut Ledger,
) -> Result<Parts, Error> {
    let weights = weights_seconds([&read.layers, &read.head], &read.formats(), part, ledger)?;
    let cache = context_tokens * minke_spec::cost::kv_bytes_per_token(config, Format::Bf16) as f64;
    let operation = ledger.figure(part, "operation_seconds")?;
    Ok(vec![
        ("weights", weights),
        ("cache", cache / ledger.figure(part, "cache_bandwidth")?),
        ("sampling", 4.0 * config.vocab_size as f64 / ledger.figure(part, "sample_bandwidth")?),
        ("operations", operation * operations(config) * config.num_hidden_layers as f64),
    ])
}

/// Seconds in which the weights are multiplied with one token.
fn weights_seconds<'a>(
    weights: impl IntoIterator<Item = &'a BTreeMap<Format, f64>>,
    measured: &BTreeMap<Format, f64>,
    part: &Part,
    ledger: &mut Ledger,
) -> Result<f64, Error> {
    let mut seconds = 0.0;
    for (format, bytes) in weights.into_iter().flatten() {
        let figure = match measured.contains_key(format) {
            true => format!("decode_{}", format.name().to_lowercase()),
            false => "memory_bandwidth".to_owned(),
        };
        seconds += bytes / ledger.figure(part, &figure)?;
    }
    Ok(seconds)
}

/// Seconds of a prompt, until its first token of an answer is drawn. The last layer computes keys and values of all tokens, and
/// the rest of the last token alone; so does the head.
///
/// # Units
/// tokens -> seconds by kind of work
///
/// # Errors
/// If a figure has no value.
pub fn prompt(
    model: &Model,
    read: &Read,
    (tokens, chunk): (usize, usize),
    part: &Part,
    ledger: &mut Ledger,
) -> Result<Parts, Error> {
    let config = &model.config;
    let (rows, layers) = (tokens as f64, config.num_hidden_layers as f64);
    let last = model.layers[config.num_hidden_layers - 1].active;
    let keys_and_values = config.hidden_size as f64
        * match &config.attention {
            AttentionConfig::Gqa(gqa) => 2 * gqa.num_key_value_heads * gqa.head_dim,
            AttentionConfig::Mla(mla) => mla.kv_lora_rank + mla.qk_rope_head_dim,
        } as f64;
    let whole = (layers - 1.0 + keys_and_values / last) / layers;
    let measured = read.formats();
    let mut products = weights_seconds([&read.head], &measured, part, ledger)?;
    for (format, bytes) in read.layers.iter().filter(|(format, _)| measured.contains_key(format)) {
        let elements = bytes * format.block_elements() as f64 / format.block_bytes() as f64;
        let rate = ledger.figure(part, &format!("prefill_{}", format.name().to_lowercase()))?;
        products += 2.0 * rows * elements * whole / rate;
    }
    let attention = (layers - 1.0) * rows * model.attention_flops(tokens);
    let pointwise = (layers - 1.0) * rows * 4.0 * forward_elements(config);
    let steps = tokens.div_ceil(chunk) as f64;
    Ok(vec![
        ("products", products),
        ("attention", attention / ledger.figure(part, "prompt_attention_flops")?),
        ("pointwise", pointwise / ledger.figure(part, "prompt_pointwise_bandwidth")?),
        ("sampling", 4.0 * config.vocab_size as f64 / ledger.figure(part, "sample_bandwidth")?),
        ("operations", steps * ledger.figure(part, "operation_seconds")? * operations(config) * layers),
    ])
}

/// Widths of a token in a layer: of the stream, of queries, of keys (as of values), of the feed-forward.
fn widths(config: &ModelConfig) -> [f64; 4] {
    let (key, _) = config.head_dims();
    let heads = config.num_attention_heads * key;
    let keys = match &config.attention {
        AttentionConfig::Gqa(gqa) => gqa.num_key_value_heads * gqa.head_dim,
        AttentionConfig::Mla(_) => heads,
    };
    let hidden = config.moe.as_ref().map_or(config.intermediate_size, |moe| {
        moe.moe_intermediate_size * (moe.num_experts_per_tok + moe.n_shared_experts)
    });
    [config.hidden_size, heads, keys, hidden].map(|width| width as f64)
}

/// Numbers that a layer reads and writes for a token outside of products and attention.
///
/// Norms 2 x 2, sums 2 x 3, rotations 2 of queries and of keys, the cache 3 of keys and values together, the activation of the
/// feed-forward 3, biases 2.
fn forward_elements(config: &ModelConfig) -> f64 {
    let [width, queries, keys, hidden] = widths(config);
    let biased = matches!(&config.attention, AttentionConfig::Gqa(gqa) if gqa.qkv_bias);
    let biases = if biased { 2.0 * (queries + 2.0 * keys) } else { 0.0 };
    10.0 * width + 2.0 * (queries + keys) + 3.0 * keys + 3.0 * hidden + biases
}

/// The same, forward and backward, in numbers of F32.
///
/// Norms 2 and 3, and 2 when the backward makes their rows again, twice; sums 3, twice; gradients that meet in the stream 3, twice, and
/// behind the norms 3, three times; rotations 2 and 2; the activation 3 and 5, and 3 when it is made again. In BF16 what attention and the
/// activation keep is rounded, 1.5 each, and the latter widened again.
fn train_elements(config: &ModelConfig, arithmetic: Arithmetic) -> f64 {
    let [width, queries, keys, hidden] = widths(config);
    let rounded = if arithmetic == Arithmetic::Bf16 { 3.0 * (queries + keys) + 6.0 * hidden } else { 0.0 };
    35.0 * width + 4.0 * (queries + keys) + 11.0 * hidden + rounded
}

/// Bytes that an update of AdamW reads and writes per parameter: weight, gradient and two moments, three of them written; and the gradient
/// is set to zero.
const UPDATE_BYTES: f64 = 32.0;

/// Seconds of a training step: forward, backward and update.
///
/// # Units
/// seconds by kind of work
///
/// # Errors
/// If a figure has no value, or the machine trains in another precision.
pub fn train_step(
    model: &Model,
    batch: Batch,
    arithmetic: Arithmetic,
    part: &Part,
    ledger: &mut Ledger,
) -> Result<Parts, Error> {
    batch.check()?;
    let precision = match arithmetic {
        Arithmetic::F32 | Arithmetic::Bf16 => arithmetic.name(),
        Arithmetic::Fp8 => return Err(Error::invalid("precision", "fp8", "the engine trains in f32 or bf16")),
    };
    let (tokens, layers) = (batch.tokens(), model.config.num_hidden_layers as f64);
    let active: f64 = model.layers[..model.config.num_hidden_layers].iter().map(|layer| layer.active).sum();
    let attention = 3.0 * layers * model.attention_flops(batch.sequence_tokens);
    let mut rate = |what: &str| ledger.figure(part, &format!("{precision}{what}"));
    let (products_rate, head_rate, attention_rate) = (rate("_flops")?, rate("_head_flops")?, rate("_attention_flops")?);
    let pointwise = ledger.figure(part, "train_pointwise_bandwidth")?;
    let update = ledger.positive(
        "update_bytes",
        UPDATE_BYTES,
        "bytes per parameter",
        "AdamW in f32: weight, two moments read and written, gradient read and set to zero",
    )?;
    Ok(vec![
        ("products", 6.0 * tokens * active / products_rate),
        ("head and loss", 6.0 * tokens * model.head / head_rate),
        ("attention", tokens * attention / attention_rate),
        ("pointwise", 4.0 * tokens * layers * train_elements(&model.config, arithmetic) / pointwise),
        ("update", model.parameters() * update / pointwise),
    ])
}

/// Memory of a training step.
///
/// # Units
/// bytes by what takes them
///
/// # Errors
/// If the model has latents or experts: what the engine keeps of those is not counted.
pub fn train_memory(model: &Model, batch: Batch, arithmetic: Arithmetic, ledger: &mut Ledger) -> Result<Parts, Error> {
    let config = &model.config;
    if config.moe.is_some() || !matches!(config.attention, AttentionConfig::Gqa(_)) {
        return Err(Error::Impossible(format!(
            "{}: for one machine only dense models with grouped queries are counted",
            model.name
        )));
    }
    let [width, queries, keys, hidden] = widths(config);
    let (tokens, layers) = (batch.tokens(), config.num_hidden_layers as f64);
    // Inputs of both norms, a number of each and one per head are F32; queries, keys, values, the output of attention, gate and up
    // are in the precision of the products. Outputs of norms and of the activation are made again.
    let single = 2.0 * width + 2.0 + config.num_attention_heads as f64;
    let others = 2.0 * queries + 2.0 * keys + 2.0 * hidden;
    let bytes = if arithmetic == Arithmetic::Bf16 { 2.0 } else { 4.0 };
    let kept = layers * (4.0 * single + bytes * others) + 4.0 * width;
    // The last layer's, when its backward begins: the activation made again and gradients of it, of gate and up; rows of the
    // stream, their gradients, and what attention gives.
    let work = 4.0 * (4.0 * hidden + 5.0 * width + queries + keys);
    let state = ledger.positive(
        "state_bytes",
        20.0,
        "bytes per parameter",
        "the engine, in f32 and bf16: weight and its packed copy, gradient, two moments, in bf16 an f32 master",
    )?;
    let program = ledger.positive("program_bytes", 9.0 * 1024.0 * 1024.0, "bytes", "as minke fit counts it")?;
    Ok(vec![
        ("weights, gradients, moments", state * model.parameters()),
        ("activations", tokens * kept),
        ("work", tokens * work),
        ("program", program),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::Hardware;
    use minke_spec::presets;

    const PART: &str = r#"
        [sources]
        m = { title = "a measurement", date = "2026-11-30" }
        [[part]]
        name = "here"
        title = "this machine"
        memory_bytes = [8e9, "m"]
        memory_bandwidth = [10e9, "m"]
        f32_flops = [100e9, "m"]
        f32_head_flops = [50e9, "m"]
        f32_attention_flops = [25e9, "m"]
        train_pointwise_bandwidth = [8e9, "m"]
        prompt_attention_flops = [20e9, "m"]
        prompt_pointwise_bandwidth = [16e9, "m"]
        cache_bandwidth = [5e9, "m"]
        sample_bandwidth = [1e9, "m"]
        operation_seconds = [2e-6, "m"]
        decode_q8_0 = [17e9, "m"]
        prefill_q8_0 = [200e9, "m"]
        "#;

    fn here() -> Part {
        let mut hardware = Hardware::known().unwrap();
        hardware.add("here.toml", PART).unwrap();
        hardware.part("here").unwrap().clone()
    }

    fn close(parts: &Parts, expected: &[f64]) {
        assert_eq!(parts.len(), expected.len(), "{parts:?}");
        for ((name, value), expected) in parts.iter().zip(expected) {
            assert!((value / expected - 1.0).abs() < 1e-9, "{name}: {value}, by hand {expected}");
        }
    }

    /// A Llama with two layers: width 64, two heads and one of keys of 32, feed-forward 128, vocabulary 256.
    fn small() -> Model {
        let json = r#"{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 32, "hidden_act": "silu", "rms_norm_eps": 1e-6, "hidden_size": 64,
            "num_hidden_layers": 2, "intermediate_size": 128, "vocab_size": 256, "rope_theta": 10000.0,
            "max_position_embeddings": 64, "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1}"#;
        Model::new("small", ModelConfig::from_json(json).unwrap().config)
    }

    #[test]
    fn a_training_step_by_hand() {
        let batch = Batch { sequences: 2, sequence_tokens: 64 };
        let step = train_step(&small(), batch, Arithmetic::F32, &here(), &mut Ledger::default()).unwrap();
        // A layer multiplies 64 x 64 + 2 x 64 x 32 + 64 x 64 + 3 x 64 x 128 = 36,864 numbers with each of 128 tokens.
        let products = 6.0 * 128.0 * 2.0 * 36_864.0 / 100e9;
        let head = 6.0 * 128.0 * 256.0 * 64.0 / 50e9;
        // Two heads of 32 + 32, 65 / 2 keys of a token on average, two FLOPs each, three times.
        let attention = 128.0 * 3.0 * 2.0 * (2.0 * 64.0 * 65.0) / 25e9;
        // 35 x 64 + 4 x (64 + 32) + 11 x 128 = 4,032 numbers.
        let pointwise = 4.0 * 128.0 * 2.0 * 4_032.0 / 8e9;
        // Two tables, two layers with two norms, a norm: 2 x 16,384 + 2 x (36,864 + 128) + 64 = 106,816.
        let update = 106_816.0 * 32.0 / 8e9;
        close(&step, &[products, head, attention, pointwise, update]);
    }

    #[test]
    fn memory_of_training_by_hand() {
        let batch = Batch { sequences: 2, sequence_tokens: 64 };
        let memory = |arithmetic| train_memory(&small(), batch, arithmetic, &mut Ledger::default()).unwrap();
        // Of a layer 2 x 64 + 2 + 2 numbers in F32 and 2 x 64 + 2 x 32 + 2 x 128 = 448 of what is multiplied; 64 in front of the head.
        let kept = 128.0 * (2.0 * (4.0 * 132.0 + 4.0 * 448.0) + 256.0);
        let work = 128.0 * 4.0 * (512.0 + 320.0 + 96.0);
        let (state, program) = (20.0 * 106_816.0, 9_437_184.0);
        close(&memory(Arithmetic::F32), &[state, kept, work, program]);
        let kept = 128.0 * (2.0 * (4.0 * 132.0 + 2.0 * 448.0) + 256.0);
        close(&memory(Arithmetic::Bf16), &[state, kept, work, program]);
    }

    #[test]
    fn a_token_and_a_prompt_by_hand() {
        let model = small();
        let layers = BTreeMap::from([(Format::Q8_0, 2.0 * 36_864.0 * 34.0 / 32.0), (Format::F32, 500.0)]);
        let read = Read { layers, head: BTreeMap::from([(Format::Q8_0, 17_408.0)]) };
        let (part, mut ledger) = (here(), Ledger::default());
        // 78,336 + 17,408 bytes at 17 GB/s, norms at the rate of memory; 2 layers x 2 x 32 x 2 bytes a token of context;
        // 256 logits; 17 operations in each of two layers.
        let token = decode(&model.config, &read, 10.0, &part, &mut ledger).unwrap();
        let weights = 95_744.0 / 17e9 + 500.0 / 10e9;
        close(&token, &[weights, 10.0 * 256.0 / 5e9, 1024.0 / 1e9, 34.0 * 2e-6]);
        let prompt = prompt(&model, &read, (10, 4), &part, &mut ledger).unwrap();
        // The last layer multiplies keys and values, 64 x 64 of its 36,864, with all ten tokens: 40,960 numbers in all.
        let products = 17_408.0 / 17e9 + 2.0 * 10.0 * 40_960.0 / 200e9;
        let attention = 10.0 * 128.0 * 11.0 / 20e9;
        // 10 x 64 + 2 x (64 + 32) + 3 x 32 + 3 x 128 = 1,312 numbers of one layer; three chunks.
        close(&prompt, &[products, attention, 10.0 * 4.0 * 1312.0 / 16e9, 1024.0 / 1e9, 3.0 * 34.0 * 2e-6]);
    }

    #[test]
    fn a_format_that_was_not_measured_is_named() {
        let model = small();
        let read = Read { layers: BTreeMap::from([(Format::Q4K, 1e6)]), head: BTreeMap::new() };
        let error = decode(&model.config, &read, 1.0, &here(), &mut Ledger::default()).unwrap_err().to_string();
        assert!(error.starts_with("here: decode_q4_k (bytes/s) has no sourced value"), "{error}");
        let v3 = Model::new("v3", presets::r1());
        let batch = Batch { sequences: 1, sequence_tokens: 8 };
        assert!(train_memory(&v3, batch, Arithmetic::F32, &mut Ledger::default()).is_err());
    }
}
