use super::*;
use crate::ops::testing::*;

fn each(x: &[f32], f: impl Fn(f64) -> f64) -> Vec<f64> {
    x.iter().map(|&x| f(f64::from(x))).collect()
}

fn pairs(a: &[f32], b: &[f32], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    a.iter().zip(b).map(|(&a, &b)| f(f64::from(a), f64::from(b))).collect()
}

/// The results of all operations on (a, b, d).
fn all(device: &Device, a: &[f32], b: &[f32], d: &[f32]) -> Vec<Vec<f32>> {
    let (n, a, b, d) = (a.len(), view(a), view(b), view(d));
    let mut out: Vec<Vec<f32>> = (0..12).map(|_| unwritten(n)).collect();
    add_scaled(device, a, b, -1.7, view_mut(&mut out[0]));
    out[1].copy_from_slice(b.host());
    accumulate(device, a, 0.3, view_mut(&mut out[1]));
    scale(device, a, 2.5, view_mut(&mut out[2]));
    mul(device, a, b, view_mut(&mut out[3]));
    exp(device, a, view_mut(&mut out[4]));
    sigmoid(device, a, view_mut(&mut out[5]));
    let y = out[5].clone();
    sigmoid_backward(device, view(&y), d, view_mut(&mut out[6]));
    clamp(device, a, -0.5, 0.8, view_mut(&mut out[7]));
    clamp_backward(device, a, -0.5, 0.8, d, view_mut(&mut out[8]));
    min(device, a, b, view_mut(&mut out[9]));
    let mut db = unwritten(n);
    min_backward(device, a, b, d, view_mut(&mut out[10]), view_mut(&mut db));
    scale_by(device, a, view(&[2.5]), view_mut(&mut out[11]));
    out.push(db);
    out
}

#[test]
fn every_path_agrees_with_the_reference() {
    for n in [0, 1, 15, 16, 17, 333, 30_001] {
        let (mut a, mut b, d) = (random(1, n), random(2, n), random(3, n));
        if n > 10 {
            // Ties and borders.
            (b[3], b[5]) = (a[3], a[5]);
            (a[7], a[8]) = (-0.5, 0.8);
        }
        on_every_path(
            |device| all(device, &a, &b, &d),
            |out, path| {
                let sigmoids = each(&a, reference::sigmoid);
                let (da, db): (Vec<f64>, Vec<f64>) =
                    (0..n).map(|i| reference::min_backward(a[i].into(), b[i].into(), d[i].into())).unzip();
                let (low, high) = (-0.5, f64::from(0.8f32));
                let want = [
                    pairs(&a, &b, |a, b| reference::add_scaled(a, b, f64::from(-1.7f32))),
                    pairs(&b, &a, |b, a| reference::add_scaled(b, a, f64::from(0.3f32))),
                    each(&a, |a| 2.5 * a),
                    pairs(&a, &b, |a, b| a * b),
                    each(&a, f64::exp),
                    sigmoids.clone(),
                    (0..n).map(|i| reference::sigmoid_backward(sigmoids[i], d[i].into())).collect(),
                    each(&a, |a| reference::clamp(a, low, high)),
                    pairs(&a, &d, |a, d| reference::clamp_backward(a, low, high, d)),
                    pairs(&a, &b, reference::min),
                    da,
                    each(&a, |a| 2.5 * a),
                    db,
                ];
                for (i, (got, want)) in out.iter().zip(&want).enumerate() {
                    close(got, want, 3e-7, &format!("{path} n = {n} operation {i}"));
                }
            },
        );
    }
}

#[test]
fn a_float_has_the_same_bits_wherever_it_lies() {
    let (a, b, d) = (random(4, 70), random(5, 70), random(6, 70));
    for isa in crate::Isa::available() {
        let device = path(1, isa);
        let whole = all(&device, &a, &b, &d);
        for at in [1..70, 13..14, 40..59] {
            let part = all(&device, &a[at.clone()], &b[at.clone()], &d[at.clone()]);
            for (part, whole) in part.iter().zip(&whole) {
                assert_eq!(bits(part), bits(&whole[at.clone()]), "{}", isa.name());
            }
        }
    }
}

