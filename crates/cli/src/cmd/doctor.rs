//! `minke doctor`: what this machine is, as far as running models goes; looked up and measured within three seconds. With `--part` it
//! measures the kernels, which takes longer, and writes the machine as a part for `minke plan --hardware`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use minke_chat::gigabytes;
use minke_chat::machine::{bandwidth, memory};
use minke_eval::verify::code::Interpreter;
use minke_sys::confine::{Layer, layers};
use minke_tensor::Device;
use serde::Serialize;

use super::{print_json, print_line};
use crate::args::Doctor;
use crate::{environment, measured};

/// Bytes of the file that is written and read back.
const DISK_BYTES: usize = 64 << 20;
/// Bytes of one read, and what its place in memory is a multiple of.
const READ: usize = 4 << 20;
const ALIGN: usize = 4096;
/// Time for reading, at most.
const DISK_TIME: Duration = Duration::from_millis(700);
/// Linux's flag for reads that bypass the copy in memory.
const O_DIRECT: i32 = if cfg!(target_arch = "aarch64") { 0x10000 } else { 0x4000 };

/// Extensions that kernels here, or encryption, could use.
const FEATURES: [&str; 14] = [
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "bmi2",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "aes",
    "sha_ni",
];

#[derive(Serialize)]
struct Report {
    cpu: CpuReport,
    memory: MemoryReport,
    disk: DiskReport,
    gpu: GpuReport,
    sandbox: Sandbox,
}

#[derive(Serialize)]
struct CpuReport {
    name: Option<String>,
    architecture: &'static str,
    cores: usize,
    threads: usize,
    features: Vec<&'static str>,
    /// The path that kernels take here.
    path: &'static str,
}

#[derive(Serialize)]
struct MemoryReport {
    total_bytes: Option<u64>,
    available_bytes: Option<u64>,
    read_bytes_per_second: f64,
}

#[derive(Serialize)]
struct DiskReport {
    /// The folder of downloaded models, or the nearest above that exists.
    folder: PathBuf,
    read_bytes_per_second: Option<f64>,
    /// Why there is no number, if there is none.
    reason: Option<String>,
}

#[derive(Serialize)]
struct GpuReport {
    names: Vec<String>,
    driver: Option<String>,
    /// Whether this build computes on it.
    used: bool,
}

/// What programs of a model are run with.
#[derive(Serialize)]
struct Sandbox {
    layers: Vec<LayerReport>,
    /// The interpreter, or why there is none.
    python: String,
}

#[derive(Serialize)]
struct LayerReport {
    name: &'static str,
    works: bool,
    /// Why it does not, if it does not.
    reason: Option<String>,
}

/// Runs `minke doctor`.
pub fn run(args: &Doctor) -> Result<()> {
    let device = args.compute.device()?;
    if let Some(name) = &args.part {
        return print_line(&part(name, &device)?);
    }
    let memory = memory();
    let report = Report {
        cpu: cpu_report(&device),
        memory: MemoryReport {
            total_bytes: memory.map(|memory| memory.total),
            available_bytes: memory.map(|memory| memory.available),
            read_bytes_per_second: bandwidth(&device),
        },
        disk: disk(environment::cache().root()),
        gpu: gpu(),
        sandbox: sandbox(),
    };
    if args.output.json { print_json(&report) } else { print_line(&report.text()) }
}

