//! What did the person mean? Arguments as typed become, once, what the commands work with: defaults filled in, values
//! checked, environment read.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use minke_engine::SamplingParams;
use minke_eval::EvalConfig;
use minke_hub::{Cache, ModelName, nearest_short_name};
use serde::{Deserialize, Serialize};

use crate::error::Exit;

/// The DeepSeek-R1 system in one binary.
#[derive(Parser)]
#[command(name = "minke", version, disable_help_subcommand = true)]
struct Typed {
    #[command(subcommand)]
    command: TypedCommand,
}

#[derive(Subcommand)]
enum TypedCommand {
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
#[command(allow_negative_numbers = true)]
struct TypedBench {
    /// Folder of a model, or a GGUF file
    model: PathBuf,
    /// Lengths of the prompts, in tokens
    #[arg(long, value_delimiter = ',', default_value = "256")]
    prompt: Vec<usize>,
    /// Tokens to write behind each
    #[arg(long, default_value_t = 32)]
    generate: usize,
    /// CPU threads [default: MINKE_THREADS, else all]
    #[arg(long)]
    threads: Option<usize>,
    /// One JSON list
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum TypedDebug {
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
struct TypedRun {
    /// Folder of a model in published form, or a GGUF file [default: models/first-light]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    model: Option<String>,
    /// The question; without one, a conversation, or one question per line of standard input
    prompt: Option<String>,
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
    /// CPU threads [default: MINKE_THREADS, else all]
    #[arg(long)]
    threads: Option<usize>,
    /// What happens to the thought
    #[arg(long, value_enum, default_value_t = Think::Show)]
    think: Think,
    /// Tokens of a thought, after which it is closed and the answer follows [default: no limit]
    #[arg(long, value_name = "TOKENS")]
    think_budget: Option<usize>,
    /// Go on with a kept conversation, or begin it; it is kept after every turn
    #[arg(long, value_name = "NAME")]
    session: Option<String>,
    /// One JSON object per answer
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(allow_negative_numbers = true)]
struct TypedTrain {
    /// The run
    run: PathBuf,
    /// Folder for everything that the run makes [default: out/NAME, the run's name]
    #[arg(long)]
    out: Option<PathBuf>,
    /// CPU threads [default: MINKE_THREADS, else all]
    #[arg(long)]
    threads: Option<usize>,
    /// Replace a value of the TOML, such as seed=2 or stage.base.steps=100; may be given again
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// One JSON object at the end
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(allow_negative_numbers = true)]
struct TypedEval {
    /// Folder of a model, a GGUF file, or the TOML of a run
    target: PathBuf,
    /// Only this task; may be given again [default: all]
    #[arg(long = "task", value_name = "NAME")]
    tasks: Vec<String>,
    /// Answers to every problem
    #[arg(long, default_value_t = EvalConfig::default().samples)]
    samples: usize,
    /// Held-out problems of every task
    #[arg(long, default_value_t = 500)]
    problems: usize,
    /// Temperature of the answers; greedy ones are scored beside them [default: 1]
    #[arg(long)]
    temperature: Option<f32>,
    /// Most tokens of an answer, thought included
    #[arg(long, default_value_t = EvalConfig::default().max_tokens)]
    max_tokens: usize,
    /// Open the thought in the prompt
    #[arg(long)]
    force_thought: bool,
    /// The same seed poses the same problems and gives the same answers
    #[arg(long, default_value_t = EvalConfig::default().seed)]
    seed: u64,
    /// Folder of the run, if the target is a TOML [default: out/NAME]
    #[arg(long)]
    out: Option<PathBuf>,
    /// CPU threads [default: MINKE_THREADS, else all]
    #[arg(long)]
    threads: Option<usize>,
    /// All scores as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(allow_negative_numbers = true)]
struct TypedReport {
    /// The TOML of a run, or its output folder
    run: PathBuf,
    /// The file to write [default: report.html in the output folder]
    #[arg(long)]
    output: Option<PathBuf>,
    /// One JSON object at the end
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(allow_negative_numbers = true)]
struct TypedShow {
    /// Folder of a model in published form, or a GGUF file
    model: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct TypedDoctor {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct TypedPull {
    /// ORG/NAME, ORG/NAME:QUANT for GGUF files, or a short name such as r1-distill-qwen-7b
    model: String,
    /// Branch, tag or commit
    #[arg(long, default_value = "main")]
    revision: String,
    /// Ask no server: say where the model lies if it was downloaded
    #[arg(long)]
    offline: bool,
    /// One JSON object at the end
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct TypedList {
    /// One JSON list
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct TypedRm {
    /// As for pull
    model: String,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(allow_negative_numbers = true)]
struct TypedFit {
    /// Folder of a model in published form, or a GGUF file
    model: PathBuf,
    /// Tokens of context [default: the most that fits]
    #[arg(long)]
    context: Option<usize>,
    /// Memory to fit into, such as 24G or 512M [default: what is available]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// One JSON object
    #[arg(long)]
    json: bool,
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
    /// `minke debug`
    Debug(Debug),
    /// `minke completions`
    Completions(Shell),
    /// `minke man`
    Man(PathBuf),
}

/// What `minke run` works with.
pub struct Run {
    /// Folder of the model; nothing for the one in the repository.
    pub model: Option<PathBuf>,
    /// The question.
    pub prompt: Option<String>,
    /// How tokens are chosen.
    pub sampling: Sampling,
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

/// What the person said about sampling; the rest is the model's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Divides the logits.
    pub temperature: Option<f32>,
    /// Share of the probability to sample from.
    pub top_p: Option<f32>,
    /// Number of most likely tokens to sample from.
    pub top_k: Option<usize>,
    /// Least probability relative to the most likely token.
    pub min_p: Option<f32>,
    /// Seed of the first answer.
    pub seed: u64,
    /// Most tokens of an answer.
    pub max_tokens: Option<usize>,
    /// Tokens after which a thought is closed.
    pub think_budget: Option<usize>,
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

/// What `minke debug` works with.
pub enum Debug {
    /// `minke debug tokens`
    Tokens(DebugTokens),
    /// `minke debug render`
    Render(DebugRender),
    /// `minke debug parse`
    Parse(DebugParse),
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

/// Returns what the command line asks for. `--help` and `--version` print and end the program here.
///
/// # Errors
/// A usage error of one line.
pub fn parse() -> anyhow::Result<Command> {
    let typed = Typed::try_parse().or_else(|error| {
        use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
        match error.kind() {
            DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
            _ => Err(Exit::Usage.because(one_line(&error.render().to_string()))),
        }
    })?;
    Ok(match typed.command {
        TypedCommand::Run(typed) => Command::Run(typed.meaning()?),
        TypedCommand::Train(typed) => Command::Train(typed.meaning()?),
        TypedCommand::Eval(typed) => Command::Eval(typed.meaning()?),
        TypedCommand::Report(TypedReport { run, output, json }) => Command::Report(Report { run, output, json }),
        TypedCommand::Show(TypedShow { model, json }) => Command::Show(Show { model: located(model)?, json }),
        TypedCommand::Fit(TypedFit { model, context, memory, json }) => {
            Command::Fit(Fit { model: located(model)?, context, memory, threads: threads(None)?, json })
        }
        TypedCommand::Doctor(TypedDoctor { json }) => {
            Command::Doctor(Doctor { threads: threads(None)?, cache: cache(), json })
        }
        TypedCommand::Pull(typed) => Command::Pull(typed.meaning()?),
        TypedCommand::List(TypedList { json }) => Command::List(List { cache: cache(), json }),
        TypedCommand::Rm(TypedRm { model, json }) => {
            Command::Rm(Rm { model: ModelName::parse(&model)?, cache: cache(), json })
        }
        TypedCommand::Bench(typed) => Command::Bench(typed.meaning()?),
        TypedCommand::Debug(typed) => Command::Debug(typed.meaning()?),
        TypedCommand::Completions { shell } => Command::Completions(shell),
        TypedCommand::Man { folder } => Command::Man(folder),
    })
}

/// Returns the definition of the command line, from which help, completions and man pages are made.
pub fn definition() -> clap::Command {
    Typed::command()
}

impl Sampling {
    /// Refuses what the engine would refuse, before a model is loaded.
    ///
    /// # Errors
    /// The first value that is out of its range.
    pub fn check(&self) -> anyhow::Result<()> {
        let given = SamplingParams {
            temperature: self.temperature.unwrap_or(1.0),
            top_p: self.top_p.unwrap_or(1.0),
            top_k: 0,
            min_p: self.min_p.unwrap_or(0.0),
            seed: self.seed,
            max_tokens: self.max_tokens.unwrap_or(1),
            stop_ids: vec![],
        };
        Ok(given.validate()?)
    }
}

impl TypedRun {
    fn meaning(self) -> anyhow::Result<Run> {
        let Self { temperature, top_p, seed, max_tokens, think_budget, .. } = self;
        let sampling = Sampling { temperature, top_p, seed, max_tokens, think_budget, ..Sampling::default() };
        sampling.check()?;
        let (model, prompt) = model_and_prompt(self.model, self.prompt)?;
        Ok(Run {
            model,
            prompt,
            sampling,
            threads: threads(self.threads)?,
            think: self.think,
            session: self.session,
            json: self.json,
            dim: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        })
    }
}

impl TypedPull {
    fn meaning(self) -> anyhow::Result<Pull> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        // Where `hf auth login` leaves it.
        let kept = || std::fs::read_to_string(cache().root().with_file_name("token")).ok();
        let token =
            set("HF_TOKEN").or_else(kept).map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let Self { model, revision, offline, json } = self;
        Ok(Pull { model: ModelName::parse(&model)?, revision, offline, json, endpoint, token, cache: cache() })
    }
}

/// Returns the cache of downloaded models: `$HF_HOME/hub`, as other libraries have it.
fn cache() -> Cache {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HOME").unwrap_or_default().join(".cache/huggingface");
    Cache::new(set("HF_HOME").unwrap_or_else(home).join("hub"))
}

/// Returns where a model lies: a path that exists wins, then the name of a model that was downloaded.
///
/// # Errors
/// If it was not downloaded, or is no name.
fn located(model: PathBuf) -> anyhow::Result<PathBuf> {
    if model.exists() {
        return Ok(model);
    }
    let text = model.to_string_lossy();
    let bad = |reason: String| Exit::BadFile.because(format!("{text}: no such file or folder{reason}"));
    match ModelName::parse(&text) {
        Ok(name) => cache().find(&name, "main").ok_or_else(|| match nearest_short_name(&text) {
            Some(near) if !near.eq_ignore_ascii_case(&text) => {
                bad(format!(", and not downloaded; did you mean {near}?"))
            }
            _ => bad(format!(", and not downloaded; check the spelling, or: minke pull {text}")),
        }),
        Err(_) => Err(match nearest_short_name(&text) {
            Some(near) => bad(format!("; did you mean {near}?")),
            None => bad("; check the spelling".into()),
        }),
    }
}

impl TypedTrain {
    fn meaning(self) -> anyhow::Result<Train> {
        let split = |set: &String| match set.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
            _ => Err(Exit::Usage.because(format!("--set {set}: is not KEY=VALUE; write for instance --set seed=2"))),
        };
        let sets = self.sets.iter().map(split).collect::<anyhow::Result<_>>()?;
        Ok(Train { run: self.run, out: self.out, threads: threads(self.threads)?, sets, json: self.json })
    }
}

impl TypedEval {
    fn meaning(self) -> anyhow::Result<Eval> {
        let Self { temperature, seed, max_tokens, .. } = self;
        Sampling { temperature, seed, max_tokens: Some(max_tokens), ..Sampling::default() }.check()?;
        for (flag, value) in [("--samples", self.samples), ("--problems", self.problems)] {
            if value == 0 {
                return Err(Exit::Usage.because(format!("{flag} 0: there is nothing to score; give at least 1")));
            }
        }
        let threads = threads(self.threads)?;
        let Self { target, tasks, samples, problems, temperature, max_tokens, force_thought, seed, out, json, .. } =
            self;
        let target = if target.extension().is_some_and(|end| end == "toml") { target } else { located(target)? };
        Ok(Eval { target, tasks, samples, problems, temperature, max_tokens, force_thought, seed, out, threads, json })
    }
}

impl TypedBench {
    fn meaning(self) -> anyhow::Result<Bench> {
        if self.generate == 0 || self.prompt.contains(&0) {
            return Err(Exit::Usage.because("there is nothing to measure; give --prompt and --generate of at least 1"));
        }
        let threads = threads(self.threads)?;
        Ok(Bench {
            model: located(self.model)?,
            prompts: self.prompt,
            generate: self.generate,
            threads,
            json: self.json,
        })
    }
}

impl TypedDebug {
    fn meaning(self) -> anyhow::Result<Debug> {
        Ok(match self {
            Self::Tokens { model, text, json } => Debug::Tokens(DebugTokens { model: located(model)?, text, json }),
            Self::Render { model, prompt, json } => Debug::Render(DebugRender { model: located(model)?, prompt, json }),
            Self::Parse { model, text, json } => Debug::Parse(DebugParse { model: located(model)?, text, json }),
            Self::Logits { model, text, ids, out, threads: flag, json } => {
                Debug::Logits(DebugLogits { model: located(model)?, text, ids, out, threads: threads(flag)?, json })
            }
        })
    }
}

/// Returns which argument is which: one that is not a folder is a question, unless it looks like a path.
fn model_and_prompt(
    first: Option<String>,
    second: Option<String>,
) -> anyhow::Result<(Option<PathBuf>, Option<String>)> {
    let prompt = match (first, second) {
        (Some(model), Some(prompt)) => return Ok((Some(located(model.into())?), non_empty(Some(prompt))?)),
        (Some(only), None) if Path::new(&only).is_dir() || only.ends_with(".gguf") && Path::new(&only).exists() => {
            return Ok((Some(only.into()), None));
        }
        (Some(only), None) if looks_like_a_path(&only) || ModelName::parse(&only).is_ok() => {
            return Ok((Some(located(only.into())?), None));
        }
        (first, _) => first,
    };
    Ok((None, non_empty(prompt)?))
}

fn non_empty(prompt: Option<String>) -> anyhow::Result<Option<String>> {
    match prompt {
        Some(text) if text.trim().is_empty() => Err(Exit::Usage.because("the question is empty; write one, or none")),
        other => Ok(other),
    }
}

fn looks_like_a_path(text: &str) -> bool {
    let ends = [".gguf", ".safetensors", ".json", ".toml", ".bin"].iter().any(|end| text.ends_with(end));
    !text.contains(char::is_whitespace) && (text.contains('/') || ends || Path::new(text).exists())
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

/// Returns the number of threads: the flag, else `MINKE_THREADS`, else what the machine has.
fn threads(flag: Option<usize>) -> anyhow::Result<usize> {
    let (name, value) = match (flag, std::env::var("MINKE_THREADS")) {
        (Some(value), _) => ("--threads ", value.to_string()),
        (None, Ok(value)) if !value.is_empty() => ("MINKE_THREADS=", value),
        (None, _) => return Ok(std::thread::available_parallelism().map_or(1, usize::from)),
    };
    match value.parse() {
        Ok(threads) if (1..=MOST_THREADS).contains(&threads) => Ok(threads),
        _ => Err(Exit::Usage.because(format!("{name}{value}: must be a number from 1 to {MOST_THREADS}"))),
    }
}

/// Returns what clap says on many lines without its frame, on one.
fn one_line(rendered: &str) -> String {
    let lines = rendered.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let said: Vec<&str> = lines.filter(|line| !line.is_empty() && !line.starts_with("For more")).collect();
    let said = said.join(" ");
    format!("{}; see --help", said.trim_start_matches("error: "))
}

const MOST_THREADS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_sound() {
        definition().debug_assert();
    }

    #[test]
    fn a_question_is_told_from_a_path() {
        for question in ["make 24 from 3 8 1", "hello", "what is 24/3 ?"] {
            assert!(!looks_like_a_path(question), "{question}");
        }
        for path in ["models/frist-light", "./model", "/", "r1.gguf", "Cargo.toml"] {
            assert!(looks_like_a_path(path), "{path}");
        }
    }
}
