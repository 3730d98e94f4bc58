//! Parameters that are held as bf16: products with rounded rows, their gradients, and updates through an f32 master.
#![allow(clippy::unwrap_used)]

use minke_spec::Precision;
use minke_spec::draw::{Domain, draw};
use minke_tensor::optimize::{AdamW, Muon, Update, adamw_step, master, muon_step};
use minke_tensor::{
    Device, Dispatch, Dtype, FetchedExperts, Gradients, Indices, Param, Pass, Result, Tensor, backward,
};

fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut stream = draw(seed, Domain::Data, &[len as u64]);
    (0..len).map(|_| stream.normal() as f32).collect()
}

/// The nearest value with eight bits, ties to even.
fn rounded(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000)
}

fn param(device: &Device, id: usize, shape: &[usize], precision: Precision) -> Param {
    let values: Vec<f32> = random(id as u64, shape.iter().product()).iter().map(|v| v * 0.1).collect();
    let mut param = Param::new("w", id, Tensor::from_slice(device, shape, &values));
    param.hold_as(device, precision);
    param
}

/// A loss through a linear layer, experts with SwiGLU, an embedding and a head that is tied to it.
fn loss(pass: Pass<'_>, params: &[Param], x: &Tensor) -> Result<Tensor> {
    let [table, first, gate, up, down] = params else { panic!("five parameters") };
    let device = pass.device;
    let (ids, targets) = (Indices::from_slice(device, &[3, 1, 4, 1, 5, 9, 2]), Indices::from_slice(device, &[2; 7]));
    let y = Tensor::embed(pass, table, &ids)?.add(pass, &x.matmul(pass, first)?)?;
    let plan = Dispatch::new(pass, &Indices::from_slice(device, &[0, 2, 2, 0, 1, 0, 2]), 1, 3)?;
    let (rows, none) = (y.dispatch(pass, &plan)?, FetchedExperts::default());
    let up = rows.grouped_matmul(pass, up, &plan, &none)?;
    let hidden = rows.grouped_matmul(pass, gate, &plan, &none)?.swiglu(pass, &up)?;
    let weights = Tensor::from_slice(device, &[7, 1], &[1.0; 7]);
    let y = y.add(pass, &hidden.grouped_matmul(pass, down, &plan, &none)?.combine(pass, &weights, &plan)?)?;
    let log_prob = y.head_log_prob(pass, table, &targets, 0.9)?.log_prob;
    log_prob.weighted_sum(pass, &Tensor::from_slice(device, &[7], &[-1.0; 7]))
}

fn params(device: &Device, precision: Precision) -> Vec<Param> {
    let shapes: [&[usize]; 5] = [&[11, 24], &[24, 37], &[3, 40, 24], &[3, 40, 24], &[3, 24, 40]];
    shapes.iter().enumerate().map(|(id, shape)| param(device, id, shape, precision)).collect()
}

#[test]
fn losses_and_gradients_are_near_those_of_f32() {
    for device in Device::all(2).unwrap() {
        let x = Tensor::from_slice(&device, &[7, 37], &random(9, 7 * 37)).leaf();
        let run = |params: &[Param]| {
            let loss = loss(Pass::recording(&device), params, &x).unwrap();
            let mut gradients = Gradients::default();
            backward(&device, &loss, &mut gradients).unwrap();
            (loss.item(), params.iter().map(|p| gradients.get(p).unwrap().read()).collect::<Vec<_>>())
        };
        let exact = params(&device, Precision::F32);
        let held = params(&device, Precision::Bf16);
        for (exact, held) in exact.iter().zip(&held) {
            assert_eq!((exact.value().dtype(), held.value().dtype()), (Dtype::F32, Dtype::Bf16));
            let want: Vec<f32> = exact.value().read().into_iter().map(rounded).collect();
            assert_eq!(held.value().read(), want);
        }
        let ((a, exact), (b, got)) = (run(&exact), run(&held));
        assert!((a - b).abs() < 0.01 * a.abs() && a != b, "{device:?}: {b} is not {a}");
        for (want, got) in exact.iter().zip(&got) {
            let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let distance = norm(&mut want.iter().zip(got).map(|(w, g)| w - g)) / norm(&mut want.iter().copied());
            assert!(distance < 0.01 && distance > 0.0, "{device:?}: a gradient is off by {distance}");
        }
    }
}

