//! What lies in the files of a model? Its configuration, and where each tensor is: enough to say what the model is, what is
//! wrong with the files, and whether it fits, before a single weight is read.
//!
//! A model is a folder as on the Hub (`config.json`, safetensors) or GGUF, in one file or split. Both become one table of
//! tensors; `load` reads it by the table of parameters of `minke_spec`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use minke_spec::params::{Source, published_tensors};
use minke_spec::{Format, ModelConfig, ParamRole, ParamSpec, parameters};
use minke_tensor::Bytes;
use safetensors::{SafeTensorError, SafeTensors};

use crate::duplicate_keys::duplicate_key;
use crate::gguf::{Header, Metadata, TensorInfo};
use crate::{CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, gguf_model};
use crate::{Error, Result};

/// Bytes of the longest safetensors header; R1's largest has less than a tenth.
const LONGEST_HEADER: u64 = 100 << 20;

/// Elements up to which a weight of a format of floats is held as f32 even for inference: norms, biases, and all of a small
/// model, whose products are then faster and to the bit the same.
pub(crate) const SMALL: usize = 1 << 17;

/// The files of a model, of which only headers were read.
pub struct Archive {
    /// The folder, or the first GGUF file.
    pub path: PathBuf,
    /// The configuration.
    pub config: ModelConfig,
    /// Keys of `config.json` that mean nothing here.
    pub unknown_keys: Vec<String>,
    /// The weight files; none if a folder has none.
    pub files: Vec<WeightFile>,
    /// What they hold, by name.
    pub tensors: BTreeMap<String, Entry>,
    /// Of GGUF: the metadata, in which tokenizer, template and sampling are.
    pub metadata: Option<Metadata>,
}

/// A weight file.
pub struct WeightFile {
    /// Its path.
    pub path: PathBuf,
    /// Its contents, mapped.
    pub bytes: Bytes,
}

/// Where a tensor is.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name of the format, as in the file.
    pub dtype: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Which file.
    pub file: usize,
    /// Where in it.
    pub range: Range<usize>,
}

impl Entry {
    /// Returns the format, if it is one that can be computed with.
    pub fn format(&self) -> Option<Format> {
        Format::from_name(&self.dtype)
    }
}

