//! What happens if a node dies?

use crate::Error;
use crate::answer::Answer;
use crate::assumption::Ledger;
use crate::cluster::Cluster;
use crate::hardware::Hardware;
use crate::model::Model;
use crate::picture::Picture;
use crate::questions::train::hours;
use crate::questions::{DAY, HOUR, Price, Train, positive};

/// How often a run stops, what each stop loses, how often to save, and what a node takes with it.
///
/// # Paper
/// V3 4.2 (no rollbacks of its own); rates of failure are Llama 3's
///
/// # Errors
/// As [`super::train`].
pub fn failure(model: &Model, hardware: &Hardware, asked: &Train, mut ledger: Ledger) -> Result<Answer, Error> {
    positive("tokens", asked.tokens)?;
    let part = hardware.part(&asked.part)?;
    let cluster = Cluster::new(part, asked.count, asked.arithmetic, &mut ledger)?;
    let (layout, step, _) = asked.laid_out(model, &cluster, &mut ledger)?;
    let llama = "The Llama 3 Herd of Models, 3.3.4 (2024-07): 419 unexpected interruptions of 16,384 H100 in 54 days";
    let between =
        ledger.positive("hours_between_failures", 16_384.0 * 54.0 * 24.0 / 419.0, "hours of one part", llama)?;
    let restart = ledger.positive("restart_seconds", 600.0, "s", "assumed: find the fault, replace the node, load")?;
    let bandwidth = ledger.positive(
        "storage_bandwidth",
        67.1e9,
        "bytes/s",
        "3FS README (2025-02): GraySort at 3.66 TiB per minute, with 25 storage nodes",
    )?;
    let per_parameter =
        ledger.positive("optimizer_bytes", 8.0, "bytes per parameter", "V3 3.3.3: master and two moments")?;
    let spares = ledger.not_negative("spare_nodes", 1.0, "nodes", "assumed")?;
    let bytes = model.trained_parameters() * per_parameter;
    let save = bytes / bandwidth;
    let mean_time = between / asked.count as f64 * HOUR;
    // Young's rule: the interval that loses least to saving and to work done again.
    let interval = (2.0 * save * mean_time).sqrt();
    let lost = (save / interval + (interval / 2.0 + restart + save) / mean_time).min(1.0);
    let work = hours(asked, model, &cluster, step.seconds);
    if lost >= 0.95 {
        return Err(Error::Impossible(format!(
            "{} x {} fail every {:.0} s, and saving takes {save:.0} s: nearly all time is lost; save faster (--set \
             storage_bandwidth) or use parts that fail less",
            asked.count, part.name, mean_time
        )));
    }
    let extra = work * lost / (1.0 - lost);
    let mut answer = Answer::new(format!(
        "What happens if a node dies in the training of {} on {} x {}?",
        model.name, asked.count, part.title
    ));
    answer
        .fact("a failure every", mean_time / HOUR, "hours")
        .fact("failures during the run", work / between, "")
        .fact("bytes of a checkpoint", bytes, "bytes")
        .fact("seconds to save it", save, "s")
        .fact("save every (Young)", interval / 60.0, "minutes")
        .fact("work done again per failure, on average", interval / 2.0 / 60.0, "minutes")
        .fact("time lost in all", lost, "share")
        .fact("days without failures", work / asked.count as f64 * HOUR / DAY, "days")
        .fact("days with them", (work + extra) / asked.count as f64 * HOUR / DAY, "days")
        .fact("extra hours of the part", extra, "");
    Price::of(part, extra, &mut ledger)?.add_to(&mut answer);
    let replicas = asked.count / layout.replica();
    let with_spare = if spares >= 1.0 {
        "a spare node takes its place; all load the last checkpoint and go on".to_owned()
    } else if replicas > 1 {
        format!(
            "without a spare, the {} ranks of its copy of the model stop, and {} of {replicas} copies go on at {:.0} % of the rate",
            layout.replica(),
            replicas - 1,
            100.0 * (replicas - 1) as f64 / replicas as f64
        )
    } else {
        "without a spare nothing goes on: there is one copy of the model, and every rank holds a part of it".to_owned()
    };
    answer.notes.push(format!(
        "A copy of the model lies on {} ranks (pipeline {}, experts over {}), so one dead node of {} stops all {} ranks at the next \
         exchange; {with_spare}.",
        layout.replica(),
        layout.pipeline,
        layout.expert,
        cluster.per_node,
        asked.count
    ));
    let parts = [
        ("saving", save / interval),
        ("work done again", interval / 2.0 / mean_time),
        ("restarts", (restart + save) / mean_time),
    ];
    answer.picture = Picture::bars("Time lost", "%", parts.map(|(name, share)| (name.to_owned(), 100.0 * share)));
    answer.assumptions = ledger.finish()?;
    Ok(answer)
}
