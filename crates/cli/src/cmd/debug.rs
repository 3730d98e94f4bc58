//! `minke debug`: inputs, intermediate values and outputs of a model, for people who compare implementations.

use std::cell::RefCell;

use anyhow::Result;
use minke_chat::{template, tokenizer};
use minke_model::Batch;
use minke_sys::atomic;
use minke_tensor::{Pass, Tap, Tensor};
use minke_text::{Message, Thought, ToolCallParser, ToolEvent, ToolFormat, split};
use serde::Serialize;
use serde_json::json;

use super::{open, print_json, print_line};
use crate::args::{Compute, Debug, DebugLogits, DebugText};
use crate::error::Exit;

/// Likeliest tokens that `logits` prints of the last position.
const TOP: usize = 10;

/// Runs `minke debug`.
pub fn run(args: &Debug) -> Result<()> {
    match args {
        Debug::Tokens(args) => tokens(args),
        Debug::Render(args) => render(args),
        Debug::Parse(args) => parse(args),
        Debug::Taps { text, compute } => taps(text, compute),
        Debug::Logits(args) => logits(args),
    }
}

/// Prints the ids of a text and the piece of text that each stands for.
fn tokens(args: &DebugText) -> Result<()> {
    let tokenizer = tokenizer(&open(&args.model.path()?)?)?;
    let ids = tokenizer.encode_prompt(&args.text);
    let pieces: Vec<String> =
        ids.iter().map(|&id| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned()).collect();
    if args.output.json {
        return print_json(&json!({ "ids": ids, "pieces": pieces }));
    }
    ids.iter().zip(&pieces).try_for_each(|(id, piece)| print_line(&format!("{id:>8} {piece:?}")))
}

/// Prints the prompt that a question becomes.
fn render(args: &DebugText) -> Result<()> {
    let archive = open(&args.model.path()?)?;
    let (template, note) = template(&archive, &tokenizer(&archive)?)?;
    note.iter().for_each(|note| eprintln!("minke: {note}"));
    let prompt = template.render(&[Message::user(args.text.as_str())], true)?;
    if args.output.json { print_json(&json!({ "prompt": prompt })) } else { print_line(&prompt) }
}

/// Tells thought, answer and calls of tools apart in what a model said, behind the prompt that its template makes.
fn parse(args: &DebugText) -> Result<()> {
    let archive = open(&args.model.path()?)?;
    let tokenizer = tokenizer(&archive)?;
    let (template, note) = template(&archive, &tokenizer)?;
    note.iter().for_each(|note| eprintln!("minke: {note}"));
    let Thought { reasoning, content, closed, format_ok } =
        split(&template.render(&[Message::user("")], true)?, &args.text);
    // As the template writes calls, whatever the vocabulary has.
    let format = ToolFormat::of_template(template.source()).unwrap_or_else(|| template.tool_format(&tokenizer));
    let mut parser = ToolCallParser::new(format, &[]);
    let mut events = parser.push(&content);
    events.extend(parser.finish());
    let (mut content, mut calls) = (String::new(), Vec::<(String, String)>::new());
    for event in events {
        match event {
            ToolEvent::Content(text) => content.push_str(&text),
            ToolEvent::Call(name) => calls.push((name, String::new())),
            ToolEvent::Arguments(text) => calls.last_mut().expect("invariant: a call begins first").1.push_str(&text),
            // The arguments are shown as far as they go.
            ToolEvent::Incomplete => {}
        }
    }
    if args.output.json {
        let calls: Vec<_> = calls.iter().map(|(name, text)| json!({ "name": name, "arguments": text })).collect();
        let said = json!({ "reasoning": reasoning, "content": content, "tool_calls": calls });
        return print_json(&json!({ "said": said, "closed": closed, "format_ok": format_ok }));
    }
    print_line(&format!("reasoning: {}", reasoning.as_deref().unwrap_or("none")))?;
    print_line(&format!("content: {content}"))?;
    calls.iter().try_for_each(|(name, arguments)| print_line(&format!("calls {name}: {arguments}")))
}

/// Prints what a forward passes through, in the order in which it is computed.
fn taps(args: &DebugText, compute: &Compute) -> Result<()> {
    let archive = open(&args.model.path()?)?;
    let ids = tokenizer(&archive)?.encode_prompt(&args.text);
    if ids.is_empty() {
        return Err(Exit::Usage.because("the text has no tokens; give one that has"));
    }
    let device = compute.device()?;
    let model = archive.load(&device)?;
    let seen = RefCell::new(Vec::new());
    let listen = |tap: Tap<'_>, value: &Tensor| {
        let values = value.read();
        let count = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
        let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
        let extremes = values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), &v| (a.min(v), b.max(v)));
        seen.borrow_mut().push(Seen {
            name: tap.to_string(),
            shape: value.shape().dims().to_vec(),
            mean,
            deviation: variance.sqrt(),
            least: extremes.0,
            largest: extremes.1,
        });
    };
    model.forward(Pass::inference(&device).with_tap(&listen), &Batch::packed(&device, &[&ids]), None, false)?;
    let seen = seen.into_inner();
    if args.output.json {
        return print_json(&seen);
    }
    seen.iter().try_for_each(|Seen { name, shape, mean, deviation, least, largest }| {
        let shape = format!("{shape:?}");
        print_line(&format!(
            "{name:48} {shape:12} mean {mean:+.4e} deviation {deviation:.4e} in {least:+.4e}..{largest:+.4e}"
        ))
    })
}

/// A value that has a name.
#[derive(Serialize)]
struct Seen {
    name: String,
    shape: Vec<usize>,
    mean: f64,
    deviation: f64,
    least: f32,
    largest: f32,
}

/// Computes the logits at every position of some ids; prints the likeliest tokens behind the last, and writes all of them.
fn logits(args: &DebugLogits) -> Result<()> {
    let archive = open(&args.model.path()?)?;
    let ids = match (&args.ids, &args.text) {
        (Some(ids), _) => ids.clone(),
        (None, Some(text)) => tokenizer(&archive)?.encode_prompt(text),
        (None, None) => Vec::new(),
    };
    let vocabulary = archive.config.vocab_size;
    if ids.is_empty() || ids.iter().any(|&id| id as usize >= vocabulary) {
        return Err(
            Exit::Usage.because(format!("there are no ids, or one is not below {vocabulary}; give --ids 1,2,3"))
        );
    }
    let device = args.compute.device()?;
    let model = archive.load(&device)?;
    let pass = Pass::inference(&device);
    let hidden = model.forward(pass, &Batch::packed(&device, &[&ids]), None, false)?.hidden;
    let logits = model.logits(pass, &hidden)?.read();
    if let Some(path) = &args.out {
        let bytes: Vec<u8> = logits.iter().flat_map(|value| value.to_le_bytes()).collect();
        atomic::replace(path, &bytes)?;
    }
    let last = &logits[logits.len() - vocabulary..];
    let mut order: Vec<usize> = (0..vocabulary).collect();
    order.sort_by(|&a, &b| last[b].total_cmp(&last[a]));
    order.truncate(TOP);
    if args.output.json {
        let top: Vec<_> = order.iter().map(|&id| json!({ "id": id, "logit": last[id] })).collect();
        return print_json(&json!({ "positions": ids.len(), "vocab_size": vocabulary, "top": top }));
    }
    order.iter().try_for_each(|&id| print_line(&format!("{id:>8} {:.6}", last[id])))
}
