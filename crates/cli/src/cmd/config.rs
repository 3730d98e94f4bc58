//! `minke config`: which settings count, and where they come from.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::{print_json, print_line};
use crate::args::Config;

/// A setting.
#[derive(Serialize)]
struct Line<'a> {
    value: &'a toml::Value,
    origin: &'a str,
}

/// Runs `minke config`.
pub fn run(args: &Config) -> Result<()> {
    let Config::Show { settings, origin, output } = args;
    let resolved = settings.resolve()?;
    if output.json {
        let lines = resolved.origins.iter().map(|(key, value, origin)| (key, Line { value, origin }));
        return print_json(&lines.collect::<BTreeMap<_, _>>());
    }
    for (key, value, from) in &resolved.origins {
        let comment = if *origin { format!("  # {from}") } else { String::new() };
        print_line(&format!("{key} = {value}{comment}"))?;
    }
    Ok(())
}
