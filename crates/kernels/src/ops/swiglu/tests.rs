use super::*;
use crate::Bf16;
use crate::ops::testing::*;

#[test]
fn every_path_agrees_with_the_reference() {
    for n in [0, 1, 15, 16, 33, 1000, 30_011] {
        let (mut gate, up, dy) = (random(1, n), random(2, n), random(3, n));
        gate.iter_mut().enumerate().for_each(|(i, g)| *g *= [1.0, 5.0, 30.0][i % 3]);
        let run = |device: &Device| {
            let (mut y, mut dgate, mut dup) = (unwritten(n), unwritten(n), unwritten(n));
            swiglu(device, view(&gate), view(&up), view_mut(&mut y));
            let (g, u) = (Floats::F32(view(&gate)), Floats::F32(view(&up)));
            swiglu_backward(device, g, u, view(&dy), view_mut(&mut dgate), view_mut(&mut dup));
            // Held as bf16 they are what they are as f32.
            let narrow = |x: &[f32]| -> Vec<Bf16> { x.iter().map(|&v| Bf16::from_f32(v)).collect() };
            let widen = |x: &[Bf16]| -> Vec<f32> { x.iter().map(|v| v.to_f32()).collect() };
            let (narrow_gate, narrow_up) = (narrow(&gate), narrow(&up));
            let (wide_gate, wide_up) = (widen(&narrow_gate), widen(&narrow_up));
            let mut both = [[unwritten(n), unwritten(n)], [unwritten(n), unwritten(n)]];
            let held = [
                [Floats::F32(view(&wide_gate)), Floats::F32(view(&wide_up))],
                [Floats::Bf16(view(&narrow_gate)), Floats::Bf16(view(&narrow_up))],
            ];
            for ([g, u], [dgate, dup]) in held.into_iter().zip(&mut both) {
                swiglu_backward(device, g, u, view(&dy), view_mut(dgate), view_mut(dup));
            }
            assert!((0..2).all(|i| bits(&both[0][i]) == bits(&both[1][i])), "{device:?}");
            // The same values elsewhere in the slice have the same bits.
            let mut shifted = unwritten(n.saturating_sub(3));
            swiglu(device, view(&gate[n.min(3)..]), view(&up[n.min(3)..]), view_mut(&mut shifted));
            assert_eq!(bits(&shifted), bits(&y[n.min(3)..]));
            vec![y, dgate, dup]
        };
        on_every_path(run, |out, path| {
            let (gate, up, dy) = (wide(&gate), wide(&up), wide(&dy));
            let (dgate, dup) = reference::swiglu_backward(&gate, &up, &dy);
            close(&out[0], &reference::swiglu(&gate, &up), 1e-6, path);
            close(&out[1], &dgate, 2e-6, path);
            close(&out[2], &dup, 1e-6, path);
        });
    }
}

#[test]
fn the_reference_backward_is_the_derivative() {
    let (gate, up, dy) = (wide(&random(4, 20)), wide(&random(5, 20)), wide(&random(6, 20)));
    let (dgate, dup) = reference::swiglu_backward(&gate, &up, &dy);
    is_derivative(&dgate, &gate, &dy, |gate| reference::swiglu(gate, &up));
    is_derivative(&dup, &up, &dy, |up| reference::swiglu(&gate, up));
}

#[test]
fn a_closed_gate_is_closed_and_an_open_one_passes() {
    let run = |device: &Device| {
        let mut y = unwritten(3);
        swiglu(device, view(&[-200.0, 200.0, f32::NAN]), view(&[2.0, 2.0, 2.0]), view_mut(&mut y));
        vec![y]
    };
    on_every_path(run, |out, path| {
        assert!(out[0][0].abs() < 1e-30 && out[0][1] == 400.0 && out[0][2].is_nan(), "{path} {:?}", out[0]);
    });
}
