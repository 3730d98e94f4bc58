//! `minke convert`, `quantize` and `imatrix`: between folders and GGUF every bit stays; what cannot be read or is
//! interrupted leaves nothing.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Done, command, minke, scripted, testdata, thinker};
use minke_tensor::Device;
use minke_text::{ASSISTANT, BOS, EOS, PAD, THINK_CLOSE, THINK_OPEN};
use minke_weights::{Archive, Importance, WeightFile, load_dense};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn ok(folder: &Path, args: &[&str]) -> Done {
    let done = minke(folder, args);
    assert_eq!(done.code, 0, "{args:?}: {done:?}");
    done
}

/// The tensors of a model: format, shape and bytes by name.
fn tensors(path: &Path) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let archive = Archive::open(path).unwrap();
    let files: &Vec<WeightFile> = &archive.files;
    let bytes = |file: usize, range: std::ops::Range<usize>| files[file].bytes[range].to_vec();
    let entries = archive.tensors.iter();
    entries
        .map(|(name, e)| (name.clone(), (e.dtype.clone(), e.shape.clone(), bytes(e.file, e.range.clone()))))
        .collect()
}

fn formats(path: &Path) -> BTreeMap<String, String> {
    tensors(path).into_iter().map(|(name, (format, _, _))| (name, format)).collect()
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn folders_go_to_gguf_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for name in
        ["tiny-v3", "tiny-v3-direct-q", "tiny-qwen2", "tiny-qwen3", "tiny-qwen3-yarn", "tiny-llama", "tiny-llama-bias"]
    {
        for format in ["f32", "bf16", "f16"] {
            let [source, gguf, back] = ["folder", "gguf", "back"].map(|kind| format!("{name}-{format}-{kind}"));
            let gguf = format!("{gguf}.gguf");
            ok(at, &["convert", text(&testdata(name)), &source, "--format", format]);
            ok(at, &["convert", &source, &gguf]);
            ok(at, &["convert", &gguf, &back]);
            let (before, after) = (Archive::open(&at.join(&source)).unwrap(), Archive::open(&at.join(&back)).unwrap());
            assert_eq!(before.config.rope, after.config.rope, "{name}");
            assert!(tensors(&at.join(&source)) == tensors(&at.join(&back)), "{name} {format}");
        }
    }
}

#[test]
fn gguf_is_what_the_gguf_package_writes() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for (name, theirs) in [
        ("tiny-v3", "tiny-v3-halves.gguf"),
        ("tiny-v3-direct-q", "tiny-v3-direct-q.gguf"),
        ("tiny-qwen2", "tiny-qwen2.gguf"),
        ("tiny-qwen3-yarn", "tiny-qwen3-yarn.gguf"),
        ("tiny-llama", "tiny-llama.gguf"),
        ("tiny-llama-bias", "tiny-llama-bias.gguf"),
    ] {
        let ours = format!("{name}.gguf");
        ok(at, &["convert", text(&testdata(name)), &ours]);
        let theirs = testdata("gguf").join(theirs);
        let (mut a, mut b) = (tensors(&at.join(&ours)), tensors(&theirs));
        // Divisors are quotients of rounded frequencies.
        for divisors in [&mut a, &mut b] {
            if let Some((_, _, bytes)) = divisors.get_mut("rope_freqs.weight") {
                bytes.as_chunks_mut().0.iter_mut().for_each(|value: &mut [u8; 4]| {
                    *value = ((f32::from_le_bytes(*value) * 1e5).round()).to_le_bytes();
                });
            }
        }
        assert!(a == b, "{name}");
        let configs = [at.join(&ours), theirs].map(|path| Archive::open(&path).unwrap().config);
        let [mut ours, theirs] = configs;
        // These files of the package name no token.
        (ours.bos_token_id, ours.pad_token_id) = (theirs.bos_token_id, theirs.pad_token_id);
        ours.eos_token_ids = theirs.eos_token_ids.clone();
        ours.rope.scaling = theirs.rope.scaling.clone();
        assert_eq!(ours, theirs, "{name}");
    }
}

