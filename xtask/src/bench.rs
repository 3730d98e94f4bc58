//! Times of ops, and how far they are from what the machine could do, appended to `bench/results/<machine>.csv`.
//!
//! docs/kernels.md ("Benchmarks") describes what the bench program of `kernels` prints.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{cargo, output};

/// Columns of the bench program.
const INPUT: &str = "op,format,shape,ns,bytes,flops";
/// Columns of the results.
const RESULTS: &str = "date,commit,machine,op,format,shape,ns,GB/s,GFLOP/s,percent of roofline";
/// Op of the rows that measure the machine itself.
const ROOF: &str = "roof";

/// One line of the bench program: one call of one op, on average.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    op: String,
    format: String,
    shape: String,
    ns: f64,
    bytes: f64,
    flops: f64,
}

/// Runs the bench program for an op (`all` for every op), appends its rows to the results and prints them.
///
/// # Errors
/// If the program fails or prints what the contract does not allow.
pub fn run(root: &Path, op: &str) -> Result<()> {
    let mut command = cargo(root);
    command.args(["bench", "--quiet", "--package", "minke-kernels", "--bench", "ops", "--", op]);
    let rows = parse(&output(command.stderr(Stdio::inherit()))?)?;
    let machine = machine()?;
    let stamp = format!("{},{},{machine}", date()?, commit(root)?);
    let lines = results(&rows)?;
    if lines.is_empty() {
        bail!("the bench program knows no op `{op}`: `cargo xtask bench all` prints those it knows");
    }
    println!("{RESULTS}");
    for line in lines {
        println!("{stamp},{line}");
        append(&root.join("bench/results").join(format!("{machine}.csv")), RESULTS, &format!("{stamp},{line}"))?;
    }
    Ok(())
}

/// Appends a line to a CSV file, which is begun with its header if it is new.
///
/// # Errors
/// If the file cannot be written, or begins with another header.
pub fn append(path: &Path, header: &str, line: &str) -> Result<()> {
    let old = std::fs::read_to_string(path).unwrap_or_default();
    if !old.is_empty() && old.lines().next() != Some(header) {
        bail!("{} has other columns than `{header}`: move it aside", path.display());
    }
    std::fs::create_dir_all(path.parent().context("a result lies in a folder")?)?;
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let header = if old.is_empty() { format!("{header}\n") } else { String::new() };
    writeln!(file, "{header}{line}").with_context(|| format!("cannot write {}", path.display()))
}

/// Today's date (UTC), as `2026-11-23`.
///
/// # Errors
/// If the `date` command is missing.
pub fn date() -> Result<String> {
    output(Command::new("date").args(["-u", "+%Y-%m-%d"]))
}

/// The commit, with a `+` if the tracked files differ from it; `-` outside git.
///
/// # Errors
/// If git stops working between two calls.
pub fn commit(root: &Path) -> Result<String> {
    let git = |arguments: &[&str]| output(Command::new("git").args(arguments).current_dir(root));
    let Ok(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else { return Ok("-".to_string()) };
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Ok(commit + if changed { "+" } else { "" })
}

/// A name for this machine, made of its processor and the number of its threads: `amd-epyc-9554-2t`.
///
/// # Errors
/// If the number of threads is unknown.
pub fn machine() -> Result<String> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or(std::env::consts::ARCH);
    let name: String = model.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { ' ' }).collect();
    let words: Vec<&str> = name.split_whitespace().filter(|w| !["r", "tm", "processor", "cpu"].contains(w)).collect();
    Ok(format!("{}-{}t", words.join("-"), std::thread::available_parallelism()?))
}

fn parse(text: &str) -> Result<Vec<Row>> {
    let mut lines = text.lines();
    if lines.next() != Some(INPUT) {
        bail!("the bench program must print the header `{INPUT}` first");
    }
    lines.map(|line| Row::parse(line).with_context(|| format!("bench line `{line}` is not `{INPUT}`"))).collect()
}

impl Row {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [op, format, shape, ns, bytes, flops] = fields[..] else { return None };
        let number = |text: &str| text.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
        let (op, format, shape) = (op.to_string(), format.to_string(), shape.to_string());
        Some(Self {
            op,
            format,
            shape,
            ns: number(ns).filter(|ns| *ns > 0.0)?,
            bytes: number(bytes)?,
            flops: number(flops)?,
        })
    }
}

/// The columns of the results from `op` on, without the rows that measure the machine.
///
/// Percent of roofline: the time that the machine would need, at the bandwidth and the arithmetic that it showed in
/// the same run, over the time that was taken. Data that stays in a cache can exceed 100.
fn results(rows: &[Row]) -> Result<Vec<String>> {
    // Per ns: bytes of memory, and FLOPs by format.
    let roofs = || rows.iter().filter(|row| row.op == ROOF);
    let bandwidth = roofs().find(|row| row.bytes > 0.0).map(|row| row.bytes / row.ns);
    let bandwidth = bandwidth.with_context(|| format!("the bench program printed no `{ROOF}` row with bytes"))?;
    let peaks: BTreeMap<&str, f64> =
        roofs().filter(|r| r.flops > 0.0).map(|r| (r.format.as_str(), r.flops / r.ns)).collect();
    let mut lines = Vec::new();
    for row in rows.iter().filter(|row| row.op != ROOF) {
        let peak = peaks.get(row.format.as_str()).or(peaks.get("f32"));
        let peak = peak.with_context(|| format!("no `{ROOF}` row with flops for {} nor for f32", row.format))?;
        let floor_ns = (row.bytes / bandwidth).max(row.flops / peak);
        lines.push(format!(
            "{},{},{},{:.0},{:.2},{:.2},{:.1}",
            row.op,
            row.format,
            row.shape,
            row.ns,
            row.bytes / row.ns,
            row.flops / row.ns,
            100.0 * floor_ns / row.ns
        ));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roof_is_the_slower_of_memory_and_arithmetic() {
        // A machine of 10 GB/s and 100 GFLOP/s (200 in bf16).
        let roofs = "roof,-,read,10,100,0\nroof,f32,fma,10,0,1000\nroof,bf16,fma,10,0,2000\n";
        let cases = [
            // 1000 bytes take 100 ns, 1000 FLOPs take 10.
            ("matmul,f32,1x2x3,200,1000,1000", "matmul,f32,1x2x3,200,5.00,5.00,50.0"),
            // 40,000 FLOPs take 400 ns, in bf16 200.
            ("matmul,f32,a,500,1000,40000", "matmul,f32,a,500,2.00,80.00,80.0"),
            ("matmul,bf16,a,500,1000,40000", "matmul,bf16,a,500,2.00,80.00,40.0"),
            ("norm,i8,a,100,500,0", "norm,i8,a,100,5.00,0.00,50.0"),
        ];
        for (line, expected) in cases {
            let rows = parse(&format!("{INPUT}\n{roofs}{line}")).unwrap();
            assert_eq!(results(&rows).unwrap(), [expected]);
        }
        assert!(results(&parse(&format!("{INPUT}\nnorm,f32,a,1,1,1")).unwrap()).is_err());
    }

    #[test]
    fn lines_out_of_contract_are_refused() {
        for text in ["", "op,format", &format!("{INPUT}\nmatmul,f32,a,0,1,1"), &format!("{INPUT}\nmatmul,f32,a,1,1")] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_keeps_its_columns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/x.csv");
        append(&path, "a,b", "1,2").unwrap();
        append(&path, "a,b", "3,4").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a,b\n1,2\n3,4\n");
        assert!(append(&path, "a,c", "5,6").is_err());
    }
}
