//! Which models were downloaded, by this program or another?

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use minke_chat::gigabytes;
use minke_hub::CachedModel;
use minke_weights::Archive;
use serde::Serialize;

use super::{print_json, print_line};
use crate::args::List;

/// A model, as a machine reads it.
#[derive(Serialize)]
struct Line {
    name: String,
    bytes: u64,
    /// That of a GGUF file, or the format that most bytes of safetensors have.
    quantization: String,
    /// Seconds since 1970.
    downloaded: u64,
    path: String,
}

/// Runs `minke list`.
pub fn run(args: &List) -> Result<()> {
    let lines: Vec<Line> = args.cache.models().iter().map(line).collect();
    if args.json {
        return print_json(&lines);
    }
    if lines.is_empty() {
        eprintln!("nothing was downloaded to {}; minke pull NAME does", args.cache.root().display());
        return Ok(());
    }
    let width = lines.iter().map(|line| line.name.len()).max().unwrap_or(0);
    lines.iter().try_for_each(|Line { name, bytes, quantization, downloaded, .. }| {
        print_line(&format!("{name:<width$}  {:>9}  {quantization:<10}  {}", gigabytes(*bytes), date(*downloaded)))
    })
}

fn line(model: &CachedModel) -> Line {
    let of_weights = || {
        let archive = Archive::open(&model.path).ok()?;
        let parts = archive.parts();
        let most = parts.iter().max_by_key(|(_, bytes)| bytes.stored)?;
        Some(most.0.1.to_owned())
    };
    Line {
        name: model.name.to_string(),
        bytes: model.bytes,
        quantization: model.name.quant.clone().or_else(of_weights).unwrap_or_else(|| "unreadable".into()),
        downloaded: seconds(model.when),
        path: model.path.display().to_string(),
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns the day of a time in UTC, as 2026-11-27.
fn date(seconds: u64) -> String {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut days, mut year) = (seconds / 86_400, 1970);
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02}", month + 1, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, day) in [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (1_798_761_599, "2026-12-31")] {
            assert_eq!(date(seconds), day);
        }
    }
}
