use super::*;
use crate::ops::testing::{on_every_path, random, view, view_mut, wide};

#[test]
fn every_path_agrees_with_the_reference_for_any_number_of_threads() {
    let settings = Muon { lr: 0.02, momentum: 0.95, weight_decay: 0.1, grad_scale: 0.5 };
    for (stack, rows, columns) in [(1, 16, 40), (1, 40, 16), (4, 12, 20), (1, 1, 7), (1, 33, 33)] {
        let size = rows * columns;
        let (start, zero) = (random(1, stack * size), vec![0.0f32; stack * size]);
        let run = |device: &Device| {
            let (mut param, mut momentum) = (start.clone(), zero.clone());
            for round in 0..3 {
                let grad = random(10 + round, stack * size);
                let (param, momentum) = (view_mut(&mut param), view_mut(&mut momentum));
                let matrices = Matrices { param, grad: view(&grad), momentum, rows, columns };
                step(device, vec![matrices], &settings);
            }
            vec![param, momentum]
        };
        on_every_path(run, |out, path| {
            let (mut want, mut want_momentum) = (wide(&start), vec![0.0; stack * size]);
            for round in 0..3 {
                let grad = wide(&random(10 + round, stack * size));
                for i in 0..stack {
                    let at = i * size..(i + 1) * size;
                    let (w, m) = (&mut want[at.clone()], &mut want_momentum[at.clone()]);
                    reference::step(w, &grad[at], m, (rows, columns), &settings);
                }
            }
            for (got, want) in out[0].iter().zip(&want) {
                assert!((f64::from(*got) - want).abs() < 2e-5, "{path} [{rows}, {columns}]");
            }
        });
    }
}

#[test]
fn singular_values_come_close_to_one() {
    let (rows, columns) = (8, 24);
    let x: Vec<f64> = random(5, rows * columns).iter().map(|&v| f64::from(v)).collect();
    let y = reference::orthogonalize(&x, rows, columns);
    // The trace of Y Y^T is the sum of squared singular values; the iteration leaves each within about [0.7, 1.2].
    let trace: f64 = y.iter().map(|v| v * v).sum();
    assert!((0.45..1.5).contains(&(trace / rows as f64)), "{trace}");
}
