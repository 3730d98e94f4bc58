//! What do the commands work with? Defaults are filled in, values checked.

use std::path::PathBuf;

use clap::ValueEnum;
use clap_complete::Shell;
use minke_chat::SamplingOptions;
use minke_hub::{Cache, ModelName};
use minke_spec::Format;
use minke_weights::recipe::{Override, Recipe};
use serde::{Deserialize, Serialize};

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

/// What to do.
pub enum Command {
    /// `minke run`
    Run(Run),
    /// `minke train`
    Train(Train),
    /// `minke eval`
    Eval(Eval),
    /// `minke report`
    Report(Report),
    /// `minke show`
    Show(Show),
    /// `minke fit`
    Fit(Fit),
    /// `minke doctor`
    Doctor(Doctor),
    /// `minke pull`
    Pull(Pull),
    /// `minke list`
    List(List),
    /// `minke rm`
    Rm(Rm),
    /// `minke bench`
    Bench(Bench),
    /// `minke perplexity`
    Perplexity(Perplexity),
    /// `minke convert`
    Convert(Convert),
    /// `minke quantize`
    Quantize(Quantize),
    /// `minke imatrix`
    Imatrix(Imatrix),
    /// `minke debug`
    Debug(Debug),
    /// `minke completions`
    Completions(Shell),
    /// `minke man`
    Man(PathBuf),
}

/// What `minke perplexity` works with.
pub struct Perplexity {
    /// The model.
    pub model: PathBuf,
    /// The text.
    pub text: PathBuf,
    /// Tokens that are read at once.
    pub context: usize,
    /// CPU threads.
    pub threads: usize,
    /// Whether the result is JSON.
    pub json: bool,
}

/// What `minke convert` works with.
pub struct Convert {
    /// The model.
    pub source: PathBuf,
    /// What to write.
    pub target: PathBuf,
    /// Format of the weights; nothing for that in which they are stored.
    pub format: Option<Format>,
    /// CPU threads.
    pub threads: usize,
    /// Whether the summary is JSON.
    pub json: bool,
}

/// What `minke quantize` works with.
pub struct Quantize {
    /// The model.
    pub source: PathBuf,
    /// The file to write.
    pub target: PathBuf,
    /// How formats are chosen.
    pub recipe: Recipe,
    /// What was said about single tensors.
    pub overrides: Vec<Override>,
    /// A file that says how much columns matter.
    pub imatrix: Option<PathBuf>,
    /// CPU threads.
    pub threads: usize,
    /// Whether the summary is JSON.
    pub json: bool,
}

/// What `minke run` works with.
pub struct Run {
    /// Folder of the model; nothing for the one in the repository.
    pub model: Option<PathBuf>,
    /// The question.
    pub prompt: Option<String>,
    /// How tokens are chosen.
    pub sampling: SamplingOptions,
    /// CPU threads.
    pub threads: usize,
    /// What happens to the thought.
    pub think: Think,
    /// Name of the conversation to go on with.
    pub session: Option<String>,
    /// Whether answers are JSON.
    pub json: bool,
    /// Whether stdout understands dim text.
    pub dim: bool,
}

/// What `minke train` works with.
pub struct Train {
    /// The TOML.
    pub run: PathBuf,
    /// The output folder; nothing for the default.
    pub out: Option<PathBuf>,
    /// CPU threads.
    pub threads: usize,
    /// Values to replace: a dotted key and the text of a value.
    pub sets: Vec<(String, String)>,
    /// Whether the summary is JSON.
    pub json: bool,
}

/// What `minke eval` works with.
pub struct Eval {
    /// A model's folder, or a TOML.
    pub target: PathBuf,
    /// Names of the tasks; none for all.
    pub tasks: Vec<String>,
    /// Answers to every problem.
    pub samples: usize,
    /// Problems of every task.
    pub problems: usize,
    /// Temperature of the answers, if it was given.
    pub temperature: Option<f32>,
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// Whether the prompt opens the thought.
    pub force_thought: bool,
    /// Seed of problems and answers.
    pub seed: u64,
    /// The run's output folder; nothing for the default.
    pub out: Option<PathBuf>,
    /// CPU threads.
    pub threads: usize,
    /// Whether the scores are JSON.
    pub json: bool,
}

