//! The vocabulary of a model as grammars see it.

use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::api::ParserLimits;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};

use super::GrammarError;
use crate::Tokenizer;

/// The tokens of a model, prepared for grammars. It is made once for a tokenizer and used for all grammars; a clone shares it.
#[derive(Clone)]
pub struct GrammarVocabulary {
    shared: Arc<Shared>,
}

struct Shared {
    factory: ParserFactory,
    end_ids: Vec<u32>,
    /// The added tokens that are matched by their id alone, the longest first.
    controls: Vec<(String, u32)>,
}

impl GrammarVocabulary {
    /// The vocabulary of a tokenizer, for a model with so many rows of logits, of which these ids end an answer
    /// ([`Tokenizer::end_ids`]).
    ///
    /// Added tokens other than white space occur in a text only where a grammar asks for them, even if their letters would fit.
    ///
    /// # Errors
    /// No end id is one of the model's, or the library refuses the vocabulary.
    pub fn new(tokenizer: &Tokenizer, vocab_size: usize, end_ids: &[u32]) -> Result<Self, GrammarError> {
        let mut ends: Vec<u32> = end_ids.iter().copied().filter(|id| (*id as usize) < vocab_size).collect();
        ends.sort_unstable();
        ends.dedup();
        let Some(first) = ends.first().copied() else {
            return Err(GrammarError::new("the model has no token that ends an answer, so no grammar could end"));
        };
        let size = u32::try_from(vocab_size).map_err(|_| GrammarError::new("the vocabulary is too large"))?;
        let mut controls: Vec<(String, u32)> =
            tokenizer.control_tokens().into_iter().map(|(id, token)| (token.to_owned(), id)).collect();
        controls.retain(|(_, id)| *id < size);
        controls.sort_by_key(|(token, _)| std::cmp::Reverse(token.len()));
        // The library takes what begins with this byte for a special token. No text has the byte itself.
        let marker = [TokTrie::SPECIAL_TOKEN_MARKER];
        let word = |id: u32| match tokenizer.token_bytes(id) {
            bytes if bytes.starts_with(&marker) => Vec::new(),
            bytes => bytes.to_vec(),
        };
        let mut words: Vec<Vec<u8>> = (0..size).map(word).collect();
        for (token, id) in &controls {
            words[*id as usize] = [&marker, token.as_bytes()].concat();
        }
        let trie = TokTrie::from(&TokRxInfo::new(size, first), &words).with_eos_tokens(&ends);
        Self::of_trie(trie, ends, controls)
    }

    fn of_trie(trie: TokTrie, end_ids: Vec<u32>, controls: Vec<(String, u32)>) -> Result<Self, GrammarError> {
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
            .map_err(|error| GrammarError::new(format!("the vocabulary is refused: {error}")))?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(Self { shared: Arc::new(Shared { factory, end_ids, controls }) })
    }

    /// A vocabulary of the 256 bytes, with which a schema can be tried before the model is known.
    pub(super) fn bytes() -> Result<Self, GrammarError> {
        let mut words: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
        words[usize::from(TokTrie::SPECIAL_TOKEN_MARKER)].clear();
        words.push([&[TokTrie::SPECIAL_TOKEN_MARKER], &b"<end>"[..]].concat());
        let end = 256;
        Self::of_trie(TokTrie::from(&TokRxInfo::new(end + 1, end), &words), vec![end], Vec::new())
    }

    /// The ids that end an answer.
    pub fn end_ids(&self) -> &[u32] {
        &self.shared.end_ids
    }

    pub(super) fn factory(&self) -> &ParserFactory {
        &self.shared.factory
    }

    /// The first added token in a text: where it begins, its length in bytes and its id. Of two at one place, the longer.
    pub(super) fn first_control(&self, text: &str) -> Option<(usize, usize, u32)> {
        let found = self.shared.controls.iter().filter_map(|(token, id)| Some((text.find(token)?, token.len(), *id)));
        found.min_by_key(|(at, length, _)| (*at, std::cmp::Reverse(*length)))
    }
}

impl std::fmt::Debug for GrammarVocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarVocabulary").field("end_ids", &self.shared.end_ids).finish_non_exhaustive()
    }
}

/// What a grammar may take. A state of a lexer has 1 to 2 kB.
fn limits() -> ParserLimits {
    ParserLimits {
        max_lexer_states: 50_000,
        max_grammar_size: 200_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}
