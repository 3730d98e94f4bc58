//! `minke pack`: the copy is used, only while it is of the model as it is, and nothing but time depends on it.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Done, command};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

fn minke(folder: &Path, args: &[&str]) -> Done {
    Done::of(command(folder, args).env("XDG_CACHE_HOME", folder.join("cache")).output().unwrap())
}

/// A model of codes, made in the folder.
fn model(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/first-light");
    let done = minke(folder, &["quantize", source.to_str().unwrap(), "m.gguf", "--to", "Q8_0"]);
    assert_eq!(done.code, 0, "{done:?}");
    folder.join("m.gguf")
}

fn copies(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder.join("cache/minke/packed")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_copy_is_used_while_it_is_of_the_model() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let path = model(folder);
    // The thought and the answer, which may be none, and what is said about the copy.
    let answer = || -> (String, String) {
        let question = "make 24 from 3 8 1";
        let done = minke(folder, &["run", "m.gguf", "--temperature", "0", "--max-tokens", "400", "--json", question]);
        let json: serde_json::Value = serde_json::from_str(&done.out).unwrap();
        let notes = done.err.lines().filter(|line| line.contains("packed")).collect();
        (json["reasoning"].to_string() + &json["answer"].to_string(), notes)
    };
    let (plain, said) = answer();
    assert!(plain.len() > 40 && said.is_empty(), "{plain} {said}");

    let done = minke(folder, &["pack", "m.gguf", "--json"]);
    let copy = PathBuf::from(done.json()[0]["path"].as_str().unwrap());
    assert_eq!(copies(folder), std::slice::from_ref(&copy));
    assert!(done.json()[0]["bytes"].as_u64().unwrap() > 100_000, "{done:?}");
    assert_eq!(answer(), (plain.clone(), String::new()));

    // It is used: other bytes, another answer.
    let whole = std::fs::read(&copy).unwrap();
    let mut file = OpenOptions::new().write(true).open(&copy).unwrap();
    file.seek(SeekFrom::Start(whole.len() as u64 / 2)).unwrap();
    file.write_all(&vec![0; whole.len() / 2]).unwrap();
    drop(file);
    assert_ne!(answer().0, plain);

    // It is damaged, which is seen.
    std::fs::write(&copy, &whole[..whole.len() - 1]).unwrap();
    let (text, said) = answer();
    assert!(text == plain && said.contains("packed copy not used"), "{text} {said}");

    // The model has changed since.
    std::fs::write(&copy, &whole).unwrap();
    assert_eq!(answer(), (plain.clone(), String::new()));
    File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let (text, said) = answer();
    assert!(text == plain && said.contains("has changed since; minke pack makes it anew"), "{text} {said}");
    assert_eq!(minke(folder, &["pack", "m.gguf"]).code, 0);
    assert_eq!((copies(folder).len(), answer()), (1, (plain.clone(), String::new())));

    let done = minke(folder, &["pack", "m.gguf", "--remove"]);
    assert!(done.code == 0 && done.out.contains("removed"), "{done:?}");
    assert_eq!((copies(folder).len(), answer()), (0, (plain, String::new())));
    let done = minke(folder, &["pack", "m.gguf", "--remove"]);
    assert!(done.code == 4 && done.err.contains("has no packed copy"), "{done:?}");
}
