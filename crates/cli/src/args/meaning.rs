//! What was meant by what was typed?

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use minke_chat::SamplingOptions;
use minke_hub::{Cache, ModelName, nearest_short_name};
use minke_spec::Format;
use minke_weights::recipe::{Override, Recipe};

use super::command::*;
use super::typed::*;
use crate::error::Exit;

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
        TypedCommand::Perplexity(typed) => Command::Perplexity(typed.meaning()?),
        TypedCommand::Convert(typed) => Command::Convert(typed.meaning()?),
        TypedCommand::Quantize(typed) => Command::Quantize(typed.meaning()?),
        TypedCommand::Imatrix(typed) => Command::Imatrix(typed.meaning()?),
        TypedCommand::Debug(typed) => Command::Debug(typed.meaning()?),
        TypedCommand::Completions { shell } => Command::Completions(shell),
        TypedCommand::Man { folder } => Command::Man(folder),
    })
}

/// Returns the definition of the command line, from which help, completions and man pages are made.
pub fn definition() -> clap::Command {
    Typed::command()
}

impl TypedRun {
    fn meaning(self) -> anyhow::Result<Run> {
        let Self { temperature, top_p, seed, max_tokens, think_budget, .. } = self;
        let sampling =
            SamplingOptions { temperature, top_p, seed, max_tokens, think_budget, ..SamplingOptions::default() };
        sampling.validate()?;
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
        SamplingOptions { temperature, seed, max_tokens: Some(max_tokens), ..SamplingOptions::default() }.validate()?;
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

impl TypedPerplexity {
    fn meaning(self) -> anyhow::Result<Perplexity> {
        if self.context < 4 {
            return Err(Exit::Usage.because("--context: too few tokens to read at once; give at least 4"));
        }
        let threads = threads(self.threads)?;
        let Self { model, text, context, json, .. } = self;
        Ok(Perplexity { model: located(model)?, text, context, threads, json })
    }
}

impl TypedConvert {
    fn meaning(self) -> anyhow::Result<Convert> {
        let format = self.format.map(|format| match format {
            Floats::F32 => Format::F32,
            Floats::F16 => Format::F16,
            Floats::Bf16 => Format::Bf16,
        });
        let threads = threads(self.threads)?;
        Ok(Convert { source: located(self.source)?, target: self.target, format, threads, json: self.json })
    }
}

impl TypedQuantize {
    fn meaning(self) -> anyhow::Result<Quantize> {
        let named = |recipe: &Recipe| recipe.name().eq_ignore_ascii_case(&self.to);
        let Some(recipe) = Recipe::ALL.into_iter().find(named) else {
            let names = Recipe::ALL.map(Recipe::name).join(", ");
            return Err(Exit::Usage.because(format!("--to {}: there is no such recipe; choose {names}", self.to)));
        };
        let one = |typed: &String| {
            let (pattern, format) = typed.split_once('=')?;
            Some(Override { pattern: pattern.into(), format: Format::from_name(&format.to_ascii_uppercase())? })
        };
        let split = |typed: &String| {
            let advice = "write NAME=FORMAT, such as 'blk.*.attn_v.weight=q8_0'";
            one(typed).ok_or_else(|| Exit::Usage.because(format!("--tensor {typed}: {advice}")))
        };
        let overrides = self.tensors.iter().map(split).collect::<anyhow::Result<_>>()?;
        let Self { source, target, imatrix, json, .. } = self;
        Ok(Quantize {
            source: located(source)?,
            target,
            recipe,
            overrides,
            imatrix,
            threads: threads(self.threads)?,
            json,
        })
    }
}

impl TypedImatrix {
    fn meaning(self) -> anyhow::Result<Imatrix> {
        if self.chunk < 2 {
            return Err(Exit::Usage.because("--chunk: too few tokens to read at once; give at least 2"));
        }
        let threads = threads(self.threads)?;
        let Self { model, text, out, chunk, json, .. } = self;
        Ok(Imatrix { model: located(model)?, text, out, chunk, threads, json })
    }
}

impl TypedDebug {
    fn meaning(self) -> anyhow::Result<Debug> {
        Ok(match self {
            Self::Tokens { model, text, json } => Debug::Tokens(DebugTokens { model: located(model)?, text, json }),
            Self::Render { model, prompt, json } => Debug::Render(DebugRender { model: located(model)?, prompt, json }),
            Self::Parse { model, text, json } => Debug::Parse(DebugParse { model: located(model)?, text, json }),
            Self::Taps { model, text, threads: flag, json } => {
                Debug::Taps(DebugTaps { model: located(model)?, text, threads: threads(flag)?, json })
            }
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
