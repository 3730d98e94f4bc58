//! How fast is each operation? `cargo xtask bench OP` runs this and keeps the rows; `docs/kernels.md` states the form.

use std::hint::black_box;
use std::time::Instant;

use minke_kernels::format::Stored;
use minke_kernels::ops::attention::{self, Heads, Memory, Span, Strides, TILE};
use minke_kernels::ops::matmul::{self, Size};
use minke_kernels::ops::sample::{self, SampleOutputs, SampleRow, SampleRows};
use minke_kernels::ops::{grouped_matmul, log_prob, norm, stored_matmul, swiglu};
use minke_kernels::{Cpu, Isa};
use minke_spec::Format;

fn main() {
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with("--")).unwrap_or_else(|| "all".into());
    let cpu = Cpu::new(std::thread::available_parallelism().map_or(1, usize::from), Isa::detect());
    println!("op,format,shape,ns,bytes,flops");
    roof(&cpu);
    let run = |op: &str, bench: fn(&Cpu)| {
        if wanted == "all" || wanted == op {
            bench(&cpu);
        }
    };
    run("matmul", matmul_rows);
    run("grouped_matmul", grouped_matmul_rows);
    run("stored_matmul", stored_matmul_rows);
    run("attention", attention_rows);
    run("attention_decode", attention_decode_rows);
    run("log_prob", log_prob_rows);
    run("sample", sample_rows);
    run("norm", norm_rows);
    run("swiglu", swiglu_rows);
}

