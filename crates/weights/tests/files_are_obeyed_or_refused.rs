//! Everything in a file is obeyed, or refused by name: hyperparameters and tensors that few GGUF files have, against
//! llama.cpp (`testdata/make/hyperparameters.py`); checkpoints as training tools and transformers leave them, against
//! the same weights as published.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{Golden, folder, relative};
use half::{bf16, f16};
use minke_model::{Batch, Transformer};
use minke_tensor::{Device, Pass};
use minke_weights::Archive;
use serde_json::{Value, json};

fn cpu() -> Device {
    Device::open("cpu", 2).unwrap()
}

fn logits(device: &Device, model: &Transformer, ids: &[u32]) -> Vec<f32> {
    let pass = Pass::inference(device);
    let hidden = model.forward(pass, &Batch::packed(device, &[ids]), None, false).unwrap().hidden;
    model.logits(pass, &hidden).unwrap().read()
}

fn refusal(path: &Path) -> String {
    let opened = Archive::open(path).and_then(|archive| archive.check_weights());
    let error = opened.expect_err("must be refused").to_string();
    assert!(!error.contains('\n') && !error.contains("broken"), "{error}");
    error
}

/// The results of llama.cpp for files.
struct Answers {
    ids: Vec<u32>,
    /// By file, its most probable tokens with their log-probabilities.
    obeyed: BTreeMap<String, Vec<(usize, f64)>>,
    refused: Vec<String>,
}

impl Answers {
    fn open() -> Self {
        let text = fs::read_to_string(folder("hyperparameters/golden.json")).unwrap();
        let mut all: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
        let ids = serde_json::from_value(all.remove("ids").unwrap()).unwrap();
        let (refused, obeyed): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, top)| top.is_null());
        Self {
            ids,
            obeyed: obeyed.into_iter().map(|(name, top)| (name, serde_json::from_value(top).unwrap())).collect(),
            refused: refused.into_iter().map(|(name, _)| name).collect(),
        }
    }
}

#[test]
fn what_llama_cpp_obeys_is_obeyed() {
    let Answers { ids, obeyed, .. } = Answers::open();
    assert!(obeyed.len() >= 14);
    let device = cpu();
    for (name, top) in &obeyed {
        let archive = Archive::open(&folder(&format!("hyperparameters/{name}.gguf"))).unwrap();
        archive.check_weights().unwrap();
        assert_eq!(archive.notes, [""; 0], "{name}");
        let all = logits(&device, &archive.load(&device).unwrap(), &ids);
        let last: Vec<f64> = all[all.len() - archive.config.vocab_size..].iter().map(|&x| x.into()).collect();
        let sum: f64 = last.iter().map(|x| x.exp()).sum();
        for &(token, expected) in top {
            let actual = last[token] - sum.ln();
            // Its cache is F16, and the weights are random: what a key changes is more than ten times the bound.
            assert!((actual - expected).abs() < 2e-2, "{name}: token {token} has {actual}, not {expected}");
        }
    }
    // A test that the keys change anything at all.
    assert!(["linear", "yarn-by-context", "qkv-bias", "mlp-bias"].iter().all(|name| obeyed[*name] != obeyed["plain"]));
}

#[test]
fn tensors_that_llama_cpp_refuses_are_refused_by_name() {
    let Answers { refused, .. } = Answers::open();
    let tensors = [
        ("refused-head-bias", "output.bias"),
        ("refused-qwen2-output-bias", "blk.0.attn_output.bias"),
        ("refused-qwen3-output-bias", "blk.0.attn_output.bias"),
        ("refused-unknown", "blk.0.something.weight"),
    ];
    assert_eq!(refused, tensors.map(|(name, _)| name));
    let device = cpu();
    for (name, tensor) in tensors {
        let path = folder(&format!("hyperparameters/{name}.gguf"));
        // llama.cpp has no place for the bias, transformers has: here it is obeyed.
        if name == "refused-qwen3-output-bias" {
            Archive::open(&path).unwrap().check_weights().unwrap();
            continue;
        }
        let error = refusal(&path);
        assert!(error.contains(&format!("tensor {tensor}: has no place in")), "{name}: {error}");
        assert!(minke_weights::load(&device, &path).is_err() && minke_weights::load_dense(&device, &path).is_err());
    }
}

