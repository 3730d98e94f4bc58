//! Parts: what a processor can do, each figure with its source. They are data files; users add their own.

use std::collections::BTreeMap;

use minke_spec::Format;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The figures that a part may have, and their units.
///
/// Rates are dense. Bandwidths of links are per direction: `scale_up` joins the parts of a node, `scale_out` nodes. From `f32_flops` on they
/// are those of a machine that `minke doctor` measured with the engine's own kernels, as is `bf16_flops` there.
pub const FIGURES: [(&str, &str); 21] = [
    ("memory_bytes", "bytes"),
    ("memory_bandwidth", "bytes/s"),
    ("bf16_flops", "FLOP/s"),
    ("fp8_flops", "FLOP/s"),
    ("scale_up_bandwidth", "bytes/s"),
    ("scale_out_bandwidth", "bytes/s"),
    ("parts_per_node", "parts"),
    ("power", "W"),
    ("rent", "USD/h"),
    ("disk_bandwidth", "bytes/s"),
    ("f32_flops", "FLOP/s"),
    ("f32_head_flops", "FLOP/s"),
    ("f32_attention_flops", "FLOP/s"),
    ("bf16_head_flops", "FLOP/s"),
    ("bf16_attention_flops", "FLOP/s"),
    ("train_pointwise_bandwidth", "bytes/s"),
    ("prompt_attention_flops", "FLOP/s"),
    ("prompt_pointwise_bandwidth", "bytes/s"),
    ("cache_bandwidth", "bytes/s"),
    ("sample_bandwidth", "bytes/s"),
    ("operation_seconds", "s"),
];

/// The unit of a figure, if it exists.
///
/// Beside [`FIGURES`] a measured part has two for each format of weights: `decode_q4_k`, the bytes of weights that are multiplied with one
/// token per second, and `prefill_q4_k`, the FLOP per second of products with a prompt.
pub fn unit_of(figure: &str) -> Option<&'static str> {
    let of_format = |prefix: &str| {
        let format = figure.strip_prefix(prefix)?;
        Format::ALL.iter().find(|known| known.name().to_lowercase() == format)
    };
    match FIGURES.iter().find(|(name, _)| *name == figure) {
        Some((_, unit)) => Some(unit),
        None if of_format("decode_").is_some() => Some("bytes/s"),
        None if of_format("prefill_").is_some() => Some("FLOP/s"),
        None => None,
    }
}

/// A value with its source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The value, in the unit of [`FIGURES`].
    pub value: f64,
    /// Title and date of the document that has it.
    pub source: String,
}

/// A rule on exports.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Export {
    /// What it says.
    pub rule: String,
    /// Since when.
    pub date: String,
    /// Title and date of the document that says so.
    pub source: String,
}

/// A processor with its memory and links.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// The name by which it is asked for.
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// Its figures by name; those without a source are absent.
    pub figures: BTreeMap<String, Figure>,
    /// A rule on its export, if one is recorded.
    pub export: Option<Export>,
}

/// The parts that are known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hardware {
    /// In the order of the files.
    pub parts: Vec<Part>,
}

/// A file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    sources: BTreeMap<String, Source>,
    part: Vec<BTreeMap<String, toml::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    title: String,
    date: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportRow {
    rule: String,
    date: String,
    source: String,
}

const KNOWN: &str = include_str!("../hardware/parts.toml");

impl Hardware {
    /// The parts that come with the planner.
    ///
    /// # Errors
    /// Never with the file as it is; a test reads it.
    pub fn known() -> Result<Self, Error> {
        let mut hardware = Self { parts: Vec::new() };
        hardware.add("hardware/parts.toml", KNOWN)?;
        Ok(hardware)
    }

    /// Adds the parts of a file; one of a name that is known takes its place.
    ///
    /// # Errors
    /// If the text is not such a file, a key is unknown, or a figure has no source.
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), Error> {
        let wrong = |reason: String| Error::Hardware { file: file.to_owned(), reason };
        let read: File =
            toml::from_str(text).map_err(|error| wrong(format!("not a file of parts ({})", error.message())))?;
        for row in read.part {
            let part = part(row, &read.sources).map_err(wrong)?;
            self.parts.retain(|known| known.name != part.name);
            self.parts.push(part);
        }
        Ok(())
    }

    /// The part of a name.
    ///
    /// # Errors
    /// If there is none.
    pub fn part(&self, name: &str) -> Result<&Part, Error> {
        let found = self.parts.iter().find(|part| part.name == name);
        found.ok_or_else(|| Error::unknown("part", name, self.parts.iter().map(|part| part.name.as_str())))
    }
}

