//! A constraint on the tokens of a sequence: a function from the ids so far to a mask over the vocabulary.

use std::sync::Arc;

/// Which tokens may come next, a bit each.
#[derive(Debug)]
pub struct Mask<'a> {
    words: &'a mut [u32],
    vocab_size: usize,
}

impl<'a> Mask<'a> {
    /// A mask over `words` in which every token is allowed.
    ///
    /// # Panics
    /// If there are fewer bits than tokens.
    pub fn full(words: &'a mut [u32], vocab_size: usize) -> Self {
        assert!(vocab_size <= words.len() * 32, "a mask has a bit for each token");
        words.fill(u32::MAX);
        Self { words, vocab_size }
    }

    /// The number of tokens of the model.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Whether a token is allowed; one that the model does not have never is.
    pub fn allows(&self, token_id: u32) -> bool {
        (token_id as usize) < self.vocab_size && self.words[token_id as usize / 32] >> (token_id % 32) & 1 == 1
    }

    /// Allows a token; without effect on one that the model does not have.
    pub fn allow(&mut self, token_id: u32) {
        if (token_id as usize) < self.vocab_size {
            self.words[token_id as usize / 32] |= 1 << (token_id % 32);
        }
    }

    /// Forbids a token.
    pub fn forbid(&mut self, token_id: u32) {
        if (token_id as usize) < self.vocab_size {
            self.words[token_id as usize / 32] &= !(1 << (token_id % 32));
        }
    }

    /// Forbids every token.
    pub fn forbid_all(&mut self) {
        self.words.fill(0);
    }

    /// Forbids every token but one.
    pub fn force(&mut self, token_id: u32) {
        self.forbid_all();
        self.allow(token_id);
    }

    /// The bits: token `t` has bit `t % 32`, counted from the lowest, of word `t / 32`. Bits past the last token count
    /// for nothing.
    pub fn words_mut(&mut self) -> &mut [u32] {
        self.words
    }
}

/// A constraint on the tokens of a sequence.
///
/// The function gets the ids that the sequence has generated so far (its prompt is known to the caller) and a mask in
/// which every token is allowed. It is called for each token that is sampled, on the thread that steps the engine, again with
/// the same ids where a step is repeated, and with drafts ([`Speculation`](crate::Speculation)) also for ids whose last one it
/// allowed and the sequence then did not get: what it does to the mask must depend on the ids alone. The memory
/// of the mask is reused. A function that panics ends its sequence with
/// [`Finish::ConstraintPanicked`](crate::Finish::ConstraintPanicked), and no other.
///
/// A mask of one token forces it. A mask without tokens ends the sequence with
/// [`Finish::NothingAllowed`](crate::Finish::NothingAllowed). A stop id ends a sequence only if the mask allows it.
///
/// # Examples
/// Twice the token 5, then anything but 5:
/// ```
/// use minke_engine::{Constraint, SamplingParams};
/// let constraint = Constraint::new(|ids, mask| if ids.len() < 2 { mask.force(5) } else { mask.forbid(5) });
/// let params = SamplingParams::default().with_constraint(constraint);
/// # assert!(params.constraint.is_some());
/// ```
#[derive(Clone)]
pub struct Constraint(Arc<Function>);

type Function = dyn Fn(&[u32], &mut Mask<'_>) + Send + Sync;

impl Constraint {
    /// The constraint that `function(ids so far, mask)` puts on each token.
    pub fn new(function: impl Fn(&[u32], &mut Mask<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(function))
    }

    /// Forbids what may not come behind the ids so far, for a constraint that is part of another.
    pub fn apply(&self, generated: &[u32], mask: &mut Mask<'_>) {
        (self.0)(generated, mask);
    }
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Constraint")
    }
}

impl PartialEq for Constraint {
    /// Whether both are clones of one.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_the_tokens_of_the_vocabulary_and_no_others() {
        let mut words = [0; 2];
        let mut mask = Mask::full(&mut words, 40);
        let allowed = |mask: &Mask<'_>| (0..100).filter(|&id| mask.allows(id)).collect::<Vec<u32>>();
        assert_eq!((allowed(&mask).len(), mask.vocab_size()), (40, 40));
        mask.forbid(31);
        mask.forbid(32);
        mask.forbid(99);
        assert!(!allowed(&mask).contains(&31) && !allowed(&mask).contains(&32) && allowed(&mask).len() == 38);
        mask.force(33);
        mask.allow(0);
        mask.allow(40);
        assert_eq!(allowed(&mask), [0, 33]);
        mask.force(63);
        assert!(allowed(&mask).is_empty());
        mask.words_mut()[1] = 0b101;
        assert_eq!(allowed(&mask), [32, 34]);
    }
}
