//! FP8 as the published model stores weights: e4m3 codes with one scale per block of 128 x 128; rows of activations
//! have one scale per tile of 1 x 128.
//!
//! ```text
//! scale = max |x| / 448        code = nearest e4m3 of x / scale        x ~ code * scale
//! ```
//!
//! e4m3 has a sign, four bits of exponent (bias 7) and three of fraction; no infinity; the two codes with all other
//! bits set are not a number.

use crate::device::Cpu;
use crate::ops::split::by_rows;
use crate::simd::simd_fn;

/// Columns of a tile; columns and rows of a block.
pub const BLOCK: usize = 128;
/// The largest e4m3 number.
pub const MAX: f32 = 448.0;
/// What the largest magnitude of a tile is taken for at least.
const LEAST: f32 = 1e-4;

/// What scales may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scales {
    /// Any f32.
    F32,
    /// Powers of two, rounded up: what fits the eight bits of ue8m0.
    Ue8m0,
}

impl Scales {
    fn of(self, largest: f32) -> f32 {
        match self {
            Self::F32 => largest / MAX,
            Self::Ue8m0 => decode_ue8m0(encode_ue8m0(largest / MAX)),
        }
    }
}

/// The number that an e4m3 code stands for.
#[inline(always)]
pub const fn decode_e4m3(code: u8) -> f32 {
    let bits = (code & 0x7f) as u32;
    // Exponent and fraction in their f32 places, the bias corrected; subnormals are steps of 2^-9. (As a subnormal f32 times
    // 2^120 they would be right as well, at a hundred times the cost.)
    let magnitude = match bits {
        0x7f => f32::NAN,
        8.. => f32::from_bits((bits << 20) + (120 << 23)),
        _ => bits as f32 / 512.0,
    };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

/// The nearest e4m3 code, ties to even; beyond 448 it is that of 448. Not a number stays so.
#[inline(always)]
pub fn encode_e4m3(x: f32) -> u8 {
    const SMALLEST_NORMAL: f32 = 0.015_625;
    let sign = ((x.to_bits() >> 24) & 0x80) as u8;
    // `min` would drop a not-a-number; it is handled last.
    let magnitude = x.abs().min(MAX);
    let bits = magnitude.to_bits();
    let code = if magnitude < SMALLEST_NORMAL {
        // Steps of 2^-9; adding 1.5 * 2^23 rounds to an integer, ties to even. Eight steps are the code of 2^-6.
        (magnitude * 512.0 + 12_582_912.0).to_bits() & 0xf
    } else {
        ((bits + 0x7_ffff + ((bits >> 20) & 1)) >> 20) - ((127 - 7) << 3)
    };
    if x.is_nan() { sign | 0x7f } else { sign | code as u8 }
}

/// The ue8m0 code, an exponent with bias 127, of the power of two that is not below `x >= 0`.
pub fn encode_ue8m0(x: f32) -> u8 {
    let bits = x.to_bits();
    (bits >> 23) as u8 + u8::from(bits & 0x7f_ffff != 0 && bits < 0x7f80_0000)
}

/// The number that a ue8m0 code stands for.
pub fn decode_ue8m0(code: u8) -> f32 {
    match code {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(code) << 23),
    }
}

simd_fn! {
    fn largest_magnitude<S>(_s: S, x: &[f32]) -> f32 {
        // Magnitudes order like their bits.
        f32::from_bits(x.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff)))
    }

    /// Encodes some columns that share a scale.
    fn encode_scaled<S>(_s: S, x: &[f32], scale: f32, codes: &mut [u8]) {
        for (x, code) in x.iter().zip(codes) {
            *code = encode_e4m3(*x / scale);
        }
    }

    /// Decodes rows whose columns have the scales of `scales`, 128 each.
    fn decode_scaled<S>(_s: S, codes: &[u8], scales: &[f32], y: &mut [f32]) {
        decode_row(codes, scales, y);
    }
}

/// Decodes a row whose columns have the scales of `scales`, 128 each.
#[inline(always)]
pub(crate) fn decode_row(codes: &[u8], scales: &[f32], y: &mut [f32]) {
    for ((codes, y), &scale) in codes.chunks(BLOCK).zip(y.chunks_mut(BLOCK)).zip(scales) {
        for (code, y) in codes.iter().zip(y) {
            *y = decode_e4m3(*code) * scale;
        }
    }
}

