//! What is asked of a model: a prompt, how to sample, and where to end.

use minke_text::{ReasoningParser, ThinkTokens, Tokenizer};

use crate::SamplingOptions;

/// A rendered prompt, as ids.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Its tokens.
    pub token_ids: Vec<u32>,
    /// The parser of thought and answer in what follows, inside the thought if the prompt opened one.
    pub(crate) parser: ReasoningParser,
    pub(crate) tags: ThinkTokens,
}

impl Prompt {
    /// The prompt that is this text, control tokens included.
    pub fn new(text: &str, tokenizer: &Tokenizer) -> Self {
        let tags = tokenizer.think_tokens();
        Self { token_ids: tokenizer.encode_prompt(text), parser: ReasoningParser::for_tokens(text, &tags), tags }
    }
}

/// One answer to be generated.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// What it continues.
    pub prompt: Prompt,
    /// How tokens are chosen, how many, and how long a thought may be.
    pub options: SamplingOptions,
    /// Texts that end the answer and are no part of it; a thought is not searched for them.
    pub stop: Vec<String>,
}

impl Request {
    /// A request with the model's own sampling and no stop strings.
    pub fn new(prompt: Prompt) -> Self {
        Self { prompt, options: SamplingOptions::default(), stop: Vec::new() }
    }

    /// Sets [`options`](Self::options).
    #[must_use]
    pub fn with_options(self, options: SamplingOptions) -> Self {
        Self { options, ..self }
    }

    /// Sets [`stop`](Self::stop).
    #[must_use]
    pub fn with_stop(self, stop: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { stop: stop.into_iter().map(Into::into).collect(), ..self }
    }
}
