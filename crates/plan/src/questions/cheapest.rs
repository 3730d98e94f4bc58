//! What is the cheapest way to so many tokens?

use crate::Error;
use crate::answer::{Answer, Table, grouped, quantity};
use crate::assumption::Ledger;
use crate::cluster::Cluster;
use crate::hardware::{Hardware, Part};
use crate::model::Model;
use crate::picture::Picture;
use crate::questions::train::hours;
use crate::questions::{DAY, HOUR, Price, Train, positive};

/// A search for parts and their number.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Cheapest {
    /// Tokens of the run.
    pub tokens: f64,
    /// Days that it may take.
    pub days: Option<f64>,
    /// Most of a part.
    pub most: usize,
    /// The batch, as in [`Train`].
    pub batch: crate::cluster::Batch,
}

impl Cheapest {
    /// A search among up to 2,048 of each part, with V3's batch.
    pub fn new(tokens: f64) -> Self {
        Self { tokens, days: None, most: 2048, batch: Train::new("", 1, tokens).batch }
    }
}

/// One way to train.
pub(super) struct Way {
    pub count: usize,
    pub layout: crate::cluster::Layout,
    pub mfu: f64,
    pub days: f64,
    pub hours: f64,
}

/// The ways to train on a part, by rising count; the reason if there is none.
pub(super) fn ways(model: &Model, part: &Part, asked: &Cheapest, ledger: &mut Ledger) -> Result<Vec<Way>, Error> {
    let (mut found, mut reason) = (Vec::new(), None);
    let mut count = 1;
    while count <= asked.most {
        let train = Train { batch: asked.batch, ..Train::new(&part.name, count, asked.tokens) };
        let cluster = Cluster::new(part, count, None, ledger);
        let way = cluster.and_then(|cluster| {
            let (layout, step, _) = train.laid_out(model, &cluster, ledger)?;
            let hours = hours(&train, model, &cluster, step.seconds);
            let days = hours / count as f64 * HOUR / DAY;
            Ok(Way { count, layout, mfu: step.mfu, days, hours })
        });
        match way {
            Ok(way) => found.push(way),
            Err(error @ (Error::NoFigure { .. } | Error::Impossible(_))) => reason = Some(error),
            Err(error) => return Err(error),
        }
        count *= 2;
    }
    match reason {
        Some(reason) if found.is_empty() => Err(reason),
        _ => Ok(found),
    }
}

/// The cheapest number of each part that has a rent, and of them the cheapest.
///
/// # Errors
/// If no part does it.
pub fn cheapest(model: &Model, hardware: &Hardware, asked: &Cheapest, mut ledger: Ledger) -> Result<Answer, Error> {
    positive("tokens", asked.tokens)?;
    asked.days.map(|days| positive("days", days)).transpose()?;
    let deadline = asked.days.map_or(String::new(), |days| format!(" within {} days", grouped(days)));
    let mut answer = Answer::new(format!(
        "What is the cheapest way to train {} on {} tokens{deadline}?",
        model.name,
        grouped(asked.tokens)
    ));
    let mut best: Vec<(f64, &Part, Way)> = Vec::new();
    let mut without_rent = Vec::new();
    for part in &hardware.parts {
        if !ledger.has(part, "rent") {
            without_rent.push(part.name.as_str());
            continue;
        }
        let found = match ways(model, part, asked, &mut ledger) {
            Ok(found) => found,
            Err(error @ (Error::NoFigure { .. } | Error::Impossible(_))) => {
                answer.notes.push(error.to_string());
                continue;
            }
            Err(error) => return Err(error),
        };
        let shortest = found.iter().map(|way| way.days).fold(f64::MAX, f64::min);
        let in_time = found.into_iter().filter(|way| asked.days.is_none_or(|days| way.days <= days));
        match in_time.min_by(|a, b| a.hours.total_cmp(&b.hours)) {
            Some(way) => {
                let usd = Price::of(part, way.hours, &mut ledger)?.rent.unwrap_or(f64::MAX);
                best.push((usd, part, way));
            }
            None => answer.notes.push(format!(
                "{}: {} of them take {} days at least.",
                part.name,
                asked.most,
                grouped(shortest)
            )),
        }
    }
    best.sort_by(|a, b| a.0.total_cmp(&b.0));
    if !without_rent.is_empty() {
        let names = without_rent.join(", ");
        answer.notes.push(format!("No rent with a source: {names}; --set PART.rent=USD counts one in."));
    }
    let Some((usd, part, way)) = best.first() else {
        return Err(Error::Impossible(format!("no part trains {} so; {}", model.name, answer.notes.join(" "))));
    };
    answer.fact(&format!("cheapest: {} x {}", way.count, part.name), *usd, "USD").fact("days", way.days, "days");
    let mut table = Table::new(
        "The cheapest number of each part",
        ["part", "count", "days", "hours", "MFU", "rent", "pipeline", "experts over", "schedule"],
    );
    for (usd, part, way) in &best {
        table.row([
            part.name.clone(),
            way.count.to_string(),
            grouped(way.days),
            grouped(way.hours),
            format!("{:.1} %", 100.0 * way.mfu),
            quantity(*usd, "USD"),
            way.layout.pipeline.to_string(),
            way.layout.expert.to_string(),
            way.layout.schedule.name().into(),
        ]);
    }
    answer.tables.push(table);
    answer.picture = Picture::bars(
        "Rent",
        "USD",
        best.iter().map(|(usd, part, way)| (format!("{} x {}", way.count, part.name), *usd)),
    );
    answer.assumptions = ledger.finish()?;
    Ok(answer)
}
