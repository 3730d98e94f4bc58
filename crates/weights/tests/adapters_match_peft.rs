//! Adapters against PEFT: logits and gradients with one that PEFT saved, beside published weights and beside GGUF (where the rows of
//! Llama's queries and keys lie in another order), written again, and merged.
//!
//! Golden: testdata/lora, made in f64 by testdata/make/lora.py.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{Golden, folder, relative};
use minke_model::{Batch, Chunk, KvCache, Lora, LossWeights, MlaForm, Targets, Transformer};
use minke_spec::Format;
use minke_tensor::{Device, Dtype, Gradients, Pass, backward};
use minke_weights::{
    ADAPTER_CONFIG_FILE, ADAPTER_FILE, AdapterConfig, Archive, TensorWriter, load_adapter, load_dense, save_adapter,
};

const CASES: [(&str, &str); 3] = [("llama", "tiny-llama"), ("qwen2", "tiny-qwen2"), ("v3", "tiny-v3")];

fn golden(name: &str) -> Golden {
    Golden::open(&format!("lora/{name}"))
}

fn adapter(name: &str) -> std::path::PathBuf {
    folder("lora").join(name)
}

fn attached(device: &Device, base: &Path, name: &str) -> Transformer {
    let mut model = Archive::open(base).unwrap().load_interleaved(device).unwrap();
    let (_, lora) = load_adapter(device, &adapter(name), model.config()).unwrap();
    model.attach(&lora).unwrap();
    model
}

/// The sequences of a golden with the tokens that count.
fn sequences(golden: &Golden) -> Vec<(Vec<u32>, std::ops::Range<usize>)> {
    let range = |counted: Vec<u32>| counted[0] as usize..counted[1] as usize;
    (0..3).map(|i| (golden.ids(&format!("ids.{i}")), range(golden.ids(&format!("counted.{i}"))))).collect()
}

fn logits(device: &Device, model: &Transformer, ids: &[u32]) -> Vec<f32> {
    let pass = Pass::inference(device);
    let hidden = model.forward(pass, &Batch::packed(device, &[ids]), None, false).unwrap().hidden;
    model.logits(pass, &hidden).unwrap().read()
}

fn check_logits(device: &Device, model: &Transformer, name: &str, what: &str) {
    let golden = golden(name);
    for (i, (ids, _)) in sequences(&golden).iter().enumerate() {
        let difference = relative(&logits(device, model, ids), &golden.floats(&format!("logits.{i}")));
        assert!(difference < 2e-5, "{name} {what}: logits of sequence {i} differ by {difference:.2e}");
    }
}

/// The loss of all sequences as one packed batch, and its gradients.
fn loss(device: &Device, model: &Transformer, golden: &Golden, recompute: bool) -> (f32, Gradients) {
    let sequences = sequences(golden);
    let ids: Vec<&[u32]> = sequences.iter().map(|(ids, _)| &ids[..]).collect();
    let counts: Vec<f32> = sequences
        .iter()
        .flat_map(|(ids, counted)| (0..ids.len()).map(|row| if counted.contains(&(row + 1)) { 1.0 } else { 0.0 }))
        .collect();
    let batch = Batch::packed(device, &ids);
    let targets = Targets::next_tokens(device, &batch, &counts, Targets::count(&batch, &counts));
    let pass = Pass::recording(device).with_recompute(recompute);
    let (losses, _) = model.loss(pass, &batch, &targets, LossWeights { mtp: 0.0, balance: 0.0 }).unwrap();
    let mut gradients = Gradients::default();
    backward(device, &losses.total, &mut gradients).unwrap();
    (losses.next, gradients)
}

#[test]
fn logits_are_those_of_peft() {
    for device in Device::all(2).unwrap() {
        for (name, base) in CASES {
            check_logits(&device, &attached(&device, &folder(base), name), name, "folder");
        }
    }
}

#[test]
fn rows_of_gguf_are_put_in_their_order() {
    let device = Device::open("cpu", 2).unwrap();
    for (name, base) in CASES {
        let path = folder("gguf").join(format!("{base}.gguf"));
        check_logits(&device, &attached(&device, &path, name), name, "gguf");
    }
}

