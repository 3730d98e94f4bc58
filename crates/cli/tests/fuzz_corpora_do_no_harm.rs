//! The inputs that fuzzing found worth keeping do no harm. On stable Rust, without libFuzzer.
#![allow(clippy::unwrap_used)]

#[path = "../../../fuzz/harness.rs"]
mod harness;

fn corpus(target: &str, run: fn(&[u8])) {
    let folder = format!("{}/../../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        run(&std::fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "{target} has no corpus");
}

#[test]
fn gguf() {
    corpus("gguf", harness::gguf);
}

#[test]
fn safetensors() {
    corpus("safetensors", harness::safetensors);
}

#[test]
fn template() {
    corpus("template", harness::template);
}

#[test]
fn answer() {
    corpus("answer", harness::answer);
}

#[test]
fn request() {
    corpus("request", harness::request);
}

#[test]
fn dialects() {
    corpus("dialects", harness::dialects);
}
