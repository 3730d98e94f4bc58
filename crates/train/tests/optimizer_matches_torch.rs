//! AdamW and Muon against `torch.optim`, with the settings that training uses.
//!
//! Golden: testdata/optimizer, made by testdata/make/optimizer.py in f64. The tolerance is the rounding of f32 over a few
//! steps; torch's own Muon, in bf16, is forty times further away (1.6e-4 to 3.1e-4).
#![allow(clippy::unwrap_used)]

use std::path::Path;

use minke_tensor::optimize::{AdamW, Muon, Update, adamw_step, muon_step};
use minke_tensor::{Device, Param, Tensor};
use minke_train::optimizer::{LearningRates, OptimizerConfig};
use safetensors::SafeTensors;

const RATES: LearningRates = LearningRates { muon: Some(0.02), adamw: 3e-3 };

struct Golden(Vec<u8>);

impl Golden {
    fn load() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/optimizer/golden.safetensors");
        Self(std::fs::read(path).unwrap())
    }

    fn tensor(&self, device: &Device, name: &str) -> Tensor {
        let all = SafeTensors::deserialize(&self.0).unwrap();
        let view = all.tensor(name).unwrap();
        let values: Vec<f32> = view.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        Tensor::from_slice(device, view.shape(), &values)
    }
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut b.iter().map(|b| f64::from(*b)))
}

fn check(name: &str, ours: &[f32], golden: &Tensor) {
    let distance = distance(ours, &golden.read());
    assert!(distance < 4e-6, "{name}: relative distance {distance:e}");
}

#[test]
fn adamw() {
    Device::all(2).unwrap().iter().for_each(adamw_on);
}

fn adamw_on(device: &Device) {
    let (golden, config) = (Golden::load(), OptimizerConfig::default());
    let settings = AdamW {
        lr: RATES.adamw,
        beta1: config.beta1,
        beta2: config.beta2,
        eps: 1e-8,
        weight_decay: config.weight_decay,
        grad_scale: 1.0,
    };
    for case in ["adamw.matrix", "adamw.vector"] {
        let tensor = |what: &str| golden.tensor(device, &format!("{case}.{what}"));
        let mut param = Param::new(case, 0, tensor("start"));
        let dims = param.shape();
        let (mut m, mut v) = (Tensor::zeros(device, dims.dims()), Tensor::zeros(device, dims.dims()));
        for step in 1..=5 {
            let gradient = tensor(&format!("grad.{step}"));
            let update = Update { param: &mut param, master: None, gradient };
            adamw_step(device, update, (&mut m, &mut v), &settings, step);
            check(&format!("{case} step {step}"), &param.value().read(), &tensor(&format!("step.{step}")));
        }
        check(&format!("{case} first"), &m.read(), &tensor("first"));
        check(&format!("{case} second"), &v.read(), &tensor("second"));
    }
}

#[test]
fn muon() {
    Device::all(2).unwrap().iter().for_each(muon_on);
}

fn muon_on(device: &Device) {
    let (golden, config) = (Golden::load(), OptimizerConfig::default());
    let settings = Muon {
        lr: RATES.muon.unwrap() as f32,
        momentum: config.momentum as f32,
        weight_decay: config.weight_decay as f32,
        grad_scale: 1.0,
    };
    for case in ["muon.wide", "muon.tall", "muon.experts"] {
        let tensor = |what: &str| golden.tensor(device, &format!("{case}.{what}"));
        let mut param = Param::new(case, 0, tensor("start"));
        let mut momentum = Tensor::zeros(device, param.shape().dims());
        for step in 1..=3 {
            let gradient = tensor(&format!("grad.{step}"));
            let update = Update { param: &mut param, master: None, gradient };
            muon_step(device, vec![(update, &mut momentum)], &settings);
            check(&format!("{case} step {step}"), &param.value().read(), &tensor(&format!("step.{step}")));
        }
        check(&format!("{case} momentum"), &momentum.read(), &tensor("momentum"));
    }
}
