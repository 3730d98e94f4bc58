//! What each command takes.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand, ValueEnum};
use clap_complete::Shell;
use minke_chat::SamplingOptions;
use minke_eval::EvalConfig;
use minke_spec::Format;
use minke_tensor::Dtype;
use minke_weights::recipe::{Override, Recipe};
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::serve::{Config, Serve};
use super::values;
use super::{Adapter, Compute, Model, Output, RunFolder};

/// The commands.
#[derive(Subcommand)]
pub enum Verb {
    /// Ask a model: one question, or a conversation if none is given
    Run(Run),
    /// Serve a model over HTTP: OpenAI's, Anthropic's and Ollama's APIs, and a page
    Serve(Box<Serve>),
    /// Start a coding agent that uses a running server, or say how to set it up
    Launch(Launch),
    /// Look at settings
    #[command(subcommand)]
    Config(Config),
    /// Train as a TOML says; the same command goes on where it stopped
    Train(Train),
    /// Grade a model, or every stage of a run, on held-out problems
    Eval(Eval),
    /// Write one HTML file with the curves, scores and rollouts of a run
    Report(Report),
    /// Say what a model is, from the headers of its files
    Show(Show),
    /// Say whether a model fits into memory, with how much context, and how fast it will write; reads headers only
    Fit(Fit),
    /// Answer what a model costs to train and serve, on what, and how long it takes; nothing is measured or downloaded
    #[command(subcommand)]
    Plan(Box<Plan>),
    /// Say what this machine is: processor, memory, disk, GPU, sandboxes
    Doctor(Doctor),
    /// Download a model from the Hugging Face Hub into the cache that other programs share
    Pull(Pull),
    /// Say which models were downloaded
    List(List),
    /// Remove a downloaded model
    Rm(Rm),
    /// Keep a copy of a model's weights as products read them, which loads at once
    Pack(Pack),
    /// Measure tokens per second of reading a prompt and of writing behind it
    Bench(Bench),
    /// Say how well a model predicts a text
    Perplexity(Perplexity),
    /// Write a model in the other layout: folder to GGUF, GGUF to folder, FP8 to BF16
    Convert(Convert),
    /// Write a model with fewer bits per weight, as GGUF
    Quantize(Quantize),
    /// Say how much each column of the weights matters for a text, for quantize
    Imatrix(Imatrix),
    /// Look at ids, prompts and logits
    #[command(subcommand)]
    Debug(Debug),
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

/// What happens to the thought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Think {
    /// It is printed, dim on a terminal.
    Show,
    /// One line on stderr says how long it takes.
    Fold,
    /// No byte of it is printed.
    Hide,
}

/// `minke run`
#[derive(Args)]
#[command(allow_negative_numbers = true)]
pub struct Run {
    /// Folder of a model, GGUF file, folder or TOML of a run (its newest model), or name of a downloaded model
    /// [default: models/first-light]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub model: Option<String>,
    /// The question, quoted or not; without one, a conversation, or one question per line of standard input
    pub question: Vec<String>,
    /// 0 takes the most likely token [default: the model's, else 0.6]
    #[arg(long)]
    temperature: Option<f32>,
    /// Share of the probability to sample from [default: the model's, else 0.95]
    #[arg(long)]
    top_p: Option<f32>,
    /// The same seed gives the same answer
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Most tokens of an answer, thought included [default: what the context holds]
    #[arg(long)]
    max_tokens: Option<usize>,
    /// What happens to the thought
    #[arg(long, value_enum, default_value_t = Think::Show)]
    pub think: Think,
    /// Tokens of a thought, after which it is closed and the answer follows [default: no limit]
    #[arg(long, value_name = "TOKENS")]
    think_budget: Option<usize>,
    /// Go on with a kept conversation, or begin it; it is kept after every turn
    #[arg(long, value_name = "NAME")]
    pub session: Option<String>,
    #[command(flatten)]
    pub adapter: Adapter,
    #[command(flatten)]
    pub compute: Compute,
    #[command(flatten)]
    pub output: Output,
}

