//! Sizes of an engine, the form of MLA that it serves, and whether it drafts.

use minke_model::MlaForm;
use minke_tensor::{Dtype, PAGE_TOKENS};

use crate::{Error, Result};

/// Most pages of a cache: a place in it (page * 32 + row) is a u32.
const MOST_PAGES: usize = u32::MAX as usize / PAGE_TOKENS;

/// Whether sequences are drafted for by multi-token prediction, of a model that has it. No token, log-probability or count
/// depends on it, only when a token comes: a step may give a sequence two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speculation {
    /// Never; the cache has no layer for it.
    #[default]
    Off,
    /// Where it is faster, by the engine's own measurement.
    WhereItPays,
    /// In every step.
    Always,
}

/// Sizes of an engine, its form of MLA, and whether it drafts.
///
/// # Examples
/// ```
/// use minke_engine::EngineConfig;
/// let config = EngineConfig::default().with_pages(64).with_max_sequences(4);
/// assert_eq!((config.pages, config.chunk_tokens), (64, 512));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineConfig {
    /// Pages of the cache, 32 tokens each. They also bound the length of a sequence.
    pub pages: usize,
    /// Most sequences that run at once.
    pub max_sequences: usize,
    /// Most sequences that wait for a place among those that run; [`Engine::submit`](crate::Engine::submit) refuses
    /// more. A server sets it; without a bound, a list of any length can be submitted at once.
    pub max_waiting: usize,
    /// Most prompt tokens that a step computes.
    pub chunk_tokens: usize,
    /// Form of MLA for the engine's life.
    pub form: MlaForm,
    /// Whether full pages outlive their sequences, to be found by others with the same beginning.
    pub prefix_cache: bool,
    /// How the cache keeps keys, values and latents: `Bf16` takes half of the memory of `F32`.
    pub cache_dtype: Dtype,
    /// Whether sequences are drafted for.
    pub speculation: Speculation,
}

impl Default for EngineConfig {
    /// For serving: 256 pages (8,192 tokens), 16 sequences, any number waiting, prompts in chunks of 512 tokens,
    /// absorbed, with a prefix cache in BF16, without drafts.
    fn default() -> Self {
        Self {
            pages: 256,
            max_sequences: 16,
            max_waiting: usize::MAX,
            chunk_tokens: 512,
            form: MlaForm::Absorbed,
            prefix_cache: true,
            cache_dtype: Dtype::Bf16,
            speculation: Speculation::Off,
        }
    }
}

impl EngineConfig {
    /// Sets [`pages`](Self::pages).
    #[must_use]
    pub fn with_pages(self, pages: usize) -> Self {
        Self { pages, ..self }
    }

    /// Sets [`max_sequences`](Self::max_sequences).
    #[must_use]
    pub fn with_max_sequences(self, max_sequences: usize) -> Self {
        Self { max_sequences, ..self }
    }

    /// Sets [`max_waiting`](Self::max_waiting).
    #[must_use]
    pub fn with_max_waiting(self, max_waiting: usize) -> Self {
        Self { max_waiting, ..self }
    }

    /// Sets [`chunk_tokens`](Self::chunk_tokens).
    #[must_use]
    pub fn with_chunk_tokens(self, chunk_tokens: usize) -> Self {
        Self { chunk_tokens, ..self }
    }

    /// Sets [`form`](Self::form).
    #[must_use]
    pub fn with_form(self, form: MlaForm) -> Self {
        Self { form, ..self }
    }

    /// Sets [`prefix_cache`](Self::prefix_cache).
    #[must_use]
    pub fn with_prefix_cache(self, prefix_cache: bool) -> Self {
        Self { prefix_cache, ..self }
    }

    /// Sets [`cache_dtype`](Self::cache_dtype).
    #[must_use]
    pub fn with_cache_dtype(self, cache_dtype: Dtype) -> Self {
        Self { cache_dtype, ..self }
    }

    /// Sets [`speculation`](Self::speculation).
    #[must_use]
    pub fn with_speculation(self, speculation: Speculation) -> Self {
        Self { speculation, ..self }
    }

    /// Exact mode, in which log-probabilities are the trainer's to the bit: expanded, with a cache of F32.
    #[must_use]
    pub fn exact(self) -> Self {
        self.with_form(MlaForm::Expanded).with_cache_dtype(Dtype::F32)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// If one lies outside its range; the error names it.
    pub fn validate(&self) -> Result<()> {
        let check = |ok: bool, field: &'static str, value: usize, range: &'static str| {
            if ok { Ok(()) } else { Err(Error::Setting { field, value: value.to_string(), range }) }
        };
        check((1..=MOST_PAGES).contains(&self.pages), "pages", self.pages, "1 to 134217727")?;
        check(self.max_sequences > 0, "max_sequences", self.max_sequences, "at least 1")?;
        check(self.chunk_tokens > 0, "chunk_tokens", self.chunk_tokens, "at least 1")
    }
}
