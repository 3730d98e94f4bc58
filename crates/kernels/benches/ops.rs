//! Speed of each operation. `cargo xtask bench OP` runs this and keeps the rows; `docs/kernels.md` states the form.

use std::hint::black_box;
use std::time::Instant;

use minke_kernels::format::Stored;
use minke_kernels::ops::attention::{self, Heads, Memory, Span, Strides, TILE};
use minke_kernels::ops::matmul::{self, Size};
use minke_kernels::ops::sample::{self, SampleOutputs, SampleRow, SampleRows};
use minke_kernels::ops::{bf16_matmul, cast, grouped_matmul, log_prob, norm, stored_matmul, stream, swiglu};
use minke_kernels::{Bf16, Buffer, Device, Dtype, Floats};
use minke_spec::Format;

fn main() {
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with("--")).unwrap_or_else(|| "all".into());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let device = Device::open("cpu", threads).expect("the system gives a thread per core");
    println!("op,format,shape,ns,bytes,flops");
    roof(&device);
    let run = |op: &str, bench: fn(&Device)| {
        if wanted == "all" || wanted == op {
            bench(&device);
        }
    };
    run("matmul", matmul_rows);
    run("bf16_matmul", bf16_matmul_rows);
    run("grouped_matmul", grouped_matmul_rows);
    run("stored_matmul", stored_matmul_rows);
    run("attention", attention_rows);
    run("attention_decode", attention_decode_rows);
    run("attention_pages", attention_pages_rows);
    run("log_prob", log_prob_rows);
    run("sample", sample_rows);
    run("norm", norm_rows);
    run("swiglu", swiglu_rows);
}

/// The median nanoseconds of a call: at least 9 calls and 0.2 s.
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

/// Numbers between -1 and 1 in memory of the device.
fn random(device: &Device, len: usize) -> Buffer {
    device.upload(&numbers(len))
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0).collect()
}

/// Room for floats in memory of the device.
fn room(device: &Device, len: usize) -> Buffer {
    device.zeros::<f32>(len)
}

/// Measures what the machine can do: reading memory, and multiply-adds that stay in registers and cache.
fn roof(device: &Device) {
    let memory = random(device, 64 << 20);
    let ns = median_ns(|| {
        black_box(stream::sum(device, memory.view()));
    });
    println!("roof,-,read,{ns:.0},{},0", memory.bytes());
    let size = Size { m: 96 * 8, n: 256, k: 256 };
    let (ns, flops) = matmul_ns(device, size);
    println!("roof,f32,fma,{ns:.0},0,{flops}");
}

/// Measures weights as they lie in a file: one row as in decoding, some, and many as in reading a prompt.
fn stored_matmul_rows(device: &Device) {
    let (n, k) = (4096, 2048);
    for format in Format::ALL {
        // Around 0x38 or 0x3c a high byte makes a float of ordinary size, a scale of blocks as well.
        let bytes: Vec<u8> = (0..n * format.bytes(k)).map(|i| 0x38 + (i * 7919 % 5) as u8).collect();
        let scales = if format == Format::F8E4M3 { numbers(n / 128 * (k / 128)) } else { Vec::new() };
        let w = Stored::new(format, &bytes, &scales, n, k);
        let mut turned = Vec::new();
        let interleaved = stored_matmul::interleaved_lanes(device, format).map(|lanes| {
            turned.resize(Stored::interleaved_len(format, lanes, n, k).unwrap_or(0), 0);
            stored_matmul::interleave(device, w, &mut turned);
            ("_interleaved", Stored::interleaved(format, lanes, &turned, n, k))
        });
        for (layout, w) in std::iter::once(("", w)).chain(interleaved) {
            for m in [1, 4, 16, 256] {
                let (x, mut y) = (random(device, m * k), room(device, m * n));
                let ns = median_ns(|| stored_matmul::matmul(device, x.view(), [w], m, [black_box(y.view_mut())]));
                let (name, touched) = (format.name().to_lowercase(), bytes.len() + x.bytes() + y.bytes());
                println!("stored_matmul{layout},{name},{m}x{n}x{k},{ns:.0},{touched},{}", 2 * m * n * k);
            }
        }
    }
}

