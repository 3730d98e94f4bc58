//! Broken or hostile GGUF files are refused, by the name of the field and its place, or loaded as what they hold. Never
//! a panic, never more memory than the file could fill: 29 ways to be wrong with 1,000 seeds each, every truncation of
//! a file of 64 KB, 100,000 random mutants of its header, and mutants that go all the way to a model, through
//! conversion and through quantization.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::folder;
use minke_spec::draw::{Domain, Stream, draw};
use minke_tensor::Device;
use minke_weights::gguf::Header;
use minke_weights::recipe::{Recipe, choose};
use minke_weights::{Archive, PlannedTensor, TensorWriter};

/// A tensor of the file: name, lengths, type, offset.
type Tensor = (Vec<u8>, Vec<u64>, u32, u64);

/// A file, part by part, so that each can be wrong.
#[derive(Clone)]
struct File {
    magic: [u8; 4],
    version: u32,
    tensor_count: Option<u64>,
    pair_count: Option<u64>,
    /// Key, type, bytes of the value.
    pairs: Vec<(Vec<u8>, u32, Vec<u8>)>,
    tensors: Vec<Tensor>,
    alignment: usize,
    data: usize,
}

fn text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

fn list(kind: u32, len: u64, elements: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &len.to_le_bytes(), elements].concat()
}

