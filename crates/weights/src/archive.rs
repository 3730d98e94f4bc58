//! The files of a model: its configuration, and where each tensor is: enough to tell what the model is, what is wrong
//! with the files, and whether it fits, before a single weight is read.
//!
//! A model is a folder as on the Hub (`config.json`, safetensors) or GGUF, in one file or split. Both become one table of
//! tensors; `load` reads it by the table of parameters of `minke_spec`. A tensor that belongs to no parameter is refused,
//! unless [`unread`] has the reason why it changes nothing.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use minke_spec::params::{EMBEDDING, HEAD, TensorSource, published_tensors};
use minke_spec::{Format, ModelConfig, ParamRole, ParamSpec, parameters};
use minke_tensor::Bytes;
use serde_json::{Map, Value as Json};

use crate::contents::{
    self, Contents, TensorEntry, WeightFile, bad, gguf_in, read_gguf, read_text, safetensors_in, split_paths,
};
use crate::gguf::Metadata;
use crate::{CONFIG_FILE, GENERATION_FILE, INDEX_FILE, WEIGHTS_FILE, gguf_model};
use crate::{Error, Result, unread};

/// Elements up to which a weight of a format of floats is held as f32 even for inference: norms, biases, and all of a small
/// model, whose products are then faster and to the bit the same.
pub(crate) const SMALL: usize = 1 << 17;

/// The files of a model, of which only headers were read.
pub struct Archive {
    /// The folder, or the first GGUF file.
    pub path: PathBuf,
    /// The configuration.
    pub config: ModelConfig,
    /// Keys of `config.json` that are not known.
    pub unknown_keys: Vec<String>,
    /// What is unusual about the files and was read all the same, in a line each.
    pub notes: Vec<String>,
    /// The weight files; none if a folder has none.
    pub files: Vec<WeightFile>,
    /// What they hold, by name.
    pub tensors: BTreeMap<String, TensorEntry>,
    /// Of GGUF: the metadata, in which tokenizer, template and sampling are.
    pub metadata: Option<Metadata>,
}

