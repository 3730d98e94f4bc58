//! `minke list`: the downloaded models, by this program or another, that can be run.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use minke_chat::gigabytes;
use minke_hub::CachedModel;
use minke_weights::Archive;
use serde::Serialize;

use super::{print_json, print_line};
use crate::args::List;
use crate::environment;

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

/// Runs `minke list`. What cannot be run is named on stderr.
pub fn run(args: &List) -> Result<()> {
    let cache = environment::cache();
    let (mut lines, mut others) = (Vec::new(), Vec::new());
    for model in cache.models() {
        match line(&model) {
            Ok(line) => lines.push(line),
            Err(reason) => others.push(format!("{}: cannot be run: {reason}", model.name)),
        }
    }
    others.iter().for_each(|other| eprintln!("minke: {other}"));
    if args.output.json {
        return print_json(&lines);
    }
    if lines.is_empty() && others.is_empty() {
        eprintln!("nothing was downloaded to {}; minke pull NAME does", cache.root().display());
        return Ok(());
    }
    let width = lines.iter().map(|line| line.name.len()).max().unwrap_or(0);
    lines.iter().try_for_each(|Line { name, bytes, quantization, downloaded, .. }| {
        print_line(&format!("{name:<width$}  {:>9}  {quantization:<10}  {}", gigabytes(*bytes), date(*downloaded)))
    })
}

/// The line of a model, or why it cannot be run.
fn line(model: &CachedModel) -> Result<Line, String> {
    if let Some(file) = &model.missing {
        return Err(format!("{file} is missing; complete it with minke pull, or remove it with minke rm"));
    }
    let archive = Archive::open(&model.path).and_then(|archive| archive.check_weights().map(|()| archive));
    let archive = archive.map_err(|error| error.to_string())?;
    let components = archive.components();
    let most = components.iter().max_by_key(|(_, bytes)| bytes.stored).map(|((_, format), _)| (*format).to_owned());
    Ok(Line {
        name: model.name.to_string(),
        bytes: model.bytes,
        quantization: model.name.quant.clone().or(most).unwrap_or_default(),
        downloaded: seconds(model.when),
        path: model.path.display().to_string(),
    })
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The day of a time in UTC, as 2026-11-27.
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
