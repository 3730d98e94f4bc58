//! Which part under a rule of export can train or serve a model, how many, how long?

use crate::Error;
use crate::answer::{Answer, Table, grouped};
use crate::assumption::Ledger;
use crate::hardware::Hardware;
use crate::model::Model;
use crate::picture::Picture;
use crate::questions::cheapest::ways;
use crate::questions::{Cheapest, positive};
use crate::serve::{Unit, decode};

/// A search among parts under rules of export.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Restricted {
    /// Tokens of the training run.
    pub tokens: f64,
    /// Days that it may take.
    pub days: f64,
    /// Most of a part.
    pub most: usize,
    /// Tokens of a user who is served.
    pub context_tokens: f64,
}

impl Restricted {
    /// V3's run in two months, and users with as much context as DeepSeek's.
    pub fn new(tokens: f64) -> Self {
        Self { tokens, days: 60.0, most: 16_384, context_tokens: 4989.0 }
    }
}

/// For each part with a recorded rule: the number that trains in time, the number that holds and serves the model.
///
/// # Errors
/// If nothing is known about any.
pub fn export(model: &Model, hardware: &Hardware, asked: &Restricted, mut ledger: Ledger) -> Result<Answer, Error> {
    positive("tokens", asked.tokens)?;
    positive("days", asked.days)?;
    let mut answer = Answer::new(format!(
        "Which part under a rule of export trains {} on {} tokens within {} days, or serves it?",
        model.name,
        grouped(asked.tokens),
        grouped(asked.days)
    ));
    let mut table = Table::new(
        "Parts with a recorded rule",
        [
            "part",
            "since",
            "train: count",
            "days",
            "MFU",
            "serve: ranks",
            "users per rank",
            "tokens/s of a user",
            "tokens/s per rank",
        ],
    );
    let mut bars = Vec::new();
    for part in hardware.parts.iter().filter(|part| part.export.is_some()) {
        let search = Cheapest { days: Some(asked.days), most: asked.most, ..Cheapest::new(asked.tokens) };
        let mut row = vec![part.name.clone(), part.export.as_ref().map_or(String::new(), |rule| rule.date.clone())];
        match ways(model, part, &search, &mut ledger) {
            Ok(found) => match found.iter().find(|way| way.days <= asked.days) {
                Some(way) => {
                    row.extend([
                        way.count.to_string(),
                        format!("{:.1}", way.days),
                        format!("{:.1} %", 100.0 * way.mfu),
                    ]);
                    bars.push((part.name.clone(), way.count as f64));
                }
                None => {
                    let fastest = found.iter().min_by(|a, b| a.days.total_cmp(&b.days));
                    let (count, days) = fastest.map_or((0, f64::NAN), |way| (way.count, way.days));
                    row.extend(["-"; 3].map(str::to_owned));
                    answer.notes.push(format!("{}: {count} take {} days.", part.name, grouped(days)));
                }
            },
            Err(error) => {
                row.extend(["-"; 3].map(str::to_owned));
                answer.notes.push(error.to_string());
            }
        }
        let mut reason = None;
        let served = (0..=10).map(|power| 1usize << power).find_map(|ranks| {
            let served = Unit::new(part, ranks, model, &mut ledger)
                .and_then(|unit| decode(model, &unit, None, asked.context_tokens, &mut ledger));
            served.map_err(|error| reason = Some(error.to_string())).ok().map(|served| (ranks, served))
        });
        match served {
            Some((ranks, decode)) => row.extend([
                ranks.to_string(),
                grouped(decode.users),
                format!("{:.1}", 1.0 / decode.seconds),
                format!("{:.0}", decode.tokens_per_second),
            ]),
            None => {
                row.extend(["-"; 4].map(str::to_owned));
                answer.notes.extend(reason);
            }
        }
        table.rows.push(row);
    }
    answer.notes.dedup();
    answer.tables.push(table);
    let mut rules = Table::new("Their rules", ["part", "rule", "source"]);
    for part in &hardware.parts {
        if let Some(export) = &part.export {
            rules.row([part.name.clone(), export.rule.clone(), export.source.clone()]);
        }
    }
    answer.tables.push(rules);
    answer.picture = Picture::bars("Parts that train it in time", "parts", bars);
    answer.assumptions = ledger.finish()?;
    Ok(answer)
}