impl Archive {
    /// Returns what the headers of a model's files say.
    ///
    /// # Errors
    /// If there is no model, or a file of it is missing, cut short or of another kind.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(bad(path, "no such file or folder; check the spelling"));
        }
        if !path.is_dir() {
            return Self::open_gguf(path);
        }
        let config_path = path.join(CONFIG_FILE);
        if !config_path.exists() {
            return match gguf_in(path)?.as_slice() {
                [only] => Self::open_gguf(only),
                [] => Err(bad(
                    path,
                    "has no config.json; give the folder of a model as published on the Hugging Face Hub, or a GGUF file",
                )),
                several => {
                    let count = several.len();
                    Err(bad(path, format!("holds {count} models as GGUF; give the file of the one that is meant")))
                }
            };
        }
        let parsed =
            ModelConfig::from_json(&read_text(&config_path)?).map_err(|error| bad(&config_path, error.to_string()))?;
        let mut archive = Self {
            path: path.into(),
            config: parsed.config,
            unknown_keys: parsed.unknown_keys,
            files: Vec::new(),
            tensors: BTreeMap::new(),
            metadata: None,
        };
        for shard in shard_paths(path)? {
            archive.add_safetensors(&shard)?;
        }
        Ok(archive)
    }

    fn open_gguf(path: &Path) -> Result<Self> {
        let (bytes, header) = read_gguf(path)?;
        let paths = split_paths(path, &header.metadata)?;
        let values = |tensor: &TensorInfo| {
            let values = bytes[tensor.range.clone()].as_chunks().0.iter().map(|value| f32::from_le_bytes(*value));
            let name = gguf_model::DIVISORS;
            if tensor.format == Format::F32 { Ok(values.collect()) } else { Err(format!("{name} is not F32")) }
        };
        let divisors = header.tensors.get(gguf_model::DIVISORS).map(values).transpose();
        let config =
            divisors.and_then(|divisors| gguf_model::config(&header, divisors)).map_err(|reason| bad(path, reason))?;
        let mut archive = Self {
            path: path.into(),
            config,
            unknown_keys: Vec::new(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
            metadata: Some(header.metadata),
        };
        archive.add_gguf(path, bytes, header.tensors)?;
        for part in &paths[1..] {
            let (bytes, header) = read_gguf(part)?;
            archive.add_gguf(part, bytes, header.tensors)?;
        }
        Ok(archive)
    }

    fn add_gguf(&mut self, path: &Path, bytes: Bytes, tensors: BTreeMap<String, TensorInfo>) -> Result<()> {
        let entry =
            |(name, tensor): (String, TensorInfo)| (name, tensor.format.name().to_owned(), tensor.shape, tensor.range);
        self.add(path, bytes, tensors.into_iter().map(entry))
    }

    fn add_safetensors(&mut self, path: &Path) -> Result<()> {
        let bytes = map(path)?;
        let header_bytes = bytes.first_chunk().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
        if header_bytes > LONGEST_HEADER {
            return Err(bad(path, other_kind(&bytes[..bytes.len().min(512)])));
        }
        let (header, metadata) =
            SafeTensors::read_metadata(&bytes).map_err(|error| bad(path, broken(&error, bytes.len())))?;
        let start = 8 + header;
        if let Some(name) = duplicate_key(&bytes[8..start]) {
            return Err(bad(path, format!("its header describes {name} twice; download it again")));
        }
        let tensors = metadata.tensors();
        let entry = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
            let range = start + info.data_offsets.0..start + info.data_offsets.1;
            (name, info.dtype.to_string(), info.shape.clone(), range)
        };
        self.add(path, bytes.clone(), tensors.into_iter().map(entry))
    }

    /// Adds a file and what it holds: name, format, shape and place.
    fn add(
        &mut self,
        path: &Path,
        bytes: Bytes,
        tensors: impl Iterator<Item = (String, String, Vec<usize>, Range<usize>)>,
    ) -> Result<()> {
        let file = self.files.len();
        for (name, dtype, shape, range) in tensors {
            if let Some(other) = self.tensors.insert(name.clone(), Entry { dtype, shape, file, range }) {
                let other = self.files.get(other.file).map_or(path, |file| &file.path);
                return Err(bad(path, format!("holds tensor {name}, and so does {}", other.display())));
            }
        }
        self.files.push(WeightFile { path: path.into(), bytes });
        Ok(())
    }

    /// Returns the bytes of all weight files.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes.len() as u64).sum()
    }

    /// Returns the bytes of a tensor.
    pub(crate) fn bytes(&self, entry: &Entry) -> Bytes {
        self.files[entry.file].bytes.slice(entry.range.clone()).expect("invariant: headers were checked against files")
    }

    /// Returns an error about a tensor.
    pub(crate) fn bad_tensor(&self, name: &str, reason: impl Into<String>) -> Error {
        let file = self.tensors.get(name).map_or(&self.path, |entry| &self.files[entry.file].path);
        Error::BadTensor { path: file.clone(), name: name.into(), reason: reason.into() }
    }

    /// Returns the names of the tensors that hold a parameter: one, one per expert, or the two halves of `kv_b_proj`.
    pub(crate) fn names(&self, spec: &ParamSpec) -> Vec<String> {
        if self.metadata.is_none() {
            return spec.published().into_iter().map(|tensor| tensor.name).collect();
        }
        let name = gguf_model::name_of(spec);
        match spec.layer {
            Some(layer) if name.ends_with(".attn_kv_b.weight") && !self.tensors.contains_key(&name) => {
                gguf_model::split_names(layer).into()
            }
            _ => vec![name],
        }
    }

    /// Returns the entry of a tensor that must be there, in a shape that must fit.
    ///
    /// # Errors
    /// If it is missing, of another shape, or of a format that cannot be computed with.
    pub(crate) fn entry(&self, name: &str, shape: &[usize]) -> Result<(&Entry, Format)> {
        let Some(entry) = self.tensors.get(name) else {
            return Err(self.bad_tensor(name, "is missing; are all files of this model there?"));
        };
        if entry.shape != shape {
            let advice = "do weights and configuration belong together?";
            let reason = format!("has shape {:?}, the configuration says {shape:?}; {advice}", entry.shape);
            return Err(self.bad_tensor(name, reason));
        }
        Ok((entry, self.stored_format(name)?))
    }

    /// Returns the format of a tensor that is there.
    ///
    /// # Errors
    /// If it cannot be computed with.
    pub(crate) fn stored_format(&self, name: &str) -> Result<Format> {
        let entry = &self.tensors[name];
        entry.format().ok_or_else(|| {
            let names = Format::ALL.map(Format::name).join(", ");
            self.bad_tensor(name, format!("is {}, which cannot be loaded; supported are {names}", entry.dtype))
        })
    }

    /// Checks that all weights are there, in shapes and formats that can be loaded.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check_weights(&self) -> Result<()> {
        if self.files.is_empty() {
            let what = format!("has no weights; put {WEIGHTS_FILE}, or {INDEX_FILE} with its files, into it");
            return Err(bad(&self.path, what));
        }
        for spec in parameters(&self.config) {
            self.pieces(&spec)?;
        }
        Ok(())
    }

    /// Returns the tensors that hold a parameter, in order: their names, entries and shapes.
    ///
    /// # Errors
    /// As [`Archive::entry`], or if they differ in format.
    pub(crate) fn pieces(&self, spec: &ParamSpec) -> Result<Vec<(String, &Entry, Format)>> {
        let names = self.names(spec);
        let shapes: Vec<Vec<usize>> = match names.len() {
            2 if spec.role == ParamRole::Matrix => self.split_shapes().into(),
            1 => vec![spec.shape.clone()],
            _ => spec.published().into_iter().map(|tensor| tensor.shape).collect(),
        };
        let mut pieces = Vec::with_capacity(names.len());
        for (name, shape) in names.into_iter().zip(shapes) {
            let (entry, format) = self.entry(&name, &shape)?;
            pieces.push((name, entry, format));
        }
        Ok(pieces)
    }

    /// Returns the shapes of the two halves of `kv_b_proj`: [H, C, N] and [H, V, C].
    pub(crate) fn split_shapes(&self) -> [Vec<usize>; 2] {
        let minke_spec::config::AttentionConfig::Mla(mla) = &self.config.attention else {
            unreachable!("invariant: only latent attention has kv_b_proj")
        };
        let heads = self.config.num_attention_heads;
        [vec![heads, mla.kv_lora_rank, mla.qk_nope_head_dim], vec![heads, mla.v_head_dim, mla.kv_lora_rank]]
    }

    /// Returns how many tensors of the files mean nothing to this architecture and are not read.
    pub fn unread_tensors(&self) -> usize {
        let mut known: std::collections::HashSet<String> =
            parameters(&self.config).iter().flat_map(|spec| self.names(spec)).collect();
        known.insert(gguf_model::DIVISORS.into());
        if self.metadata.is_none() {
            let copies = published_tensors(&self.config).into_iter().filter(|t| matches!(t.source, Source::CopyOf(_)));
            known.extend(copies.map(|tensor| tensor.name));
        }
        let scale_of = |name: &str| name.strip_suffix("_scale_inv").is_some_and(|weight| known.contains(weight));
        self.tensors.keys().filter(|name| !known.contains(*name) && !scale_of(name)).count()
    }
}