impl Run {
    /// What was said about sampling.
    ///
    /// # Errors
    /// The first value that is out of its range.
    pub fn sampling(&self) -> anyhow::Result<SamplingOptions> {
        let Self { temperature, top_p, seed, max_tokens, think_budget, .. } = *self;
        let sampling =
            SamplingOptions { temperature, top_p, seed, max_tokens, think_budget, ..SamplingOptions::default() };
        sampling.validate()?;
        Ok(sampling)
    }
}

/// `minke train`
#[derive(Args)]
pub struct Train {
    /// TOML of the run
    pub run: PathBuf,
    /// Replace a value of the TOML, such as seed=2 or stage.base.steps=100; may be given again
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = values::set)]
    pub sets: Vec<(String, String)>,
    /// Of the ranks that mpirun or srun started, so many that follow each other share out the experts of every layer [default: 1]
    #[arg(long, value_name = "RANKS", default_value_t = 1, hide_default_value = true, value_parser = values::at_least::<1>)]
    pub expert_parallel: usize,
    /// Of the same ranks, make so many stages that share out the layers [default: 1]
    #[arg(long, value_name = "STAGES", default_value_t = 1, hide_default_value = true, value_parser = values::at_least::<1>)]
    pub pipeline_parallel: usize,
    /// Show the run in a browser while it goes on, on this address of the machine [default: 127.0.0.1:8090]
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = crate::live::ADDRESS, value_parser = values::address)]
    pub dashboard: Option<SocketAddr>,
    #[command(flatten)]
    pub folder: RunFolder,
    #[command(flatten)]
    pub compute: Compute,
    #[command(flatten)]
    pub output: Output,
}

/// `minke eval`
#[derive(Args)]
#[command(allow_negative_numbers = true)]
pub struct Eval {
    /// TOML of a run, whose stages are all graded; or a model, as for run
    #[arg(required_unless_present_any = ["compare", "answers"])]
    pub target: Option<PathBuf>,
    /// Only this task; may be given again: one of the run or the families, a set (gsm8k, svamp, humaneval, mbpp), or a file of
    /// problems [default: all of the run, or the families]
    #[arg(long = "task", value_name = "NAME|FILE")]
    pub tasks: Vec<String>,
    /// The file of the set that --task names [default: the set's in the folder of the cache]
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Ask as a text to go on with behind so many solved examples, as for models without a chat template; published: gsm8k and
    /// svamp 8, mbpp 3, humaneval 0 [default: as a conversation]
    #[arg(long, value_name = "COUNT", conflicts_with = "force_thought")]
    pub shots: Option<usize>,
    /// The file of the solved examples, such as the training side of gsm8k [default: mbpp's own]
    #[arg(long, value_name = "FILE", requires = "shots")]
    pub examples: Option<PathBuf>,
    /// Grade the answers of this file instead of a model's: lines with id and text, several of one id as samples
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "shots", "samples", "temperature", "max_tokens", "force_thought"])]
    pub answers: Option<PathBuf>,
    /// Compare two files of answers to the same problems, problem by problem: answers.jsonl, or their folders
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"], conflicts_with_all = ["target", "answers", "tasks", "data"])]
    pub compare: Vec<PathBuf>,
    /// Answers to every problem [default: 16; of a set 1]
    #[arg(long, value_parser = values::at_least::<1>)]
    pub samples: Option<usize>,
    /// The side whose problems are asked: validation to choose by, test to report; of a set always test [default: validation for a
    /// run, test for a model]
    #[arg(long, value_enum)]
    pub side: Option<Side>,
    /// Held-out problems of every task [default: 500; of a set all]
    #[arg(long, value_parser = values::at_least::<1>)]
    pub problems: Option<usize>,
    /// Temperature of the answers; those to a family are also scored greedily [default: 1; of a set 0, with --samples 0.6]
    #[arg(long)]
    pub temperature: Option<f32>,
    /// Most tokens of an answer, thought included [default: 256; of a set 1024]
    #[arg(long)]
    pub max_tokens: Option<usize>,
    /// Open the thought in the prompt
    #[arg(long)]
    pub force_thought: bool,
    /// The same seed poses the same problems and gives the same answers
    #[arg(long, default_value_t = EvalConfig::default().seed)]
    pub seed: u64,
    #[command(flatten)]
    pub adapter: Adapter,
    #[command(flatten)]
    pub folder: RunFolder,
    #[command(flatten)]
    pub compute: Compute,
    #[command(flatten)]
    pub output: Output,
}

