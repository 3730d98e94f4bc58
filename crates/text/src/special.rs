//! Special tokens: what the files beside a tokenizer.json, or the keys of GGUF, name.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::{Error, Result, file};

const CONFIG_FILE: &str = "tokenizer_config.json";
const MAP_FILE: &str = "special_tokens_map.json";
const TEMPLATE_FILE: &str = "chat_template.jinja";
const TEMPLATE_FOLDER: &str = "additional_chat_templates";

/// Tokens that end a turn or a text in vocabularies whose GGUF file does not list them all; llama.cpp lists them too.
const KNOWN_ENDS: [&str; 24] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<｜end▁of▁sentence｜>",
    // Between files and repositories: a completion of code ends there.
    "<|fim_pad|>",
    "<fim_pad>",
    "<fim-pad>",
    "<|repo_name|>",
    "<|fim_repo|>",
    "<fim-repo>",
    "<reponame>",
    "<REPO>",
    "<|file_sep|>",
];

/// Whether a token ends a turn by its name alone, in a vocabulary that has these tokens.
pub(crate) fn is_known_end(token: &str, has: impl Fn(&str) -> bool) -> bool {
    // Where an answer ends with `<|return|>` or `<|call|>`, `<|end|>` ends only a part of it.
    KNOWN_ENDS.contains(&token) && !(token == "<|end|>" && has("<|return|>") && has("<|call|>"))
}

/// Special tokens by the names that published files give them: `bos_token`, `eos_token`, `pad_token` and others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    by_name: BTreeMap<String, String>,
}

impl SpecialTokens {
    /// A begin token and an end token; an empty text is none.
    pub fn new(bos_token: impl Into<String>, eos_token: impl Into<String>) -> Self {
        Self::default().with("bos_token", bos_token).with("eos_token", eos_token)
    }

    /// The same with one more; an empty text is none.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, token: impl Into<String>) -> Self {
        let token = token.into();
        if !token.is_empty() {
            self.by_name.insert(name.into(), token);
        }
        self
    }

    /// The token of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.by_name.get(name).map(String::as_str)
    }

    /// All names with their tokens.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.by_name.iter().map(|(name, token)| (name.as_str(), token.as_str()))
    }

    /// Takes what an object of a file names: as text, or as an object with the text in `content`.
    fn read(&mut self, object: &Map<String, Value>) {
        for (name, value) in object.iter().filter(|(name, _)| name.ends_with("_token")) {
            if let Some(token) = value.as_str().or_else(|| value["content"].as_str()) {
                self.by_name.insert(name.clone(), token.to_owned());
            }
        }
    }
}

/// What the files beside a tokenizer.json say, with the rules of transformers for which of them counts.
#[derive(Debug, Default)]
pub(crate) struct TokenizerConfig {
    pub special: SpecialTokens,
    /// Whether a text begins with `bos_token`, where the files decide it.
    pub add_bos_token: Option<bool>,
    /// Chat templates by name; a model that has one only calls it "default".
    pub templates: BTreeMap<String, String>,
}

impl TokenizerConfig {
    /// Reads what there is of tokenizer_config.json, special_tokens_map.json, chat_template.jinja and additional_chat_templates/.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut config = Self::read_file(&folder.join(CONFIG_FILE))?;
        let mut files = BTreeMap::new();
        if folder.join(TEMPLATE_FILE).exists() {
            files.insert("default".to_owned(), file::read(&folder.join(TEMPLATE_FILE))?);
        }
        for path in
            std::fs::read_dir(folder.join(TEMPLATE_FOLDER)).into_iter().flatten().flatten().map(|entry| entry.path())
        {
            if let (Some(name), Some("jinja")) = (path.file_stem(), path.extension().and_then(|end| end.to_str())) {
                files.insert(name.to_string_lossy().into_owned(), file::read(&path)?);
            }
        }
        if !files.is_empty() {
            config.templates = files;
        }
        Ok(config)
    }

    /// Reads a tokenizer_config.json if it is there, and the special_tokens_map.json beside it where that counts: it goes before
    /// an older configuration, which has no `added_tokens_decoder`.
    pub fn read_file(path: &Path) -> Result<Self> {
        let object = if path.exists() { read_object(path)? } else { Map::new() };
        let mut config =
            Self { add_bos_token: object.get("add_bos_token").and_then(Value::as_bool), ..Self::default() };
        config.special.read(&object);
        let map = path.with_file_name(MAP_FILE);
        if !object.contains_key("added_tokens_decoder") && map.exists() {
            config.special.read(&read_object(&map)?);
        }
        config.templates = templates(object.get("chat_template"));
        Ok(config)
    }
}

/// Chat templates of a tokenizer_config.json: one text, an object from name to text, or a list of objects with both.
fn templates(value: Option<&Value>) -> BTreeMap<String, String> {
    let entry = |name: &str, template: &Value| Some((name.to_owned(), template.as_str()?.to_owned()));
    match value {
        Some(Value::Array(list)) => {
            list.iter().filter_map(|each| entry(each["name"].as_str()?, &each["template"])).collect()
        }
        Some(Value::Object(map)) => map.iter().filter_map(|(name, template)| entry(name, template)).collect(),
        Some(template) => entry("default", template).into_iter().collect(),
        None => BTreeMap::new(),
    }
}

fn read_object(path: &Path) -> Result<Map<String, Value>> {
    serde_json::from_str(&file::read(path)?)
        .map_err(|error| Error::Config { path: path.into(), reason: error.to_string() })
}

/// Writes the tokenizer_config.json that says so much.
pub(crate) fn save(folder: &Path, special: &SpecialTokens, add_bos_token: bool) -> Result<()> {
    let mut config = serde_json::json!({
        "add_bos_token": add_bos_token,
        "add_eos_token": false,
        "clean_up_tokenization_spaces": false,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    special.iter().for_each(|(name, token)| config[name] = token.into());
    file::write(folder, CONFIG_FILE, &format!("{config:#}\n"))
}

/// Writes chat templates as the files that [`TokenizerConfig::read`] finds.
pub(crate) fn save_templates(folder: &Path, default: &str, tool_use: Option<&str>) -> Result<()> {
    file::write(folder, TEMPLATE_FILE, default)?;
    match tool_use {
        Some(source) => file::write(&folder.join(TEMPLATE_FOLDER), "tool_use.jinja", source),
        None => Ok(()),
    }
}
