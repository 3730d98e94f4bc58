//! Detection of loops: the last tokens are one span over and over.

/// What counts as a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepetitionRule {
    /// Tokens of the shortest span that counts; a shorter one counts as often as it fits in.
    pub min_span: usize,
    /// Tokens of the longest span that is looked for: work and memory per token grow with it.
    pub max_span: usize,
    /// How often a span stands in direct succession when that is called a loop.
    pub times: usize,
}

impl RepetitionRule {
    /// Four times 32 to 1024 tokens: a thought that gets there while it is generated does not end by itself.
    pub const GENERATION: Self = Self { min_span: 32, max_span: 1024, times: 4 };
    /// Three times at least 4 tokens: an answer that has this anywhere is not worth learning from.
    pub const TRAINING: Self = Self { min_span: 4, max_span: usize::MAX, times: 3 };

    /// Whether the tokens have a loop anywhere.
    ///
    /// ```
    /// use minke_text::RepetitionRule;
    /// assert!(RepetitionRule::TRAINING.matches(&[9, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 8]));
    /// assert!(!RepetitionRule::TRAINING.matches(&[1, 2, 3, 4, 1, 2, 3, 4, 5]));
    /// ```
    pub fn matches(self, token_ids: &[u32]) -> bool {
        // A span that is longer than this stands too rarely in so few tokens.
        let max_span = self.max_span.min(token_ids.len() / self.times);
        let mut repetition = Repetition::new(Self { max_span, ..self });
        token_ids.iter().any(|&id| repetition.push(id))
    }
}

/// Notices token by token that the last ones are a loop.
///
/// ```
/// use minke_text::{Repetition, RepetitionRule};
/// let mut repetition = Repetition::new(RepetitionRule::GENERATION);
/// let at = (0..).position(|i| repetition.push(i % 50));
/// assert_eq!(at, Some(4 * 50 - 1));
/// ```
#[derive(Clone, Debug)]
pub struct Repetition {
    rule: RepetitionRule,
    token_ids: Vec<u32>,
    /// For every distance from 1 on: how many of the last tokens equal the one so far before them.
    equal: Vec<u32>,
}

impl Repetition {
    /// A detector that has seen no token.
    pub fn new(rule: RepetitionRule) -> Self {
        Self { rule, token_ids: Vec::new(), equal: Vec::new() }
    }

    /// Takes in the next token, and returns whether the tokens now end with a loop.
    pub fn push(&mut self, token_id: u32) -> bool {
        let RepetitionRule { min_span, max_span, times } = self.rule;
        if self.equal.len() < self.token_ids.len().min(max_span) {
            self.equal.push(0);
        }
        let mut found = false;
        for (i, (equal, earlier)) in self.equal.iter_mut().zip(self.token_ids.iter().rev()).enumerate() {
            *equal = if *earlier == token_id { *equal + 1 } else { 0 };
            // As many periods as make a span.
            let period = i + 1;
            let span = period * min_span.div_ceil(period);
            found |= *equal as usize + period >= times * span;
        }
        self.token_ids.push(token_id);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(token_ids: impl Iterator<Item = u32>) -> Option<usize> {
        let mut repetition = Repetition::new(RepetitionRule::GENERATION);
        token_ids.take(20_000).position(|id| repetition.push(id))
    }

    #[test]
    fn a_span_counts_when_it_stands_four_times_in_a_row() {
        assert_eq!(first(std::iter::repeat(7)), Some(4 * 32 - 1));
        assert_eq!(first((0..).map(|i| i % 3)), Some(4 * 33 - 1));
        assert_eq!(first((0..).map(|i| i % 1024)), Some(4 * 1024 - 1));
        let behind_a_thought = (10_000..10_300).chain((0..).map(|i| i % 40));
        assert_eq!(first(behind_a_thought), Some(300 + 4 * 40 - 1));
    }

    proptest::proptest! {
        /// Against the definition, in plain words: somewhere some span stands so often in direct succession.
        #[test]
        fn a_rule_matches_what_its_definition_says(
            token_ids in proptest::collection::vec(0..3u32, 0..60),
            min_span in 1..6usize,
            times in 2..5usize,
        ) {
            let is_loop = |start: usize, span: usize| {
                let end = start + times * span;
                end <= token_ids.len() && (start + span..end).all(|i| token_ids[i] == token_ids[i - span])
            };
            let found = (min_span..60).any(|span| (0..token_ids.len()).any(|start| is_loop(start, span)));
            let rule = RepetitionRule { min_span, max_span: usize::MAX, times };
            proptest::prop_assert_eq!(rule.matches(&token_ids), found);
        }
    }

    #[test]
    fn what_only_resembles_itself_is_none() {
        assert_eq!(first((0..).map(|i| i % 1025)), None);
        // A list: every line the same but for its number.
        assert_eq!(first((0..).map(|i| if i % 20 == 0 { 1000 + i } else { i % 20 })), None);
        // Three times is none.
        assert_eq!(first((0..3).flat_map(|_| 0..100).chain(500..900)), None);
    }
}