/// The number of rows.
fn rows_of(len: usize, width: usize) -> usize {
    assert!(if width == 0 { len == 0 } else { len.is_multiple_of(width) });
    len.checked_div(width).unwrap_or(0)
}

/// Computes codes and scales of activations, one scale per row and 128 columns.
///
/// # Shapes
/// x [T, width], codes [T, width], out_scales [T, ceil(width / 128)]
///
/// # Paper
/// - V3 3.3 (fine-grained quantization; the magnitude of at least 1e-4 is of the published kernel)
/// - Test: crates/kernels/src/format/fp8.rs::a_published_tile_is_reproduced
/// - Vector: testdata/vectors/fp8.json
///
/// # Numerics
/// A tile that holds an infinity or not a number gets a scale that is not finite.
pub fn quantize_tiles(cpu: &Cpu, x: &[f32], width: usize, scales: Scales, codes: &mut [u8], out_scales: &mut [f32]) {
    let (rows, tiles) = (rows_of(x.len(), width), width.div_ceil(BLOCK));
    by_rows(cpu, rows, width, [(out_scales, tiles)], |rows, [out]| {
        for (t, out) in rows.zip(out.chunks_exact_mut(tiles)) {
            for (x, out) in x[t * width..][..width].chunks(BLOCK).zip(out) {
                let largest = largest_magnitude(cpu.isa(), x);
                *out = scales.of(if largest < LEAST { LEAST } else { largest });
            }
        }
    });
    encode_rows(cpu, x, width, codes, |row| &out_scales[row * tiles..][..tiles]);
}

/// Computes activations from codes and scales.
///
/// # Shapes
/// codes [T, width], scales [T, ceil(width / 128)], y [T, width]
pub fn dequantize_tiles(cpu: &Cpu, codes: &[u8], scales: &[f32], width: usize, y: &mut [f32]) {
    let tiles = width.div_ceil(BLOCK);
    assert_eq!(scales.len(), rows_of(codes.len(), width) * tiles);
    decode_rows(cpu, codes, width, y, |row| &scales[row * tiles..][..tiles]);
}

/// Computes codes and scales of a weight, one scale per 128 x 128 block; blocks at the edges are smaller. A block of
/// zeros has the scale 1.
///
/// # Shapes
/// w [rows, width], codes [rows, width], out_scales [ceil(rows / 128), ceil(width / 128)]
///
/// # Paper
/// - V3 3.3 (fine-grained quantization)
pub fn quantize_blocks(cpu: &Cpu, w: &[f32], width: usize, scales: Scales, codes: &mut [u8], out_scales: &mut [f32]) {
    let (rows, blocks) = (rows_of(w.len(), width), width.div_ceil(BLOCK));
    by_rows(cpu, rows.div_ceil(BLOCK), width * BLOCK, [(out_scales, blocks)], |groups, [out]| {
        for (group, out) in groups.zip(out.chunks_exact_mut(blocks)) {
            out.fill(0.0);
            for row in w[group * BLOCK * width..].chunks_exact(width).take(BLOCK) {
                for (x, out) in row.chunks(BLOCK).zip(out.iter_mut()) {
                    let largest = largest_magnitude(cpu.isa(), x);
                    *out = if largest < *out { *out } else { largest };
                }
            }
            out.iter_mut().for_each(|v| *v = if *v == 0.0 { 1.0 } else { scales.of(*v) });
        }
    });
    encode_rows(cpu, w, width, codes, |row| &out_scales[row / BLOCK * blocks..][..blocks]);
}

/// Computes a weight from codes and scales.
///
/// # Shapes
/// codes [rows, width], scales [ceil(rows / 128), ceil(width / 128)], w [rows, width]
///
/// # Numerics
/// One f32 product per value; the published conversion then rounds to bf16.
pub fn dequantize_blocks(cpu: &Cpu, codes: &[u8], scales: &[f32], width: usize, w: &mut [f32]) {
    let blocks = width.div_ceil(BLOCK);
    assert_eq!(scales.len(), rows_of(codes.len(), width).div_ceil(BLOCK) * blocks);
    decode_rows(cpu, codes, width, w, |row| &scales[row / BLOCK * blocks..][..blocks]);
}

