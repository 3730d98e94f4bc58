//! Edits of a sequence's logits by bias and penalties, kept up to date token by token.

use minke_tensor::Edit;

use crate::SamplingParams;

/// The edits of a sequence, by id.
#[derive(Clone, Default)]
pub(crate) struct Edits(Vec<Tally>);

/// A token that is edited, and how often the sequence generated it.
#[derive(Clone)]
struct Tally {
    edit: Edit,
    generated: u32,
}

impl Edits {
    /// The edits before the first token.
    pub(crate) fn new(params: &SamplingParams, prompt: &[u32]) -> Self {
        let mut ids: Vec<u32> = params.logit_bias.keys().copied().collect();
        if params.repetition_penalty != 1.0 {
            ids.extend_from_slice(prompt);
        }
        ids.sort_unstable();
        ids.dedup();
        let mut edits = Self(ids.into_iter().map(|id| Tally::new(params, id)).collect());
        if params.repetition_penalty != 1.0 {
            for id in prompt {
                edits.of(params, *id).edit.repetition = params.repetition_penalty;
            }
        }
        edits
    }

    /// Counts a generated token.
    pub(crate) fn push(&mut self, params: &SamplingParams, token_id: u32) {
        if params.repetition_penalty == 1.0 && params.presence_penalty == 0.0 && params.frequency_penalty == 0.0 {
            return;
        }
        let tally = self.of(params, token_id);
        tally.generated += 1;
        tally.edit.repetition = params.repetition_penalty;
        tally.edit.subtract = tally.generated as f32 * params.frequency_penalty + params.presence_penalty;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Edit> {
        self.0.iter().map(|tally| tally.edit)
    }

    /// The tally of a token, added if there is none.
    fn of(&mut self, params: &SamplingParams, token_id: u32) -> &mut Tally {
        let at = self.0.binary_search_by_key(&token_id, |tally| tally.edit.token_id).unwrap_or_else(|at| {
            self.0.insert(at, Tally::new(params, token_id));
            at
        });
        &mut self.0[at]
    }
}

impl Tally {
    fn new(params: &SamplingParams, token_id: u32) -> Self {
        let bias = params.logit_bias.get(&token_id).copied().unwrap_or(0.0);
        Self { edit: Edit { token_id, bias, repetition: 1.0, subtract: 0.0 }, generated: 0 }
    }
}