/// Writes a GGUF file in which a text stands in place of another of the same length.
fn replaced(name: &str, from: &str, to: &str) -> tempfile::TempPath {
    let mut bytes = fs::read(folder(name)).unwrap();
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    let path = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap().into_temp_path();
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn hyperparameters_that_are_not_known_are_refused_by_name() {
    for (from, to) in [
        ("llama.rope.freq_base", "llama.rope.freq_bass"),
        ("llama.rope.scaling.factor", "llama.rope.scaling.fuctor"),
        ("llama.attention.value_length", "llama.attention.value_tenght"),
        ("llama.rope.scale_linear", "llama.rope.scale_square"),
    ] {
        let file = if from.contains("scale_linear") { "scale-linear" } else { "linear" };
        let error = refusal(&replaced(&format!("hyperparameters/{file}.gguf"), from, to));
        assert!(error.contains(&format!("{to} is a hyperparameter that is not known")), "{error}");
    }
    let other = refusal(&replaced("hyperparameters/linear.gguf", "linear", "square"));
    assert!(other.contains("llama.rope.scaling.type is square; none, linear and yarn are supported"), "{other}");
    // A key of another namespace changes nothing of the model.
    let free = replaced("hyperparameters/linear.gguf", "tokenizer.ggml.pre", "somebodys.own.keys");
    Archive::open(&free).unwrap().check_weights().unwrap();
}

#[test]
fn texts_that_are_not_utf_8_matter_only_where_they_are_read() {
    let broken = |from: &str| {
        let path = replaced("hyperparameters/plain.gguf", from, from);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        bytes[at + from.len() - 1] = 0xff;
        fs::write(&path, bytes).unwrap();
        path
    };
    for harmless in ["qwen2", "<7>"] {
        Archive::open(&broken(harmless)).unwrap().check_weights().unwrap();
    }
    let read = Archive::open(&broken("qwen2")).unwrap().metadata.unwrap();
    assert_eq!(read.text("tokenizer.ggml.pre"), Err("tokenizer.ggml.pre is not UTF-8".into()));
    let tokens = Archive::open(&broken("<7>")).unwrap().metadata.unwrap();
    let error = minke_weights::texts(&tokens, "tokenizer.ggml.tokens").unwrap_err();
    assert_eq!(error, "tokenizer.ggml.tokens: text 7 is not UTF-8");
    assert!(refusal(&broken("llama")).contains("general.architecture is not UTF-8"));
}

#[test]
fn a_type_of_tensor_that_is_not_supported_is_named() {
    let sound = fs::read(folder("hyperparameters/plain.gguf")).unwrap();
    let name = b"output_norm.weight";
    let at = sound.windows(name.len()).position(|window| window == name).unwrap() + name.len();
    // One dimension and its length, then the type.
    let kind = at + 4 + 8;
    assert_eq!(sound[kind..kind + 4], [0; 4]);
    for (number, said) in [(34u32, "is TQ1_0"), (39, "is MXFP4"), (27, "is I64"), (99, "is type 99")] {
        let mut bytes = sound.clone();
        bytes[kind..kind + 4].copy_from_slice(&number.to_le_bytes());
        let path = tempfile::NamedTempFile::new().unwrap();
        fs::write(path.path(), bytes).unwrap();
        let error = refusal(path.path());
        assert!(error.contains(&format!("tensor output_norm.weight {said}, which is not supported")), "{error}");
    }
    for (dtype, elements) in [("F4", 4), ("I4", 4), ("F8_E8M0", 2)] {
        let add = |tensors: &mut Tensors| {
            tensors.insert("model.norm.weight_scale".into(), (dtype.into(), vec![elements], vec![0; 2]));
        };
        let error = refusal(copy("tiny-qwen3", |_| {}, add).path());
        assert!(error.contains("tensor model.norm.weight_scale") && !error.contains("download"), "{dtype}: {error}");
    }
}

/// Tensors by name: format, shape and bytes.
type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let len = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    let tensor = |(name, info): (String, Value)| {
        let [start, end] = serde_json::from_value::<[usize; 2]>(info["data_offsets"].clone()).unwrap();
        let data = bytes[8 + len + start..8 + len + end].to_vec();
        let shape = serde_json::from_value(info["shape"].clone()).unwrap();
        (name, (info["dtype"].as_str().unwrap().to_owned(), shape, data))
    };
    header.into_iter().filter(|(name, _)| name != "__metadata__").map(tensor).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, (dtype, shape, bytes)) in tensors {
        let start = data.len();
        data.extend(bytes);
        header.insert(name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, data.len()] }));
    }
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()).unwrap();
}

