//! The tasks of the project: `cargo xtask` prints them.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use xtask::{bench, check, emulate, faults, fuzz, golden, kill, layers, paper_map, root, sanitize, timings};

const USAGE: &str = "cargo xtask TASK
  check [--slow]              format, lints, arrows, quarantine, paper map, test data, intrinsics, documentation; largest files
                              (--slow: also the test targets that are too slow for `cargo test`)
  layers                      arrows between crates and modules against ARCHITECTURE.md
  paper-map                   write docs/paper-map.md from the `# Paper` sections of the rustdoc
  golden [FILE|--verify|--record]
                              rebuild testdata/ by the commands of its manifest, or the one that makes FILE; only
                              compare; only record the hashes
  bench OP|all                time an op of kernels, append to bench/results/<machine>.csv
  kill [RUN.toml] [POINTS]    kill a run at random points and compare its bytes with an uninterrupted one
                              (runs/kill.toml, 50)
  faults [POINTS]             let each call of a run that writes fail (or so many of them), go on, and compare the bytes (Debian: strace)
  fuzz TARGET [RUNS|min]      run a target of fuzz/ on its corpus and mutants of it (1000000), or make the corpus smaller
  sanitize                    run the tests of the crates around `unsafe` under AddressSanitizer
  emulate                     run the tests of the kernels for aarch64 in an emulator (Debian: qemu-user, gcc-aarch64-linux-gnu)
  timings                     time a cold build and one after touching a kernel, append to bench/results/build.csv";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&root(), &words) {
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How the task ended; none if there is no such task.
fn run(root: &Path, words: &[&str]) -> Option<Result<()>> {
    Some(match words {
        ["check"] => check::run(root, false),
        ["check", "--slow"] => check::run(root, true),
        ["layers"] => layers::complaints(root).and_then(report),
        ["paper-map"] => write_paper_map(root),
        ["golden"] => golden::rebuild(root, None),
        ["golden", "--verify"] => golden::complaints(root).and_then(report),
        ["golden", "--record"] => golden::record(root),
        ["golden", file] => golden::rebuild(root, Some(file)),
        ["bench", op] if !op.starts_with('-') => bench::run(root, op),
        ["kill"] => kill::run(root, "runs/kill.toml", 50),
        ["kill", toml] => kill::run(root, toml, 50),
        ["kill", toml, points] => match points.parse() {
            Ok(points) => kill::run(root, toml, points),
            Err(_) => return None,
        },
        ["faults"] => faults::run(root, None),
        ["faults", points] => match points.parse() {
            Ok(points) => faults::run(root, Some(points)),
            Err(_) => return None,
        },
        ["fuzz", target] => fuzz::run(root, target, "1000000"),
        ["fuzz", target, runs] => fuzz::run(root, target, runs),
        ["sanitize"] => sanitize::run(root),
        ["emulate"] => emulate::run(root),
        ["timings"] => timings::run(root),
        _ => return None,
    })
}

fn write_paper_map(root: &Path) -> Result<()> {
    let map = paper_map::generate(root)?;
    std::fs::write(root.join(paper_map::PAGE), map.page)?;
    println!("wrote {}", paper_map::PAGE);
    report(map.complaints)
}

/// Prints complaints.
///
/// # Errors
/// If there are any.
fn report(complaints: Vec<String>) -> Result<()> {
    complaints.iter().for_each(|line| println!("{line}"));
    match complaints.len() {
        0 => Ok(()),
        n => bail!("{n} to mend"),
    }
}