impl Archive {
    /// The files of a model, by their headers.
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
        let mut parsed =
            ModelConfig::from_json(&read_text(&config_path)?).map_err(|error| bad(&config_path, error.to_string()))?;
        let generation_path = path.join(GENERATION_FILE);
        if generation_path.exists() {
            let ends = end_tokens(&read_text(&generation_path)?).map_err(|reason| bad(&generation_path, reason))?;
            let config = &mut parsed.config;
            let known = |id: &u32| (*id as usize) < config.vocab_size && !config.eos_token_ids.contains(id);
            let more: Vec<u32> = ends.into_iter().filter(known).collect();
            config.eos_token_ids.extend(more);
        }
        let (paths, note) = safetensors_in(path)?;
        let mut contents = Contents::default();
        for shard in paths {
            contents.add_safetensors(&shard)?;
        }
        let mut notes = Vec::from_iter(note);
        if !parsed.unknown_keys.is_empty() {
            notes.push(format!(
                "{CONFIG_FILE} has keys that are not known and not read: {}",
                parsed.unknown_keys.join(", ")
            ));
        }
        Ok(Self::new(path, parsed.config, parsed.unknown_keys, notes, contents, None))
    }

    fn open_gguf(path: &Path) -> Result<Self> {
        let (bytes, header) = read_gguf(path)?;
        let paths = split_paths(path, &header.metadata)?;
        let mut contents = Contents::default();
        contents.add_gguf(path, bytes, header.tensors)?;
        for part in &paths[1..] {
            let (bytes, header) = read_gguf(part)?;
            contents.add_gguf(part, bytes, header.tensors)?;
        }
        let values = |entry: &TensorEntry| {
            let bytes = contents::bytes(&contents.files, entry);
            let values = bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
            let name = gguf_model::DIVISORS;
            if entry.format() == Some(Format::F32) { Ok(values) } else { Err(format!("{name} is not F32")) }
        };
        let divisors = contents.tensors.get(gguf_model::DIVISORS).map(values).transpose();
        let has = |name: &str| contents.tensors.contains_key(name);
        let config = divisors.and_then(|divisors| gguf_model::config(&header.metadata, &has, divisors));
        let config = config.map_err(|reason| bad(path, reason))?;
        Ok(Self::new(path, config, Vec::new(), Vec::new(), contents, Some(header.metadata)))
    }

    fn new(
        path: &Path,
        mut config: ModelConfig,
        unknown_keys: Vec<String>,
        mut notes: Vec<String>,
        mut contents: Contents,
        metadata: Option<Metadata>,
    ) -> Self {
        if contents.unwrapped > 0 {
            let count = contents.unwrapped;
            notes.push(format!(
                "{count} names of tensors lost what a training tool left in them (module., _orig_mod., ...)"
            ));
        }
        notes.extend(tie_head(&mut config, &mut contents));
        let first = config.num_hidden_layers;
        let has_mtp = contents.tensors.keys().any(|name| unread::layer_of(name).is_some_and(|layer| layer >= first));
        if config.num_nextn_predict_layers > 0 && !contents.tensors.is_empty() && !has_mtp {
            config.remove_mtp();
            notes.push(
                "the layers for multi-token prediction are not in the files; nothing but training uses them".into(),
            );
        }
        let Contents { files, tensors, .. } = contents;
        let mut archive = Self { path: path.into(), config, unknown_keys, notes, files, tensors, metadata };
        let unread: Vec<String> = archive
            .unread()
            .into_iter()
            .map(|(reason, names)| {
                let (first, count) = (names[0], names.len());
                format!("{count} tensors ({first}, ..) are not read: {reason}")
            })
            .collect();
        archive.notes.extend(unread);
        archive
    }

    /// The bytes of all weight files.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes.len() as u64).sum()
    }

    /// Whether a tensor is in a format of codes.
    pub fn is_quantized(&self) -> bool {
        self.tensors.values().filter_map(TensorEntry::format).any(|format| format.block_elements() > 1)
    }

    /// The bytes of a tensor.
    pub(crate) fn bytes(&self, entry: &TensorEntry) -> Bytes {
        contents::bytes(&self.files, entry)
    }

    /// An error about a tensor.
    pub(crate) fn bad_tensor(&self, name: &str, reason: impl Into<String>) -> Error {
        let file = self.tensors.get(name).map_or(&self.path, |entry| &self.files[entry.file].path);
        Error::BadTensor { path: file.clone(), name: name.into(), reason: reason.into() }
    }

    /// The names of the tensors that hold a parameter: one, one per expert, or the two halves of `kv_b_proj`.
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

    /// The entry of a tensor that must be there, in a shape that must fit.
    ///
    /// # Errors
    /// If it is missing, of another shape, or of a format that cannot be computed with.
    pub(crate) fn entry(&self, name: &str, shape: &[usize]) -> Result<(&TensorEntry, Format)> {
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

    /// The format of a tensor that is there.
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

    /// Checks that all weights are there, in shapes and formats that can be loaded, and no tensor that has no place.
    ///
    /// # Errors
    /// The first that is not, or has none.
    pub fn check_weights(&self) -> Result<()> {
        if self.files.is_empty() {
            let what = format!("has no weights; put {WEIGHTS_FILE}, or {INDEX_FILE} with its files, into it");
            return Err(bad(&self.path, what));
        }
        for spec in parameters(&self.config) {
            self.pieces(&spec)?;
        }
        self.refuse_unknown_tensors()
    }

    /// The tensors that hold a parameter, in order: their names, entries and shapes.
    ///
    /// # Errors
    /// As [`Archive::entry`], or if they differ in format.
    pub(crate) fn pieces(&self, spec: &ParamSpec) -> Result<Vec<(String, &TensorEntry, Format)>> {
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

    /// The shapes of the two halves of `kv_b_proj`: [H, C, N] and [H, V, C].
    pub(crate) fn split_shapes(&self) -> [Vec<usize>; 2] {
        let minke_spec::config::AttentionConfig::Mla(mla) = &self.config.attention else {
            unreachable!("invariant: only latent attention has kv_b_proj")
        };
        let heads = self.config.num_attention_heads;
        [vec![heads, mla.kv_lora_rank, mla.qk_nope_head_dim], vec![heads, mla.v_head_dim, mla.kv_lora_rank]]
    }

    /// The names of all tensors that belong to a parameter, scales and copies included.
    fn known_tensors(&self) -> HashSet<String> {
        let mut known: HashSet<String> = parameters(&self.config).iter().flat_map(|spec| self.names(spec)).collect();
        let copies =
            published_tensors(&self.config).into_iter().filter(|t| matches!(t.source, TensorSource::CopyOf(_)));
        if self.metadata.is_none() {
            known.extend(copies.map(|tensor| tensor.name));
        } else {
            known.insert(gguf_model::DIVISORS.into());
            let mtp = self.config.num_hidden_layers..self.config.num_layers_with_mtp();
            known.extend(mtp.flat_map(gguf_model::mtp_copies));
        }
        let scale_of = |name: &&String| name.strip_suffix("_scale_inv").is_some_and(|weight| known.contains(weight));
        let scales: Vec<String> = self.tensors.keys().filter(scale_of).cloned().collect();
        known.extend(scales);
        known
    }

    /// The tensors that belong to no parameter and change nothing, by the reason.
    fn unread(&self) -> BTreeMap<&'static str, Vec<&str>> {
        let known = self.known_tensors();
        let mut unread: BTreeMap<_, Vec<&str>> = BTreeMap::new();
        for name in self.tensors.keys().filter(|name| !known.contains(*name)) {
            if let Some(reason) = unread::reason(&self.config, name) {
                unread.entry(reason).or_default().push(name);
            }
        }
        unread
    }

    /// Refuses tensors that belong to no parameter and may change what the model computes.
    pub(crate) fn refuse_unknown_tensors(&self) -> Result<()> {
        let known = self.known_tensors();
        let unknown = |name: &&String| !known.contains(*name) && unread::reason(&self.config, name).is_none();
        let mut unknown = self.tensors.keys().filter(unknown);
        let Some(first) = unknown.next() else { return Ok(()) };
        let (family, more) = (self.config.model_type.name(), unknown.count());
        let more = if more > 0 { format!(" (nor have {more} more)") } else { String::new() };
        let reason = format!("has no place in {family}{more}; what it would change is not known");
        Err(self.bad_tensor(first, reason))
    }
}

