//! This machine as a part of the planner: figures that were measured here, now.

use std::collections::BTreeMap;

use anyhow::Result;
use minke_chat::MemoryPlanner;
use minke_chat::machine::{
    answer_rates, bandwidth, memory, prompt_rate, prompt_rates, train_pointwise_rate, train_rates, weight_rates,
};
use minke_plan::hardware::{Figure, Part};
use minke_plan::machine::Read;
use minke_spec::{Format, Precision};
use minke_tensor::Device;

/// Bytes of weights that a rate is measured with where no model is meant.
const ANY_MODEL: f64 = 1e9;
/// Width of a token where no model is meant.
const ANY_WIDTH: usize = 2048;
/// The formats whose rates `minke doctor --part` measures: those of published files but for the ones that look codes up in grids, which
/// take long.
const FORMATS: [Format; 15] = [
    Format::F32,
    Format::F16,
    Format::Bf16,
    Format::F8E4M3,
    Format::Q4_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::Q8_0,
    Format::Q2K,
    Format::Q3K,
    Format::Q4K,
    Format::Q5K,
    Format::Q6K,
    Format::Iq4Xs,
];

/// What a token meets of a model's weights.
pub fn read(planner: &MemoryPlanner<'_>) -> Read {
    let [layers, head] = planner.met_by_a_token();
    Read { layers, head }
}

/// A part with the figures by which tokens of answers are predicted: for formats, laid out as a planner says, with tokens of a width.
///
/// # Errors
/// If a format cannot be multiplied.
pub fn for_answers(device: &Device, formats: &BTreeMap<Format, f64>, interleaved: bool, width: usize) -> Result<Part> {
    let mut figures = vec![("memory_bandwidth".to_owned(), bandwidth(device))];
    let rates = weight_rates(device, formats, interleaved, width)?;
    figures.extend(rates.into_iter().map(|(format, rate)| (format!("decode_{}", format.name().to_lowercase()), rate)));
    let rates = answer_rates(device)?;
    figures.extend(named([
        ("cache_bandwidth", rates.cache),
        ("sample_bandwidth", rates.sampling),
        ("operation_seconds", rates.operation),
    ]));
    let figure = |(name, value)| (name, Figure { value, source: "measured now".into() });
    let figures = figures.into_iter().map(figure).collect();
    Ok(Part { name: "here".into(), title: "this machine".into(), figures, export: None })
}

/// All figures of this machine, by the names of the planner.
///
/// # Errors
/// If a format cannot be multiplied.
pub fn figures(device: &Device) -> Result<Vec<(String, f64)>> {
    let mut figures = Vec::new();
    figures.extend(memory().map(|memory| ("memory_bytes".to_owned(), memory.total as f64)));
    let formats = FORMATS.map(|format| (format, ANY_MODEL)).into();
    let of_answers = for_answers(device, &formats, true, ANY_WIDTH)?;
    figures.extend(of_answers.figures.into_iter().map(|(name, figure)| (name, figure.value)));
    for format in FORMATS {
        figures.push((format!("prefill_{}", format.name().to_lowercase()), prompt_rate(device, format, true)?));
    }
    let rates = prompt_rates(device)?;
    figures.extend(named([
        ("prompt_attention_flops", rates.attention),
        ("prompt_pointwise_bandwidth", rates.pointwise),
        ("train_pointwise_bandwidth", train_pointwise_rate(device)?),
    ]));
    for precision in [Precision::F32, Precision::Bf16] {
        let rates = train_rates(device, precision)?;
        let of = |what: &str| format!("{}{what}", precision.name());
        figures.push((of("_flops"), rates.products));
        figures.push((of("_head_flops"), rates.head));
        figures.push((of("_attention_flops"), rates.attention));
    }
    Ok(figures)
}

fn named<const N: usize>(figures: [(&str, f64); N]) -> [(String, f64); N] {
    figures.map(|(name, value)| (name.to_owned(), value))
}
