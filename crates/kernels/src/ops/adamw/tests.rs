use super::*;
use crate::ops::testing::*;

const SETTINGS: AdamW = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, grad_scale: 0.7 };

#[test]
fn every_path_agrees_with_the_reference_over_steps() {
    for n in [0, 1, 17, 333, 12_345] {
        let param = random(1, n);
        let run = |device: &Device| {
            let (mut param, mut m, mut v) = (param.clone(), vec![0.0; n], vec![0.0; n]);
            for t in 1..=5 {
                step(
                    device,
                    view_mut(&mut param),
                    view(&random(t + 1, n)),
                    view_mut(&mut m),
                    view_mut(&mut v),
                    &SETTINGS,
                    t,
                );
            }
            vec![param, m, v]
        };
        on_every_path(run, |out, path| {
            let (mut param, mut m, mut v) = (wide(&param), vec![0.0; n], vec![0.0; n]);
            for t in 1..=5 {
                for (i, g) in wide(&random(t + 1, n)).into_iter().enumerate() {
                    reference::step(&mut param[i], g, &mut m[i], &mut v[i], &SETTINGS, t);
                }
            }
            close(&out[0], &param, 1e-6, path);
            close(&out[1], &m, 1e-6, path);
            close(&out[2], &v, 1e-6, path);
        });
    }
}

#[test]
fn the_first_step_has_the_size_of_the_learning_rate_and_decays_the_parameter() {
    // m / sqrt(v) is the sign of the gradient after bias correction, whatever its size.
    let run = |device: &Device| {
        let (mut param, mut m, mut v) = (vec![1.0, 1.0, 1.0], vec![0.0; 3], vec![0.0; 3]);
        step(
            device,
            view_mut(&mut param),
            view(&[1e-3, -100.0, 0.0]),
            view_mut(&mut m),
            view_mut(&mut v),
            &SETTINGS,
            1,
        );
        vec![param]
    };
    on_every_path(run, |out, path| close(&out[0], &[0.999 - 0.01, 0.999 + 0.01, 0.999], 1e-6, path));
}

#[test]
fn an_element_has_the_same_bits_wherever_it_lies() {
    for isa in crate::Isa::available() {
        let device = path(1, isa);
        let (param, grad) = (random(9, 50), random(10, 50));
        let run = |at: std::ops::Range<usize>| {
            let mut param = param[at.clone()].to_vec();
            let (mut m, mut v) = (vec![0.1; param.len()], vec![0.2; param.len()]);
            step(&device, view_mut(&mut param), view(&grad[at]), view_mut(&mut m), view_mut(&mut v), &SETTINGS, 3);
            bits(&param)
        };
        assert_eq!(run(7..29), run(0..50)[7..29]);
    }
}
