//! What can be typed? The definitions from which help, completions and man pages are made too.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use minke_eval::EvalConfig;

use super::command::Think;

/// The DeepSeek-R1 system in one binary.
#[derive(Parser)]
#[command(name = "minke", version, disable_help_subcommand = true)]
pub(super) struct Typed {
    #[command(subcommand)]
    pub command: TypedCommand,
}

#[derive(Subcommand)]
pub(super) enum TypedCommand {
    /// Ask a model: one question, or a conversation if none is given
    Run(TypedRun),
    /// Train as a TOML says; the same command goes on where it stopped
    Train(TypedTrain),
    /// Grade a model, or every stage of a run, on held-out problems
    Eval(TypedEval),
    /// Write one HTML file with the curves, scores and rollouts of a run
    Report(TypedReport),
    /// Say what a model is, from the headers of its files
    Show(TypedShow),
    /// Say whether a model fits into memory, with how much context, and how fast it will write; reads headers only
    Fit(TypedFit),
    /// Say what this machine is: processor, memory, disk, GPU, sandboxes
    Doctor(TypedDoctor),
    /// Download a model from the Hugging Face Hub into the cache that other programs share
    Pull(TypedPull),
    /// Say which models were downloaded
    List(TypedList),
    /// Remove a downloaded model
    Rm(TypedRm),
    /// Measure tokens per second of reading a prompt and of writing behind it
    Bench(TypedBench),
    /// Say how well a model predicts a text
    Perplexity(TypedPerplexity),
    /// Write a model in the other layout: folder to GGUF, GGUF to folder, FP8 to BF16
    Convert(TypedConvert),
    /// Write a model with fewer bits per weight, as GGUF
    Quantize(TypedQuantize),
    /// Say how much each column of the weights matters for a text, for quantize
    Imatrix(TypedImatrix),
    /// Look at ids, prompts and logits
    #[command(subcommand)]
    Debug(TypedDebug),
    /// Write what lets a shell complete these commands to standard output
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write a man page of every command
    Man {
        /// Folder for the pages; it must exist
        folder: PathBuf,
    },
}

#[derive(Args)]
pub(super) struct TypedConvert {
    /// Folder of a model, or a GGUF file
    pub source: PathBuf,
    /// What to write: a GGUF file if it ends in .gguf, else a folder with safetensors
    pub target: PathBuf,
    /// Format of the weights [default: as they are stored; FP8 and codes become bf16]
    #[arg(long, value_enum)]
    pub format: Option<Floats>,
    /// CPU threads [default: MINKE_THREADS, else all]
    #[arg(long)]
    pub threads: Option<usize>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// Formats of floats.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Floats {
    F32,
    F16,
    Bf16,
}

