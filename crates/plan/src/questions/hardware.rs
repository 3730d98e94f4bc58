//! Which parts are known, and which rules bind their export?

use crate::answer::{Answer, Table, quantity};
use crate::hardware::{Hardware, unit_of};
use crate::picture::Picture;

/// The parts with their figures, rules and sources.
pub fn hardware(hardware: &Hardware) -> Answer {
    let mut answer = Answer::new("Which parts are known?");
    let shown = [
        "memory_bytes",
        "memory_bandwidth",
        "bf16_flops",
        "fp8_flops",
        "scale_up_bandwidth",
        "scale_out_bandwidth",
        "power",
        "rent",
    ];
    let names = ["memory", "its rate", "BF16", "FP8", "in the node", "between nodes", "power", "rent/h"];
    let mut table = Table::new("Figures (dense rates; links per direction; - has no source)", ["part"; 1]);
    table.columns.extend(names.map(str::to_owned));
    let mut rules = Table::new("Rules of export", ["part", "rule", "source"]);
    let mut sources = Table::new("Sources", ["part", "figure", "value", "source"]);
    for part in &hardware.parts {
        let unit = |figure: &str| unit_of(figure).unwrap_or_default();
        let cell = |figure: &str| match part.figures.get(figure) {
            Some(known) if figure == "rent" => quantity(known.value, "USD"),
            Some(known) => quantity(known.value, unit(figure)),
            None => "-".to_owned(),
        };
        let mut row = vec![part.name.clone()];
        row.extend(shown.map(cell));
        table.rows.push(row);
        for (figure, known) in &part.figures {
            let value = quantity(known.value, unit(figure));
            sources.row([part.name.clone(), figure.clone(), value, known.source.clone()]);
        }
        if let Some(export) = &part.export {
            rules.row([part.name.clone(), export.rule.clone(), export.source.clone()]);
        }
    }
    answer.tables = vec![table, rules, sources];
    answer.notes.push(
        "A part of your own is a TOML file: [sources] with title and date, and [[part]] rows as in crates/plan/hardware/parts.toml; \
         give it with --hardware FILE. A rule is that of its date: ask a lawyer, not this table."
            .into(),
    );
    let rates = hardware.parts.iter().filter_map(|part| {
        let rate = part.figures.get("memory_bandwidth")?;
        Some((part.name.clone(), rate.value / 1e9))
    });
    answer.picture = Picture::bars("Rate of memory", "GB/s", rates);
    answer
}
