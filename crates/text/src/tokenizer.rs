//! The tokenizer: text to ids, and ids to bytes.
//!
//! Byte-level BPE as DeepSeek, Qwen and Llama publish it, through the `tokenizers` library. Every byte is in the alphabet,
//! so any text has ids, and the ids give the same text back. Decoding is done here, from a table of the bytes of each id:
//! text decoded token by token is then the text decoded at once, by construction.

use crate::rendered::ControlTokens;
use crate::special::{self, TokenizerConfig};
use crate::tags::{THINK_CLOSE, THINK_OPEN, ThinkTokens};
use crate::{Error, Rendered, Result, SpecialTokens, file};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;
use std::sync::OnceLock;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::{NormalizerWrapper, utils::Sequence as Normalizers};
use tokenizers::pre_tokenizers::{PreTokenizerWrapper, byte_level::ByteLevel, sequence::Sequence, split::Split};
use tokenizers::{
    AddedToken, Model, NormalizedString, Normalizer, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior,
    TokenizerImpl, Trainer,
};

/// Begins every rendered prompt; id 0 in V3, R1 and every tokenizer trained here.
pub const BOS: &str = "<｜begin▁of▁sentence｜>";
/// Ends every answer; id 1.
pub const EOS: &str = "<｜end▁of▁sentence｜>";
/// Fills rows that must have equal length; id 2.
pub const PAD: &str = "<｜▁pad▁｜>";
/// Stands before what the user says.
pub const USER: &str = "<｜User｜>";
/// Stands before what the assistant says.
pub const ASSISTANT: &str = "<｜Assistant｜>";

const SPECIAL: [&str; 3] = [BOS, EOS, PAD];
const ADDED: [&str; 4] = [THINK_OPEN, THINK_CLOSE, USER, ASSISTANT];

/// DeepSeek-V3's three stages of splitting, in order; facts sheet 1.10.
pub(crate) const SPLITS: [&str; 3] = [
    r"\p{N}{1,3}",
    "[一-龥\u{3040}-ゟ゠-ヿ]+",
    concat!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##,
        "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+",
        "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
    ),
];

/// A pair of tokens seen only once is no evidence for a token of its own.
const MIN_FREQUENCY: u64 = 2;
/// Four times the largest published vocabulary; bounds the tables that a file can make us allocate.
const MAX_IDS: usize = 1 << 20;

type Library = TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, ByteLevel, ByteLevel>;

/// A byte-level BPE tokenizer: text to ids and back.
#[derive(Debug)]
pub struct Tokenizer {
    library: Library,
    /// The tokenizer.json, kept so that it is saved as it was read.
    json: String,
    /// By id; empty where an id stands for no token.
    bytes: Vec<Box<[u8]>>,
    /// The id of the token that is one byte, by byte.
    byte_ids: Vec<Option<u32>>,
    special: SpecialTokens,
    begin_ids: Vec<u32>,
    /// Of the vocabulary of a GGUF file: what ends a turn by its name.
    pub(crate) known_ends: Vec<u32>,
    controls: OnceLock<ControlTokens>,
}

/// What a new tokenizer shall look like.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// Ids in all, those of added tokens included; fewer come out if the texts have fewer frequent pairs.
    pub vocab_size: usize,
    /// Tokens added after `<think>`, `</think>`, `<｜User｜>` and `<｜Assistant｜>`, not special, with the last ids.
    pub added_tokens: Vec<String>,
}

