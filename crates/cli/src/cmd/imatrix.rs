//! `minke imatrix`: how much each column of each weight matters for a text. What comes into it is squared and summed while the model reads.

use anyhow::Result;
use minke_chat::tokenizer;
use minke_weights::Importance;
use serde_json::json;

use super::{open, print_json, print_line};
use crate::args::Imatrix;
use crate::error::Exit;
use crate::files::read_text;
use crate::interrupt::Interrupt;
use crate::progress::Bar;

/// Runs `minke imatrix`.
pub fn run(args: &Imatrix) -> Result<()> {
    let archive = open(&args.model.path()?)?;
    let tokenizer = tokenizer(&archive)?;
    let ids = tokenizer.encode(&read_text(&args.text)?);
    // Every chunk begins as a text does.
    let begin = tokenizer.begin_ids();
    let chunk = args.chunk.min(archive.config.max_position_embeddings).saturating_sub(begin.len());
    let chunks: Vec<Vec<u32>> = ids.chunks(chunk.max(1)).map(|ids| [begin, ids].concat()).collect();
    if chunks.is_empty() {
        return Err(Exit::BadFile.because(format!("{}: has no text to read", args.text.display())));
    }
    Interrupt::ends_at_once()?;
    let device = args.compute.device()?;
    let model = archive.load(&device)?;
    let mut importance = Importance::default();
    let mut bar = Bar::new("reading", 0, chunks.len() as u64);
    for (i, ids) in chunks.iter().enumerate() {
        importance.read(&device, &model, ids)?;
        bar.set(i as u64 + 1, "chunks");
    }
    bar.finish("chunks");
    importance.save(&args.out, &args.text.display().to_string(), (chunks.len(), args.chunk))?;
    let (tokens, weights) = (ids.len(), importance.len());
    if args.output.json {
        return print_json(&json!({ "file": args.out, "tokens": tokens, "chunks": chunks.len(), "weights": weights }));
    }
    print_line(&format!("{}: {weights} weights, {tokens} tokens", args.out.display()))
}