#[test]
fn fp8_becomes_the_nearest_bf16() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let source = testdata("tiny-v3-fp8");
    ok(at, &["convert", text(&source), "wide"]);
    let wide = at.join("wide");
    assert!(!fs::read_to_string(wide.join("config.json")).unwrap().contains("quantization_config"));
    assert!(formats(&wide).values().all(|format| format == "BF16" || format == "F32"));
    let device = Device::open("cpu", 1).unwrap();
    let [fp8, bf16] = [&source, &wide].map(|path| load_dense(&device, path).unwrap());
    for (fp8, bf16) in fp8.params().into_iter().zip(bf16.params()) {
        for (x, y) in fp8.value().read().into_iter().zip(bf16.value().read()) {
            assert!((x - y).abs() <= x.abs() / 256.0, "{}: {x} became {y}", fp8.name());
        }
    }
}

#[test]
fn text_and_advice_go_along() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    thinker(at);
    fs::write(at.join("thinker/generation_config.json"), r#"{"temperature": 0.5, "top_k": 7, "do_sample": true}"#)
        .unwrap();
    ok(at, &["convert", "thinker", "a.gguf"]);
    ok(at, &["convert", "a.gguf", "back"]);
    let answers = ["thinker", "a.gguf", "back"].map(|model| ok(at, &["run", model, "q", "--temperature", "0"]).out);
    assert!(answers[0].ends_with("8*3\n"), "{answers:?}");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let said: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(at.join("back/generation_config.json")).unwrap()).unwrap();
    assert_eq!((said["temperature"].as_f64(), said["top_k"].as_u64()), (Some(0.5), Some(7)));
    assert_eq!(ok(at, &["debug", "render", "back", "q"]).out, ok(at, &["debug", "render", "thinker", "q"]).out);
}

