//! The commit that the program is built from. Runs are recorded with it.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Every commit, checkout and rebase appends to it.
    let log = "../../.git/logs/HEAD";
    if !Path::new(log).exists() {
        return;
    }
    println!("cargo::rerun-if-changed={log}");
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    if let Ok(output) = output
        && output.status.success()
    {
        println!("cargo::rustc-env=MINKE_COMMIT={}", String::from_utf8_lossy(&output.stdout).trim());
    }
}
