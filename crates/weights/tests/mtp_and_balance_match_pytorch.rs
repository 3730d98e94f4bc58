//! Multi-token prediction, balance loss and bias update against plain PyTorch. Golden made by `testdata/make/mtp.py` in
//! f64.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Golden, check_gradients, folder, relative};
use minke_model::{Batch, LossWeights, Targets};
use minke_tensor::{Device, Gradients, Pass, backward};

#[test]
fn losses_gradients_and_bias_update_match() {
    let golden = Golden::open("tiny-v3-mtp");
    for device in Device::all(2).unwrap() {
        let mut model = minke_weights::load_dense(&device, &folder("tiny-v3-mtp")).unwrap();
        let ids = golden.ids("input_ids");
        let rows: Vec<&[u32]> = ids.chunks(golden.shape("input_ids")[1]).collect();
        let batch = Batch::packed(&device, &rows);
        let counts = vec![1.0; batch.rows()];
        let targets = Targets::next_tokens(&device, &batch, &counts, Targets::count(&batch, &counts));
        let mut loads = Vec::new();
        for recompute in [false, true] {
            let pass = Pass::recording(&device).with_recompute(recompute);
            let factors = LossWeights { mtp: 0.3, balance: 0.1 };
            let (losses, output) = model.loss(pass, &batch, &targets, factors).unwrap();
            let close = |what: &str, got: f32, want: f32| {
                assert!((got - want).abs() <= 1e-5 * want.abs(), "{what}: {got}, not {want}");
            };
            close("cross-entropy", losses.next, golden.floats("loss.ce")[0]);
            close("mtp", losses.mtp.unwrap(), golden.floats("loss.mtp")[0]);
            close("balance", losses.balance.unwrap() * 0.1, golden.floats("loss.balance")[0]);
            close("total", losses.total.item(), golden.floats("loss.total")[0]);
            let module = output.mtp.as_ref().unwrap();
            let logits = model.logits(Pass::inference(&device), &module.hidden).unwrap();
            let difference = relative(&logits.read(), &golden.floats("mtp.logits"));
            assert!(difference <= 1e-4, "mtp logits differ by {difference:.2e}");
            let mut gradients = Gradients::default();
            backward(&device, &losses.total, &mut gradients).unwrap();
            let worst = check_gradients(&model, &gradients, &golden, 1e-3);
            println!("{} recompute {recompute}: gradients {worst:.1e}", device.name());
            loads = output.loads;
        }
        model.balance_experts(&device, &loads, 0.001);
        for load in &loads {
            let name = format!("model.layers.{}.mlp.gate.e_score_correction_bias", load.layer);
            let want = golden.floats(&format!("bias_after.{}", load.layer));
            let params = model.params();
            let got = params.iter().find(|param| param.name() == name).unwrap().value().read();
            assert!(relative(&got, &want) < 1e-6, "layer {}", load.layer);
        }
        assert_eq!(loads.len(), 3);
    }
}