/// A side that is held out.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Side {
    /// To choose by
    Validation,
    /// To report
    Test,
}

/// `minke report`
#[derive(Args)]
pub struct Report {
    /// TOML of a run, or its folder, in which report.html appears
    pub run: PathBuf,
    /// Show the run in a browser instead, as it grows, on this address of the machine [default: 127.0.0.1:8090]
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = crate::live::ADDRESS, value_parser = values::address)]
    pub live: Option<SocketAddr>,
    #[command(flatten)]
    pub folder: RunFolder,
    #[command(flatten)]
    pub output: Output,
}

/// `minke show`
#[derive(Args)]
pub struct Show {
    #[command(flatten)]
    pub model: Model,
    #[command(flatten)]
    pub output: Output,
}

/// `minke fit`
#[derive(Args)]
pub struct Fit {
    #[command(flatten)]
    pub model: Model,
    /// Tokens of context [default: the most that fits]
    #[arg(long)]
    pub context: Option<usize>,
    /// Memory to fit into, such as 24G or 512M [default: what is available]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub memory: Option<u64>,
    #[command(flatten)]
    pub compute: Compute,
    #[command(flatten)]
    pub output: Output,
}

/// `minke doctor`
#[derive(Args)]
pub struct Doctor {
    /// Measure the kernels and write this machine as a file of parts for minke plan, under that name
    #[arg(long, value_name = "NAME", conflicts_with = "json")]
    pub part: Option<String>,
    #[command(flatten)]
    pub compute: Compute,
    #[command(flatten)]
    pub output: Output,
}

/// `minke pull`
#[derive(Args)]
pub struct Pull {
    /// ORG/NAME, an address of the Hub, or a name such as r1-distill-qwen-7b or deepseek-r1:7b; :QUANT for GGUF files
    pub name: String,
    /// Branch, tag or commit [default: main]
    #[arg(long)]
    pub revision: Option<String>,
    /// Ask no server: say where the model lies if it was downloaded [default: HF_HUB_OFFLINE]
    #[arg(long)]
    pub offline: bool,
    #[command(flatten)]
    pub output: Output,
}

/// `minke list`
#[derive(Args)]
pub struct List {
    #[command(flatten)]
    pub output: Output,
}

/// `minke rm`
#[derive(Args)]
pub struct Rm {
    /// As for pull
    pub name: String,
    #[command(flatten)]
    pub output: Output,
}

/// `minke pack`
#[derive(Args)]
pub struct Pack {
    #[command(flatten)]
    pub model: Model,
    /// Remove the copy
    #[arg(long)]
    pub remove: bool,
    #[command(flatten)]
    pub compute: Compute,
    #[command(flatten)]
    pub output: Output,
}

/// `minke bench`
#[derive(Args)]
pub struct Bench {
    #[command(flatten)]
    pub model: Model,
    /// Lengths of the prompts, in tokens
    #[arg(long, value_delimiter = ',', default_value = "256", value_parser = values::at_least::<1>)]
    pub prompt: Vec<usize>,
    /// Tokens to write behind each
    #[arg(long, default_value_t = 32, value_parser = values::at_least::<1>)]
    pub generate: usize,
    /// How many sequences are read and written at once
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = values::between::<1, 4096>)]
    pub batch: Vec<usize>,
    #[command(flatten)]
    pub adapter: Adapter,
    #[command(flatten)]
    pub compute: Compute,
    #[command(flatten)]
    pub output: Output,
}

