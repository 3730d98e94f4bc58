//! The header of a GGUF file: metadata, and where each tensor lies. Nothing in it is trusted.
//!
//! ```text
//! "GGUF" | version: u32 | tensors: u64 | pairs: u64
//! pairs times    key: string | type: u32 | value
//! tensors times  name: string | dims: u32 | dims times length: u64, the fastest first | type: u32 | offset: u64
//! padding to the alignment | data, from which offsets count
//! ```

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use minke_spec::Format;

/// The largest header entry that makes sense in each respect; far above what anyone publishes.
const MAX_DIMS: u32 = 4;
const MAX_NAME: usize = 1 << 10;
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 16;

/// Types of tensors that exist and are no formats here.
const OTHER_TYPES: [(u32, &str); 12] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An integer without sign, of any width.
    Unsigned(u64),
    /// An integer with sign, of any width.
    Signed(i64),
    /// A float of either width.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A text.
    Text(String),
    /// A text that is not UTF-8.
    Bytes(Vec<u8>),
    /// A list of values of one type.
    List(Vec<Value>),
}

impl Value {
    /// An integer that is not negative.
    pub fn unsigned(&self) -> Option<u64> {
        match self {
            Self::Unsigned(value) => Some(*value),
            Self::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }
}

/// The header of a GGUF file.
#[derive(Clone, Debug)]
pub struct Header {
    /// Version of the format: 2 or 3.
    pub version: u32,
    /// The metadata by key.
    pub metadata: Metadata,
    /// The tensors by name.
    pub tensors: BTreeMap<String, TensorInfo>,
}

/// The entry of a tensor in the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its format.
    pub format: Format,
    /// Its shape, the fastest dimension last as everywhere here.
    pub shape: Vec<usize>,
    /// Where its bytes are in the file.
    pub range: Range<usize>,
}

/// The metadata of a file, by key.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    values: HashMap<String, Value>,
    /// Where type and value of each pair are in the file, in its order.
    places: Vec<(String, Range<usize>)>,
}

impl Metadata {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// The keys in the order of the file, each with the place of its type and value.
    pub(crate) fn places(&self) -> &[(String, Range<usize>)] {
        &self.places
    }

    /// The integer of a key; an error if it is something else or negative.
    ///
    /// # Errors
    /// What is wrong, naming the key.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, String> {
        self.typed(key, "an integer without sign", Value::unsigned)
    }

    /// The number of a key.
    ///
    /// # Errors
    /// As [`Metadata::unsigned`].
    pub fn float(&self, key: &str) -> Result<Option<f64>, String> {
        self.typed(key, "a number", |value| match value {
            Value::Float(value) => Some(*value),
            Value::Unsigned(value) => Some(*value as f64),
            Value::Signed(value) => Some(*value as f64),
            _ => None,
        })
    }

    /// Whether a key is true.
    ///
    /// # Errors
    /// As [`Metadata::unsigned`].
    pub fn bool(&self, key: &str) -> Result<Option<bool>, String> {
        self.typed(key, "true or false", |value| if let Value::Bool(value) = value { Some(*value) } else { None })
    }

    /// The text of a key.
    ///
    /// # Errors
    /// As [`Metadata::unsigned`].
    pub fn text(&self, key: &str) -> Result<Option<&str>, String> {
        self.typed(key, "a text", |value| if let Value::Text(text) = value { Some(text.as_str()) } else { None })
    }

    /// The list of a key.
    ///
    /// # Errors
    /// As [`Metadata::unsigned`].
    pub fn list(&self, key: &str) -> Result<Option<&[Value]>, String> {
        self.typed(key, "a list", |value| if let Value::List(list) = value { Some(list.as_slice()) } else { None })
    }

    /// Reads so many pairs.
    fn read(at: &mut Cursor<'_>, count: usize) -> Result<Self, String> {
        let mut metadata = Self { values: HashMap::with_capacity(count), places: Vec::new() };
        for i in 0..count {
            let place = at.place;
            let key = at.name(&format!("key of metadata pair {i}"))?;
            let start = at.place;
            let kind = at.u32(&key)?;
            let value = at.value(kind, &key, true)?;
            metadata.places.push((key.clone(), start..at.place));
            if metadata.values.insert(key.clone(), value).is_some() {
                return Err(format!("at byte {place}: key {key} occurs twice"));
            }
        }
        Ok(metadata)
    }

    /// Pairs, each with its encoded type and value.
    ///
    /// # Errors
    /// As [`Header::parse`].
    pub(crate) fn of_pairs(pairs: &[(String, Vec<u8>)]) -> Result<Self, String> {
        let mut bytes = Vec::new();
        for (key, value) in pairs {
            bytes.extend((key.len() as u64).to_le_bytes());
            bytes.extend(key.as_bytes());
            bytes.extend(value);
        }
        Self::read(&mut Cursor { file: &bytes, place: 0 }, pairs.len())
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        of: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        if let Value::Bytes(_) = value {
            return Err(format!("{key} is not UTF-8"));
        }
        of(value).map(Some).ok_or_else(|| format!("{key} is not {expected}"))
    }
}

