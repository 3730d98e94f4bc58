//! Memory of this machine, and how fast the engine's kernels work on it, measured on demand.
//!
//! Each rate is that of one kind of work by itself, at sizes of small models, the median of five passes or more. No whole model is run:
//! what a step of one takes is predicted from these rates (`minke_plan::machine`).

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use minke_spec::format::fp8_scale_shape;
use minke_spec::{Format, Precision};
use minke_tensor::{
    Bytes, Device, Gradients, Indices, PAGE_TOKENS, Pages, Param, Pass, SampleRow, SampleRows, Span, StoredMatrix,
    StoredWeight, Tensor, backward,
};

use crate::Result;
use crate::memory_plan::{CACHE_DTYPE, CHUNK_TOKENS};

/// Bytes that are read to learn the speed of memory, and to fill the caches with something else: more than they hold.
const SWEEP: usize = 256 << 20;
/// Bytes of weights of a measurement.
const SPAN: usize = 64 << 20;
/// Time of one measurement, at least.
const TIME: Duration = Duration::from_millis(80);

/// Memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Of the machine.
    pub total: u64,
    /// What the system could give now: free, or a copy of files that it can read again.
    pub available: u64,
}

/// The memory of the machine, or that of the control group if it has less; nothing if the system does not say.
pub fn memory() -> Option<Memory> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    let machine = Memory { total: of("MemTotal:")?, available: of("MemAvailable:")? };
    let group = std::fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| group_memory(&text));
    let least = |group: Memory| Memory {
        total: machine.total.min(group.total),
        available: machine.available.min(group.available),
    };
    Some(group.map_or(machine, least))
}

/// What the control group of version 2 of `/proc/self/cgroup` leaves, if one limits memory.
fn group_memory(text: &str) -> Option<Memory> {
    let folder = Path::new("/sys/fs/cgroup").join(text.lines().find_map(|line| line.strip_prefix("0::/"))?);
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let total: u64 = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    let files = read("memory.stat")?.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse().ok());
    Some(Memory { total, available: total.saturating_sub(used.saturating_sub(files.unwrap_or(0))) })
}

/// How fast memory is read, by all threads of the device together.
///
/// # Units
/// bytes per second
pub fn bandwidth(device: &Device) -> f64 {
    let words = Indices::from_slice(device, &vec![1u32; SWEEP / 4]);
    let seconds = seconds(|| {
        black_box(words.sum(device));
        Ok(())
    });
    SWEEP as f64 / seconds.expect("invariant: reading memory does not fail")
}

/// Weights of a format for a measurement, about so many bytes.
fn weight(device: &Device, format: Format, interleaved: bool, k: usize, bytes: usize) -> Result<(Param, usize)> {
    let row = format.bytes(k);
    let n = (bytes / row).max(32);
    // Not all zero, and every pattern of it is a small number in every format.
    let bytes = Bytes::from(vec![0x11u8; n * row]);
    let scales = if format == Format::F8E4M3 { vec![1.0; fp8_scale_shape(n, k).iter().product()] } else { Vec::new() };
    let weight = StoredWeight::new(format, &[n, k], vec![StoredMatrix { bytes, scales }])?;
    let weight = if interleaved { weight.interleaved(device) } else { weight };
    Ok((Param::new("measured", 0, weight), n))
}

