//! The test that a failed write loses nothing: `cargo xtask faults [POINTS]` runs runs/faults.toml once for each call that writes
//! (or for so many of them, evenly apart), with that call failing. The run must go on, or end with one line and an exit code;
//! started again, it must end with the bytes of a run in which nothing failed.
//!
//! `strace` lets the calls fail (Debian: strace).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::kill::{build, finish, hashes};

const RUN: &str = "runs/faults.toml";

/// Calls that write, and the errors with which each is to fail.
const CALLS: [(&str, &[&str]); 8] = [
    ("openat", &["ENOSPC", "EIO"]),
    ("write", &["ENOSPC", "EIO"]),
    ("fsync", &["EIO"]),
    ("fdatasync", &["EIO"]),
    ("rename", &["EIO", "ENOSPC"]),
    ("mkdir", &["ENOSPC"]),
    ("unlinkat", &["EIO"]),
    ("ftruncate", &["EIO"]),
];

/// Runs the test at `points` of the calls, or at all.
///
/// # Errors
/// If a run ends otherwise than with success or with a line and the code of a failure or a bad file, or a file differs afterwards.
pub fn run(root: &Path, points: Option<usize>) -> Result<()> {
    build(root)?;
    let folder = std::env::temp_dir().join(format!("minke-faults-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let peaceful = folder.join("peaceful");
    finish(root, RUN, &peaceful)?;
    let wanted = hashes(&peaceful)?;
    let all = places(root, &folder)?;
    let step = points.map_or(1, |points| all.len().div_ceil(points.max(1)));
    // By call: how often it failed, and how runs with a failure ended.
    let mut counts: BTreeMap<&str, BTreeMap<i32, usize>> = BTreeMap::new();
    for &(call, error, when) in all.iter().step_by(step) {
        let out = folder.join("out");
        let what = format!("{call} number {when} failing with {error}");
        let inject = format!("inject={call}:error={error}:when={when}");
        let run = traced(root, &out, &["-e", &inject, "-o", "/dev/null"])?;
        let text = String::from_utf8_lossy(&run.stderr).into_owned();
        let last = text.lines().last().unwrap_or_default();
        match run.status.code() {
            Some(0) => {}
            Some(1 | 4) if last.starts_with("minke: ") => {}
            code => bail!("{what}: the run ended with {code:?}: {text}"),
        }
        finish(root, RUN, &out).with_context(|| what.clone())?;
        let got = hashes(&out)?;
        let differing = || wanted.iter().find(|(file, hash)| got.get(*file) != Some(*hash)).map(|(file, _)| file);
        if let Some(file) = differing() {
            bail!("{what}: {file} differs afterwards (kept in {})", folder.display());
        }
        if let Some(file) = got.keys().find(|file| !wanted.contains_key(*file)) {
            bail!("{what}: {file} is left over (kept in {})", folder.display());
        }
        std::fs::remove_dir_all(&out)?;
        *counts.entry(call).or_default().entry(run.status.code().unwrap_or(-1)).or_default() += 1;
    }
    for (call, ends) in &counts {
        let ends: Vec<String> = ends.iter().map(|(code, count)| format!("{count} with exit code {code}")).collect();
        println!("{call}: {}", ends.join(", "));
    }
    println!("{} files equal after each of {} failures", wanted.len(), all.len().div_ceil(step));
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Runs the run under `strace` with these options.
fn traced(root: &Path, out: &Path, options: &[&str]) -> Result<std::process::Output> {
    let names: Vec<&str> = CALLS.iter().map(|(call, _)| *call).collect();
    let mut command = Command::new("strace");
    command.args(["-f", "--seccomp-bpf", "-qq", "-e", &format!("trace={}", names.join(","))]).args(options);
    command.arg(root.join("target/release/minke")).args(["train", RUN, "--out"]).arg(out).current_dir(root);
    command.stdin(Stdio::null()).stdout(Stdio::null()).output().context("strace does not start; install it")
}

/// Every call of a run that writes: its name, an error, and its number among the calls of that name, from 1.
fn places(root: &Path, folder: &Path) -> Result<Vec<(&'static str, &'static str, usize)>> {
    let (log, out) = (folder.join("calls"), folder.join("counted"));
    let run = traced(root, &out, &["-o", &log.to_string_lossy()])?;
    if !run.status.success() {
        bail!("the run under strace failed: {}", String::from_utf8_lossy(&run.stderr));
    }
    std::fs::remove_dir_all(&out)?;
    let text = std::fs::read_to_string(&log)?;
    let lines: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    let main = lines.first().context("strace saw no call")?.0;
    let mut found = Vec::new();
    for (call, errors) in CALLS {
        let of_call = lines
            .iter()
            .filter_map(|(thread, text)| Some((*thread, text.trim_start().strip_prefix(call)?.strip_prefix('(')?)));
        let mut number = 0;
        for (thread, arguments) in of_call {
            let writes = match call {
                // Files that are only read, and what goes to the terminal, are another matter.
                "openat" => arguments.contains("O_CREAT"),
                "write" => !arguments.starts_with("1,") && !arguments.starts_with("2,"),
                _ => true,
            };
            if thread != main {
                if writes {
                    bail!("thread {thread} writes too ({call}): numbers of calls are those of one thread");
                }
                continue;
            }
            number += 1;
            if writes {
                found.extend(errors.iter().map(|error| (call, *error, number)));
            }
        }
    }
    Ok(found)
}
