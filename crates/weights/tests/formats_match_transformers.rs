//! Models in other formats against `transformers` with the same weights: GGUF of all families, `kv_b_proj` whole and in
//! halves, Llama's permuted rows, several files (`testdata/make/gguf_models.py`); DeepSeek's FP8
//! (`testdata/make/fp8.py`).
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{Golden, folder, relative};
use minke_model::{Batch, Transformer};
use minke_tensor::{Device, Isa, Pass};
use minke_weights::recipe::{Recipe, choose};
use minke_weights::{Archive, Packed, TensorWriter};

const FILES: [(&str, &str); 11] = [
    ("../tiny-v3-fp8", "tiny-v3-fp8"),
    ("tiny-v3.gguf", "tiny-v3"),
    ("tiny-v3-halves.gguf", "tiny-v3"),
    ("tiny-v3-direct-q.gguf", "tiny-v3-direct-q"),
    ("tiny-v2.gguf", "tiny-v2"),
    ("tiny-v2-lite.gguf", "tiny-v2-lite"),
    ("tiny-qwen2.gguf", "tiny-qwen2"),
    ("tiny-qwen3-00001-of-00004.gguf", "tiny-qwen3"),
    ("tiny-qwen3-yarn.gguf", "tiny-qwen3-yarn"),
    ("tiny-llama.gguf", "tiny-llama"),
    ("tiny-llama-bias.gguf", "tiny-llama-bias"),
];

fn logits(device: &Device, model: &Transformer, golden: &Golden) -> Vec<f32> {
    let (ids, length) = (golden.ids("input_ids"), golden.shape("input_ids")[1]);
    let rows: Vec<&[u32]> = ids.chunks(length).collect();
    let pass = Pass::inference(device);
    let hidden = model.forward(pass, &Batch::packed(device, &rows), None, false).unwrap().hidden;
    model.logits(pass, &hidden).unwrap().read()
}

#[test]
fn logits_are_within_1e_4() {
    for device in Device::all(2).unwrap() {
        for (file, published) in FILES {
            let path = folder("gguf").join(file);
            let archive = Archive::open(&path).unwrap();
            let other = Archive::open(&folder(published)).unwrap().config;
            assert_eq!((archive.notes.len(), archive.config.vocab_size), (0, other.vocab_size), "{file}");
            archive.check_weights().unwrap();
            let golden = Golden::open(published);
            for model in [archive.load(&device).unwrap(), minke_weights::load_dense(&device, &path).unwrap()] {
                let difference = relative(&logits(&device, &model, &golden), &golden.floats("logits"));
                assert!(difference <= 1e-4, "{file} {}: logits differ by {difference:.2e}", device.name());
            }
        }
    }
}

#[test]
fn interleaved_weights_give_the_same_logits() {
    let source = Archive::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/first-light")).unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let ids: Vec<u32> = (0..40).map(|i| i * 37 % 512).collect();
    // Experts, latents, a head; matrices whose rows are not whole blocks get another format.
    for recipe in Recipe::ALL {
        let mut planned = source.plan_gguf().unwrap();
        choose(&source.config, recipe, &[], &mut planned).unwrap();
        let path = temporary.path().join(format!("{}.gguf", recipe.name()));
        let (device, archive) = (&Device::cpu(2, Isa::detect()).unwrap(), &source);
        let writer =
            TensorWriter { device, archive, planned: &planned, importance: None, adapter: None, progress: &|_| true };
        writer.write_gguf(&source.gguf_pairs("first light", &planned).unwrap(), &path).unwrap();
        let archive = Archive::open(&path).unwrap();
        let files = std::fs::read_dir(temporary.path()).unwrap().count();
        for device in Device::all(2).unwrap() {
            let logits = |model: &Transformer| -> Vec<u32> {
                let pass = Pass::inference(&device);
                let hidden = model.forward(pass, &Batch::packed(&device, &[&ids]), None, false).unwrap().hidden;
                model.logits(pass, &hidden).unwrap().read().into_iter().map(f32::to_bits).collect()
            };
            let (mapped, interleaved) = (archive.load(&device).unwrap(), archive.load_interleaved(&device).unwrap());
            assert_eq!(logits(&mapped), logits(&interleaved), "{} {}", device.name(), recipe.name());
            let copy = temporary.path().join("copy");
            let stopped = archive.pack(&device, "a state", &copy, &|_| false);
            if archive.packed_bytes(&device).unwrap() > 0 {
                assert!(matches!(stopped, Err(minke_weights::Error::Interrupted)));
                assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), files);
            }
            archive.pack(&device, "a state", &copy, &|_| true).unwrap();
            let packed = Packed::open(&copy).unwrap();
            assert_eq!(packed.state(), "a state");
            let packed = archive.load_packed(&device, &packed).unwrap();
            assert_eq!(logits(&mapped), logits(&packed), "{} {}, packed", device.name(), recipe.name());
            std::fs::remove_file(&copy).unwrap();
        }
    }
}

#[test]
fn a_part_of_a_split_model_is_refused_by_name() {
    let folder = folder("gguf");
    let refused = |path: &std::path::Path| Archive::open(path).err().unwrap().to_string();
    let second = refused(&folder.join("tiny-qwen3-00002-of-00004.gguf"));
    assert!(second.contains("is file 2 of 4; give the first"), "{second}");
    let all = refused(&folder);
    assert!(all.contains("holds 10 models as GGUF"), "{all}");

    let alone = tempfile::tempdir().unwrap();
    let first = "tiny-qwen3-00001-of-00004.gguf";
    std::fs::copy(folder.join(first), alone.path().join(first)).unwrap();
    let missing = refused(alone.path());
    assert!(missing.contains("tiny-qwen3-00002-of-00004.gguf: is missing"), "{missing}");
    std::fs::rename(alone.path().join(first), alone.path().join("model.gguf")).unwrap();
    let renamed = refused(&alone.path().join("model.gguf"));
    assert!(renamed.contains("is one of 4 files by its header, not by its name"), "{renamed}");
}
