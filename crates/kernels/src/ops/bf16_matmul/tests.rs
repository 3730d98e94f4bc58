use super::*;
use crate::Isa;
use crate::ops::matmul as f32_matmul;
use crate::ops::testing::{bits, devices, on_every_path, path, random, view, view_mut, wide as wide_f32};

/// Bound of a sum of `terms` products of rounded operands: what f32 loses in a chain of that length.
fn close(got: &[f32], want: &[f64], terms: usize, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let bound = 2e-6 * (terms as f64).sqrt().max(1.0) * (1.0 + w.abs());
        assert!((f64::from(g) - w).abs() <= bound, "{what}: element {i} is {g}, not {w}");
    }
}

fn narrow(x: &[f32]) -> Vec<Bf16> {
    x.iter().map(|&v| Bf16::from_f32(v)).collect()
}

fn rounded(device: &Device, x: &[f32], m: usize, k: usize) -> Vec<Bf16> {
    let mut to = vec![Bf16(0x7fc1); m * row_len(k)];
    round_rows(device, view(x), k, view_mut(&mut to));
    to
}

fn forward(device: &Device, x: &[f32], w: &[f32], size: Size) -> Vec<f32> {
    let Size { m, n, k } = size;
    let mut packed = vec![Bf16(0x7fc1); packed_len(device, n, k)];
    pack(device, view(&narrow(w)), n, k, view_mut(&mut packed));
    let mut y = vec![f32::NAN; m * n];
    matmul(device, view(&rounded(device, x, m, k)), view(&packed), size, view_mut(&mut y));
    y
}

/// dx and `1 + dW`.
fn gradients(device: &Device, dy: &[f32], x: &[f32], w: &[f32], size: Size) -> [Vec<f32>; 2] {
    let Size { m, n, k } = size;
    let (mut dx, mut dw) = (vec![f32::NAN; m * k], vec![1.0; n * k]);
    let (x, w) = (rounded(device, x, m, k), narrow(w));
    backward(device, view(dy), view(&x), view(&w), size, Some(view_mut(&mut dx)), view_mut(&mut dw));
    let mut alone = vec![1.0; n * k];
    backward(device, view(dy), view(&x), view(&w), size, None, view_mut(&mut alone));
    assert_eq!(bits(&alone), bits(&dw), "{device:?} {size:?}: dW depends on whether dx is wanted");
    let mut of_frozen = vec![f32::NAN; m * k];
    matmul_nn(device, view(dy), view(&w), size, view_mut(&mut of_frozen));
    assert_eq!(bits(&of_frozen), bits(&dx), "{device:?} {size:?}: dx depends on whether dW is wanted");
    [dx, dw]
}

const SIZES: [(usize, usize, usize); 17] = [
    (0, 5, 3),
    (1, 1, 1),
    (1, 576, 64),
    (2, 33, 7),
    (3, 31, 300),
    (12, 32, 16),
    (13, 65, 257),
    (16, 16, 32),
    (17, 48, 33),
    (25, 47, 129),
    (96, 64, 64),
    (97, 100, 1025),
    (200, 40, 31),
    (1100, 70, 50),
    (4, 700, 40),
    (5, 1100, 1000),
    (7, 0, 4),
];