fn matmul_ns(device: &Device, size: Size) -> (f64, usize) {
    let Size { m, n, k } = size;
    let (x, w) = (random(device, m * k), random(device, n * k));
    let mut packed = room(device, matmul::packed_len(device, n, k));
    matmul::pack(device, w.view(), n, k, packed.view_mut());
    let mut y = room(device, m * n);
    let call = || matmul::matmul(device, x.view(), packed.view(), size, black_box(y.view_mut()));
    (median_ns(call), 2 * m * n * k)
}

fn matmul_rows(device: &Device) {
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
        let (ns, flops) = matmul_ns(device, size);
        row("matmul", &shape, ns, bytes, flops);
        let (x, dy, w) = (random(device, m * k), random(device, m * n), random(device, n * k));
        let (mut dx, mut dw) = (room(device, m * k), room(device, n * k));
        let ns = median_ns(|| matmul::matmul_nn(device, dy.view(), w.view(), size, black_box(dx.view_mut())));
        row("matmul_nn", &shape, ns, bytes, flops);
        let ns = median_ns(|| {
            matmul::matmul_backward_weight_add(device, dy.view(), x.view(), size, black_box(dw.view_mut()));
        });
        row("matmul_backward_weight", &shape, ns, bytes, flops);
    }
}

fn grouped_matmul_rows(device: &Device) {
    for (m, experts, n, k) in [(128, 8, 96, 96), (8192, 8, 96, 96), (4096, 64, 256, 128)] {
        let size = Size { m, n, k };
        let (x, w) = (random(device, m * k), random(device, experts * n * k));
        let mut packed = room(device, experts * matmul::packed_len(device, n, k));
        grouped_matmul::pack(device, w.view(), experts, n, k, packed.view_mut());
        let offsets: Vec<u32> = (0..=experts).map(|e| (e * m / experts) as u32).collect();
        let (offsets, mut y) = (device.upload(&offsets), room(device, m * n));
        let ns = median_ns(|| {
            let (x, packed, offsets) = (x.view(), packed.view(), offsets.view());
            grouped_matmul::grouped_matmul(device, x, packed, offsets, size, black_box(y.view_mut()));
        });
        let bytes = 4 * (m * k + experts * n * k + m * n);
        let shape = format!("{m}x{experts}x{n}x{k}");
        row("grouped_matmul", &shape, ns, bytes, 2 * m * n * k);
        let (dy, mut dx, mut dw) = (random(device, m * n), room(device, m * k), room(device, experts * n * k));
        let ns = median_ns(|| {
            let (dy, w, offsets) = (dy.view(), w.view(), offsets.view());
            grouped_matmul::grouped_matmul_nn(device, dy, w, offsets, size, black_box(dx.view_mut()));
        });
        row("grouped_matmul_nn", &shape, ns, bytes, 2 * m * n * k);
        let ns = median_ns(|| {
            let (dy, x, offsets) = (dy.view(), x.view(), offsets.view());
            grouped_matmul::grouped_matmul_backward_weight_add(device, dy, x, offsets, size, black_box(dw.view_mut()));
        });
        row("grouped_matmul_backward_weight", &shape, ns, bytes, 2 * m * n * k);
    }
}