/// Writes a test model with another configuration and other tensors.
fn copy(name: &str, config: impl Fn(&mut Value), tensors: impl Fn(&mut Tensors)) -> tempfile::TempDir {
    let target = tempfile::tempdir().unwrap();
    let mut value: Value =
        serde_json::from_str(&fs::read_to_string(folder(name).join("config.json")).unwrap()).unwrap();
    config(&mut value);
    fs::write(target.path().join("config.json"), value.to_string()).unwrap();
    let mut all = read(&folder(name).join("model.safetensors"));
    tensors(&mut all);
    write(&target.path().join("model.safetensors"), &all);
    target
}

/// Asserts that two models compute the same to the bit, and returns the notes of the second.
fn assert_same(name: &str, other: &Path) -> Vec<String> {
    let device = cpu();
    let ids: Vec<u32> = (0..40).map(|i| (i * 7 + 3) % 90).collect();
    let archive = Archive::open(other).unwrap();
    archive.check_weights().unwrap();
    let [ours, theirs] =
        [&folder(name), other].map(|path| logits(&device, &minke_weights::load(&device, path).unwrap(), &ids));
    assert!(ours == theirs, "{name}: other logits");
    archive.notes
}

#[test]
fn names_lose_what_training_tools_put_into_them() {
    for prefix in ["_orig_mod.", "module.", "base_model.model.", "module._orig_mod."] {
        let renamed = copy(
            "tiny-qwen3",
            |_| {},
            |tensors| {
                *tensors =
                    std::mem::take(tensors).into_iter().map(|(name, t)| (format!("{prefix}{name}"), t)).collect();
            },
        );
        let notes = assert_same("tiny-qwen3", renamed.path());
        assert!(notes.len() == 1 && notes[0].contains("lost what a training tool left"), "{notes:?}");
    }
    let twice = copy(
        "tiny-qwen3",
        |_| {},
        |tensors| {
            let norm = tensors["model.norm.weight"].clone();
            tensors.insert("module.model.norm.weight".into(), norm);
        },
    );
    let error = refusal(twice.path());
    assert!(error.contains("module.model.norm.weight, which stands for model.norm.weight, and so does"), "{error}");
    let adapter = copy(
        "tiny-qwen3",
        |_| {},
        |tensors| {
            let name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
            tensors.insert(name.into(), ("F32".into(), vec![1, 44], vec![0; 176]));
        },
    );
    let error = refusal(adapter.path());
    assert!(error.contains("model.layers.0.self_attn.q_proj.lora_A.weight: has no place in qwen3"), "{error}");
}

#[test]
fn v3_without_its_mtp_layer_is_the_same_model() {
    let config: Value = serde_json::from_str(&fs::read_to_string(folder("tiny-v3-mtp/config.json")).unwrap()).unwrap();
    let layer = format!("model.layers.{}.", config["num_hidden_layers"]);
    let strip = |tensors: &mut Tensors| tensors.retain(|name, _| !name.starts_with(&layer));
    let none = |config: &mut Value| {
        config["num_nextn_predict_layers"] = json!(0);
        config["num_mtp_layers"] = json!(null);
    };
    assert_eq!(assert_same("tiny-v3-mtp", &folder("tiny-v3-mtp")), [""; 0]);
    let notes = assert_same("tiny-v3-mtp", copy("tiny-v3-mtp", |_| {}, strip).path());
    assert!(notes.len() == 1 && notes[0].contains("multi-token prediction are not in the files"), "{notes:?}");
    assert_eq!(assert_same("tiny-v3-mtp", copy("tiny-v3-mtp", none, strip).path()), [""; 0]);
    let notes = assert_same("tiny-v3-mtp", copy("tiny-v3-mtp", none, |_| {}).path());
    assert!(notes.len() == 1 && notes[0].contains("which the configuration leaves out"), "{notes:?}");
    // A part of the layer is a broken file.
    let half = copy("tiny-v3-mtp", |_| {}, |tensors| tensors.retain(|name, _| name != &format!("{layer}enorm.weight")));
    assert!(refusal(half.path()).contains("enorm.weight: is missing"));
}

