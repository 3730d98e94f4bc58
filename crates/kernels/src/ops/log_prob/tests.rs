use super::*;
use crate::ops::bf16_matmul as rounded;
use crate::ops::matmul::pack;
use crate::ops::testing::{devices, on_every_path, random, view, view_mut, wide};

fn outputs(m: usize) -> [Vec<f32>; 3] {
    [vec![f32::NAN; m], vec![f32::NAN; m], vec![f32::NAN; m]]
}

fn borrow([a, b, c]: &mut [Vec<f32>; 3]) -> RowOutputs<'_> {
    RowOutputs { log_prob: view_mut(a), log_sum: view_mut(b), entropy: view_mut(c) }
}

#[test]
fn logits_and_hidden_states_give_the_same_bits_and_the_reference_values() {
    for (m, n, k, t) in [(1, 5, 3, 1.0f32), (300, 67, 20, 0.7), (33, 129, 8, 2.0)] {
        let (x, w) = (random(1, m * k), random(2, n * k));
        let targets: Vec<u32> = (0..m).map(|i| (i * 7 % n) as u32).collect();
        let size = Size { m, n, k };
        let run = |device: &Device| {
            let mut packed = vec![0.0; matmul::packed_len(device, n, k)];
            pack(device, view(&w), n, k, view_mut(&mut packed));
            let mut logits = vec![0.0; m * n];
            matmul::matmul(device, view(&x), view(&packed), size, view_mut(&mut logits));
            let (mut a, mut b, mut one) = (outputs(m), outputs(m), outputs(1));
            log_prob_rows(device, view(&logits), view(&targets), 1.0 / t, borrow(&mut a));
            let head = Head::F32 { x: view(&x), weight: view(&w), packed: view(&packed) };
            head_log_prob(device, head, view(&targets), size, 1.0 / t, borrow(&mut b));
            assert_eq!(a, b, "{device:?}");
            let last = m - 1;
            log_prob_rows(device, view(&logits[last * n..]), view(&targets[last..]), 1.0 / t, borrow(&mut one));
            assert!((0..3).all(|o| one[o][0] == a[o][last]));
            let [log_prob, log_sum, entropy] = a;
            vec![log_prob, log_sum, entropy, logits]
        };
        on_every_path(run, |a, path| {
            for i in 0..m {
                let row: Vec<f64> = a[3][i * n..][..n].iter().map(|&v| f64::from(v)).collect();
                let want = reference::log_prob(&row, targets[i] as usize, f64::from(1.0 / t));
                for (got, want) in [(a[0][i], want.0), (a[1][i], want.1), (a[2][i], want.2)] {
                    assert!((f64::from(got) - want).abs() < 2e-6 * (1.0 + want.abs()), "{path} {got} not {want}");
                }
            }
        });
    }
}

#[test]
fn the_backward_is_the_derivative() {
    for device in devices([2]) {
        let (m, n, k, t) = (270, 40, 12, 0.8f32);
        let (x, w, d) = (random(1, m * k), random(2, n * k), random(3, m));
        let targets: Vec<u32> = (0..m).map(|i| (i * 11 % n) as u32).collect();
        let size = Size { m, n, k };
        let mut packed = vec![0.0; matmul::packed_len(&device, n, k)];
        pack(&device, view(&w), n, k, view_mut(&mut packed));
        let mut forward = outputs(m);
        let head = Head::F32 { x: view(&x), weight: view(&w), packed: view(&packed) };
        head_log_prob(&device, head, view(&targets), size, 1.0 / t, borrow(&mut forward));
        let (mut dx, mut dw) = (vec![f32::NAN; m * k], vec![1.0; n * k]);
        let given = (view(&forward[1]), view(&d));
        let to = (view_mut(&mut dx), view_mut(&mut dw));
        head_log_prob_backward(&device, head, view(&targets), size, 1.0 / t, given, to);
        let (mut want_x, mut want_w) = (vec![0.0; m * k], vec![1.0; n * k]);
        for i in 0..m {
            let dot = |j: usize| (0..k).map(|p| f64::from(x[i * k + p]) * f64::from(w[j * k + p])).sum();
            let logits: Vec<f64> = (0..n).map(dot).collect();
            let dz = reference::log_prob_backward(&logits, targets[i] as usize, f64::from(1.0 / t));
            for j in 0..n {
                let dz = dz[j] * f64::from(d[i]);
                for p in 0..k {
                    want_x[i * k + p] += dz * f64::from(w[j * k + p]);
                    want_w[j * k + p] += dz * f64::from(x[i * k + p]);
                }
            }
        }
        for (got, want) in dx.iter().zip(&want_x).chain(dw.iter().zip(&want_w)) {
            assert!((f64::from(*got) - want).abs() < 3e-5 * (1.0 + want.abs()), "{got} not {want}");
        }
    }
}