#[test]
fn every_path_agrees_with_the_reference() {
    for (m, n, k) in SIZES {
        let size = Size { m, n, k };
        let (x, w, dy) = (random(1, m * k), random(2, n * k), random(3, m * n));
        let run = |device: &Device| {
            let [dx, dw] = gradients(device, &dy, &x, &w, size);
            vec![forward(device, &x, &w, size), dx, dw]
        };
        on_every_path(run, |out, path| {
            let what = format!("{path} {size:?}");
            let (x, w, dy) = (wide_f32(&x), wide_f32(&w), wide_f32(&dy));
            close(&out[0], &reference::matmul(&x, &w, size), k, &what);
            close(&out[1], &reference::matmul_nn(&dy, &w, size), n, &what);
            let want: Vec<f64> = reference::matmul_backward_weight(&dy, &x, size).iter().map(|v| v + 1.0).collect();
            close(&out[2], &want, m, &what);
        });
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_batch() {
    for isa in Isa::available() {
        let (one, two) = (path(1, isa), path(2, isa));
        let (n, k) = (75, 701);
        let (x, w, dy) = (random(4, 700 * k), random(5, n * k), random(6, 700 * n));
        let whole = Size { m: 700, n, k };
        let (y, [dx, _]) = (forward(&two, &x, &w, whole), gradients(&two, &dy, &x, &w, whole));
        for m in [1, 2, 3, 7, 11, 15, 16, 17, 31, 32, 33, 48, 130, 511, 513, 700] {
            let (size, first) = (Size { m, n, k }, 700 - m);
            let part = forward(&one, &x[first * k..], &w, size);
            assert_eq!(bits(&part), bits(&y[first * n..]), "{} m = {m}", isa.name());
            let [part, _] = gradients(&one, &dy[first * n..], &x[first * k..], &w, size);
            assert_eq!(bits(&part), bits(&dx[first * k..]), "{} m = {m}", isa.name());
        }
    }
}

#[test]
fn sums_over_tokens_go_on_from_what_the_gradient_holds() {
    // Two batches one after the other are the batch of both, if the first ends with a whole step.
    for isa in Isa::available() {
        let device = path(2, isa);
        let (m, n, k) = (640, 37, 50);
        let (x, w, dy) = (random(7, m * k), random(8, n * k), random(9, m * n));
        let (x, w) = (rounded(&device, &x, m, k), narrow(&w));
        let mut whole = vec![0.25; n * k];
        backward(&device, view(&dy), view(&x), view(&w), Size { m, n, k }, None, view_mut(&mut whole));
        let mut parts = vec![0.25; n * k];
        for rows in [0..96, 96..640] {
            let (dy, x) = (&dy[rows.start * n..rows.end * n], &x[rows.start * row_len(k)..rows.end * row_len(k)]);
            let size = Size { m: rows.len(), n, k };
            backward(&device, view(dy), view(x), view(&w), size, None, view_mut(&mut parts));
        }
        assert_eq!(bits(&parts), bits(&whole), "{}", isa.name());
    }
}

#[test]
fn without_an_instruction_for_bf16_results_are_those_of_f32_with_rounded_operands() {
    let round = |x: &[f32]| -> Vec<f32> { narrow(x).iter().map(|v| v.to_f32()).collect() };
    let (size, mut seen) = (Size { m: 61, n: 45, k: 77 }, 0);
    let Size { m, n, k } = size;
    let (x, w, dy) = (random(1, m * k), random(2, n * k), random(3, m * n));
    for isa in Isa::available().into_iter().filter(|isa| !["amx", "avx512bf16"].contains(&isa.name())) {
        let device = path(2, isa);
        let (rx, rw, rdy) = (round(&x), round(&w), round(&dy));
        let mut packed = vec![0.0; f32_matmul::packed_len(&device, n, k)];
        f32_matmul::pack(&device, view(&rw), n, k, view_mut(&mut packed));
        let (mut y, mut dx, mut dw) = (vec![0.0; m * n], vec![0.0; m * k], vec![1.0; n * k]);
        f32_matmul::matmul(&device, view(&rx), view(&packed), size, view_mut(&mut y));
        f32_matmul::matmul_nn(&device, view(&rdy), view(&rw), size, view_mut(&mut dx));
        f32_matmul::matmul_backward_weight_add(&device, view(&rdy), view(&rx), size, view_mut(&mut dw));
        assert_eq!(bits(&forward(&device, &x, &w, size)), bits(&y), "{}", isa.name());
        let got = gradients(&device, &dy, &x, &w, size);
        assert_eq!(got.map(|g| bits(&g)), [bits(&dx), bits(&dw)], "{}", isa.name());
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn an_infinite_or_undefined_value_reaches_its_row_and_no_other() {
    for device in devices([1]) {
        let size = Size { m: 20, n: 40, k: 45 };
        let (mut x, w) = (random(1, 20 * 45), random(2, 40 * 45));
        let clean = forward(&device, &x, &w, size);
        (x[3 * 45 + 44], x[5 * 45]) = (f32::NAN, f32::INFINITY);
        let y = forward(&device, &x, &w, size);
        for (row, (y, clean)) in y.chunks(40).zip(clean.chunks(40)).enumerate() {
            match row {
                3 => assert!(y.iter().all(|v| v.is_nan()), "{device:?}"),
                5 => assert!(y.iter().all(|v| !v.is_finite()), "{device:?}"),
                _ => assert_eq!(y, clean, "{device:?}"),
            }
        }
    }
}

#[test]
fn experts_agree_with_the_reference_and_a_row_with_itself_alone() {
    let offsets = [0, 3, 3, 4, 150, 163];
    let (experts, m) = (5, 163);
    for device in devices([1, 2]) {
        for (n, k) in [(33, 20), (64, 64), (7, 270)] {
            let size = Size { m, n, k };
            let (x, dy, w) = (random(1, m * k), random(2, m * n), random(3, experts * n * k));
            let (rows, held, len) = (rounded(&device, &x, m, k), narrow(&w), packed_len(&device, n, k));
            let mut packed = vec![Bf16(0x7fc1); experts * len];
            grouped::pack(&device, view(&held), experts, n, k, view_mut(&mut packed));
            let mut y = vec![f32::NAN; m * n];
            grouped::matmul(&device, view(&rows), view(&packed), view(&offsets), size, view_mut(&mut y));
            let (wide_x, wide_w, wide_dy) = (
                reference::rounded(&wide_f32(&x)),
                reference::rounded(&wide_f32(&w)),
                reference::rounded(&wide_f32(&dy)),
            );
            use crate::ops::grouped_matmul::reference as exact;
            let what = format!("{device:?} {size:?}");
            close(&y, &exact::grouped_matmul(&wide_x, &wide_w, &offsets, size), k, &what);
            let mut alone = vec![0.0; n];
            let row = view(&rows[100 * row_len(k)..][..row_len(k)]);
            matmul(&device, row, view(&packed[3 * len..][..len]), Size { m: 1, n, k }, view_mut(&mut alone));
            assert_eq!(bits(&alone), bits(&y[100 * n..][..n]));
            let (mut dx, mut dw) = (vec![f32::NAN; m * k], vec![0.5; experts * n * k]);
            let to = (Some(view_mut(&mut dx)), view_mut(&mut dw));
            grouped::backward(&device, view(&dy), view(&rows), view(&held), view(&offsets), size, to.0, to.1);
            close(&dx, &exact::grouped_matmul_nn(&wide_dy, &wide_w, &offsets, size), n, &what);
            let want = exact::grouped_matmul_backward_weight(&wide_dy, &wide_x, &offsets, size);
            close(&dw, &want.iter().map(|v| v + 0.5).collect::<Vec<_>>(), m, &what);
        }
    }
}
