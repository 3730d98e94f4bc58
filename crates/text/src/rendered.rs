//! Prompts that know which of their letters a template wrote and which came from outside.
//!
//! In a prompt the control tokens of the template count; the same letters in a message or in the description of a tool are
//! text, or a user could write turns of others. A mark is put into every place where a text from outside spells an added token or
//! could complete one, the template is rendered, and the marks tell the two apart when the prompt is encoded.

use std::collections::{HashMap, HashSet};

use crate::{Error, Result};

/// A prompt in which added tokens count only where the template wrote them: see
/// [`ChatTemplate::render_for`](crate::ChatTemplate::render_for).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    text: String,
    marked: Option<(String, Marks)>,
}

/// Two characters that occur in no text of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Stands inside of what would be a token.
    pub inside: char,
    /// Stands behind what would be a token of one character.
    pub behind: char,
}

impl Rendered {
    pub(crate) fn marked(marked: &str, marks: Marks) -> Self {
        let marked = marks.unescaped(marked);
        Self { text: marks.removed(&marked), marked: Some((marked, marks)) }
    }

    /// The same without marks if it has none.
    pub(crate) fn simplified(self) -> Self {
        let marked = self.marked.filter(|(marked, _)| *marked != self.text);
        Self { marked, ..self }
    }

    /// The prompt as text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The prompt with its marks, if it has any.
    pub(crate) fn parts(&self) -> Option<(&str, Marks)> {
        self.marked.as_ref().map(|(text, marks)| (text.as_str(), *marks))
    }

    /// The prompt as text that ends with a tag only if the template wrote it.
    pub(crate) fn end(&self) -> &str {
        self.parts().map_or(&self.text, |(text, _)| text)
    }
}

impl Marks {
    /// Two characters that are in none of these texts, nor written there as an escape.
    ///
    /// # Errors
    /// The texts have all that there are.
    pub fn not_in(texts: &[&str]) -> Result<Self> {
        const FIRST: char = '\u{fdd0}';
        let mut used: HashSet<char> = HashSet::new();
        for text in texts {
            used.extend(text.chars().filter(|c| *c >= FIRST));
        }
        // Noncharacters, which no text should have, then characters for private use.
        let candidates = (FIRST..='\u{fdef}').chain('\u{f0000}'..='\u{ffffd}').chain('\u{100000}'..='\u{10fffd}');
        let is_free = |c: &char| {
            !used.contains(c)
                && escapes(*c).iter().all(|escape| !texts.iter().any(|text| text.contains(escape.as_str())))
        };
        let mut free = candidates.filter(is_free);
        match (free.next(), free.next()) {
            (Some(inside), Some(behind)) => Ok(Self { inside, behind }),
            _ => Err(Error::Template {
                origin: "(messages)".into(),
                reason: "the messages use every character that is for private use; leave some out".into(),
            }),
        }
    }

    fn all(self) -> [char; 2] {
        [self.inside, self.behind]
    }

    /// A text without marks.
    pub fn removed(self, text: &str) -> String {
        text.replace(self.all(), "")
    }

    /// A text in which marks that a template wrote as an escape are marks again.
    fn unescaped(self, text: &str) -> String {
        let mut text = text.to_owned();
        for mark in self.all() {
            for escape in escapes(mark) {
                if text.contains(&escape) {
                    text = text.replace(&escape, mark.encode_utf8(&mut [0; 4]));
                }
            }
        }
        text
    }
}

/// How templates write a character that is no ASCII: in JSON, in Python, in Rust.
fn escapes(c: char) -> [String; 3] {
    let json = c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect();
    [json, format!("\\U{:08x}", u32::from(c)), format!("\\u{{{:x}}}", u32::from(c))]
}

/// The added tokens of a tokenizer that control something, for finding them in texts.
#[derive(Debug, Default)]
pub(crate) struct ControlTokens {
    /// By their first two characters.
    pub by_start: HashMap<(char, Option<char>), Vec<String>>,
    /// What a token begins or ends with, save the whole.
    pub prefixes: HashSet<String>,
    pub suffixes: HashSet<String>,
    /// The longest token, in bytes.
    pub longest: usize,
}

impl ControlTokens {
    pub fn new<'a>(tokens: impl Iterator<Item = &'a str>) -> Self {
        let mut all = Self::default();
        for token in tokens {
            let mut characters = token.chars();
            if let Some(first) = characters.next() {
                all.by_start.entry((first, characters.next())).or_default().push(token.to_owned());
            }
            for (at, _) in token.char_indices().skip(1) {
                all.prefixes.insert(token[..at].to_owned());
                all.suffixes.insert(token[at..].to_owned());
            }
            all.longest = all.longest.max(token.len());
        }
        all
    }
}