fn attention_rows(device: &Device) {
    for (sequences, length, heads, width) in [(16, 256, 4, 64), (8, 512, 6, 64), (64, 96, 4, 24)] {
        let heads = Heads { query: heads, key_value: heads, width, value_width: width };
        let rows = sequences * length;
        let len = rows * heads.query * width;
        let (q, k, v) = (random(device, len), random(device, len), random(device, len));
        let mut tiles = Vec::new();
        let spans: Vec<Span> = (0..sequences)
            .map(|s| {
                let first_tile = tiles.len();
                tiles.extend((0..length.div_ceil(TILE)).map(|t| (s * length + t * TILE) as u32));
                Span { first_row: s * length, rows: length, first_position: 0, first_tile }
            })
            .collect();
        let strides = attention::batch_strides(heads.key_value, width);
        let (keys, values) = (Floats::F32(k.view()), Floats::F32(v.view()));
        let memory = Memory { keys, values, key_strides: strides, value_strides: strides, tiles: &tiles };
        let (mut out, mut log_sum) = (room(device, len), room(device, rows * heads.query));
        let call = || {
            let to = (out.view_mut(), black_box(log_sum.view_mut()));
            attention::attention(device, q.view(), memory, &spans, heads, 0.1, to.0, to.1);
        };
        let pairs = sequences * heads.query * length * (length + 1) / 2;
        let shape = format!("{sequences}x{length}x{}x{width}", heads.query);
        row("attention", &shape, median_ns(call), 16 * len, 4 * pairs * width);
        let (mut dq, mut dk, mut dv) = (room(device, len), room(device, len), room(device, len));
        let [of_q, of_k, of_v, of_out] = [&q, &k, &v, &out].map(|x| Floats::F32(x.view()));
        let saved = attention::Saved { q: of_q, k: of_k, v: of_v, out: of_out, log_sum: log_sum.view() };
        let ns = median_ns(|| {
            let (q_to, k_to, v_to) = (dq.view_mut(), dk.view_mut(), black_box(dv.view_mut()));
            let gradients = attention::Gradients { q: q_to, k: k_to, v: v_to };
            attention::attention_backward(device, saved, q.view(), &spans, heads, 0.1, gradients);
        });
        row("attention_backward", &shape, ns, 32 * len, 10 * pairs * width);
    }
}

/// The time of rows against pages. Sequences took their pages in turn as they grew.
fn pages_ns(
    device: &Device,
    dtype: Dtype,
    heads: Heads,
    (sequences, rows, length): (usize, usize, usize),
    latents: bool,
) -> f64 {
    let (key, value) = (heads.width * TILE, heads.value_width * TILE);
    let (key_strides, value_strides) = if latents {
        let strides = Strides { unit: key, head: 0, key: heads.width, component: 1 };
        (strides, strides)
    } else {
        (
            Strides { unit: heads.key_value * key, head: key, key: 1, component: TILE },
            Strides { unit: heads.key_value * value, head: value, key: heads.value_width, component: 1 },
        )
    };
    let per_sequence = usize::div_ceil(length, TILE);
    let pages = sequences * per_sequence;
    let buffer = |len: usize| {
        let values = random(device, len);
        match dtype {
            Dtype::F32 => values,
            Dtype::Bf16 => {
                let values: Vec<Bf16> = values.view::<f32>().read().into_iter().map(Bf16::from_f32).collect();
                device.upload(&values)
            }
        }
    };
    let (k, v) = (buffer(pages * key_strides.unit), buffer(if latents { 0 } else { pages * value_strides.unit }));
    let values = if latents { &k } else { &v };
    let (keys, values) = match dtype {
        Dtype::F32 => (Floats::F32(k.view()), Floats::F32(values.view())),
        Dtype::Bf16 => (Floats::Bf16(k.view()), Floats::Bf16(values.view())),
    };
    let q = random(device, sequences * rows * heads.query * heads.width);
    let tiles: Vec<u32> = (0..pages).map(|i| (i % per_sequence * sequences + i / per_sequence) as u32).collect();
    let span = |s| Span { first_row: s * rows, rows, first_position: length - rows, first_tile: s * per_sequence };
    let spans: Vec<Span> = (0..sequences).map(span).collect();
    let memory = Memory { keys, values, key_strides, value_strides, tiles: &tiles };
    let mut out = room(device, sequences * rows * heads.query * heads.value_width);
    let mut log_sum = room(device, sequences * rows * heads.query);
    median_ns(|| {
        let to = (out.view_mut(), black_box(log_sum.view_mut()));
        attention::attention(device, q.view(), memory, &spans, heads, 0.1, to.0, to.1);
    })
}