impl Tokenizer {
    /// The tokenizer of a tokenizer.json, given the file or the folder in which it lies, with the special tokens that the
    /// tokenizer_config.json and the special_tokens_map.json beside it name.
    ///
    /// # Errors
    /// A file cannot be read, is broken, or is not byte-level BPE over all 256 bytes. Whatever it contains, nothing panics.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        let config = TokenizerConfig::read(path.parent().unwrap_or(Path::new("")))?;
        Self::checked(file::read(&path)?)
            .and_then(|tokenizer| tokenizer.with_special_tokens(config.special, config.add_bos_token))
            .map_err(|reason| Error::Tokenizer { origin: path.display().to_string(), reason })
    }

    /// The tokenizer of the text of a tokenizer.json.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn from_json(json: impl Into<String>) -> Result<Self> {
        Self::checked(json.into()).map_err(|reason| Error::Tokenizer { origin: "(given text)".into(), reason })
    }

    /// A tokenizer learned from these texts, with DeepSeek's layout: ids 0, 1, 2 are [`BOS`], [`EOS`] and [`PAD`], then come
    /// the 256 bytes, what was learned, and the added tokens. The same texts give the same file, byte for byte.
    ///
    /// ```
    /// use minke_text::{Tokenizer, TrainOptions};
    /// let texts = ["make 13 from 6 1 7"; 10];
    /// let tokenizer = Tokenizer::train(texts.iter(), &TrainOptions { vocab_size: 300, added_tokens: vec![] })?;
    /// assert_eq!(tokenizer.decode(&tokenizer.encode("déjà <think>"), false), "déjà <think>");
    /// # Ok::<(), minke_text::Error>(())
    /// ```
    ///
    /// # Errors
    /// `vocab_size` has no room for the bytes and the added tokens, or an added token is empty or given twice.
    pub fn train<T: AsRef<str>>(texts: impl Iterator<Item = T> + Send, options: &TrainOptions) -> Result<Self> {
        let added: Vec<&str> = ADDED.into_iter().chain(options.added_tokens.iter().map(String::as_str)).collect();
        let controls: Vec<&str> = SPECIAL.into_iter().chain(added.iter().copied()).collect();
        let training = |reason: String| Error::Training { reason };
        for (i, token) in controls.iter().enumerate() {
            if token.is_empty() || controls[..i].contains(token) {
                return Err(training(format!("the added token {token:?} is empty or given twice; remove it")));
            }
        }
        if options.vocab_size < controls.len() + 256 || options.vocab_size > MAX_IDS {
            let least = controls.len() + 256;
            return Err(training(format!("vocab_size is {}; choose {least} to {MAX_IDS}", options.vocab_size)));
        }

        let mut trainer = BpeTrainer::builder()
            .vocab_size(options.vocab_size - added.len())
            .min_frequency(MIN_FREQUENCY)
            .show_progress(false)
            .special_tokens(SPECIAL.iter().map(|token| AddedToken::from(*token, true)).collect())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let splitting = deepseek_splitting();
        let pieces = texts.flat_map(|text| without(text.as_ref(), &controls));
        let words = |piece: &str| {
            let mut split = PreTokenizedString::from(piece);
            splitting.pre_tokenize(&mut split)?;
            let words = split.get_splits(tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
            Ok(words.into_iter().map(|(word, _, _)| word.to_owned()).collect())
        };
        let library = |error: tokenizers::Error| training(format!("the library says: {error}"));
        trainer.feed(pieces, words).map_err(library)?;
        let mut model = BPE::default();
        let special = trainer.train(&mut model).map_err(library)?;

        let mut trained = Library::new(model);
        trained.with_normalizer(Some(Normalizers::new(vec![]))).map_err(library)?;
        trained.with_pre_tokenizer(Some(splitting));
        trained.with_post_processor(Some(ByteLevel::default().trim_offsets(false)));
        trained.with_decoder(Some(ByteLevel::default()));
        trained.add_special_tokens(special).map_err(library)?;
        trained.add_tokens(added.iter().map(|token| AddedToken::from(*token, false))).map_err(library)?;
        // As DeepSeek publishes it.
        let special = SpecialTokens::new(BOS, EOS).with("pad_token", EOS);
        Self::checked(trained.to_string(true).map_err(library)?)
            .and_then(|tokenizer| tokenizer.with_special_tokens(special, Some(true)))
            .map_err(training)
    }

    /// The same tokenizer with these special tokens. Where `add_bos_token` is none, the post-processor of the tokenizer.json
    /// says how a text begins.
    pub(crate) fn with_special_tokens(
        mut self,
        special: SpecialTokens,
        add_bos_token: Option<bool>,
    ) -> std::result::Result<Self, String> {
        match (add_bos_token, special.get("bos_token")) {
            (None, _) => {}
            (Some(true), Some(token)) => {
                let unknown = || format!("add_bos_token is true, but the vocabulary has no token {token:?}");
                self.begin_ids = vec![self.id_of(token).ok_or_else(unknown)?];
            }
            _ => self.begin_ids.clear(),
        }
        self.special = special;
        Ok(self)
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into the folder, each whole or not at all.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        file::write(folder.as_ref(), "tokenizer.json", &self.json)?;
        special::save(folder.as_ref(), &self.special, !self.begin_ids.is_empty())
    }

    /// The tokenizer.json.
    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    /// The special tokens that its files name.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// The ids with which every text begins, by `add_bos_token` or the post-processor; most often one or none.
    pub fn begin_ids(&self) -> &[u32] {
        &self.begin_ids
    }

    /// The ids that end a turn: `stated` (`eos_token_ids` of the configuration), then what the tokenizer's own files say:
    /// `eos_token`, and end tokens known by name in the vocabulary of a GGUF file. None occurs twice.
    pub fn end_ids(&self, stated: &[u32]) -> Vec<u32> {
        let eos = self.special.get("eos_token").and_then(|token| self.id_of(token));
        let mut ends = Vec::new();
        for id in stated.iter().copied().chain(eos).chain(self.known_ends.iter().copied()) {
            if !ends.contains(&id) {
                ends.push(id);
            }
        }
        ends
    }

    /// The ids of a whole text or prompt: as [`Tokenizer::encode`], behind the [`Tokenizer::begin_ids`], unless the text
    /// itself begins with them, as what a chat template renders does.
    pub fn encode_prompt(&self, text: &str) -> Vec<u32> {
        self.begun(self.encode(text))
    }

    /// The ids of a rendered prompt, as [`Tokenizer::encode_prompt`] gives them, save that an added token counts only where the
    /// template wrote it. Text without letters of added tokens has the same ids either way.
    pub fn encode_rendered(&self, prompt: &Rendered) -> Vec<u32> {
        let Some((marked, marks)) = prompt.parts() else { return self.encode_prompt(prompt.text()) };
        let added = self.library.get_added_vocabulary();
        let split = added.extract_and_normalize(self.library.get_normalizer(), marked);
        let parts = split.get_splits(tokenizers::OffsetReferential::Normalized, tokenizers::OffsetType::Byte);
        let (mut ids, mut plain) = (Vec::new(), String::new());
        for (i, (text, _, tokens)) in parts.iter().enumerate() {
            let from_outside = || parts.get(i + 1).is_some_and(|(next, ..)| next.starts_with(marks.behind));
            match tokens {
                Some(tokens) if !from_outside() => {
                    ids.extend(self.encode_plain(&std::mem::take(&mut plain)));
                    ids.extend(tokens.iter().map(|token| token.id));
                }
                _ => plain.push_str(&marks.removed(text)),
            }
        }
        ids.extend(self.encode_plain(&plain));
        self.begun(ids)
    }

    /// These ids, behind those with which every text begins.
    fn begun(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if !ids.starts_with(&self.begin_ids) {
            ids.splice(..0, self.begin_ids.iter().copied());
        }
        ids
    }

    /// The ids of a text in which added tokens count. No id is added at either end.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let added = self.library.get_added_vocabulary();
        self.ids(added.extract_and_normalize(self.library.get_normalizer(), text))
    }

    /// The ids of a text in which no added token counts: no id of one comes out, whatever the text says.
    pub fn encode_plain(&self, text: &str) -> Vec<u32> {
        let ids = self.ids(self.normalize(text).into());
        if !ids.iter().any(|id| self.is_added(*id)) {
            return ids;
        }
        // The merges of a strange file can spell an added token; its single bytes say the same and control nothing.
        let spelled = |id: u32| match self.is_added(id) {
            true => self.token_bytes(id).iter().filter_map(|byte| self.byte_ids[usize::from(*byte)]).collect(),
            false => vec![id],
        };
        ids.into_iter().flat_map(spelled).collect()
    }

    /// The text of these ids; bytes that are no UTF-8 become U+FFFD, and ids that stand for no token nothing.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let shown = ids.iter().filter(|id| !(skip_special && self.is_special(**id)));
        let bytes: Vec<u8> = shown.flat_map(|id| self.token_bytes(*id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes for which an id stands, for [`Utf8Stream`](crate::Utf8Stream); empty if it stands for no token.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], |bytes| bytes)
    }

    /// The id of a token, added tokens included, as it is written in tokenizer.json.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.library.token_to_id(token)
    }

    /// Whether an id is of a special token, which a reader is not shown; the tags around the thought never are.
    pub fn is_special(&self, id: u32) -> bool {
        let hidden = |token: &AddedToken| token.special && ![THINK_OPEN, THINK_CLOSE].contains(&token.content.as_str());
        self.library.get_added_vocabulary().get_added_tokens_decoder().get(&id).is_some_and(hidden)
    }

    /// The ids of `<think>` and `</think>`, as far as they are tokens.
    pub fn think_tokens(&self) -> ThinkTokens {
        ThinkTokens { open: self.id_of(THINK_OPEN), close: self.id_of(THINK_CLOSE) }
    }

    /// One more than the largest id: the least number of rows of an embedding.
    pub fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    /// A text as it is before it is cut into words.
    pub(crate) fn normalized(&self, text: &str) -> String {
        self.normalize(text).get().to_owned()
    }

    fn normalize(&self, text: &str) -> NormalizedString {
        let mut normalized = NormalizedString::from(text);
        if let Some(normalizer) = self.library.get_normalizer() {
            normalizer.normalize(&mut normalized).expect("invariant: only NFC is accepted, which cannot fail");
        }
        normalized
    }

    /// The added tokens that control something, with their ids, in the order of the ids: all but white space.
    pub(crate) fn control_tokens(&self) -> Vec<(u32, &str)> {
        let added = self.library.get_added_vocabulary().get_added_tokens_decoder().iter();
        let all = added.map(|(id, token)| (*id, token.content.as_str()));
        let mut controls: Vec<_> = all.filter(|(_, content)| !content.trim().is_empty()).collect();
        controls.sort_unstable();
        controls
    }

    /// The same, to be found in texts.
    pub(crate) fn controls(&self) -> &ControlTokens {
        self.controls.get_or_init(|| ControlTokens::new(self.control_tokens().into_iter().map(|(_, token)| token)))
    }

    fn is_added(&self, id: u32) -> bool {
        self.library.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id)
    }

    fn ids(&self, mut text: PreTokenizedString) -> Vec<u32> {
        if let Some(splitting) = self.library.get_pre_tokenizer() {
            splitting.pre_tokenize(&mut text).expect("invariant: only splitting that cannot fail is accepted");
        }
        let model = self.library.get_model();
        text.tokenize(|word| model.tokenize(word.get())).expect("invariant: a character without a token is dropped");
        let encoding = text.into_encoding(None, 0, tokenizers::OffsetType::None);
        encoding.expect("invariant: every split was tokenized").get_ids().to_vec()
    }

    fn checked(json: String) -> std::result::Result<Self, String> {
        let mut root: Value = serde_json::from_str(&json).map_err(|error| format!("is not JSON: {error}"))?;
        check_kind(&root)?;
        check_model(&root["model"])?;
        let begin_ids = begin_of(&root["post_processor"])?;
        // Not used here, and nothing that the library would do for them is wanted.
        for unused in ["truncation", "padding", "post_processor", "decoder"] {
            root[unused] = Value::Null;
        }
        let refused = |error: serde_json::Error| format!("the library refuses it: {error}").replace('\n', " ");
        let library = Library::deserialize(&root).map_err(refused)?;
        let bytes = byte_table(&root, &library)?;
        let byte_ids: Vec<Option<u32>> =
            (0..=255).map(|byte| library.token_to_id(&char_of(byte).to_string())).collect();
        if let Some(byte) = (0..=255).find(|&byte| byte_ids[usize::from(byte)].is_none() && !may_be_missing(byte)) {
            return Err(format!("has no token for the byte {byte:#04x}, which texts have; the file is not whole"));
        }
        let (special, known_ends) = (SpecialTokens::default(), Vec::new());
        let controls = OnceLock::new();
        Ok(Tokenizer { library, json, bytes, byte_ids, special, begin_ids, known_ends, controls })
    }
}

