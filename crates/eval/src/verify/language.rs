//! Language consistency: how much of a text is in the language that was asked for?

use serde::{Deserialize, Serialize};

/// A language, as far as its script tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Latin letters.
    English,
    /// Chinese characters.
    Chinese,
}

/// The share of a text's words that are in a language, in 0 to 1; 1 if it has no words. A word is a run of letters of one
/// script, or one Chinese character. Formulas and code belong to no language and are left out: what stands between dollar
/// signs, backticks, `\(` and `\)`, `\[` and `\]`, and commands of LaTeX.
///
/// # Paper
/// - R1 2.3.2 (language consistency reward)
/// - Test: crates/eval/src/verify/language.rs::mixed_texts_have_the_share_of_their_words
///
/// # Examples
/// ```
/// use minke_eval::verify::language::{Language, share};
/// assert_eq!(share("We solve $x^2 = 4$ first.", Language::English), 1.0);
/// assert_eq!(share("So 我们 get it", Language::English), 0.6);
/// ```
pub fn share(text: &str, language: Language) -> f64 {
    let (mut all, mut of_language) = (0u64, 0u64);
    let mut last = None;
    for c in without_formulas(text) {
        let script = script(c);
        // Each Chinese character is a word of its own, letters are one as long as their script stays.
        let begins = script.is_some() && (script != last || script == Some(Script::Han));
        if begins {
            all += 1;
            let wanted = match language {
                Language::English => Script::Latin,
                Language::Chinese => Script::Han,
            };
            of_language += u64::from(script == Some(wanted));
        }
        last = if c == '\'' || c == '’' { last } else { script };
    }
    if all == 0 { 1.0 } else { of_language as f64 / all as f64 }
}

#[derive(Clone, Copy, PartialEq)]
enum Script {
    Latin,
    Han,
    Other,
}

fn script(c: char) -> Option<Script> {
    match c {
        'a'..='z' | 'A'..='Z' | 'À'..='ɏ' if c.is_alphabetic() => Some(Script::Latin),
        '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}' => {
            Some(Script::Han)
        }
        _ if c.is_alphabetic() => Some(Script::Other),
        _ => None,
    }
}

/// The characters outside of formulas and code. One that is not closed goes on to the end of its line.
fn without_formulas(text: &str) -> Vec<char> {
    const PAIRS: [(&str, &str); 6] =
        [("```", "```"), ("`", "`"), ("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")];
    let mut kept = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some((open, close)) = PAIRS.into_iter().find(|(open, _)| rest.starts_with(open)) {
            let inside = &rest[open.len()..];
            let line = inside.find('\n').unwrap_or(inside.len());
            // A price opens no formula: what closes one stands on the same line, but for blocks.
            let within = if open.len() > 1 { inside } else { &inside[..line] };
            rest = match within.find(close) {
                Some(end) => &inside[end + close.len()..],
                None if open == "$" => inside,
                None => &inside[line..],
            };
            kept.push(' ');
        } else if c == '\\' {
            rest = rest[1..].trim_start_matches(|c: char| c.is_ascii_alphabetic());
            kept.push(' ');
        } else {
            kept.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixed_texts_have_the_share_of_their_words() {
        for (text, english, chinese) in [
            ("", 1.0, 1.0),
            ("1 + 1 = 2", 1.0, 1.0),
            ("The answer is 5.", 1.0, 0.0),
            ("It's Euler's formula", 1.0, 0.0),
            ("答案是五", 0.0, 1.0),
            ("the 答案", 1.0 / 3.0, 2.0 / 3.0),
            ("ответ is 5", 0.5, 0.0),
            ("答案 is `let x = 5;`", 1.0 / 3.0, 2.0 / 3.0),
            ("答案是 $\\text{even numbers}$", 0.0, 1.0),
            ("it costs $5 and 六", 0.75, 0.25),
            ("```python\nprint(x)\n```\n好", 0.0, 1.0),
            ("\\alpha 好", 0.0, 1.0),
        ] {
            assert_eq!(share(text, Language::English), english, "{text}");
            assert_eq!(share(text, Language::Chinese), chinese, "{text}");
        }
    }
}
