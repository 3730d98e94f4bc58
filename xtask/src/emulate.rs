//! The tests of the kernels on the NEON path, in an emulator: `cargo xtask emulate`. It shows bits, not times.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::cargo;

const TARGET: &str = "aarch64-unknown-linux-gnu";
const EMULATOR: &str = "qemu-aarch64";
const LINKER: &str = "aarch64-linux-gnu-gcc";

/// Runs the tests of the kernels for aarch64 under an emulator.
///
/// # Errors
/// If the emulator or the linker is missing, the tests do not build, or one of them fails.
pub fn run(root: &Path) -> Result<()> {
    for tool in [EMULATOR, LINKER] {
        if !Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success()) {
            bail!("{tool} is missing: on Debian `apt-get install qemu-user gcc-aarch64-linux-gnu`");
        }
    }
    let status = cargo(root)
        .args(["test", "--profile", "checked", "--target", TARGET, "--package", "minke-kernels", "--lib"])
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER)
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", format!("{EMULATOR} -L /usr/aarch64-linux-gnu"))
        .status()?;
    if !status.success() {
        bail!("a test failed, or did not build (`rustup target add {TARGET}` installs the target)");
    }
    Ok(())
}
