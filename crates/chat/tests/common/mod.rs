//! Models that follow a script: behind the first token of a pair comes the second.
#![allow(clippy::unwrap_used)]
#![allow(dead_code)]

pub mod lines;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use minke_model::Transformer;
use minke_spec::{Format, ModelConfig, Placement};
use minke_tensor::{Device, Tensor};
use minke_text::{ASSISTANT, ChatTemplate, EOS, THINK_CLOSE, THINK_OPEN, Tokenizer, TrainOptions};

/// What a scripted model is made of.
pub struct Script<'a> {
    /// Chains of tokens: each two neighbours are a pair. Of several second ones each is as likely as the others.
    pub chains: &'a [&'a [&'a str]],
    /// Tokens of context.
    pub context: usize,
    /// Layers: reading a prompt takes its time with two, as the last one computes little of it.
    pub layers: usize,
    /// Whether the prompt ends with `<think>`.
    pub prompt_opens: bool,
    /// Whether the tags of the thought are special tokens.
    pub special_tags: bool,
}

impl Default for Script<'_> {
    fn default() -> Self {
        Self { chains: &[THINKS_AND_ANSWERS], context: 1 << 16, layers: 1, prompt_opens: false, special_tags: false }
    }
}

impl Script<'_> {
    /// Writes the model into a folder of this name, and returns the folder.
    ///
    /// A token's state is a one-hot vector that the blocks, whose outputs are zero, leave as it is; the head answers with
    /// the next token.
    pub fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let (tokenizer, folder) = (tokenizer(self.special_tags), folder.join(name));
        let (width, context, layers) = (264, self.context, self.layers);
        let config = format!(
            r#"{{"model_type": "llama", "vocab_size": 263, "hidden_size": {width}, "num_hidden_layers": {layers},
                "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 8, "rms_norm_eps": 1e-6,
                "max_position_embeddings": {context}, "tie_word_embeddings": false, "rope_theta": 10000.0,
                "bos_token_id": 0, "eos_token_id": 1}}"#
        );
        let config = ModelConfig::from_json(&config).unwrap().config;
        let id = |token: &str| match tokenizer.encode(token)[..] {
            [id] => id as usize,
            _ => panic!("{token:?} is not one token"),
        };
        let pairs = self.chains.iter().flat_map(|chain| chain.windows(2));
        let next: BTreeSet<(usize, usize)> = pairs.map(|pair| (id(pair[0]), id(pair[1]))).collect();
        let device = Device::open("cpu", 1).unwrap();
        let model = Transformer::new::<_, minke_model::Error>(&config, &Placement::single(), |spec, shape| {
            let mut values = vec![0.0; shape.iter().product()];
            match spec.name.as_str() {
                "model.embed_tokens.weight" => (0..263).for_each(|token| values[token * width + token] = 1.0),
                "lm_head.weight" => next.iter().for_each(|&(from, to)| values[to * width + from] = 8.0),
                name if name.ends_with("norm.weight") => values.fill(1.0),
                _ => {}
            }
            Ok(Tensor::from_slice(&device, shape, &values))
        });
        std::fs::create_dir_all(&folder).unwrap();
        minke_weights::save(&model.unwrap(), &folder, Format::F32, usize::MAX).unwrap();
        tokenizer.save(&folder).unwrap();
        let template = if self.prompt_opens { ChatTemplate::r1() } else { ChatTemplate::r1_unforced() };
        template.save(&folder).unwrap();
        folder
    }
}

/// No pair of bytes is frequent in its texts, so that every character is a token.
fn tokenizer(special_tags: bool) -> Tokenizer {
    let tokenizer = Tokenizer::train(["a"].iter(), &TrainOptions { vocab_size: 263, added_tokens: vec![] }).unwrap();
    if !special_tags {
        return tokenizer;
    }
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save(folder.path()).unwrap();
    let text = std::fs::read_to_string(folder.path().join("tokenizer.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    for token in json["added_tokens"].as_array_mut().unwrap() {
        let is_tag = [THINK_OPEN, THINK_CLOSE].contains(&token["content"].as_str().unwrap());
        token["special"] = (is_tag || token["special"] == true).into();
    }
    std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    Tokenizer::load(folder.path()).unwrap()
}

/// Thinks `ab`, and answers `8*3`.
pub const THINKS_AND_ANSWERS: &[&str] = &[ASSISTANT, THINK_OPEN, "a", "b", THINK_CLOSE, "8", "*", "3", EOS];

/// A model that thinks `ab`, and answers `8*3`.
pub fn thinker(folder: &Path) -> PathBuf {
    Script { context: 256, ..Script::default() }.write(folder, "thinker")
}

/// The same with a long context.
pub fn scholar(folder: &Path) -> PathBuf {
    Script::default().write(folder, "scholar")
}

/// A model that thinks for ever, and answers for ever if its thought is closed.
pub fn brooder(folder: &Path) -> PathBuf {
    scripted(folder, "brooder", &[&[ASSISTANT, THINK_OPEN, "a", "b", "a"], &["\n", "c", "\n"]])
}

/// A model that goes round in circles until its thought is closed, and then answers `8*3`.
pub fn circler(folder: &Path) -> PathBuf {
    scripted(folder, "circler", &[&[ASSISTANT, THINK_OPEN, "a", "b", "a"], &["\n", "8", "*", "3", EOS]])
}

/// A model that thinks something else at every token, for ever, and answers `8*3` if its thought is closed.
pub fn wanderer(folder: &Path) -> PathBuf {
    let wanders: &[&str] = &[ASSISTANT, THINK_OPEN, "a", "a", "b", "b", "a"];
    let chains = &[wanders, &["\n", "8", "*", "3", EOS]];
    Script { chains, layers: 2, ..Script::default() }.write(folder, "wanderer")
}

/// A model that thinks `a` and answers for ever.
pub fn talker(folder: &Path) -> PathBuf {
    scripted(folder, "talker", &[&[ASSISTANT, THINK_OPEN, "a", THINK_CLOSE, "8", "*", "8"]])
}

/// A model that follows these chains, under a name.
pub fn scripted(folder: &Path, name: &str, chains: &[&[&str]]) -> PathBuf {
    Script { chains, ..Script::default() }.write(folder, name)
}
