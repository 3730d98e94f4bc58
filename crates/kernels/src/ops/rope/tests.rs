use super::*;
use crate::Isa;
use crate::ops::testing::*;
use serde_json::Value;

const CASES: [(usize, usize, usize, usize, usize); 6] =
    [(0, 2, 8, 4, 4), (1, 1, 2, 0, 2), (3, 2, 7, 1, 6), (2, 3, 48, 16, 32), (40, 8, 96, 32, 64), (5, 1, 10, 4, 0)];
const LAYOUTS: [Layout; 2] = [Layout::Interleaved, Layout::Halves];
const DIRECTIONS: [Direction; 2] = [Direction::Forward, Direction::Inverse];

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../../../testdata/vectors/yarn_deepseek_r1.json")).unwrap()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn inv_freq() -> Vec<f32> {
    floats(&vectors()["inv_freq"]).iter().map(|&f| f as f32).collect()
}

#[test]
fn every_path_agrees_with_the_reference() {
    for (tokens, heads, width, start, rotated) in CASES {
        let x = random(1, tokens * heads * width);
        let freq: Vec<f32> = (0..rotated / 2).map(|i| 1.0 / (1 << i.min(20)) as f32).collect();
        let positions: Vec<u32> = (0..tokens).map(|t| (t * t * 31) as u32).collect();
        for layout in LAYOUTS {
            for direction in DIRECTIONS {
                let run = |device: &Device| {
                    let (mut turns, mut y) = (unwritten(tokens * rotated), unwritten(x.len()));
                    cos_sin(device, view(&positions), &freq, 1.25, view_mut(&mut turns));
                    rotate(device, view(&x), view(&turns), heads, width, start, layout, direction, view_mut(&mut y));
                    vec![turns, y]
                };
                on_every_path(run, |out, path| {
                    let what = format!("{path} {layout:?} {direction:?} {tokens} {heads} {width}");
                    let turns = reference::cos_sin(&positions, &freq, 1.25);
                    close(&out[0], &turns, 1e-7, &what);
                    let want = reference::rotate(&wide(&x), &turns, (heads, width, start), layout, direction);
                    close(&out[1], &want, 1e-6, &what);
                });
            }
        }
    }
}

#[test]
fn the_inverse_direction_is_the_derivative() {
    let (x, dy) = (wide(&random(2, 2 * 3 * 7)), wide(&random(3, 2 * 3 * 7)));
    let turns = reference::cos_sin(&[3, 11], &[1.0, 0.3], 1.5);
    for layout in LAYOUTS {
        let dx = reference::rotate(&dy, &turns, (3, 7, 2), layout, Direction::Inverse);
        is_derivative(&dx, &x, &dy, |x| reference::rotate(x, &turns, (3, 7, 2), layout, Direction::Forward));
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_batch() {
    for isa in Isa::available() {
        let (heads, width, start, rotated, tokens) = (4, 40, 8, 32, 200);
        let x = random(4, tokens * heads * width);
        let positions: Vec<u32> = (0..tokens as u32).collect();
        let freq = &inv_freq()[..rotated / 2];
        let run = |at: std::ops::Range<usize>, threads: usize| {
            let device = path(threads, isa);
            let x = &x[at.start * heads * width..at.end * heads * width];
            let (mut turns, mut y) = (unwritten(at.len() * rotated), unwritten(x.len()));
            cos_sin(&device, view(&positions[at]), freq, 1.0, view_mut(&mut turns));
            rotate(
                &device,
                view(x),
                view(&turns),
                heads,
                width,
                start,
                Layout::Interleaved,
                Direction::Forward,
                view_mut(&mut y),
            );
            y
        };
        let whole = run(0..tokens, 2);
        for t in [0, 1, 63, 199] {
            assert_eq!(run(t..t + 1, 1), whole[t * heads * width..][..heads * width]);
        }
    }
}

#[test]
fn angles_match_the_published_samples() {
    // The samples are of f64 angles, the first and last four frequencies; ours are of f32 angles, as published models
    // compute them, which differ by the rounding of the product.
    let (vectors, freq) = (vectors(), inv_freq());
    let indices = [0, 1, 2, 3, 28, 29, 30, 31];
    for sample in vectors["cos_sin_samples"].as_array().unwrap() {
        let position = sample["pos"].as_u64().unwrap() as u32;
        let mut turns = unwritten(64);
        cos_sin(&path(1, Isa::detect()), view(&[position]), &freq, 1.0, view_mut(&mut turns));
        for (which, name) in ["cos", "sin"].into_iter().enumerate() {
            for (&i, want) in indices.iter().zip(floats(&sample[name])) {
                let got = f64::from(turns[2 * i + which]);
                let angle = f64::from(position) * f64::from(freq[i]);
                assert!((got - want).abs() <= 1e-7 + 1.3e-7 * angle, "{name} {position} {i}: {got} not {want}");
            }
        }
    }
}

#[test]
fn the_published_rotation() {
    // yarn_deepseek_r1: one head of 64 at position 100.
    let example = &vectors()["interleaved_rotation_example"];
    let position = example["pos"].as_u64().unwrap() as u32;
    let input: Vec<f32> = floats(&example["input"]).iter().map(|&v| v as f32).collect();
    let run = |device: &Device| {
        let (mut turns, mut y, mut back) = (unwritten(64), unwritten(64), unwritten(64));
        cos_sin(device, view(&[position]), &inv_freq(), 1.0, view_mut(&mut turns));
        rotate(device, view(&input), view(&turns), 1, 64, 0, Layout::Interleaved, Direction::Forward, view_mut(&mut y));
        rotate(device, view(&y), view(&turns), 1, 64, 0, Layout::Interleaved, Direction::Inverse, view_mut(&mut back));
        vec![y, back]
    };
    on_every_path(run, |out, path| {
        close(&out[0], &floats(&example["output"]), 1e-5, path);
        close(&out[1], &wide(&input), 1e-6, path);
    });
}
