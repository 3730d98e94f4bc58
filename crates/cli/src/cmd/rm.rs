//! How is a downloaded model removed? With the bytes that nothing else uses.

use anyhow::Result;
use minke_chat::gigabytes;
use serde_json::json;

use super::{print_json, print_line};
use crate::args::Rm;
use crate::error::Exit;

/// Runs `minke rm`.
pub fn run(args: &Rm) -> Result<()> {
    let Rm { model, cache, json } = args;
    let removed = cache.remove(model)?;
    if removed.files == 0 && removed.bytes == 0 {
        return Err(Exit::BadFile.because(format!("{model}: not downloaded; minke list says what is")));
    }
    if *json {
        return print_json(&json!({ "name": model.to_string(), "files": removed.files, "freed_bytes": removed.bytes }));
    }
    print_line(&format!("{model}: {} files removed, {} freed", removed.files, gigabytes(removed.bytes)))
}
