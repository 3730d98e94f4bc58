use super::*;
use crate::Isa;
use crate::ops::testing::{devices, path, random, view, view_mut, wide};

fn close(got: &[f32], want: &[f64], k: usize, what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let bound = 2e-6 * (k as f64).sqrt().max(1.0) * (1.0 + w.abs());
        assert!((f64::from(g) - w).abs() <= bound, "{what}: element {i} is {g}, not {w}");
    }
}

fn forward(device: &Device, x: &[f32], w: &[f32], size: Size) -> Vec<f32> {
    let mut packed = vec![f32::NAN; packed_len(device, size.n, size.k)];
    pack(device, view(w), size.n, size.k, view_mut(&mut packed));
    let mut y = vec![f32::NAN; size.m * size.n];
    matmul(device, view(x), view(&packed), size, view_mut(&mut y));
    y
}

const SIZES: [(usize, usize, usize); 12] = [
    (0, 5, 3),
    (1, 1, 1),
    (1, 576, 64),
    (2, 33, 7),
    (3, 31, 300),
    (12, 32, 16),
    (13, 65, 257),
    (25, 47, 129),
    (96, 64, 64),
    (97, 100, 513),
    (200, 40, 31),
    (7, 0, 4),
];

#[test]
fn every_path_agrees_with_the_reference() {
    for device in devices([1, 2]) {
        for (m, n, k) in SIZES {
            let size = Size { m, n, k };
            let (x, w, dy) = (random(1, m * k), random(2, n * k), random(3, m * n));
            let what = format!("{device:?} {size:?}");
            let (wide_x, wide_w, wide_dy) = (wide(&x), wide(&w), wide(&dy));
            close(&forward(&device, &x, &w, size), &reference::matmul(&wide_x, &wide_w, size), k, &what);
            let mut dx = vec![f32::NAN; m * k];
            matmul_nn(&device, view(&dy), view(&w), size, view_mut(&mut dx));
            close(&dx, &reference::matmul_nn(&wide_dy, &wide_w, size), n, &what);
            let mut dw = vec![1.0; n * k];
            matmul_backward_weight_add(&device, view(&dy), view(&x), size, view_mut(&mut dw));
            let want = reference::matmul_backward_weight(&wide_dy, &wide_x, size);
            close(&dw, &want.iter().map(|v| v + 1.0).collect::<Vec<_>>(), m, &what);
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_batch() {
    for isa in Isa::available() {
        let (one, two) = (path(1, isa), path(2, isa));
        let (n, k) = (75, 301);
        let (x, w) = (random(4, 130 * k), random(5, n * k));
        let whole = forward(&two, &x, &w, Size { m: 130, n, k });
        for m in [1, 2, 3, 7, 11, 16, 33, 130] {
            let part = forward(&one, &x[(130 - m) * k..], &w, Size { m, n, k });
            assert_eq!(part, whole[(130 - m) * n..], "{} m = {m}", isa.name());
        }
    }
}

#[test]
fn products_per_head_agree_with_the_reference() {
    let slice = HeadSlice { heads: 3, per_head: 11, first: 4, count: 7, latent: 37 };
    let (m, w) = (9, random(6, 3 * 11 * 37));
    for device in devices([2]) {
        let (q, z) = (random(7, m * 3 * 7), random(8, m * 3 * 37));
        let (mut latents, mut values) = (vec![f32::NAN; m * 3 * 37], vec![f32::NAN; m * 3 * 7]);
        heads_matmul_nn(&device, view(&q), view(&w), slice, view_mut(&mut latents));
        heads_matmul(&device, view(&z), view(&w), slice, view_mut(&mut values));
        for h in 0..3 {
            let of = |x: &[f32], width: usize| -> Vec<f32> {
                (0..m).flat_map(|t| x[(t * 3 + h) * width..][..width].to_vec()).collect()
            };
            let rows = wide(&w[(h * 11 + 4) * 37..][..7 * 37]);
            let size = Size { m, n: 7, k: 37 };
            close(&of(&latents, 37), &reference::matmul_nn(&wide(&of(&q, 7)), &rows, size), 7, "latents");
            close(&of(&values, 7), &reference::matmul(&wide(&of(&z, 37)), &rows, size), 37, "values");
        }
    }
}