/// What `minke report` works with.
pub struct Report {
    /// A TOML, or an output folder.
    pub run: PathBuf,
    /// The file to write; nothing for the default.
    pub output: Option<PathBuf>,
    /// Whether the summary is JSON.
    pub json: bool,
}

/// What `minke show` works with.
pub struct Show {
    /// Folder of the model.
    pub model: PathBuf,
    /// Whether the result is JSON.
    pub json: bool,
}

/// What `minke fit` works with.
pub struct Fit {
    /// The model.
    pub model: PathBuf,
    /// Tokens of context; nothing for the most that fits.
    pub context: Option<usize>,
    /// Bytes of memory; nothing for what is available.
    pub memory: Option<u64>,
    /// CPU threads.
    pub threads: usize,
    /// Whether the result is JSON.
    pub json: bool,
}

/// What `minke doctor` works with.
pub struct Doctor {
    /// CPU threads.
    pub threads: usize,
    /// Where models are kept.
    pub cache: Cache,
    /// Whether the result is JSON.
    pub json: bool,
}

/// What `minke pull` works with.
pub struct Pull {
    /// The model's name.
    pub model: ModelName,
    /// Branch, tag or commit.
    pub revision: String,
    /// Whether no server may be asked.
    pub offline: bool,
    /// Whether the result is JSON.
    pub json: bool,
    /// Address of the server.
    pub endpoint: String,
    /// Who asks.
    pub token: Option<String>,
    /// Where models are kept.
    pub cache: Cache,
}

/// What `minke list` works with.
pub struct List {
    /// Where models are kept.
    pub cache: Cache,
    /// Whether the result is JSON.
    pub json: bool,
}

/// What `minke rm` works with.
pub struct Rm {
    /// The model's name.
    pub model: ModelName,
    /// Where models are kept.
    pub cache: Cache,
    /// Whether the result is JSON.
    pub json: bool,
}

/// What `minke bench` works with.
pub struct Bench {
    /// The model.
    pub model: PathBuf,
    /// Tokens of each prompt.
    pub prompts: Vec<usize>,
    /// Tokens to write behind each.
    pub generate: usize,
    /// CPU threads.
    pub threads: usize,
    /// Whether the result is JSON.
    pub json: bool,
}

/// What `minke imatrix` works with.
pub struct Imatrix {
    /// The model.
    pub model: PathBuf,
    /// The text.
    pub text: PathBuf,
    /// The file to write.
    pub out: PathBuf,
    /// Tokens that are read at once.
    pub chunk: usize,
    /// CPU threads.
    pub threads: usize,
    /// Whether the summary is JSON.
    pub json: bool,
}

/// What `minke debug` works with.
pub enum Debug {
    /// `minke debug tokens`
    Tokens(DebugTokens),
    /// `minke debug render`
    Render(DebugRender),
    /// `minke debug parse`
    Parse(DebugParse),
    /// `minke debug taps`
    Taps(DebugTaps),
    /// `minke debug logits`
    Logits(DebugLogits),
}

/// What `minke debug tokens` works with.
pub struct DebugTokens {
    /// The model.
    pub model: PathBuf,
    /// The text.
    pub text: String,
    /// Whether the result is JSON.
    pub json: bool,
}

/// What `minke debug render` works with.
pub struct DebugRender {
    /// The model.
    pub model: PathBuf,
    /// The question.
    pub prompt: String,
    /// Whether the result is JSON.
    pub json: bool,
}

/// What `minke debug parse` works with.
pub struct DebugParse {
    /// The model.
    pub model: PathBuf,
    /// What it said.
    pub text: String,
    /// Whether the result is JSON.
    pub json: bool,
}

/// What `minke debug taps` works with.
pub struct DebugTaps {
    /// The model.
    pub model: PathBuf,
    /// The text.
    pub text: String,
    /// CPU threads.
    pub threads: usize,
    /// Whether the result is JSON.
    pub json: bool,
}

/// What `minke debug logits` works with.
pub struct DebugLogits {
    /// The model.
    pub model: PathBuf,
    /// A text.
    pub text: Option<String>,
    /// Ids instead of a text.
    pub ids: Option<Vec<u32>>,
    /// File for all logits.
    pub out: Option<PathBuf>,
    /// CPU threads.
    pub threads: usize,
    /// Whether the result is JSON.
    pub json: bool,
}