/// This machine as a file of parts.
fn part(name: &str, device: &Device) -> Result<String> {
    let CpuReport { name: cpu, threads, path, .. } = cpu_report(device);
    let cpu = cpu.unwrap_or_else(|| "unknown processor".into());
    let today = Timestamp::now().strftime("%F");
    let title = format!("this machine: {cpu}, {threads} threads");
    let source = format!("measured by minke doctor on {cpu}, {threads} threads, kernels {path}");
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut lines = vec![
        "[sources]".to_owned(),
        format!("doctor = {{ title = {}, date = \"{today}\" }}", quoted(&source)),
        String::new(),
        "[[part]]".to_owned(),
        format!("name = {}", quoted(name)),
        format!("title = {}", quoted(&title)),
    ];
    lines.extend(
        measured::figures(device)?.into_iter().map(|(figure, value)| format!("{figure} = [{value:.3e}, \"doctor\"]")),
    );
    Ok(lines.join("\n"))
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn cpu_report(device: &Device) -> CpuReport {
    let text = read("/proc/cpuinfo").unwrap_or_default();
    let of = |name: &str| {
        let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let flags = of("flags").unwrap_or_default();
    let flags: Vec<&str> = flags.split(' ').collect();
    CpuReport {
        name: of("model name"),
        architecture: std::env::consts::ARCH,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        threads: device.threads(),
        features: FEATURES.into_iter().filter(|feature| flags.contains(feature)).collect(),
        path: device.name(),
    }
}

fn disk(folder: &Path) -> DiskReport {
    let existing = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let path = existing.join(format!(".minke-doctor-{}", std::process::id()));
    let speed = disk_speed(&path);
    // It may not have been made.
    let _ = fs::remove_file(&path);
    let reason = speed.as_ref().err().map(|error| format!("cannot be measured: {error}"));
    DiskReport { folder: existing.into(), read_bytes_per_second: speed.ok(), reason }
}

/// Writes a file and reads it back from the disk itself, as far as there is time; bytes per second.
fn disk_speed(path: &Path) -> std::io::Result<f64> {
    let mut file = File::create_new(path)?;
    file.write_all(&vec![0x5a; DISK_BYTES])?;
    file.sync_all()?;
    let mut file = File::options().read(true).custom_flags(O_DIRECT).open(path)?;
    let mut buffer = vec![0; READ + ALIGN];
    let aligned = buffer.as_ptr().align_offset(ALIGN);
    let (start, mut bytes) = (Instant::now(), 0);
    while bytes < DISK_BYTES && start.elapsed() < DISK_TIME {
        match file.read(&mut buffer[aligned..aligned + READ])? {
            0 => break,
            read => bytes += read,
        }
    }
    Ok(bytes as f64 / start.elapsed().as_secs_f64())
}

fn gpu() -> GpuReport {
    let cards = fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let name = |card: fs::DirEntry| {
        let text = fs::read_to_string(card.path().join("information")).ok()?;
        Some(text.lines().find_map(|line| line.strip_prefix("Model:"))?.trim().to_owned())
    };
    let mut names: Vec<String> = cards.filter_map(name).collect();
    if names.is_empty() && Path::new("/dev/nvidia0").exists() {
        names.push("NVIDIA (/dev/nvidia0)".into());
    }
    let version = read("/proc/driver/nvidia/version");
    let driver =
        version.and_then(|text| Some(text.lines().next()?.trim_start_matches("NVRM version:").trim().to_owned()));
    GpuReport { names, driver, used: false }
}

fn sandbox() -> Sandbox {
    let layer = |(layer, works): (Layer, Result<(), String>)| LayerReport {
        name: layer.name(),
        works: works.is_ok(),
        reason: works.err(),
    };
    let python = match Interpreter::find(Path::new("python3")) {
        Ok(found) => format!("Python {} in {}", found.version, found.path.display()),
        Err(error) => error.to_string(),
    };
    Sandbox { layers: layers().into_iter().map(layer).collect(), python }
}

impl Report {
    /// The report for a person.
    fn text(&self) -> String {
        let speed = |rate: f64| format!("{:.1} GB/s", rate / 1e9);
        let size = |bytes: Option<u64>| bytes.map_or("unknown".into(), gigabytes);
        let CpuReport { name, architecture, cores, threads, features, path } = &self.cpu;
        let name = name.as_deref().unwrap_or("unknown processor");
        let memory = &self.memory;
        let disk = match (self.disk.read_bytes_per_second, &self.disk.reason) {
            (Some(rate), _) => speed(rate),
            (None, reason) => reason.clone().unwrap_or_default(),
        };
        let gpu = match (self.gpu.names.join(", "), &self.gpu.driver) {
            (names, None) if names.is_empty() => "none found".into(),
            (names, driver) => format!("{names}, driver {}", driver.as_deref().unwrap_or("unknown")),
        };
        let layer = |layer: &LayerReport| match &layer.reason {
            None => layer.name.to_owned(),
            Some(reason) => format!("no {} ({reason})", layer.name),
        };
        let layers: Vec<String> = self.sandbox.layers.iter().map(layer).collect();
        [
            format!("processor   {name}, {architecture}, {cores} cores, {threads} threads used"),
            format!("extensions  {}", features.join(" ")),
            format!("kernels     {path}"),
            format!("memory      {}, {} available", size(memory.total_bytes), size(memory.available_bytes)),
            format!("reading it  {}", speed(memory.read_bytes_per_second)),
            format!("disk        {disk} reading in {}", self.disk.folder.display()),
            format!("GPU         {gpu}; not used: this build computes on CPUs"),
            format!("sandbox     {}", layers.join(", ")),
            format!("programs    {}", self.sandbox.python),
        ]
        .join("\n")
    }
}
