//! `minke rm`: removes a downloaded model with the bytes that nothing else uses.

use anyhow::Result;
use minke_chat::gigabytes;
use minke_hub::ModelName;
use serde_json::json;

use super::{print_json, print_line};
use crate::args::Rm;
use crate::environment;
use crate::error::Exit;

/// Runs `minke rm`.
pub fn run(args: &Rm) -> Result<()> {
    let model = ModelName::parse(&args.name)?;
    if let Some(revision) = &model.revision {
        let reason = format!("names revision {revision}; a model is removed with all its revisions, by its name");
        return Err(Exit::Usage.because(format!("{}: {reason}", args.name)));
    }
    let removed = environment::cache().remove(&model)?;
    if removed.files == 0 && removed.bytes == 0 {
        return Err(Exit::BadFile.because(format!("{model}: not downloaded; minke list says what is")));
    }
    if args.output.json {
        return print_json(&json!({ "name": model.to_string(), "files": removed.files, "freed_bytes": removed.bytes }));
    }
    print_line(&format!("{model}: {} files removed, {} freed", removed.files, gigabytes(removed.bytes)))
}
