//! What lies in a model's folder? Its configuration, and the headers of its weight files: enough to say what the model is,
//! what is wrong with the files, and whether it fits, before a single weight is read.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Result;
use minke_model::weights::{CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE};
use minke_spec::params::{Source, published_tensors};
use minke_spec::{Format, ModelConfig, parameters};
use serde::Deserialize;

use crate::error::Exit;

/// Formats that the loader reads.
const LOADABLE: [Format; 3] = [Format::F32, Format::F16, Format::Bf16];
/// Bytes of the longest header; R1's largest has less than a tenth.
const LONGEST_HEADER: u64 = 100 << 20;

/// A model's folder, of which only headers were read.
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// The configuration.
    pub config: ModelConfig,
    /// Keys of the configuration that mean nothing here.
    pub unknown_keys: Vec<String>,
    /// The weight files; none if the folder has none.
    pub shards: Vec<Shard>,
}

/// A weight file.
pub struct Shard {
    /// Its path.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// What it holds, by name.
    pub tensors: BTreeMap<String, Header>,
}

/// A tensor as the header of its file describes it.
#[derive(Deserialize)]
pub struct Header {
    /// Name of the format, as in the file.
    pub dtype: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Where its bytes are, counted from the end of the header.
    pub data_offsets: (u64, u64),
}

impl Folder {
    /// Returns what the headers of a folder say.
    ///
    /// # Errors
    /// If it is no folder of a model, or a file in it is missing, cut short or of another kind.
    pub fn read(path: &Path) -> Result<Self> {
        let bad = |reason: &str| Err(Exit::BadFile.because(format!("{}: {reason}", path.display())));
        if !path.exists() {
            return bad("no such folder; check the spelling");
        }
        if !path.is_dir() {
            return bad("is a file; give the folder that holds config.json and the weights");
        }
        let config_path = path.join(CONFIG_FILE);
        if !config_path.exists() {
            return bad("has no config.json; give the folder of a model as published on the Hugging Face Hub");
        }
        let parsed = ModelConfig::from_json(&read_text(&config_path)?)
            .map_err(|error| Exit::BadFile.because(format!("{}: {error}", config_path.display())))?;
        let shards = shard_paths(path)?.iter().map(|shard| Shard::read(shard)).collect::<Result<_>>()?;
        Ok(Self { path: path.into(), config: parsed.config, unknown_keys: parsed.unknown_keys, shards })
    }

    /// Returns how many bytes the weights take while they are loaded: all of them as F32, and the largest file as it is.
    pub fn loading_bytes(&self) -> u64 {
        let elements: usize = parameters(&self.config).iter().map(|spec| spec.elements()).sum();
        let largest = self.shards.iter().map(|shard| shard.bytes).max().unwrap_or(0);
        elements as u64 * Format::F32.bytes(1) as u64 + largest
    }

    /// Checks that all weights are there, in shapes and formats that can be loaded.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check_weights(&self) -> Result<()> {
        let bad = |path: &Path, reason: String| Err(Exit::BadFile.because(format!("{}: {reason}", path.display())));
        if self.shards.is_empty() {
            return bad(
                &self.path,
                format!("has no weights; put {WEIGHTS_FILE}, or {INDEX_FILE} with its files, into it"),
            );
        }
        let mut found: HashMap<&str, (&Path, &Header)> = HashMap::new();
        for shard in &self.shards {
            found.extend(shard.tensors.iter().map(|(name, header)| (name.as_str(), (shard.path.as_path(), header))));
        }
        for tensor in published_tensors(&self.config) {
            if !matches!(tensor.source, Source::Own { .. }) {
                continue;
            }
            let name = tensor.name;
            let Some((path, header)) = found.get(name.as_str()) else {
                return bad(
                    &self.path,
                    format!("tensor {name} is missing; are all files of this model in the folder?"),
                );
            };
            if header.shape != tensor.shape {
                let (have, want) = (&header.shape, &tensor.shape);
                let advice = "do weights and configuration belong together?";
                return bad(path, format!("tensor {name} has shape {have:?}, config.json says {want:?}; {advice}"));
            }
            if !LOADABLE.iter().any(|format| format.name() == header.dtype) {
                let names = LOADABLE.map(Format::name).join(", ");
                return bad(
                    path,
                    format!("tensor {name} is {}, which cannot be loaded; supported are {names}", header.dtype),
                );
            }
        }
        Ok(())
    }
}