fn part(mut row: BTreeMap<String, toml::Value>, sources: &BTreeMap<String, Source>) -> Result<Part, String> {
    let mut text = |key: &str| match row.remove(key) {
        Some(toml::Value::String(text)) if !text.trim().is_empty() => Ok(text),
        _ => Err(format!("a part needs {key} = \"...\"")),
    };
    let (name, title) = (text("name")?, text("title")?);
    if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        return Err(format!("part {name:?}: a name has lower-case letters, digits and -"));
    }
    let cited = |key: &str, what: &str| {
        let source =
            sources.get(key).filter(|source| !source.title.trim().is_empty() && !source.date.trim().is_empty());
        let source = source.ok_or_else(|| {
            format!(
                "{name}: {what} cites {key:?}, which is not in [sources] with title and date; a figure needs a source"
            )
        })?;
        Ok::<String, String>(format!("{} ({})", source.title, source.date))
    };
    let (mut figures, mut export) = (BTreeMap::new(), None);
    for (key, value) in row {
        if key == "export" {
            let row: ExportRow =
                value.try_into().map_err(|error: toml::de::Error| format!("{name}: export: {}", error.message()))?;
            export = Some(Export { source: cited(&row.source, "export")?, rule: row.rule, date: row.date });
            continue;
        }
        let Some(unit) = unit_of(&key) else {
            let known: Vec<&str> = FIGURES.iter().map(|(figure, _)| *figure).collect();
            return Err(format!(
                "{name}: {key} is not a figure; figures: {}, decode_FORMAT, prefill_FORMAT, and export",
                known.join(", ")
            ));
        };
        let (value, source): (f64, String) =
            value.try_into().map_err(|_| format!("{name}: {key} must be [value in {unit}, \"key of its source\"]"))?;
        if !(value.is_finite() && value > 0.0) {
            return Err(format!("{name}: {key} = {value} must be a number above 0"));
        }
        let source = cited(&source, &key)?;
        figures.insert(key, Figure { value, source });
    }
    Ok(Part { name, title, figures, export })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_parts_are_sound_and_have_the_published_figures() {
        let hardware = Hardware::known().unwrap();
        for name in ["h800", "h100", "h200", "h20", "a800", "a100", "l20", "rtx-4090", "epyc-9654"] {
            hardware.part(name).unwrap();
        }
        let h800 = hardware.part("h800").unwrap();
        assert_eq!(h800.figures["rent"].value, 2.0);
        assert!(h800.figures["rent"].source.contains("Table 1"));
        let rule = &hardware.part("h20").unwrap().export.as_ref().unwrap().rule;
        assert!(rule.contains("2025-04-09"));
    }

    #[test]
    fn a_figure_without_a_source_is_an_error() {
        let mut hardware = Hardware::known().unwrap();
        let row = "[[part]]\nname = \"mine\"\ntitle = \"Mine\"\n";
        for (text, told) in [
            (format!("{row}rent = [1.0, \"nobody\"]"), "a figure needs a source"),
            (format!("{row}rent = 1.0"), "must be [value in USD/h"),
            (format!("{row}speed = [1.0, \"x\"]"), "speed is not a figure"),
            (format!("{row}rent = [-1.0, \"x\"]"), "above 0"),
            ("[[part]]\nname = \"mine\"".to_owned(), "needs title"),
            ("nonsense".to_owned(), "not a file of parts"),
        ] {
            let error = hardware.add("mine.toml", &text).unwrap_err().to_string();
            assert!(error.starts_with("mine.toml: ") && error.contains(told), "{error}");
        }
        let good = format!("[sources]\nx = {{ title = \"A bill\", date = \"2026-01\" }}\n{row}rent = [1.0, \"x\"]");
        hardware.add("mine.toml", &good).unwrap();
        assert_eq!(hardware.part("mine").unwrap().figures["rent"].source, "A bill (2026-01)");
        let error = hardware.part("yours").unwrap_err().to_string();
        assert!(error.contains("known: h800, h100"), "{error}");
    }
}
