//! Does a run that is killed end with the same bytes? `cargo xtask kill [RUN.toml] [POINTS]` runs it once in peace, once
//! killed with SIGKILL at random points of every stage, a third of them inside a save, and compares every file that the
//! seed determines. A control that resumes without the saved data cursor must differ.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// Looks at the folder this often while the run goes on.
const POLL: Duration = Duration::from_micros(300);

/// Runs the test: `points` kills, shared out evenly over the stages.
///
/// # Errors
/// If a run fails, a file differs, or the control does not.
pub fn run(root: &Path, toml: &str, points: usize) -> Result<()> {
    let status =
        Command::new("cargo").args(["build", "--quiet", "--release", "-p", "minke"]).current_dir(root).status()?;
    if !status.success() {
        bail!("minke does not build");
    }
    let out = std::env::temp_dir().join(format!("minke-kill-{}", std::process::id()));
    let peaceful = out.join("peaceful");
    let began = Instant::now();
    finish(root, toml, &peaceful)?;
    println!("uninterrupted: {:.1} s", began.elapsed().as_secs_f64());
    let wanted = hashes(&peaceful)?;

    let killed = out.join("killed");
    let stages = stages_in_order(&peaceful)?;
    let kills = kill_often(root, toml, &killed, &stages, points)?;
    for (stage, (anywhere, inside)) in stages.iter().zip(&kills) {
        println!("{stage}: killed {} times, {inside} of them inside a save", anywhere + inside);
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
    let changed = control_without_cursor(root, toml, &control, &stages[0])?;
    let log = format!("stages/{}/metrics.jsonl", stages[0]);
    if hashes(&control)?.get(&log) == wanted.get(&log) {
        bail!("the control that lost its data cursor ({changed}) gives the same {log}: this test cannot fail");
    }
    println!("control without its data cursor: {log} differs, as it must");
    std::fs::remove_dir_all(&out)?;
    Ok(())
}

fn start(root: &Path, toml: &str, out: &Path) -> Result<Child> {
    let mut command = Command::new(root.join("target/release/minke"));
    command.args(["train", toml, "--out"]).arg(out).current_dir(root);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("minke does not start")
}

fn finish(root: &Path, toml: &str, out: &Path) -> Result<()> {
    if !start(root, toml, out)?.wait()?.success() {
        bail!("`minke train {toml} --out {}` failed", out.display());
    }
    Ok(())
}

/// Returns the names of the stages, in the order in which they were made.
fn stages_in_order(out: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(out.join("run.json"))?;
    let run: serde_json::Value = serde_json::from_str(&text)?;
    let stages = run.pointer("/config/stage").or(run.pointer("/stage")).and_then(|stages| stages.as_array());
    let names = stages.context("run.json names no stages")?.iter().filter_map(|s| s["name"].as_str());
    Ok(names.map(str::to_string).collect())
}

/// Kills the run until every stage had its share, and returns for each how often anywhere and inside a save.
fn kill_often(root: &Path, toml: &str, out: &Path, stages: &[String], points: usize) -> Result<Vec<(usize, usize)>> {
    let share = points.div_ceil(stages.len());
    let inside_share = share.div_ceil(3);
    let mut kills = vec![(0, 0); stages.len()];
    // Any sequence of delays will do; this one needs no clock and no generator.
    let mut delay = 7u64;
    while kills.iter().any(|(anywhere, inside)| anywhere + inside < share) {
        let mut child = start(root, toml, out)?;
        let mut entered: Option<(usize, Instant)> = None;
        delay = (delay * 1103 + 12_345) % 900;
        loop {
            if let Some(status) = child.try_wait()? {
                if !status.success() {
                    bail!("the run failed instead of being killed");
                }
                bail!("the run ended before all its stages were killed often enough: give it more steps");
            }
            let Some(now) = stages.iter().rposition(|s| out.join("stages").join(s).join("checkpoints").is_dir()) else {
                std::thread::sleep(POLL);
                continue;
            };
            let done = stages[now].as_str();
            let (anywhere, inside) = kills[now];
            let since = *entered.get_or_insert((now, Instant::now()));
            if since.0 != now {
                entered = Some((now, Instant::now()));
            }
            if anywhere + inside < share {
                if inside < inside_share && saving(&out.join("stages").join(done).join("checkpoints")) {
                    child.kill()?;
                    kills[now].1 += 1;
                    break;
                }
                let random = anywhere < share - inside_share;
                if random && entered.is_some_and(|(_, at)| at.elapsed() > Duration::from_millis(delay)) {
                    child.kill()?;
                    kills[now].0 += 1;
                    break;
                }
            }
            std::thread::sleep(POLL);
        }
        child.wait()?;
    }
    Ok(kills)
}

/// Returns whether a checkpoint is being written.
fn saving(checkpoints: &Path) -> bool {
    let entries = std::fs::read_dir(checkpoints).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with(".tmp"))
}

/// Kills a run in its first stage, sets the saved data cursor back to zero, lets it end, and returns the file changed.
fn control_without_cursor(root: &Path, toml: &str, out: &Path, stage: &str) -> Result<String> {
    let checkpoints = out.join("stages").join(stage).join("checkpoints");
    let mut child = start(root, toml, out)?;
    let newest = loop {
        let numbered = folders(&checkpoints).into_iter().filter(|f| !f.ends_with("step-00000000")).max();
        if let Some(newest) = numbered {
            break newest;
        }
        if child.try_wait()?.is_some() {
            bail!("the control ended before its first checkpoint");
        }
        std::thread::sleep(POLL);
    };
    child.kill()?;
    child.wait()?;
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

/// Returns the SHA-256 of every file that the seed determines: not the clock's, not the machine's.
fn hashes(out: &Path) -> Result<BTreeMap<String, String>> {
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