/// How fast weights of formats, with their rows interleaved or not, are multiplied with one token: memory, unless expanding the codes takes longer.
///
/// They are matrices of 2,048 rows at most, one after the other, as in a model: threads wait for each other behind each. What does not fit
/// into caches when a model runs does not lie in them here.
///
/// # Units
/// bytes of all weights that a token meets by format, width of the token -> bytes of a file per second
///
/// # Errors
/// If a format cannot be multiplied.
pub fn weight_rates(
    device: &Device,
    formats: &BTreeMap<Format, f64>,
    interleaved: bool,
    width: usize,
) -> Result<BTreeMap<Format, f64>> {
    let k = width.next_multiple_of(256);
    let x = Tensor::from_slice(device, &[1, k], &vec![1.0; k]);
    let other = Indices::from_slice(device, &vec![1u32; SWEEP / 4]);
    let is_large = formats.values().sum::<f64>() > SPAN as f64;
    let rate = |(&format, &bytes): (&Format, &f64)| {
        let bytes = SPAN.min(bytes as usize);
        let each = bytes.min(2048 * format.bytes(k)).max(1);
        let matrices = (0..bytes / each).map(|_| weight(device, format, interleaved, k, each));
        let matrices = matrices.collect::<Result<Vec<_>>>()?;
        let multiply = || matrices.iter().try_for_each(|(w, _)| product(device, &x, w));
        let between = || {
            if is_large {
                black_box(other.sum(device));
            }
        };
        let rows: usize = matrices.iter().map(|(_, rows)| rows).sum();
        Ok((format, (rows * format.bytes(k)) as f64 / seconds_apart(multiply, between)?))
    };
    formats.iter().map(rate).collect()
}

/// How fast weights of a format are multiplied with a chunk of a prompt.
///
/// # Units
/// FLOP per second
///
/// # Errors
/// If the format cannot be multiplied.
pub fn prompt_rate(device: &Device, format: Format, interleaved: bool) -> Result<f64> {
    let k = 2048;
    let (w, n) = weight(device, format, interleaved, k, format.bytes(k) * 2048)?;
    let x = Tensor::from_slice(device, &[CHUNK_TOKENS, k], &numbers(CHUNK_TOKENS * k));
    let seconds = seconds(|| product(device, &x, &w))?;
    Ok((2 * CHUNK_TOKENS * n * k) as f64 / seconds)
}

fn product(device: &Device, x: &Tensor, w: &Param) -> Result<()> {
    black_box(x.matmul(Pass::inference(device), w)?);
    Ok(())
}

/// Rates of what a token of an answer takes beside weights.
#[derive(Clone, Copy, Debug)]
pub struct AnswerRates {
    /// Bytes of cached keys and values per second that one token's queries meet, six of them to a head of keys.
    pub cache: f64,
    /// Bytes of logits per second from which a token is drawn as R1 is sampled.
    pub sampling: f64,
    /// Seconds of an operation on one token that is too small to count otherwise: the mean of a norm, a product, an activation and a sum.
    pub operation: f64,
}

/// Measures [`AnswerRates`].
///
/// # Errors
/// Never with the shapes as they are.
pub fn answer_rates(device: &Device) -> Result<AnswerRates> {
    let pass = Pass::inference(device);
    let context = 8192;
    let cached = cached_attention(device, context, 1)?;
    let bytes = (context * KEY_HEADS * 2 * HEAD_WIDTH * 2) as f64;
    let vocabulary = 1 << 17;
    let logits = Tensor::from_slice(device, &[1, vocabulary], &numbers(vocabulary)).scale(pass, 10.0)?;
    let row = SampleRow {
        temperature: 0.6,
        log_prob_temperature: 0.6,
        top_k: 0,
        top_p: 0.95,
        min_p: 0.0,
        uniform: 0.5,
        edits: 0..0,
        mask: None,
        alternatives: 1,
    };
    let sampling = SampleRows { rows: &[row], edits: &[], masks: &[] };
    let sampled = seconds(|| {
        black_box(logits.sample(pass, &sampling)?);
        Ok(())
    })?;
    let (width, rounds) = (256, 100);
    let norm = Param::new("norm", 0, Tensor::from_slice(device, &[width], &vec![1.0; width]));
    let (small, _) = weight(device, Format::Q8_0, true, width, Format::Q8_0.bytes(width) * width)?;
    let x = Tensor::from_slice(device, &[1, width], &numbers(width));
    let operations = seconds(|| {
        for _ in 0..rounds {
            let normed = x.rms_norm(pass, &norm, 1e-6)?;
            black_box(normed.matmul(pass, &small)?.swiglu(pass, &normed)?.add(pass, &x)?);
        }
        Ok(())
    })?;
    Ok(AnswerRates {
        cache: bytes / cached,
        sampling: (4 * vocabulary) as f64 / sampled,
        operation: operations / (4 * rounds) as f64,
    })
}

