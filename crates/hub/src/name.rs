//! Names of models: `ORG/NAME`, an address of the Hub, a short name of the R1 family or one of ollama's library, and behind a
//! colon the quantization of GGUF files.

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

/// The publisher of these, and that of their GGUF files.
const PUBLISHER: &str = "deepseek-ai";
const GGUF_PUBLISHER: &str = "unsloth";

/// Names of ollama's library and what they stand for there; behind the tag may stand a quantization.
const OLLAMA_NAMES: [(&str, &str); 16] = [
    ("deepseek-r1:1.5b", "DeepSeek-R1-Distill-Qwen-1.5B"),
    ("deepseek-r1:1.5b-qwen-distill", "DeepSeek-R1-Distill-Qwen-1.5B"),
    ("deepseek-r1:7b", "DeepSeek-R1-Distill-Qwen-7B"),
    ("deepseek-r1:7b-qwen-distill", "DeepSeek-R1-Distill-Qwen-7B"),
    ("deepseek-r1:8b", "DeepSeek-R1-0528-Qwen3-8B"),
    ("deepseek-r1:8b-0528-qwen3", "DeepSeek-R1-0528-Qwen3-8B"),
    ("deepseek-r1:8b-llama-distill", "DeepSeek-R1-Distill-Llama-8B"),
    ("deepseek-r1:14b", "DeepSeek-R1-Distill-Qwen-14B"),
    ("deepseek-r1:14b-qwen-distill", "DeepSeek-R1-Distill-Qwen-14B"),
    ("deepseek-r1:32b", "DeepSeek-R1-Distill-Qwen-32B"),
    ("deepseek-r1:32b-qwen-distill", "DeepSeek-R1-Distill-Qwen-32B"),
    ("deepseek-r1:70b", "DeepSeek-R1-Distill-Llama-70B"),
    ("deepseek-r1:70b-llama-distill", "DeepSeek-R1-Distill-Llama-70B"),
    ("deepseek-r1:671b", "DeepSeek-R1-0528"),
    ("deepseek-v3:671b", "DeepSeek-V3"),
    ("deepseek-v3.1:671b", "DeepSeek-V3.1"),
];
/// The quantization that ollama's library has where a tag names none.
const OLLAMA_QUANT: &str = "Q4_K_M";

/// Hosts of the Hub, as addresses that people copy name them.
const HOSTS: [&str; 3] = ["huggingface.co", "hf.co", "www.huggingface.co"];
/// First parts of addresses of the Hub that lead to something else than a model.
const NO_MODELS: [&str; 8] = ["api", "blog", "collections", "datasets", "docs", "models", "papers", "spaces"];

/// A repository of the Hub, and which of its files and commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelName {
    /// `ORG/NAME`.
    pub repo: String,
    /// Such as `Q4_K_M`; nothing for safetensors.
    pub quant: Option<String>,
    /// Branch, tag or commit, if one was given.
    pub revision: Option<String>,
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repo)?;
        self.quant.iter().try_for_each(|quant| write!(f, ":{quant}"))?;
        self.revision.iter().try_for_each(|revision| write!(f, " at {revision}"))
    }
}

impl ModelName {
    /// What a text names: `ORG/NAME`, an address of the Hub, a short name, a published name of the R1 family without its
    /// organization, or a name of ollama's library. A quantization may follow behind a colon; a short name with one stands
    /// for a repository of GGUF files.
    ///
    /// # Errors
    /// If it is none of these, with the short name that is nearest.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(path) = path_of_address(text)? {
            return of_path(text, path);
        }
        if let Some(name) = of_ollama(text)? {
            return Ok(name);
        }
        let (model, quant) = split_quant(text)?;
        let is_meant =
            |(short, name): &&(&str, &str)| short.eq_ignore_ascii_case(model) || name.eq_ignore_ascii_case(model);
        if let Some((_, name)) = SHORT_NAMES.iter().find(is_meant) {
            return Ok(published(name, quant));
        }
        match model.split_once('/') {
            Some((org, name)) if is_word(org) && is_word(name) => {
                Ok(Self { repo: model.into(), quant, revision: None })
            }
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

    /// The same model at a branch, tag or commit.
    ///
    /// # Errors
    /// If it cannot be one, or the name is of another revision already.
    pub fn at(self, revision: &str) -> Result<Self> {
        if !is_inside(revision) {
            return Err(bad(
                &self.to_string(),
                format!("{revision:?} is no revision; give a branch, a tag or a commit"),
            ));
        }
        match &self.revision {
            Some(own) if own != revision => {
                Err(bad(&self.repo, format!("the address says revision {own}, --revision says {revision}; give one")))
            }
            _ => Ok(Self { revision: Some(revision.into()), ..self }),
        }
    }

    /// The name of the repository's folder in the cache.
    pub(crate) fn folder(&self) -> String {
        format!("models--{}", self.repo.replace('/', "--"))
    }
}