fn encode_rows<'a>(
    cpu: &Cpu,
    x: &[f32],
    width: usize,
    codes: &mut [u8],
    scales_of: impl Fn(usize) -> &'a [f32] + Sync,
) {
    by_rows(cpu, rows_of(x.len(), width), width, [(codes, width)], |rows, [codes]| {
        for (t, codes) in rows.zip(codes.chunks_exact_mut(width)) {
            let tiles = x[t * width..][..width].chunks(BLOCK).zip(codes.chunks_mut(BLOCK));
            for ((x, codes), &scale) in tiles.zip(scales_of(t)) {
                encode_scaled(cpu.isa(), x, scale, codes);
            }
        }
    });
}

fn decode_rows<'a>(
    cpu: &Cpu,
    codes: &[u8],
    width: usize,
    y: &mut [f32],
    scales_of: impl Fn(usize) -> &'a [f32] + Sync,
) {
    assert_eq!(codes.len(), y.len());
    by_rows(cpu, rows_of(codes.len(), width), width, [(y, width)], |rows, [y]| {
        for (t, y) in rows.zip(y.chunks_exact_mut(width)) {
            decode_scaled(cpu.isa(), &codes[t * width..][..width], scales_of(t), y);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::ops::testing::{bits, random};
    use serde_json::Value;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../../../testdata/vectors/fp8.json")).unwrap()
    }

    fn floats(value: &Value) -> Vec<f32> {
        value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
    }

    fn codes(value: &Value) -> Vec<u8> {
        value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u8).collect()
    }

    #[test]
    fn codes_decode_to_the_published_table_and_encode_back() {
        let table = &vectors()["e4m3fn_decode"];
        for code in 0..=255u8 {
            match table[code as usize].as_f64() {
                Some(want) => {
                    assert_eq!(decode_e4m3(code).to_bits(), (want as f32).to_bits(), "{code}");
                    assert_eq!(encode_e4m3(want as f32), code);
                }
                None => assert!(decode_e4m3(code).is_nan() && encode_e4m3(decode_e4m3(code)) & 0x7f == 0x7f),
            }
        }
        assert!(decode_e4m3(127).is_nan() && decode_e4m3(255).is_nan());
    }

    #[test]
    fn published_rounding_cases() {
        for case in vectors()["rounding"].as_array().unwrap() {
            let x = case["x"].as_f64().unwrap() as f32;
            assert_eq!(u64::from(encode_e4m3(x)), case["code"].as_u64().unwrap(), "{x}");
        }
        assert_eq!((encode_e4m3(f32::INFINITY), encode_e4m3(-1e30), encode_e4m3(f32::NAN)), (126, 254, 127));
    }

    #[test]
    fn every_float_goes_to_the_nearest_code() {
        let numbers: Vec<(u8, f64)> =
            (0..=255).map(|c| (c, f64::from(decode_e4m3(c)))).filter(|n| !n.1.is_nan()).collect();
        for (i, x) in random(1, 3000).into_iter().enumerate() {
            let x = x * [0.004, 0.02, 1.0, 100.0][i % 4];
            let distance = |n: f64| (n - f64::from(x)).abs();
            let nearest = numbers.iter().map(|n| distance(n.1)).fold(f64::INFINITY, f64::min);
            assert_eq!(distance(f64::from(decode_e4m3(encode_e4m3(x)))), nearest, "{x}");
        }
    }

    #[test]
    fn a_published_tile_is_reproduced() {
        let tile = &vectors()["tile"];
        let (x, want) = (floats(&tile["input"]), floats(&tile["dequant"]));
        for isa in Isa::available() {
            let cpu = crate::ops::testing::cpu(1, isa);
            let (mut got, mut scale, mut back) = (vec![0; 128], vec![0.0], vec![0.0; 128]);
            quantize_tiles(&cpu, &x, 128, Scales::F32, &mut got, &mut scale);
            dequantize_tiles(&cpu, &got, &scale, 128, &mut back);
            assert_eq!((f64::from(scale[0]), got.clone()), (tile["scale"].as_f64().unwrap(), codes(&tile["codes"])));
            assert_eq!(bits(&back), bits(&want));
            quantize_tiles(&cpu, &x, 128, Scales::Ue8m0, &mut got, &mut scale);
            let ue8m0 = tile["ue8m0_scale"].as_f64().unwrap();
            assert_eq!((f64::from(scale[0]), got), (ue8m0, codes(&tile["ue8m0_codes"])));
        }
    }

    #[test]
    fn power_of_two_scales_are_rounded_up() {
        for (x, up) in [(1.0, 1.0), (1.000_000_1, 2.0), (0.083, 0.125), (0.75, 1.0), (3e-38, 2f32.powi(-124))] {
            assert_eq!(decode_ue8m0(encode_ue8m0(x)), up, "{x}");
        }
        for code in 0..=254 {
            assert_eq!(encode_ue8m0(decode_ue8m0(code)).max(1), code.max(1));
        }
        assert!(decode_ue8m0(encode_ue8m0(f32::INFINITY)).is_nan() && decode_ue8m0(encode_ue8m0(f32::NAN)).is_nan());
    }

    #[test]
    fn ragged_tiles_and_blocks_come_back_within_half_a_step_for_any_threads() {
        // 576 x 7168 has 5 x 56 scales in the published checkpoint; here a ragged 300 x 200.
        for (rows, width) in [(0, 130), (1, 1), (130, 129), (300, 200)] {
            let x: Vec<f32> =
                random(2, rows * width).iter().enumerate().map(|(i, x)| x * (1 + i / 4000) as f32).collect();
            let (tiles, row_blocks) = (width.div_ceil(BLOCK), rows.div_ceil(BLOCK));
            for scales in [Scales::F32, Scales::Ue8m0] {
                let mut first = None;
                for isa in Isa::available() {
                    for threads in [1, 2, 3] {
                        let cpu = crate::ops::testing::cpu(threads, isa);
                        let (mut a, mut a_scales) = (vec![9; x.len()], vec![f32::NAN; rows * tiles]);
                        let (mut b, mut b_scales) = (vec![9; x.len()], vec![f32::NAN; row_blocks * tiles]);
                        let (mut y, mut w) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
                        quantize_tiles(&cpu, &x, width, scales, &mut a, &mut a_scales);
                        dequantize_tiles(&cpu, &a, &a_scales, width, &mut y);
                        quantize_blocks(&cpu, &x, width, scales, &mut b, &mut b_scales);
                        dequantize_blocks(&cpu, &b, &b_scales, width, &mut w);
                        for i in 0..x.len() {
                            let (row, column) = (i / width, i % width / BLOCK);
                            let scales = [a_scales[row * tiles + column], b_scales[row / BLOCK * tiles + column]];
                            for (back, scale) in [y[i], w[i]].into_iter().zip(scales) {
                                // Half a step: 1/16 of the magnitude, or of the smallest normal number.
                                let bound = (x[i].abs() / 16.0).max(scale / 1024.0) * 1.000_01;
                                assert!((back - x[i]).abs() <= bound, "{rows} {width} {i}: {back} not {}", x[i]);
                            }
                        }
                        let all = (a, bits(&a_scales), b, bits(&b_scales), bits(&y), bits(&w));
                        assert!(first.get_or_insert_with(|| all.clone()) == &all);
                    }
                }
            }
        }
    }

    #[test]
    fn blocks_share_their_scale_and_zeros_stay_zero() {
        let cpu = crate::ops::testing::cpu(1, Isa::detect());
        let mut w = vec![0.0; 129 * 130];
        w[130 * 127 + 127] = -896.0;
        w[130 * 128 + 129] = 44.8;
        let (mut codes, mut scales, mut back) = (vec![9; w.len()], vec![0.0; 4], w.clone());
        quantize_blocks(&cpu, &w, 130, Scales::F32, &mut codes, &mut scales);
        dequantize_blocks(&cpu, &codes, &scales, 130, &mut back);
        assert_eq!((scales, back == w), (vec![2.0, 1.0, 1.0, 44.8 / 448.0], true));
        let (mut codes, mut scales) = (vec![9; 3], vec![0.0]);
        quantize_tiles(&cpu, &[0.0, 1e-6, -1e-4], 3, Scales::F32, &mut codes, &mut scales);
        assert_eq!((scales[0], codes), (1e-4 / 448.0, vec![0, encode_e4m3(4.48), 254]));
    }
}
