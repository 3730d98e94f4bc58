//! `minke report`: the report of a run, in its folder, or in a browser while it grows.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::{print_json, print_line};
use crate::args::Report;
use crate::error::Exit;
use crate::{live, runs};

#[derive(Serialize)]
struct Summary<'a> {
    report: &'a Path,
}

/// Runs `minke report`.
pub fn run(args: &Report) -> Result<()> {
    let folder = match args.run.is_dir() {
        true => args.run.clone(),
        false => args.folder.of(&runs::load(&args.run, &[])?),
    };
    if !runs::is_run(&folder) {
        let advice = "give the folder of a run with --out, or train first";
        return Err(Exit::BadFile.because(format!("{}: holds no run; {advice}", folder.display())));
    }
    if let Some(address) = args.live {
        let dashboard = live::dashboard(&folder, address)?;
        eprintln!("dashboard: {}; Ctrl-C ends", dashboard.url());
        return Ok(dashboard.run()?);
    }
    let report = minke_train::report::write(&folder)?;
    match args.output.json {
        true => print_json(&Summary { report: &report }),
        false => print_line(&report.display().to_string()),
    }
}