/// Rounds block scales to what a conversion to a format and back makes of them, and writes them as that format.
fn scales(dtype: &str, to: impl Fn(f32) -> (Vec<u8>, f32)) -> [tempfile::TempDir; 2] {
    let with = |stored: bool| {
        copy(
            "tiny-v3-fp8",
            |_| {},
            |tensors| {
                for (_, (format, _, bytes)) in tensors.iter_mut().filter(|(name, _)| name.ends_with("_scale_inv")) {
                    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect();
                    let rounded = values.into_iter().map(&to);
                    *bytes = rounded
                        .flat_map(|(bytes, value)| if stored { bytes } else { value.to_le_bytes().into() })
                        .collect();
                    *format = if stored { dtype } else { "F32" }.into();
                }
            },
        )
    };
    [with(false), with(true)]
}

#[test]
fn block_scales_may_be_bf16_and_f16() {
    let device = cpu();
    let golden = Golden::open("tiny-v3-fp8");
    let (ids, length) = (golden.ids("input_ids"), golden.shape("input_ids")[1]);
    let all = |path: &Path| {
        let model = minke_weights::load(&device, path).unwrap();
        ids.chunks(length).flat_map(|ids| logits(&device, &model, ids)).collect::<Vec<f32>>()
    };
    for [f32_scales, other] in [
        scales("BF16", |x| (bf16::from_f32(x).to_le_bytes().into(), bf16::from_f32(x).to_f32())),
        scales("F16", |x| (f16::from_f32(x).to_le_bytes().into(), f16::from_f32(x).to_f32())),
    ] {
        let [a, b] = [f32_scales.path(), other.path()].map(all);
        assert!(a == b);
        // Rounded scales are near the published ones, whose logits are those of transformers.
        assert!(relative(&a, &golden.floats("logits")) < 2e-2);
    }
    let doubled = copy(
        "tiny-v3-fp8",
        |_| {},
        |tensors| {
            for (_, (format, _, bytes)) in tensors.iter_mut().filter(|(name, _)| name.ends_with("_scale_inv")) {
                (*format, *bytes) = ("F64".into(), bytes.repeat(2));
            }
        },
    );
    assert!(minke_weights::load(&device, doubled.path()).err().unwrap().to_string().contains("is F64"));
}

#[test]
fn modules_that_were_not_converted_to_fp8_keep_their_format() {
    let device = cpu();
    let golden = Golden::open("tiny-v3-fp8");
    let (ids, length) = (golden.ids("input_ids"), golden.shape("input_ids")[1]);
    let dense = minke_weights::load_dense(&device, &folder("tiny-v3-fp8")).unwrap();
    let module = "model.layers.0.mlp.down_proj";
    let name = format!("{module}.weight");
    let values: Vec<u8> = {
        let params = dense.params();
        let param = params.iter().find(|param| param.name() == name).unwrap();
        param.value().read().into_iter().flat_map(f32::to_le_bytes).collect()
    };
    let list =
        |config: &mut Value| config["quantization_config"]["modules_to_not_convert"] = json!([module, "lm_head"]);
    let model = copy("tiny-v3-fp8", list, |tensors| {
        tensors.remove(&format!("{name}_scale_inv"));
        let (format, _, bytes) = tensors.get_mut(&name).unwrap();
        (*format, *bytes) = ("F32".into(), values.clone());
    });
    let loaded = minke_weights::load(&device, model.path()).unwrap();
    let all: Vec<f32> = ids.chunks(length).flat_map(|ids| logits(&device, &loaded, ids)).collect();
    assert!(relative(&all, &golden.floats("logits")) < 1e-4);
    let per_tensor =
        copy("tiny-v3-fp8", |config| config["quantization_config"]["weight_block_size"] = json!(null), |_| {});
    assert!(refusal(per_tensor.path()).contains("`quantization_config`"));
    let fixed =
        copy("tiny-v3-fp8", |config| config["quantization_config"]["activation_scheme"] = json!("static"), |_| {});
    assert!(refusal(fixed.path()).contains("activation_scheme"));
}

