//! Where does the report of a run go? Beside what it is made from, or where the person wants it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::train::{default_out, load};
use super::{print_json, print_line};
use crate::args::Report;
use crate::error::Exit;

#[derive(Serialize)]
struct Summary<'a> {
    report: &'a Path,
}

/// Runs `minke report`.
pub fn run(args: Report) -> Result<()> {
    let folder = if args.run.is_dir() { args.run } else { default_out(&load(&args.run, &[])?) };
    if !folder.join("run.json").exists() {
        let advice = "give the output folder of `minke train`, or train first";
        return Err(Exit::BadFile.because(format!("{}: holds no run; {advice}", folder.display())));
    }
    let mut output: PathBuf = minke_train::report::write(&folder)?;
    if let Some(wanted) = args.output {
        std::fs::copy(&output, &wanted).with_context(|| format!("cannot write {}", wanted.display()))?;
        output = wanted;
    }
    if args.json { print_json(&Summary { report: &output }) } else { print_line(&output.display().to_string()) }
}
