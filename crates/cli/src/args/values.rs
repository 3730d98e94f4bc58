//! Values of arguments: text in, checked values out.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use minke_plan::schedule::Schedule;
use minke_spec::Format;
use minke_tensor::Dtype;
use minke_weights::recipe::{Override, Recipe};

pub(super) fn between<const LEAST: usize, const MOST: usize>(text: &str) -> Result<usize, String> {
    let value = text.parse().ok().filter(|value| (LEAST..=MOST).contains(value));
    value.ok_or_else(|| format!("must be a number from {LEAST} to {MOST}"))
}

pub(super) fn at_least<const LEAST: usize>(text: &str) -> Result<usize, String> {
    let value: usize = text.parse().map_err(|error: std::num::ParseIntError| error.to_string())?;
    if value < LEAST { Err(format!("must be at least {LEAST}")) } else { Ok(value) }
}

/// Bytes of a size such as `24G`: powers of 1000, or of 1024 with an i as in `24GiB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_uppercase();
    let base: f64 = if unit.contains('I') { 1024.0 } else { 1000.0 };
    let power = match unit.trim_end_matches('B').trim_end_matches('I') {
        "" => Some(0),
        "K" => Some(1),
        "M" => Some(2),
        "G" => Some(3),
        "T" => Some(4),
        _ => None,
    };
    let bytes = number.parse::<f64>().ok().zip(power).map(|(number, power)| number * base.powi(power));
    bytes
        .filter(|bytes| *bytes >= 1.0)
        .map(|bytes| bytes as u64)
        .ok_or_else(|| "write a size such as 24G or 512M".into())
}

/// A number such as `14.8T`, with K, M, B and T for powers of 1000.
pub(super) fn count(text: &str) -> Result<f64, String> {
    let wrong = || "write a number above 0, such as 8000, 30B or 14.8T".to_owned();
    let (number, power) = match text.char_indices().last().ok_or_else(wrong)? {
        (at, 'k' | 'K') => (&text[..at], 1e3),
        (at, 'm' | 'M') => (&text[..at], 1e6),
        (at, 'b' | 'B' | 'g' | 'G') => (&text[..at], 1e9),
        (at, 't' | 'T') => (&text[..at], 1e12),
        _ => (text, 1.0),
    };
    let value = number.parse::<f64>().map_err(|_| wrong())? * power;
    if value.is_finite() && value > 0.0 { Ok(value) } else { Err(wrong()) }
}

/// The order of work in a pipeline.
pub(super) fn schedule(text: &str) -> Result<Schedule, String> {
    Schedule::named(text).map_err(|error| error.to_string())
}

/// An address to listen on: `127.0.0.1:8090`, or a port of this machine alone.
pub(super) fn address(text: &str) -> Result<std::net::SocketAddr, String> {
    let port = text.parse::<u16>().map(|port| (std::net::Ipv4Addr::LOCALHOST, port).into());
    let advice = "is no address such as 127.0.0.1:8090; without an address, put the flag at the end";
    port.or_else(|_| text.parse()).map_err(|_| advice.into())
}

/// A key and a value of the TOML of a run.
pub(super) fn set(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("is not KEY=VALUE; write for instance --set seed=2".into()),
    }
}

/// The format of tensors of a name.
pub(super) fn tensor_format(text: &str) -> Result<Override, String> {
    let pair = text.split_once('=');
    let found = pair.and_then(|(pattern, format)| {
        Some(Override { pattern: pattern.into(), format: Format::from_name(&format.to_ascii_uppercase())? })
    });
    found.ok_or_else(|| "write NAME=FORMAT, such as 'blk.*.attn_v.weight=q8_0'".into())
}

pub(super) fn recipe() -> impl TypedValueParser<Value = Recipe> {
    let named = |name: String| Recipe::ALL.into_iter().find(|recipe| recipe.name().eq_ignore_ascii_case(&name));
    PossibleValuesParser::new(Recipe::ALL.map(Recipe::name))
        .map(move |name| named(name).expect("invariant: one of the names"))
}

/// Formats of floats.
pub(super) fn float() -> impl TypedValueParser<Value = Format> {
    let named = |name: String| Format::from_name(&name.to_ascii_uppercase()).expect("invariant: one of the names");
    PossibleValuesParser::new(["f32", "f16", "bf16"]).map(named)
}

/// Types of the cache.
pub(super) fn cache_type() -> impl TypedValueParser<Value = Dtype> {
    PossibleValuesParser::new(["f32", "bf16"]).map(|name| if name == "f32" { Dtype::F32 } else { Dtype::Bf16 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_letters_for_powers_of_1000() {
        for (text, value) in [("14.8T", 14.8e12), ("30B", 3e10), ("8000", 8000.0), ("1e12", 1e12), ("4k", 4000.0)] {
            assert_eq!(count(text), Ok(value), "{text}");
        }
        for wrong in ["", "T", "-1B", "0", "many", "1P", "inf"] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1000_or_of_1024() {
        for (text, bytes) in [("512M", 512_000_000), ("24G", 24_000_000_000), ("1.5KiB", 1536), ("7", 7)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "G", "24 apples", "0", "-1G"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