fn bad(path: &Path, reason: impl Into<String>) -> Error {
    Error::BadFile { path: path.into(), reason: reason.into() }
}

pub(crate) fn map(path: &Path) -> Result<Bytes> {
    Bytes::map(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => bad(path, "is missing; download it from where the other files come from"),
        _ => bad(path, format!("cannot be read: {error}")),
    })
}

pub(crate) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.into(), source })
}

fn read_gguf(path: &Path) -> Result<(Bytes, Header)> {
    let bytes = map(path)?;
    if !bytes.starts_with(b"GGUF") {
        let kind = other_kind(&bytes[..bytes.len().min(512)]);
        return Err(bad(
            path,
            if kind == UNKNOWN_KIND {
                "is a file, but not GGUF; give a GGUF file, or the folder that holds config.json and the weights"
            } else {
                kind
            },
        ));
    }
    let header = Header::parse(&bytes).map_err(|reason| bad(path, format!("its header is broken {reason}")))?;
    Ok((bytes, header))
}

/// Returns the GGUF files of a folder, of split ones the first.
fn gguf_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|source| Error::Io { path: folder.into(), source })?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is_first = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let stem = name.strip_suffix(".gguf");
        stem.is_some_and(|stem| split_number(stem).is_none_or(|(_, number, _)| number == 1))
    };
    let mut found: Vec<PathBuf> = paths.filter(is_first).collect();
    found.sort();
    Ok(found)
}

