//! An adapter from its training to its use: a run that starts from a published model, its adapter unmerged and merged, and one
//! that belongs elsewhere.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::minke;

const CONVERSATION: &str =
    r#"{"messages":[{"role":"user","content":"make 24 from 3 8 1"},{"role":"assistant","content":"8*3+1"}]}"#;

fn run_toml(folder: &Path, from: &str) -> String {
    let data = folder.join("data.jsonl");
    std::fs::write(&data, format!("{CONVERSATION}\n").repeat(4)).unwrap();
    format!(
        "name = \"fine\"\n[[stage]]\nkind = \"sft\"\nname = \"sft\"\nfrom = \"{from}\"\nepochs = 30\n\
         data = [{{ kind = \"file\", path = \"{}\" }}]\nlearning_rate = {{ adamw = 1e-2 }}\n\
         lora = {{ rank = 8, alpha = 16, target_modules = [\"q_b_proj\", \"kv_b_proj\", \"o_proj\"] }}\n\
         training = {{ batch_tokens = 200 }}\n",
        data.display()
    )
}

#[test]
fn what_an_adapter_learned_is_said_unmerged_and_merged() {
    let folder = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/first-light");
    let (base, toml, out) = (model.to_str().unwrap(), folder.path().join("fine.toml"), folder.path().join("out"));
    std::fs::write(&toml, run_toml(folder.path(), base)).unwrap();
    let (toml, out) = (toml.to_str().unwrap(), out.to_str().unwrap());
    let trained = minke(folder.path(), &["train", toml, "--out", out]);
    assert_eq!(trained.code, 0, "{}", trained.err);
    assert!(
        trained.err.contains("stage sft: ") && trained.err.contains(" parameters are trained, "),
        "{}",
        trained.err
    );
    let adapter = format!("{out}/stages/sft/adapter");

    let asked = |arguments: &[&str]| {
        let question = ["--temperature", "0", "--max-tokens", "300", "make 24 from 3 8 1"];
        let said = minke(folder.path(), &[&["run"], arguments, &question].concat());
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
        said.out
    };
    assert!(!asked(&[base]).contains("8*3+1"));
    // The folder of the run, of its stage, of the adapter; the base with it; both in one.
    let stage = format!("{out}/stages/sft");
    for arguments in [&[out][..], &[&stage], &[&adapter], &[base, "--adapter", &adapter]] {
        assert!(asked(arguments).contains("8*3+1"), "{arguments:?}");
    }
    let merged = folder.path().join("merged");
    let merged = merged.to_str().unwrap();
    let converted = minke(folder.path(), &["convert", &adapter, merged]);
    assert_eq!(converted.code, 0, "{}", converted.err);
    assert!(asked(&[merged]).contains("8*3+1"));
    let file = folder.path().join("merged.gguf");
    let converted = minke(folder.path(), &["convert", base, file.to_str().unwrap(), "--adapter", &adapter]);
    assert_eq!(converted.code, 0, "{}", converted.err);
    assert!(asked(&[file.to_str().unwrap()]).contains("8*3+1"));

    // An evaluation asks the model with its adapter: 8*3+1 is 25.
    let line = |id: &str| serde_json::json!({ "id": id, "messages": [{ "role": "user", "content": "make 24 from 3 8 1" }], "answer": 25 });
    std::fs::write(folder.path().join("sums.jsonl"), format!("{}\n{}\n", line("a"), line("b"))).unwrap();
    let score = |arguments: &[&str], to: &str| {
        let set = ["--task", "sums.jsonl", "--json", "--out", to];
        minke(folder.path(), &[&["eval"], arguments, &set].concat()).json()[0][0]["report"]["pass_at_1"]["mean"].clone()
    };
    assert_eq!(score(&[base], "alone"), 0.0);
    assert_eq!(score(&[base, "--adapter", &adapter], "beside"), 1.0);
    assert_eq!(score(&[&adapter], "both"), 1.0);

    let refused = |arguments: &[&str], expected: &str| {
        let said = minke(folder.path(), arguments);
        assert!(said.code != 0 && said.err.contains(expected), "{arguments:?}: {}", said.err);
        assert_eq!(said.err.trim_end().lines().count(), 1, "{}", said.err);
    };
    refused(&["run", &adapter, "--adapter", &adapter, "a b"], "is an adapter already");
    refused(&["run", base, "--adapter", base, "a b"], "has no adapter_config.json");
    refused(&["convert", file.to_str().unwrap(), "direct", "--adapter", &adapter], "the file has it in parts");
    // Another model than the one that has answered there.
    refused(&["eval", base, "--task", "sums.jsonl", "--out", "beside"], "model_sha256 is");
    refused(&["eval", "--answers", "x", "--task", "sums.jsonl", "--adapter", &adapter], "stands beside a model");
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/lora/llama");
    refused(&["run", base, "--adapter", other.to_str().unwrap(), "a b"], "another model");
    refused(&["run", other.to_str().unwrap(), "a b"], "its base is not here");

    std::fs::write(folder.path().join("no.toml"), run_toml(folder.path(), "no-such-model")).unwrap();
    refused(&["train", "no.toml"], "from = \"no-such-model\" is no earlier stage");
}
