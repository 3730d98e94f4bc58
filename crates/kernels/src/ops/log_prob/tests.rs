use super::*;
use crate::Isa;
use crate::ops::matmul::{matmul, pack};
use minke_spec::draw::{Domain, draw};

fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut stream = draw(seed, Domain::Data, &[len as u64]);
    (0..len).map(|_| stream.normal() as f32).collect()
}

fn outputs(m: usize) -> [Vec<f32>; 3] {
    [vec![f32::NAN; m], vec![f32::NAN; m], vec![f32::NAN; m]]
}

fn borrow([a, b, c]: &mut [Vec<f32>; 3]) -> RowOutputs<'_> {
    RowOutputs { log_prob: a, log_sum: b, entropy: c }
}

#[test]
fn logits_and_hidden_states_give_the_same_bits_and_the_reference_values() {
    for isa in Isa::available() {
        for (m, n, k, t) in [(1, 5, 3, 1.0f32), (300, 67, 20, 0.7), (33, 129, 8, 2.0)] {
            let (x, w) = (random(1, m * k), random(2, n * k));
            let targets: Vec<u32> = (0..m).map(|i| (i * 7 % n) as u32).collect();
            let size = Size { m, n, k };
            let mut bits: Option<[Vec<f32>; 3]> = None;
            for threads in [1, 2] {
                let cpu = Cpu::new(threads, isa);
                let mut packed = vec![0.0; packed_len(&cpu, n, k)];
                pack(&cpu, &w, n, k, &mut packed);
                let mut logits = vec![0.0; m * n];
                matmul(&cpu, &x, &packed, size, &mut logits);
                let (mut a, mut b, mut one) = (outputs(m), outputs(m), outputs(1));
                log_prob_rows(&cpu, &logits, &targets, 1.0 / t, borrow(&mut a));
                head_log_prob(&cpu, &x, &packed, &targets, size, 1.0 / t, borrow(&mut b));
                assert_eq!(a, b);
                let last = m - 1;
                log_prob_rows(&cpu, &logits[last * n..], &targets[last..], 1.0 / t, borrow(&mut one));
                assert!((0..3).all(|o| one[o][0] == a[o][last]));
                assert_eq!(bits.get_or_insert_with(|| a.clone()), &a);
                for i in 0..m {
                    let row: Vec<f64> = logits[i * n..][..n].iter().map(|&v| f64::from(v)).collect();
                    let want = reference::log_prob(&row, targets[i] as usize, f64::from(1.0 / t));
                    for (got, want) in [(a[0][i], want.0), (a[1][i], want.1), (a[2][i], want.2)] {
                        assert!((f64::from(got) - want).abs() < 2e-6 * (1.0 + want.abs()), "{got} not {want}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_backward_is_the_derivative() {
    for isa in Isa::available() {
        let cpu = Cpu::new(2, isa);
        let (m, n, k, t) = (270, 40, 12, 0.8f32);
        let (x, w, d) = (random(1, m * k), random(2, n * k), random(3, m));
        let targets: Vec<u32> = (0..m).map(|i| (i * 11 % n) as u32).collect();
        let size = Size { m, n, k };
        let mut packed = vec![0.0; packed_len(&cpu, n, k)];
        pack(&cpu, &w, n, k, &mut packed);
        let mut forward = outputs(m);
        head_log_prob(&cpu, &x, &packed, &targets, size, 1.0 / t, borrow(&mut forward));
        let (mut dx, mut dw) = (vec![f32::NAN; m * k], vec![1.0; n * k]);
        let head = Head { weight: &w, packed: &packed };
        let given = (&forward[1][..], &d[..]);
        head_log_prob_backward(&cpu, &x, head, &targets, size, 1.0 / t, given, (&mut dx, &mut dw));
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
