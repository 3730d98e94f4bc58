//! Errors of the quantizers are at most llama.cpp's, recorded with the values by `testdata/make/quantizers.py`.
#![allow(clippy::unwrap_used)]

use minke_kernels::format::{Stored, can_quantize, decode_rows, quantize};
use minke_kernels::{Device, Isa};
use minke_spec::Format;
use safetensors::SafeTensors;

fn floats(file: &[u8], name: &str) -> Vec<f32> {
    let tensors = SafeTensors::deserialize(file).unwrap();
    tensors.tensor(name).unwrap().data().as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect()
}

fn read(file: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../../testdata/formats/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn decoded(format: Format, bytes: &[u8], k: usize) -> Vec<f32> {
    let rows = bytes.len() / format.bytes(k);
    let mut values = vec![0.0; rows * k];
    decode_rows(Isa::detect(), Stored::new(format, bytes, &[], rows, k), 0, &mut values);
    values
}

#[test]
fn errors_are_at_most_those_of_llama_cpp() {
    let file = read("quantizers.safetensors");
    let (values, importance) = (floats(&file, "values"), floats(&file, "importance"));
    let k = importance.len();
    let mut compared = 0;
    for format in Format::ALL.into_iter().filter(|&format| format.block_elements() > 1 && can_quantize(format)) {
        let theirs = floats(&file, format.name());
        for (weights, theirs) in [(&[][..], theirs[0]), (&importance, theirs[1])] {
            let mut bytes = vec![0; format.bytes(values.len())];
            quantize(&Device::cpu(2, Isa::detect()).unwrap(), format, &values, k, weights, &mut bytes);
            for isa in Isa::available() {
                let mut again = vec![0; bytes.len()];
                quantize(&Device::cpu(1, isa).unwrap(), format, &values, k, weights, &mut again);
                assert!(again == bytes, "{} differs on {}", format.name(), isa.name());
            }
            let weight = |i: usize| weights.get(i % k).map_or(1.0, |&w| f64::from(w));
            let pairs = values.iter().zip(decoded(format, &bytes, k)).enumerate();
            let loss: f64 = pairs.map(|(i, (x, y))| weight(i) * (f64::from(*x) - f64::from(y)).powi(2)).sum();
            let ours = (loss / values.len() as f64).sqrt();
            let ratio = ours / f64::from(theirs);
            println!(
                "{:5} importance {:5}: {ours:.4e}, llama.cpp {theirs:.4e}, ratio {ratio:.4}",
                format.name(),
                !weights.is_empty()
            );
            assert!(ratio <= 1.005, "{}: {ratio}", format.name());
        }
        compared += 1;
    }
    assert_eq!(compared, 12);
}

/// Numbers that look random, the same every time.
fn random(seed: u64) -> impl FnMut(u32) -> u32 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % u64::from(below)) as u32
    }
}

/// What the codes of IQ4 stand for.
const LISTED: [i32; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

#[test]
fn what_a_format_can_say_exactly_comes_back_exactly() {
    // Every part has both ends of the codes, every block the largest factor and minimum.
    let mut next = random(3);
    for format in Format::ALL.into_iter().filter(|&format| format.block_elements() > 1 && can_quantize(format)) {
        let (least, most, factors, minimums) = match format {
            Format::Q4_0 => (-8, 7, 1, 0),
            Format::Q4_1 => (0, 15, 1, 9),
            Format::Q5_0 => (-16, 15, 1, 0),
            Format::Q5_1 => (0, 31, 1, 9),
            Format::Q8_0 => (-127, 127, 1, 0),
            Format::Q2K => (0, 3, 15, 15),
            Format::Q3K => (-4, 3, 31, 0),
            Format::Q4K => (0, 15, 63, 63),
            Format::Q5K => (0, 31, 63, 63),
            Format::Iq4Nl => (0, 15, 1, 0),
            Format::Iq4Xs => (0, 15, 31, 0),
            _ => (-32, 31, 127, 0),
        };
        let k = 512;
        let mut values = vec![0.0; 8 * k];
        for block in values.chunks_exact_mut(256) {
            let d = 2f32.powi(next(8) as i32 - 12);
            for (s, part) in block.chunks_exact_mut(32).enumerate() {
                let factor = if s == 0 { factors } else { 1 + next(factors) };
                let minimum = if s == 0 || minimums == 0 { minimums } else { next(minimums) };
                for (i, value) in part.iter_mut().enumerate() {
                    let code = match i % 16 {
                        0 => least,
                        1 => most,
                        _ => least + next((most - least + 1) as u32) as i32,
                    };
                    let listed = matches!(format, Format::Iq4Nl | Format::Iq4Xs);
                    let level = if listed { LISTED[code as usize] } else { code };
                    *value = d * (factor as i32 * level - minimum as i32) as f32;
                }
            }
        }
        let mut bytes = vec![0; format.bytes(values.len())];
        quantize(&Device::cpu(2, Isa::detect()).unwrap(), format, &values, k, &[], &mut bytes);
        let wrong = decoded(format, &bytes, k).iter().zip(&values).filter(|(a, b)| a != b).count();
        assert_eq!(wrong, 0, "{}", format.name());
    }
}

#[test]
fn strange_rows_stay_finite() {
    let k = 256;
    let mut next = random(5);
    let noise: Vec<f32> = (0..k).map(|_| next(2001) as f32 / 1000.0 - 1.0).collect();
    let scaled = |factor: f32| noise.iter().map(|x| x * factor).collect::<Vec<f32>>();
    let one = |at: usize, value: f32| (0..k).map(|i| if i == at { value } else { 0.0 }).collect::<Vec<f32>>();
    let rows = [
        vec![0.0; k],
        vec![1.0; k],
        vec![-0.3; k],
        scaled(1e-30),
        scaled(1e-7),
        scaled(1e30),
        scaled(f32::MAX),
        one(0, 1e-6),
        one(255, -3.0),
        noise.iter().map(|x| x.abs() + 5.0).collect(),
        noise.iter().map(|x| -x.abs() - 5.0).collect(),
    ];
    for format in Format::ALL.into_iter().filter(|&format| can_quantize(format)) {
        for (i, row) in rows.iter().enumerate() {
            for weights in [vec![], vec![0.0; k], scaled(1.0).iter().map(|w| w.abs()).collect()] {
                let mut bytes = vec![0; format.bytes(k)];
                quantize(&Device::cpu(1, Isa::detect()).unwrap(), format, row, k, &weights, &mut bytes);
                let back = decoded(format, &bytes, k);
                let worst = back.iter().zip(row).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                let largest = row.iter().map(|x| x.abs()).fold(0.0, f32::max);
                assert!(back.iter().all(|x| x.is_finite()), "{} row {i}", format.name());
                // The least step of f16 is 6e-8.
                assert!(worst <= largest.max(5e-7), "{} row {i}: {worst} of {largest}", format.name());
            }
        }
    }
}