#[test]
fn gradients_of_the_pairs_are_those_of_peft_and_nothing_else_has_one() {
    for device in Device::all(2).unwrap() {
        for (name, base) in CASES {
            let (golden, model) = (golden(name), attached(&device, &folder(base), name));
            for recompute in [false, true] {
                let (next, gradients) = loss(&device, &model, &golden, recompute);
                let want = golden.floats("loss")[0];
                assert!((next / want - 1.0).abs() < 2e-5, "{name}: loss {next}, PEFT {want}");
                let mut checked = 0;
                for param in model.params() {
                    let Some(gradient) = gradients.get(param) else {
                        assert!(param.is_frozen(), "{name}: {} has no gradient", param.name());
                        continue;
                    };
                    let want = golden.floats(&format!("grad.base_model.model.{}", param.name()));
                    let difference = relative(&gradient.read(), &want);
                    assert!(difference < 1e-4, "{name}: gradient of {} differs by {difference:.2e}", param.name());
                    checked += 1;
                }
                assert_eq!(checked, golden.names().iter().filter(|name| name.starts_with("grad.")).count());
            }
        }
    }
}

#[test]
fn absorbed_attention_has_the_adapter() {
    let device = Device::open("cpu", 2).unwrap();
    let (golden, model) = (golden("v3"), attached(&device, &folder("tiny-v3"), "v3"));
    let (ids, _) = &sequences(&golden)[0];
    let by_form = [MlaForm::Absorbed, MlaForm::Expanded].map(|form| {
        let pass = Pass::inference(&device);
        let mut cache = KvCache::new(&device, model.config(), 1, form, Dtype::F32);
        let batch =
            Batch::paged(&device, &[Chunk { token_ids: ids, first_position: 0, pages: &[0], asked: ids.len() }])
                .unwrap();
        let hidden = model.forward(pass, &batch, Some(&mut cache), false).unwrap().hidden;
        model.logits(pass, &hidden).unwrap().read()
    });
    for logits in by_form {
        let difference = relative(&logits, &golden.floats("logits.0"));
        assert!(difference < 2e-5, "{difference:.2e}");
    }
}

#[test]
fn what_is_written_is_what_peft_wrote() {
    let device = Device::open("cpu", 1).unwrap();
    for (name, base) in CASES {
        for path in [folder(base), folder("gguf").join(format!("{base}.gguf"))] {
            let model = attached(&device, &path, name);
            let (config, _) = load_adapter(&device, &adapter(name), model.config()).unwrap();
            let target = tempfile::tempdir().unwrap();
            save_adapter(target.path(), &config, &model.adapter().unwrap(), model.config()).unwrap();
            assert_eq!(AdapterConfig::read(target.path()).unwrap(), config);
            let read = |folder: &Path| {
                let bytes = std::fs::read(folder.join(ADAPTER_FILE)).unwrap();
                let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
                let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = file
                    .iter()
                    .map(|(name, view)| (name.to_owned(), view.shape().to_vec(), view.data().to_vec()))
                    .collect();
                tensors.sort();
                tensors
            };
            assert!(read(target.path()) == read(&adapter(name)), "{name} beside {}", path.display());
        }
    }
}

#[test]
fn merged_weights_give_the_same_logits() {
    let device = Device::open("cpu", 2).unwrap();
    for (name, base) in CASES {
        for path in [folder(base), folder("gguf").join(format!("{base}.gguf"))] {
            let archive = Archive::open(&path).unwrap();
            let (_, lora) = load_adapter(&device, &adapter(name), &archive.config).unwrap();
            let target = tempfile::tempdir().unwrap();
            let mut planned = archive.plan_folder().unwrap();
            planned.iter_mut().for_each(|tensor| tensor.format = Format::F32);
            let (device, progress) = (&device, &|_| true);
            let writer = TensorWriter {
                device,
                archive: &archive,
                planned: &planned,
                importance: None,
                adapter: Some(&lora),
                progress,
            };
            writer.write_safetensors(target.path(), 1 << 30).unwrap();
            let config = archive.folder_config(Format::F32).unwrap();
            std::fs::write(target.path().join("config.json"), config.to_string()).unwrap();
            let merged = load_dense(device, target.path()).unwrap();
            check_logits(device, &merged, name, "merged");
            if archive.metadata.is_none() {
                // A GGUF file has rows in another order, and a half of `kv_b_proj` transposed.
                let mut planned = archive.plan_gguf().unwrap();
                planned.iter_mut().for_each(|tensor| tensor.format = Format::F32);
                let (pairs, file) = (archive.gguf_pairs(name, &planned).unwrap(), target.path().join("merged.gguf"));
                TensorWriter { planned: &planned, ..writer }.write_gguf(&pairs, &file).unwrap();
                let merged = load_dense(device, &file).unwrap();
                check_logits(device, &merged, name, "merged into GGUF");
            }
        }
    }
}

