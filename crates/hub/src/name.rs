//! Which model is meant? `ORG/NAME`, a short name of the R1 family, and behind a colon the quantization of a GGUF file.

use std::fmt;

use crate::{Error, Result};

/// Short names and what they stand for. Each names architecture and base; `r1` is the model of 671B parameters and never a
/// distilled one.
pub const SHORT_NAMES: [(&str, &str); 14] = [
    ("r1", "DeepSeek-R1"),
    ("r1-zero", "DeepSeek-R1-Zero"),
    ("r1-0528", "DeepSeek-R1-0528"),
    ("r1-distill-qwen-1.5b", "DeepSeek-R1-Distill-Qwen-1.5B"),
    ("r1-distill-qwen-7b", "DeepSeek-R1-Distill-Qwen-7B"),
    ("r1-distill-qwen-14b", "DeepSeek-R1-Distill-Qwen-14B"),
    ("r1-distill-qwen-32b", "DeepSeek-R1-Distill-Qwen-32B"),
    ("r1-distill-llama-8b", "DeepSeek-R1-Distill-Llama-8B"),
    ("r1-distill-llama-70b", "DeepSeek-R1-Distill-Llama-70B"),
    ("r1-0528-qwen3-8b", "DeepSeek-R1-0528-Qwen3-8B"),
    ("v2-lite", "DeepSeek-V2-Lite"),
    ("v3", "DeepSeek-V3"),
    ("v3-0324", "DeepSeek-V3-0324"),
    ("v3.1", "DeepSeek-V3.1"),
];

/// Who publishes them, and who publishes them as GGUF.
const PUBLISHER: &str = "deepseek-ai";
const GGUF_PUBLISHER: &str = "unsloth";

/// A repository of the Hub, and which of its GGUF files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelName {
    /// `ORG/NAME`.
    pub repo: String,
    /// Such as `Q4_K_M`; nothing for safetensors.
    pub quant: Option<String>,
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repo)?;
        self.quant.iter().try_for_each(|quant| write!(f, ":{quant}"))
    }
}

impl ModelName {
    /// Returns what a text names; a short name with a quantization stands for a repository of GGUF files.
    ///
    /// # Errors
    /// If it is neither a short name nor a name of the Hub, with the short name that is nearest.
    pub fn parse(text: &str) -> Result<Self> {
        let (model, quant) = match text.split_once(':') {
            Some((model, quant)) => (model, Some(quant.to_owned())),
            None => (text, None),
        };
        if quant.as_deref().is_some_and(|quant| !is_word(quant)) {
            return Err(bad(text, "a quantization is a word such as Q4_K_M"));
        }
        if let Some((_, name)) = SHORT_NAMES.iter().find(|(short, _)| short.eq_ignore_ascii_case(model)) {
            let repo = match quant {
                Some(_) => format!("{GGUF_PUBLISHER}/{name}-GGUF"),
                None => format!("{PUBLISHER}/{name}"),
            };
            return Ok(Self { repo, quant });
        }
        match model.split_once('/') {
            Some((org, name)) if is_word(org) && is_word(name) => Ok(Self { repo: model.into(), quant }),
            _ => Err(bad(
                text,
                match nearest_short_name(model) {
                    Some(near) => format!("is no model; did you mean {near}?"),
                    None => "is no model; write ORG/NAME as on the Hugging Face Hub, or a short name such as \
                         r1-distill-qwen-7b"
                        .into(),
                },
            )),
        }
    }

    /// Returns the name of the repository's folder in the cache.
    pub(crate) fn folder(&self) -> String {
        format!("models--{}", self.repo.replace('/', "--"))
    }
}

fn bad(name: &str, reason: impl Into<String>) -> Error {
    Error::Name { name: name.into(), reason: reason.into() }
}

/// Returns whether a text can be a part of a name: it becomes a part of paths and addresses.
fn is_word(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let ends = |c: char| c == '.' || c == '-';
    (1..=96).contains(&text.len())
        && text.chars().all(allowed)
        && !text.contains("--")
        && !text.contains("..")
        && !text.starts_with(ends)
        && !text.ends_with(ends)
}

/// Returns the short name that a text is nearest to, if it is near at all.
pub fn nearest_short_name(text: &str) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    let name = text.rsplit('/').next().unwrap_or(&text);
    let name = name.strip_prefix("deepseek-").unwrap_or(name);
    let near = SHORT_NAMES.iter().map(|(short, _)| (distance(name, short), *short));
    near.filter(|(slips, short)| *slips <= 2 && 2 * slips < short.len()).min().map(|(_, short)| short)
}

/// Returns how many letters must be put in, taken away or changed to make one text of another.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_are() {
        let repo = |text: &str| ModelName::parse(text).map(|name| name.to_string());
        assert_eq!(repo("r1").expect("known"), "deepseek-ai/DeepSeek-R1");
        assert_eq!(repo("R1-Distill-Qwen-7B").expect("known"), "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B");
        assert_eq!(repo("r1:Q2_K").expect("known"), "unsloth/DeepSeek-R1-GGUF:Q2_K");
        assert_eq!(repo("a/b.c_d:UD-IQ1_S").expect("a name"), "a/b.c_d:UD-IQ1_S");
        for wrong in ["", "r2d2", "a/b/c", "a/..", "../a", "a/b:", "a/b:../x", "-a/b", "a b/c", "a--b/c"] {
            assert!(repo(wrong).is_err(), "{wrong}");
        }
        // Every short name but those of the large models says that it is distilled, or from what.
        for (short, name) in SHORT_NAMES {
            let small = minke_spec::presets::distilled(name).is_some();
            assert_eq!(small, short.contains("qwen") || short.contains("llama"), "{short}");
        }
    }

    #[test]
    fn slips_are_recognized() {
        for (typed, meant) in [
            ("r1-distil-qwen-7b", Some("r1-distill-qwen-7b")),
            ("deepseek-r1-0582", Some("r1-0528")),
            ("v31", Some("v3.1")),
            ("models/first-light", None),
            ("hello", None),
        ] {
            assert_eq!(nearest_short_name(typed), meant, "{typed}");
        }
    }
}
