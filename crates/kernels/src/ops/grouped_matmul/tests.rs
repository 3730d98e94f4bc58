use super::*;
use crate::ops::testing::{devices, random, view, view_mut, wide};

fn close(got: &[f32], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len());
    for (&g, &w) in got.iter().zip(want) {
        assert!((f64::from(g) - w).abs() <= 1e-4 * (1.0 + w.abs()), "{what}: {g}, not {w}");
    }
}

#[test]
fn every_path_agrees_with_the_reference_and_with_a_row_alone() {
    let offsets = [0, 3, 3, 4, 150, 163];
    let (experts, m) = (5, 163);
    for device in devices([1, 2]) {
        for (n, k) in [(33, 20), (64, 64), (7, 270)] {
            let size = Size { m, n, k };
            let (x, dy, w) = (random(1, m * k), random(2, m * n), random(3, experts * n * k));
            let len = matmul::packed_len(&device, n, k);
            let mut packed = vec![f32::NAN; experts * len];
            pack(&device, view(&w), experts, n, k, view_mut(&mut packed));
            let mut y = vec![f32::NAN; m * n];
            grouped_matmul(&device, view(&x), view(&packed), view(&offsets), size, view_mut(&mut y));
            close(&y, &reference::grouped_matmul(&wide(&x), &wide(&w), &offsets, size), "y");
            let mut alone = vec![0.0; n];
            matmul::matmul(
                &device,
                view(&x[100 * k..][..k]),
                view(&packed[3 * len..][..len]),
                Size { m: 1, n, k },
                view_mut(&mut alone),
            );
            assert_eq!(alone, y[100 * n..][..n]);
            let mut dx = vec![f32::NAN; m * k];
            grouped_matmul_nn(&device, view(&dy), view(&w), view(&offsets), size, view_mut(&mut dx));
            close(&dx, &reference::grouped_matmul_nn(&wide(&dy), &wide(&w), &offsets, size), "dx");
            let mut dw = vec![0.5; experts * n * k];
            grouped_matmul_backward_weight_add(&device, view(&dy), view(&x), view(&offsets), size, view_mut(&mut dw));
            let want = reference::grouped_matmul_backward_weight(&wide(&dy), &wide(&x), &offsets, size);
            close(&dw, &want.iter().map(|v| v + 0.5).collect::<Vec<_>>(), "dw");
        }
    }
}
