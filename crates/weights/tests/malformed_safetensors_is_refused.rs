//! Broken or hostile safetensors files are refused in one line that names them: 22 ways to be wrong with 100 seeds
//! each, every truncation, and random mutants, which are refused or loaded as what they hold.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::folder;
use minke_spec::draw::{Domain, Stream, draw};
use minke_weights::Archive;
use serde_json::{Value, json};

/// A file, part by part, so that each can be wrong.
struct File {
    /// Of the header, instead of what it is.
    length: Option<u64>,
    header: Value,
    /// Instead of the header's JSON.
    text: Option<Vec<u8>>,
    data: usize,
}

impl File {
    fn sound() -> Self {
        let tensor = |dtype: &str, shape: [u64; 2], from: u64, to: u64| json!({"dtype": dtype, "shape": shape, "data_offsets": [from, to]});
        let header = json!({
            "__metadata__": {"format": "pt"},
            "a": tensor("F32", [4, 8], 0, 128), "b": tensor("BF16", [8, 3], 128, 176), "c": tensor("F32", [5, 5], 176, 276),
        });
        Self { length: None, header, text: None, data: 276 }
    }

    fn bytes(&self) -> Vec<u8> {
        let text = self.text.clone().unwrap_or_else(|| self.header.to_string().into_bytes());
        let length = self.length.unwrap_or(text.len() as u64);
        [&length.to_le_bytes()[..], &text, &vec![0; self.data]].concat()
    }

    fn replace(&mut self, from: &str, to: &str) {
        let text = self.header.to_string();
        assert!(text.contains(from), "{text} has no {from}");
        self.text = Some(text.replacen(from, to, 1).into_bytes());
    }
}

/// One of the three tensors.
fn any(random: &mut Stream) -> &'static str {
    ["a", "b", "c"][random.below(3) as usize]
}

type Class = (&'static str, fn(&mut File, &mut Stream));

const CLASSES: [Class; 22] = [
    ("header longer than the file", |f, r| f.length = Some(1000 + r.below(1 << 20))),
    ("header of more than 100 MB", |f, r| f.length = Some((100 << 20) + (1 << r.below(60)))),
    ("header of no bytes", |f, _| f.length = Some(0)),
    ("header cut", |f, r| f.length = Some(1 + r.below(100))),
    ("not UTF-8", |f, r| {
        f.text = Some([b"{\"\xff".to_vec(), vec![b'a'; r.below(9) as usize], b"\": 1}".to_vec()].concat())
    }),
    ("not JSON", |f, r| f.text = Some(vec![b'{'; 1 + r.below(99) as usize])),
    ("a list", |f, _| f.text = Some(b"[1, 2, 3]".into())),
    ("deep JSON", |f, r| f.text = Some([b"{\"a\":".to_vec(), vec![b'['; 1000 + r.below(99_000) as usize]].concat())),
    ("deep metadata", |f, r| f.header["__metadata__"] = json!({"a": [r.below(9)]})),
    ("trailing bytes", |f, r| f.data += 1 + r.below(99) as usize),
    ("bytes missing", |f, r| f.data -= 1 + r.below(275) as usize),
    ("overlap", |f, r| f.header["b"]["data_offsets"] = json!([127 - r.below(127), 175 - r.below(47)])),
    ("hole", |f, _| {
        f.header["c"]["data_offsets"] = json!([180, 280]);
        f.data = 280;
    }),
    ("reversed offsets", |f, r| {
        let offsets = f.header[any(r)]["data_offsets"].as_array_mut().unwrap();
        offsets.reverse();
    }),
    ("offsets behind the end", |f, r| f.header["c"]["data_offsets"] = json!([176, u64::MAX - r.below(99)])),
    ("key twice", |f, r| f.replace(&format!("\"{}\":", ["b", "c"][r.below(2) as usize]), "\"a\":")),
    ("same tensor twice", |f, _| {
        let tensor = f.header["b"].to_string();
        f.replace("\"c\":", &format!("\"b\":{tensor},\"c\":"));
    }),
    ("unknown format", |f, r| f.header[any(r)]["dtype"] = ["F33", "Q4_K", "", "f32"][r.below(4) as usize].into()),
    ("size of another format", |f, r| f.header[any(r)]["dtype"] = ["U8", "F64", "I16"][r.below(2) as usize].into()),
    ("shape of another size", |f, r| f.header[any(r)]["shape"][r.below(2) as usize] = (9 + r.below(1 << 30)).into()),
    ("elements overflow", |f, r| f.header[any(r)]["shape"] = json!([1u64 << 40, 1u64 << (24 + r.below(39))])),
    ("lengths that are none", |f, r| {
        f.header[any(r)]["shape"][1] = [json!(-8), json!(8.5), json!("8"), json!(null)][r.below(4) as usize].clone();
    }),
];

/// Opens a model whose weights are these bytes.
fn open(folder: &Path, bytes: &[u8]) -> Result<Archive, String> {
    std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
    Archive::open(folder).map_err(|error| error.to_string())
}

fn model() -> tempfile::TempDir {
    let temporary = tempfile::tempdir().unwrap();
    std::fs::copy(folder("tiny-qwen3/config.json"), temporary.path().join("config.json")).unwrap();
    temporary
}

fn check(class: &str, error: &str) {
    assert!(error.contains("model.safetensors: ") && !error.contains('\n'), "{class}: {error}");
}

#[test]
fn every_way_to_be_wrong_is_refused() {
    let folder = model();
    open(folder.path(), &File::sound().bytes()).unwrap();
    for (class, spoil) in CLASSES {
        for seed in 0..100 {
            let mut file = File::sound();
            spoil(&mut file, &mut draw(seed, Domain::Data, &[]));
            match open(folder.path(), &file.bytes()) {
                Err(error) => check(class, &error),
                Ok(_) => panic!("{class}, seed {seed}: accepted"),
            }
        }
    }
}

#[test]
fn truncations_and_mutants_do_no_harm() {
    let (folder, sound) = (model(), File::sound().bytes());
    for len in 0..sound.len() {
        check("truncated", &open(folder.path(), &sound[..len]).err().expect("a truncated file was accepted"));
    }
    let header = sound.len() - 276;
    let mut accepted = 0;
    for seed in 0..5000 {
        let (mut random, mut file) = (draw(seed, Domain::Data, &[]), sound.clone());
        for _ in 0..=random.below(3) {
            file[random.below(header as u64) as usize] = b" 0129-{}[]\",:ab\0\xff"[random.below(17) as usize];
        }
        match open(folder.path(), &file) {
            Ok(archive) => accepted += usize::from(archive.check_weights().is_err()),
            Err(error) => check("mutant", &error),
        }
    }
    assert!(accepted > 0, "no mutant is harmless: the test tests nothing");
}
