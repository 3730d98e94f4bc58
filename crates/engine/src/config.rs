//! How large is an engine, and which form of MLA does it serve?

use minke_model::MlaForm;
use minke_tensor::TILE;

use crate::{Error, Result};

/// Most pages of a cache: a place in it (page * 32 + row) is a u32.
const MOST_PAGES: usize = u32::MAX as usize / TILE;

/// Sizes of an engine, and its form of MLA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Pages of the cache, 32 tokens each. They also bound the length of a sequence.
    pub pages: usize,
    /// Most sequences that run at once.
    pub max_sequences: usize,
    /// Most prompt tokens that a step computes.
    pub chunk_tokens: usize,
    /// Form of MLA for the engine's life. `Expanded` is exact mode: log-probabilities are the trainer's to the bit.
    pub form: MlaForm,
    /// Whether full pages outlive their sequences, to be found by others with the same beginning.
    pub prefix_cache: bool,
}

impl EngineConfig {
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
