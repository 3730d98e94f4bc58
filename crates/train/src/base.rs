//! What a run takes from outside: the published models that it starts from, with what turns text into ids and back, and keys.

use std::collections::BTreeMap;
use std::path::PathBuf;

use minke_text::{ChatTemplate, Tokenizer};
use minke_weights::{ADAPTER_CONFIG_FILE, ADAPTER_FILE, Archive};
use sha2::{Digest, Sha256};

use crate::files::hexadecimal;
use crate::ranks::Ranks;
use crate::{Error, Result};

/// A published model. Whoever starts a run finds it and hands it over.
pub struct Base {
    /// What an adapter calls it: a name of the Hub, or an absolute path.
    pub name: String,
    /// Its files.
    pub archive: Archive,
    /// The folder of an adapter that stands beside it.
    pub adapter: Option<PathBuf>,
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// Messages to prompt.
    pub template: ChatTemplate,
}

/// What a run takes from outside: published models by what its TOML calls them, keys of endpoints by the variables that it names,
/// standard input, and the ranks that share it.
#[derive(Default)]
pub struct Bases {
    models: BTreeMap<String, (Base, String)>,
    keys: BTreeMap<String, String>,
    stdin: Option<String>,
    ranks: Ranks,
}

impl Bases {
    /// Takes over a model, and reads its files once to know them again.
    ///
    /// # Errors
    /// If a file of its adapter cannot be read.
    pub fn add(&mut self, name: &str, base: Base) -> Result<()> {
        let identity = base.identity()?;
        self.models.insert(name.to_owned(), (base, identity));
        Ok(())
    }

    /// Takes over the key of an endpoint, under the name of the variable that held it. It is in no file and no message of the run.
    pub fn add_key(&mut self, variable: &str, key: String) {
        self.keys.insert(variable.to_owned(), key);
    }

    /// Takes over what a run with `path = "-"` learns from.
    ///
    /// # Errors
    /// If it is no text.
    pub fn set_stdin(&mut self, bytes: Vec<u8>) -> Result<()> {
        let no_text = |error: std::string::FromUtf8Error| {
            let at = error.utf8_error().valid_up_to();
            Error::Config(format!("standard input: is no UTF-8 at byte {at}; give JSON Lines"))
        };
        let text = String::from_utf8(bytes).map_err(no_text)?;
        self.stdin = Some(text).filter(|text| !text.is_empty());
        Ok(())
    }

    /// Takes over the ranks that share the run; without them it has one.
    pub fn set_ranks(&mut self, ranks: Ranks) {
        self.ranks = ranks;
    }

    /// The ranks that share the run.
    pub(crate) fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// What came from standard input.
    pub(crate) fn stdin(&self) -> Option<&str> {
        self.stdin.as_deref()
    }

    /// The key that a stage's endpoint wants, if it wants one: what the variable held that its `key_env` names.
    pub(crate) fn key_of(&self, stage: &str, key_env: Option<&str>) -> Result<Option<String>> {
        let key = |variable: &str| {
            let reason = format!("key_env names {variable}, which is not set; set it to the endpoint's key");
            self.keys.get(variable).cloned().ok_or_else(|| Error::Config(format!("stage {stage}: {reason}")))
        };
        key_env.map(key).transpose()
    }

    /// The model that a TOML calls so.
    pub(crate) fn get(&self, name: &str) -> Result<&Base> {
        self.entry(name).map(|(base, _)| base)
    }

    /// A hash of everything about a model that training depends on.
    pub(crate) fn identity(&self, name: &str) -> Result<&str> {
        self.entry(name).map(|(_, identity)| identity.as_str())
    }

    fn entry(&self, name: &str) -> Result<&(Base, String)> {
        let reason = || Error::Config(format!("from = {name:?}: neither an earlier stage nor a model that was found"));
        self.models.get(name).ok_or_else(reason)
    }
}

impl Base {
    /// The ids that end an answer.
    pub fn end_ids(&self) -> Vec<u32> {
        self.tokenizer.end_ids(&self.archive.config.eos_token_ids)
    }

    fn identity(&self) -> Result<String> {
        let mut sum = Sha256::new();
        sum.update(format!("{:?}\n{}\n", self.archive.config, self.template.source()));
        for file in &self.archive.files {
            sum.update(&file.bytes[..]);
        }
        for file in [ADAPTER_CONFIG_FILE, ADAPTER_FILE] {
            if let Some(path) = self.adapter.as_ref().map(|folder| folder.join(file)) {
                sum.update(std::fs::read(&path).map_err(Error::read(&path))?);
            }
        }
        Ok(hexadecimal(&sum.finalize()))
    }
}