#[test]
fn the_reference_backwards_are_derivatives() {
    let (a, b, d) = (wide(&random(7, 30)), wide(&random(8, 30)), wide(&random(9, 30)));
    let lift = |f: &dyn Fn(f64) -> f64, x: &[f64]| -> Vec<f64> { x.iter().map(|&x| f(x)).collect() };
    let backward = |i: usize| reference::sigmoid_backward(reference::sigmoid(a[i]), d[i]);
    is_derivative(&(0..30).map(backward).collect::<Vec<_>>(), &a, &d, |a| lift(&reference::sigmoid, a));
    let bounded = |x| reference::clamp(x, -0.5, 0.8);
    let backward = |i: usize| reference::clamp_backward(a[i], -0.5, 0.8, d[i]);
    is_derivative(&(0..30).map(backward).collect::<Vec<_>>(), &a, &d, |a| lift(&bounded, a));
    let smaller = |a: &[f64], b: &[f64]| -> Vec<f64> { (0..30).map(|i| reference::min(a[i], b[i])).collect() };
    let (da, db): (Vec<f64>, Vec<f64>) = (0..30).map(|i| reference::min_backward(a[i], b[i], d[i])).unzip();
    is_derivative(&da, &a, &d, |a| smaller(a, &b));
    is_derivative(&db, &b, &d, |b| smaller(&a, b));
}

#[test]
fn what_is_not_finite_is_passed_on_and_found() {
    let nan = f32::NAN;
    let run = |device: &Device| {
        let mut out = vec![unwritten(4), unwritten(4), unwritten(4), unwritten(4)];
        clamp(device, view(&[nan, 9.0, -9.0, f32::INFINITY]), -1.0, 1.0, view_mut(&mut out[0]));
        min(device, view(&[nan, 1.0, 2.0, 3.0]), view(&[0.0, nan, 1.0, 3.0]), view_mut(&mut out[1]));
        sigmoid(device, view(&[nan, 200.0, -50.0, f32::NEG_INFINITY]), view_mut(&mut out[2]));
        exp(device, view(&[nan, 200.0, -200.0, f32::NEG_INFINITY]), view_mut(&mut out[3]));
        out
    };
    on_every_path(run, |out, path| {
        assert!(out[0][0].is_nan() && out[0][1..] == [1.0, -1.0, 1.0], "{path} {out:?}");
        assert!(out[1][0].is_nan() && out[1][1].is_nan() && out[1][2..] == [1.0, 3.0], "{path} {out:?}");
        let tiny = f64::from(out[2][2]) / reference::sigmoid(-50.0) - 1.0;
        assert!(out[2][0].is_nan() && out[2][1] == 1.0 && tiny.abs() < 1e-6 && out[2][3] < 1e-37, "{path} {out:?}");
        assert!(out[3][0].is_nan() && out[3][1..] == [f32::INFINITY, 0.0, 0.0], "{path} {out:?}");
    });
    for isa in crate::Isa::available() {
        let device = path(2, isa);
        for n in [0, 1, 4097, 1_100_000] {
            let mut x = vec![f32::MAX; n];
            assert!(all_finite(&device, view(&x)));
            for (i, bad) in [(0, nan), (n / 2, f32::INFINITY), (n.saturating_sub(1), f32::NEG_INFINITY)] {
                if n > 0 {
                    x[i] = bad;
                    assert!(!all_finite(&device, view(&x)), "{n} {i}");
                    x[i] = 0.0;
                }
            }
        }
    }
}

#[test]
fn sums_over_everything_are_exact_to_f64_and_equal_on_all_paths_and_threads() {
    for n in [0, 1, 17, 4096, 4097, 30_000, 1_200_003] {
        let (a, b) = (random(10, n), random(11, n));
        let want = (reference::dot(&wide(&a), &wide(&b)), reference::dot(&wide(&a), &wide(&a)));
        let mut first = None;
        for device in devices([1, 2, 3]) {
            let mut sum = [f32::NAN];
            weighted_sum(&device, view(&a), view(&b), view_mut(&mut sum));
            let got = (f64::from(sum[0]), sum_squares(&device, [view(&a)].into_iter()));
            assert!((got.0 - want.0).abs() <= 1e-7 * want.0.abs() + 1e-12 * (1.0 + want.1), "{device:?}");
            assert!((got.1 - want.1).abs() <= 1e-12 * want.1, "{device:?}");
            if let Device::Cpu(cpu) = &device {
                let bits = (cpu::dot(cpu, &a, &b).to_bits(), got.1.to_bits());
                assert_eq!(bits, *first.get_or_insert(bits));
            }
        }
    }
}

#[test]
fn fill_writes_everything() {
    on_every_path(
        |device| {
            let mut y = unwritten(25_000);
            fill(device, 1.5, view_mut(&mut y));
            vec![y]
        },
        |out, _| assert!(out[0].iter().all(|&v| v == 1.5)),
    );
}
