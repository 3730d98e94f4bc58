//! Build times, appended to `bench/results/build.csv`.

use std::path::Path;
use std::time::{Instant, SystemTime};

use anyhow::{Result, bail};

use crate::bench::{append, commit, date, machine};
use crate::cargo;
use crate::source::{project_files, read, tokens};

const COLUMNS: &str = "date,commit,machine,cold_build_s,touch_kernel_s,packages,source_lines,tests,binary_bytes";
/// Of no use to any other build, so that the cold one is cold.
const TARGET: &str = "target/timings";
const TOUCHED: &str = "crates/kernels/src/lib.rs";

/// Builds the workspace from nothing and once more after a kernel was touched; records the seconds and what was built.
///
/// # Errors
/// If a build fails.
pub fn run(root: &Path) -> Result<()> {
    let target = root.join(TARGET);
    if target.exists() {
        std::fs::remove_dir_all(&target)?;
    }
    // What is downloaded is not what is measured.
    build(root, &["fetch", "--quiet"])?;
    let cold = build(root, &["build", "--release", "--workspace", "--target-dir", TARGET])?;
    std::fs::File::options().append(true).open(root.join(TOUCHED))?.set_modified(SystemTime::now())?;
    let touch = build(root, &["build", "--release", "--workspace", "--target-dir", TARGET])?;
    let binary = std::fs::metadata(target.join("release/minke"))?.len();
    std::fs::remove_dir_all(&target)?;

    let packages = read(&root.join("Cargo.lock"))?.matches("[[package]]").count();
    let (mut lines, mut tests) = (0, 0);
    for path in project_files(root)? {
        let text = read(&path)?;
        lines += text.lines().count();
        tests +=
            tokens(&text).windows(3).filter(|w| w[0].text == "[" && w[1].text == "test" && w[2].text == "]").count();
    }
    let (date, commit, machine) = (date()?, commit(root)?, machine()?);
    let line = format!("{date},{commit},{machine},{cold:.1},{touch:.1},{packages},{lines},{tests},{binary}");
    println!("{COLUMNS}\n{line}");
    append(&root.join("bench/results/build.csv"), COLUMNS, &line)
}

/// The seconds that a command of cargo took.
fn build(root: &Path, arguments: &[&str]) -> Result<f64> {
    let start = Instant::now();
    if !cargo(root).args(arguments).status()?.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(start.elapsed().as_secs_f64())
}
