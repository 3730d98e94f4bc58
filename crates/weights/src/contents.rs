//! The weight files of a model: headers of safetensors and GGUF files become one table of tensors by name.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use minke_spec::Format;
use minke_tensor::Bytes;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::duplicate_keys::duplicate_key;
use crate::gguf::{Header, Metadata, TensorInfo};
use crate::{Error, INDEX_FILE, Result, WEIGHTS_FILE};

/// Bytes of the longest safetensors header; R1's largest has less than a tenth.
pub(crate) const LONGEST_HEADER: u64 = 100 << 20;

/// A weight file.
pub struct WeightFile {
    /// Its path.
    pub path: PathBuf,
    /// Its contents, mapped.
    pub bytes: Bytes,
}

/// Where a tensor is.
#[derive(Clone, Debug)]
pub struct TensorEntry {
    /// Name of the format, as in the file.
    pub dtype: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Which file.
    pub file: usize,
    /// Where in it.
    pub range: Range<usize>,
}

impl TensorEntry {
    /// The format, if it is one that can be computed with.
    pub fn format(&self) -> Option<Format> {
        Format::from_name(&self.dtype)
    }
}

/// Weight files and their tensors.
#[derive(Default)]
pub(crate) struct Contents {
    pub files: Vec<WeightFile>,
    pub tensors: BTreeMap<String, TensorEntry>,
    /// How many names lost what a training tool had put into them.
    pub unwrapped: usize,
}

impl Contents {
    pub(crate) fn add_gguf(&mut self, path: &Path, bytes: Bytes, tensors: BTreeMap<String, TensorInfo>) -> Result<()> {
        let entry =
            |(name, tensor): (String, TensorInfo)| (name, tensor.format.name().to_owned(), tensor.shape, tensor.range);
        self.add(path, bytes, tensors.into_iter().map(entry))
    }

    pub(crate) fn add_safetensors(&mut self, path: &Path) -> Result<()> {
        let bytes = map(path)?;
        let header_bytes = bytes.first_chunk().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
        if header_bytes > LONGEST_HEADER {
            return Err(bad(path, other_kind(&bytes[..bytes.len().min(512)])));
        }
        let (header, metadata) =
            SafeTensors::read_metadata(&bytes).map_err(|error| bad(path, broken(&error, &bytes)))?;
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
        let mut tensors: Vec<_> = tensors.map(|tensor| (unwrapped(&tensor.0), tensor)).collect();
        // A name that was made comes after those that are there, so that an error is about the former.
        tensors.sort_by_key(|(name, (stored, ..))| name != stored);
        for (name, (stored, dtype, shape, range)) in tensors {
            self.unwrapped += usize::from(name != stored);
            if let Some(other) = self.tensors.insert(name.clone(), TensorEntry { dtype, shape, file, range }) {
                let other = self.files.get(other.file).map_or(path, |file| &file.path);
                let also = if name == stored { String::new() } else { format!(", which stands for {name}") };
                return Err(bad(path, format!("holds tensor {stored}{also}, and so does {}", other.display())));
            }
        }
        self.files.push(WeightFile { path: path.into(), bytes });
        Ok(())
    }
}

/// The bytes of a tensor of these files.
pub(crate) fn bytes(files: &[WeightFile], entry: &TensorEntry) -> Bytes {
    files[entry.file].bytes.slice(entry.range.clone()).expect("invariant: headers were checked against files")
}

/// The name of a tensor without what training tools put into it: modules that wrap another (`torch.compile`, FSDP,
/// recomputation) anywhere, data parallelism and PEFT in front.
fn unwrapped(name: &str) -> String {
    const WRAPPERS: [&str; 3] = ["_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_orig_mod"];
    let modules: Vec<&str> = name.split('.').filter(|module| !WRAPPERS.contains(module)).collect();
    let mut name = modules.join(".");
    while let Some(rest) = ["module.", "base_model.model."].iter().find_map(|prefix| name.strip_prefix(prefix)) {
        name = rest.to_owned();
    }
    name
}

