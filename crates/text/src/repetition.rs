//! Does a model go round in circles? A tail of its tokens that is one span over and over.

/// Tokens of the shortest span that counts; a shorter one counts as often as it fits in.
const SPAN: usize = 32;
/// Tokens of the longest span.
const LONGEST_SPAN: usize = 1024;
/// How often a span stands at the end when that is called a repetition.
const TIMES: usize = 4;

/// Notices that the last tokens are one span of 32 to 1024 tokens, four times in a row.
///
/// ```
/// let mut repetition = minke_text::Repetition::default();
/// let at = (0..).position(|i| repetition.push(i % 50));
/// assert_eq!(at, Some(4 * 50 - 1));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Repetition {
    token_ids: Vec<u32>,
    /// For every distance from 1 on: how many of the last tokens equal the one so far before them.
    equal: Vec<u32>,
}

impl Repetition {
    /// Takes in the next token, and returns whether the tokens now end with a repetition.
    pub fn push(&mut self, token_id: u32) -> bool {
        if self.token_ids.len() < LONGEST_SPAN {
            self.equal.push(0);
        }
        let mut found = false;
        for (i, (equal, earlier)) in self.equal.iter_mut().zip(self.token_ids.iter().rev()).enumerate() {
            *equal = if *earlier == token_id { *equal + 1 } else { 0 };
            // As many periods as make a span.
            let period = i + 1;
            let span = period * SPAN.div_ceil(period);
            found |= *equal as usize + period >= TIMES * span;
        }
        self.token_ids.push(token_id);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(token_ids: impl Iterator<Item = u32>) -> Option<usize> {
        let mut repetition = Repetition::default();
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

    #[test]
    fn what_only_resembles_itself_is_none() {
        assert_eq!(first((0..).map(|i| i % 1025)), None);
        // A list: every line the same but for its number.
        assert_eq!(first((0..).map(|i| if i % 20 == 0 { 1000 + i } else { i % 20 })), None);
        // Three times is none.
        assert_eq!(first((0..3).flat_map(|_| 0..100).chain(500..900)), None);
    }
}