/// The tokens that end a turn in a generation_config.json. Null is none, and so is a number below zero.
fn end_tokens(text: &str) -> std::result::Result<Vec<u32>, String> {
    let config: Map<String, Json> =
        serde_json::from_str(text).map_err(|error| format!("is not a JSON object ({error}); correct it"))?;
    let ids = match config.get("eos_token_id") {
        None | Some(Json::Null) => &[],
        Some(Json::Array(ids)) => ids.as_slice(),
        Some(id) => std::slice::from_ref(id),
    };
    let wrong = |id: &Json| format!("eos_token_id has {id}; it must be a token id, a list of them, or null");
    let id = |id: &Json| match id.as_f64() {
        Some(number) if number < 0.0 => None,
        Some(number) if number.fract() == 0.0 && number <= f64::from(u32::MAX) => Some(Ok(number as u32)),
        _ => Some(Err(wrong(id))),
    };
    ids.iter().filter_map(id).collect()
}

/// Makes one tensor of embedding and head if the configuration ties them: as in transformers, a head that differs from the
/// embedding is a head of its own, and one without an embedding stands for both. Returns a note.
fn tie_head(config: &mut ModelConfig, contents: &mut Contents) -> Option<String> {
    if !config.tie_word_embeddings {
        return None;
    }
    let head = contents.tensors.get(HEAD)?;
    let Some(embedding) = contents.tensors.get(EMBEDDING) else {
        let head = contents.tensors.remove(HEAD)?;
        contents.tensors.insert(EMBEDDING.into(), head);
        return None;
    };
    let bytes = |entry: &TensorEntry| contents::bytes(&contents.files, entry);
    if head.dtype == embedding.dtype && bytes(head)[..] == bytes(embedding)[..] {
        return None;
    }
    config.tie_word_embeddings = false;
    Some(format!("{HEAD} is not the embedding, though {CONFIG_FILE} ties them: it is the head, as in transformers"))
}
