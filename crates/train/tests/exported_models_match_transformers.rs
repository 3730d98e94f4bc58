//! An exported model against `transformers`: rendered chats, ids and logits of models/first-light against
//! testdata/first-light, made there in f64 from the same folder by testdata/make/exported.py (which also checks that no
//! tensor is missing or left over). A tensor under another's name, another rotation or another template fails it.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use minke_model::Batch;
use minke_tensor::{Device, Pass};
use minke_text::{ChatTemplate, Message, Tokenizer};
use safetensors::SafeTensors;
use serde_json::Value;
use sha2::{Digest, Sha256};

const REMAKE: &str = "cargo xtask golden first-light/golden.safetensors";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn model() -> PathBuf {
    root().join("models/first-light")
}

/// The golden and its facts; panics if it was made from other files than those of today.
fn golden() -> (Vec<u8>, Value) {
    let bytes = std::fs::read(root().join("testdata/first-light/golden.safetensors")).unwrap();
    let (_, head) = SafeTensors::read_metadata(&bytes).unwrap();
    let facts: Value = serde_json::from_str(&head.metadata().as_ref().unwrap()["facts"]).unwrap();
    for (name, was) in facts["sha256"].as_object().unwrap() {
        let digest = Sha256::digest(std::fs::read(model().join(name)).unwrap());
        let is: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            is,
            was.as_str().unwrap(),
            "models/first-light/{name} is newer than its golden; remake it: {REMAKE}"
        );
    }
    (bytes, facts)
}

/// norm(a - b) / norm(b)
fn relative(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut b.iter().map(|&b| f64::from(b)))
}

#[test]
fn chats_and_ids_are_those_of_transformers() {
    let (bytes, facts) = golden();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (template, tokenizer) = (ChatTemplate::load(model()).unwrap(), Tokenizer::load(model()).unwrap());
    let chats = facts["chats"].as_array().unwrap();
    assert!(chats.len() >= 4);
    for (i, chat) in chats.iter().enumerate() {
        let messages: Vec<Message> = serde_json::from_value(chat["messages"].clone()).unwrap();
        let text = template.render(&messages, true).unwrap();
        assert_eq!(text, chat["text"].as_str().unwrap());
        let theirs = ids(&tensors, i);
        assert_eq!(tokenizer.encode(&text), theirs[..chat["tokens"].as_u64().unwrap() as usize], "{text}");
    }
}

#[test]
fn logits_are_within_1e_4() {
    let (bytes, facts) = golden();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for device in Device::all(2).unwrap() {
        let model = minke_weights::load(&device, &model()).unwrap();
        for i in 0..facts["chats"].as_array().unwrap().len() {
            let pass = Pass::inference(&device);
            let hidden =
                model.forward(pass, &Batch::packed(&device, &[&ids(&tensors, i)]), None, false).unwrap().hidden;
            let logits = model.logits(pass, &hidden).unwrap().read();
            let theirs = tensors.tensor(&format!("logits.{i}")).unwrap();
            let theirs: Vec<f32> = theirs.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            let difference = relative(&logits[logits.len() - theirs.len()..], &theirs);
            println!("{} chat {i}: relative error {difference:.1e}", device.name());
            assert!(difference <= 1e-4, "{} chat {i}: logits differ by {difference:.2e}", device.name());
        }
    }
}

fn ids(tensors: &SafeTensors<'_>, chat: usize) -> Vec<u32> {
    let view = tensors.tensor(&format!("ids.{chat}")).unwrap();
    view.data().as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as u32).collect()
}