/// Prints a row for each type of pages.
fn pages_rows(device: &Device, op: &str, shape: &str, heads: Heads, rows: (usize, usize, usize), latents: bool) {
    let (sequences, queries, length) = rows;
    let Heads { query, key_value, width, value_width } = heads;
    // A causal mask leaves the last rows all keys but those of their successors.
    let pairs = sequences * query * queries * (2 * length + 1 - queries) / 2;
    let cached = sequences * length * if latents { width } else { key_value * (width + value_width) };
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let ns = pages_ns(device, dtype, heads, rows, latents);
        let (name, bytes) = (dtype.name().to_lowercase(), dtype.bytes() * cached);
        println!("{op},{name},{shape},{ns:.0},{bytes},{}", 2 * pairs * (width + value_width));
    }
}

/// One row of each of many sequences against its pages, on one thread, as a replica of the engine decodes.
fn attention_decode_rows(device: &Device) {
    let heads = Heads { query: 4, key_value: 4, width: 24, value_width: 16 };
    for (sequences, length) in [(4, 100), (32, 100), (128, 100), (128, 250)] {
        let shape = format!("{sequences}x{length}x4x24+16");
        pages_rows(&device.serial(), "attention_decode", &shape, heads, (sequences, 1, length), false);
    }
}

/// One sequence with a long context, on all threads: a token of an answer and a chunk of a prompt, with grouped heads, with
/// as many keys as queries, and with latents.
fn attention_pages_rows(device: &Device) {
    let grouped = Heads { query: 14, key_value: 2, width: 64, value_width: 64 };
    let equal = Heads { query: 16, key_value: 16, width: 64, value_width: 64 };
    let latent = Heads { query: 16, key_value: 1, width: 576, value_width: 512 };
    for (heads, latents) in [(grouped, false), (equal, false), (latent, true)] {
        for (rows, length) in [(1, 2048), (1, 8192), (256, 2048)] {
            let Heads { query, key_value, width, value_width } = heads;
            let shape = format!("{rows}x{length}x{query}/{key_value}x{width}+{value_width}");
            pages_rows(device, "attention_pages", &shape, heads, (1, rows, length), latents);
        }
    }
}

fn log_prob_rows(device: &Device) {
    for (m, n, k) in [(4096, 4096, 256), (4096, 640, 96)] {
        let size = Size { m, n, k };
        let (x, w) = (random(device, m * k), random(device, n * k));
        let mut packed = room(device, matmul::packed_len(device, n, k));
        matmul::pack(device, w.view(), n, k, packed.view_mut());
        let targets: Vec<u32> = (0..m).map(|i| (i % n) as u32).collect();
        let (targets, [mut a, mut b, mut c]) = (device.upload(&targets), [(); 3].map(|()| room(device, m)));
        let ns = median_ns(|| {
            let (log_prob, log_sum, entropy) = (a.view_mut(), b.view_mut(), black_box(c.view_mut()));
            let outputs = log_prob::RowOutputs { log_prob, log_sum, entropy };
            let head = log_prob::Head::F32 { x: x.view(), weight: w.view(), packed: packed.view() };
            log_prob::head_log_prob(device, head, targets.view(), size, 1.0, outputs);
        });
        row("log_prob", &format!("{m}x{n}x{k}"), ns, 4 * (m * k + n * k), 2 * m * n * k);
    }
}