/// Whether a published vocabulary may have no token for a byte: those of no UTF-8 text, the first ones of characters beyond the
/// planes in use, and control characters. Where a text has such a byte it is dropped, as transformers and llama.cpp do.
fn may_be_missing(byte: u8) -> bool {
    matches!(byte, 0xc0 | 0xc1 | 0xf1..) || (byte.is_ascii_control() && !byte.is_ascii_whitespace())
}

/// DeepSeek-V3's pre-tokenizer.
fn deepseek_splitting() -> PreTokenizerWrapper {
    let split = |pattern: &&str| {
        let pattern = tokenizers::pre_tokenizers::split::SplitPattern::Regex((*pattern).into());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
        PreTokenizerWrapper::Split(split.expect("invariant: the published patterns compile"))
    };
    let mut stages: Vec<_> = SPLITS.iter().map(split).collect();
    stages.push(ByteLevel::new(false, true, false).into());
    Sequence::new(stages).into()
}

/// The parts of a text between these tokens: control tokens are not spelled from learned pieces.
fn without(text: &str, tokens: &[&str]) -> Vec<String> {
    let split_all = |parts: Vec<String>, token: &&str| {
        parts.iter().flat_map(|part| part.split(token)).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    tokens.iter().fold(vec![text.to_owned()], split_all)
}

/// Refuses whatever is not byte-level BPE, before the library sees it.
fn check_kind(root: &Value) -> std::result::Result<(), String> {
    let expect = |what: &str, found: &Value, accepted: &str, ok: bool| match ok {
        true => Ok(()),
        false => {
            let found: String =
                found["type"].as_str().map_or(found.to_string(), str::to_owned).chars().take(40).collect();
            Err(format!("{what} is {found}; only {accepted} is supported"))
        }
    };
    if !root.is_object() {
        return Err("is not a JSON object; give the tokenizer.json of a model".into());
    }
    let kind = |value: &Value| value["type"].as_str().map(str::to_owned).unwrap_or_default();
    let model = &root["model"];
    expect("model", model, "BPE", kind(model) == "BPE")?;
    for affix in ["continuing_subword_prefix", "end_of_word_suffix"] {
        expect(affix, &model[affix], "none", model[affix].is_null() || model[affix] == "")?;
    }
    let dropout = &model["dropout"];
    expect("dropout", dropout, "none", dropout.is_null() || dropout.as_f64() == Some(0.0))?;

    let normalizer = &root["normalizer"];
    let is_nfc = |value: &Value| kind(value) == "NFC";
    let all_nfc = normalizer["normalizers"].as_array().is_some_and(|all| all.iter().all(is_nfc));
    let normalizer_ok = normalizer.is_null() || is_nfc(normalizer) || (kind(normalizer) == "Sequence" && all_nfc);
    expect("normalizer", normalizer, "NFC or none", normalizer_ok)?;

    let splitting = &root["pre_tokenizer"];
    let one = std::slice::from_ref(splitting);
    let stages = splitting["pretokenizers"].as_array().filter(|_| kind(splitting) == "Sequence");
    let stages = stages.map_or(one, Vec::as_slice);
    let Some((last, splits)) = stages.split_last() else {
        return Err("pre_tokenizer is empty; it has to end with ByteLevel".into());
    };
    let last_ok = kind(last) == "ByteLevel" && last["add_prefix_space"] == false;
    expect("the last pre_tokenizer", last, "ByteLevel without prefix space", last_ok)?;
    for split in splits {
        let lossless = kind(split) == "Digits" || (kind(split) == "Split" && split["behavior"] != "Removed");
        expect("pre_tokenizer", split, "Split that removes nothing, or Digits,", lossless)?;
    }
    expect("decoder", &root["decoder"], "ByteLevel", kind(&root["decoder"]) == "ByteLevel")
}

/// The ids that a post-processor puts in front of a text.
fn begin_of(post_processor: &Value) -> std::result::Result<Vec<u32>, String> {
    let ids = match post_processor["type"].as_str() {
        Some("Sequence") => {
            let all = post_processor["processors"].as_array().map_or(&[][..], Vec::as_slice);
            return all.iter().map(begin_of).collect::<std::result::Result<Vec<_>, _>>().map(|all| all.concat());
        }
        Some("TemplateProcessing") => {
            let pieces = post_processor["single"].as_array().map_or(&[][..], Vec::as_slice);
            let tokens = pieces.iter().map_while(|piece| piece["SpecialToken"]["id"].as_str());
            tokens
                .flat_map(|token| post_processor["special_tokens"][token]["ids"].as_array().into_iter().flatten())
                .collect()
        }
        Some("BertProcessing" | "RobertaProcessing") => vec![&post_processor["cls"][1]],
        _ => Vec::new(),
    };
    let ids: Option<Vec<u32>> = ids.into_iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect();
    ids.ok_or("post_processor adds a token whose id is not a number; the file is broken".into())
}

/// Refuses merges that do not lead from tokens to a token: the library would index out of bounds.
fn check_model(model: &Value) -> std::result::Result<(), String> {
    let vocab = model["vocab"].as_object().ok_or("model.vocab is not an object from token to id")?;
    let merges = model["merges"].as_array().ok_or("model.merges is not an array of pairs")?;
    let mut merged = String::new();
    for (rank, merge) in merges.iter().enumerate() {
        let pair = match (merge.as_str(), merge.as_array().map(Vec::as_slice)) {
            (Some(text), _) => text.split_once(' '),
            (_, Some([Value::String(left), Value::String(right)])) => Some((left.as_str(), right.as_str())),
            _ => None,
        };
        let known = pair.is_some_and(|(left, right)| {
            merged.clear();
            merged.extend([left, right]);
            [left, right, &merged].into_iter().all(|token| vocab.contains_key(token))
        });
        if !known {
            return Err(format!(
                "merge {rank} does not lead from two tokens of the vocabulary to a third; the file is broken"
            ));
        }
    }
    Ok(())
}

/// The bytes of every id, by id; refuses an id that is huge, or given to two tokens.
fn byte_table(root: &Value, library: &Library) -> std::result::Result<Vec<Box<[u8]>>, String> {
    let mut table: Vec<Box<[u8]>> = Vec::new();
    let mut place = |id: u32, bytes: Vec<u8>| {
        let index = id as usize;
        if index >= MAX_IDS {
            return Err(format!("id {id} is out of range; at most {MAX_IDS} ids are supported"));
        }
        if table.len() <= index {
            table.resize_with(index + 1, Default::default);
        }
        if bytes.is_empty() || !table[index].is_empty() {
            return Err(format!("id {id} belongs to two tokens or to an empty one; the file is broken"));
        }
        table[index] = bytes.into();
        Ok(())
    };
    let added = library.get_added_vocabulary().get_added_tokens_decoder();
    for (token, id) in library.get_model().get_vocab() {
        if added.get(&id).is_none_or(|added| added.content != token) {
            place(id, bytes_of(&token))?;
        }
    }
    for (id, token) in added {
        place(*id, token.content.clone().into_bytes())?;
    }
    // The library numbers added tokens itself where the file's ids do not go on from the vocabulary.
    let listed = root["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    match listed.iter().find(|token| {
        let given = token["content"].as_str().and_then(|content| library.token_to_id(content));
        given.is_none() || given.map(u64::from) != token["id"].as_u64()
    }) {
        None => Ok(table),
        Some(token) => {
            Err(format!("added token {} cannot have id {}; the file is broken", token["content"], token["id"]))
        }
    }
}