/// Why a header is refused.
enum Refusal {
    /// The file is not as the format prescribes.
    Broken(String),
    /// It is, and has something that is not supported here.
    Unsupported(String),
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Broken(reason)
    }
}

impl Header {
    /// The header at the start of a file.
    ///
    /// # Errors
    /// What is broken, naming the field and its place in the file, or not supported.
    pub fn parse(file: &[u8]) -> Result<Self, String> {
        Self::read(file).map_err(|refusal| match refusal {
            Refusal::Broken(reason) => format!("its header is broken {reason}"),
            Refusal::Unsupported(reason) => reason,
        })
    }

    fn read(file: &[u8]) -> Result<Self, Refusal> {
        let mut at = Cursor { file, place: 0 };
        if at.take(4, "the first four bytes")? != b"GGUF" {
            return Err(Refusal::Broken("at byte 0: the file does not begin with GGUF".into()));
        }
        let version = at.u32("version")?;
        if version.swap_bytes() == 2 || version.swap_bytes() == 3 {
            return Err(Refusal::Unsupported("was written for big-endian machines, which are not supported".into()));
        }
        if !(2..=3).contains(&version) {
            return Err(Refusal::Unsupported(format!("is GGUF of version {version}; 2 and 3 are supported")));
        }
        // A tensor takes 24 bytes at least, a pair 13.
        let tensor_count = at.count("number of tensors", 24)?;
        let pair_count = at.count("number of metadata pairs", 13)?;
        let metadata = Metadata::read(&mut at, pair_count)?;
        let alignment = metadata.unsigned("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
        if !(alignment.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(&alignment)) {
            let reason = format!("is {alignment}, which is not a power of two from 8 to {MAX_ALIGNMENT}");
            return Err(Refusal::Broken(format!("at general.alignment, which {reason}")));
        }
        let mut infos = Vec::with_capacity(tensor_count);
        for i in 0..tensor_count {
            infos.push(at.tensor(i)?);
        }
        let data = at.place.next_multiple_of(alignment as usize);
        let tensors = place_tensors(infos, data, alignment, file.len())?;
        Ok(Self { version, metadata, tensors })
    }
}

/// A tensor before it is known where the data begin: name, format, shape, bytes, offset, and its place in the header.
struct Info {
    name: String,
    format: Format,
    shape: Vec<usize>,
    bytes: usize,
    offset: u64,
    place: usize,
}

/// Checks that tensors lie within the file and apart, and returns them by name.
fn place_tensors(
    infos: Vec<Info>,
    data: usize,
    alignment: u64,
    file: usize,
) -> Result<BTreeMap<String, TensorInfo>, String> {
    let mut tensors = BTreeMap::new();
    let mut ranges = Vec::with_capacity(infos.len());
    for Info { name, format, shape, bytes, offset, place } in infos {
        let bad = |reason: String| Err(format!("at byte {place}: offset of tensor {name} {reason}"));
        if offset % alignment != 0 {
            return bad(format!("is {offset}, not a multiple of the alignment {alignment}"));
        }
        let start = usize::try_from(offset).ok().and_then(|offset| data.checked_add(offset));
        let end = start.and_then(|start| start.checked_add(bytes));
        let (Some(start), Some(end)) = (start, end.filter(|&end| end <= file)) else {
            return bad(format!("is {offset}: its {bytes} bytes end behind the file; was the download cut short?"));
        };
        ranges.push((start, end, place));
        if tensors.contains_key(&name) {
            return Err(format!("at byte {place}: tensor {name} occurs twice"));
        }
        tensors.insert(name, TensorInfo { format, shape, range: start..end });
    }
    ranges.sort_unstable();
    match ranges.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        Some(pair) => Err(format!("at byte {}: the tensor described there overlaps another", pair[1].2)),
        None => Ok(tensors),
    }
}