pub(crate) fn bad(path: &Path, reason: impl Into<String>) -> Error {
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

pub(crate) fn read_gguf(path: &Path) -> Result<(Bytes, Header)> {
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
    let header = Header::parse(&bytes).map_err(|reason| bad(path, reason))?;
    Ok((bytes, header))
}

/// The GGUF files of a folder, of split ones the first.
pub(crate) fn gguf_in(folder: &Path) -> Result<Vec<PathBuf>> {
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

/// The parts of `base-00001-of-00003`.
fn split_number(stem: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (base, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| (text.len() == 5).then(|| text.parse().ok()).flatten();
    Some((base, digits(number)?, digits(count)?))
}

/// The files of a model that is split, or the one that it is in.
pub(crate) fn split_paths(path: &Path, metadata: &Metadata) -> Result<Vec<PathBuf>> {
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

fn broken(error: &SafeTensorError, bytes: &[u8]) -> String {
    match error {
        SafeTensorError::MetadataIncompleteBuffer | SafeTensorError::InvalidHeaderLength => {
            let len = bytes.len();
            format!("has {len} bytes, not as many as its header says: the download was cut short; download it again")
        }
        other => match unknown_dtype(bytes) {
            Some((name, dtype)) => format!("tensor {name} is {dtype}, which is not supported"),
            None => format!("its header is broken ({other}); download it again"),
        },
    }
}

/// The first tensor of a sound header whose format the library for safetensors does not know.
fn unknown_dtype(bytes: &[u8]) -> Option<(String, String)> {
    let len = usize::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(bytes.get(8..)?.get(..len)?).ok()?;
    header.into_iter().find_map(|(name, tensor)| {
        let dtype = tensor.get("dtype")?.as_str()?.to_owned();
        serde_json::from_value::<Dtype>(dtype.as_str().into()).is_err().then_some((name, dtype))
    })
}

const UNKNOWN_KIND: &str = "is not a safetensors file; download it again";

/// What a file that should hold weights is, by its first bytes.
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

/// The safetensors files of a folder, and a note about them, if there is one. As in transformers, one file comes before
/// an index of several: the index is then a leftover.
pub(crate) fn safetensors_in(folder: &Path) -> Result<(Vec<PathBuf>, Option<String>)> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let (index, single) = (folder.join(INDEX_FILE), folder.join(WEIGHTS_FILE));
    if single.exists() {
        let note = index.exists().then(|| format!("{INDEX_FILE} is not read: {WEIGHTS_FILE} is there"));
        return Ok((vec![single], note));
    }
    if !index.exists() {
        return Ok((Vec::new(), None));
    }
    let parsed: Index = serde_json::from_str(&read_text(&index)?)
        .map_err(|error| bad(&index, format!("is not an index of weight files ({error}); download it again")))?;
    let mut names: Vec<String> = parsed.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    match names.iter().find(|name| !is_inside(name)) {
        Some(name) => {
            Err(bad(&index, format!("names {name:?}, which is not a file of this folder; download the index again")))
        }
        None => Ok((names.iter().map(|name| folder.join(name)).collect(), None)),
    }
}

/// Whether a path leads to a file of the folder that it is relative to, or of a folder in it; hidden ones are none.
fn is_inside(name: &str) -> bool {
    let plain =
        |part: Component<'_>| matches!(part, Component::Normal(part) if !part.as_encoded_bytes().starts_with(b"."));
    !name.is_empty() && Path::new(name).components().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_of_training_tools_leave_names() {
        for stored in [
            "model.layers.0.mlp.up_proj.weight",
            "_orig_mod.model.layers.0.mlp.up_proj.weight",
            "module.model.layers.0.mlp.up_proj.weight",
            "base_model.model.model.layers.0.mlp.up_proj.weight",
            "module._orig_mod.model.layers.0.mlp.up_proj.weight",
            "model.layers.0._checkpoint_wrapped_module.mlp._orig_mod.up_proj.weight",
            "_fsdp_wrapped_module.base_model.model.model.layers.0.mlp.up_proj.weight",
        ] {
            assert_eq!(unwrapped(stored), "model.layers.0.mlp.up_proj.weight");
        }
        for own in ["lm_head.weight", "model.module.weight", "modules.0.weight", "blk.0.attn_q.weight"] {
            assert_eq!(unwrapped(own), own);
        }
    }

    #[test]
    fn an_index_names_files_inside_of_its_folder() {
        for inside in ["model-00001-of-00002.safetensors", "shards/a.safetensors", "a/b/c.safetensors"] {
            assert!(is_inside(inside), "{inside}");
        }
        for outside in ["", "/etc/a", "../a", "a/../../b", "./a", ".hidden", "a/.b/c", ".."] {
            assert!(!is_inside(outside), "{outside}");
        }
    }
}