/// The bytes that a token of the vocabulary stands for: its characters are letters of the byte alphabet.
fn bytes_of(token: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(byte_of).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// The letter of GPT-2's byte alphabet for a byte: itself where it is visible, else the next free one from U+0100 on.
fn char_of(byte: u8) -> char {
    match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0..=b' ' => shifted(byte.into()),
        0x7f..=0xa0 => shifted(u32::from(byte) - 0x7f + 0x21),
        0xad => shifted(0x43),
    }
}

fn shifted(offset: u32) -> char {
    char::from_u32(0x100 + offset).expect("invariant: U+0100 to U+0143 are letters")
}

/// The inverse of [`char_of`].
fn byte_of(letter: char) -> Option<u8> {
    let byte = match u32::from(letter) {
        code @ 0..=0xff => code,
        code @ 0x100..=0x120 => code - 0x100,
        code @ 0x121..=0x142 => code - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok().filter(|byte| char_of(*byte) == letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_the_librarys() {
        let ours: std::collections::HashSet<char> = (0..=255).map(char_of).collect();
        assert_eq!(ours, ByteLevel::alphabet().into_iter().collect());
        for byte in 0..=255 {
            assert_eq!(byte_of(char_of(byte)), Some(byte));
            let mut text = PreTokenizedString::from(String::from_utf8_lossy(&[byte]).as_ref());
            ByteLevel::new(false, true, false).pre_tokenize(&mut text).unwrap();
            if byte < 0x80 {
                let splits = text.get_splits(tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
                assert_eq!(splits[0].0, char_of(byte).to_string());
            }
        }
        assert_eq!(byte_of(' '), None);
    }
}
