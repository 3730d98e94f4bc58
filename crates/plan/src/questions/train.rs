//! What would mine cost?

use crate::Error;
use crate::answer::{Answer, Table, grouped, quantity};
use crate::assumption::Ledger;
use crate::cluster::{Arithmetic, Batch, Cluster, Layout};
use crate::hardware::{Hardware, Part};
use crate::machine;
use crate::memory::{TrainMemory, train_memory};
use crate::model::Model;
use crate::picture::Picture;
use crate::questions::machine::{memory_bars, times};
use crate::questions::{DAY, HOUR, Price, positive};
use crate::schedule::Schedule;
use crate::time::{Step, best_layout, train_step};

/// A training run that is asked about.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Train {
    /// Name of the part.
    pub part: String,
    /// How many.
    pub count: usize,
    /// Tokens of the run.
    pub tokens: f64,
    /// Tokens of a step, by sequences and their length.
    pub batch: Batch,
    /// Ranks of a pipeline; with `expert`, else the fastest layout that fits is taken.
    pub pipeline: Option<usize>,
    /// Ranks over which experts are spread.
    pub expert: Option<usize>,
    /// Schedule of the pipeline; else the fastest.
    pub schedule: Option<Schedule>,
    /// FP8 or BF16, else FP8 where the part has it; F32 or BF16, else F32, on a machine that was measured.
    pub arithmetic: Option<Arithmetic>,
    /// Utilisation in place of the simulated one.
    pub mfu: Option<f64>,
}

impl Train {
    /// A run with V3's batch.
    pub fn new(part: impl Into<String>, count: usize, tokens: f64) -> Self {
        let batch = Batch { sequences: 15_360, sequence_tokens: 4096 };
        let (pipeline, expert, schedule, arithmetic, mfu) = (None, None, None, None, None);
        Self { part: part.into(), count, tokens, batch, pipeline, expert, schedule, arithmetic, mfu }
    }

    /// The layout that was asked for, or the fastest.
    pub(super) fn laid_out(
        &self,
        model: &Model,
        cluster: &Cluster,
        ledger: &mut Ledger,
    ) -> Result<(Layout, Step, TrainMemory), Error> {
        if self.pipeline.is_none() && self.expert.is_none() {
            return best_layout(model, cluster, self.batch, self.schedule, ledger);
        }
        let (pipeline, expert) = (self.pipeline.unwrap_or(1), self.expert.unwrap_or(1));
        let default = if pipeline == 1 { Schedule::OneFOneB } else { Schedule::DualPipe };
        let schedule = self.schedule.unwrap_or(default);
        let layout = Layout::new(pipeline, expert, schedule, cluster.count, self.batch, model)?;
        let step = train_step(model, cluster, &layout, self.batch, ledger)?;
        let memory = train_memory(model, cluster, &layout, self.batch, ledger)?;
        Ok((layout, step, memory))
    }
}

/// The hours of a training run on so many of a part.
pub(super) fn hours(asked: &Train, model: &Model, cluster: &Cluster, step_seconds: f64) -> f64 {
    match asked.mfu {
        Some(mfu) => asked.tokens * model.train_flops(asked.batch.sequence_tokens) / (mfu * cluster.bf16_flops) / HOUR,
        None => asked.tokens / asked.batch.tokens() * step_seconds * cluster.count as f64 / HOUR,
    }
}

/// What a training run costs: layout, memory per rank, step, links, hours, money, energy. On a machine that was measured, what its step
/// takes by kind of work.
///
/// # Paper
/// - V3 3.2; ISCA25 Table 4
/// - Test: crates/plan/tests/published_costs.rs
///
/// # Errors
/// If the run does not fit, cannot be laid out, or needs a figure that has no source.
pub fn train(model: &Model, hardware: &Hardware, asked: &Train, mut ledger: Ledger) -> Result<Answer, Error> {
    positive("tokens", asked.tokens)?;
    if let Some(mfu) = asked.mfu.filter(|mfu| !(*mfu > 0.0 && *mfu <= 1.0)) {
        return Err(Error::invalid("mfu", mfu, "must be a share above 0 and at most 1"));
    }
    let part = hardware.part(&asked.part)?;
    if ledger.has(part, "operation_seconds") {
        return train_on_machine(model, part, asked, ledger);
    }
    let cluster = Cluster::new(part, asked.count, asked.arithmetic, &mut ledger)?;
    let (layout, step, memory) = asked.laid_out(model, &cluster, &mut ledger)?;
    let hours = hours(asked, model, &cluster, step.seconds);
    let days = hours / asked.count as f64 * HOUR / DAY;
    let question = format!(
        "What would {} cost, {} tokens on {} x {}?",
        model.name,
        grouped(asked.tokens),
        asked.count,
        cluster.part.title
    );
    let mut answer = Answer::new(question);
    answer
        .fact("FLOPs per token", model.train_flops(asked.batch.sequence_tokens), "FLOP")
        .fact("tokens per step", asked.batch.tokens(), "")
        .fact("seconds of a step, simulated", step.seconds, "s")
        .fact("MFU (of dense BF16, causal)", asked.mfu.unwrap_or(step.mfu), "share")
        .fact("tokens per day", asked.tokens / days, "")
        .fact("days", days, "days")
        .fact("hours of the part", hours, "")
        .fact("hours per T tokens", hours / asked.tokens * 1e12, "");
    Price::of(&cluster.part, hours, &mut ledger)?.add_to(&mut answer);
    let fits = memory.total() <= cluster.memory;
    answer.fact("memory of the fullest rank", memory.total(), "bytes").fact("memory there is", cluster.memory, "bytes");
    answer.tables.push(layout_table(&layout, &cluster, &step));
    answer.tables.push(links_table(&step, &cluster, &layout));
    if !fits {
        let most = memory.largest();
        answer.notes.push(format!("It does not fit: the fullest rank lacks memory, most of which takes {most}."));
    }
    if step.bound_by_links {
        answer.notes.push("Links bound the bulk of the step: tokens wait for their way to experts.".into());
    }
    if let Some(mfu) = asked.mfu {
        let simulated = 100.0 * step.mfu;
        answer.notes.push(format!("Hours follow from --mfu {mfu}; the simulated step would give {simulated:.1} %."));
    }
    let parts = memory.parts().map(|(name, bytes)| (name.to_owned(), bytes / 1e9));
    answer.picture = Picture::bars("Memory of the fullest rank", "GB", parts);
    answer.assumptions = ledger.finish()?;
    Ok(answer)
}

