use super::*;
use crate::Bf16;
use crate::ops::testing::{devices, groups, random, view, view_mut, wide};

fn close(got: &[f32], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(g) - w).abs() <= 2e-5 * (1.0 + w.abs()), "{what}: element {i} is {g}, not {w}");
    }
}

const HEADS: [Heads; 5] = [
    Heads { query: 1, key_value: 1, width: 8, value_width: 8 },
    Heads { query: 4, key_value: 2, width: 20, value_width: 12 },
    Heads { query: 3, key_value: 3, width: 33, value_width: 47 },
    Heads { query: 5, key_value: 5, width: 24, value_width: 16 },
    Heads { query: 6, key_value: 1, width: 40, value_width: 64 },
];

struct Case {
    heads: Heads,
    lengths: Vec<usize>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Case {
    fn new(heads: Heads, lengths: &[usize]) -> Self {
        let rows: usize = lengths.iter().sum();
        Self {
            heads,
            lengths: lengths.to_vec(),
            q: random(1, rows * heads.query * heads.width),
            k: random(2, rows * heads.key_value * heads.width),
            v: random(3, rows * heads.key_value * heads.value_width),
        }
    }

    /// The whole batch: spans and tiles that point into it.
    fn spans(&self) -> (Vec<Span>, Vec<u32>) {
        let (mut spans, mut tiles, mut row) = (Vec::new(), Vec::new(), 0);
        for &rows in &self.lengths {
            spans.push(Span { first_row: row, rows, first_position: 0, first_tile: tiles.len() });
            tiles.extend((0..rows.div_ceil(TILE)).map(|t| (row + t * TILE) as u32));
            row += rows;
        }
        (spans, tiles)
    }

    fn memory<'a>(&'a self, tiles: &'a [u32]) -> Memory<'a, Floats<'a>> {
        Memory {
            keys: Floats::F32(view(&self.k)),
            values: Floats::F32(view(&self.v)),
            key_strides: batch_strides(self.heads.key_value, self.heads.width),
            value_strides: batch_strides(self.heads.key_value, self.heads.value_width),
            tiles,
        }
    }

    fn run(&self, device: &Device) -> (Vec<f32>, Vec<f32>) {
        let (spans, tiles) = self.spans();
        let rows: usize = self.lengths.iter().sum();
        let mut out = vec![f32::NAN; rows * self.heads.query * self.heads.value_width];
        let mut log_sum = vec![f32::NAN; rows * self.heads.query];
        attention(
            device,
            view(&self.q),
            self.memory(&tiles),
            &spans,
            self.heads,
            0.3,
            view_mut(&mut out),
            view_mut(&mut log_sum),
        );
        (out, log_sum)
    }

    /// Calls `check` with the rows of each sequence.
    fn each(&self, mut check: impl FnMut(std::ops::Range<usize>)) {
        let mut row = 0;
        for &rows in &self.lengths {
            check(row..row + rows);
            row += rows;
        }
    }
}

fn rows_of(range: &std::ops::Range<usize>, width: usize) -> std::ops::Range<usize> {
    range.start * width..range.end * width
}

#[test]
fn forward_and_backward_agree_with_the_reference() {
    for devices in groups() {
        for heads in HEADS {
            let case = Case::new(heads, &[1, 31, 0, 32, 33, 130]);
            let Heads { query, key_value, width, value_width } = heads;
            let mut bits = None;
            for device in &devices {
                let (out, log_sum) = case.run(device);
                let (spans, _) = case.spans();
                let dout = random(4, out.len());
                let (mut dq, mut dk, mut dv) =
                    (vec![f32::NAN; case.q.len()], vec![f32::NAN; case.k.len()], vec![f32::NAN; case.v.len()]);
                let log_sums = view(&log_sum);
                let saved = Saved { q: &case.q, k: &case.k, v: &case.v, out: &out, log_sum: log_sums };
                let gradients = Gradients { q: view_mut(&mut dq), k: view_mut(&mut dk), v: view_mut(&mut dv) };
                let saved = saved.map(|x| Floats::F32(view(x)));
                attention_backward(device, saved, view(&dout), &spans, heads, 0.3, gradients);
                case.each(|rows| {
                    let of = |w: usize| rows_of(&rows, w);
                    let (q, k) = (wide(&case.q[of(query * width)]), wide(&case.k[of(key_value * width)]));
                    let (v, d) = (wide(&case.v[of(key_value * value_width)]), wide(&dout[of(query * value_width)]));
                    let (want, want_log) = reference::attention(&q, &k, &v, 0, heads, f64::from(0.3f32));
                    close(&out[of(query * value_width)], &want, "out");
                    close(&log_sum[of(query)], &want_log, "log_sum");
                    let grads = reference::attention_backward((&q, &k, &v), &d, heads, f64::from(0.3f32));
                    close(&dq[of(query * width)], &grads.0, "dq");
                    close(&dk[of(key_value * width)], &grads.1, "dk");
                    close(&dv[of(key_value * value_width)], &grads.2, "dv");
                });
                let now = (out, log_sum, dq, dk, dv);
                assert!(bits.get_or_insert_with(|| now.clone()) == &now, "{device:?}");
            }
        }
    }
}

