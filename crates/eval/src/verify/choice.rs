//! Multiple choice: is the letter right?

use super::math::{letter, read};
use crate::Verdict;

/// The verdict on a text whose answer is one of the first `count` capital letters: right if it is `gold` and no other is
/// named with it. Unusable if `gold` is not among them.
///
/// # Examples
/// ```
/// use minke_eval::{Verdict, verify::choice::judge};
/// assert_eq!(judge('B', 4, "So the answer is (B), since 7 is prime."), Verdict::Right);
/// assert_eq!(judge('B', 4, "\\boxed{\\text{B}}"), Verdict::Right);
/// assert_eq!(judge('B', 4, "The answer is A or B."), Verdict::Wrong);
/// assert_eq!(judge('E', 4, "E"), Verdict::GoldUnusable);
/// ```
pub fn judge(gold: char, count: u8, text: &str) -> Verdict {
    if !('A'..='Z').take(usize::from(count)).any(|option| option == gold) {
        return Verdict::GoldUnusable;
    }
    let chosen = read(text).and_then(|answer| letter(&answer.text));
    if chosen == Some(gold) { Verdict::Right } else { Verdict::Wrong }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_letter_is_chosen_and_no_more() {
        for (text, right) in [
            ("C", true),
            ("(C)", true),
            ("C.", true),
            ("**Answer: C**", true),
            ("The correct answer is option C.", true),
            ("\\boxed{\\textbf{(C)}\\ 12}", true),
            ("Answer: C. 42", true),
            ("First (A), no: the answer is (C).", true),
            ("The answer is (D).", false),
            ("\\boxed{A, B, C, D}", false),
            ("The answer is either B or C.", false),
            ("The answer is c", false),
            ("C is not the answer", false),
            ("CC", false),
            ("", false),
        ] {
            assert_eq!(judge('C', 4, text) == Verdict::Right, right, "{text}");
        }
        assert_eq!(judge('D', 3, "D"), Verdict::GoldUnusable);
        assert_eq!(judge('c', 4, "c"), Verdict::GoldUnusable);
    }
}
