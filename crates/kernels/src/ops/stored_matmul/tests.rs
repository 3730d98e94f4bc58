use std::collections::BTreeSet;

use super::*;
use crate::format::bf16::Bf16;
use crate::format::decode_rows;
use crate::ops::matmul::{Size, pack, packed_len};
use crate::ops::testing::{bits, close, devices, random, unwritten, view, view_mut};
use minke_spec::draw::{Domain, draw};

/// Random blocks with scales of moderate size.
fn random_bytes(seed: u64, format: Format, n: usize, k: usize) -> Vec<u8> {
    let mut stream = draw(seed, Domain::Data, &[n as u64, k as u64]);
    moderate(format, (0..n * format.bytes(k)).map(|_| stream.below(256) as u8).collect())
}

/// Blocks of these bytes, but with scales of moderate size.
fn moderate(format: Format, mut bytes: Vec<u8>) -> Vec<u8> {
    // Exponents of f16 from 2^-8 to 2^-5, of f32 and bf16 likewise; signs and fractions stay random.
    let half_at = |at: &[usize], bytes: &mut [u8]| {
        for block in bytes.chunks_exact_mut(format.block_bytes()) {
            for at in at {
                block[at + 1] = block[at + 1] & 0x83 | 0x1c;
            }
        }
    };
    match format {
        Format::F32 => bytes.chunks_exact_mut(4).for_each(|b| b[3] = b[3] & 0x80 | 0x3d),
        Format::Bf16 => bytes.chunks_exact_mut(2).for_each(|b| b[1] = b[1] & 0x80 | 0x3d),
        Format::F16 => half_at(&[0], &mut bytes),
        Format::F8E4M3 => bytes.iter_mut().for_each(|b| *b &= 0xbf),
        Format::Q4_0 | Format::Q5_0 | Format::Q8_0 | Format::Iq4Nl | Format::Iq4Xs => half_at(&[0], &mut bytes),
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => half_at(&[0, 2], &mut bytes),
        Format::Q2K => half_at(&[80, 82], &mut bytes),
        Format::Q3K => half_at(&[108], &mut bytes),
        Format::Q6K => half_at(&[208], &mut bytes),
        Format::Iq1S | Format::Iq2Xxs | Format::Iq2Xs | Format::Iq2S | Format::Iq3Xxs | Format::Iq3S => {
            half_at(&[0], &mut bytes);
        }
        // The high halves of the last four odd bytes make the scale.
        Format::Iq1M => bytes.chunks_exact_mut(56).for_each(|b| {
            b[53] |= 0xc0;
            b[55] = b[55] & 0x8f | 0x10;
        }),
    }
    bytes
}

fn block_scales(format: Format, n: usize, k: usize) -> Vec<f32> {
    let blocks = if format == Format::F8E4M3 { n.div_ceil(128) * k.div_ceil(128) } else { 0 };
    random(9, blocks).iter().map(|v| v.abs() + 0.1).collect()
}

fn sizes(format: Format) -> &'static [(usize, usize)] {
    match format.block_elements() {
        1 => &[(1, 1), (5, 7), (33, 129), (130, 300), (31, 512)],
        32 => &[(1, 32), (33, 96), (47, 288), (130, 544)],
        _ => &[(1, 256), (33, 512), (130, 768)],
    }
}

#[test]
fn every_path_agrees_with_the_reference_and_with_a_row_alone() {
    for format in Format::ALL {
        for &(n, k) in sizes(format) {
            let (bytes, scales, m) = (random_bytes(1, format, n, k), block_scales(format, n, k), 37);
            let w = Stored::new(format, &bytes, &scales, n, k);
            let x = random(2, m * k);
            let want = reference::matmul(&x, w);
            for device in devices([2]) {
                let mut y = unwritten(m * n);
                matmul(&device, view(&x), [w], m, [view_mut(&mut y)]);
                let size = want.iter().fold(0.0f64, |largest, v| largest.max(v.abs()));
                let scaled: Vec<f32> = y.iter().map(|&v| (f64::from(v) / size) as f32).collect();
                let wanted: Vec<f64> = want.iter().map(|&v| v / size).collect();
                close(&scaled, &wanted, 1e-6, &format!("{} {} [{n}, {k}]", device.name(), format.name()));
                for rows in [1, 2, 3, 5, 8, 11, 16, 17, 33] {
                    let mut part = unwritten(rows * n);
                    matmul(&device.serial(), view(&x[(m - rows) * k..]), [w], rows, [view_mut(&mut part)]);
                    assert_eq!(
                        bits(&part),
                        bits(&y[(m - rows) * n..]),
                        "{} {} {rows} rows",
                        device.name(),
                        format.name()
                    );
                }
            }
        }
    }
}

