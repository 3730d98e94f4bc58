//! How fast are tokens read and written, for how many users, at what price?

use crate::Error;
use crate::answer::{Answer, Table, quantity};
use crate::assumption::Ledger;
use crate::hardware::Hardware;
use crate::model::Model;
use crate::picture::Picture;
use crate::questions::{Price, positive};
use crate::serve::{Unit, decode, prefill};

/// A service that is asked about.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Serve {
    /// Name of the part.
    pub part: String,
    /// Ranks that write for one group of users.
    pub decode_ranks: usize,
    /// Ranks that read prompts together.
    pub prefill_ranks: usize,
    /// Tokens of cache that a user has, on average.
    pub context_tokens: f64,
    /// Tokens of a prompt.
    pub prompt_tokens: usize,
    /// Users per rank; else as many as fit.
    pub users: Option<f64>,
}

impl Serve {
    /// A service of the shape of DeepSeek's: prompts read by 32 ranks, tokens written by 144.
    pub fn new(part: impl Into<String>) -> Self {
        Self {
            part: part.into(),
            decode_ranks: 144,
            prefill_ranks: 32,
            context_tokens: 4989.0,
            prompt_tokens: 4096,
            users: None,
        }
    }
}

/// Rates of reading and writing, users and cache, price and energy per token.
///
/// # Paper
/// - V3 3.4
/// - Test: crates/plan/tests/published_costs.rs
///
/// # Errors
/// If the model does not fit, or a figure has no source.
pub fn serve(model: &Model, hardware: &Hardware, asked: &Serve, mut ledger: Ledger) -> Result<Answer, Error> {
    positive("context", asked.context_tokens)?;
    positive("prompt", asked.prompt_tokens as f64)?;
    let part = hardware.part(&asked.part)?;
    let reading = Unit::new(part, asked.prefill_ranks, model, &mut ledger)?;
    let writing = Unit::new(part, asked.decode_ranks, model, &mut ledger)?;
    let prefill = prefill(model, &reading, asked.prompt_tokens, &mut ledger)?;
    let decode = decode(model, &writing, asked.users, asked.context_tokens, &mut ledger)?;
    let node = if asked.decode_ranks > 1 { ledger.figure(part, "parts_per_node")? } else { 1.0 };
    let mut answer = Answer::new(format!("How fast does {} read and write on {}?", model.name, part.title));
    answer
        .fact("cache of a token", model.kv_bytes(), "bytes")
        .fact("cache of a user", decode.bytes_per_user, "bytes")
        .fact("weights on a rank that writes", decode.weight_bytes, "bytes")
        .fact("users per rank, most that fit", decode.most_users, "")
        .fact("users per rank, assumed here", decode.users, "")
        .fact("tokens/s of a user", 1.0 / decode.seconds, "")
        .fact("written: tokens/s per node", decode.tokens_per_second * node, "")
        .fact("read: tokens/s per node, hits counted", prefill.with_hits * node, "")
        .fact("read: tokens/s per node, computed", prefill.computed * node, "");
    let mut table = Table::new("Roofline", ["what", "ranks", "bound", "at best", "expected"]);
    let rate = |tokens: f64| format!("{} tokens/s per rank", quantity(tokens.round(), ""));
    let best = decode.users / decode.roofline;
    table.row([
        "reading".into(),
        asked.prefill_ranks.to_string(),
        format!("{:?}", prefill.bound).to_lowercase(),
        rate(prefill.roofline),
        rate(prefill.computed),
    ]);
    table.row([
        "writing".into(),
        asked.decode_ranks.to_string(),
        format!("{:?}", decode.bound).to_lowercase(),
        rate(best),
        rate(decode.tokens_per_second),
    ]);
    answer.tables.push(table);
    let million = |tokens_per_second: f64| 1e6 / tokens_per_second / 3600.0;
    let (written, read) = (million(decode.tokens_per_second), million(prefill.computed));
    let (write_price, read_price) = (Price::of(part, written, &mut ledger)?, Price::of(part, read, &mut ledger)?);
    if let (Some(write), Some(read)) = (write_price.rent, read_price.rent) {
        answer.fact("rent per M written tokens", write, "USD").fact("rent per M computed prompt tokens", read, "USD");
    }
    if let Some(energy) = write_price.energy {
        answer.fact("energy of a written token", energy * 3.6, "J");
    }
    answer.picture = Picture::bars(
        "Tokens per second and node",
        "tokens/s",
        [
            ("written".to_owned(), decode.tokens_per_second * node),
            ("read, computed".to_owned(), prefill.computed * node),
            ("read, hits counted".to_owned(), prefill.with_hits * node),
        ],
    );
    answer.assumptions = ledger.finish()?;
    Ok(answer)
}
