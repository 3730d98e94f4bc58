//! Tokenizers in GGUF metadata: tokens, their kinds, merges and the name of a pre-tokenizer. What a name stands for is
//! published with each family and stands here.

use serde_json::{Map, Value, json};

use crate::special::is_known_end;
use crate::{Error, Result, SpecialTokens, Tokenizer};

/// A byte-level BPE vocabulary as GGUF metadata hold it.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary<S> {
    /// The tokens by id (`tokenizer.ggml.tokens`), in the alphabet of bytes.
    pub tokens: Vec<S>,
    /// What each is (`tokenizer.ggml.token_type`): 1 normal, 3 control, 4 added by the makers, 5 unused; all normal if empty.
    pub kinds: Vec<u64>,
    /// Pairs of tokens that merge, the first first, with a space between (`tokenizer.ggml.merges`).
    pub merges: Vec<S>,
    /// Name of the pre-tokenizer (`tokenizer.ggml.pre`).
    pub pre: S,
    /// Which token begins a text (`tokenizer.ggml.bos_token_id`).
    pub bos_token_id: Option<u32>,
    /// Which token ends a text or a turn (`tokenizer.ggml.eos_token_id`).
    pub eos_token_id: Option<u32>,
    /// Which token fills (`tokenizer.ggml.padding_token_id`).
    pub pad_token_id: Option<u32>,
    /// Whether every text begins with the former (`tokenizer.ggml.add_bos_token`); where no key says it, the pre-tokenizer does.
    pub add_bos_token: Option<bool>,
}

const NORMAL: u64 = 1;
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

/// GPT-2's pattern.
const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// What a name of `tokenizer.ggml.pre` stands for: a pre-tokenizer and what else its family has.
#[derive(Debug, PartialEq, Eq)]
struct PreTokenizer {
    /// Patterns, each of which splits what those before it left whole.
    patterns: Vec<String>,
    /// Whether text is normalised to NFC first.
    nfc: bool,
    /// Whether a word that is a token is that token, whatever the merges say.
    ignore_merges: bool,
}

/// The pre-tokenizers that can be written, of equal ones one, each with the other names that stand for it.
const NAMES: [(&str, &[&str]); 19] = [
    ("deepseek-v3", &["hunyuan-dense", "joyai-llm"]),
    ("deepseek-llm", &[]),
    ("deepseek-coder", &[]),
    ("gpt-2", &["a.x-4.0", "gigachat", "mellum", "phi-2", "trillion"]),
    ("qwen2", &["deepseek-r1-qwen"]),
    // Qwen's pattern, and no NFC.
    ("stablelm2", &["hunyuan", "kormo", "megrez"]),
    ("llama-bpe", &["falcon3", "glm4", "llama-v3", "llama3", "midm-2.0", "pixtral"]),
    // Llama 3's pattern, and all merges.
    ("smaug-bpe", &["chatglm-bpe", "dbrx"]),
    ("smollm", &["codeshell", "command-r", "exaone", "minerva-7b", "refact", "starcoder"]),
    ("tekken", &[]),
    ("gpt-4o", &["kanana2", "llama4"]),
    ("kimi-k2", &[]),
    ("seed-coder", &[]),
    ("minicpm5", &[]),
    ("superbpe", &[]),
    ("viking", &[]),
    ("poro-chat", &["bloom", "gpt3-finnish"]),
    ("falcon", &[]),
    ("default", &[]),
];

/// Names whose texts begin with the BOS token where no key says otherwise.
const BEGINS: [&str; 7] = ["falcon3", "llama-bpe", "llama-v3", "llama3", "midm-2.0", "pixtral", "tekken"];