#[test]
fn matrices_that_read_the_same_rows_have_the_bits_of_each_alone() {
    // Of one format and of others, of floats and of codes, wide and narrow.
    let (formats, k) = ([Format::Q4K, Format::Q6K, Format::Q4K, Format::F16, Format::Q8_0], 512);
    let rows = [160, 33, 1, 70, 64];
    let bytes: Vec<Vec<u8>> = (0..5).map(|i| random_bytes(20 + i as u64, formats[i], rows[i], k)).collect();
    let w: [Stored<'_>; 5] = std::array::from_fn(|i| Stored::new(formats[i], &bytes[i], &[], rows[i], k));
    for (device, m) in devices([1, 2]).into_iter().flat_map(|device| [1, 3, 19].map(|m| (device.clone(), m))) {
        let x = random(25, m * k);
        let mut ys = rows.map(|n| unwritten(m * n));
        matmul(&device, view(&x), w, m, ys.each_mut().map(|y| view_mut(y)));
        for (w, y) in w.into_iter().zip(&ys) {
            let mut alone = unwritten(y.len());
            matmul(&device, view(&x), [w], m, [view_mut(&mut alone)]);
            assert_eq!(bits(y), bits(&alone), "{} {} {m} rows", device.name(), w.format().name());
        }
    }
}

#[test]
fn the_largest_codes_do_not_overflow() {
    let (n, k, m) = (17, 256, 9);
    for format in Format::ALL {
        // Most formats have their largest code where all bits are set, IQ4 its largest value at 15 and its least at 0.
        for byte in [0x00, 0xff] {
            let scales = block_scales(format, n, k);
            let bytes = moderate(format, vec![byte; n * format.bytes(k)]);
            let w = Stored::new(format, &bytes, &scales, n, k);
            let x: Vec<f32> = (0..m * k).map(|i| if i / k % 2 == 0 { 1.0 } else { -1.0 }).collect();
            let want = reference::matmul(&x, w);
            let size = want.iter().fold(f64::MIN_POSITIVE, |largest, v| largest.max(v.abs()));
            for device in devices([1]) {
                let mut y = unwritten(m * n);
                matmul(&device, view(&x), [w], m, [view_mut(&mut y)]);
                let scaled: Vec<f32> = y.iter().map(|&v| (f64::from(v) / size) as f32).collect();
                let wanted: Vec<f64> = want.iter().map(|&v| v / size).collect();
                close(&scaled, &wanted, 1e-5, &format!("{} {} of {byte}", device.name(), format.name()));
            }
        }
    }
}

/// The bytes of a matrix with its rows interleaved, and for how many lanes.
fn interleaved(device: &Device, w: Stored<'_>) -> Option<(usize, Vec<u8>)> {
    let (lanes, [n, k]) = (interleaved_lanes(device, w.format())?, w.shape());
    let mut bytes = vec![0; Stored::interleaved_len(w.format(), lanes, n, k)?];
    interleave(device, w, &mut bytes);
    Some((lanes, bytes))
}

#[test]
fn interleaved_rows_have_the_same_bits() {
    let mut seen = BTreeSet::new();
    for format in Format::ALL {
        for &(n, k) in sizes(format) {
            let (bytes, m) = (random_bytes(11, format, n, k), 19);
            if format == Format::F8E4M3 {
                continue;
            }
            let w = Stored::new(format, &bytes, &[], n, k);
            let x = random(12, m * k);
            for device in devices([2]) {
                let Some((lanes, bytes)) = interleaved(&device, w) else { continue };
                let turned = Stored::interleaved(format, lanes, &bytes, n, k);
                let what = format!("{} {} [{n}, {k}]", device.name(), format.name());
                let (mut y, mut z) = (unwritten(m * n), unwritten(m * n));
                matmul(&device, view(&x), [w], m, [view_mut(&mut y)]);
                matmul(&device, view(&x), [turned], m, [view_mut(&mut z)]);
                assert_eq!(bits(&y), bits(&z), "{what}");
                for rows in 1..m {
                    let mut part = unwritten(rows * n);
                    matmul(&device, view(&x[(m - rows) * k..]), [turned], rows, [view_mut(&mut part)]);
                    assert_eq!(bits(&part), bits(&y[(m - rows) * n..]), "{what}, {rows} rows");
                }
                let rows = n.min(20);
                let (mut y, mut z) = (unwritten(rows * k), unwritten(rows * k));
                decode(&device, w, n - rows, view_mut(&mut y));
                decode(&device, turned, n - rows, view_mut(&mut z));
                assert_eq!(bits(&y), bits(&z), "{what}, decoded");
                seen.insert(format.name());
            }
            // Rows 3 to 12 of each of some heads of 10.
            let heads = n / 10;
            let slice = HeadSlice { heads, per_head: 10, first: 3, count: 7, latent: k };
            let w = Stored::new(format, &bytes[..heads * 10 * format.bytes(k)], &[], heads * 10, k);
            let x = random(13, 2 * heads * k);
            for device in devices([2]) {
                let Some((lanes, bytes)) = interleaved(&device, w).filter(|_| heads > 0) else { continue };
                let turned = Stored::interleaved(format, lanes, &bytes, heads * 10, k);
                let (mut y, mut z) = (unwritten(2 * heads * 7), unwritten(2 * heads * 7));
                heads_matmul(&device, view(&x), w, slice, view_mut(&mut y));
                heads_matmul(&device, view(&x), turned, slice, view_mut(&mut z));
                assert_eq!(bits(&y), bits(&z), "{} {}, heads", device.name(), format.name());
            }
        }
    }
    let mut all = BTreeSet::from(["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]);
    all.extend(["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ4_NL", "IQ4_XS"]);
    assert_eq!(seen, all);
}

/// A file of interleaved rows names the number of their layout: another layout must get another.
#[test]
fn the_layout_has_its_number() {
    for device in devices([1]) {
        let mut sum = 0xcbf2_9ce4_8422_2325_u64;
        for format in Format::ALL.into_iter().filter(|&format| format != Format::F8E4M3) {
            let (n, k) = (19, 512);
            let rows = random_bytes(14, format, n, k);
            let Some((_, bytes)) = interleaved(&device, Stored::new(format, &rows, &[], n, k)) else { continue };
            sum = bytes.iter().fold(sum, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        }
        if interleaved_lanes(&device, Format::Q8_0) == Some(8) {
            assert_eq!((LAYOUT, sum), (3, 0x6751_786c_1558_f575), "{}", device.name());
        }
    }
}

#[test]
fn floats_have_the_bits_of_the_plain_product() {
    let (m, n, k) = (9, 75, 301);
    for format in [Format::F32, Format::F16, Format::Bf16, Format::F8E4M3] {
        let (bytes, scales) = (random_bytes(3, format, n, k), block_scales(format, n, k));
        let w = Stored::new(format, &bytes, &scales, n, k);
        let x = random(4, m * k);
        for device in devices([2]) {
            let mut values = unwritten(n * k);
            decode_rows(crate::Isa::detect(), w, 0, &mut values);
            let mut packed = unwritten(packed_len(&device, n, k));
            pack(&device, view(&values), n, k, view_mut(&mut packed));
            let (mut plain, mut y) = (unwritten(m * n), unwritten(m * n));
            crate::ops::matmul::matmul(&device, view(&x), view(&packed), Size { m, n, k }, view_mut(&mut plain));
            matmul(&device, view(&x), [w], m, [view_mut(&mut y)]);
            assert_eq!(bits(&y), bits(&plain), "{} {}", device.name(), format.name());
        }
    }
}

#[test]
fn experts_and_heads_are_products_of_their_rows() {
    for format in [Format::Bf16, Format::F8E4M3, Format::Q8_0, Format::Q4K, Format::Q6K] {
        let (n, k) = (40, 512);
        for device in devices([2]) {
            let alone = |x: &[f32], w: Stored<'_>| -> Vec<u32> {
                let mut y = unwritten(x.len() / k * w.shape()[0]);
                matmul(&device, view(x), [w], x.len() / k, [view_mut(&mut y)]);
                bits(&y)
            };
            let all: Vec<_> = (0..4).map(|e| (random_bytes(e, format, n, k), block_scales(format, n, k))).collect();
            let expert = |e: usize| Stored::new(format, &all[e].0, &all[e].1, n, k);
            let offsets = [0, 2, 2, 15, 16];
            let x = random(5, 16 * k);
            let mut y = unwritten(16 * n);
            grouped_matmul(&device, view(&x), expert, view(&offsets), [n, k], view_mut(&mut y));
            for e in 0..4 {
                let (start, end) = (offsets[e] as usize, offsets[e + 1] as usize);
                assert_eq!(bits(&y[start * n..end * n]), alone(&x[start * k..end * k], expert(e)), "{}", format.name());
            }
            // Rows 3 to 12 of each of 4 heads of 10.
            let slice = HeadSlice { heads: 4, per_head: 10, first: 3, count: 7, latent: k };
            let (tokens, w) = (19, expert(0));
            let z = random(6, tokens * 4 * k);
            let mut values = unwritten(tokens * 4 * 7);
            heads_matmul(&device, view(&z), w, slice, view_mut(&mut values));
            let q = random(7, tokens * 4 * 7);
            let mut latents = unwritten(tokens * 4 * k);
            heads_matmul_nn(&device, view(&q), w, slice, view_mut(&mut latents));
            let mut plain = unwritten(n * k);
            decode_rows(crate::Isa::detect(), w, 0, &mut plain);
            let mut want = unwritten(tokens * 4 * k);
            crate::ops::matmul::heads_matmul_nn(&device, view(&q), view(&plain), slice, view_mut(&mut want));
            assert_eq!(bits(&latents), bits(&want), "{} {}", device.name(), format.name());
            for t in 0..tokens {
                for h in 0..4 {
                    let whole = alone(&z[(t * 4 + h) * k..][..k], w);
                    assert_eq!(
                        bits(&values[(t * 4 + h) * 7..][..7]),
                        whole[h * 10 + 3..h * 10 + 10],
                        "{}",
                        format.name()
                    );
                }
            }
        }
    }
}

#[test]
fn gradients_of_the_input_are_those_of_the_decoded_weight() {
    for format in Format::ALL {
        // The last has rows for more than one band.
        for &(n, k) in sizes(format).iter().chain(&[(1100, 1024)]) {
            let (bytes, scales, m) = (random_bytes(11, format, n, k), block_scales(format, n, k), 19);
            let w = Stored::new(format, &bytes, &scales, n, k);
            let dy = random(12, m * n);
            let mut values = unwritten(n * k);
            decode_rows(crate::Isa::portable(), w, 0, &mut values);
            let rounded: Vec<Bf16> = values.iter().map(|&v| Bf16::from_f32(v)).collect();
            for device in devices([2]) {
                let size = Size { m, n, k };
                for precision in [Precision::F32, Precision::Bf16] {
                    let (mut dx, mut want) = (unwritten(m * k), unwritten(m * k));
                    matmul_nn(&device, view(&dy), w, m, precision, view_mut(&mut dx));
                    match precision {
                        Precision::F32 => {
                            let (dy, values) = (view(&dy), view(&values));
                            crate::ops::matmul::matmul_nn(&device, dy, values, size, view_mut(&mut want));
                        }
                        Precision::Bf16 => {
                            let (dy, rounded) = (view(&dy), view(&rounded));
                            crate::ops::bf16_matmul::matmul_nn(&device, dy, rounded, size, view_mut(&mut want));
                        }
                    }
                    let what = format!("{} {} [{n}, {k}] {}", device.name(), format.name(), precision.name());
                    assert_eq!(bits(&dx), bits(&want), "{what}");
                    let mut row = unwritten(k);
                    let last = view(&dy[(m - 1) * n..]);
                    matmul_nn(&device.serial(), last, w, 1, precision, view_mut(&mut row));
                    assert_eq!(bits(&row), bits(&dx[(m - 1) * k..]), "{what}: a row alone");
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_so() {
    let (n, k) = (20, 256);
    for format in [Format::Q8_0, Format::Q4K, Format::Bf16] {
        let bytes = random_bytes(8, format, n, k);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = random(9, 2 * k);
            x[k + 17] = bad;
            for device in devices([1]) {
                let mut y = unwritten(2 * n);
                matmul(&device, view(&x), [Stored::new(format, &bytes, &[], n, k)], 2, [view_mut(&mut y)]);
                let stays = y[..n].iter().all(|v| v.is_finite()) && y[n..].iter().all(|v| !v.is_finite());
                assert!(stays, "{device:?} {}", format.name());
            }
        }
    }
}