#[test]
fn the_head_in_bf16_has_the_bits_of_its_logits_and_the_gradients_of_rounded_operands() {
    let (m, n, k, t) = (270, 70, 37, 0.8f32);
    let (x, w, d) = (random(1, m * k), random(2, n * k), random(3, m));
    let targets: Vec<u32> = (0..m).map(|i| (i * 11 % n) as u32).collect();
    let held: Vec<Bf16> = w.iter().map(|&v| Bf16::from_f32(v)).collect();
    let size = Size { m, n, k };
    let run = |device: &Device| {
        let mut rows = vec![Bf16::ZERO; m * rounded::row_len(k)];
        rounded::round_rows(device, view(&x), k, view_mut(&mut rows));
        let mut packed = vec![Bf16::ZERO; rounded::packed_len(device, n, k)];
        rounded::pack(device, view(&held), n, k, view_mut(&mut packed));
        let mut logits = vec![0.0; m * n];
        rounded::matmul(device, view(&rows), view(&packed), size, view_mut(&mut logits));
        let (mut a, mut b) = (outputs(m), outputs(m));
        log_prob_rows(device, view(&logits), view(&targets), 1.0 / t, borrow(&mut a));
        let head = Head::Bf16 { x: view(&rows), weight: view(&held), packed: view(&packed) };
        head_log_prob(device, head, view(&targets), size, 1.0 / t, borrow(&mut b));
        assert_eq!(a, b, "{device:?}");
        let (mut dx, mut dw) = (vec![f32::NAN; m * k], vec![1.0; n * k]);
        let (given, to) = ((view(&b[1]), view(&d)), (view_mut(&mut dx), view_mut(&mut dw)));
        head_log_prob_backward(device, head, view(&targets), size, 1.0 / t, given, to);
        vec![b[0].clone(), dx, dw]
    };
    let (wide_x, wide_w) = (rounded::reference::rounded(&wide(&x)), rounded::reference::rounded(&wide(&w)));
    let logits = matmul::reference::matmul(&wide_x, &wide_w, size);
    let rows: Vec<&[f64]> = logits.chunks(n).collect();
    let dz = |i: usize| reference::log_prob_backward(rows[i], targets[i] as usize, f64::from(1.0 / t));
    let dz: Vec<f64> = (0..m).flat_map(|i| dz(i).into_iter().map(move |v| v * f64::from(random(3, 270)[i]))).collect();
    let dz = rounded::reference::rounded(&dz);
    on_every_path(run, |out, path| {
        for (i, row) in rows.iter().enumerate() {
            let want = reference::log_prob(row, targets[i] as usize, f64::from(1.0 / t)).0;
            assert!((f64::from(out[0][i]) - want).abs() < 1e-5 * (1.0 + want.abs()), "{path} {} not {want}", out[0][i]);
        }
        // A dz that lies between two bf16 may be rounded to the other one: a step of 2^-8 of one term.
        crate::ops::testing::close(&out[1], &matmul::reference::matmul_nn(&dz, &wide_w, size), 2e-3, path);
        let want = matmul::reference::matmul_backward_weight(&dz, &wide_x, size);
        crate::ops::testing::close(&out[2], &want.iter().map(|v| v + 1.0).collect::<Vec<_>>(), 2e-3, path);
    });
}

#[test]
fn the_reference_backward_is_the_derivative() {
    let logits = [0.3, -1.0, 2.0, 0.1];
    let grad = reference::log_prob_backward(&logits, 2, 1.4);
    for j in 0..4 {
        let at = |step: f64| {
            let mut moved = logits;
            moved[j] += step;
            reference::log_prob(&moved, 2, 1.4).0
        };
        assert!(((at(1e-6) - at(-1e-6)) / 2e-6 - grad[j]).abs() < 1e-8);
    }
}