#[test]
fn the_backward_in_bf16_is_near_the_reference_and_does_not_depend_on_threads() {
    let large = Heads { query: 4, key_value: 2, width: 64, value_width: 64 };
    for devices in groups() {
        for heads in HEADS.into_iter().chain([large]) {
            let case = Case::new(heads, &[1, 31, 0, 32, 63, 64, 65, 130, 300]);
            let ((spans, _), mut bits) = (case.spans(), None);
            for device in &devices {
                let (out, log_sum) = case.run(device);
                let dout = random(4, out.len());
                let run = |saved: Saved<'_, Floats<'_>>| {
                    let lens = [case.q.len(), case.k.len(), case.v.len()];
                    let [mut dq, mut dk, mut dv] = lens.map(|len| vec![f32::NAN; len]);
                    let gradients = Gradients { q: view_mut(&mut dq), k: view_mut(&mut dk), v: view_mut(&mut dv) };
                    attention_backward(device, saved, view(&dout), &spans, heads, 0.3, gradients);
                    [dq, dk, dv]
                };
                let whole = Saved { q: &case.q, k: &case.k, v: &case.v, out: &out, log_sum: view(&log_sum) };
                let exact = run(whole.map(|x| Floats::F32(view(x))));
                let held = whole.map(|x| x.iter().map(|&v| Bf16::from_f32(v)).collect::<Vec<_>>());
                let held = Saved { q: &held.q, k: &held.k, v: &held.v, out: &held.out, log_sum: view(&log_sum) };
                let got = run(held.map(|x| Floats::Bf16(view(x))));
                for (exact, got) in exact.iter().zip(&got) {
                    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                    let off = norm(&mut exact.iter().zip(got).map(|(e, g)| e - g)) / norm(&mut exact.iter().copied());
                    assert!(off < 0.01, "{device:?} {heads:?}: off by {off}");
                    let largest = exact.iter().fold(0.0f32, |most, v| most.max(v.abs()));
                    for (i, (e, g)) in exact.iter().zip(got).enumerate() {
                        assert!((e - g).abs() < 0.03 * largest, "{device:?} {heads:?}: {i} is {g}, not {e}");
                    }
                }
                assert!(bits.get_or_insert_with(|| got.clone()) == &got, "{device:?}");
            }
        }
    }
}

#[test]
fn the_reference_backward_is_the_derivative() {
    let heads = Heads { query: 2, key_value: 1, width: 3, value_width: 2 };
    let (q, k, v) = (wide(&random(1, 5 * 6)), wide(&random(2, 5 * 3)), wide(&random(3, 5 * 2)));
    let d = wide(&random(4, 5 * 4));
    let loss = |q: &[f64], k: &[f64], v: &[f64]| -> f64 {
        reference::attention(q, k, v, 0, heads, 0.7).0.iter().zip(&d).map(|(o, d)| o * d).sum()
    };
    let grads = reference::attention_backward((&q, &k, &v), &d, heads, 0.7);
    for (which, grad) in [&grads.0, &grads.1, &grads.2].into_iter().enumerate() {
        for i in 0..grad.len() {
            let at = |step: f64| {
                let mut moved = [q.clone(), k.clone(), v.clone()];
                moved[which][i] += step;
                loss(&moved[0], &moved[1], &moved[2])
            };
            let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((slope - grad[i]).abs() < 1e-8, "input {which}, element {i}: {slope} against {}", grad[i]);
        }
    }
}