/// The repository of a model of the R1 family.
fn published(name: &str, quant: Option<String>) -> ModelName {
    let repo = match quant {
        Some(_) => format!("{GGUF_PUBLISHER}/{name}-GGUF"),
        None => format!("{PUBLISHER}/{name}"),
    };
    ModelName { repo, quant, revision: None }
}

fn split_quant(text: &str) -> Result<(&str, Option<String>)> {
    match text.split_once(':') {
        Some((_, quant)) if !is_word(quant) => Err(bad(text, "a quantization is a word such as Q4_K_M")),
        Some((model, quant)) => Ok((model, Some(quant.to_owned()))),
        None => Ok((text, None)),
    }
}

/// What a name of ollama's library stands for, as GGUF like there.
fn of_ollama(text: &str) -> Result<Option<ModelName>> {
    let text = text.to_ascii_lowercase();
    let rest = |(known, name): &(&'static str, &'static str)| Some((text.strip_prefix(known)?.to_owned(), *name));
    let longest = OLLAMA_NAMES.iter().filter_map(rest).min_by_key(|(rest, _)| rest.len());
    match longest {
        Some((rest, name)) if rest.is_empty() => Ok(Some(published(name, Some(OLLAMA_QUANT.into())))),
        Some((rest, name)) if rest.strip_prefix('-').is_some_and(is_word) => {
            Ok(Some(published(name, Some(rest[1..].to_ascii_uppercase()))))
        }
        // In ollama's library a distilled model, on the Hub the one of 671B parameters.
        _ if text.split(':').next() == Some("deepseek-r1") => {
            let advice = "write r1 for the one of 671B parameters, or a size as in deepseek-r1:7b";
            Err(bad(&text, format!("names models of very different size; {advice}")))
        }
        _ => Ok(None),
    }
}

/// The path of an address of the Hub, with or without its scheme; nothing if the text is no address.
fn path_of_address(text: &str) -> Result<Option<&str>> {
    let scheme = ["https://", "http://"]
        .into_iter()
        .find(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let rest = &text[scheme.map_or(0, str::len)..];
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    match HOSTS.iter().any(|known| known.eq_ignore_ascii_case(host)) {
        true => Ok(Some(path)),
        false if scheme.is_some() => {
            Err(bad(text, "is no address of huggingface.co; for another server set HF_ENDPOINT and give ORG/NAME"))
        }
        false => Ok(None),
    }
}

/// What the path of an address of the Hub names: a repository, a revision of it, or a file.
fn of_path(text: &str, path: &str) -> Result<ModelName> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let parts: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let no_model = || bad(text, "is no address of a model; write it as https://huggingface.co/ORG/NAME");
    let (repo, rest) = match parts.as_slice() {
        [org, name, rest @ ..] if !NO_MODELS.contains(org) => (format!("{org}/{name}"), rest),
        _ => return Err(no_model()),
    };
    let (model, quant) = split_quant(&repo)?;
    let is_name = model.split_once('/').is_some_and(|(org, name)| is_word(org) && is_word(name));
    let found = ModelName { repo: model.to_owned(), quant, revision: None };
    match rest {
        _ if !is_name => Err(no_model()),
        [] => Ok(found),
        ["tree", revision] => found.at(revision),
        ["blob" | "resolve" | "raw", revision, file @ ..] if !file.is_empty() => {
            let file = file.join("/");
            let known = ["safetensors", "json", "jinja"].iter().any(|end| file.ends_with(&format!(".{end}")));
            match quantization(&file) {
                quant @ Some(_) => ModelName { quant, ..found }.at(revision),
                None if known => found.at(revision),
                None => Err(bad(text, "is no file of weights; give the address of the model, or of a GGUF file")),
            }
        }
        _ => Err(no_model()),
    }
}

/// A part of an address with its escapes resolved; those that are no text stay as they are.
fn decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| part.to_owned())
}

/// The quantization that the path of a GGUF file names: the last word before number and extension, `UD-` included.
pub(crate) fn quantization(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?.strip_suffix(".gguf")?;
    let whole = name.rsplit_once("-of-").and_then(|(rest, _)| Some(rest.rsplit_once('-')?.0)).unwrap_or(name);
    let start = whole.rfind(['-', '.']).map_or(0, |at| at + 1);
    let before = &whole[..start];
    let dynamic = before.to_ascii_uppercase().ends_with("UD-");
    Some(if dynamic { whole[start - 3..].to_owned() } else { whole[start..].to_owned() })
}