#[test]
fn one_file_comes_before_an_index_and_an_index_leads_into_folders() {
    let index = |folder: &Path, map: &BTreeMap<&str, &str>| {
        fs::write(folder.join("model.safetensors.index.json"), json!({ "weight_map": map }).to_string()).unwrap();
    };
    let stale = copy("tiny-qwen3", |_| {}, |_| {});
    index(stale.path(), &[("model.norm.weight", "model-00001-of-00002.safetensors")].into());
    let notes = assert_same("tiny-qwen3", stale.path());
    assert!(notes.len() == 1 && notes[0].contains("index.json is not read"), "{notes:?}");

    let nested = copy("tiny-qwen3", |_| {}, |_| {});
    let all = read(&nested.path().join("model.safetensors"));
    fs::remove_file(nested.path().join("model.safetensors")).unwrap();
    let (norm, rest): (Tensors, Tensors) = all.into_iter().partition(|(name, _)| name == "model.norm.weight");
    write(&nested.path().join("shards/a/1.safetensors"), &norm);
    write(&nested.path().join("shards/2.safetensors"), &rest);
    let map = [("model.norm.weight", "shards/a/1.safetensors"), ("lm_head.weight", "shards/2.safetensors")];
    index(nested.path(), &map.into());
    assert_eq!(assert_same("tiny-qwen3", nested.path()), [""; 0]);
    for outside in ["../shards/2.safetensors", "/etc/passwd", "shards/../../a", "shards/.hidden"] {
        index(nested.path(), &[("model.norm.weight", outside)].into());
        assert!(refusal(nested.path()).contains("which is not a file of this folder"), "{outside}");
    }
}

#[test]
fn a_tied_head_is_the_embedding_unless_the_file_has_another() {
    let head = |tensors: &mut Tensors| tensors["model.embed_tokens.weight"].clone();
    let both = copy(
        "tiny-qwen3",
        |_| {},
        |tensors| {
            let embedding = head(tensors);
            tensors.insert("lm_head.weight".into(), embedding);
        },
    );
    let notes = assert_same("tiny-qwen3", both.path());
    assert!(notes.len() == 1 && notes[0].contains("the head is the embedding"), "{notes:?}");
    let only_head = copy(
        "tiny-qwen3",
        |_| {},
        |tensors| {
            let embedding = tensors.remove("model.embed_tokens.weight").unwrap();
            tensors.insert("lm_head.weight".into(), embedding);
        },
    );
    assert_eq!(assert_same("tiny-qwen3", only_head.path()), [""; 0]);
    // Another head: the model is that of a file that does not tie.
    let other = |tie: bool| {
        copy(
            "tiny-qwen3",
            |config| config["tie_word_embeddings"] = json!(tie),
            |tensors| {
                let (format, shape, mut bytes) = head(tensors);
                bytes.rotate_left(4);
                tensors.insert("lm_head.weight".into(), (format, shape, bytes));
            },
        )
    };
    let (device, ids) = (cpu(), [5, 17, 33, 2]);
    let [tied, untied] = [other(true), other(false)]
        .map(|folder| logits(&device, &minke_weights::load(&device, folder.path()).unwrap(), &ids));
    assert!(tied == untied);
    let archive = Archive::open(other(true).path()).unwrap();
    assert!(archive.notes.len() == 1 && archive.notes[0].contains("is not the embedding"), "{:?}", archive.notes);
}

#[test]
fn what_changes_nothing_is_read_and_noted() {
    let rope = copy(
        "tiny-qwen3",
        |_| {},
        |tensors| {
            for layer in 0..2 {
                let name = format!("model.layers.{layer}.self_attn.rotary_emb.inv_freq");
                tensors.insert(name, ("F32".into(), vec![2], vec![0; 8]));
            }
        },
    );
    let notes = assert_same("tiny-qwen3", rope.path());
    assert!(notes.len() == 1 && notes[0].starts_with("2 tensors (model.layers.0.self_attn.rotary_emb"), "{notes:?}");
    let key = copy("tiny-qwen3", |config| config["sparkles"] = json!(3), |_| {});
    assert_eq!(
        assert_same("tiny-qwen3", key.path()),
        ["config.json has keys that are not known and not read: sparkles"]
    );
}
