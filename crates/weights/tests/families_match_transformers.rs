//! All families against `transformers`: logits, every gradient, intermediate values, and 64 greedy tokens, against
//! goldens in f64 (made by `testdata/make/families.py`).
#![allow(clippy::unwrap_used)]

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;

use common::{Golden, check_gradients, folder, relative};
use minke_model::{Batch, LossWeights, Targets, Transformer};
use minke_tensor::{Device, Gradients, Pass, backward};

const FAMILIES: [&str; 10] = [
    "tiny-v3",
    "tiny-v3-direct-q",
    "tiny-v2",
    "tiny-v2-lite",
    "tiny-qwen2",
    "tiny-qwen3",
    "tiny-qwen3-yarn",
    "tiny-llama",
    "tiny-llama-bias",
    "tiny-qwen3-bias",
];

fn each_family(mut check: impl FnMut(&str, &Device, &Transformer, &Golden)) {
    for device in Device::all(2).unwrap() {
        for name in FAMILIES {
            let unknown = minke_weights::Archive::open(&folder(name)).unwrap().unknown_keys;
            let model = minke_weights::load_dense(&device, &folder(name)).unwrap();
            assert!(unknown.is_empty(), "{name}: {unknown:?}");
            check(name, &device, &model, &Golden::open(name));
        }
    }
}

fn sequences(golden: &Golden) -> (Vec<u32>, usize) {
    (golden.ids("input_ids"), golden.shape("input_ids")[1])
}

#[test]
fn logits_are_within_1e_4_and_gradients_within_1e_3() {
    each_family(|name, device, model, golden| {
        let (ids, length) = sequences(golden);
        let rows: Vec<&[u32]> = ids.chunks(length).collect();
        let batch = Batch::packed(device, &rows);

        let pass = Pass::inference(device);
        let hidden = model.forward(pass, &batch, None, false).unwrap().hidden;
        let logits = model.logits(pass, &hidden).unwrap();
        let difference = relative(&logits.read(), &golden.floats("logits"));
        assert!(difference <= 1e-4, "{name} {}: logits differ by {difference:.2e}", device.name());

        for recompute in [false, true] {
            let pass = Pass::recording(device).with_recompute(recompute);
            let counts = vec![1.0; batch.rows()];
            let targets = Targets::next_tokens(device, &batch, &counts, Targets::count(&batch, &counts));
            let factors = LossWeights { mtp: 0.0, balance: 0.0 };
            let (losses, _) = model.loss(pass, &batch, &targets, factors).unwrap();
            let want = golden.floats("loss")[0];
            assert!((losses.next - want).abs() <= 1e-5 * want, "{name}: loss {} not {want}", losses.next);
            let mut gradients = Gradients::default();
            backward(device, &losses.total, &mut gradients).unwrap();
            let worst = check_gradients(model, &gradients, golden, 1e-3);
            println!("{name} {} recompute {recompute}: logits {difference:.1e}, gradients {worst:.1e}", device.name());
        }
    });
}

#[test]
fn intermediate_values_match() {
    each_family(|name, device, model, golden| {
        let (ids, length) = sequences(golden);
        let rows: Vec<&[u32]> = ids.chunks(length).collect();
        let taps = RefCell::new(BTreeMap::new());
        let listen = |tap: minke_tensor::Tap<'_>, value: &minke_tensor::Tensor| {
            taps.borrow_mut().insert(tap.to_string(), value.read());
        };
        let pass = Pass::inference(device).with_tap(&listen);
        model.forward(pass, &Batch::packed(device, &rows), None, false).unwrap();
        let taps = taps.into_inner();
        let wanted = golden.names().into_iter().filter_map(|n| n.strip_prefix("tap.").map(str::to_string));
        let wanted: Vec<String> = wanted.filter(|n| !n.ends_with("experts") && !n.ends_with("weights")).collect();
        for tap in &wanted {
            let difference = relative(&taps[tap], &golden.floats(&format!("tap.{tap}")));
            assert!(difference <= 1e-4, "{name} {tap}: {difference:.2e}");
        }
        assert!(!name.starts_with("tiny-v") || wanted.len() >= 5, "{name} has too few taps");
    });
}

#[test]
fn sixty_four_greedy_tokens_match() {
    each_family(|name, device, model, golden| {
        let (mut ids, want) = (golden.ids("greedy.prompt"), golden.ids("greedy.ids"));
        let pass = Pass::inference(device);
        for (step, &want) in want.iter().enumerate() {
            let hidden = model.forward(pass, &Batch::packed(device, &[&ids]), None, false).unwrap().hidden;
            let logits = model.logits(pass, &hidden).unwrap();
            let last = &logits.read()[(ids.len() - 1) * model.config().vocab_size..];
            let best = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap() as u32;
            assert_eq!(best, want, "{name}: greedy token {step}");
            ids.push(best);
        }
    });
}