/// Writes rows [start, start + rows) of `x` `[T, heads, width]` into pages.
fn write<T: Element>(
    x: &[f32],
    strides: Strides,
    [heads, width]: [usize; 2],
    (start, rows): (usize, usize),
    to: &mut [T],
) {
    for t in start..start + rows {
        for h in 0..heads {
            for p in 0..width {
                let place = PAGES[t / TILE] as usize * strides.unit + t % TILE * strides.key;
                to[place + h * strides.head + p * strides.component] = T::from_f32(x[(t * heads + h) * width + p]);
            }
        }
    }
}

const PAGES: [u32; 5] = [5, 0, 7, 2, 6];

/// Checks that one sequence, split into chunks that read keys and values from scattered pages of type `T`, has the bits
/// of the whole sequence in f32, of which keys and values were rounded to `T`.
fn chunks_have_the_bits_of_the_whole<T: Element>(
    device: &Device,
    heads: Heads,
    latents: bool,
    floats: fn(&[T]) -> Floats<'_>,
) {
    let length = 130;
    let Heads { query, key_value, width, value_width } = heads;
    let mut case = Case::new(heads, &[length]);
    case.k.iter_mut().chain(&mut case.v).for_each(|x| *x = T::from_f32(*x).to_f32());
    let (page_k, page_v) = (key_value * width * TILE, key_value * value_width * TILE);
    let (key_strides, value_strides) = if latents {
        case.v = case.k.chunks_exact(width).flat_map(|key| &key[..value_width]).copied().collect();
        let strides = Strides { unit: page_k, head: 0, key: width, component: 1 };
        (strides, strides)
    } else {
        (
            Strides { unit: page_k, head: width * TILE, key: 1, component: TILE },
            Strides { unit: page_v, head: value_width * TILE, key: value_width, component: 1 },
        )
    };
    let whole = case.run(device);
    // What stands in unused places must not matter.
    let (mut keys, mut values) = (vec![T::from_f32(f32::NAN); 8 * page_k], vec![T::from_f32(f32::NAN); 8 * page_v]);
    for chunk in [1, 7, 31, 64, 130] {
        let (mut out, mut log_sum) = (vec![0.0; whole.0.len()], vec![0.0; whole.1.len()]);
        let mut start = 0;
        while start < length {
            let rows = chunk.min(length - start);
            write(&case.k, key_strides, [key_value, width], (start, rows), &mut keys);
            if !latents {
                write(&case.v, value_strides, [key_value, value_width], (start, rows), &mut values);
            }
            let values = if latents { &keys } else { &values };
            let memory =
                Memory { keys: floats(&keys), values: floats(values), key_strides, value_strides, tiles: &PAGES };
            let span = Span { first_row: 0, rows, first_position: start, first_tile: 0 };
            let at = |w: usize| start * w..(start + rows) * w;
            attention(
                &device.serial(),
                view(&case.q[at(query * width)]),
                memory,
                &[span],
                heads,
                0.3,
                view_mut(&mut out[at(query * value_width)]),
                view_mut(&mut log_sum[at(query)]),
            );
            start += rows;
        }
        assert!((out, log_sum) == whole, "{device:?} {heads:?} chunk {chunk}");
    }
}

#[test]
fn chunks_over_pages_have_the_bits_of_the_whole_sequence() {
    let latent = Heads { query: 6, key_value: 1, width: 40, value_width: 27 };
    for device in &devices([2]) {
        for heads in HEADS {
            chunks_have_the_bits_of_the_whole::<f32>(device, heads, false, |x| Floats::F32(view(x)));
            chunks_have_the_bits_of_the_whole::<Bf16>(device, heads, false, |x| Floats::Bf16(view(x)));
        }
        chunks_have_the_bits_of_the_whole::<f32>(device, latent, true, |x| Floats::F32(view(x)));
        chunks_have_the_bits_of_the_whole::<Bf16>(device, latent, true, |x| Floats::Bf16(view(x)));
    }
}
