//! `minke show`, from headers alone, against numbers of the papers and of the files in testdata.
#![allow(clippy::unwrap_used)]

mod common;

use common::{minke, r1_without_its_bytes, testdata, thinker};
use std::path::Path;
use std::time::{Duration, Instant};

fn show(folder: &Path) -> serde_json::Value {
    minke(folder, &["show", ".", "--json"]).json().remove(0)
}

#[test]
fn r1_has_the_published_numbers() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(testdata("configs/deepseek-r1.config.json"), folder.path().join("config.json")).unwrap();
    let r1 = show(folder.path());
    let counts = std::fs::read_to_string(testdata("vectors/parameter_counts.json")).unwrap();
    let counts: serde_json::Value = serde_json::from_str(&counts).unwrap();
    let total = r1["parameters"]["total"].as_u64().unwrap();
    assert!(counts.to_string().contains(&total.to_string()), "{total} is not among the published counts");
    assert_eq!(total / 1_000_000_000, 671);
    // ISCA25, table 1: 70.272 KB per token.
    assert_eq!(r1["kv_bytes_per_token"]["latent"]["bf16"], 70_272);
    // 61 layers of 128 heads of 192 + 128 values in 2 bytes.
    assert_eq!(r1["kv_bytes_per_token"]["expanded"]["bf16"], 61 * 128 * (192 + 128) * 2);
    assert_eq!((&r1["experts"]["routed"], &r1["experts"]["per_token"]), (&256.into(), &8.into()));
    assert_eq!((&r1["experts"]["layers"], &r1["context_tokens"]), (&58.into(), &163_840.into()));
    let notes = r1["notes"].to_string();
    assert!(notes.contains("no weights") && notes.contains("tokenizer.json: is missing"), "{notes}");
}

#[test]
fn tiny_models_are_described() {
    for (name, model_type, layers, attention) in [
        ("tiny-v3", "deepseek_v3", 3, "MLA: 3 heads, latent of 22 + 12, queries rank 26"),
        ("tiny-v3-direct-q", "deepseek_v3", 2, "queries not compressed"),
        ("tiny-qwen2", "qwen2", 2, "GQA"),
        ("tiny-llama", "llama", 2, "GQA"),
    ] {
        let path = testdata(name);
        let shown = show(&path);
        assert_eq!(shown["model_type"], model_type);
        let config: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path.join("config.json")).unwrap()).unwrap();
        assert_eq!(shown["num_hidden_layers"], config["num_hidden_layers"], "{name} has about {layers} layers");
        assert!(shown["attention"].as_str().unwrap().contains(attention), "{name}: {shown}");
        let bytes = std::fs::metadata(path.join("model.safetensors")).unwrap().len();
        assert_eq!(shown["weights"]["bytes"], bytes);
        // All weights of the tiny models are F32, so parameters and bytes tell the same.
        let total = shown["parameters"]["total"].as_u64().unwrap() + shown["parameters"]["mtp"].as_u64().unwrap();
        assert_eq!(shown["weights"]["formats"]["F32"].as_u64().unwrap(), 4 * total, "{name}: {shown}");
    }
}

#[test]
fn the_text_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    thinker(folder.path());
    let done = minke(folder.path(), &["show", "thinker"]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    for part in [
        "architecture   llama, width 264",
        "vocabulary     263, tokenizer of 263",
        "chat template  DeepSeek, does not open a thought",
        "context        256 tokens, rope scaling none",
        // Keys and values of one head of 132.
        "528 bytes per token in BF16, 1,056 in F32",
    ] {
        assert!(done.out.contains(part), "{part:?} is missing in\n{}", done.out);
    }
    assert!(!done.out.contains("note"), "{}", done.out);
}

#[test]
fn all_of_r1_is_described_from_its_headers() {
    let folder = tempfile::tempdir().unwrap();
    r1_without_its_bytes(folder.path());
    let start = Instant::now();
    let shown = show(folder.path());
    // A machine that is busy takes longer than a quiet one, and 688 GB cannot be read in ten seconds.
    println!("{:.2} s", start.elapsed().as_secs_f64());
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(shown["parameters"]["total"].as_u64(), Some(671_026_419_200));
    let weights = &shown["weights"];
    assert_eq!((weights["files"].as_u64(), weights["tensors"].as_u64()), (Some(163), Some(91_991)));
    let bytes: u64 = weights["formats"].as_object().unwrap().values().map(|bytes| bytes.as_u64().unwrap()).sum();
    assert_eq!(bytes, 688_574_839_360);
    assert_eq!(shown["kv_bytes_per_token"]["latent"]["bf16"], 70_272);
    // Nothing is missing and nothing is strange but that a tokenizer has to be beside it.
    let notes = shown["notes"].as_array().unwrap();
    assert!(notes.len() == 1 && notes[0].as_str().unwrap().contains("tokenizer.json: is missing"), "{notes:?}");
}

#[test]
fn unknown_keys_and_strange_tensors_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let model = thinker(folder.path());
    let text = std::fs::read_to_string(model.join("config.json")).unwrap();
    std::fs::write(model.join("config.json"), text.replacen('{', "{\"sparkles\": 3,", 1)).unwrap();
    let shown = show(&model);
    assert_eq!(shown["unknown_config_keys"], serde_json::json!(["sparkles"]));
}
