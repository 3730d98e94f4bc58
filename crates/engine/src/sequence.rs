//! A sequence: its tokens so far, how many of them are in the cache, and what became of it.

use std::ops::Range;

use minke_tensor::PAGE_TOKENS;

use crate::SamplingParams;
use crate::edits::Edits;
use crate::pages::{PageAllocator, Prefix};

/// The name of a sequence; later submissions have larger ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub(crate) u64);

impl std::fmt::Display for SequenceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sequence {}", self.0)
    }
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It generated this one of its stop ids.
    Stop(u32),
    /// It reached `max_tokens`, the model's context or the size of the cache.
    Length,
    /// It was cancelled.
    Cancelled,
    /// The model's logits held a value that is not a finite number: there was nothing to sample from.
    NotFinite,
    /// Its constraint or its bias forbade every token.
    NothingAllowed,
    /// Its constraint panicked.
    ConstraintPanicked,
}

/// A token and its log-probability.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct TokenLogProb {
    /// The token.
    pub token_id: u32,
    /// Its log-probability, as in [`Completion::log_probs`].
    pub log_prob: f32,
}

/// What a sequence took so far, in tokens.
///
/// `cached + prefilled` is how much of the prompt is read. It never falls, and is `prompt` when the first token is there:
/// what preemption makes the engine compute again is in [`Stats::prefilled`](crate::Stats::prefilled) alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Length of the prompt.
    pub prompt: usize,
    /// Tokens of the prompt that were found instead of being computed: in the prefix cache, or in the pages of the
    /// member of its group that computed the prompt.
    pub cached: usize,
    /// Tokens of the prompt that were computed for it.
    pub prefilled: usize,
    /// Tokens generated.
    pub generated: usize,
}

/// What became of a sequence.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Completion {
    /// Which sequence.
    pub id: SequenceId,
    /// The generated tokens, the stop id included.
    pub token_ids: Vec<u32>,
    /// Log-probability of each of them under `softmax(logits / temperature)`, temperature 1 for greedy: before bias,
    /// penalties, constraint, top-k, top-p and min-p.
    pub log_probs: Vec<f32>,
    /// Entropy of that distribution, in nats.
    pub entropies: Vec<f32>,
    /// For each of them the most likely tokens under that distribution, the first one first; empty if none were asked for.
    pub top_log_probs: Vec<Vec<TokenLogProb>>,
    /// Why it ended.
    pub finish: Finish,
    /// What it took.
    pub counts: Counts,
}

/// A token that a step gave one sequence. One that ends without a token (cancelled, not finite, nothing
/// allowed) gives none.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Token {
    /// Which sequence.
    pub sequence: SequenceId,
    /// Its new token.
    pub token_id: u32,
    /// Log-probability of the token, as in [`Completion::log_probs`].
    pub log_prob: f32,
    /// The most likely tokens in its place, as many as were asked for, as in [`Completion::top_log_probs`].
    pub top_log_probs: Vec<TokenLogProb>,
    /// Whether it ended with it, and why.
    pub finish: Option<Finish>,
}

/// One token that was sampled.
#[derive(Clone, Debug)]
pub(crate) struct Sampled {
    pub token_id: u32,
    pub log_prob: f32,
    pub entropy: f32,
    pub top_log_probs: Vec<TokenLogProb>,
}

/// A sequence that has not ended.
///
/// Its work is always the same: compute `token_ids[computed..]`, sample one more. With one token to compute that is a
/// decode row, with more it is prefill; a preempted sequence is one whose `computed` went back to zero.
pub(crate) struct Sequence {
    /// Prompt and generated tokens.
    pub token_ids: Vec<u32>,
    pub prompt: usize,
    pub params: SamplingParams,
    /// [`Tenant::share`](crate::Tenant::share)
    pub share: u64,
    /// Longest it may get, in tokens.
    pub limit: usize,
    /// Tokens whose keys and values are in the pages.
    pub computed: usize,
    /// Tokens of the prompt that were found, and that were computed: see [`Counts`].
    cached: usize,
    prefilled: usize,
    pub pages: Vec<u32>,
    /// Full pages that were given to the prefix cache, and the prefix that ends with them.
    pub remembered: usize,
    pub prefix: Prefix,
    /// The prefix without tokens.
    root: Prefix,
    /// What the next token may be, by multi-token prediction; and the tokens whose places in its layer are filled.
    pub draft: Option<u32>,
    pub window: Range<usize>,
    /// Members of the group that start when this one's prompt is computed.
    pub followers: Vec<SequenceId>,
    pub edits: Edits,
    pub log_probs: Vec<f32>,
    pub entropies: Vec<f32>,
    pub top_log_probs: Vec<Vec<TokenLogProb>>,
}

impl Sequence {
    pub(crate) fn new(prompt: &[u32], params: SamplingParams, context: usize, share: u64, root: Prefix) -> Self {
        Self {
            token_ids: prompt.to_vec(),
            prompt: prompt.len(),
            share,
            limit: context.min(prompt.len().saturating_add(params.max_tokens)),
            edits: Edits::new(&params, prompt),
            params,
            computed: 0,
            cached: 0,
            prefilled: 0,
            pages: Vec::new(),
            remembered: 0,
            prefix: root,
            root,
            draft: None,
            window: 0..0,
            followers: Vec::new(),
            log_probs: Vec::new(),
            entropies: Vec::new(),
            top_log_probs: Vec::new(),
        }
    }

