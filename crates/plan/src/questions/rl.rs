//! What would R1's reinforcement learning cost with rollouts of another length?

use crate::Error;
use crate::answer::{Answer, Table, grouped};
use crate::assumption::Ledger;
use crate::hardware::Hardware;
use crate::model::Model;
use crate::picture::Picture;
use crate::questions::{HOUR, Price, positive};
use crate::serve::{Unit, decode};

/// A run of reinforcement learning that is asked about.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rl {
    /// Name of the part.
    pub part: String,
    /// How many.
    pub count: usize,
    /// Ranks that share one copy of the model while it writes.
    pub decode_ranks: usize,
    /// Tokens of a rollout, on average.
    pub rollout_tokens: f64,
}

impl Rl {
    /// A run on R1's cluster of 512 H800, for rollouts of that length.
    pub fn new(rollout_tokens: f64) -> Self {
        Self { part: "h800".into(), count: 512, decode_ranks: 64, rollout_tokens }
    }
}

/// Hours and money of GRPO as R1-Zero was trained, by rollouts, reference and updates.
///
/// # Paper
/// R1 2.2 (arXiv 2501.12948v2: 10,400 steps of 512 outputs, hours in Table 7)
///
/// # Errors
/// If the model does not fit, or a figure has no source.
pub fn rl(model: &Model, hardware: &Hardware, asked: &Rl, mut ledger: Ledger) -> Result<Answer, Error> {
    let length = positive("rollout-tokens", asked.rollout_tokens)?;
    let part = hardware.part(&asked.part)?;
    if asked.count < asked.decode_ranks || !asked.count.is_multiple_of(asked.decode_ranks.max(1)) {
        let reason = format!("must be a multiple of the {} ranks that write together", asked.decode_ranks);
        return Err(Error::invalid("count", asked.count, reason));
    }
    let zero = "R1 (arXiv 2501.12948v2) 2.1, B.4.1";
    let steps = ledger.positive("steps", 10_400.0, "updates", zero)?;
    let outputs = ledger.positive("outputs_per_step", 512.0, "rollouts", zero)?;
    let prompt = ledger.positive(
        "prompt_tokens",
        122.0,
        "tokens",
        "R1 (arXiv 2501.12948v2) B.3.1: mean of the mathematics prompts",
    )?;
    let mfu = ledger.share("mfu", 0.3894, "of dense BF16", "ISCA25 Table 4: V3's pre-training, causal")?;
    let busy = ledger.share(
        "busy_share",
        1.0,
        "of the time",
        "a lower bound: nothing waits for the longest rollout or for weights",
    )?;
    let bf16 = ledger.figure(part, "bf16_flops")?;
    // The cache of a rollout grows from the prompt to the end; half-way is the mean.
    let unit = Unit::new(part, asked.decode_ranks, model, &mut ledger)?;
    let decode = decode(model, &unit, None, prompt + length / 2.0, &mut ledger)?;
    let written = steps * outputs * length;
    let trained = steps * outputs * (prompt + length);
    let sequence = (prompt + length) as usize;
    let gpu_hours = |flops: f64| flops / (mfu * bf16) / HOUR;
    let parts = [
        ("rollouts", written / decode.tokens_per_second / HOUR / busy),
        ("reference", gpu_hours(trained * model.forward_flops(sequence)) / busy),
        ("updates", gpu_hours(trained * model.train_flops(sequence)) / busy),
    ];
    let total: f64 = parts.iter().map(|(_, hours)| hours).sum();
    let mut answer = Answer::new(format!(
        "What would R1-Zero's reinforcement learning cost with rollouts of {} tokens, on {} x {}?",
        grouped(length),
        asked.count,
        part.title
    ));
    answer
        .fact("rollouts", steps * outputs, "")
        .fact("tokens written", written, "")
        .fact("tokens/s of a rank that writes", decode.tokens_per_second, "")
        .fact("rollouts at once per rank", decode.users, "")
        .fact("hours of the part", total, "")
        .fact("days", total / asked.count as f64 / 24.0, "days");
    Price::of(part, total, &mut ledger)?.add_to(&mut answer);
    let mut table = Table::new("Hours of the part", ["work", "hours", "share"]);
    for (name, hours) in parts {
        table.row([name.into(), grouped(hours), format!("{:.0} %", 100.0 * hours / total)]);
    }
    answer.tables.push(table);
    answer.picture = Picture::bars("Hours of the part", "h", parts.map(|(name, hours)| (name.to_owned(), hours)));
    if model.name.starts_with("deepseek-r1") || model.name == "deepseek-v3" {
        answer.notes.push(format!(
            "R1-Zero took 101,376 H800 hours (R1v2 Table 7); the mean length of its rollouts is not published. At {} tokens its \
             time would have been used to {:.0} %: --set busy_share={:.2} plans with that.",
            grouped(length),
            100.0 * total * busy / 101_376.0,
            (total * busy / 101_376.0).min(1.0)
        ));
    }
    answer.assumptions = ledger.finish()?;
    Ok(answer)
}
