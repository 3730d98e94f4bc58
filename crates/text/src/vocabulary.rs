//! How does a tokenizer come out of GGUF metadata, and how into them? They hold tokens, their kinds, merges and the name of a
//! way to split; what that name stands for is published with each family and stands here.

use serde_json::{Map, Value, json};

use crate::{Error, Result, Tokenizer};

/// A byte-level BPE vocabulary as GGUF metadata hold it.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary<S> {
    /// The tokens by id (`tokenizer.ggml.tokens`), in the alphabet of bytes.
    pub tokens: Vec<S>,
    /// What each is (`tokenizer.ggml.token_type`): 1 normal, 3 control, 4 added by the makers, 5 unused; all normal if empty.
    pub kinds: Vec<u64>,
    /// Pairs of tokens that merge, the first first, with a space between (`tokenizer.ggml.merges`).
    pub merges: Vec<S>,
    /// The way to split (`tokenizer.ggml.pre`).
    pub splitting: S,
}

const CONTROL: u64 = 3;
const ADDED: u64 = 4;
const UNUSED: u64 = 5;

/// Han, kana and hangul as DeepSeek's first tokenizers write it.
const EAST_ASIAN: &str = "[一-龥\u{800}-一가-\u{d7ff}]+";
/// Letters that have case, of the Unicode version of DeepSeek-LLM's tokenizer.
const CASED: &str = concat!(
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-Ֆ",
    "\u{10a0}-\u{10c5}\u{13a0}-\u{13f5}\u{13f8}-\u{13fd}\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}",
    "\u{1d6b}-\u{1d77}\u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}",
    "\u{1f50}-\u{1f57}\u{1f59}\u{1f5b}\u{1f5d}\u{1f5f}-\u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}",
    "\u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}\u{1ff2}-\u{1ff4}",
    "\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-\u{2113}\u{2115}\u{2119}-\u{211d}\u{2124}\u{2126}\u{2128}",
    "\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}\u{214e}\u{2183}\u{2184}",
    "\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}\u{a640}-\u{a66d}\u{a680}-\u{a69b}",
    "\u{a722}-\u{a76f}\u{a771}-\u{a787}\u{a78b}-\u{a78e}\u{ab70}-\u{abbf}\u{fb00}-\u{fb06}\u{fb13}-\u{fb17}",
    "\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}",
    "\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}",
);

/// What the name of a way to split stands for.
struct Splitting {
    /// Patterns, each of which splits what those before it left whole.
    patterns: Vec<String>,
    /// Whether text is normalised to NFC first.
    nfc: bool,
    /// Whether a word that is a token is that token, whatever the merges say.
    whole_words: bool,
}

/// Ways to split that have a name in GGUF, of equal ones one.
const NAMES: [&str; 6] = ["deepseek-v3", "deepseek-llm", "deepseek-coder", "gpt-2", "qwen2", "llama-bpe"];

