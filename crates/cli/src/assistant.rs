//! How does a question become an answer? A model, loaded with everything that turns text into ids and back, answers one
//! conversation at a time and says every piece of text as soon as it is certain.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use minke_engine::{Engine, EngineConfig, Finish, SamplingParams};
use minke_model::weights::Archive;
use minke_model::weights::gguf::{Metadata, Value};
use minke_model::{MlaForm, Transformer};
use minke_tensor::{Cpu, Device, Isa, TILE};
use minke_text::{ChatTemplate, Message, ReasoningEvent, ReasoningParser, Tokenizer, Utf8Stream};
use serde::Deserialize;

use crate::args::Sampling;
use crate::error::Exit;
use crate::fit::{CHUNK_TOKENS, Fit};
use crate::folder::{read_text, template, tokenizer};
use crate::interrupt::Interrupt;
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
        let model = archive.load(&device)?;
        Ok(Self { device, model, tokenizer, template, generation, context })
    }
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
        let said = Sampling { temperature: None, top_p: None, seed: 0, max_tokens: Some(1) };
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
        SamplingParams {
            temperature: said.temperature.unwrap_or(own_temperature),
            top_p: said.top_p.unwrap_or(self.top_p),
            top_k: self.top_k,
            min_p: self.min_p,
            seed: said.seed,
            max_tokens: said.max_tokens.or(self.max_new_tokens).unwrap_or(context),
            stop_ids,
        }
    }
}

/// A model that answers.
pub struct Assistant {
    loaded: Loaded,
    engine: Engine,
}

/// An answer and what it took.
pub struct Answer {
    /// The thought, if there was one.
    pub reasoning: Option<String>,
    /// The answer itself.
    pub content: String,
    /// Why it ended.
    pub finish: Finish,
    /// Length of the prompt in tokens.
    pub prompt_tokens: usize,
    /// Length of thought and answer in tokens.
    pub completion_tokens: usize,
    /// Time from question to end.
    pub seconds: f64,
}

impl Assistant {
    /// Returns the model of a folder, with a cache for its whole context or as much as fits.
    ///
    /// # Errors
    /// As [`Loaded::read`].
    pub fn load(path: &Path, threads: usize) -> Result<Self> {
        let loaded = Loaded::read(path, threads)?;
        let config = loaded.model.config();
        let sizes = EngineConfig {
            pages: loaded.context.div_ceil(TILE),
            max_sequences: 1,
            chunk_tokens: CHUNK_TOKENS,
            form: MlaForm::Absorbed,
            prefix_cache: true,
        };
        let engine = Engine::new(&loaded.device, config, sizes)?;
        Ok(Self { loaded, engine })
    }

    /// Returns the answer to a conversation. `say` hears every piece of it once; Ctrl-C ends it early.
    ///
    /// # Errors
    /// If the conversation does not fit into the context, or `say` fails.
    pub fn answer(
        &mut self,
        conversation: &[Message],
        sampling: &Sampling,
        interrupt: &Interrupt,
        say: &mut dyn FnMut(&ReasoningEvent) -> Result<()>,
    ) -> Result<Answer> {
        let start = Instant::now();
        let Loaded { model, tokenizer, template, generation, .. } = &self.loaded;
        let prompt = template.render(conversation, true)?;
        let prompt_ids = tokenizer.encode(&prompt);
        let config = model.config();
        let params = generation.params(sampling, &config.eos_token_ids, config.max_position_embeddings);
        let sequence = self.engine.submit(&prompt_ids, &params, 1)?[0];
        let mut text = Utf8Stream::default();
        let mut parser = ReasoningParser::new(&prompt);
        let mut parts = Parts { reasoning: None, content: String::new(), say };
        while !self.engine.is_idle() {
            if interrupt.is_raised() {
                self.engine.cancel(sequence);
                break;
            }
            for token in self.engine.step(model)? {
                let stops = matches!(token.finish, Some(Finish::Stop(_)));
                if !stops && !tokenizer.is_special(token.token_id) {
                    let heard = parts.hear(parser.push(&text.push(tokenizer.token_bytes(token.token_id))));
                    if heard.is_err() {
                        self.engine.cancel(sequence);
                    }
                    heard?;
                }
            }
        }
        parts.hear(parser.push(&text.finish()))?;
        parts.hear(parser.finish())?;
        let completion = self.engine.take(sequence).expect("invariant: a sequence that has ended is there to be taken");
        Ok(Answer {
            reasoning: parts.reasoning,
            content: parts.content,
            finish: completion.finish,
            prompt_tokens: prompt_ids.len(),
            completion_tokens: completion.token_ids.len(),
            seconds: start.elapsed().as_secs_f64(),
        })
    }
}

/// What was said so far.
struct Parts<'a> {
    reasoning: Option<String>,
    content: String,
    say: &'a mut dyn FnMut(&ReasoningEvent) -> Result<()>,
}

impl Parts<'_> {
    fn hear(&mut self, events: Vec<ReasoningEvent>) -> Result<()> {
        for event in events {
            match &event {
                ReasoningEvent::Reasoning(piece) => self.reasoning.get_or_insert_default().push_str(piece),
                ReasoningEvent::Content(piece) => self.content.push_str(piece),
            }
            (self.say)(&event)?;
        }
        Ok(())
    }
}
