//! What did V3 and R1 cost?

use minke_spec::cost::GpuHours;

use crate::Error;
use crate::answer::{Answer, Table, grouped, quantity};
use crate::assumption::Ledger;
use crate::cluster::{Batch, Cluster, Layout};
use crate::hardware::Hardware;
use crate::model::Model;
use crate::picture::Picture;
use crate::questions::{DAY, HOUR};
use crate::time::train_step;

const TRILLION: f64 = 1e12;

/// What the published training of V3 or R1 cost, recomputed: the published sums from their published parts, and beside
/// them what the simulation of a step gives without them.
///
/// # Paper
/// - V3 Table 1; V3 4.2; ISCA25 Tables 2, 4
/// - Test: crates/plan/tests/published_costs.rs
///
/// # Errors
/// If the model is another, as nothing is published about it.
pub fn cost(model: &Model, hardware: &Hardware, mut ledger: Ledger) -> Result<Answer, Error> {
    let h800 = hardware.part("h800")?;
    let rent = ledger.figure(h800, "rent")?;
    let mut answer = match model.name.to_lowercase().as_str() {
        "deepseek-v3" => v3(model, hardware, rent, &mut ledger)?,
        "deepseek-r1" | "deepseek-r1-zero" => r1(rent, &mut ledger)?,
        other => {
            return Err(Error::Impossible(format!(
                "what {other} cost is not published; ask what it would cost: minke plan train {other} --tokens N"
            )));
        }
    };
    answer.assumptions = ledger.finish()?;
    Ok(answer)
}

fn v3(model: &Model, hardware: &Hardware, rent: f64, ledger: &mut Ledger) -> Result<Answer, Error> {
    let mut answer = Answer::new("What did the training of DeepSeek-V3 cost?");
    let tokens = ledger.positive("tokens", 14.8e12, "tokens", "V3 4.1")?;
    let gpus = ledger.positive("gpus", 2048.0, "H800", "V3 3.1")?;
    let sequences = ledger.positive("batch", 15_360.0, "sequences", "V3 4.2")?;
    let length = ledger.positive("sequence", 4096.0, "tokens", "V3 4.2")?;
    let published_step = ledger.positive("step_seconds", 19.926, "s", "ISCA25 Table 4")?;
    let published_rate = ledger.positive("hours_per_trillion", 180_000.0, "H800 hours", "V3 1, Table 1")?;
    let context = ledger.not_negative("context_extension_hours", 119_000.0, "H800 hours", "V3 Table 1")?;
    let post = ledger.not_negative("post_training_hours", 5_000.0, "H800 hours", "V3 Table 1")?;
    let batch = Batch { sequences: sequences as usize, sequence_tokens: length as usize };
    batch.check()?;
    let flops = model.train_flops(batch.sequence_tokens);
    let per_trillion = |step: f64| gpus * step / batch.tokens() * TRILLION / HOUR;
    let per_day = |step: f64| minke_spec::cost::tokens_per_day(batch.sequences * batch.sequence_tokens, step);

    answer
        .checked("parameters", model.parameters(), "", 671e9, "V3 abstract")
        .checked("FLOPs per token", flops, "FLOP", 250e9, "ISCA25 Table 2")
        .checked("tokens per day, from the step", per_day(published_step), "", 272.8e9, "ISCA25 Table 4")
        .checked("H800 hours per T tokens, from the step", per_trillion(published_step), "", 180_000.0, "V3 Table 1");
    let pretraining = GpuHours::of_tokens(tokens, published_rate);
    let total = GpuHours(pretraining.0 + context + post);
    answer
        .checked("H800 hours of pre-training", pretraining.0, "", 2_664_000.0, "V3 Table 1")
        .checked("H800 hours in all", total.0, "", 2_788_000.0, "V3 Table 1")
        .checked("dollars in all", total.usd(rent), "USD", 5_576_000.0, "V3 Table 1")
        .checked(
            "days of pre-training",
            pretraining.days_on(gpus as usize),
            "days",
            54.2,
            "V3 Table 1 over 2,048 H800",
        );

    let cluster = Cluster::new(hardware.part("h800")?, gpus as usize, None, ledger)?;
    let layout = Layout::of_v3(gpus as usize, batch, model)?;
    let step = train_step(model, &cluster, &layout, batch, ledger)?;
    answer
        .checked("simulated: seconds of a step", step.seconds, "s", 19.926, "ISCA25 Table 4")
        .checked("simulated: H800 hours per T tokens", per_trillion(step.seconds), "", 180_000.0, "V3 Table 1")
        .checked("simulated: MFU, causal", step.mfu, "share", 0.3894, "ISCA25 Table 4");
    let phases = [
        ("1F", step.phases.forward, 1.13),
        ("bubble", step.phases.idle, 2.06),
        ("1B", step.phases.backward, 1.99),
        ("1W", step.phases.weight, 0.48),
        ("1F1B", step.phases.pair, 13.95),
        ("optimizer", step.optimizer, 0.29),
    ];
    let mut table = Table::new(
        "Phases of a step, mean over ranks (the rates are solved from all but the bubble; bubble and step follow)",
        ["phase", "simulated", "published (ISCA25 Table 4)", "off by"],
    );
    for (name, simulated, published) in phases {
        let off = format!("{:+.1} %", 100.0 * (simulated / published - 1.0));
        table.row([name.into(), format!("{simulated:.3} s"), format!("{published:.2} s"), off]);
    }
    answer.tables.push(table);
    let by_part = [("pre-training", pretraining.0), ("context extension", context), ("post-training", post)];
    answer.picture = Picture::bars("Cost of V3", "USD", by_part.map(|(name, hours)| (name.to_owned(), hours * rent)));
    // 1,000 steps at 32K with 1,920 sequences, 1,000 at 128K with 480 (V3 4.3).
    let extension: f64 = [(1920.0, 32_768usize), (480.0, 131_072)]
        .iter()
        .map(|&(sequences, length)| 1000.0 * sequences * length as f64 * model.train_flops(length))
        .sum();
    let hours = extension / (step.mfu * cluster.bf16_flops) / HOUR;
    answer.notes.push(format!(
        "Context extension by FLOPs at the same utilisation would be {} hours; published are {}. Research and failed runs are in \
         none of these numbers (V3 1).",
        grouped(hours),
        grouped(context)
    ));
    Ok(answer)
}

