//! A sequence of tokens to learn from, and which of them count.

use std::ops::Range;

use minke_text::{ASSISTANT, BOS, EOS, Tokenizer, USER};

/// A sequence to learn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its tokens, end of sentence included.
    pub token_ids: Vec<u32>,
    /// The tokens whose prediction counts, in order.
    pub counted: Vec<Range<usize>>,
}

impl Document {
    /// A question with its completion; only the completion counts.
    pub fn chat(tokenizer: &Tokenizer, question: &str, completion: &str) -> Self {
        // What a user writes is never a control token; the rest is what the chat template renders.
        let mut token_ids = vec![control(tokenizer, BOS), control(tokenizer, USER)];
        token_ids.extend(tokenizer.encode_plain(question));
        token_ids.push(control(tokenizer, ASSISTANT));
        let first = token_ids.len();
        token_ids.extend(tokenizer.encode(completion));
        token_ids.push(control(tokenizer, EOS));
        Self::counting_from(first, token_ids)
    }

    /// A text without question; all of it counts.
    pub fn plain(tokenizer: &Tokenizer, text: &str) -> Self {
        let mut token_ids = tokenizer.begin_ids().to_vec();
        token_ids.extend(tokenizer.encode_plain(text));
        token_ids.push(control(tokenizer, EOS));
        Self::counting_from(1, token_ids)
    }

    /// Tokens of which all count from one on.
    pub(crate) fn counting_from(first: usize, token_ids: Vec<u32>) -> Self {
        Self { counted: std::iter::once(first..token_ids.len()).collect(), token_ids }
    }

    /// The document with every token counting, its question included, cut to so many tokens.
    pub(crate) fn whole(mut self, longest: usize) -> Self {
        self.token_ids.truncate(longest);
        Self::counting_from(1, self.token_ids)
    }
}

/// The id of a control token.
fn control(tokenizer: &Tokenizer, token: &str) -> u32 {
    tokenizer.id_of(token).expect("invariant: the tokenizer of a run has R1's control tokens")
}