#[test]
fn a_row_is_the_same_alone_and_the_same_values_under_another_shape_are_other_rows() {
    for device in Device::all(2).unwrap() {
        let pass = Pass::inference(&device);
        let (wide, narrow) =
            (param(&device, 1, &[5, 40], Precision::Bf16), param(&device, 2, &[5, 20], Precision::Bf16));
        let x = Tensor::from_slice(&device, &[6, 40], &random(3, 240));
        let whole = x.matmul(pass, &wide).unwrap().read();
        let halves = x.reshape(&[12, 20]).unwrap();
        let first = halves.matmul(pass, &narrow).unwrap().read();
        let fresh = Tensor::from_slice(&device, &[12, 20], &x.read()).matmul(pass, &narrow).unwrap().read();
        assert_eq!(first, fresh, "{device:?}");
        let alone = Tensor::from_slice(&device, &[1, 40], &x.read()[3 * 40..4 * 40]);
        assert_eq!(alone.matmul(pass, &wide).unwrap().read(), whole[3 * 5..4 * 5], "{device:?}");
    }
}

#[test]
fn updates_smaller_than_a_step_of_bf16_add_up_in_the_master() {
    for device in Device::all(2).unwrap() {
        let mut exact = Param::new("w", 0, Tensor::from_slice(&device, &[2, 2], &[1.0; 4]));
        let mut held = exact.clone();
        held.hold_as(&device, Precision::Bf16);
        let mut kept = master(&device, &held).unwrap();
        assert!(master(&device, &exact).is_none());
        let zeros = || Tensor::zeros(&device, &[2, 2]);
        let [mut m, mut v, mut held_m, mut held_v] = [zeros(), zeros(), zeros(), zeros()];
        let gradient = Tensor::from_slice(&device, &[2, 2], &[1.0, -1.0, 2.0, 0.5]);
        let settings = AdamW { lr: 1e-4, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, grad_scale: 1.0 };
        for step in 1..=60 {
            let update = Update { param: &mut exact, master: None, gradient: gradient.clone() };
            adamw_step(&device, update, (&mut m, &mut v), &settings, step);
            let update = Update { param: &mut held, master: Some(&mut kept), gradient: gradient.clone() };
            adamw_step(&device, update, (&mut held_m, &mut held_v), &settings, step);
        }
        assert_eq!(kept.read(), exact.value().read(), "{device:?}");
        let want: Vec<f32> = kept.read().into_iter().map(rounded).collect();
        // One step moves by 1e-4, where numbers in bf16 lie 4e-3 and 8e-3 apart.
        assert!(held.value().read() == want && want[0] < 1.0 && want[1] > 1.0, "{device:?} {want:?}");

        let settings = Muon { lr: 1e-3, momentum: 0.9, weight_decay: 0.1, grad_scale: 1.0 };
        let (mut momentum, mut held_momentum) = (zeros(), zeros());
        let update = Update { param: &mut exact, master: None, gradient: gradient.clone() };
        muon_step(&device, vec![(update, &mut momentum)], &settings);
        let update = Update { param: &mut held, master: Some(&mut kept), gradient };
        muon_step(&device, vec![(update, &mut held_momentum)], &settings);
        assert_eq!(kept.read(), exact.value().read(), "{device:?}");
        assert_eq!(held.value().read(), kept.read().into_iter().map(rounded).collect::<Vec<_>>(), "{device:?}");
    }
}
