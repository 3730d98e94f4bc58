use super::*;
use crate::Isa;
use minke_spec::draw::{Domain, draw};

fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut stream = draw(seed, Domain::Data, &[len as u64]);
    (0..len).map(|_| stream.normal() as f32).collect()
}

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
    for isa in Isa::available() {
        for (n, k) in [(33, 20), (64, 64), (7, 270)] {
            let size = Size { m, n, k };
            let (x, dy, w) = (random(1, m * k), random(2, m * n), random(3, experts * n * k));
            for threads in [1, 2] {
                let cpu = Cpu::new(threads, isa);
                let len = matmul::packed_len(&cpu, n, k);
                let mut packed = vec![f32::NAN; experts * len];
                pack(&cpu, &w, experts, n, k, &mut packed);
                let mut y = vec![f32::NAN; m * n];
                grouped_matmul(&cpu, &x, &packed, &offsets, size, &mut y);
                close(&y, &reference::grouped_matmul(&x, &w, &offsets, size), "y");
                let mut alone = vec![0.0; n];
                matmul::matmul(&cpu, &x[100 * k..][..k], &packed[3 * len..][..len], Size { m: 1, n, k }, &mut alone);
                assert_eq!(alone, y[100 * n..][..n]);
                let mut dx = vec![f32::NAN; m * k];
                grouped_matmul_by_plain(&cpu, &dy, &w, &offsets, size, &mut dx);
                close(&dx, &reference::grouped_matmul_by_plain(&dy, &w, &offsets, size), "dx");
                let mut dw = vec![0.5; experts * n * k];
                grouped_matmul_backward_weight_add(&cpu, &dy, &x, &offsets, size, &mut dw);
                let want = reference::grouped_matmul_backward_weight(&dy, &x, &offsets, size);
                close(&dw, &want.iter().map(|v| v + 0.5).collect::<Vec<_>>(), "dw");
            }
        }
    }
}