/// Rates of what a chunk of a prompt takes beside products.
#[derive(Clone, Copy, Debug)]
pub struct PromptRates {
    /// FLOP per second of attention to cached keys and values.
    pub attention: f64,
    /// Bytes per second that norms, sums and activations read and write.
    pub pointwise: f64,
}

/// Measures [`PromptRates`].
///
/// # Errors
/// Never with the shapes as they are.
pub fn prompt_rates(device: &Device) -> Result<PromptRates> {
    let (pass, context) = (Pass::inference(device), 1024);
    let attention = cached_attention(device, context, CHUNK_TOKENS)?;
    // The last rows of a causal mask see all keys but those of their successors.
    let pairs = KEY_HEADS * GROUP * CHUNK_TOKENS * (2 * context + 1 - CHUNK_TOKENS) / 2;
    let width = 2048;
    let norm = Param::new("norm", 0, Tensor::from_slice(device, &[width], &vec![1.0; width]));
    let x = Tensor::from_slice(device, &[CHUNK_TOKENS, width], &numbers(CHUNK_TOKENS * width));
    let pointwise = seconds(|| {
        black_box(x.rms_norm(pass, &norm, 1e-6)?.swiglu(pass, &x)?.add(pass, &x)?);
        Ok(())
    })?;
    Ok(PromptRates {
        attention: (4 * pairs * HEAD_WIDTH) as f64 / attention,
        pointwise: (4 * CHUNK_TOKENS * width * (2 + 3 + 3)) as f64 / pointwise,
    })
}

/// Heads of keys, queries to each, and their width, in measurements of attention.
const KEY_HEADS: usize = 2;
const GROUP: usize = 6;
const HEAD_WIDTH: usize = 128;

/// Seconds in which the last rows of a sequence attend to its cache.
fn cached_attention(device: &Device, context: usize, rows: usize) -> Result<f64> {
    let count = context / PAGE_TOKENS;
    let mut pages = Pages::keys_and_values(device, CACHE_DTYPE, count, KEY_HEADS, HEAD_WIDTH, HEAD_WIDTH);
    let contents = vec![0x11; pages.page_bytes()];
    (0..count).for_each(|page| pages.import_page(page, &contents));
    let tiles: Vec<u32> = (0..count as u32).collect();
    let span = Span { first_row: 0, rows, first_position: context - rows, first_tile: 0 };
    let shape = [rows, KEY_HEADS * GROUP, HEAD_WIDTH];
    let q = Tensor::from_slice(device, &shape, &numbers(shape.iter().product()));
    seconds(|| {
        black_box(pages.attention(Pass::inference(device), &q, &[span], &tiles, 0.1)?);
        Ok(())
    })
}

/// Rates of training in one precision, forward and both gradients together.
#[derive(Clone, Copy, Debug)]
pub struct TrainRates {
    /// FLOP per second of products with weights.
    pub products: f64,
    /// FLOP per second of the product with the head, the loss behind it included.
    pub head: f64,
    /// FLOP per second of attention under a causal mask, the backward counted as two forwards.
    pub attention: f64,
}

