//! The test that a killed run ends with the same bytes: `cargo xtask kill [RUN.toml] [POINTS]` runs it once
//! uninterrupted, once killed with SIGKILL at random points of every stage, a third of them inside a save, and compares
//! every file that the seed determines. A control that resumes without the saved data cursor must differ.
//!
//! A point is a length of the stage's `metrics.jsonl`, and behind it a share of a step's time or, inside a save, a number
//! of files written: points lie as far apart on a slow machine as on a fast one, and there is progress between them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// Looks at the folder this often while the run goes on.
const POLL: Duration = Duration::from_micros(300);
/// Points lie in this part of a stage, so that its last steps are left to be killed in.
const REACH: f64 = 0.95;
/// A checkpoint has at least this many files: weights, optimizer, state, checksums.
const FILES: f64 = 4.0;

/// Runs the test: `points` kills, shared out evenly over the stages.
///
/// # Errors
/// If a run fails, a file differs, or the control does not.
pub fn run(root: &Path, toml: &str, points: usize) -> Result<()> {
    build(root)?;
    let out = std::env::temp_dir().join(format!("minke-kill-{}", std::process::id()));
    let peaceful = out.join("peaceful");
    let began = Instant::now();
    finish(root, toml, &peaceful)?;
    println!("uninterrupted: {:.1} s", began.elapsed().as_secs_f64());
    let wanted = hashes(&peaceful)?;

    let killed = out.join("killed");
    let stages = stages_in_order(&peaceful)?;
    let share = points.div_ceil(stages.len());
    for stage in &stages {
        kill_often(root, toml, &killed, stage, share)?;
    }
    finish(root, toml, &killed)?;
    let got = hashes(&killed)?;
    for (file, hash) in &wanted {
        println!("{} {} {file}", if got.get(file) == Some(hash) { "equal " } else { "DIFFER" }, &hash[..16]);
    }
    let differing = wanted.iter().filter(|(file, hash)| got.get(*file) != Some(*hash)).count();
    if got.len() != wanted.len() || differing > 0 {
        bail!("{differing} of {} files differ (kept in {})", wanted.len(), out.display());
    }

    let control = out.join("control");
    let changed = control_without_cursor(root, toml, &control, &stages[0].name)?;
    let log = format!("stages/{}/metrics.jsonl", stages[0].name);
    if hashes(&control)?.get(&log) == wanted.get(&log) {
        bail!("the control that lost its data cursor ({changed}) gives the same {log}: this test cannot fail");
    }
    println!("control without its data cursor: {log} differs, as it must");
    std::fs::remove_dir_all(&out)?;
    Ok(())
}

/// Builds the program as it is run here.
pub(crate) fn build(root: &Path) -> Result<()> {
    let status =
        Command::new("cargo").args(["build", "--quiet", "--release", "-p", "minke-cli"]).current_dir(root).status()?;
    if !status.success() {
        bail!("minke does not build");
    }
    Ok(())
}

fn start(root: &Path, toml: &str, out: &Path) -> Result<Child> {
    let mut command = Command::new(root.join("target/release/minke"));
    command.args(["train", toml, "--out"]).arg(out).current_dir(root);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("minke does not start")
}

pub(crate) fn finish(root: &Path, toml: &str, out: &Path) -> Result<()> {
    if !start(root, toml, out)?.wait()?.success() {
        bail!("`minke train {toml} --out {}` failed", out.display());
    }
    Ok(())
}

/// A stage as the uninterrupted run left it.
struct Stage {
    name: String,
    /// Length of its `metrics.jsonl`.
    bytes: u64,
    /// Mean time of a step.
    step: Duration,
}

/// The stages, in the order in which they were made.
fn stages_in_order(out: &Path) -> Result<Vec<Stage>> {
    let text = std::fs::read_to_string(out.join("run.json"))?;
    let run: serde_json::Value = serde_json::from_str(&text)?;
    let stages = run.pointer("/config/stage").and_then(|stages| stages.as_array());
    let names = stages.context("run.json names no stages")?.iter().filter_map(|s| s["name"].as_str());
    let measured = |name: &str| -> Result<Stage> {
        let folder = out.join("stages").join(name);
        let (mut seconds, mut steps) = (0.0, 0);
        for line in std::fs::read_to_string(folder.join("timings.jsonl"))?.lines() {
            let timings: serde_json::Value = serde_json::from_str(line)?;
            seconds += timings["step_time"].as_f64().context("timings.jsonl has a line without step_time")?;
            steps += 1;
        }
        let step = Duration::from_secs_f64(seconds / f64::from(steps.max(1)));
        Ok(Stage { name: name.to_string(), bytes: length(&folder.join("metrics.jsonl")), step })
    };
    names.map(measured).collect()
}

/// Where a run is killed.
struct Point {
    /// Once `metrics.jsonl` is this long,
    bytes: u64,
    /// after this share of a step, or of the files of a checkpoint,
    rest: f64,
    /// in the next save, or wherever that is.
    inside: bool,
}

/// So many points of a stage in their order, a third of them inside a save.
fn points_of(stage: &Stage, share: usize) -> Vec<Point> {
    let point = |i: usize| Point {
        bytes: (fraction(&stage.name, "bytes", i) * REACH * stage.bytes as f64) as u64,
        rest: fraction(&stage.name, "rest", i),
        inside: i < share.div_ceil(3),
    };
    let mut points: Vec<Point> = (0..share).map(point).collect();
    points.sort_by_key(|point| point.bytes);
    points
}

