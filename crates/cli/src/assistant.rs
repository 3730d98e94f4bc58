//! What is needed to answer? A model, loaded with everything that turns text into ids and back, and an engine with its cache.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Result;
use minke_engine::{Engine, EngineConfig, SamplingParams};
use minke_model::Transformer;
use minke_tensor::{Cpu, Device, Isa, TILE};
use minke_text::{ChatTemplate, Message, Tokenizer};
use minke_weights::Archive;
use minke_weights::gguf::{Metadata, Value};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::args::Sampling;
use crate::error::Exit;
use crate::fit::{CHUNK_TOKENS, Fit};
use crate::folder::{read_text, template, tokenizer};
use crate::machine::memory;

/// What a model's folder holds, loaded.
pub struct Loaded {
    /// Where it computes.
    pub device: Device,
    /// The weights.
    pub model: Transformer,
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// Messages to prompt.
    pub template: ChatTemplate,
    /// How its makers sample from it.
    pub generation: Generation,
    /// Tokens of context that fit into memory.
    pub context: usize,
    /// Which model this is, in which build and on which path of instructions.
    pub identity: Identity,
}

/// The part of `generation_config.json` that is obeyed. R1's recommendation fills what the file does not say.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Generation {
    /// False for greedy.
    #[serde(default = "yes")]
    do_sample: bool,
    #[serde(default = "temperature")]
    temperature: f32,
    #[serde(default = "top_p")]
    top_p: f32,
    #[serde(default)]
    top_k: usize,
    #[serde(default)]
    min_p: f32,
    #[serde(default)]
    max_new_tokens: Option<usize>,
    #[serde(default)]
    eos_token_id: Option<OneOrMore>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(u32),
    More(Vec<u32>),
}

fn yes() -> bool {
    true
}

fn temperature() -> f32 {
    0.6
}

fn top_p() -> f32 {
    0.95
}

impl Loaded {
    /// Returns the model of a folder.
    ///
    /// # Errors
    /// If a file is missing or broken, or the memory is too small: said before any weight is read.
    pub fn read(path: &Path, threads: usize) -> Result<Self> {
        let archive = Archive::open(path)?;
        let have = memory().map_or(u64::MAX, |memory| memory.available);
        let context = Fit::new(&archive).context(have, None)?;
        archive.check_weights()?;
        let tokenizer = tokenizer(&archive)?;
        let (template, note) = template(&archive, &tokenizer)?;
        if let Some(note) = note {
            eprintln!("minke: {note}");
        }
        let generation = Generation::read(&archive)?;
        let device = Device::Cpu(Cpu::new(threads, Isa::detect()));
        let identity = identity(&archive);
        let model = archive.load(&device)?;
        Ok(Self { device, model, tokenizer, template, generation, context, identity })
    }
}

/// Returns a sum over what decides about the numbers in the cache: configuration, names, sizes and times of the files of
/// weights, instructions and version. To sum up the weights themselves would take as long as to load them.
fn identity(archive: &Archive) -> Identity {
    let mut sum = Sha256::new();
    sum.update(format!("{} {:?} {:?}", env!("CARGO_PKG_VERSION"), Isa::detect(), archive.config));
    for file in &archive.files {
        let changed = std::fs::metadata(&file.path).and_then(|data| data.modified()).ok();
        sum.update(format!("{:?} {} {changed:?}", file.path.file_name(), file.bytes.len()));
    }
    sum.finalize().into()
}

impl Generation {
    fn read(archive: &Archive) -> Result<Self> {
        let path = archive.path.join("generation_config.json");
        let text = match &archive.metadata {
            Some(metadata) => Self::in_metadata(metadata).to_string(),
            None if path.exists() => read_text(&path)?,
            None => "{}".into(),
        };
        let broken = |reason: String| {
            Exit::BadFile.because(format!("{}: {reason}; correct the file or remove it", path.display()))
        };
        let read: Self = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
        let said = Sampling { max_tokens: Some(1), ..Sampling::default() };
        read.params(&said, &[], 1).validate().map_err(|error| broken(error.to_string()))?;
        Ok(read)
    }

    /// Returns what the metadata of a GGUF file say, in the form of a generation_config.json.
    fn in_metadata(metadata: &Metadata) -> serde_json::Value {
        let mut said = serde_json::Map::new();
        for (key, name) in [
            ("temperature", "general.sampling.temp"),
            ("top_p", "general.sampling.top_p"),
            ("top_k", "general.sampling.top_k"),
            ("min_p", "general.sampling.min_p"),
            ("eos_token_id", "tokenizer.ggml.eot_token_id"),
        ] {
            match metadata.get(name) {
                Some(Value::Float(value)) => said.insert(key.into(), (*value).into()),
                Some(value) => value.unsigned().and_then(|value| said.insert(key.into(), value.into())),
                None => None,
            };
        }
        serde_json::Value::Object(said)
    }

    /// Returns how to sample: what the person said, else what the model's makers say.
    fn params(&self, said: &Sampling, eos_token_ids: &[u32], context: usize) -> SamplingParams {
        let mut stop_ids = eos_token_ids.to_vec();
        match &self.eos_token_id {
            Some(OneOrMore::One(id)) => stop_ids.push(*id),
            Some(OneOrMore::More(ids)) => stop_ids.extend(ids),
            None => {}
        }
        let own_temperature = if self.do_sample { self.temperature } else { 0.0 };
        SamplingParams::default()
            .with_temperature(said.temperature.unwrap_or(own_temperature))
            .with_top_p(said.top_p.unwrap_or(self.top_p))
            .with_top_k(said.top_k.unwrap_or(self.top_k))
            .with_min_p(said.min_p.unwrap_or(self.min_p))
            .with_seed(said.seed)
            .with_max_tokens(said.max_tokens.or(self.max_new_tokens).unwrap_or(context))
            .with_stop_ids(stop_ids)
    }
}

/// What tells one model's cache from another's.
pub type Identity = [u8; 32];

/// A model that answers; clones share it and its cache.
#[derive(Clone)]
pub struct Assistant {
    loaded: Arc<Loaded>,
    engine: Arc<Mutex<Engine>>,
}

impl Assistant {
    /// Returns the model of a folder, with a cache for its whole context or as much as fits.
    ///
    /// # Errors
    /// As [`Loaded::read`].
    pub fn load(path: &Path, threads: usize) -> Result<Self> {
        let loaded = Loaded::read(path, threads)?;
        let config = loaded.model.config();
        let sizes = EngineConfig::default()
            .with_pages(loaded.context.div_ceil(TILE))
            .with_max_sequences(1)
            .with_chunk_tokens(CHUNK_TOKENS);
        let engine = Engine::new(&loaded.device, config, sizes)?;
        Ok(Self { loaded: Arc::new(loaded), engine: Arc::new(Mutex::new(engine)) })
    }

    /// Returns the model.
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// Returns the engine; waits for the end of a step that is under way.
    pub fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().expect("invariant: a panic while computing ends the program")
    }

    /// Returns how to sample: what the person said, else what the model's makers say.
    pub fn params(&self, said: &Sampling) -> SamplingParams {
        let config = self.loaded.model.config();
        self.loaded.generation.params(said, &config.eos_token_ids, config.max_position_embeddings)
    }

    /// Returns a conversation as the model reads it, with or without the prompt for an answer.
    ///
    /// # Errors
    /// If the template cannot render it.
    pub fn token_ids(&self, conversation: &[Message], add_generation_prompt: bool) -> Result<Vec<u32>> {
        Ok(self.loaded.tokenizer.encode(&self.loaded.template.render(conversation, add_generation_prompt)?))
    }
}
