//! AddressSanitizer over the tests of the crates that hold `unsafe` and of those above them: `cargo xtask sanitize`.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::cargo;
use crate::fuzz::host;

const PACKAGES: [&str; 8] = [
    "minke-sys",
    "minke-kernels",
    "minke-tensor",
    "minke-model",
    "minke-weights",
    "minke-engine",
    "minke-text",
    "minke-eval",
];
/// Buffers get memory of their exact size, so that a read or write behind one is seen (`crates/kernels/src/device.rs`).
const FLAGS: &str = "-Zsanitizer=address --cfg=exact_buffers";

/// Runs the tests under AddressSanitizer, after it has found the overflow that an example of `kernels` commits.
///
/// # Errors
/// If the planted overflow is not found, the tests do not build, or one of them fails.
pub fn run(root: &Path) -> Result<()> {
    let host = host()?;
    let build = |command: &mut Command| {
        // The sanitizer is unstable in rustc, which takes the option from a stable compiler only so.
        command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", FLAGS).args(["--profile", "checked", "--target", &host]);
    };
    println!("== planted overflow");
    let mut planted = cargo(root);
    planted.arg("run");
    build(&mut planted);
    let planted = planted.args(["--quiet", "--package", "minke-kernels", "--example", "overflow"]).output()?;
    let said = String::from_utf8_lossy(&planted.stderr);
    match said.lines().find(|line| line.contains("ERROR: AddressSanitizer: heap-buffer-overflow")) {
        Some(line) if !planted.status.success() => println!("found: {line}"),
        _ => bail!("AddressSanitizer did not find the planted overflow: {}, {said}", planted.status),
    }
    println!("== tests");
    let mut tests = cargo(root);
    tests.arg("test");
    build(&mut tests);
    tests.args(["--lib", "--tests"]);
    PACKAGES.iter().for_each(|package| {
        tests.args(["--package", package]);
    });
    if !tests.status()?.success() {
        bail!("a test failed under AddressSanitizer");
    }
    Ok(())
}
