//! `minke fit`: what a model takes by part, how much context fits beside it, and how fast it will write; said before a weight
//! is read, of published models before anything is downloaded.

use std::collections::BTreeMap;

use anyhow::Result;
use minke_chat::machine::memory;
use minke_chat::{CACHE_DTYPE, MIN_CONTEXT, MemoryPlan, MemoryPlanner, gigabytes};
use minke_plan::Ledger;
use minke_plan::machine::{decode, total};
use minke_spec::cost::{kv_bytes_per_token, parameter_counts};
use serde::Serialize;

use super::show::grouped;
use super::{open, packed, print_json, print_line};
use crate::args::Fit;
use crate::error::Exit;
use crate::locate::{self, Located};
use crate::{measured, published};

/// The output of `minke fit`.
#[derive(Serialize)]
struct Answer {
    path: String,
    parameters: usize,
    /// None if the numbers are those of the table of known models.
    files: usize,
    tensors: usize,
    tensor_bytes: u64,
    /// Bytes in the files by what they do.
    parts: BTreeMap<&'static str, u64>,
    kv_bytes_per_token: usize,
    cache_dtype: &'static str,
    context_tokens: usize,
    /// Nothing if none fits.
    longest_context_tokens: Option<usize>,
    trained_context_tokens: usize,
    /// Bytes with that context.
    need: MemoryPlan,
    have_bytes: u64,
    memory_bytes_per_second: f64,
    speed: SpeedEstimate,
    fits: bool,
    /// Why not, and what to change.
    reason: Option<String>,
}

/// What one token of an answer reads, and how fast that goes.
#[derive(Serialize)]
struct SpeedEstimate {
    /// Weights that a token meets: of the experts those that it visits.
    active_bytes_per_token: u64,
    /// How fast they are multiplied here, all formats together.
    bytes_per_second: f64,
    /// Tokens of an answer with little before it.
    tokens_per_second: f64,
    /// Tokens of an answer at the end of the context.
    tokens_per_second_at_context: f64,
}

/// Runs `minke fit`.
pub fn run(args: &Fit) -> Result<()> {
    let (here, published);
    let archive = match locate::find(args.model.named())? {
        Located::Here(path) => {
            here = open(&path)?;
            here.check_weights()?;
            &here
        }
        Located::Elsewhere(name, error) => {
            published = published::headers(&name, error)?;
            &published.archive
        }
    };
    let have = args.memory.or_else(|| memory().map(|memory| memory.available)).unwrap_or(u64::MAX);
    let device = args.compute.device()?;
    let planner = MemoryPlanner::new(archive).for_memory(have).with_packed(packed(archive, &device));
    let config = &archive.config;
    let most = config.max_position_embeddings;
    if let Some(asked) = args.context.filter(|&asked| asked == 0 || asked > most) {
        return Err(Exit::Usage.because(format!("--context {asked}: this model holds 1 to {most} tokens")));
    }
    let context = planner.context(have, args.context);
    let context_tokens = *context.as_ref().unwrap_or(&args.context.unwrap_or(MIN_CONTEXT));
    let parts = planner.components();
    let read = measured::read(&planner);
    let part = measured::for_answers(&device, &read.formats(), planner.is_interleaved(), config.hidden_size)?;
    let seconds = |context: usize| decode(config, &read, context as f64, &part, &mut Ledger::default());
    let (begin, end) = (seconds(0)?, seconds(context_tokens)?);
    let speed = SpeedEstimate {
        active_bytes_per_token: read.bytes() as u64,
        bytes_per_second: read.bytes() / begin[0].1,
        tokens_per_second: 1.0 / total(&begin),
        tokens_per_second_at_context: 1.0 / total(&end),
    };
    let answer = Answer {
        path: archive.path.display().to_string(),
        parameters: parameter_counts(config).total,
        files: archive.files.len(),
        tensors: archive.tensors.len(),
        tensor_bytes: parts.values().sum(),
        parts,
        kv_bytes_per_token: kv_bytes_per_token(config, CACHE_DTYPE.format()),
        cache_dtype: CACHE_DTYPE.name(),
        context_tokens,
        longest_context_tokens: planner.longest_context(have),
        trained_context_tokens: most,
        need: planner.plan(context_tokens),
        have_bytes: have,
        memory_bytes_per_second: part.figures["memory_bandwidth"].value,
        speed,
        fits: context.is_ok(),
        reason: context.as_ref().err().map(ToString::to_string),
    };
    if args.output.json {
        print_json(&answer)?
    } else {
        print_line(&answer.text())?
    }
    context?;
    Ok(())
}

impl Answer {
    /// The answer for a person.
    fn text(&self) -> String {
        let count = |n: usize| grouped(n as u64);
        let mut lines = vec![self.path.clone()];
        let mut put = |name: &str, text: String| lines.push(format!("  {name:<18} {text}"));
        put("parameters", count(self.parameters));
        let (files, tensors) = (self.files, self.tensors);
        let in_files = if files > 0 { format!(" in {files} files") } else { String::new() };
        put("weights", format!("{} bytes{in_files}, {tensors} tensors", grouped(self.tensor_bytes)));
        for (part, &bytes) in &self.parts {
            put(&format!("  {}", part.replace('_', " ")), format!("{:>19}", grouped(bytes)));
        }
        put("cache", format!("{} bytes per token, kept as {}", count(self.kv_bytes_per_token), self.cache_dtype));
        let longest = self.longest_context_tokens.map_or("none fits".into(), |n| format!("{} tokens fit", count(n)));
        let (context, trained) = (count(self.context_tokens), count(self.trained_context_tokens));
        put("longest context", format!("{longest}, the model was made for {trained}"));
        let MemoryPlan { total, weights, cache, work, vocabulary, program } = self.need;
        let parts =
            [("weights", weights), ("cache", cache), ("work", work), ("vocabulary", vocabulary), ("program", program)];
        let parts = parts.map(|(name, bytes)| format!("{name} {}", gigabytes(bytes))).join(", ");
        put("need", format!("{} with {context} tokens: {parts}", gigabytes(total)));
        put("have", gigabytes(self.have_bytes));
        let speed = &self.speed;
        let (begin, end) = (speed.tokens_per_second, speed.tokens_per_second_at_context);
        put("expected speed", format!("{begin:.2} tokens/s at the beginning, {end:.2} at the end of the context"));
        let (weights, memory) = (speed.bytes_per_second / 1e9, self.memory_bytes_per_second / 1e9);
        let active = gigabytes(speed.active_bytes_per_token);
        put(
            "measured now",
            format!("weights at {weights:.1} GB/s, of which a token reads {active}; memory at {memory:.1} GB/s"),
        );
        put("fits", if self.fits { "yes" } else { "no" }.into());
        lines.join("\n")
    }
}
