//! What is asked of a model: a prompt, how to sample, and where to end.

use minke_engine::{Constraint, Tenant};
use minke_text::{ReasoningParser, Rendered, ThinkTokens, Tokenizer, ToolCallParser};

use crate::SamplingOptions;

/// A prompt, as ids, and how to read what follows.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Its tokens.
    pub token_ids: Vec<u32>,
    /// The parser of thought and answer in what follows, inside the thought if the prompt opened one; none where all that
    /// follows is text.
    pub(crate) parser: Option<ReasoningParser>,
    pub(crate) tags: ThinkTokens,
}

impl Prompt {
    /// The prompt that is this text, control tokens included.
    pub fn new(text: &str, tokenizer: &Tokenizer) -> Self {
        let tags = tokenizer.think_tokens();
        let parser = Some(ReasoningParser::for_tokens(text, &tags));
        Self { token_ids: tokenizer.encode_prompt(text), parser, tags }
    }

    /// The prompt of a conversation: names of control tokens in what people and tools say are text.
    pub fn rendered(rendered: &Rendered, tokenizer: &Tokenizer) -> Self {
        let tags = tokenizer.think_tokens();
        let parser = Some(ReasoningParser::for_rendered(rendered, &tags));
        Self { token_ids: tokenizer.encode_rendered(rendered), parser, tags }
    }

    /// A text to be continued, given as ids: nothing of what follows is told apart as a thought.
    pub fn continued(token_ids: Vec<u32>) -> Self {
        Self { token_ids, parser: None, tags: ThinkTokens::default() }
    }

    /// The same with a thought that is over before it begins, for a model that thinks and whose template has no switch for it.
    #[must_use]
    pub fn without_thought(mut self, tokenizer: &Tokenizer) -> Self {
        let Some(parser) = &self.parser else { return self };
        let tags = match (parser.is_thinking(), parser.is_before_thought() && self.tags.close.is_some()) {
            (true, _) => "\n</think>\n\n",
            (false, true) => "<think>\n\n</think>\n\n",
            (false, false) => return self,
        };
        self.token_ids.extend(tokenizer.encode(tags));
        self.parser = Some(ReasoningParser::for_tokens(tags, &self.tags));
        self
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
    /// Whose it is.
    pub tenant: Tenant,
    /// How many of the most likely tokens are reported beside each one; then all log-probabilities are those of the model
    /// at temperature 1.
    pub top_log_probs: Option<usize>,
    /// The parser of the calls in the answer, if tools may be called.
    pub tools: Option<ToolCallParser>,
    /// What the answer may consist of; a thought before it is free, but cannot end without an answer.
    pub answer: Option<Constraint>,
}

impl Request {
    /// A request with the model's own sampling, no stop strings and no tools.
    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            options: SamplingOptions::default(),
            stop: Vec::new(),
            tenant: Tenant::default(),
            top_log_probs: None,
            tools: None,
            answer: None,
        }
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

    /// Sets [`tenant`](Self::tenant).
    #[must_use]
    pub fn with_tenant(self, tenant: Tenant) -> Self {
        Self { tenant, ..self }
    }

    /// Sets [`top_log_probs`](Self::top_log_probs).
    #[must_use]
    pub fn with_top_log_probs(self, top_log_probs: usize) -> Self {
        Self { top_log_probs: Some(top_log_probs), ..self }
    }

    /// Sets [`tools`](Self::tools).
    #[must_use]
    pub fn with_tools(self, parser: ToolCallParser) -> Self {
        Self { tools: Some(parser), ..self }
    }

    /// Sets [`answer`](Self::answer): a function of the ids of the answer so far.
    #[must_use]
    pub fn with_answer(self, constraint: Constraint) -> Self {
        Self { answer: Some(constraint), ..self }
    }
}