fn r1(rent: f64, ledger: &mut Ledger) -> Result<Answer, Error> {
    let mut answer = Answer::new("What did the training of DeepSeek-R1 cost, on top of V3's?");
    let gpus = ledger.positive("gpus", 512.0, "H800", "R1 (arXiv 2501.12948v2) Table 7")?;
    let zero = ledger.positive("r1_zero_hours", 198.0, "hours", "R1 (arXiv 2501.12948v2) B.4.4: about 198 hours")?;
    let data = ledger.not_negative("sft_data_hours", 5_000.0, "H800 hours", "R1 (arXiv 2501.12948v2) Table 7")?;
    let r1 = ledger.positive("r1_hours", 80.0, "hours", "R1 (arXiv 2501.12948v2) B.4.4: about 80 hours")?;
    let zero = GpuHours::of_cluster(gpus as usize, zero);
    let r1 = GpuHours::of_cluster(gpus as usize, r1);
    let total = GpuHours(zero.0 + data + r1.0);
    let source = "R1v2 Table 7";
    answer
        .checked("H800 hours of R1-Zero", zero.0, "", 101_000.0, source)
        .checked("H800 hours of data for fine-tuning", data, "", 5_000.0, source)
        .checked("H800 hours of R1", r1.0, "", 41_000.0, source)
        .checked("H800 hours in all", total.0, "", 147_000.0, source)
        .checked("dollars in all", total.usd(rent), "USD", 294_000.0, source)
        .fact("days of R1-Zero and R1", (zero.0 + r1.0) / gpus * HOUR / DAY, "days");
    let bars = [("R1-Zero", zero.0), ("data", data), ("R1", r1.0)];
    answer.picture = Picture::bars("Cost of R1", "USD", bars.map(|(name, hours)| (name.to_owned(), hours * rent)));
    answer.notes.push(format!(
        "With V3's base under it (2,788,000 hours) R1 is {} of H800 time.",
        quantity((2_788_000.0 + total.0) * rent, "USD")
    ));
    Ok(answer)
}
