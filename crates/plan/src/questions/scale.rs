//! How does a training run scale, and what breaks first?

use crate::Error;
use crate::answer::{Answer, Table};
use crate::assumption::Ledger;
use crate::cluster::{Cluster, Layout};
use crate::hardware::Hardware;
use crate::memory::train_memory;
use crate::model::Model;
use crate::picture::{Curve, Panel, Picture};
use crate::questions::Train;
use crate::schedule::Schedule;
use crate::time::train_step;

/// Step time and memory per rank from few ranks to as many as are asked for, doubling, with one batch and one layout that
/// grows: the pipeline stays, experts are spread over as many ranks as there are, then pipelines stand side by side.
///
/// # Paper
/// V3 3.2 (pipeline of 16, experts over 64)
///
/// # Errors
/// As [`super::train`].
pub fn scale(model: &Model, hardware: &Hardware, asked: &Train, mut ledger: Ledger) -> Result<Answer, Error> {
    let part = hardware.part(&asked.part)?;
    let mut pipeline = asked.pipeline.unwrap_or(16).min(model.config.num_hidden_layers).max(1);
    // The largest power of two, so that doubling keeps it.
    pipeline = 1 << pipeline.ilog2();
    let expert = asked.expert.unwrap_or(64);
    let default = if pipeline == 1 { Schedule::OneFOneB } else { Schedule::DualPipe };
    let schedule = asked.schedule.unwrap_or(default);
    let title = format!("How does {} scale to {} x {}, and what breaks first?", model.name, asked.count, part.title);
    let mut answer = Answer::new(title);
    let columns =
        ["ranks", "experts over", "micro-batches", "step, s", "MFU", "bubble", "memory, GB", "most of it", "fits"];
    let mut table = Table::new("With one batch", columns);
    let (mut steps, mut memories, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    let (mut too_small, mut broken) = (None, None);
    let mut ranks = pipeline;
    while ranks <= asked.count {
        let cluster = Cluster::new(part, ranks, asked.arithmetic, &mut ledger)?;
        let over = expert.min(ranks / pipeline).min(model.experts());
        let layout = match Layout::new(pipeline, over, schedule, ranks, asked.batch, model) {
            Ok(layout) => layout,
            Err(error) => {
                broken.get_or_insert((ranks, error.to_string()));
                break;
            }
        };
        let step = train_step(model, &cluster, &layout, asked.batch, &mut ledger)?;
        let memory = train_memory(model, &cluster, &layout, asked.batch, &mut ledger)?;
        let fits = memory.total() <= cluster.memory;
        if !fits {
            too_small = Some((ranks, memory.largest(), memory.total()));
        }
        let cells = [
            ranks.to_string(),
            over.to_string(),
            layout.micro_batches.to_string(),
            format!("{:.2}", step.seconds),
            format!("{:.1} %", 100.0 * step.mfu),
            format!("{:.1} %", 100.0 * step.phases.idle / step.seconds),
            format!("{:.1}", memory.total() / 1e9),
            memory.largest().to_owned(),
            if fits { "yes" } else { "no" }.to_owned(),
        ];
        table.row(cells);
        steps.push((ranks as f64, step.seconds));
        memories.push((ranks as f64, memory.total() / 1e9));
        limits.push((ranks as f64, cluster.memory / 1e9));
        ranks *= 2;
    }
    if table.rows.is_empty() {
        let reason = broken.map_or(format!("a pipeline of {pipeline} needs as many ranks"), |(_, reason)| reason);
        return Err(Error::invalid("count", asked.count, reason));
    }
    // One doubling further, to say what ends the scaling.
    while broken.is_none() && ranks <= 1 << 20 {
        let over = expert.min(ranks / pipeline).min(model.experts());
        if let Err(error) = Layout::new(pipeline, over, schedule, ranks, asked.batch, model) {
            broken = Some((ranks, error.to_string()));
        }
        ranks *= 2;
    }
    if let Some((ranks, largest, bytes)) = too_small {
        let gigabytes = bytes / 1e9;
        answer.notes.push(format!(
            "Downwards, memory breaks first: {ranks} ranks need {gigabytes:.1} GB each, most of it {largest}."
        ));
    }
    if let Some((ranks, reason)) = broken {
        answer.notes.push(format!("Upwards, the batch breaks first: at {ranks} ranks, {reason}."));
    }
    answer.tables.push(table);
    let curve = |name: &str, points| Curve { name: name.to_owned(), points };
    let ideal = steps.last().map(|&(ranks, seconds)| steps.iter().map(|&(n, _)| (n, seconds * ranks / n)).collect());
    answer.picture = Picture::Curves {
        x: "ranks".into(),
        panels: vec![
            Panel {
                title: "Seconds of a step".into(),
                curves: vec![curve("simulated", steps), curve("in proportion to the last", ideal.unwrap_or_default())],
            },
            Panel {
                title: "Memory of the fullest rank, GB".into(),
                curves: vec![curve("needed", memories), curve("there is", limits)],
            },
        ],
    };
    answer.assumptions = ledger.finish()?;
    Ok(answer)
}
