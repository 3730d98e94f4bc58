//! Memory of this machine, and how fast weights are read from it, measured on demand.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use minke_spec::Format;
use minke_spec::format::fp8_scale_shape;
use minke_tensor::{Bytes, Device, Indices, Param, Pass, StoredMatrix, StoredWeight, Tensor};

use crate::Result;

/// Bytes that a measurement goes through: more than the caches of most processors hold.
const SPAN: usize = 64 << 20;
/// Time of one measurement, at least.
const TIME: Duration = Duration::from_millis(80);

/// Memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Of the machine.
    pub total: u64,
    /// What the system could give now: free, or a copy of files that it can read again.
    pub available: u64,
}

/// The memory of the machine, or that of the control group if it has less; nothing if the system does not say.
pub fn memory() -> Option<Memory> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    let machine = Memory { total: of("MemTotal:")?, available: of("MemAvailable:")? };
    let group = std::fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| group_memory(&text));
    let least = |group: Memory| Memory {
        total: machine.total.min(group.total),
        available: machine.available.min(group.available),
    };
    Some(group.map_or(machine, least))
}

/// What the control group of version 2 of `/proc/self/cgroup` leaves, if one limits memory.
fn group_memory(text: &str) -> Option<Memory> {
    let folder = Path::new("/sys/fs/cgroup").join(text.lines().find_map(|line| line.strip_prefix("0::/"))?);
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let total: u64 = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    let files = read("memory.stat")?.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse().ok());
    Some(Memory { total, available: total.saturating_sub(used.saturating_sub(files.unwrap_or(0))) })
}

/// How fast memory is read, by all threads of the device together.
///
/// # Units
/// bytes per second
pub fn bandwidth(device: &Device) -> f64 {
    let words = Indices::from_slice(device, &vec![1u32; SPAN / 4]);
    rate(SPAN, || {
        black_box(words.sum(device));
        Ok(())
    })
    .expect("invariant: reading memory does not fail")
}

/// How fast weights of a format, with their rows interleaved or not, are multiplied with one token: memory, unless expanding the codes takes longer.
///
/// # Units
/// width of the token, bytes of all weights that it meets -> bytes of a file per second
///
/// # Errors
/// If the format cannot be multiplied.
pub fn weight_rate(device: &Device, format: Format, interleaved: bool, width: usize, bytes: u64) -> Result<f64> {
    let k = width.next_multiple_of(256);
    let row = format.bytes(k);
    let n = (SPAN.min(bytes as usize) / row).max(32);
    // Not all zero, and every pattern of it is a small number in every format.
    let bytes = Bytes::from(vec![0x11u8; n * row]);
    let scales = if format == Format::F8E4M3 { vec![1.0; fp8_scale_shape(n, k).iter().product()] } else { Vec::new() };
    let weight = StoredWeight::new(format, &[n, k], vec![StoredMatrix { bytes, scales }])?;
    let weight = if interleaved { weight.interleaved(device) } else { weight };
    let (w, x) = (Param::new("measured", 0, weight), Tensor::from_slice(device, &[1, k], &vec![1.0; k]));
    rate(n * row, || {
        black_box(x.matmul(Pass::inference(device), &w)?);
        Ok(())
    })
}

/// The bytes per second of repeated passes, the first one not counted. The mean and not the best: what other
/// programs take from the machine now, they will take from an answer too.
fn rate(bytes: usize, mut pass: impl FnMut() -> Result<()>) -> Result<f64> {
    pass()?;
    let (start, mut passes) = (Instant::now(), 0);
    while passes == 0 || start.elapsed() < TIME {
        pass()?;
        passes += 1;
    }
    Ok((bytes * passes) as f64 / start.elapsed().as_secs_f64())
}