/// Whether a path of a repository, or a revision, stays within its folder.
pub(crate) fn is_inside(path: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':', '\0']);
    path.len() <= 1024 && path.split('/').all(plain)
}

fn bad(name: &str, reason: impl Into<String>) -> Error {
    Error::Name { name: name.into(), reason: reason.into() }
}

/// Whether a text can be a part of a name: it becomes a part of paths and addresses.
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

/// The short name that a text is nearest to, if it is near at all.
pub fn nearest_short_name(text: &str) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    let name = text.rsplit('/').next().unwrap_or(&text);
    let name = name.strip_prefix("deepseek-").unwrap_or(name);
    let near = SHORT_NAMES.iter().map(|(short, _)| (distance(name, short), *short));
    near.filter(|(slips, short)| *slips <= 2 && 2 * slips < short.len()).min().map(|(_, short)| short)
}

/// How many letters must be put in, taken away or changed to make one text of another.
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
    fn quantizations_are_read_off_names() {
        for (path, quant) in [
            ("DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf", Some("Q4_K_M")),
            ("qwen.Q8_0.gguf", Some("Q8_0")),
            ("UD-IQ1_S/DeepSeek-R1-0528-UD-IQ1_S-00001-of-00004.gguf", Some("UD-IQ1_S")),
            ("DeepSeek-R1.Q2_K/DeepSeek-R1-Q2_K-00002-of-00005.gguf", Some("Q2_K")),
            ("config.json", None),
        ] {
            assert_eq!(quantization(path).as_deref(), quant, "{path}");
        }
    }

    #[test]
    fn addresses_and_names_of_other_programs_are_understood() {
        for (text, repo) in [
            ("https://huggingface.co/deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-R1"),
            ("HTTPS://HuggingFace.co/a/b/?library=transformers", "a/b"),
            ("hf.co/a/b", "a/b"),
            ("hf.co/a/b:Q4_K_M", "a/b:Q4_K_M"),
            ("https://hf.co/a/b-GGUF/blob/main/b.Q8_0.gguf", "a/b-GGUF:Q8_0 at main"),
            (
                "https://huggingface.co/a/b/resolve/v1.0/UD-IQ1_S/b-UD-IQ1_S-00001-of-00002.gguf?download=true",
                "a/b:UD-IQ1_S at v1.0",
            ),
            ("https://huggingface.co/a/b/blob/main/model-00001-of-00002.safetensors", "a/b at main"),
            ("https://huggingface.co/a/b/tree/refs%2Fpr%2F1", "a/b at refs/pr/1"),
            ("deepseek-r1:1.5b", "unsloth/DeepSeek-R1-Distill-Qwen-1.5B-GGUF:Q4_K_M"),
            ("deepseek-r1:7b", "unsloth/DeepSeek-R1-Distill-Qwen-7B-GGUF:Q4_K_M"),
            ("deepseek-r1:8b", "unsloth/DeepSeek-R1-0528-Qwen3-8B-GGUF:Q4_K_M"),
            ("deepseek-r1:8b-llama-distill-q8_0", "unsloth/DeepSeek-R1-Distill-Llama-8B-GGUF:Q8_0"),
            ("deepseek-r1:671b", "unsloth/DeepSeek-R1-0528-GGUF:Q4_K_M"),
            ("DeepSeek-R1-Distill-Qwen-7B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"),
        ] {
            let name = ModelName::parse(text).map(|name| name.to_string());
            assert_eq!(name.expect("understood"), repo, "{text}");
        }
        for (text, part) in [
            ("deepseek-r1", "very different size; write r1 for"),
            ("deepseek-r1:latest", "very different size"),
            ("deepseek-r1:9b", "very different size"),
            ("https://example.com/a/b", "for another server set HF_ENDPOINT"),
            ("https://huggingface.co/datasets/a/b", "is no address of a model"),
            ("https://huggingface.co/a/b/discussions/3", "is no address of a model"),
            ("https://huggingface.co/a/b/blob/main/README.md", "is no file of weights"),
            ("https://huggingface.co/a/b/tree/..", "is no revision"),
            ("https://huggingface.co/a/b/tree/%2e%2e%2fx", "is no revision"),
            ("https://huggingface.co/a", "is no address of a model"),
        ] {
            let error = ModelName::parse(text).map(|name| name.to_string()).expect_err("refused").to_string();
            assert!(error.contains(part), "{text}: {part:?} is not in {error}");
        }
        let name = ModelName::parse("https://hf.co/a/b/tree/dev").expect("an address");
        assert!(name.clone().at("dev").is_ok() && name.at("main").is_err());
        for wrong in ["", "../x", "/etc/passwd", "a/../b"] {
            assert!(ModelName::parse("a/b").expect("a name").at(wrong).is_err(), "{wrong}");
        }
    }

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
