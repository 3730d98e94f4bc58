//! Which tokens make up a text that was told apart: their texts, joined, are that text.

use minke_text::Tokenizer;

use crate::generation::{Answer, TokenReport};

/// Tokens that wait for the text that they make up.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogProbs {
    waiting: Vec<TokenReport>,
    /// Bytes of the text that the tokens given out so far have more than it: a character may come in parts.
    ahead: usize,
}

impl LogProbs {
    /// Takes in tokens; those of thoughts are not reported.
    pub(crate) fn tokens(&mut self, tokens: Vec<TokenReport>) {
        self.waiting.extend(tokens.into_iter().filter(|token| !token.thinks));
    }

    /// The tokens that make up the next piece of text. Tokens before it whose text was left out, as newlines behind a thought
    /// are, are dropped; those behind it wait.
    pub(crate) fn cover(&mut self, text: &str, tokenizer: &Tokenizer) -> Vec<TokenReport> {
        let mut left = text.as_bytes();
        left = &left[self.ahead.min(left.len())..];
        self.ahead = self.ahead.saturating_sub(text.len());
        let mut covered = Vec::new();
        let mut waiting = std::mem::take(&mut self.waiting).into_iter();
        while !left.is_empty() {
            let Some(token) = waiting.next() else { break };
            let bytes = tokenizer.token_bytes(token.id);
            let shared = bytes.len().min(left.len());
            if bytes.is_empty() || bytes[..shared] != left[..shared] {
                // Nothing of it is shown.
                continue;
            }
            left = &left[shared..];
            self.ahead = bytes.len() - shared;
            covered.push(token);
        }
        self.waiting = waiting.collect();
        covered
    }

    /// The tokens that make up the content of a whole answer.
    pub(crate) fn whole(answer: &Answer, tokenizer: &Tokenizer) -> Vec<TokenReport> {
        let mut log_probs = Self::default();
        log_probs.tokens(answer.tokens.clone());
        log_probs.cover(&answer.content, tokenizer)
    }
}