/// `minke perplexity`
#[derive(Args)]
pub struct Perplexity {
    #[command(flatten)]
    pub model: Model,
    /// The text
    pub text: PathBuf,
    /// Tokens that are read at once; those of the second half are scored
    #[arg(long, default_value_t = 512, value_parser = values::at_least::<4>)]
    pub context: usize,
    /// Keep keys and values in a cache of this type, as an answer has them (run: bf16) [default: as training sees them]
    #[arg(long, value_parser = values::cache_type())]
    pub cache_type: Option<Dtype>,
    #[command(flatten)]
    pub compute: Compute,
    #[command(flatten)]
    pub output: Output,
}

/// `minke launch`
#[derive(Args)]
pub struct Launch {
    /// The agent
    pub agent: Agent,
    /// Address of the server [default: that of the settings, else http://127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub url: Option<String>,
    /// Say the variables and settings, and start nothing
    #[arg(long)]
    pub print: bool,
    /// Arguments for the agent, behind --
    #[arg(last = true)]
    pub arguments: Vec<OsString>,
}

/// The agents that `minke launch` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Agent {
    /// OpenAI's Codex, by Responses
    Codex,
    /// Anthropic's Claude Code, by Messages
    Claude,
    /// opencode, by chat completions
    Opencode,
}

/// `minke convert`
#[derive(Args)]
pub struct Convert {
    #[command(flatten)]
    pub model: Model,
    /// What to write: a GGUF file if it ends in .gguf, else a folder with safetensors
    pub target: PathBuf,
    /// Format of the weights [default: as they are stored; FP8 and codes become bf16]
    #[arg(long, value_parser = values::float())]
    pub format: Option<Format>,
    #[command(flatten)]
    pub adapter: Adapter,
    #[command(flatten)]
    pub compute: Compute,
    #[command(flatten)]
    pub output: Output,
}

/// `minke quantize`
#[derive(Args)]
pub struct Quantize {
    #[command(flatten)]
    pub model: Model,
    /// The GGUF file to write
    pub target: PathBuf,
    /// How formats are chosen; experts_low: routed experts 2 to 3 bits, all else 6
    #[arg(long, value_name = "RECIPE", value_parser = values::recipe(), ignore_case = true)]
    pub to: Recipe,
    /// Format of the tensors of that name, in which * stands for anything; may be given again, the last one counts
    #[arg(long = "tensor", value_name = "NAME=FORMAT", value_parser = values::tensor_format)]
    pub overrides: Vec<Override>,
    /// How much columns matter: a file of minke imatrix, or llama.cpp's as GGUF
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    #[command(flatten)]
    pub compute: Compute,
    #[command(flatten)]
    pub output: Output,
}

/// `minke imatrix`
#[derive(Args)]
pub struct Imatrix {
    #[command(flatten)]
    pub model: Model,
    /// The text: a few hundred thousand characters of what the model is for
    pub text: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Tokens that are read at once
    #[arg(long, default_value_t = 512, value_parser = values::at_least::<2>)]
    pub chunk: usize,
    #[command(flatten)]
    pub compute: Compute,
    #[command(flatten)]
    pub output: Output,
}

/// `minke debug`
#[derive(Subcommand)]
pub enum Debug {
    /// The ids of a text, control tokens included, and the pieces that they stand for
    Tokens(DebugText),
    /// The prompt that a question becomes
    Render(DebugText),
    /// The thought and the answer in what a model said
    Parse(DebugText),
    /// Every value that a forward passes through and that has a name: shape, mean, deviation, extremes
    Taps {
        #[command(flatten)]
        text: DebugText,
        #[command(flatten)]
        compute: Compute,
    },
    /// The likeliest tokens behind some others
    Logits(DebugLogits),
}

/// A text that `minke debug` looks at.
#[derive(Args)]
pub struct DebugText {
    #[command(flatten)]
    pub model: Model,
    /// The text
    pub text: String,
    #[command(flatten)]
    pub output: Output,
}

/// `minke debug logits`
#[derive(Args)]
pub struct DebugLogits {
    #[command(flatten)]
    pub model: Model,
    /// The text before them
    pub text: Option<String>,
    /// Their ids instead of a text
    #[arg(long, value_delimiter = ',')]
    pub ids: Option<Vec<u32>>,
    /// File for the logits of all positions: f32, little-endian, one row per position
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub compute: Compute,
    #[command(flatten)]
    pub output: Output,
}
