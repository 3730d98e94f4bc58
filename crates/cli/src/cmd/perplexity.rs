//! `minke perplexity`: how well a model predicts a text, `e^(mean of -ln p)` of tokens that have at least half a context before them.

use anyhow::Result;
use minke_chat::tokenizer;
use minke_model::{Batch, Chunk, KvCache, MlaForm};
use minke_tensor::{Indices, PAGE_TOKENS, Pass};
use serde::Serialize;

use super::{open, print_json, print_line};
use crate::args::Perplexity;
use crate::error::Exit;
use crate::files::read_text;
use crate::interrupt::Interrupt;
use crate::progress::Bar;

/// Rows whose logits are held at once.
const ROWS: usize = 64;

/// What came out.
#[derive(Serialize)]
struct Score {
    perplexity: f64,
    /// Of the perplexity.
    standard_error: f64,
    tokens: usize,
    scored: usize,
    context: usize,
}

/// Runs `minke perplexity`.
pub fn run(args: &Perplexity) -> Result<()> {
    let archive = open(&args.model.path()?)?;
    let context = args.context.min(archive.config.max_position_embeddings);
    let tokenizer = tokenizer(&archive)?;
    let mut ids = tokenizer.encode_prompt(&read_text(&args.text)?);
    let tokens = ids.len();
    if tokens < context {
        return Err(Exit::BadFile.because(format!(
            "{}: has {tokens} tokens, fewer than one context of {context}; give a longer text, or a smaller --context",
            args.text.display()
        )));
    }
    Interrupt::ends_at_once()?;
    let device = args.compute.device()?;
    let model = archive.load(&device)?;
    let mut losses: Vec<f64> = Vec::new();
    let mut bar = Bar::new("reading", 0, (tokens / context) as u64);
    for (i, chunk) in ids.chunks_exact_mut(context).enumerate() {
        // Every chunk begins as a text does.
        let begin = tokenizer.begin_ids();
        chunk[..begin.len()].copy_from_slice(begin);
        let pass = Pass::inference(&device);
        let (batch, mut cache) = match args.cache_type {
            None => (Batch::packed(&device, &[chunk]), None),
            Some(dtype) => {
                let pages: Vec<u32> = (0..context.div_ceil(PAGE_TOKENS) as u32).collect();
                let cache = KvCache::new(&device, &archive.config, pages.len(), MlaForm::Absorbed, dtype);
                let whole = Chunk { token_ids: chunk, first_position: 0, pages: &pages, asked: context };
                (Batch::paged(&device, &[whole])?, Some(cache))
            }
        };
        let hidden = model.forward(pass, &batch, cache.as_mut(), false)?.hidden;
        let scored: Vec<u32> = (context as u32 / 2..context as u32 - 1).collect();
        for rows in scored.chunks(ROWS) {
            let states = hidden.gather_rows(pass, &Indices::from_slice(&device, rows))?;
            let next: Vec<u32> = rows.iter().map(|&row| chunk[row as usize + 1]).collect();
            let found = model.log_probs(pass, &states, &Indices::from_slice(&device, &next), 1.0)?;
            losses.extend(found.log_prob.read().iter().map(|&log_prob| -f64::from(log_prob)));
        }
        bar.set(i as u64 + 1, &format!("perplexity {:.4}", summary(&losses).0));
    }
    bar.finish("chunks");
    let (perplexity, standard_error) = summary(&losses);
    let score = Score { perplexity, standard_error, tokens, scored: losses.len(), context };
    if args.output.json {
        return print_json(&score);
    }
    print_line(&format!(
        "perplexity {perplexity:.4} +- {standard_error:.4} over {} of {tokens} tokens, context {context}",
        score.scored
    ))
}

/// The perplexity and its standard error.
fn summary(losses: &[f64]) -> (f64, f64) {
    let count = losses.len() as f64;
    let mean = losses.iter().sum::<f64>() / count;
    let variance = losses.iter().map(|loss| (loss - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    (mean.exp(), mean.exp() * (variance / count).sqrt())
}
