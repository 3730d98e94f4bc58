//! `minke bench`: tokens per second of reading a prompt and of writing behind it.

use std::time::Instant;

use anyhow::Result;
use minke_chat::machine::memory;
use minke_chat::{CACHE_DTYPE, CHUNK_TOKENS, MemoryPlanner};
use minke_engine::{Engine, EngineConfig, SamplingParams};
use minke_spec::cost::kv_bytes_per_token;
use minke_spec::draw::{Domain, draw};
use minke_tensor::PAGE_TOKENS;
use serde::Serialize;

use super::{open, print_json, print_line};
use crate::args::Bench;

/// What was measured.
#[derive(Serialize)]
struct Speed {
    prompt_tokens: usize,
    prefill_tps: f64,
    generated_tokens: usize,
    gen_tps: f64,
    kv_bytes: usize,
    load_seconds: f64,
}

/// Runs `minke bench`.
pub fn run(args: &Bench) -> Result<()> {
    let start = Instant::now();
    let device = args.compute.device()?;
    let archive = open(&args.model.path()?)?;
    let tokens = args.prompt.iter().max().unwrap_or(&0) + args.generate;
    let have = memory().map_or(u64::MAX, |memory| memory.available);
    let planner = MemoryPlanner::new(&archive).for_memory(have);
    planner.context(have, Some(tokens.min(archive.config.max_position_embeddings)))?;
    let model = planner.load(&device)?;
    let load_seconds = start.elapsed().as_secs_f64();
    let vocabulary = archive.config.vocab_size as u64;
    let mut speeds = Vec::new();
    for &prompt_tokens in &args.prompt {
        let pages = (prompt_tokens + args.generate).div_ceil(PAGE_TOKENS) + 1;
        let sizes = EngineConfig::default()
            .with_pages(pages)
            .with_max_sequences(1)
            .with_chunk_tokens(CHUNK_TOKENS)
            .with_prefix_cache(false)
            .with_cache_dtype(CACHE_DTYPE);
        let mut engine = Engine::new(&device, model.config(), sizes)?;
        let mut stream = draw(1, Domain::Data, &[prompt_tokens as u64]);
        let ids: Vec<u32> = (0..prompt_tokens).map(|_| stream.below(vocabulary) as u32).collect();
        let params = SamplingParams::default().with_temperature(0.0).with_max_tokens(args.generate + 1);
        engine.submit(&ids, &params, 1)?;
        let start = Instant::now();
        while engine.step(&model)?.is_empty() {}
        let prefill = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let mut generated = 0;
        while !engine.is_idle() {
            generated += engine.step(&model)?.len();
        }
        let speed = Speed {
            prompt_tokens,
            prefill_tps: prompt_tokens as f64 / prefill,
            generated_tokens: generated,
            gen_tps: generated as f64 / start.elapsed().as_secs_f64(),
            kv_bytes: (prompt_tokens + generated) * kv_bytes_per_token(model.config(), CACHE_DTYPE.format()),
            load_seconds,
        };
        if !args.output.json {
            if speeds.is_empty() {
                print_line("prompt_tokens  prefill_tps  generated_tokens  gen_tps    kv_bytes  load_seconds")?;
            }
            print_line(&format!(
                "{:>13}  {:>11.1}  {:>16}  {:>7.2}  {:>10}  {:>12.2}",
                prompt_tokens, speed.prefill_tps, generated, speed.gen_tps, speed.kv_bytes, load_seconds
            ))?;
        }
        speeds.push(speed);
    }
    if args.output.json { print_json(&speeds) } else { Ok(()) }
}