impl PreTokenizer {
    fn named(name: &str) -> Option<Self> {
        let (name, _) = NAMES.into_iter().find(|(first, others)| *first == name || others.contains(&name))?;
        const CONTRACTIONS: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
        // GPT-4's pattern, with numbers cut after one digit (Qwen) or three (Llama 3), or not at all.
        let gpt_4 = |digits: &str| {
            format!(
                r"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            )
        };
        // GPT-4o's pattern: words are cut before a capital; `only` restricts the letters.
        let gpt_4o = |only: &str, contractions: &str, rest: &str| {
            let (upper, lower) = (
                format!(r"[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}{only}]"),
                format!(r"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}{only}]"),
            );
            let before = r"[^\r\n\p{L}\p{N}]?";
            format!(
                r"{before}{upper}*{lower}+{contractions}|{before}{upper}+{lower}*{contractions}|{rest}|\s*[\r\n]+|\s+(?!\S)|\s+"
            )
        };
        let optional = format!("{CONTRACTIONS}?");
        let digit = r"\p{N}".to_owned();
        let patterns = match name {
            "deepseek-v3" => crate::tokenizer::SPLITS.map(str::to_owned).into(),
            "deepseek-llm" => vec![
                r"[\r\n]".into(),
                format!(r"\s?[{CASED}]+"),
                "\\s?[!-/:-~！-／：-～‘-‟\u{3000}-。]+".into(),
                r"\s+$".into(),
                EAST_ASIAN.into(),
                digit,
            ],
            "deepseek-coder" => {
                vec![r"[\r\n]".into(), r"\s?\p{L}+".into(), r"\s?\p{P}+".into(), EAST_ASIAN.into(), digit]
            }
            "gpt-2" => vec![GPT_2.into()],
            "qwen2" | "stablelm2" => vec![gpt_4(r"\p{N}")],
            "llama-bpe" | "smaug-bpe" => vec![gpt_4(r"\p{N}{1,3}")],
            "smollm" => vec![digit, GPT_2.into()],
            "tekken" => vec![gpt_4o("", "", r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*")],
            "gpt-4o" => vec![gpt_4o("", &optional, r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*")],
            "kimi-k2" => {
                let words = gpt_4o(r"&&[^\p{Han}]", &optional, r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*");
                vec![format!(r"[\p{{Han}}]+|{words}")]
            }
            "seed-coder" => vec![format!(
                r"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
            )],
            "minicpm5" => vec![r"\p{N}{1,3}".into(), gpt_4(r"\p{N}+")],
            "superbpe" => vec![r"\p{N}+".into(), r"(?=(\d{3})+(?!\d))".into()],
            "viking" => vec![" ?[^(\\s|.,!?…。，、।۔،)]+".into(), digit],
            "poro-chat" => vec![" ?[^(\\s|.,!?…。，、।۔،)]+".into()],
            "falcon" => vec![r"[\p{P}\$\+<=>\^~\|`]+".into(), GPT_2.into(), "[0-9][0-9][0-9]".into()],
            "default" => vec![r"[\p{P}\$\+<=>\^~\|]+".into(), GPT_2.into(), r"\p{N}+".into(), "[0-9][0-9][0-9]".into()],
            _ => unreachable!("every name in NAMES has its patterns"),
        };
        let ignore_merges = ["llama-bpe", "tekken", "minicpm5"].contains(&name);
        Some(Self { patterns, nfc: name == "qwen2", ignore_merges })
    }

    /// The one of a tokenizer.json.
    fn of(root: &Value) -> Self {
        let pre_tokenizer = &root["pre_tokenizer"];
        let one = std::slice::from_ref(pre_tokenizer);
        let stages = pre_tokenizer["pretokenizers"].as_array().map_or(one, Vec::as_slice);
        let pattern = |stage: &Value| match stage["type"].as_str() {
            Some("Digits") if stage["individual_digits"] == true => Some(r"\p{N}".to_owned()),
            Some("ByteLevel") if stage["use_regex"] == false => None,
            Some("ByteLevel") => Some(GPT_2.into()),
            _ => Some(stage["pattern"]["Regex"].as_str().unwrap_or_default().to_owned()),
        };
        let normalizer = &root["normalizer"];
        let nfc = normalizer["normalizers"].as_array().map_or(!normalizer.is_null(), |all| !all.is_empty());
        Self {
            patterns: stages.iter().filter_map(pattern).collect(),
            nfc,
            ignore_merges: root["model"]["ignore_merges"] == true,
        }
    }
}

impl Tokenizer {
    /// The tokenizer of a vocabulary, as if it had been published as a tokenizer.json.
    ///
    /// # Errors
    /// The pre-tokenizer is not supported, or the vocabulary is broken: as [`Tokenizer::load`].
    pub fn from_vocabulary<S: AsRef<str>>(vocabulary: &Vocabulary<S>) -> Result<Self> {
        let refuse = |reason: String| Error::Tokenizer { origin: "the vocabulary of the file".into(), reason };
        let name = vocabulary.pre.as_ref();
        let Some(pre_tokenizer) = PreTokenizer::named(name) else {
            return Err(refuse(format!("pre-tokenizer {name:?} is not supported; {}", supported())));
        };
        let token = |id: Option<u32>| vocabulary.tokens.get(id? as usize).map(AsRef::as_ref);
        let mut special = SpecialTokens::default();
        for (name, id) in [
            ("bos_token", vocabulary.bos_token_id),
            ("eos_token", vocabulary.eos_token_id),
            ("pad_token", vocabulary.pad_token_id),
        ] {
            special = special.with(name, token(id).unwrap_or_default());
        }
        let add_bos_token = vocabulary.add_bos_token.unwrap_or(BEGINS.contains(&name));
        let begin = vocabulary.bos_token_id.filter(|_| add_bos_token).zip(special.get("bos_token"));
        let mut tokenizer = Self::from_json(vocabulary.json(&pre_tokenizer, begin).to_string())?
            .with_special_tokens(special, Some(add_bos_token))
            .map_err(refuse)?;
        let has = |token: &str| tokenizer.id_of(token).is_some();
        let ends = vocabulary.tokens.iter().map(AsRef::as_ref).filter(|token| is_known_end(token, has));
        tokenizer.known_ends = ends.filter_map(|token| tokenizer.id_of(token)).collect();
        Ok(tokenizer)
    }

    /// The vocabulary as GGUF metadata hold it: the inverse of [`Tokenizer::from_vocabulary`]. Ids that stand for no token
    /// become unused ones, up to `ids` in all.
    ///
    /// # Errors
    /// The pre-tokenizer has no name in GGUF.
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
        let own = PreTokenizer::of(&root);
        let known = NAMES.into_iter().find(|(name, _)| PreTokenizer::named(name).is_some_and(|known| known == own));
        let (pre, _) = known.ok_or_else(|| {
            let reason = format!("its pre-tokenizer has no name in GGUF that is known; {}", supported());
            Error::Tokenizer { origin: "the tokenizer.json of the model".into(), reason }
        })?;
        let id = |name: &str| self.special_tokens().get(name).and_then(|token| self.id_of(token));
        let (tokens, kinds) = tokens.into_iter().unzip();
        Ok(Vocabulary {
            tokens,
            kinds,
            merges,
            pre: pre.into(),
            bos_token_id: self.begin_ids().first().copied().or(id("bos_token")),
            eos_token_id: id("eos_token"),
            pad_token_id: id("pad_token"),
            add_bos_token: Some(!self.begin_ids().is_empty()),
        })
    }
}

/// The names that are understood, for messages.
fn supported() -> String {
    let all: Vec<&str> =
        NAMES.into_iter().flat_map(|(name, others)| [name].into_iter().chain(others.iter().copied())).collect();
    format!("supported are {}", all.join(", "))
}

impl<S: AsRef<str>> Vocabulary<S> {
    /// The tokenizer.json that says the same; `begin` is the token with which every text begins.
    fn json(&self, pre_tokenizer: &PreTokenizer, begin: Option<(u32, &str)>) -> Value {
        let has = |token: &str| self.tokens.iter().any(|other| other.as_ref() == token);
        // A converter may list an end token as any other; in a text it is one all the same.
        let kind = |id: usize| match self.kinds.get(id).copied().unwrap_or(NORMAL) {
            NORMAL if is_known_end(self.tokens[id].as_ref(), has) => CONTROL,
            kind => kind,
        };
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
        let stages: Vec<Value> = pre_tokenizer.patterns.iter().map(split).chain([bytes.clone()]).collect();
        json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": added.collect::<Vec<_>>(),
            "normalizer": if pre_tokenizer.nfc { json!({ "type": "NFC" }) } else { Value::Null },
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": stages },
            "post_processor": begin.map_or(bytes.clone(), |(id, token)| begins_with(id, token)), "decoder": bytes,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": pre_tokenizer.ignore_merges, "vocab": vocab,
                "merges": self.merges.iter().map(AsRef::as_ref).collect::<Vec<&str>>()
            }
        })
    }
}

/// The post-processor that puts a token in front of every text.
fn begins_with(id: u32, token: &str) -> Value {
    let special = |type_id: u32| json!({ "SpecialToken": { "id": token, "type_id": type_id } });
    let text = |text: &str, type_id: u32| json!({ "Sequence": { "id": text, "type_id": type_id } });
    json!({
        "type": "TemplateProcessing",
        "single": [special(0), text("A", 0)],
        "pair": [special(0), text("A", 0), special(1), text("B", 1)],
        "special_tokens": { token: { "id": token, "ids": [id], "tokens": [token] } }
    })
}
