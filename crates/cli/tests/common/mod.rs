//! Starts the built program, and makes models for it.
#![allow(clippy::unwrap_used)]
#![allow(dead_code)]

#[path = "../../../chat/tests/common/mod.rs"]
mod scripted;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use minke_spec::Format;

#[allow(unused_imports)]
pub use scripted::*;

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

    /// Stdout as JSON, line by line, of a command that worked.
    pub fn json(&self) -> Vec<serde_json::Value> {
        assert_eq!(self.code, 0, "{self:?}");
        self.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }
}

/// The program in a folder, with backtraces switched on, and without cache, server and token.
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

/// A server that ends with its test, and where it is.
pub struct Serving(Child, pub String);

impl Serving {
    /// Serves a model on a free port with one thread, and waits until it says where.
    pub fn start(folder: &Path, model: &str, arguments: &[&str]) -> Self {
        Self::with(folder, &[&[model], arguments].concat())
    }

    /// The same with all arguments.
    pub fn with(folder: &Path, arguments: &[&str]) -> Self {
        let all = [&["serve", "--port", "0", "--disk-cache-bytes", "0", "--threads", "1"], arguments].concat();
        let mut child = command(folder, &all).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.find(|line| line.as_ref().unwrap().contains(" at http://")).unwrap().unwrap();
        let url = line.split(" at ").nth(1).and_then(|rest| rest.split([',', ' ']).next()).unwrap();
        let url = url.trim_end_matches('/').to_owned();
        // What else it says is read, or it could not say it.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child, url)
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
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

/// R1 as it is published, without a block on the disk: 163 files with true headers.
pub fn r1_without_its_bytes(folder: &Path) {
    let text = std::fs::read_to_string(testdata("configs/deepseek-r1.config.json")).unwrap();
    std::fs::write(folder.join("config.json"), &text).unwrap();
    let config = minke_spec::ModelConfig::from_json(&text).unwrap().config;
    let specs = minke_spec::parameters(&config);
    let mut tensors: Vec<(String, &str, Vec<usize>)> = Vec::new();
    for tensor in minke_spec::params::published_tensors(&config) {
        let format = match tensor.source {
            minke_spec::params::TensorSource::Own { param, .. } => specs[param].published_format(),
            minke_spec::params::TensorSource::CopyOf(_) => Format::Bf16,
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
