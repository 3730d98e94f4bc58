//! Files that a command line names.

use std::path::Path;

use anyhow::Result;

use crate::error::Exit;

/// The text of a file.
///
/// # Errors
/// If it cannot be read, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let cannot = |error| Exit::BadFile.because(format!("cannot read {}: {error}", path.display()));
    std::fs::read_to_string(path).map_err(cannot)
}