impl File {
    fn sound() -> Self {
        let tokens: Vec<u8> = (0..40).flat_map(|i| text(format!("token{i}").as_bytes())).collect();
        Self {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            pair_count: None,
            pairs: vec![
                (b"general.architecture".into(), 8, text(b"qwen2")),
                (b"general.alignment".into(), 4, 32u32.to_le_bytes().into()),
                (b"flag".into(), 7, vec![1]),
                (b"epsilon".into(), 6, 1e-6f32.to_le_bytes().into()),
                (b"tokens".into(), 9, list(8, 40, &tokens)),
                (b"kinds".into(), 9, list(5, 3, &[0; 12])),
            ],
            tensors: vec![
                (b"a".into(), vec![256, 8], 12, 0),
                (b"b".into(), vec![32, 4], 8, 1152),
                (b"c".into(), vec![7], 0, 1312),
            ],
            alignment: 32,
            data: 1312 + 28,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.pair_count.unwrap_or(self.pairs.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.pairs {
            out.extend(text(key));
            out.extend(kind.to_le_bytes());
            out.extend(value);
        }
        for (name, lengths, kind, offset) in &self.tensors {
            out.extend(text(name));
            out.extend((lengths.len() as u32).to_le_bytes());
            lengths.iter().for_each(|length| out.extend(length.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(self.alignment.max(1)) + self.data, 7);
        out
    }
}

fn huge(random: &mut Stream) -> u64 {
    let magnitude = 20 + random.below(44);
    (1 << magnitude) + random.below(1 << 20)
}

/// A way to be wrong, and a word that the refusal has to contain.
type Class = (&'static str, &'static str, fn(&mut File, &mut Stream));

const CLASSES: [Class; 29] = [
    ("magic", "GGUF", |f, r| f.magic[r.below(4) as usize] ^= 1 << r.below(8)),
    ("version", "version", |f, r| f.version = [0, 1, 4, 5 + r.below(1 << 24) as u32][r.below(4) as usize]),
    ("byte order", "big-endian", |f, r| f.version = (2 + r.below(2) as u32).swap_bytes()),
    ("tensor count", "number of tensors", |f, r| f.tensor_count = Some(huge(r))),
    ("pair count", "number of metadata pairs", |f, r| f.pair_count = Some(huge(r))),
    ("key twice", "twice", |f, r| {
        let pair = f.pairs[r.below(6) as usize].clone();
        f.pairs.push(pair);
    }),
    ("key not UTF-8", "UTF-8", |f, r| f.pairs[r.below(6) as usize].0 = vec![0xff, r.below(256) as u8]),
    ("key too long", "length of key", |f, r| f.pairs[2].0 = vec![b'x'; 1025 + r.below(100) as usize]),
    ("type of value", "does not exist", |f, r| f.pairs[5].1 = 13 + r.below(1 << 20) as u32),
    ("neither true nor false", "neither true nor false", |f, r| f.pairs[2].2 = vec![2 + r.below(254) as u8]),
    ("length of text", "length of general.architecture", |f, r| {
        f.pairs[0].2.splice(0..8, huge(r).to_le_bytes());
    }),
    ("length of list", "length of kinds", |f, r| f.pairs[5].2 = list(5, huge(r), &[0; 12])),
    ("list of lists", "is a list of type", |f, _| f.pairs[5].2 = list(9, 1, &list(4, 1, &[0; 4]))),
    ("type in list", "is a list of type", |f, r| f.pairs[5].2 = list(13 + r.below(999) as u32, 1, &[0; 8])),
    ("text in list", "length of tokens", |f, r| {
        f.pairs[4].2 = list(8, 1, &huge(r).to_le_bytes());
    }),
    ("alignment", "alignment", |f, r| {
        let wrong = [0, 1, 3, 33, 1 << 20, u32::MAX][r.below(6) as usize];
        f.pairs[1].2 = wrong.to_le_bytes().into();
    }),
    ("alignment of another type", "alignment", |f, _| f.pairs[1] = (b"general.alignment".into(), 8, text(b"32"))),
    ("name twice", "twice", |f, r| f.tensors[1 + r.below(2) as usize].0 = b"a".into()),
    ("name not UTF-8", "UTF-8", |f, r| f.tensors[r.below(3) as usize].0 = vec![0xc0, 0x80]),
    ("name too long", "length of name", |f, r| f.tensors[0].0 = vec![b'y'; 1025 + r.below(100) as usize]),
    ("no dimension", "dimensions", |f, r| f.tensors[r.below(3) as usize].1.clear()),
    ("many dimensions", "dimensions", |f, r| f.tensors[2].1 = vec![1; 5 + r.below(60) as usize]),
    ("empty", "shape", |f, r| f.tensors[r.below(3) as usize].1 = vec![256, 0]),
    ("elements overflow", "shape", |f, r| f.tensors[r.below(3) as usize].1 = vec![1 << 32, 1 << (28 + r.below(36))]),
    ("ragged blocks", "cannot have", |f, r| f.tensors[0].1[0] = 1 + r.below(255)),
    ("type of tensor", "which is not supported", |f, r| {
        f.tensors[r.below(3) as usize].2 = [4, 5, 9, 15, 24, 31, 40 + r.below(1 << 20) as u32][r.below(7) as usize];
    }),
    ("offset not aligned", "multiple of the alignment", |f, r| f.tensors[r.below(3) as usize].3 += 1 + r.below(31)),
    ("offset behind the end", "behind the file", |f, r| {
        f.tensors[r.below(3) as usize].3 = [huge(r) / 32 * 32, u64::MAX - 31][r.below(2) as usize];
    }),
    ("overlap", "overlaps", |f, r| f.tensors[1].3 = 32 * r.below(36)),
];

#[test]
fn every_way_to_be_wrong_is_named() {
    Header::parse(&File::sound().bytes()).unwrap();
    for (class, word, spoil) in CLASSES {
        for seed in 0..1000 {
            let mut file = File::sound();
            spoil(&mut file, &mut draw(seed, Domain::Data, &[]));
            let error = Header::parse(&file.bytes()).err().unwrap_or_else(|| panic!("{class}, seed {seed}: accepted"));
            assert!(error.contains(word), "{class}, seed {seed}: {error}");
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    let mut file = File::sound();
    // Floats that fill the file up to 64 KB.
    file.tensors.push((b"d".into(), vec![15_700], 0, 1344));
    file.data = 1344 + 4 * 15_700;
    let whole = file.bytes();
    assert!((60_000..70_000).contains(&whole.len()));
    Header::parse(&whole).unwrap();
    for len in 0..whole.len() {
        assert!(Header::parse(&whole[..len]).is_err(), "{len} of {} bytes were accepted", whole.len());
    }
}

#[test]
fn random_mutants_do_no_harm() {
    let sound = File::sound().bytes();
    let mut accepted = 0;
    for seed in 0..100_000 {
        let mut random = draw(seed, Domain::Data, &[]);
        let mut file = sound.clone();
        for _ in 0..=random.below(4) {
            // Fields are most often wrong at their edges: 0, all ones, one more or less, or any byte.
            let at = random.below(1000) as usize;
            file[at] = [0, 0xff, file[at].wrapping_add(1), file[at].wrapping_sub(1), random.below(256) as u8]
                [random.below(5) as usize];
        }
        if let Ok(header) = Header::parse(&file) {
            assert!(header.tensors.values().all(|tensor| tensor.range.end <= file.len()));
            accepted += 1;
        }
    }
    assert!(accepted > 0, "no mutant is harmless: the test tests nothing");
}

#[test]
fn mutants_of_a_model_load_or_are_refused() {
    let sound = std::fs::read(folder("gguf").join("tiny-v3-halves.gguf")).unwrap();
    let header = sound.windows(9).position(|bytes| bytes == b"blk.2.ffn").unwrap();
    let (device, temporary) = (Device::open("cpu", 2).unwrap(), tempfile::tempdir().unwrap());
    let path = temporary.path().join("mutant.gguf");
    let (mut loaded, mut converted, mut quantized) = (0, 0, 0);
    for seed in 0..2000 {
        let mut random = draw(seed, Domain::Data, &[]);
        let mut file = sound.clone();
        let at = random.below(header as u64) as usize;
        file[at] = random.below(256) as u8;
        std::fs::write(&path, &file).unwrap();
        let Ok(archive) = Archive::open(&path) else { continue };
        loaded += usize::from(archive.check_weights().and_then(|()| archive.load(&device)).is_ok());
        // Converted even if it cannot be loaded: conversions read headers by themselves.
        if seed % 8 == 0 {
            let of = |planned: &[PlannedTensor]| write(&archive, planned, &device, temporary.path());
            converted += usize::from(archive.plan_folder().and_then(|planned| of(&planned)).is_ok());
            let low = archive.plan_gguf().map(|mut planned| {
                choose(&archive.config, Recipe::Q4_0, &[], &mut planned).unwrap();
                of(&planned)
            });
            quantized += usize::from(matches!(low, Ok(Ok(()))));
        }
    }
    assert!((1..2000).contains(&loaded), "{loaded} of 2000 loaded");
    assert!((1..250).contains(&converted), "{converted} of 250 converted");
    assert!((1..250).contains(&quantized), "{quantized} of 250 quantized");
}

/// Writes tensors of a model as GGUF.
fn write(archive: &Archive, planned: &[PlannedTensor], device: &Device, folder: &Path) -> minke_weights::Result<()> {
    let writer = TensorWriter { device, archive, planned, importance: None, adapter: None, progress: &|_| true };
    writer.write_gguf(&archive.gguf_pairs("mutant", planned)?, &folder.join("written.gguf"))
}
