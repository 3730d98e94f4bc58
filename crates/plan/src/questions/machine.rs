//! What does one machine do that was measured?

use crate::Error;
use crate::answer::{Answer, Table};
use crate::assumption::Ledger;
use crate::hardware::Hardware;
use crate::machine::{Parts, Read, decode, prompt, total};
use crate::model::Model;
use crate::picture::Picture;
use crate::questions::positive;

/// A model in its files that is asked about.
#[derive(Clone, Debug)]
pub struct Runs {
    /// Name of the part.
    pub part: String,
    /// Tokens of the prompt, behind which an answer is written.
    pub context_tokens: usize,
    /// Tokens of a prompt that the engine takes at once.
    pub chunk_tokens: usize,
    /// The weights that a token meets.
    pub read: Read,
    /// Bytes of memory with that context, by what takes them.
    pub memory: Parts,
}

/// How fast a model in its files reads a prompt and writes behind it on a machine that was measured, and the memory that it takes.
///
/// # Errors
/// If the part has no figures of measured kernels.
pub fn runs(model: &Model, hardware: &Hardware, asked: &Runs, mut ledger: Ledger) -> Result<Answer, Error> {
    let context = positive("context", asked.context_tokens as f64)?;
    let most = model.config.max_position_embeddings;
    if asked.context_tokens > most {
        return Err(Error::invalid("context", asked.context_tokens, format!("the model holds {most} tokens")));
    }
    let part = hardware.part(&asked.part)?;
    let writing = decode(&model.config, &asked.read, context, part, &mut ledger)?;
    let reading = prompt(model, &asked.read, (asked.context_tokens, asked.chunk_tokens), part, &mut ledger)?;
    let (need, have) = (total(&asked.memory), ledger.figure(part, "memory_bytes")?);
    let mut answer = Answer::new(format!("How does {} run on {}?", model.name, part.title));
    answer
        .fact("tokens of context", context, "")
        .fact("bytes of weights that a token reads", asked.read.bytes(), "bytes")
        .fact("prompt, tokens/s", context / total(&reading), "")
        .fact("answer behind it, tokens/s", 1.0 / total(&writing), "")
        .fact("memory needed", need, "bytes")
        .fact("memory there is", have, "bytes");
    answer.tables.push(times("Time of a token of the answer", &writing));
    answer.tables.push(times("Time of the prompt", &reading));
    if need > have {
        answer.notes.push("It does not fit.".into());
    }
    answer.picture = memory_bars(&asked.memory);
    answer.assumptions = ledger.finish()?;
    Ok(answer)
}

/// A table of kinds of work.
pub(super) fn times(title: &str, parts: &Parts) -> Table {
    let mut table = Table::new(title, ["work", "ms", "share"]);
    let sum = total(parts);
    for (name, seconds) in parts {
        let share = format!("{:.1} %", 100.0 * seconds / sum);
        table.row([(*name).to_owned(), format!("{:.2}", 1e3 * seconds), share]);
    }
    table
}

/// Memory as bars.
pub(super) fn memory_bars(parts: &Parts) -> Picture {
    Picture::bars("Memory", "GB", parts.iter().map(|(name, bytes)| ((*name).to_owned(), bytes / 1e9)))
}