/// Returns the parts of `base-00001-of-00003`.
fn split_number(stem: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (base, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| (text.len() == 5).then(|| text.parse().ok()).flatten();
    Some((base, digits(number)?, digits(count)?))
}

/// Returns the files of a model that is split, or the one that it is in.
fn split_paths(path: &Path, metadata: &Metadata) -> Result<Vec<PathBuf>> {
    let of = |key: &str| metadata.unsigned(key).map_err(|reason| bad(path, reason));
    let count = of("split.count")?.unwrap_or(1);
    if count <= 1 {
        return Ok(vec![path.into()]);
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let parts = name.strip_suffix(".gguf").and_then(split_number);
    let Some((base, number, of_name)) = parts.filter(|&(_, _, of_name)| of_name as u64 == count) else {
        let advice = "name it as it was published, ...-00001-of-";
        return Err(bad(
            path,
            format!("is one of {count} files by its header, not by its name; {advice}{count:05}.gguf"),
        ));
    };
    if number != 1 || of("split.no")?.unwrap_or(0) != 0 {
        return Err(bad(
            path,
            format!("is file {number} of {count}; give the first, {base}-00001-of-{of_name:05}.gguf"),
        ));
    }
    Ok((1..=of_name).map(|i| path.with_file_name(format!("{base}-{i:05}-of-{of_name:05}.gguf"))).collect())
}

fn broken(error: &SafeTensorError, bytes: usize) -> String {
    match error {
        SafeTensorError::MetadataIncompleteBuffer | SafeTensorError::InvalidHeaderLength => {
            format!("has {bytes} bytes, not as many as its header says: the download was cut short; download it again")
        }
        other => format!("its header is broken ({other}); download it again"),
    }
}

const UNKNOWN_KIND: &str = "is not a safetensors file; download it again";

/// Says what a file is that should hold weights, by its first bytes.
fn other_kind(start: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(start).trim_start().to_ascii_lowercase();
    if text.starts_with("<!doctype") || text.starts_with("<html") {
        "is a web page, not weights: the download went wrong; download the file itself"
    } else if text.starts_with("version https://git-lfs") {
        "is a Git LFS pointer, not the weights themselves; fetch them with `git lfs pull`"
    } else if start.starts_with(b"GGUF") {
        "is GGUF under another name; give it by its own path, ending in .gguf"
    } else if start.starts_with(b"PK") {
        "is a PyTorch file, not safetensors; use the safetensors files of the model"
    } else {
        UNKNOWN_KIND
    }
}

fn shard_paths(folder: &Path) -> Result<Vec<PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let (index, single) = (folder.join(INDEX_FILE), folder.join(WEIGHTS_FILE));
    if !index.exists() {
        return Ok(if single.exists() { vec![single] } else { vec![] });
    }
    let parsed: Index = serde_json::from_str(&read_text(&index)?)
        .map_err(|error| bad(&index, format!("is not an index of weight files ({error}); download it again")))?;
    let mut names: Vec<String> = parsed.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    match names.iter().find(|name| Path::new(name).components().count() != 1 || name.starts_with('.')) {
        Some(name) => {
            Err(bad(&index, format!("names {name:?}, which is not a file of this folder; download the index again")))
        }
        None => Ok(names.iter().map(|name| folder.join(name)).collect()),
    }
}