/// A training run on one machine that was measured.
fn train_on_machine(model: &Model, part: &Part, asked: &Train, mut ledger: Ledger) -> Result<Answer, Error> {
    let cluster = asked.pipeline.is_some() || asked.expert.is_some() || asked.schedule.is_some() || asked.mfu.is_some();
    if asked.count != 1 || cluster {
        return Err(Error::invalid(
            "count",
            asked.count,
            "must be 1, without a layout, on a machine that was measured",
        ));
    }
    let arithmetic = asked.arithmetic.unwrap_or(Arithmetic::F32);
    let step = machine::train_step(model, asked.batch, arithmetic, part, &mut ledger)?;
    let memory = machine::train_memory(model, asked.batch, arithmetic, &mut ledger)?;
    let (seconds, tokens) = (machine::total(&step), asked.batch.tokens());
    let flops = model.train_flops(asked.batch.sequence_tokens);
    let (need, have) = (machine::total(&memory), ledger.figure(part, "memory_bytes")?);
    let run = asked.tokens / tokens * seconds;
    let mut answer = Answer::new(format!("How does {} train on {}, in {}?", model.name, part.title, arithmetic.name()));
    answer
        .fact("FLOPs per token", flops, "FLOP")
        .fact("tokens per step", tokens, "")
        .fact("seconds of a step", seconds, "s")
        .fact("tokens/s", tokens / seconds, "")
        .fact("FLOP/s of the model", tokens * flops / seconds, "FLOP/s")
        .fact("hours", run / HOUR, "h")
        .fact("days", run / DAY, "days")
        .fact("memory needed", need, "bytes")
        .fact("memory there is", have, "bytes");
    answer.tables.push(times("Time of a step", &step));
    if need > have {
        answer.notes.push("It does not fit.".into());
    }
    answer.picture = memory_bars(&memory);
    answer.assumptions = ledger.finish()?;
    Ok(answer)
}

fn layout_table(layout: &Layout, cluster: &Cluster, step: &Step) -> Table {
    let mut table = Table::new("Layout and step", ["what", "value", "phase, mean of ranks", "seconds"]);
    let phases = [
        ("1F", step.phases.forward),
        ("1B", step.phases.backward),
        ("1W", step.phases.weight),
        ("1F1B", step.phases.pair),
        ("bubble", step.phases.idle),
        ("optimizer", step.optimizer),
    ];
    let values = [
        ("pipeline (ranks)", layout.pipeline.to_string()),
        ("experts over (ranks)", layout.expert.to_string()),
        ("pipelines side by side", layout.data.to_string()),
        ("micro-batches each", layout.micro_batches.to_string()),
        ("schedule", layout.schedule.name().to_owned()),
        ("products in", cluster.arithmetic.name().to_owned()),
    ];
    for ((what, value), (phase, seconds)) in values.into_iter().zip(phases) {
        table.row([what.into(), value, phase.into(), format!("{seconds:.3}")]);
    }
    table
}

fn links_table(step: &Step, cluster: &Cluster, layout: &Layout) -> Table {
    let mut table = Table::new("Sent by one rank per step", ["what", "bytes", "at", "seconds, if alone"]);
    let links = [
        ("tokens to experts of other nodes", step.links.experts_between_nodes, cluster.scale_out),
        ("tokens to experts within the node", step.links.experts_within_node, cluster.scale_up),
        ("hidden states along the pipeline", step.links.pipeline, cluster.link(layout.pipeline * layout.expert)),
        ("gradients and weights", step.links.data, cluster.link(cluster.count)),
    ];
    for (what, bytes, link) in links {
        let (at, seconds) = match link {
            Some(link) if bytes > 0.0 => (quantity(link, "bytes/s"), format!("{:.3}", bytes / link)),
            _ => ("-".to_owned(), "-".to_owned()),
        };
        table.row([what.into(), quantity(bytes, "bytes"), at, seconds]);
    }
    table
}
