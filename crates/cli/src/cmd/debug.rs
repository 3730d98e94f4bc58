//! What does the model see, and what does it say, number by number? For people who compare implementations.

use std::io::Write;

use anyhow::{Context, Result};
use minke_model::Batch;
use minke_model::weights::Archive;
use minke_tensor::{Cpu, Device, Isa, Pass};
use minke_text::{Message, Thought, split};
use serde_json::json;

use super::{print_json, print_line};
use crate::args::{Debug, DebugLogits, DebugParse, DebugRender, DebugTokens};
use crate::error::Exit;
use crate::folder::{template, tokenizer};

/// Likeliest tokens that `logits` prints of the last position.
const TOP: usize = 10;

/// Runs `minke debug`.
pub fn run(args: Debug) -> Result<()> {
    match args {
        Debug::Tokens(args) => tokens(&args),
        Debug::Render(args) => render(&args),
        Debug::Parse(args) => parse(&args),
        Debug::Logits(args) => logits(&args),
    }
}

/// Prints the ids of a text and the piece of text that each stands for.
fn tokens(args: &DebugTokens) -> Result<()> {
    let tokenizer = tokenizer(&Archive::open(&args.model)?)?;
    let ids = tokenizer.encode(&args.text);
    let pieces: Vec<String> =
        ids.iter().map(|&id| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned()).collect();
    if args.json {
        return print_json(&json!({ "ids": ids, "pieces": pieces }));
    }
    ids.iter().zip(&pieces).try_for_each(|(id, piece)| print_line(&format!("{id:>8} {piece:?}")))
}

/// Prints the prompt that a question becomes.
fn render(args: &DebugRender) -> Result<()> {
    let archive = Archive::open(&args.model)?;
    let (template, note) = template(&archive, &tokenizer(&archive)?)?;
    note.iter().for_each(|note| eprintln!("minke: {note}"));
    let prompt = template.render(&[Message::user(args.prompt.as_str())], true)?;
    if args.json { print_json(&json!({ "prompt": prompt })) } else { print_line(&prompt) }
}

/// Tells thought and answer apart in what a model said, behind the prompt that its template makes.
fn parse(args: &DebugParse) -> Result<()> {
    let archive = Archive::open(&args.model)?;
    let (template, note) = template(&archive, &tokenizer(&archive)?)?;
    note.iter().for_each(|note| eprintln!("minke: {note}"));
    let Thought { reasoning, content, closed, format_ok } =
        split(&template.render(&[Message::user("")], true)?, &args.text);
    if args.json {
        let parts = json!({ "reasoning": reasoning, "content": content, "closed": closed, "format_ok": format_ok });
        return print_json(&parts);
    }
    print_line(&format!("reasoning: {}", reasoning.as_deref().unwrap_or("none")))?;
    print_line(&format!("content: {content}"))
}

/// Computes the logits at every position of some ids; prints the likeliest tokens behind the last, and writes all of them.
fn logits(args: &DebugLogits) -> Result<()> {
    let archive = Archive::open(&args.model)?;
    let ids = match (&args.ids, &args.text) {
        (Some(ids), _) => ids.clone(),
        (None, Some(text)) => tokenizer(&archive)?.encode(text),
        (None, None) => Vec::new(),
    };
    let vocabulary = archive.config.vocab_size;
    if ids.is_empty() || ids.iter().any(|&id| id as usize >= vocabulary) {
        return Err(
            Exit::Usage.because(format!("there are no ids, or one is not below {vocabulary}; give --ids 1,2,3"))
        );
    }
    let device = Device::Cpu(Cpu::new(args.threads, Isa::detect()));
    let model = archive.load(&device)?;
    let pass = Pass::inference(&device);
    let hidden = model.forward(pass, &Batch::packed(&device, &[&ids]), None, false)?.hidden;
    let logits = model.logits(pass, &hidden)?;
    if let Some(path) = &args.out {
        let write = || {
            let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
            logits.values().iter().try_for_each(|value| file.write_all(&value.to_le_bytes()))?;
            file.into_inner()?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
    }
    let last = &logits.values()[logits.values().len() - vocabulary..];
    let mut order: Vec<usize> = (0..vocabulary).collect();
    order.sort_by(|&a, &b| last[b].total_cmp(&last[a]));
    order.truncate(TOP);
    if args.json {
        let top: Vec<_> = order.iter().map(|&id| json!({ "id": id, "logit": last[id] })).collect();
        return print_json(&json!({ "positions": ids.len(), "vocab_size": vocabulary, "top": top }));
    }
    order.iter().try_for_each(|&id| print_line(&format!("{id:>8} {:.6}", last[id])))
}