/// Measures [`TrainRates`].
///
/// # Errors
/// Never with the shapes as they are.
pub fn train_rates(device: &Device, precision: Precision) -> Result<TrainRates> {
    let matrix = |id: usize, n: usize, k: usize| {
        let mut w = Param::new("measured", id, Tensor::from_slice(device, &[n, k], &numbers(n * k)));
        w.hold_as(device, precision);
        w
    };
    let pass = Pass::recording(device);
    let (rows, width, hidden, vocabulary) = (1024, 512, 1024, 4096);
    let x = Tensor::from_slice(device, &[rows, width], &numbers(rows * width));
    let (up, down, head) = (matrix(0, hidden, width), matrix(1, width, hidden), matrix(2, vocabulary, width));
    let products = of_training(device, || Ok(x.leaf().matmul(pass, &up)?.matmul(pass, &down)?))?;
    let targets = Indices::from_slice(device, &vec![1; rows]);
    let of_head = of_training(device, || Ok(x.leaf().head_log_prob(pass, &head, &targets, 1.0)?.log_prob))?;
    // Queries, keys and values behind a product that is small beside attention, as their precision follows from it.
    let (sequence, heads, head_width, small) = (512, 4, 64, 32);
    let spans: Arc<[Span]> = (0..rows / sequence)
        .map(|s| Span { first_row: s * sequence, rows: sequence, first_position: 0, first_tile: 0 })
        .collect();
    let project = matrix(0, heads * head_width, small);
    let x = Tensor::from_slice(device, &[rows, small], &numbers(rows * small));
    let attention = of_training(device, || {
        let q = x.matmul(pass, &project)?.reshape(&[rows, heads, head_width])?;
        Ok(Tensor::attention(pass, &q, &q, &q, &spans, 0.1)?)
    })?;
    let pairs = rows / sequence * heads * sequence * (sequence + 1) / 2;
    Ok(TrainRates {
        products: (6 * rows * 2 * width * hidden) as f64 / products,
        head: (6 * rows * vocabulary * width) as f64 / of_head,
        attention: (3 * 4 * pairs * head_width) as f64 / attention,
    })
}

/// How fast norms, sums and activations read and write in training, forward and backward together.
///
/// # Units
/// bytes per second
///
/// # Errors
/// Never with the shapes as they are.
pub fn train_pointwise_rate(device: &Device) -> Result<f64> {
    let (pass, rows, width) = (Pass::recording(device), 4096, 768);
    let norm = Param::new("norm", 0, Tensor::from_slice(device, &[width], &vec![1.0; width]));
    let x = Tensor::from_slice(device, &[rows, width], &numbers(rows * width));
    let seconds = of_training(device, || {
        let x = x.leaf();
        Ok(x.rms_norm(pass, &norm, 1e-6)?.swiglu(pass, &x)?.add(pass, &x)?)
    })?;
    // Norm 2 and 3, activation 3 and 5, sum 3; two sums of gradients that meet, 3 each; the weighted sum 2 and 2.
    Ok((4 * rows * width * (5 + 8 + 3 + 6 + 4)) as f64 / seconds)
}

/// Seconds of a forward and the backward of the sum of its output.
fn of_training(device: &Device, mut forward: impl FnMut() -> Result<Tensor>) -> Result<f64> {
    let shape = forward()?.shape();
    let ones = Tensor::from_slice(device, shape.dims(), &vec![1.0; shape.elements()]);
    let mut gradients = Gradients::default();
    seconds(|| {
        let sum = forward()?.weighted_sum(Pass::recording(device), &ones)?;
        Ok(backward(device, &sum, &mut gradients)?)
    })
}

/// Numbers between -1 and 1.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0).collect()
}

/// The median seconds of a pass: of five at least, the first one not counted.
fn seconds(pass: impl FnMut() -> Result<()>) -> Result<f64> {
    seconds_apart(pass, || ())
}

/// The same, with something done between passes that is not counted.
fn seconds_apart(mut pass: impl FnMut() -> Result<()>, between: impl Fn()) -> Result<f64> {
    pass()?;
    let (begun, mut times) = (Instant::now(), Vec::new());
    while times.len() < 5 || begun.elapsed() < TIME {
        between();
        let start = Instant::now();
        pass()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