#[derive(Args)]
pub(super) struct TypedQuantize {
    /// Folder of a model, or a GGUF file
    pub source: PathBuf,
    /// The GGUF file to write
    pub target: PathBuf,
    /// q8_0, q6_k, q5_k_m, q4_k_m, q4_k_s, q4_0, iq4_xs, q3_k_m, q2_k, or experts_low: routed experts 2 to 3 bits, all else 6
    #[arg(long, value_name = "RECIPE")]
    pub to: String,
    /// Format of the tensors of that name, in which * stands for anything; may be given again, the last one counts
    #[arg(long = "tensor", value_name = "NAME=FORMAT")]
    pub tensors: Vec<String>,
    /// How much columns matter: a file of minke imatrix, or llama.cpp's as GGUF
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// CPU threads [default: MINKE_THREADS, else all]
    #[arg(long)]
    pub threads: Option<usize>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct TypedBench {
    /// Folder of a model, or a GGUF file
    pub model: PathBuf,
    /// Lengths of the prompts, in tokens
    #[arg(long, value_delimiter = ',', default_value = "256")]
    pub prompt: Vec<usize>,
    /// Tokens to write behind each
    #[arg(long, default_value_t = 32)]
    pub generate: usize,
    /// CPU threads [default: MINKE_THREADS, else all]
    #[arg(long)]
    pub threads: Option<usize>,
    /// One JSON list
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub(super) enum TypedDebug {
    /// The ids of a text, control tokens included, and the pieces that they stand for
    Tokens {
        /// Folder of a model, or a GGUF file
        model: PathBuf,
        /// The text
        text: String,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// The prompt that a question becomes
    Render {
        /// Folder of a model, or a GGUF file
        model: PathBuf,
        /// The question
        prompt: String,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// The thought and the answer in what a model said
    Parse {
        /// Folder of a model, or a GGUF file
        model: PathBuf,
        /// What it said
        text: String,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Every value that a forward passes through and that has a name: shape, mean, deviation, extremes
    Taps {
        /// Folder of a model, or a GGUF file
        model: PathBuf,
        /// The text
        text: String,
        /// CPU threads [default: MINKE_THREADS, else all]
        #[arg(long)]
        threads: Option<usize>,
        /// One JSON list
        #[arg(long)]
        json: bool,
    },
    /// The likeliest tokens behind some others
    Logits {
        /// Folder of a model, or a GGUF file
        model: PathBuf,
        /// The text before them
        text: Option<String>,
        /// Their ids instead of a text
        #[arg(long, value_delimiter = ',')]
        ids: Option<Vec<u32>>,
        /// File for the logits of all positions: f32, little-endian, one row per position
        #[arg(long)]
        out: Option<PathBuf>,
        /// CPU threads [default: MINKE_THREADS, else all]
        #[arg(long)]
        threads: Option<usize>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct TypedRun {
    /// Folder of a model in published form, or a GGUF file [default: models/first-light]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub model: Option<String>,
    /// The question; without one, a conversation, or one question per line of standard input
    pub prompt: Option<String>,
    /// 0 takes the most likely token [default: the model's, else 0.6]
    #[arg(long)]
    pub temperature: Option<f32>,
    /// Share of the probability to sample from [default: the model's, else 0.95]
    #[arg(long)]
    pub top_p: Option<f32>,
    /// The same seed gives the same answer
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Most tokens of an answer, thought included [default: what the context holds]
    #[arg(long)]
    pub max_tokens: Option<usize>,
    /// CPU threads [default: MINKE_THREADS, else all]
    #[arg(long)]
    pub threads: Option<usize>,
    /// What happens to the thought
    #[arg(long, value_enum, default_value_t = Think::Show)]
    pub think: Think,
    /// Tokens of a thought, after which it is closed and the answer follows [default: no limit]
    #[arg(long, value_name = "TOKENS")]
    pub think_budget: Option<usize>,
    /// Go on with a kept conversation, or begin it; it is kept after every turn
    #[arg(long, value_name = "NAME")]
    pub session: Option<String>,
    /// One JSON object per answer
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct TypedTrain {
    /// The run
    pub run: PathBuf,
    /// Folder for everything that the run makes [default: out/NAME, the run's name]
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// CPU threads [default: MINKE_THREADS, else all]
    #[arg(long)]
    pub threads: Option<usize>,
    /// Replace a value of the TOML, such as seed=2 or stage.base.steps=100; may be given again
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// One JSON object at the end
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct TypedEval {
    /// Folder of a model, a GGUF file, or the TOML of a run
    pub target: PathBuf,
    /// Only this task; may be given again [default: all]
    #[arg(long = "task", value_name = "NAME")]
    pub tasks: Vec<String>,
    /// Answers to every problem
    #[arg(long, default_value_t = EvalConfig::default().samples)]
    pub samples: usize,
    /// Held-out problems of every task
    #[arg(long, default_value_t = 500)]
    pub problems: usize,
    /// Temperature of the answers; greedy ones are scored beside them [default: 1]
    #[arg(long)]
    pub temperature: Option<f32>,
    /// Most tokens of an answer, thought included
    #[arg(long, default_value_t = EvalConfig::default().max_tokens)]
    pub max_tokens: usize,
    /// Open the thought in the prompt
    #[arg(long)]
    pub force_thought: bool,
    /// The same seed poses the same problems and gives the same answers
    #[arg(long, default_value_t = EvalConfig::default().seed)]
    pub seed: u64,
    /// Folder of the run, if the target is a TOML [default: out/NAME]
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// CPU threads [default: MINKE_THREADS, else all]
    #[arg(long)]
    pub threads: Option<usize>,
    /// All scores as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct TypedReport {
    /// The TOML of a run, or its output folder
    pub run: PathBuf,
    /// The file to write [default: report.html in the output folder]
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// One JSON object at the end
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct TypedShow {
    /// Folder of a model in published form, or a GGUF file
    pub model: PathBuf,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct TypedDoctor {
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct TypedPull {
    /// ORG/NAME, ORG/NAME:QUANT for GGUF files, or a short name such as r1-distill-qwen-7b
    pub model: String,
    /// Branch, tag or commit
    #[arg(long, default_value = "main")]
    pub revision: String,
    /// Ask no server: say where the model lies if it was downloaded
    #[arg(long)]
    pub offline: bool,
    /// One JSON object at the end
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct TypedList {
    /// One JSON list
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct TypedRm {
    /// As for pull
    pub model: String,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct TypedFit {
    /// Folder of a model in published form, or a GGUF file
    pub model: PathBuf,
    /// Tokens of context [default: the most that fits]
    #[arg(long)]
    pub context: Option<usize>,
    /// Memory to fit into, such as 24G or 512M [default: what is available]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub memory: Option<u64>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct TypedPerplexity {
    /// Folder of a model, or a GGUF file
    pub model: PathBuf,
    /// The text
    pub text: PathBuf,
    /// Tokens that are read at once; those of the second half are scored
    #[arg(long, default_value_t = 512)]
    pub context: usize,
    /// CPU threads [default: MINKE_THREADS, else all]
    #[arg(long)]
    pub threads: Option<usize>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct TypedImatrix {
    /// Folder of a model, or a GGUF file
    pub model: PathBuf,
    /// The text: a few hundred thousand characters of what the model is for
    pub text: PathBuf,
    /// The file to write
    #[arg(long)]
    pub out: PathBuf,
    /// Tokens that are read at once
    #[arg(long, default_value_t = 512)]
    pub chunk: usize,
    /// CPU threads [default: MINKE_THREADS, else all]
    #[arg(long)]
    pub threads: Option<usize>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// Returns the bytes that a size such as `24G` means: powers of 1000, or of 1024 with an i as in `24GiB`.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_uppercase();
    let base: f64 = if unit.contains('I') { 1024.0 } else { 1000.0 };
    let power = match unit.trim_end_matches('B').trim_end_matches('I') {
        "" => Some(0),
        "K" => Some(1),
        "M" => Some(2),
        "G" => Some(3),
        "T" => Some(4),
        _ => None,
    };
    let bytes = number.parse::<f64>().ok().zip(power).map(|(number, power)| number * base.powi(power));
    bytes
        .filter(|bytes| *bytes >= 1.0)
        .map(|bytes| bytes as u64)
        .ok_or_else(|| "write a size such as 24G or 512M".into())
}