impl Splitting {
    fn named(name: &str) -> Option<Self> {
        let plain = |patterns: Vec<String>| Self { patterns, nfc: false, whole_words: false };
        // GPT-4's pattern, with numbers cut after one digit (Qwen) or three (Llama 3).
        let words = |digits: &str| {
            format!(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            )
        };
        Some(match name {
            "deepseek-v3" => plain(crate::tokenizer::SPLITS.map(str::to_owned).into()),
            "deepseek-llm" => plain(vec![
                r"[\r\n]".into(),
                format!(r"\s?[{CASED}]+"),
                "\\s?[!-/:-~！-／：-～‘-‟\u{3000}-。]+".into(),
                r"\s+$".into(),
                EAST_ASIAN.into(),
                r"\p{N}".into(),
            ]),
            "deepseek-coder" => plain(vec![
                r"[\r\n]".into(),
                r"\s?\p{L}+".into(),
                r"\s?\p{P}+".into(),
                EAST_ASIAN.into(),
                r"\p{N}".into(),
            ]),
            "gpt-2" => {
                plain(vec![r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+".into()])
            }
            "qwen2" | "deepseek-r1-qwen" => Self { patterns: vec![words(r"\p{N}")], nfc: true, whole_words: false },
            "llama3" | "llama-v3" | "llama-bpe" => {
                Self { patterns: vec![words(r"\p{N}{1,3}")], nfc: false, whole_words: true }
            }
            _ => return None,
        })
    }
}

impl Tokenizer {
    /// The tokenizer of a vocabulary, as if it had been published as a tokenizer.json.
    ///
    /// # Errors
    /// The way to split is not known, or the vocabulary is broken: as [`Tokenizer::load`].
    pub fn from_vocabulary<S: AsRef<str>>(vocabulary: &Vocabulary<S>) -> Result<Self> {
        let name = vocabulary.splitting.as_ref();
        let Some(splitting) = Splitting::named(name) else {
            let reason = format!("splits text by {name:?}; supported are {}", NAMES.join(", "));
            return Err(Error::Tokenizer { origin: "the vocabulary of the file".into(), reason });
        };
        Self::from_json(vocabulary.json(&splitting).to_string())
    }

    /// The vocabulary as GGUF metadata hold it: the inverse of [`Tokenizer::from_vocabulary`]. Ids that stand for no token
    /// become unused ones, up to `ids` in all.
    ///
    /// # Errors
    /// The tokenizer splits text in a way that has no name in GGUF.
    pub fn vocabulary(&self, ids: usize) -> Result<Vocabulary<String>> {
        let root: Value = serde_json::from_str(self.json()).expect("invariant: the tokenizer came from this text");
        let pad = |id: usize| (format!("[PAD{id}]"), UNUSED);
        let mut tokens: Vec<(String, u64)> = (0..ids.max(self.vocab_size())).map(pad).collect();
        let listed = root["model"]["vocab"].as_object().into_iter().flatten();
        let normal = listed.map(|(token, id)| (token.as_str(), id, 1));
        let added = root["added_tokens"].as_array().into_iter().flatten().map(|token| {
            let kind = if token["special"] == true { CONTROL } else { ADDED };
            (token["content"].as_str().unwrap_or_default(), &token["id"], kind)
        });
        for (token, id, kind) in normal.chain(added) {
            if let Some(place) = id.as_u64().and_then(|id| tokens.get_mut(usize::try_from(id).ok()?)) {
                *place = (token.to_owned(), kind);
            }
        }
        let merge = |pair: &Value| match pair {
            Value::Array(pair) => {
                pair.iter().map(|token| token.as_str().unwrap_or_default()).collect::<Vec<_>>().join(" ")
            }
            pair => pair.as_str().unwrap_or_default().to_owned(),
        };
        let merges = root["model"]["merges"].as_array().into_iter().flatten().map(merge).collect();
        let (tokens, kinds) = tokens.into_iter().unzip();
        Ok(Vocabulary { tokens, kinds, merges, splitting: splitting_of(&root["pre_tokenizer"])?.to_owned() })
    }
}

/// The name of the way to split in a tokenizer.json.
fn splitting_of(pre_tokenizer: &Value) -> Result<&'static str> {
    let one = std::slice::from_ref(pre_tokenizer);
    let stages = pre_tokenizer["pretokenizers"].as_array().map_or(one, Vec::as_slice);
    let pattern = |stage: &Value| match stage["type"].as_str() {
        Some("Digits") if stage["individual_digits"] == true => Some(r"\p{N}".to_owned()),
        // Its own pattern, if it has one.
        Some("ByteLevel") if stage["use_regex"] == false => None,
        Some("ByteLevel") => Splitting::named("gpt-2").and_then(|mut splitting| splitting.patterns.pop()),
        _ => Some(stage["pattern"]["Regex"].as_str().unwrap_or_default().to_owned()),
    };
    let patterns: Vec<String> = stages.iter().filter_map(pattern).collect();
    let known = |name: &&str| Splitting::named(name).is_some_and(|splitting| splitting.patterns == patterns);
    NAMES.into_iter().find(known).ok_or_else(|| {
        let reason = format!("splits text in a way that has no name in GGUF; those with one are {}", NAMES.join(", "));
        Error::Tokenizer { origin: "the tokenizer.json of the model".into(), reason }
    })
}

impl<S: AsRef<str>> Vocabulary<S> {
    /// The tokenizer.json that says the same.
    fn json(&self, splitting: &Splitting) -> Value {
        let kind = |id: usize| self.kinds.get(id).copied().unwrap_or(1);
        let used = || self.tokens.iter().map(AsRef::as_ref).enumerate().filter(|(id, _)| kind(*id) != UNUSED);
        let vocab: Map<String, Value> =
            used().map(|(id, token): (usize, &str)| (token.to_owned(), json!(id))).collect();
        let added = used().filter(|(id, _)| [CONTROL, ADDED].contains(&kind(*id))).map(|(id, token)| {
            json!({
                "id": id, "content": token, "special": kind(id) == CONTROL,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false
            })
        });
        let split = |pattern: &String| json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
        let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
        let stages: Vec<Value> = splitting.patterns.iter().map(split).chain([bytes.clone()]).collect();
        json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": added.collect::<Vec<_>>(),
            "normalizer": if splitting.nfc { json!({ "type": "NFC" }) } else { Value::Null },
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": stages },
            "post_processor": bytes, "decoder": bytes,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": splitting.whole_words, "vocab": vocab,
                "merges": self.merges.iter().map(AsRef::as_ref).collect::<Vec<&str>>()
            }
        })
    }
}
