//! One file per verb.

mod bench;
mod convert;
mod debug;
mod doctor;
mod eval;
mod fit;
mod imatrix;
mod list;
mod manual;
mod perplexity;
mod pull;
mod quantize;
mod report;
mod rm;
mod run;
mod show;
mod train;

use std::io::Write;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::args::Command;

/// Does what the command line asks for.
///
/// # Errors
/// Whatever went wrong; `main` prints it and ends with its exit code.
pub fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Train(args) => train::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Report(args) => report::run(args),
        Command::Show(args) => show::run(&args),
        Command::Fit(args) => fit::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::List(args) => list::run(&args),
        Command::Rm(args) => rm::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Perplexity(args) => perplexity::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Quantize(args) => quantize::run(&args),
        Command::Imatrix(args) => imatrix::run(&args),
        Command::Debug(args) => debug::run(args),
        Command::Completions(shell) => manual::completions(shell),
        Command::Man(folder) => manual::pages(&folder),
    }
}

/// Prints a line to stdout.
fn print_line(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")
}

/// Prints a value as one line of JSON.
fn print_json(value: &impl Serialize) -> Result<()> {
    print_line(&serde_json::to_string(value)?)
}
