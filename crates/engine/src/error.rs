//! Errors of requests: settings out of range, or a prompt that cannot be computed.

/// A request or a configuration that the engine refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting lies outside its range.
    #[error("{field} = {value}: it must be {range}")]
    Setting {
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        range: &'static str,
    },
    /// A prompt without tokens.
    #[error("the prompt is empty: give at least one token (a model's bos_token_id, for instance)")]
    EmptyPrompt,
    /// A prompt that leaves no room for an answer.
    #[error(
        "the prompt has {tokens} tokens and the engine holds sequences of {limit} \
         (context of the model {context}, cache {cache}): shorten it or give the cache more pages"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens of the longest sequence, answer included.
        limit: usize,
        /// The model's context, in tokens.
        context: usize,
        /// What the cache holds, in tokens.
        cache: usize,
    },
    /// A prompt with a token that the model does not have.
    #[error("token {token_id} at position {position} of the prompt is not in the vocabulary of {vocab_size}")]
    UnknownToken {
        /// The id.
        token_id: u32,
        /// Where it stands.
        position: usize,
        /// Number of ids.
        vocab_size: usize,
    },
    /// A page that was exported by an engine of another model or form.
    #[error("a page of {bytes} bytes does not fit into this cache, whose pages have {page_bytes}: compute it anew")]
    PageSize {
        /// Its bytes.
        bytes: usize,
        /// Bytes of a page of the cache.
        page_bytes: usize,
    },
    /// More sequences than may wait.
    #[error(
        "{unfinished} sequences run or wait, {n} more are over max_sequences + max_waiting = {limit}: submit them later"
    )]
    QueueFull {
        /// Sequences that have not ended.
        unfinished: usize,
        /// Sequences of the refused group.
        n: usize,
        /// Most sequences that may be unfinished.
        limit: usize,
    },
    /// The weights are not those that part of the unfinished sequences was computed with.
    #[error("the weights changed while sequences were unfinished: finish or cancel sequences before an update")]
    WeightsChanged,
    /// Another architecture than the one that the cache was made for.
    #[error("the model given to `step` has another configuration than the engine was made for: make a new engine")]
    AnotherModel,
    /// The forward failed.
    #[error(transparent)]
    Model(#[from] minke_model::Error),
}

impl From<minke_tensor::Error> for Error {
    fn from(error: minke_tensor::Error) -> Self {
        Self::Model(error.into())
    }
}
