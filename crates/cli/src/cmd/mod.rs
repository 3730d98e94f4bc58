//! One file per command.

mod bench;
mod config;
mod convert;
mod debug;
mod doctor;
mod eval;
mod fit;
mod imatrix;
mod launch;
mod list;
mod manual;
mod pack;
mod perplexity;
mod plan;
mod pull;
mod quantize;
mod report;
mod rm;
mod run;
mod serve;
mod show;
mod train;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use minke_chat::ChatModel;
use minke_tensor::Device;
use minke_weights::{Archive, Packed};
use serde::Serialize;

use crate::args::Verb;
use crate::environment;

/// Does what the command line asks for.
///
/// # Errors
/// Whatever went wrong; `main` prints it and ends with its exit code.
pub fn dispatch(verb: Verb) -> Result<()> {
    match verb {
        Verb::Run(args) => run::run(args),
        Verb::Serve(args) => serve::run(&args),
        Verb::Launch(args) => launch::run(&args),
        Verb::Config(args) => config::run(&args),
        Verb::Train(args) => train::run(&args),
        Verb::Eval(args) => eval::run(&args),
        Verb::Report(args) => report::run(&args),
        Verb::Show(args) => show::run(&args),
        Verb::Fit(args) => fit::run(&args),
        Verb::Plan(args) => plan::run(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Pull(args) => pull::run(&args),
        Verb::List(args) => list::run(&args),
        Verb::Rm(args) => rm::run(&args),
        Verb::Pack(args) => pack::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Perplexity(args) => perplexity::run(&args),
        Verb::Convert(args) => convert::run(&args),
        Verb::Quantize(args) => quantize::run(&args),
        Verb::Imatrix(args) => imatrix::run(&args),
        Verb::Debug(args) => debug::run(&args),
        Verb::Completions { shell } => manual::completions(shell),
        Verb::Man { folder } => manual::pages(&folder),
    }
}

/// The packed copy of a model, if there is one; a line says why one that is there is not used.
fn packed(archive: &Archive, device: &Device) -> Option<Packed> {
    let found = environment::packed()?.find(archive, device);
    found.unwrap_or_else(|reason| {
        eprintln!("minke: {reason}");
        None
    })
}

/// Loads a model with its adapter, if it has one, for so many requests at once; prints what is unusual to stderr.
fn chat_model(path: &Path, adapter: Option<&Path>, device: &Device, max_running: usize) -> Result<ChatModel> {
    let mut model = ChatModel::open_for(path, device, max_running, environment::packed().as_ref())?;
    if let Some(folder) = adapter {
        model = model.with_adapter(folder)?;
    }
    model.notes.iter().for_each(|note| eprintln!("minke: {note}"));
    Ok(model)
}

/// Opens the files of a model and prints what is unusual about them to stderr.
fn open(path: &Path) -> Result<Archive> {
    let archive = Archive::open(path)?;
    archive.notes.iter().for_each(|note| eprintln!("minke: {note}"));
    Ok(archive)
}

/// Prints a line to stdout.
fn print_line(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")
}

/// Prints a value as one line of JSON.
fn print_json(value: &impl Serialize) -> Result<()> {
    print_line(&serde_json::to_string(value)?)
}