/// Returns the median nanoseconds of a call: at least 9 calls and 0.2 s.
fn median_ns(mut call: impl FnMut()) -> f64 {
    call();
    let (mut times, begun) = (Vec::new(), Instant::now());
    while times.len() < 9 || begun.elapsed().as_secs_f64() < 0.2 {
        let start = Instant::now();
        call();
        times.push(start.elapsed().as_nanos() as f64);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn row(op: &str, shape: &str, ns: f64, bytes: usize, flops: usize) {
    println!("{op},f32,{shape},{ns:.0},{bytes},{flops}");
}

fn random(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0).collect()
}

/// Measures what the machine can do: reading memory, and multiply-adds that stay in registers and cache.
fn roof(cpu: &Cpu) {
    let memory = random(64 << 20);
    let part = memory.len() / cpu.threads();
    let ns = median_ns(|| {
        cpu.run(cpu.threads(), |t| {
            let mut sums = [0.0f32; 64];
            for chunk in memory[t * part..(t + 1) * part].chunks_exact(64) {
                for (sum, x) in sums.iter_mut().zip(chunk) {
                    *sum += x;
                }
            }
            black_box(sums);
        });
    });
    println!("roof,-,read,{ns:.0},{},0", memory.len() * 4);
    let size = Size { m: 96 * 8, n: 256, k: 256 };
    let (ns, flops) = matmul_ns(cpu, size);
    println!("roof,f32,fma,{ns:.0},0,{flops}");
}

/// Measures weights as they lie in a file: one row as in decoding, some, and many as in reading a prompt.
fn stored_matmul_rows(cpu: &Cpu) {
    let (n, k) = (4096, 2048);
    for format in Format::ALL {
        // Around 0x38 or 0x3c a high byte makes a float of ordinary size, a scale of blocks as well.
        let bytes: Vec<u8> = (0..n * format.bytes(k)).map(|i| 0x38 + (i * 7919 % 5) as u8).collect();
        let scales = if format == Format::F8E4M3 { random(n / 128 * (k / 128)) } else { Vec::new() };
        let w = Stored::new(format, &bytes, &scales, n, k);
        for m in [1, 16, 256] {
            let (x, mut y) = (random(m * k), vec![0.0; m * n]);
            let ns = median_ns(|| stored_matmul::matmul(cpu, &x, w, m, black_box(&mut y)));
            let (name, touched) = (format.name().to_lowercase(), bytes.len() + 4 * (x.len() + y.len()));
            println!("stored_matmul,{name},{m}x{n}x{k},{ns:.0},{touched},{}", 2 * m * n * k);
        }
    }
}

fn matmul_ns(cpu: &Cpu, size: Size) -> (f64, usize) {
    let Size { m, n, k } = size;
    let (x, w) = (random(m * k), random(n * k));
    let mut packed = vec![0.0; matmul::packed_len(cpu, n, k)];
    matmul::pack(cpu, &w, n, k, &mut packed);
    let mut y = vec![0.0; m * n];
    (median_ns(|| matmul::matmul(cpu, &x, &packed, size, black_box(&mut y))), 2 * m * n * k)
}

fn matmul_rows(cpu: &Cpu) {
    for (m, n, k) in [
        (1, 1024, 1024),
        (8, 1024, 1024),
        (64, 96, 96),
        (64, 256, 256),
        (4096, 48, 96),
        (4096, 96, 96),
        (4096, 256, 96),
        (4096, 96, 256),
        (4096, 256, 768),
        (4096, 1024, 384),
    ] {
        let size = Size { m, n, k };
        let shape = format!("{m}x{n}x{k}");
        let bytes = 4 * (m * k + n * k + m * n);
        let (ns, flops) = matmul_ns(cpu, size);
        row("matmul", &shape, ns, bytes, flops);
        let (x, dy, w) = (random(m * k), random(m * n), random(n * k));
        let (mut dx, mut dw) = (vec![0.0; m * k], vec![0.0; n * k]);
        let ns = median_ns(|| matmul::matmul_by_plain(cpu, &dy, &w, size, black_box(&mut dx)));
        row("matmul_by_plain", &shape, ns, bytes, flops);
        let ns = median_ns(|| matmul::matmul_backward_weight_add(cpu, &dy, &x, size, black_box(&mut dw)));
        row("matmul_backward_weight", &shape, ns, bytes, flops);
    }
}

fn grouped_matmul_rows(cpu: &Cpu) {
    for (m, experts, n, k) in [(128, 8, 96, 96), (8192, 8, 96, 96), (4096, 64, 256, 128)] {
        let size = Size { m, n, k };
        let (x, w) = (random(m * k), random(experts * n * k));
        let mut packed = vec![0.0; experts * matmul::packed_len(cpu, n, k)];
        grouped_matmul::pack(cpu, &w, experts, n, k, &mut packed);
        let offsets: Vec<u32> = (0..=experts).map(|e| (e * m / experts) as u32).collect();
        let mut y = vec![0.0; m * n];
        let ns = median_ns(|| grouped_matmul::grouped_matmul(cpu, &x, &packed, &offsets, size, black_box(&mut y)));
        let bytes = 4 * (m * k + experts * n * k + m * n);
        let shape = format!("{m}x{experts}x{n}x{k}");
        row("grouped_matmul", &shape, ns, bytes, 2 * m * n * k);
        let (dy, mut dx, mut dw) = (random(m * n), vec![0.0; m * k], vec![0.0; experts * n * k]);
        let ns = median_ns(|| {
            grouped_matmul::grouped_matmul_by_plain(cpu, &dy, &w, &offsets, size, black_box(&mut dx));
        });
        row("grouped_matmul_by_plain", &shape, ns, bytes, 2 * m * n * k);
        let ns = median_ns(|| {
            grouped_matmul::grouped_matmul_backward_weight_add(cpu, &dy, &x, &offsets, size, black_box(&mut dw));
        });
        row("grouped_matmul_backward_weight", &shape, ns, bytes, 2 * m * n * k);
    }
}

fn attention_rows(cpu: &Cpu) {
    for (sequences, length, heads, width) in [(16, 256, 4, 64), (8, 512, 6, 64), (64, 96, 4, 24)] {
        let heads = Heads { query: heads, key_value: heads, width, value_width: width };
        let rows = sequences * length;
        let len = rows * heads.query * width;
        let (q, k, v) = (random(len), random(len), random(len));
        let mut tiles = Vec::new();
        let spans: Vec<Span> = (0..sequences)
            .map(|s| {
                let first_tile = tiles.len();
                tiles.extend((0..length.div_ceil(TILE)).map(|t| (s * length + t * TILE) as u32));
                Span { first_row: s * length, rows: length, first_position: 0, first_tile }
            })
            .collect();
        let strides = attention::batch_strides(heads.key_value, width);
        let memory = Memory { keys: &k, values: &v, key_strides: strides, value_strides: strides, tiles: &tiles };
        let (mut out, mut log_sum) = (vec![0.0; len], vec![0.0; rows * heads.query]);
        let call = || attention::attention(cpu, &q, memory, &spans, heads, 0.1, &mut out, black_box(&mut log_sum));
        let pairs = sequences * heads.query * length * (length + 1) / 2;
        let shape = format!("{sequences}x{length}x{}x{width}", heads.query);
        row("attention", &shape, median_ns(call), 16 * len, 4 * pairs * width);
        let (mut dq, mut dk, mut dv) = (vec![0.0; len], vec![0.0; len], vec![0.0; len]);
        let saved = attention::Saved { q: &q, k: &k, v: &v, out: &out, log_sum: &log_sum };
        let ns = median_ns(|| {
            let gradients = attention::Gradients { q: &mut dq, k: &mut dk, v: black_box(&mut dv) };
            attention::attention_backward(cpu, saved, &q, &spans, heads, 0.1, gradients);
        });
        row("attention_backward", &shape, ns, 32 * len, 10 * pairs * width);
    }
}

/// One row of each of many sequences against its pages, on one thread, as a replica of the engine decodes.
fn attention_decode_rows(cpu: &Cpu) {
    let heads = Heads { query: 4, key_value: 4, width: 24, value_width: 16 };
    let (key, value) = (heads.width * TILE, heads.value_width * TILE);
    let key_strides = Strides { unit: heads.key_value * key, head: key, key: 1, component: TILE };
    let value_strides = Strides { unit: heads.key_value * value, head: value, key: heads.value_width, component: 1 };
    for (sequences, length) in [(4, 100), (32, 100), (128, 100), (128, 250)] {
        let per_sequence = usize::div_ceil(length, TILE);
        let pages = sequences * per_sequence;
        let (k, v) = (random(pages * key_strides.unit), random(pages * value_strides.unit));
        let q = random(sequences * heads.query * heads.width);
        // Sequences took their pages in turn as they grew.
        let tiles: Vec<u32> = (0..pages).map(|i| (i % per_sequence * sequences + i / per_sequence) as u32).collect();
        let span = |s| Span { first_row: s, rows: 1, first_position: length - 1, first_tile: s * per_sequence };
        let spans: Vec<Span> = (0..sequences).map(span).collect();
        let memory = Memory { keys: &k, values: &v, key_strides, value_strides, tiles: &tiles };
        let mut out = vec![0.0; sequences * heads.query * heads.value_width];
        let mut log_sum = vec![0.0; sequences * heads.query];
        let cpu = cpu.serial();
        let call = || attention::attention(&cpu, &q, memory, &spans, heads, 0.1, &mut out, black_box(&mut log_sum));
        let floats = sequences * heads.query * length * (heads.width + heads.value_width);
        row("attention_decode", &format!("{sequences}x{length}x4x24+16"), median_ns(call), 4 * floats, 2 * floats);
    }
}

fn log_prob_rows(cpu: &Cpu) {
    for (m, n, k) in [(4096, 4096, 256), (4096, 640, 96)] {
        let size = Size { m, n, k };
        let (x, w) = (random(m * k), random(n * k));
        let mut packed = vec![0.0; matmul::packed_len(cpu, n, k)];
        matmul::pack(cpu, &w, n, k, &mut packed);
        let targets: Vec<u32> = (0..m).map(|i| (i % n) as u32).collect();
        let (mut a, mut b, mut c) = (vec![0.0; m], vec![0.0; m], vec![0.0; m]);
        let ns = median_ns(|| {
            let outputs = log_prob::RowOutputs { log_prob: &mut a, log_sum: &mut b, entropy: black_box(&mut c) };
            log_prob::head_log_prob(cpu, &x, &packed, &targets, size, 1.0, outputs);
        });
        row("log_prob", &format!("{m}x{n}x{k}"), ns, 4 * (m * k + n * k), 2 * m * n * k);
    }
}

/// Measures a token for each row: the whole distribution, a nucleus, and a nucleus under a mask that forbids every other
/// token.
fn sample_rows(cpu: &Cpu) {
    for (m, n) in [(64, 640), (1, 151_936), (16, 151_936)] {
        let logits: Vec<f32> = random(m * n).iter().map(|z| 8.0 * z).collect();
        let masks = vec![0xaaaa_aaaa_u32; n.div_ceil(32)];
        for (what, top_p, mask) in [("all", 1.0, None), ("top_p", 0.95, None), ("masked", 0.95, Some(0))] {
            let uniform = 0.3;
            let row_of = SampleRow {
                temperature: 0.6,
                top_k: 0,
                top_p,
                min_p: 0.0,
                uniform,
                edits: 0..0,
                mask,
                alternatives: 0,
            };
            let rows = vec![row_of; m];
            let (mut token_ids, mut log_prob, mut entropy) = (vec![0; m], vec![0.0; m], vec![0.0; m]);
            let ns = median_ns(|| {
                let outputs = SampleOutputs {
                    token_ids: &mut token_ids,
                    log_prob: &mut log_prob,
                    entropy: black_box(&mut entropy),
                    alternative_ids: &mut [],
                    alternative_log_probs: &mut [],
                };
                sample::sample(cpu, &logits, &SampleRows { rows: &rows, edits: &[], masks: &masks }, outputs);
            });
            row("sample", &format!("{m}x{n}-{what}"), ns, 4 * m * n, 0);
        }
    }
}

fn norm_rows(cpu: &Cpu) {
    let (m, width) = (4096, 256);
    let (x, w) = (random(m * width), random(width));
    let (mut y, mut inverse) = (vec![0.0; m * width], vec![0.0; m]);
    let ns = median_ns(|| norm::rms_norm(cpu, &x, &w, 1e-6, &mut y, black_box(&mut inverse)));
    row("norm", &format!("{m}x{width}"), ns, 8 * m * width, 4 * m * width);
}

fn swiglu_rows(cpu: &Cpu) {
    let len = 4096 * 768;
    let (gate, up) = (random(len), random(len));
    let mut y = vec![0.0; len];
    let ns = median_ns(|| swiglu::swiglu(cpu, &gate, &up, black_box(&mut y)));
    row("swiglu", "4096x768", ns, 12 * len, 5 * len);
}
