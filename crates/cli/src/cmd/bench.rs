//! `minke bench`: tokens per second of reading prompts and of writing behind them, sampling included.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Result, bail};
use minke_chat::machine::memory;
use minke_chat::{CACHE_DTYPE, CHUNK_TOKENS, MemoryPlanner, gigabytes};
use minke_engine::{Engine, EngineConfig, SamplingParams};
use minke_model::Transformer;
use minke_spec::cost::kv_bytes_per_token;
use minke_spec::draw::{Domain, draw};
use minke_tensor::{Device, PAGE_TOKENS};
use minke_weights::load_adapter;
use serde::Serialize;

use super::{open, packed, print_json, print_line};
use crate::args::Bench;

/// What was measured.
#[derive(Serialize)]
struct Speed {
    /// Sequences at once.
    batch: usize,
    /// Of each.
    prompt_tokens: usize,
    /// Tokens of all prompts per second, until the last sequence had its first token.
    prefill_tps: f64,
    /// Of each, behind the first token of the last one.
    generated_tokens: usize,
    /// Tokens of all sequences per second.
    gen_tps: f64,
    kv_bytes: usize,
    load_seconds: f64,
}

/// Runs `minke bench`.
pub fn run(args: &Bench) -> Result<()> {
    let start = Instant::now();
    let device = args.compute.device()?;
    let (path, adapter) = args.adapter.beside(args.model.path()?)?;
    let archive = open(&path)?;
    let have = memory().map_or(u64::MAX, |memory| memory.available);
    let (longest, most) = (args.prompt.iter().max().unwrap_or(&1), *args.batch.iter().max().unwrap_or(&1));
    let planner =
        MemoryPlanner::new(&archive).with_max_running(most).for_memory(have).with_packed(packed(&archive, &device));
    let context = archive.config.max_position_embeddings;
    planner.context(have, Some(longest.saturating_add(args.generate).min(context)))?;
    let pages = pages(*longest.min(&context), args.generate.min(context), most);
    let needed = planner.plan(most * pages * PAGE_TOKENS).total;
    if needed > have {
        let (needed, have) = (gigabytes(needed), gigabytes(have));
        bail!("{most} sequences of {longest} tokens take {needed}, and {have} are free: measure fewer or shorter ones");
    }
    let mut model = planner.load(&device)?;
    if let Some(folder) = adapter {
        let (_, lora) = load_adapter(&device, &folder, model.config())?;
        model.attach(&lora)?;
    }
    let load_seconds = start.elapsed().as_secs_f64();
    let mut speeds = Vec::new();
    for &batch in &args.batch {
        for &prompt_tokens in &args.prompt {
            let speed = measure(&device, &model, (batch, prompt_tokens, args.generate), load_seconds)?;
            if !args.output.json {
                if speeds.is_empty() {
                    print_line(
                        "batch  prompt_tokens  prefill_tps  generated_tokens  gen_tps    kv_bytes  load_seconds",
                    )?;
                }
                print_line(&format!(
                    "{batch:>5}  {prompt_tokens:>13}  {:>11.1}  {:>16}  {:>7.2}  {:>10}  {load_seconds:>12.2}",
                    speed.prefill_tps, speed.generated_tokens, speed.gen_tps, speed.kv_bytes
                ))?;
            }
            speeds.push(speed);
        }
    }
    if args.output.json { print_json(&speeds) } else { Ok(()) }
}

/// Steps in which the prompts of a batch are read, at most: beside sequences that write, half a chunk is read.
fn reading_steps(prompt_tokens: usize, batch: usize) -> usize {
    batch * prompt_tokens.div_ceil(CHUNK_TOKENS / 2)
}

/// Pages of a sequence, with those of the tokens that it writes while others are read.
fn pages(prompt_tokens: usize, generate: usize, batch: usize) -> usize {
    (prompt_tokens + reading_steps(prompt_tokens, batch) + generate).div_ceil(PAGE_TOKENS) + 1
}

/// Measures a batch: sequences, tokens of each prompt, tokens to write behind each.
fn measure(
    device: &Device,
    model: &Transformer,
    (batch, prompt_tokens, generate): (usize, usize, usize),
    load_seconds: f64,
) -> Result<Speed> {
    let sizes = EngineConfig::default()
        .with_pages(batch * pages(prompt_tokens, generate, batch))
        .with_max_sequences(batch)
        .with_chunk_tokens(CHUNK_TOKENS)
        .with_prefix_cache(false)
        .with_cache_dtype(CACHE_DTYPE);
    let mut engine = Engine::new(device, model.config(), sizes)?;
    let vocabulary = model.config().vocab_size as u64;
    let most_tokens = reading_steps(prompt_tokens, batch) + generate + 1;
    // As R1 is sampled.
    let params = SamplingParams::default().with_temperature(0.6).with_top_p(0.95).with_max_tokens(most_tokens);
    for sequence in 0..batch as u64 {
        let mut stream = draw(1, Domain::Data, &[prompt_tokens as u64, sequence]);
        let ids: Vec<u32> = (0..prompt_tokens).map(|_| stream.below(vocabulary) as u32).collect();
        engine.submit(&ids, &params.clone().with_seed(sequence), 1)?;
    }
    let (start, mut begun) = (Instant::now(), BTreeSet::new());
    while begun.len() < batch {
        begun.extend(engine.step(model)?.iter().map(|token| token.sequence));
    }
    let prefill = start.elapsed().as_secs_f64();
    let (start, mut steps, mut generated) = (Instant::now(), 0, 0);
    while steps < generate && !engine.is_idle() {
        generated += engine.step(model)?.len();
        steps += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(Speed {
        batch,
        prompt_tokens,
        prefill_tps: (batch * prompt_tokens) as f64 / prefill,
        generated_tokens: steps,
        gen_tps: generated as f64 / seconds,
        kv_bytes: batch * (prompt_tokens + steps) * kv_bytes_per_token(model.config(), CACHE_DTYPE.format()),
        load_seconds,
    })
}
