//! Writing of GGUF files: header first, then the tensors in the order that it names, as they come.
//!
//! The layout is that of `gguf`; version 3, alignment 32.

use std::io::Write;

use minke_spec::Format;

const ALIGNMENT: usize = 32;
/// Numbers of the types of values.
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const LIST: u32 = 9;

/// Metadata to be written, in order; each value with its type, encoded.
#[derive(Clone, Debug, Default)]
pub struct Pairs(pub(crate) Vec<(String, Vec<u8>)>);

impl Pairs {
    /// Adds an integer.
    ///
    /// # Panics
    /// If it does not fit 32 bits, which no size of a model exceeds.
    pub fn unsigned(&mut self, key: &str, value: usize) {
        let value = u32::try_from(value).expect("invariant: sizes and ids of models fit 32 bits");
        self.raw(key, &[U32.to_le_bytes(), value.to_le_bytes()].concat());
    }

    /// Adds a number.
    pub fn float(&mut self, key: &str, value: f64) {
        self.raw(key, &[F32.to_le_bytes(), (value as f32).to_le_bytes()].concat());
    }

    /// Adds whether something is so.
    pub fn bool(&mut self, key: &str, value: bool) {
        self.raw(key, &[&BOOL.to_le_bytes()[..], &[u8::from(value)]].concat());
    }

    /// Adds a text.
    pub fn text(&mut self, key: &str, value: &str) {
        let mut bytes = TEXT.to_le_bytes().to_vec();
        put_text(&mut bytes, value);
        self.raw(key, &bytes);
    }

    /// Adds a list of texts.
    pub fn texts<'a>(&mut self, key: &str, values: impl ExactSizeIterator<Item = &'a str>) {
        let mut bytes = list(TEXT, values.len());
        values.for_each(|value| put_text(&mut bytes, value));
        self.raw(key, &bytes);
    }

    /// Adds a list of small integers.
    pub fn integers(&mut self, key: &str, values: &[i32]) {
        let mut bytes = list(I32, values.len());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.raw(key, &bytes);
    }

    /// Adds a type and a value as they lie in a file. A key that is there already keeps its place and gets this value.
    pub(crate) fn raw(&mut self, key: &str, bytes: &[u8]) {
        match self.0.iter_mut().find(|(known, _)| known == key) {
            Some((_, value)) => *value = bytes.to_vec(),
            None => self.0.push((key.to_owned(), bytes.to_vec())),
        }
    }
}

fn list(of: u32, len: usize) -> Vec<u8> {
    let mut bytes = [LIST.to_le_bytes(), of.to_le_bytes()].concat();
    bytes.extend((len as u64).to_le_bytes());
    bytes
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// Writes the header of a file with these tensors: name, format and shape, whose bytes follow in this order, each filled up
/// by [`pad`].
pub(crate) fn header<'a>(
    to: &mut impl Write,
    pairs: &Pairs,
    tensors: impl ExactSizeIterator<Item = (&'a str, Format, &'a [usize])>,
) -> std::io::Result<()> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((pairs.0.len() as u64).to_le_bytes());
    for (key, value) in &pairs.0 {
        put_text(&mut bytes, key);
        bytes.extend(value);
    }
    let mut offset = 0;
    for (name, format, shape) in tensors {
        put_text(&mut bytes, name);
        bytes.extend((shape.len() as u32).to_le_bytes());
        bytes.extend(shape.iter().rev().flat_map(|&len| (len as u64).to_le_bytes()));
        bytes.extend(format.gguf_type().expect("invariant: only formats of GGUF are chosen for it").to_le_bytes());
        bytes.extend((offset as u64).to_le_bytes());
        offset = (offset + format.bytes(shape.iter().product())).next_multiple_of(ALIGNMENT);
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    to.write_all(&bytes)
}

/// Fills up behind a tensor of so many bytes.
pub(crate) fn pad(to: &mut impl Write, bytes: usize) -> std::io::Result<()> {
    to.write_all(&[0; ALIGNMENT][..bytes.next_multiple_of(ALIGNMENT) - bytes])
}
