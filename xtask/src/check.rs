//! `cargo xtask check`: all checks in one go.

use std::path::Path;

use anyhow::{Result, bail};

use crate::{cargo, figures, golden, intrinsics, layers, metadata, pages, paper_map, quarantine, sizes};

/// How many of the largest files and functions are printed.
const LARGEST: usize = 8;

/// A check by reading: what it looks at, and the function that returns its complaints.
type Reading = (&'static str, fn(&Path) -> Result<Vec<String>>);

const READINGS: [Reading; 7] = [
    ("arrows between crates and modules", layers::complaints),
    ("unsafe, features, environment, devices", quarantine::complaints),
    ("paper map", paper_map::complaints),
    ("paths in the pages", pages::complaints),
    ("figures of README.md", figures::complaints),
    ("test data", golden::complaints),
    ("intrinsics that are calls", intrinsics::complaints),
];

/// Runs format, clippy, the checks by reading and the build of the documentation, and prints what is largest; with
/// `slow` also the tests that plain `cargo test` leaves out.
///
/// # Errors
/// If a check fails; all are run before.
pub fn run(root: &Path, slow: bool) -> Result<()> {
    let mut failed = Vec::new();
    for (what, reading) in READINGS {
        println!("== {what}");
        let complaints = reading(root).unwrap_or_else(|error| vec![format!("{error:#}")]);
        complaints.iter().for_each(|line| println!("{line}"));
        failed.extend((!complaints.is_empty()).then(|| what.to_string()));
    }
    let mut step = |what: &str, arguments: &[&str], flags: &str| -> Result<()> {
        println!("== {what}: cargo {}", arguments.join(" "));
        let mut command = cargo(root);
        if !flags.is_empty() {
            command.env("RUSTDOCFLAGS", flags);
        }
        failed.extend((!command.args(arguments).status()?.success()).then(|| what.to_string()));
        Ok(())
    };
    step("format", &["fmt", "--all", "--check"], "")?;
    step("lints", &["clippy", "--quiet", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"], "")?;
    match cargo(root).args(["deny", "--version"]).output()?.status.success() {
        true => step("dependencies", &["deny", "check", "bans", "licenses", "sources"], "")?,
        false => println!("== dependencies: left out, cargo-deny is not installed"),
    }
    step("documentation", &["doc", "--quiet", "--release", "--workspace", "--no-deps"], "-D warnings")?;
    if slow {
        for (package, test) in slow_tests(root)? {
            let arguments = ["test", "--release", "--package", &package, "--test", &test];
            step(&format!("slow test {test}"), &arguments, "")?;
        }
    }
    let (files, functions) = sizes::largest(root, LARGEST)?;
    for (what, sizes) in [("files", files), ("functions", functions)] {
        println!("== largest {what}, in lines");
        sizes.iter().for_each(|size| println!("{:6} {}", size.lines, size.what));
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    println!("== all in order");
    Ok(())
}

/// Package and name of each test target with `test = false`: too slow for every day.
fn slow_tests(root: &Path) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for package in metadata(root)? {
        for target in package["targets"].as_array().into_iter().flatten() {
            if target["kind"][0] == "test" && target["test"] == false {
                let name = |value: &serde_json::Value| value["name"].as_str().unwrap_or_default().to_string();
                found.push((name(&package), name(target)));
            }
        }
    }
    Ok(found)
}
