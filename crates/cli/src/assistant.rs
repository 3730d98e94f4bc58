//! A loaded model and an engine with its cache.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Result;
use minke_chat::{CHUNK_TOKENS, ChatModel, SamplingOptions};
use minke_engine::{Engine, EngineConfig, SamplingParams};
use minke_tensor::{Device, PAGE_TOKENS};
use minke_text::Message;

/// A model that answers; clones share it and its cache.
#[derive(Clone)]
pub struct Assistant {
    loaded: Arc<ChatModel>,
    engine: Arc<Mutex<Engine>>,
}

impl Assistant {
    /// Loads the model of a folder to a device, with a cache for its whole context or as much as fits.
    ///
    /// # Errors
    /// As [`ChatModel::open`].
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let loaded = ChatModel::open(path, device)?;
        loaded.notes.iter().for_each(|note| eprintln!("minke: {note}"));
        let config = loaded.model.config();
        let sizes = EngineConfig::default()
            .with_pages(loaded.context.div_ceil(PAGE_TOKENS))
            .with_max_sequences(1)
            .with_chunk_tokens(CHUNK_TOKENS);
        let engine = Engine::new(&loaded.device, config, sizes)?;
        Ok(Self { loaded: Arc::new(loaded), engine: Arc::new(Mutex::new(engine)) })
    }

    /// The model.
    pub fn loaded(&self) -> &ChatModel {
        &self.loaded
    }

    /// The engine; waits for the end of a step that is under way.
    pub fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().expect("invariant: a panic while computing ends the program")
    }

    /// How to sample: what the person said, else what the model's makers say.
    pub fn params(&self, said: &SamplingOptions) -> SamplingParams {
        self.loaded.params(said)
    }

    /// The ids of a conversation, with or without the prompt for an answer.
    ///
    /// # Errors
    /// If the template cannot render it.
    pub fn token_ids(&self, conversation: &[Message], add_generation_prompt: bool) -> Result<Vec<u32>> {
        Ok(self.loaded.token_ids(conversation, add_generation_prompt)?)
    }
}
