//! The examples do what they say.
#![allow(dead_code)]

use std::path::Path;
use std::process::Command;

/// What an example prints; `cargo test -p minke` builds it beside this test, `--test examples_run` alone does not.
fn run(example: &str, arguments: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let test = std::env::current_exe().expect("the path of this test");
    let folder = test.parent().and_then(Path::parent).expect("target/PROFILE/deps").join("examples");
    let out = Command::new(folder.join(example)).args(arguments).current_dir(root).output().expect("it was built");
    assert!(out.status.success(), "{example}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text")
}

#[test]
fn a_question_is_answered() {
    let said = run("generate", &["models/first-light", "make 24 from 3 8 1"]);
    assert!(said.contains("tokens in"), "{said}");
}

#[test]
fn a_model_is_graded() {
    let said = run("grade", &["models/first-light", "20"]);
    let score: f64 = said.split_whitespace().nth(1).and_then(|score| score.parse().ok()).expect("a score");
    assert!((40.0..=100.0).contains(&score), "{said}");
}

#[test]
fn own_questions_are_graded() {
    let said = run("own_task", &["models/first-light"]);
    assert!(said.lines().count() == 9 && said.contains("pass@1"), "{said}");
}

#[test]
fn a_tiny_model_is_trained() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let said = run("train_tiny", &[folder.path().to_str().expect("a name in UTF-8")]);
    assert!(said.contains("base 120/120") && said.contains("zero is finished"), "{said}");
    assert!(folder.path().join("stages/zero/model/model.safetensors").is_file());
}
