//! What came out of a run? One HTML file that shows it: scores by stage with their intervals, curves, and rollouts to
//! read. It is made from the files of the run's folder alone, at any time, also while the run goes on.

mod page;
mod plot;
mod read;

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// File of the report in a run's folder.
pub const REPORT_FILE: &str = "report.html";

/// Writes the report of a run into its folder, whole or not at all, and returns its path.
///
/// # Errors
/// If the folder holds no run, or a file cannot be read or written.
pub fn write(run: &Path) -> Result<PathBuf> {
    let html = page::render(&read::run(run)?);
    let (path, temporary) = (run.join(REPORT_FILE), run.join(".report.html"));
    std::fs::write(&temporary, html).map_err(Error::io("write", &temporary))?;
    std::fs::rename(&temporary, &path).map_err(Error::io("write", &path))?;
    Ok(path)
}
