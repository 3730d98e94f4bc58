//! The checks of `cargo xtask check`, as functions that tests call too.
//!
//! Every check returns its complaints as lines, one per fault, each saying what is wrong, where, and what to do; an
//! empty list means that the rule holds. `Err` is kept for what stops a check from running at all.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

pub mod bench;
pub mod check;
pub mod emulate;
pub mod faults;
pub mod figures;
pub mod fuzz;
pub mod golden;
pub mod intrinsics;
pub mod kill;
pub mod layers;
pub mod pages;
pub mod paper_map;
pub mod quarantine;
pub mod sanitize;
pub mod sizes;
pub mod source;
pub mod timings;

/// The root of the repository that this program was built from.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("invariant: xtask lies in a folder of the root").to_path_buf()
}

/// A command that runs the cargo that runs this program, in the root of the repository.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// What a command prints on stdout, without the last line break.
///
/// # Errors
/// If the command cannot be started or fails.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !out.status.success() {
        bail!("{command:?} failed ({}): {}", out.status, String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8(out.stdout)?.trim_end().to_string())
}

/// What `cargo metadata` says about the packages of the workspace.
///
/// # Errors
/// If cargo fails or prints something else.
pub fn metadata(root: &Path) -> Result<Vec<serde_json::Value>> {
    let text = output(cargo(root).args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let mut value: serde_json::Value = serde_json::from_str(&text)?;
    match value["packages"].take() {
        serde_json::Value::Array(packages) => Ok(packages),
        _ => bail!("cargo metadata printed no packages"),
    }
}

/// A path as it is written in the project: from the root, with forward slashes.
pub fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/")
}
