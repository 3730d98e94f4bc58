//! Starts the built program, and makes models for it.
#![allow(clippy::unwrap_used)]
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use minke_model::Transformer;
use minke_spec::{Format, ModelConfig, Placement};
use minke_tensor::{Device, Tensor};
use minke_text::{ASSISTANT, ChatTemplate, EOS, THINK_CLOSE, THINK_OPEN, Tokenizer, TrainOptions};

/// What a command did.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program writes UTF-8");
        let code = output.status.code().expect("the program ended by itself");
        Self { code, out: text(output.stdout), err: text(output.stderr) }
    }

    /// Returns stdout as JSON, line by line, of a command that worked.
    pub fn json(&self) -> Vec<serde_json::Value> {
        assert_eq!(self.code, 0, "{self:?}");
        self.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }
}

/// Returns the program in a folder, with an environment that could tempt it.
pub fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minke"));
    command.args(args).current_dir(folder).env("RUST_BACKTRACE", "1").env_remove("MINKE_THREADS");
    // A cache of its own, and no server.
    command.env("HF_HOME", folder.join("no-cache")).env("HF_ENDPOINT", "http://127.0.0.1:1").env_remove("HF_TOKEN");
    for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "XDG_CACHE_HOME"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

pub fn minke(folder: &Path, args: &[&str]) -> Done {
    Done::of(command(folder, args).output().unwrap())
}

pub fn minke_with_input(folder: &Path, args: &[&str], input: &str) -> Done {
    minke_with_bytes(folder, args, input.as_bytes())
}

pub fn minke_with_bytes(folder: &Path, args: &[&str], input: &[u8]) -> Done {
    let mut command = command(folder, args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    Done::of(child.wait_with_output().unwrap())
}

pub fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(path)
}

/// Bytes of the tokenizer's texts: no pair is frequent, so that every character is a token.
fn tokenizer() -> Tokenizer {
    Tokenizer::train(["a"].iter(), &TrainOptions { vocab_size: 263, added_tokens: vec![] }).unwrap()
}

/// Writes a model that follows a script: behind the first token of a pair comes the second; of several second ones each is
/// as likely as the others. A chain of tokens is a pair of each two neighbours.
///
/// A token's state is a one-hot vector that the blocks, whose outputs are zero, leave as it is; the head answers with the
/// next token.
fn write_scripted(folder: &Path, chains: &[&[&str]], context: usize) {
    let tokenizer = tokenizer();
    let width = 264;
    let config = format!(
        r#"{{"model_type": "llama", "vocab_size": 263, "hidden_size": {width}, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 8, "rms_norm_eps": 1e-6,
            "max_position_embeddings": {context}, "tie_word_embeddings": false, "rope_theta": 10000.0,
            "bos_token_id": 0, "eos_token_id": 1}}"#
    );
    let config = ModelConfig::from_json(&config).unwrap().config;
    let id = |token: &str| match tokenizer.encode(token)[..] {
        [id] => id as usize,
        _ => panic!("{token:?} is not one token"),
    };
    let pairs = chains.iter().flat_map(|chain| chain.windows(2));
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
    std::fs::create_dir_all(folder).unwrap();
    minke_weights::save(&model.unwrap(), folder, Format::F32, usize::MAX).unwrap();
    tokenizer.save(folder).unwrap();
    ChatTemplate::r1_unforced().save(folder, context).unwrap();
}

/// A model that thinks `ab`, and answers `8*3`.
pub fn thinker(folder: &Path) -> PathBuf {
    let path = folder.join("thinker");
    write_scripted(&path, &[THINKS_AND_ANSWERS], 256);
    path
}

/// The same with a long context.
pub fn scholar(folder: &Path) -> PathBuf {
    scripted(folder, "scholar", &[THINKS_AND_ANSWERS])
}

const THINKS_AND_ANSWERS: &[&str] = &[ASSISTANT, THINK_OPEN, "a", "b", THINK_CLOSE, "8", "*", "3", EOS];

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
    scripted(folder, "wanderer", &[wanders, &["\n", "8", "*", "3", EOS]])
}

/// A model that thinks `a` and answers for ever.
pub fn talker(folder: &Path) -> PathBuf {
    scripted(folder, "talker", &[&[ASSISTANT, THINK_OPEN, "a", THINK_CLOSE, "8", "*", "8"]])
}

fn scripted(folder: &Path, name: &str, chains: &[&[&str]]) -> PathBuf {
    let path = folder.join(name);
    write_scripted(&path, chains, 1 << 16);
    path
}

/// R1 as it is published, without a block on the disk: 163 files with true headers.
pub fn r1_without_its_bytes(folder: &Path) {
    let text = std::fs::read_to_string(testdata("configs/deepseek-r1.config.json")).unwrap();
    std::fs::write(folder.join("config.json"), &text).unwrap();
    let config = minke_spec::ModelConfig::from_json(&text).unwrap().config;
    let specs = minke_spec::parameters(&config);
    let mut tensors: Vec<(String, &str, Vec<usize>)> = Vec::new();
    for tensor in minke_spec::params::published_tensors(&config) {
        let format = match tensor.source {
            minke_spec::params::Source::Own { param, .. } => specs[param].published_format(),
            minke_spec::params::Source::CopyOf(_) => Format::Bf16,
        };
        if format == Format::F8E4M3 {
            let scales = minke_spec::format::fp8_scale_shape(tensor.shape[0], tensor.shape[1]);
            tensors.push((format!("{}_scale_inv", tensor.name), "F32", scales.into()));
        }
        tensors.push((tensor.name, format.name(), tensor.shape));
    }
    let mut weight_map = serde_json::Map::new();
    for (i, part) in tensors.chunks(tensors.len().div_ceil(163)).enumerate() {
        let name = format!("model-{:05}-of-000163.safetensors", i + 1);
        let (mut header, mut end) = (serde_json::Map::new(), 0);
        for (tensor, dtype, shape) in part {
            let start = end;
            end += Format::from_name(dtype).unwrap().bytes(shape.iter().product());
            header.insert(
                tensor.clone(),
                serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] }),
            );
            weight_map.insert(tensor.clone(), name.clone().into());
        }
        let header = serde_json::to_vec(&header).unwrap();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], &header].concat();
        std::fs::write(folder.join(&name), &bytes).unwrap();
        let file = std::fs::File::options().write(true).open(folder.join(&name)).unwrap();
        file.set_len((bytes.len() + end) as u64).unwrap();
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": weight_map });
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// The text of a run with two short stages.
pub const RUN: &str = r#"name = "small"
seed = 5
[model]
model_type = "llama"
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 64
max_position_embeddings = 128
[tokenizer]
vocab_size = 300
documents = 200
[[task]]
name = "make"
family = "countdown"
counts = [2]
largest_number = 9
smallest_target = 2
largest_target = 18
[[stage]]
kind = "pretrain"
name = "base"
steps = 12
training = { batch_tokens = 512, checkpoint_every = 4, mtp_weight = 0.0 }
[[stage]]
kind = "sft"
name = "tuned"
from = "base"
epochs = 1
data = [{ kind = "demonstrations", style = "clean", count = 20 }]
training = { batch_tokens = 512, mtp_weight = 0.0 }
"#;