/// Measures a token for each row: the whole distribution, a nucleus, and a nucleus under a mask that forbids every other
/// token.
fn sample_rows(device: &Device) {
    for (m, n) in [(64, 640), (1, 151_936), (16, 151_936)] {
        let logits: Vec<f32> = numbers(m * n).iter().map(|z| 8.0 * z).collect();
        let logits = device.upload(&logits);
        let masks = vec![0xaaaa_aaaa_u32; n.div_ceil(32)];
        for (what, top_p, mask) in [("all", 1.0, None), ("top_p", 0.95, None), ("masked", 0.95, Some(0))] {
            let uniform = 0.3;
            let row_of = SampleRow {
                temperature: 0.6,
                log_prob_temperature: 0.6,
                top_k: 0,
                top_p,
                min_p: 0.0,
                uniform,
                edits: 0..0,
                mask,
                alternatives: 0,
            };
            let rows = vec![row_of; m];
            let (mut token_ids, [mut log_prob, mut entropy]) =
                (device.zeros::<u32>(m), [(); 2].map(|()| room(device, m)));
            let (mut alternative_ids, mut alternative_log_probs) = (device.zeros::<u32>(0), room(device, 0));
            let ns = median_ns(|| {
                let outputs = SampleOutputs {
                    token_ids: token_ids.view_mut(),
                    log_prob: log_prob.view_mut(),
                    entropy: black_box(entropy.view_mut()),
                    alternative_ids: alternative_ids.view_mut(),
                    alternative_log_probs: alternative_log_probs.view_mut(),
                };
                let sampling = SampleRows { rows: &rows, edits: &[], masks: &masks };
                sample::sample(device, logits.view(), &sampling, outputs);
            });
            row("sample", &format!("{m}x{n}-{what}"), ns, 4 * m * n, 0);
        }
    }
}

/// Products whose operands are rounded to bf16: the forward from rounded rows, and both gradients.
fn bf16_matmul_rows(device: &Device) {
    for (m, n, k) in [(4096, 256, 256), (4096, 768, 256), (4096, 256, 768), (4096, 1024, 384), (16, 768, 256)] {
        let size = Size { m, n, k };
        let (x, w, dy) = (random(device, m * k), random(device, n * k), random(device, m * n));
        let bf16 = |len: usize| device.zeros::<Bf16>(len);
        let (mut held, mut rows) = (bf16(n * k), bf16(m * bf16_matmul::row_len(k)));
        let mut packed = bf16(bf16_matmul::packed_len(device, n, k));
        cast::narrow(device, w.view(), held.view_mut());
        bf16_matmul::round_rows(device, x.view(), k, rows.view_mut());
        bf16_matmul::pack(device, held.view(), n, k, packed.view_mut());
        let (mut y, mut dx, mut dw) = (room(device, m * n), room(device, m * k), room(device, n * k));
        let line = |what: &str, ns: f64, products: usize| {
            println!(
                "bf16_matmul,bf16,{m}x{n}x{k}-{what},{ns:.0},{},{}",
                2 * (m * k + n * k),
                2 * products * m * n * k
            );
        };
        let ns = median_ns(|| bf16_matmul::matmul(device, rows.view(), packed.view(), size, black_box(y.view_mut())));
        line("forward", ns, 1);
        let ns = median_ns(|| {
            let (dx, dw) = (Some(dx.view_mut()), black_box(dw.view_mut()));
            bf16_matmul::backward(device, dy.view(), rows.view(), held.view(), size, dx, dw);
        });
        line("backward", ns, 2);
    }
}

fn norm_rows(device: &Device) {
    let (m, width) = (4096, 256);
    let (x, w) = (random(device, m * width), random(device, width));
    let (mut y, mut inverse) = (room(device, m * width), room(device, m));
    let ns = median_ns(|| {
        norm::rms_norm(device, x.view(), w.view(), 1e-6, y.view_mut(), black_box(inverse.view_mut()));
    });
    row("norm", &format!("{m}x{width}"), ns, 8 * m * width, 4 * m * width);
}

fn swiglu_rows(device: &Device) {
    let len = 4096 * 768;
    let (gate, up) = (random(device, len), random(device, len));
    let mut y = room(device, len);
    let ns = median_ns(|| swiglu::swiglu(device, gate.view(), up.view(), black_box(y.view_mut())));
    row("swiglu", "4096x768", ns, 12 * len, 5 * len);
}