/// An adapter folder with another configuration.
fn with_config(name: &str, change: impl Fn(&mut serde_json::Value)) -> tempfile::TempDir {
    let target = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(adapter(name).join(ADAPTER_CONFIG_FILE)).unwrap();
    let mut config = serde_json::from_str(&text).unwrap();
    change(&mut config);
    std::fs::write(target.path().join(ADAPTER_CONFIG_FILE), config.to_string()).unwrap();
    std::fs::copy(adapter(name).join(ADAPTER_FILE), target.path().join(ADAPTER_FILE)).unwrap();
    target
}

#[test]
fn settings_are_obeyed_or_refused_by_name() {
    let device = Device::open("cpu", 1).unwrap();
    let model = Archive::open(&folder("tiny-llama")).unwrap().config;
    let read = |key: &str, value: serde_json::Value| {
        let changed = with_config("llama", |config| config[key] = value.clone());
        load_adapter(&device, changed.path(), &model).map(|(config, lora)| (config, lora.scale))
    };
    let (_, scale) = read("lora_alpha", 12.into()).unwrap();
    assert_eq!(scale, 3.0);
    assert_eq!(read("use_rslora", true.into()).unwrap().1, 3.0);
    assert!(read("base_model_name_or_path", serde_json::Value::Null).unwrap().0.base_model.is_none());
    for (key, value) in [
        ("peft_type", "LOHA".into()),
        ("bias", "all".into()),
        ("use_dora", true.into()),
        ("fan_in_fan_out", true.into()),
        ("rank_pattern", serde_json::json!({"q_proj": 2})),
        ("alpha_pattern", serde_json::json!({"q_proj": 2})),
        ("modules_to_save", serde_json::json!(["lm_head"])),
        ("lora_alpha", "much".into()),
        ("r", 0.into()),
        ("r", 5.into()),
        ("init_lora_weights", "pissa".into()),
        ("something_new", 1.into()),
    ] {
        let message = read(key, value).err().unwrap_or_else(|| panic!("{key} was passed over")).to_string();
        let named = message.contains(key) || (key == "r" && message.contains("r "));
        assert!(named && !message.contains('\n'), "{key}: {message}");
    }
}

#[test]
fn adapters_of_another_model_are_refused_by_name_and_shape() {
    let device = Device::open("cpu", 1).unwrap();
    let config = |name: &str| Archive::open(&folder(name)).unwrap().config;
    let refused =
        |name: &str, base: &str| load_adapter(&device, &adapter(name), &config(base)).err().unwrap().to_string();
    let message = refused("llama", "tiny-qwen3");
    assert!(message.contains("q_proj is [") && message.contains("another model"), "{message}");
    let message = refused("v3", "tiny-llama");
    assert!(message.contains("o_proj is [") && message.contains("another model"), "{message}");
    let llama = config("tiny-llama");
    let (_, lora) = load_adapter(&device, &adapter("llama"), &llama).unwrap();
    for (module, reason) in [
        ("model.layers.9.self_attn.q_proj", "no linear layer model.layers.9.self_attn.q_proj"),
        ("model.embed_tokens", "no linear layer model.embed_tokens"),
        (&*lora.layers[1].module.clone(), "no linear layer"),
    ] {
        let mut other = lora.clone();
        other.layers[0].module = module.into();
        let message = other.check(&llama).unwrap_err().to_string();
        assert!(message.contains(reason) || message.contains(module), "{module}: {message}");
    }
    // Routed experts take none.
    let message = refused("llama", "tiny-v3");
    assert!(message.contains("another model"), "{message}");
    let mut model = attached(&device, &folder("tiny-llama"), "llama");
    let again: Lora = model.adapter().unwrap();
    assert!(model.attach(&again).unwrap_err().to_string().contains("already"));
    let target = tempfile::tempdir().unwrap();
    let message = minke_weights::save(&model, target.path(), Format::F32, 1 << 30).unwrap_err().to_string();
    assert!(message.contains("adapter"), "{message}");
}