impl Shard {
    fn read(path: &Path) -> Result<Self> {
        let bad = |reason: String| Exit::BadFile.because(format!("{}: {reason}", path.display()));
        let cannot_read = |error: std::io::Error| bad(format!("cannot be read: {error}"));
        let mut file = File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => bad("is missing; download it from where the other files come from".into()),
            _ => cannot_read(error),
        })?;
        let bytes = file.metadata().map_err(cannot_read)?.len();
        let mut start = Vec::new();
        file.by_ref().take(8).read_to_end(&mut start).map_err(cannot_read)?;
        let header_bytes = start.first_chunk().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
        if header_bytes > LONGEST_HEADER {
            file.take(512).read_to_end(&mut start).map_err(cannot_read)?;
            return Err(bad(other_kind(&start).into()));
        }
        let short = || {
            let advice = "the download was cut short; download it again";
            bad(format!("has {bytes} bytes, fewer than its header says: {advice}"))
        };
        let mut header = Vec::new();
        file.take(header_bytes).read_to_end(&mut header).map_err(cannot_read)?;
        if (header.len() as u64) < header_bytes {
            return Err(short());
        }
        let mut entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header)
            .map_err(|error| bad(format!("its header is broken ({error}); download it again")))?;
        entries.remove("__metadata__");
        let read = |(name, value)| match serde_json::from_value::<Header>(value) {
            Ok(header) => Ok((name, header)),
            Err(error) => Err(bad(format!("its header is broken at {name} ({error}); download it again"))),
        };
        let tensors: BTreeMap<String, Header> = entries.into_iter().map(read).collect::<Result<_>>()?;
        let end = tensors.values().map(|tensor| tensor.data_offsets.1).max().unwrap_or(0);
        if end.saturating_add(8 + header_bytes) > bytes {
            return Err(short());
        }
        Ok(Self { path: path.into(), bytes, tensors })
    }
}

impl Header {
    /// Returns the length of the tensor in the file.
    pub fn bytes(&self) -> u64 {
        self.data_offsets.1.saturating_sub(self.data_offsets.0)
    }
}

/// Says what a file is that should be safetensors, by its first bytes.
fn other_kind(start: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(start).trim_start().to_ascii_lowercase();
    if text.starts_with("<!doctype") || text.starts_with("<html") {
        "is a web page, not safetensors: the download went wrong; download the file itself"
    } else if text.starts_with("version https://git-lfs") {
        "is a Git LFS pointer, not the weights themselves; fetch them with `git lfs pull`"
    } else if start.starts_with(b"GGUF") {
        "is GGUF, which is not supported; use the safetensors files of the model"
    } else if start.starts_with(b"PK") {
        "is a PyTorch file, not safetensors; use the safetensors files of the model"
    } else {
        "is not a safetensors file; download it again"
    }
}

fn shard_paths(folder: &Path) -> Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let (index, single) = (folder.join(INDEX_FILE), folder.join(WEIGHTS_FILE));
    if !index.exists() {
        return Ok(if single.exists() { vec![single] } else { vec![] });
    }
    let bad = |reason: String| Exit::BadFile.because(format!("{}: {reason}", index.display()));
    let parsed: Index = serde_json::from_str(&read_text(&index)?)
        .map_err(|error| bad(format!("is not an index of weight files ({error}); download it again")))?;
    let mut names: Vec<String> = parsed.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    match names.iter().find(|name| Path::new(name).components().count() != 1 || name.starts_with('.')) {
        Some(name) => Err(bad(format!("names {name:?}, which is not a file of this folder; download the index again"))),
        None => Ok(names.iter().map(|name| folder.join(name)).collect()),
    }
}

/// Returns the text of a file of the folder.
pub fn read_text(path: &Path) -> Result<String> {
    let cannot = |error| Exit::BadFile.because(format!("cannot read {}: {error}", path.display()));
    std::fs::read_to_string(path).map_err(cannot)
}
