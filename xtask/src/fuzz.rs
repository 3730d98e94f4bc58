//! Fuzzing: `cargo xtask fuzz TARGET [RUNS]` builds a target of `fuzz/` with coverage counters (`fuzz/rustc.sh`), on stable
//! Rust, and lets libFuzzer run it from its corpus; what reaches new code is added there. `cargo xtask fuzz TARGET min` keeps of
//! the corpus what covers the same with less.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Bytes of an input, at most.
const MOST_BYTES: usize = 6 << 10;
/// Seconds after which an input counts as a hang; MiB that one may take.
const LIMITS: [&str; 2] = ["-timeout=5", "-rss_limit_mb=2048"];

/// Runs a target, or makes its corpus smaller.
///
/// # Errors
/// If it does not build, there is no such target, or an input made it fail.
pub fn run(root: &Path, target: &str, runs: &str) -> Result<()> {
    let folder = root.join("fuzz");
    let corpus = folder.join("corpus").join(target);
    if !corpus.is_dir() {
        bail!("{target}: no such target; they are the folders of fuzz/corpus");
    }
    // A triple of its own keeps the flags from build scripts.
    let triple = host()?;
    let build = ["build", "--release", "--target", &triple, "--bin", target];
    let mut cargo = Command::new("cargo");
    cargo.args(build).env("RUSTFLAGS", "--cfg=fuzzing").env("RUSTC_WRAPPER", folder.join("rustc.sh"));
    let status = cargo.current_dir(&folder).status()?;
    if !status.success() {
        bail!("{target} does not build");
    }
    let mut fuzzer = Command::new(folder.join("target").join(triple).join("release").join(target));
    fuzzer.arg(format!("-max_len={MOST_BYTES}")).args(LIMITS).current_dir(&folder);
    if runs == "min" {
        let smaller = folder.join("corpus").join(format!("{target}.new"));
        std::fs::create_dir_all(&smaller)?;
        if !fuzzer.arg("-merge=1").arg(&smaller).arg(&corpus).status()?.success() {
            bail!("{target}: the corpus could not be merged");
        }
        std::fs::remove_dir_all(&corpus)?;
        return Ok(std::fs::rename(smaller, corpus)?);
    }
    let runs: u64 = runs.parse().with_context(|| format!("{runs} is not a number of runs"))?;
    if !fuzzer.arg(format!("-runs={runs}")).arg("-print_final_stats=1").arg(&corpus).status()?.success() {
        bail!("{target}: an input made it fail; libFuzzer wrote it to fuzz/");
    }
    Ok(())
}

/// The name of this machine's target.
pub(crate) fn host() -> Result<String> {
    let out = Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8(out.stdout)?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned).context("rustc -vV does not say the host")
}
