//! A model with everything that turns messages into ids and ids into text.

use std::collections::BTreeMap;
use std::path::Path;

use minke_engine::SamplingParams;
use minke_model::Transformer;
use minke_spec::cost::parameter_counts;
use minke_tensor::{Device, Tensor};
use minke_text::{ChatTemplate, Message, RenderOptions, THINK_CLOSE, Tokenizer};
use minke_weights::{Archive, PolicyVersion, load_adapter};
use sha2::{Digest, Sha256};

use crate::machine::memory;
use crate::text_files::{template, tokenizer};
use crate::{GenerationConfig, MemoryPlanner, PackedFolder, Prompt, Result, SamplingOptions};

/// The identity of a model, which separates its cache from another's.
pub type Identity = [u8; 32];

/// What a model is, in a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// As its configuration names it: `deepseek_v3`, `qwen2`.
    pub architecture: String,
    /// Number of parameters.
    pub parameters: usize,
    /// The format of most bytes of its weights.
    pub quantization: String,
    /// Bytes of its files of weights.
    pub bytes: u64,
    /// Whether it thinks before it answers.
    pub thinking: Thinking,
}

/// Whether a model thinks before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thinking {
    /// It has no tags for thoughts, in its vocabulary or its template.
    Never,
    /// Its template has a switch.
    Optional,
    /// Its template has none.
    Always,
}

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
    /// What it is.
    pub summary: Summary,
    /// Which version of a policy it is, if it is one that a run publishes.
    pub policy_version: Option<PolicyVersion>,
    /// What a person should know about the files, a line each.
    pub notes: Vec<String>,
}

impl ChatModel {
    /// Loads the model of a folder or a GGUF file to a device, to work on one request at a time.
    ///
    /// # Errors
    /// If a file is missing or broken, or the memory is too small: said before any weight is read.
    pub fn open(path: &Path, device: &Device) -> Result<Self> {
        Self::open_for(path, device, 1, None)
    }

    /// Loads a model to work on so many requests at once, which take memory from its context; its packed copy, if the folder of them
    /// has one of the model as it is now.
    ///
    /// # Errors
    /// As [`ChatModel::open`].
    pub fn open_for(path: &Path, device: &Device, max_running: usize, packed: Option<&PackedFolder>) -> Result<Self> {
        let archive = Archive::open(path)?;
        let have = memory().map_or(u64::MAX, |memory| memory.available);
        let (packed, packed_note) = match packed.map_or(Ok(None), |folder| folder.find(&archive, device)) {
            Ok(packed) => (packed, None),
            Err(reason) => (None, Some(reason)),
        };
        let planner = MemoryPlanner::new(&archive).with_max_running(max_running).for_memory(have).with_packed(packed);
        let context = planner.context(have, None)?;
        archive.check_weights()?;
        let tokenizer = tokenizer(&archive)?;
        let (template, note) = template(&archive, &tokenizer)?;
        let generation = GenerationConfig::read(&archive)?;
        let (device, identity) = (device.clone(), identity(&archive, device));
        let summary = summary(&archive, &tokenizer, &template);
        let model = planner.load(&device)?;
        let notes = archive.notes.iter().cloned().chain(note).chain(packed_note).collect();
        let policy_version = None;
        Ok(Self { device, model, tokenizer, template, generation, context, identity, summary, policy_version, notes })
    }

    /// The same model with an adapter beside its weights, unmerged.
    ///
    /// # Errors
    /// If the folder holds none, or one of another model.
    pub fn with_adapter(mut self, folder: &Path) -> Result<Self> {
        let (_, lora) = load_adapter(&self.device, folder, self.model.config())?;
        let mut sum = Sha256::new();
        sum.update(self.identity);
        for layer in &lora.layers {
            sum.update(&layer.module);
            for value in [&layer.a, &layer.b].into_iter().flat_map(Tensor::read).chain([lora.scale]) {
                sum.update(value.to_le_bytes());
            }
        }
        self.identity = sum.finalize().into();
        self.model.attach(&lora).map_err(minke_weights::Error::from)?;
        Ok(self)
    }

    /// The same model, known as a version of a policy.
    #[must_use]
    pub fn with_policy_version(self, version: PolicyVersion) -> Self {
        Self { policy_version: Some(version), ..self }
    }

    /// How to sample: what the request says, else what the model's makers say.
    pub fn params(&self, options: &SamplingOptions) -> SamplingParams {
        self.generation.params(options, self.end_ids(), self.model.config().max_position_embeddings)
    }

    /// The ids that end an answer.
    pub fn end_ids(&self) -> Vec<u32> {
        self.tokenizer.end_ids(&self.model.config().eos_token_ids)
    }

    /// The prompt that a conversation becomes.
    ///
    /// # Errors
    /// If the template cannot render it.
    pub fn prompt(&self, conversation: &[Message], options: &RenderOptions) -> Result<Prompt> {
        let rendered = self.template.render_for(conversation, options, &self.tokenizer)?;
        Ok(Prompt::rendered(&rendered, &self.tokenizer))
    }

    /// The ids of a conversation, with or without the prompt for an answer.
    ///
    /// # Errors
    /// If the template cannot render it.
    pub fn token_ids(&self, conversation: &[Message], add_generation_prompt: bool) -> Result<Vec<u32>> {
        let options = RenderOptions { add_generation_prompt, ..RenderOptions::default() };
        Ok(self.tokenizer.encode_rendered(&self.template.render_for(conversation, &options, &self.tokenizer)?))
    }
}

fn summary(archive: &Archive, tokenizer: &Tokenizer, template: &ChatTemplate) -> Summary {
    let mut by_format = BTreeMap::<&str, u64>::new();
    for ((_, format), bytes) in archive.components() {
        *by_format.entry(format).or_default() += bytes.stored;
    }
    let most = by_format.into_iter().max_by_key(|(_, bytes)| *bytes).map_or("none", |(format, _)| format);
    let rendered = |thinking| {
        let options = RenderOptions { add_generation_prompt: true, tools: None, thinking: Some(thinking) };
        template.render_with(&[Message::user("a")], &options).ok()
    };
    let has_tags = tokenizer.think_tokens().close.is_some() || template.source().contains(THINK_CLOSE);
    let thinking = match (rendered(true) == rendered(false), has_tags) {
        (false, _) => Thinking::Optional,
        (true, true) => Thinking::Always,
        (true, false) => Thinking::Never,
    };
    Summary {
        architecture: archive.config.model_type.name().to_owned(),
        parameters: parameter_counts(&archive.config).total,
        quantization: most.to_owned(),
        bytes: archive.files.iter().map(|file| file.bytes.len() as u64).sum(),
        thinking,
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
