//! A model with everything that turns messages into ids and ids into text.

use std::path::Path;

use minke_engine::SamplingParams;
use minke_model::Transformer;
use minke_tensor::Device;
use minke_text::{ChatTemplate, Message, RenderOptions, Tokenizer};
use minke_weights::Archive;
use sha2::{Digest, Sha256};

use crate::machine::memory;
use crate::text_files::{template, tokenizer};
use crate::{GenerationConfig, MemoryPlanner, Prompt, Result, SamplingOptions};

/// The identity of a model, which separates its cache from another's.
pub type Identity = [u8; 32];

/// A model, loaded.
pub struct ChatModel {
    /// Where it computes.
    pub device: Device,
    /// The weights.
    pub model: Transformer,
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// Messages to prompt.
    pub template: ChatTemplate,
    /// How its makers sample from it.
    pub generation: GenerationConfig,
    /// Tokens of context that fit into memory.
    pub context: usize,
    /// Which model this is, in which build and on which path of instructions.
    pub identity: Identity,
    /// What a person should know about the files, a line each.
    pub notes: Vec<String>,
}

impl ChatModel {
    /// Loads the model of a folder or a GGUF file to a device.
    ///
    /// # Errors
    /// If a file is missing or broken, or the memory is too small: said before any weight is read.
    pub fn open(path: &Path, device: &Device) -> Result<Self> {
        let archive = Archive::open(path)?;
        let have = memory().map_or(u64::MAX, |memory| memory.available);
        let context = MemoryPlanner::new(&archive).context(have, None)?;
        archive.check_weights()?;
        let tokenizer = tokenizer(&archive)?;
        let (template, note) = template(&archive, &tokenizer)?;
        let generation = GenerationConfig::read(&archive)?;
        let (device, identity) = (device.clone(), identity(&archive, device));
        let model = archive.load(&device)?;
        let notes = archive.notes.iter().cloned().chain(note).collect();
        Ok(Self { device, model, tokenizer, template, generation, context, identity, notes })
    }

    /// How to sample: what the request says, else what the model's makers say.
    pub fn params(&self, options: &SamplingOptions) -> SamplingParams {
        let config = self.model.config();
        let ends = self.tokenizer.end_ids(&config.eos_token_ids);
        self.generation.params(options, ends, config.max_position_embeddings)
    }

    /// The prompt that a conversation becomes.
    ///
    /// # Errors
    /// If the template cannot render it.
    pub fn prompt(&self, conversation: &[Message], options: &RenderOptions) -> Result<Prompt> {
        Ok(Prompt::new(&self.template.render_with(conversation, options)?, &self.tokenizer))
    }

    /// The ids of a conversation, with or without the prompt for an answer.
    ///
    /// # Errors
    /// If the template cannot render it.
    pub fn token_ids(&self, conversation: &[Message], add_generation_prompt: bool) -> Result<Vec<u32>> {
        Ok(self.tokenizer.encode_prompt(&self.template.render(conversation, add_generation_prompt)?))
    }
}

/// A sum over what decides about the numbers in the cache: configuration, names, sizes and times of the files of weights,
/// instructions and version. To sum up the weights themselves would take as long as to load them.
fn identity(archive: &Archive, device: &Device) -> Identity {
    let mut sum = Sha256::new();
    sum.update(format!("{} {} {:?}", env!("CARGO_PKG_VERSION"), device.name(), archive.config));
    for file in &archive.files {
        let changed = std::fs::metadata(&file.path).and_then(|data| data.modified()).ok();
        sum.update(format!("{:?} {} {changed:?}", file.path.file_name(), file.bytes.len()));
    }
    sum.finalize().into()
}