/// A random number below 1: a function of what it is for.
fn fraction(stage: &str, purpose: &str, index: usize) -> f64 {
    let digest = Sha256::digest(format!("{stage} {purpose} {index}"));
    u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]) as f64 / 2f64.powi(32)
}

/// Kills a run at random points of a stage and prints where.
fn kill_often(root: &Path, toml: &str, out: &Path, stage: &Stage, share: usize) -> Result<()> {
    let (mut places, mut inside) = (Vec::new(), 0);
    for point in points_of(stage, share) {
        let reached = loop {
            let reached = kill_at(root, toml, out, stage, &point)?;
            // The save may have ended between the look and the kill: then once more.
            if !point.inside || reached.inside {
                break reached;
            }
        };
        let percent = 100.0 * reached.bytes as f64 / stage.bytes as f64;
        places.push(format!("{percent:.0}{}", if reached.inside { "s" } else { "" }));
        inside += usize::from(reached.inside);
    }
    println!(
        "{}: killed {} times, {inside} of them inside a save (s), at {} % of its metrics",
        stage.name,
        places.len(),
        places.join(" ")
    );
    Ok(())
}

/// Where a run was when it was dead.
struct Reached {
    bytes: u64,
    inside: bool,
}

/// Starts or resumes the run and kills it at a point of a stage.
fn kill_at(root: &Path, toml: &str, out: &Path, stage: &Stage, point: &Point) -> Result<Reached> {
    let folder = out.join("stages").join(&stage.name);
    let (log, checkpoints) = (folder.join("metrics.jsonl"), folder.join("checkpoints"));
    let (at_start, launched) = (length(&log), SystemTime::now());
    let mut child = start(root, toml, out)?;
    let (mut moved, mut there) = (false, None);
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("the run ended ({status}) before stage {} was killed often enough: give it more steps", stage.name);
        }
        let bytes = length(&log);
        // What the last process wrote behind its checkpoint is cut first, then written again.
        moved |= bytes != at_start;
        if moved && bytes >= point.bytes {
            let since = *there.get_or_insert_with(Instant::now);
            let now = if point.inside {
                files_of_save(&checkpoints, launched).is_some_and(|files| files >= (point.rest * FILES) as usize)
            } else {
                since.elapsed() >= stage.step.mul_f64(point.rest)
            };
            if now {
                child.kill()?;
                child.wait()?;
                if folder.join("done.json").exists() {
                    bail!("stage {} ended before it was killed often enough: give it more steps", stage.name);
                }
                return Ok(Reached { bytes: length(&log), inside: files_of_save(&checkpoints, launched).is_some() });
            }
        }
        std::thread::sleep(POLL);
    }
}

/// How many files the checkpoint has that is being written, if one is: what a dead process left does not count.
fn files_of_save(checkpoints: &Path, launched: SystemTime) -> Option<usize> {
    let entries = std::fs::read_dir(checkpoints).into_iter().flatten().flatten();
    let unfinished = entries.into_iter().find(|entry| entry.file_name().to_string_lossy().ends_with(".tmp"))?;
    let modified = unfinished.metadata().and_then(|data| data.modified()).ok()?;
    (modified > launched).then(|| std::fs::read_dir(unfinished.path()).into_iter().flatten().count())
}

/// The length of a file; 0 if there is none.
fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |data| data.len())
}

/// Kills a run in its first stage, sets the saved data cursor back to zero, lets it end, and returns the file changed.
fn control_without_cursor(root: &Path, toml: &str, out: &Path, stage: &str) -> Result<String> {
    let checkpoints = out.join("stages").join(stage).join("checkpoints");
    let mut child = start(root, toml, out)?;
    let newest = || folders(&checkpoints).into_iter().filter(|f| !f.ends_with("step-00000000")).max();
    while newest().is_none() {
        if child.try_wait()?.is_some() {
            bail!("the control ended before its first checkpoint");
        }
        std::thread::sleep(POLL);
    }
    child.kill()?;
    child.wait()?;
    let newest = newest().context("the control lost its checkpoint")?;
    let path = newest.join("state.json");
    let mut state: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    state["cursor"] = 0.into();
    let text = format!("{}\n", serde_json::to_string_pretty(&state)?);
    // The checksum must fit, or the checkpoint would be passed over.
    let sums_path = newest.join("SHA256SUMS");
    let sums = std::fs::read_to_string(&sums_path)?;
    let changed = |line: &str| match line.split_once("  ") {
        Some((_, "state.json")) => format!("{}  state.json\n", hex(text.as_bytes())),
        _ => format!("{line}\n"),
    };
    std::fs::write(&sums_path, sums.lines().map(changed).collect::<String>())?;
    std::fs::write(&path, text)?;
    finish(root, toml, out)?;
    Ok(path.strip_prefix(out)?.display().to_string())
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.into_iter().map(|entry| entry.path());
    paths
        .filter(|path| path.is_dir() && !path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')))
        .collect()
}

/// The SHA-256 of every file that the seed determines: not the clock's, not the machine's.
pub(crate) fn hashes(out: &Path) -> Result<BTreeMap<String, String>> {
    let (mut found, mut waiting) = (BTreeMap::new(), vec![out.to_path_buf()]);
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let name = path.strip_prefix(out)?.to_string_lossy().into_owned();
            // `state.json` records the length of every log, that of the clock's too, and the checksums cover it.
            let machine = ["timings.jsonl", "run.json", "state.json", "SHA256SUMS", ".lock"];
            let machine = machine.iter().any(|file| name.ends_with(file));
            if !machine {
                found.insert(name, hex(&std::fs::read(&path)?));
            }
        }
    }
    Ok(found)
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