/// What llama.cpp, or a `config.json`, has no place for.
#[test]
fn what_the_target_cannot_say_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let files = |name: &str| testdata("hyperparameters").join(name);
    let refused = |source: &Path, target: &str, what: &str| {
        for args in [vec!["convert"], vec!["quantize", "--to", "q8_0"]] {
            if args[0] == "quantize" && !target.ends_with(".gguf") {
                continue;
            }
            let done = minke(at, &[&args[..], &[text(source), target]].concat());
            assert_eq!(done.code, 4, "{done:?}");
            assert!(done.err.contains(what) && done.err.contains("nothing was written"), "{done:?}");
            assert!(is_empty(at));
        }
    };
    refused(&testdata("tiny-qwen3-bias"), "a.gguf", "a bias of o_proj in Qwen3");
    // In config.json, one key says all biases of attention.
    refused(&files("qkv-bias.gguf"), "a", "attention (heads, widths or biases)");
    refused(&files("output-bias.gguf"), "a", "attention (heads, widths or biases)");
    let with = |name: &str, key: &str, value: serde_json::Value| {
        let copy = tempfile::tempdir().unwrap();
        fs::copy(testdata(name).join("model.safetensors"), copy.path().join("model.safetensors")).unwrap();
        let mut config: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(testdata(name).join("config.json")).unwrap()).unwrap();
        *config.pointer_mut(key).unwrap() = value;
        fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
        copy
    };
    // One number stands for both there, and divides what `attention_factor` multiplies.
    let mscale = with("tiny-v3", "/rope_parameters/mscale", serde_json::json!(0.5));
    refused(mscale.path(), "a.gguf", "its rope_scaling");
    let llama3 = serde_json::json!({ "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64 });
    refused(with("tiny-qwen2", "/rope_parameters", llama3).path(), "a.gguf", "llama3 scaling outside of Llama");
    let halves = with("tiny-v3", "/rope_interleave", false.into());
    refused(halves.path(), "a.gguf", "a rotation of halves in a DeepSeek model");
}

#[test]
fn every_end_of_a_turn_goes_along() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let path = scripted(at, "padded", &[&[ASSISTANT, THINK_OPEN, "a", THINK_CLOSE, "8", PAD, "b", "c", "b"]]);
    let config = fs::read_to_string(path.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    // Where the files say that the padding token, id 2, ends a turn.
    let listed = serde_json::json!([1, 2]);
    for (name, in_config, advice, eos_token) in [
        ("nowhere", serde_json::json!(1), None, EOS),
        ("config.json", listed.clone(), None, EOS),
        ("generation_config.json", serde_json::json!(1), Some(serde_json::json!({ "eos_token_id": listed })), EOS),
        ("one of generation_config.json", serde_json::json!(1), Some(serde_json::json!({ "eos_token_id": 2.0 })), EOS),
        ("tokenizer_config.json", serde_json::json!(1), Some(serde_json::json!({ "eos_token_id": null })), PAD),
        ("tokenizer_config.json alone", serde_json::json!(null), Some(serde_json::json!({ "eos_token_id": -1 })), PAD),
    ] {
        config["eos_token_id"] = in_config;
        fs::write(path.join("config.json"), config.to_string()).unwrap();
        let _ = fs::remove_file(path.join("generation_config.json"));
        if let Some(advice) = advice {
            fs::write(path.join("generation_config.json"), advice.to_string()).unwrap();
        }
        let tokens = serde_json::json!({ "eos_token": eos_token, "bos_token": BOS, "add_bos_token": true });
        fs::write(path.join("tokenizer_config.json"), tokens.to_string()).unwrap();
        for target in ["a.gguf", "q.gguf", "back"] {
            let _ = (fs::remove_file(at.join(target)), fs::remove_dir_all(at.join(target)));
        }
        ok(at, &["convert", "padded", "a.gguf"]);
        ok(at, &["quantize", "padded", "q.gguf", "--to", "q8_0"]);
        ok(at, &["convert", "a.gguf", "back"]);
        for model in ["padded", "a.gguf", "q.gguf", "back"] {
            let answer = ok(at, &["run", model, "q", "--temperature", "0", "--max-tokens", "9"]).out;
            let ended = answer.ends_with("\n8\n");
            assert_eq!(ended, name != "nowhere", "{name}, {model}: {answer:?}");
        }
    }
}

/// Writes a model of Llama's architecture with zeros for weights, sparse on the disk.
fn hollow(folder: &Path, vocabulary: usize, width: usize) {
    fs::create_dir(folder).unwrap();
    let config = serde_json::json!({
        "model_type": "llama", "vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 1, "intermediate_size": 512, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 128, "tie_word_embeddings": false, "rope_theta": 10000.0,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let parsed = minke_spec::ModelConfig::from_json(&config.to_string()).unwrap().config;
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for spec in minke_spec::parameters(&parsed) {
        let start = end;
        end += 4 * spec.elements();
        let info = serde_json::json!({ "dtype": "F32", "shape": spec.shape, "data_offsets": [start, end] });
        header.insert(spec.name, info);
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = fs::File::create(folder.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}

#[test]
fn recipes_overrides_and_what_falls_back() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    hollow(&at.join("model"), 512, 256);
    let value = |name: &str, args: &[&str]| {
        let done = ok(at, &[&["quantize", "model", name, "--json"], args].concat());
        (formats(&at.join(name)), done.json().remove(0))
    };
    let (found, summary) =
        value("m.gguf", &["--to", "q4_k_m", "--tensor", "*ffn_up*=q8_0", "--tensor", "blk.1.ffn_up.weight=f16"]);
    for (name, format) in [
        ("token_embd.weight", "Q4_K"),
        ("output.weight", "Q6_K"),
        ("output_norm.weight", "F32"),
        ("blk.0.attn_q.weight", "Q4_K"),
        ("blk.2.attn_v.weight", "Q6_K"),
        ("blk.0.ffn_down.weight", "Q4_K"),
        ("blk.3.ffn_down.weight", "Q6_K"),
        ("blk.0.ffn_up.weight", "Q8_0"),
        ("blk.1.ffn_up.weight", "F16"),
    ] {
        assert_eq!(found[name], format, "{name}");
    }
    assert_eq!(
        summary["bytes_after"].as_u64(),
        Some(summary["formats"].as_object().unwrap().values().map(|b| b.as_u64().unwrap()).sum())
    );
    let bits = summary["bits_per_weight"].as_f64().unwrap();
    assert!((4.5..8.0).contains(&bits), "{bits}");

    // Rows of 96 are three blocks of 32; rows of 60 are none.
    hollow(&at.join("ragged"), 512, 96);
    let done = ok(at, &["quantize", "ragged", "r.gguf", "--to", "q2_k"]);
    assert!(done.err.contains("are Q4_0 instead of Q2_K: their rows are no multiples of 256"), "{done:?}");
    assert_eq!(formats(&at.join("r.gguf"))["token_embd.weight"], "Q4_0");
    let done = ok(at, &["quantize", text(&testdata("tiny-llama")), "t.gguf", "--to", "q4_k_s"]);
    assert!(done.err.contains("are F16 instead of Q4_K"), "{done:?}");

    // Experts get the fewest bits, what every token meets the most.
    ok(
        at,
        &[
            "quantize",
            text(&testdata("gguf/tiny-v3-halves.gguf")),
            "e.gguf",
            "--to",
            "experts_low",
            "--tensor",
            "*_exps.weight=q4_0",
        ],
    );
    let device = Device::open("cpu", 1).unwrap();
    Archive::open(&at.join("e.gguf")).unwrap().load(&device).unwrap();
}

#[test]
fn importance_is_collected_written_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    thinker(at);
    fs::write(at.join("text"), "ab83*".repeat(40)).unwrap();
    let done = ok(at, &["imatrix", "thinker", "text", "--out", "m.gguf", "--chunk", "64", "--json"]);
    let summary = &done.json()[0];
    assert_eq!((summary["tokens"].as_u64(), summary["weights"].as_u64()), (Some(200), Some(8)), "{summary}");
    let importance = Importance::open(&at.join("m.gguf")).unwrap();
    // The blocks add nothing: the head sees normalized one-hot vectors of the tokens of the text, in equal shares.
    let head = importance.of("output.weight", 0, 264);
    let seen: Vec<f32> = head.iter().copied().filter(|&square| square > 0.0).collect();
    assert_eq!(seen.len(), 6, "five letters and the token that begins");
    assert!((seen.iter().sum::<f32>() - 264.0).abs() < 0.5, "{seen:?}");
    hollow(&at.join("other"), 512, 256);
    let done = minke(at, &["quantize", "other", "q.gguf", "--to", "q8_0", "--imatrix", "m.gguf"]);
    assert!(done.code == 4 && done.err.contains("it belongs to another model"), "{done:?}");

    let model = testdata("../models/first-light");
    fs::write(at.join("text"), "make 24 from 3 8 1\n".repeat(20)).unwrap();
    ok(at, &["imatrix", text(&model), "text", "--out", "light.gguf"]);
    let quantize = ["quantize", text(&model), "a.gguf", "--to", "q4_0"];
    let done = ok(at, &[&quantize[..], &["--imatrix", "light.gguf"]].concat());
    // An embedding has no input, and the rows of the keys' half lie transposed.
    assert!(done.err.contains("says nothing about"), "{done:?}");
    let with = tensors(&at.join("a.gguf"));
    ok(at, &["quantize", text(&model), "b.gguf", "--to", "q4_0"]);
    let without = tensors(&at.join("b.gguf"));
    let changed = |name: &str| with[name] != without[name];
    assert!(changed("blk.0.ffn_up.weight") && changed("blk.2.ffn_up_exps.weight") && !changed("token_embd.weight"));
}

#[test]
fn what_is_broken_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (at, out) = (folder.path(), folder.path().join("out"));
    fs::create_dir(&out).unwrap();
    let gguf = fs::read(testdata("gguf/tiny-v3.gguf")).unwrap();
    let weights = fs::read(testdata("tiny-qwen2/model.safetensors")).unwrap();
    let damaged = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = at.join(name);
        if name.ends_with(".gguf") {
            fs::write(&path, bytes).unwrap();
        } else {
            fs::create_dir(&path).unwrap();
            fs::copy(testdata("tiny-qwen2/config.json"), path.join("config.json")).unwrap();
            fs::write(path.join("model.safetensors"), bytes).unwrap();
        }
        path
    };
    let mut renamed = gguf.clone();
    let place = renamed.windows(11).position(|window| window == b"output_norm").unwrap();
    renamed[place] = b'x';
    let sources = [
        damaged("cut.gguf", &gguf[..gguf.len() / 2]),
        damaged("head.gguf", &gguf[..200]),
        damaged("renamed.gguf", &renamed),
        damaged("cut", &weights[..weights.len() - 1]),
        damaged("empty", b""),
        damaged("page", b"<!doctype html>"),
        at.join("nothing"),
    ];
    for source in &sources {
        for args in [
            &["convert", text(source), "out/x"][..],
            &["quantize", text(source), "out/x.gguf", "--to", "q4_0"],
            &["imatrix", text(source), "nothing.txt", "--out", "out/x.gguf"],
        ] {
            let done = minke(at, args);
            assert_eq!((done.code, done.err.lines().count(), done.out.as_str()), (4, 1, ""), "{args:?}: {done:?}");
            assert!(is_empty(&out), "{args:?}");
        }
    }
    // Infinity has no code.
    hollow(&at.join("infinite"), 512, 256);
    let path = at.join("infinite/model.safetensors");
    let mut file = fs::File::options().write(true).open(&path).unwrap();
    file.seek(std::io::SeekFrom::End(-4)).unwrap();
    file.write_all(&f32::INFINITY.to_le_bytes()).unwrap();
    let done = minke(at, &["quantize", "infinite", "out/x.gguf", "--to", "q8_0"]);
    assert!(done.code == 4 && done.err.contains("not finite"), "{done:?}");
    let good = testdata("tiny-qwen2");
    for (args, part) in [
        (&["quantize", text(&good), "out/x", "--to", "q4_0"][..], "give a target that ends in .gguf"),
        (&["quantize", text(&good), "out/x.gguf", "--to", "q4_9"], "[possible values: q8_0, "),
        (&["quantize", text(&good), "out/x.gguf", "--to", "q4_0", "--tensor", "a"], "write NAME=FORMAT"),
        (&["quantize", text(&good), "out/x.gguf", "--to", "q4_0", "--tensor", "a=q4_0"], "a names no weight"),
        (&["quantize", text(&good), "out/x.gguf", "--to", "q4_0", "--tensor", "*=f8_e4m3"], "no such weights can be"),
        (&["convert", text(&good), "cut"], "cut: is there already"),
        (&["convert", "head.gguf", "out/y.gguf"], ""),
    ] {
        let done = minke(at, args);
        assert!([2, 4].contains(&done.code) && done.err.contains(part), "{args:?}: {done:?}");
    }
    assert!(is_empty(&out));
}

/// Starts to quantize a large model, waits until a part is written, and ends it by a signal.
fn interrupted(at: &Path, signal: &str) -> Option<i32> {
    let args = ["quantize", "model", "out/m.gguf", "--to", "q4_k_m", "--threads", "1"];
    let temporary = at.join("out/.m.gguf.tmp");
    let before = fs::metadata(&temporary).ok().and_then(|file| file.modified().ok());
    let mut child = command(at, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    let written = || fs::metadata(&temporary).ok().filter(|file| file.len() > 0).and_then(|file| file.modified().ok());
    while written().is_none_or(|written| Some(written) == before) {
        let waited = begun.elapsed() < Duration::from_secs(60);
        assert!(waited && child.try_wait().unwrap().is_none(), "nothing was written");
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    child.wait().unwrap().code()
}

#[test]
fn an_interrupted_conversion_leaves_no_target() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    hollow(&at.join("model"), 1 << 16, 256);
    fs::create_dir(at.join("out")).unwrap();
    assert_eq!(interrupted(at, "-KILL"), None);
    assert!(!at.join("out/m.gguf").exists());
    assert_eq!(interrupted(at, "-INT"), Some(6));
    assert!(is_empty(&at.join("out")), "what the killed one left is overwritten and removed");
    let args = ["quantize", "model", "out/m.gguf", "--to", "q4_k_m"];
    ok(at, &args);
    let names: Vec<_> = fs::read_dir(at.join("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["m.gguf"]);
    Archive::open(&at.join("out/m.gguf")).unwrap().check_weights().unwrap();
}