    /// The tokens behind the prompt.
    pub(crate) fn generated(&self) -> &[u32] {
        &self.token_ids[self.prompt..]
    }

    /// Whether something of it was computed, or found in the cache.
    pub(crate) fn is_begun(&self) -> bool {
        self.computed > 0 || self.token_ids.len() > self.prompt
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            prompt: self.prompt,
            cached: self.cached,
            prefilled: self.prefilled,
            generated: self.token_ids.len() - self.prompt,
        }
    }

    /// Counts what of the prompt is in the pages now and was not before as found.
    pub(crate) fn count_cached(&mut self) {
        self.cached += self.newly_read();
    }

    /// Counts what of the prompt is in the pages now and was not before as computed.
    pub(crate) fn count_prefilled(&mut self) {
        self.prefilled += self.newly_read();
    }

    /// Tokens of the prompt that were never in its pages until now.
    fn newly_read(&self) -> usize {
        self.computed.min(self.prompt).saturating_sub(self.cached + self.prefilled)
    }

    /// How many tokens have to be computed before one can be sampled.
    pub(crate) fn uncomputed(&self) -> usize {
        self.token_ids.len() - self.computed
    }

    /// Whether a second token can follow the next one.
    pub(crate) fn has_room_for_two(&self) -> bool {
        self.token_ids.len() + 1 < self.limit
    }

    /// Takes the pages of all full prefix pages that the cache has; the last token is always computed anew, because
    /// its state is what the next one is sampled from.
    pub(crate) fn take_known_pages(&mut self, pages: &mut PageAllocator) {
        while let Some(tokens) =
            self.page_tokens(self.remembered).filter(|_| self.computed + PAGE_TOKENS < self.token_ids.len())
        {
            let Some((page, prefix)) = pages.find(self.prefix, tokens) else { return };
            self.pages.push(page);
            self.prefix = prefix;
            self.remembered += 1;
            self.computed += PAGE_TOKENS;
        }
    }

    /// The page that will be added to the prefix cache next, as it is named there: what stands before it, and its tokens.
    /// None if the sequence has no such page.
    pub(crate) fn next_page(&self) -> Option<(Prefix, &[u32; PAGE_TOKENS])> {
        Some((self.prefix, self.page_tokens(self.remembered)?))
    }

    /// The first page of a sequence without pages that the prefix cache does not have, as [`Sequence::next_page`].
    pub(crate) fn first_unknown_page(&self, pages: &PageAllocator) -> Option<(Prefix, &[u32; PAGE_TOKENS])> {
        let (known, prefix) =
            pages.known_pages(self.root, &self.token_ids).fold((0, self.root), |(n, _), (_, prefix)| (n + 1, prefix));
        Some((prefix, self.page_tokens(known)?))
    }

    /// Adds pages that became full to the prefix cache.
    pub(crate) fn remember_full_pages(&mut self, pages: &mut PageAllocator) {
        while (self.remembered + 1) * PAGE_TOKENS <= self.computed {
            let tokens = *self.page_tokens(self.remembered).expect("invariant: computed tokens exist");
            self.prefix = pages.remember(self.prefix, &tokens, self.pages[self.remembered]);
            self.remembered += 1;
        }
    }

    /// Gives all pages back: the sequence starts again from its first token.
    pub(crate) fn drop_pages(&mut self, pages: &mut PageAllocator) {
        // The last page first, so that the cache gives up the end of a prefix before its beginning.
        self.pages.drain(..).rev().for_each(|page| pages.release(page));
        (self.computed, self.remembered, self.prefix) = (0, 0, self.root);
        (self.draft, self.window) = (None, 0..0);
    }

    /// Adds a token and returns whether that ends the sequence.
    pub(crate) fn push(&mut self, sampled: Sampled) -> Option<Finish> {
        self.token_ids.push(sampled.token_id);
        self.draft = None;
        self.log_probs.push(sampled.log_prob);
        self.entropies.push(sampled.entropy);
        if self.params.top_log_probs > 0 {
            self.top_log_probs.push(sampled.top_log_probs);
        }
        self.edits.push(&self.params, sampled.token_id);
        if self.params.stop_ids.contains(&sampled.token_id) {
            Some(Finish::Stop(sampled.token_id))
        } else {
            (self.token_ids.len() >= self.limit).then_some(Finish::Length)
        }
    }

    /// The result.
    pub(crate) fn complete(mut self, id: SequenceId, finish: Finish) -> Completion {
        let counts = self.counts();
        let token_ids = self.token_ids.split_off(self.prompt);
        let Self { log_probs, entropies, top_log_probs, .. } = self;
        Completion { id, token_ids, log_probs, entropies, top_log_probs, finish, counts }
    }

    fn page_tokens(&self, page: usize) -> Option<&[u32; PAGE_TOKENS]> {
        self.token_ids.as_chunks().0.get(page)
    }
}