/// A place in the file; reading goes forward and never behind the end.
struct Cursor<'a> {
    file: &'a [u8],
    place: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], String> {
        let rest = &self.file[self.place..];
        let Some(bytes) = rest.get(..len) else {
            return Err(format!("at byte {}: the file ends in {what}; was the download cut short?", self.place));
        };
        self.place += len;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let bytes = self.take(N, what)?;
        Ok(*bytes.first_chunk().expect("invariant: N bytes were taken"))
    }

    fn u32(&mut self, what: &str) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A number of things of at least `least` bytes each, if the rest of the file could hold them.
    fn count(&mut self, what: &str, least: usize) -> Result<usize, String> {
        let place = self.place;
        let count = self.u64(what)?;
        let most = (self.file.len() - self.place) / least;
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(format!("at byte {place}: {what} is {count}, more than the file has room for")),
        }
    }

    /// A key or the name of a tensor.
    fn name(&mut self, what: &str) -> Result<String, String> {
        let place = self.place;
        let len = self.count(&format!("length of {what}"), 1)?;
        if len > MAX_NAME {
            return Err(format!("at byte {place}: length of {what} is {len}; at most {MAX_NAME} are allowed"));
        }
        let text = std::str::from_utf8(self.take(len, what)?);
        text.map(str::to_owned).map_err(|_| format!("at byte {place}: {what} is not UTF-8"))
    }

    /// A text, or its bytes: many values are only for people, and their encoding is not checked by writers.
    fn text(&mut self, what: &str) -> Result<Value, String> {
        let len = self.count(&format!("length of {what}"), 1)?;
        let bytes = self.take(len, what)?.to_vec();
        Ok(String::from_utf8(bytes).map_or_else(|error| Value::Bytes(error.into_bytes()), Value::Text))
    }

    fn value(&mut self, kind: u32, key: &str, lists: bool) -> Result<Value, String> {
        let place = self.place;
        Ok(match kind {
            0 => Value::Unsigned(self.array::<1>(key)?[0].into()),
            1 => Value::Signed(i8::from_le_bytes(self.array(key)?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array(key)?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array(key)?).into()),
            4 => Value::Unsigned(self.u32(key)?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array(key)?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array(key)?).into()),
            7 => match self.array::<1>(key)?[0] {
                byte @ (0 | 1) => Value::Bool(byte == 1),
                byte => return Err(format!("at byte {place}: {key} is {byte}, neither true nor false")),
            },
            8 => self.text(key)?,
            9 if lists => {
                let of = self.u32(key)?;
                // The smallest element of each type, so that a length cannot ask for more than the file could fill.
                let least = match of {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    8 | 10..=12 => 8,
                    _ => return Err(format!("at byte {place}: {key} is a list of type {of}, which is not supported")),
                };
                let len = self.count(&format!("length of {key}"), least)?;
                let mut list = Vec::with_capacity(len);
                for _ in 0..len {
                    list.push(self.value(of, key, false)?);
                }
                Value::List(list)
            }
            10 => Value::Unsigned(self.u64(key)?),
            11 => Value::Signed(i64::from_le_bytes(self.array(key)?)),
            12 => Value::Float(f64::from_le_bytes(self.array(key)?)),
            _ => return Err(format!("at byte {place}: {key} has type {kind}, which does not exist")),
        })
    }

    fn tensor(&mut self, i: usize) -> Result<Info, Refusal> {
        let name = self.name(&format!("name of tensor {i}"))?;
        let place = self.place;
        let dims = self.u32(&name)?;
        if !(1..=MAX_DIMS).contains(&dims) {
            let reason = format!("tensor {name} has {dims} dimensions; 1 to {MAX_DIMS} are allowed");
            return Err(Refusal::Broken(format!("at byte {place}: {reason}")));
        }
        let place = self.place;
        let mut shape = Vec::with_capacity(dims as usize);
        for _ in 0..dims {
            shape.push(usize::try_from(self.u64(&name)?).unwrap_or(usize::MAX));
        }
        shape.reverse();
        let elements = shape.iter().try_fold(1usize, |product, &len| product.checked_mul(len));
        let number = self.u32(&name)?;
        let Some(format) = Format::from_gguf_type(number) else {
            let known: Vec<&str> =
                Format::ALL.iter().filter(|format| format.gguf_type().is_some()).map(|format| format.name()).collect();
            let other = OTHER_TYPES.iter().find(|(other, _)| *other == number);
            let of = other.map_or_else(|| format!("type {number}"), |(_, name)| (*name).to_owned());
            let known = known.join(", ");
            return Err(Refusal::Unsupported(format!(
                "tensor {name} is {of}, which is not supported; supported are {known}"
            )));
        };
        let width = *shape.last().expect("invariant: there is a dimension");
        // Below 2^60 elements, no size in bytes overflows.
        let (Some(elements), true) =
            (elements.filter(|&n| n > 0 && n < 1 << 60), width.is_multiple_of(format.block_elements()))
        else {
            let name_of = format.name();
            let reason = format!("tensor {name} has shape {shape:?}, which {name_of} cannot have");
            return Err(Refusal::Broken(format!("at byte {place}: {reason}")));
        };
        let place = self.place;
        Ok(Info { offset: self.u64(&name)?, bytes: format.bytes(elements), name, format, shape, place })
    }
}
