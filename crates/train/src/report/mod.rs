//! The report of a run, one HTML file: scores by stage with their intervals, curves, and rollouts to read. It is made
//! from the files of the run's folder alone, at any time, also while the run goes on.

mod bars;
mod benchmark;
mod markup;
mod page;
pub mod plot;
mod read;

use std::path::{Path, PathBuf};

use minke_sys::atomic;

pub use benchmark::{Benchmark, benchmark};
pub(crate) use page::mode;

use crate::Result;

/// File of the report in a run's folder.
pub const REPORT_FILE: &str = "report.html";
/// File of the one picture that tells the run, beside the report: right answers over the steps of reinforcement learning.
pub const CURVE_FILE: &str = "curve.svg";

/// Writes the report of a run and its curve into its folder, each whole or not at all, and returns the path of the report.
///
/// # Errors
/// If the folder holds no run, or a file cannot be read or written.
pub fn write(run: &Path) -> Result<PathBuf> {
    let read = read::run(run)?;
    if let Some(curve) = page::curve(&read) {
        atomic::replace(&run.join(CURVE_FILE), curve.as_bytes())?;
    }
    let path = run.join(REPORT_FILE);
    atomic::replace(&path, page::render(&read).as_bytes())?;
    Ok(path)
}
