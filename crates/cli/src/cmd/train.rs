//! How does a run look while it trains? A bar per stage, its most telling numbers on one line, and a clean end on Ctrl-C.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Result;
use minke_tensor::{Cpu, Device, Isa};
use minke_train::{Observer, RunConfig, StepView};
use serde::Serialize;

use super::print_json;
use crate::args::Train;
use crate::error::Exit;
use crate::files::read_text;
use crate::interrupt::Interrupt;
use crate::progress::Bar;

/// The numbers of a step that are worth a look, and what they are called on the line.
const SHOWN: [(&str, &str); 6] = [
    ("loss", "loss"),
    ("reward", "reward"),
    ("rewards/accuracy/mean", "right"),
    ("completions/mean_length", "tokens"),
    ("entropy", "entropy"),
    ("kept", "kept"),
];

/// What a machine is told about a finished run.
#[derive(Serialize)]
struct Summary<'a> {
    name: &'a str,
    out: &'a Path,
    stages: Vec<StageSummary<'a>>,
}

#[derive(Serialize)]
struct StageSummary<'a> {
    name: &'a str,
    kind: &'static str,
    /// Folder of the model that the stage made, if it makes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<PathBuf>,
}

/// Runs `minke train`.
pub fn run(args: Train) -> Result<()> {
    let config = load(&args.run, &args.sets)?;
    let out = args.out.unwrap_or_else(|| default_out(&config));
    let device = Device::Cpu(Cpu::new(args.threads, Isa::detect()));
    let mut watcher = Watcher { interrupt: Interrupt::install()?, bar: None, last: String::new() };
    let commit = option_env!("MINKE_COMMIT");
    minke_train::execute(&config, &out, &device, commit, &mut watcher)?;
    if args.json {
        let stages = config.stages.iter().map(|stage| StageSummary {
            name: stage.name(),
            kind: stage.kind(),
            model: stage.trains().then(|| model_folder(&out, stage.name())),
        });
        return print_json(&Summary { name: &config.name, out: &out, stages: stages.collect() });
    }
    eprintln!("everything is in {}", out.display());
    Ok(())
}

/// Returns the run of a TOML in which some values are replaced.
pub fn load(path: &Path, sets: &[(String, String)]) -> Result<RunConfig> {
    let bad = |reason: String| Exit::BadFile.because(format!("{}: {reason}", path.display()));
    if !path.is_file() {
        let advice = "give the TOML of a run, such as runs/first-light.toml";
        return Err(bad(format!("{}; {advice}", if path.exists() { "is a folder" } else { "no such file" })));
    }
    if sets.is_empty() {
        return Ok(RunConfig::load(path)?);
    }
    let parsed: std::result::Result<toml::Table, _> = read_text(path)?.parse();
    let mut run = toml::Value::Table(parsed.map_err(|error| bad(error.message().to_owned()))?);
    for (key, text) in sets {
        set(&mut run, key, text).map_err(|reason| Exit::Usage.because(format!("--set {key}={text}: {reason}")))?;
    }
    let text = toml::to_string(&run).expect("invariant: what was TOML is TOML");
    RunConfig::from_toml(&text).map_err(|error| bad(format!("after --set: {error}")))
}

/// Returns the folder of a run that nobody chose.
pub fn default_out(config: &RunConfig) -> PathBuf {
    Path::new("out").join(&config.name)
}

/// Returns the folder of the model that a stage made.
pub fn model_folder(out: &Path, stage: &str) -> PathBuf {
    out.join("stages").join(stage).join("model")
}

/// Replaces one value. The elements of an array of tables are found by their name.
fn set(run: &mut toml::Value, key: &str, text: &str) -> std::result::Result<(), String> {
    let mut place = run;
    for part in key.split('.') {
        place = match place {
            toml::Value::Table(table) => {
                table.entry(part.to_owned()).or_insert_with(|| toml::Value::Table(toml::Table::new()))
            }
            toml::Value::Array(elements) => {
                let named =
                    |element: &&mut toml::Value| element.get("name").and_then(toml::Value::as_str) == Some(part);
                elements.iter_mut().find(named).ok_or_else(|| format!("the run has nothing called {part:?} there"))?
            }
            _ => return Err(format!("there is nothing below a plain value, so no {part:?}")),
        };
    }
    let parsed: std::result::Result<toml::Table, _> = format!("value = {text}").parse();
    let value = parsed.ok().and_then(|mut table| table.remove("value"));
    *place = value.unwrap_or_else(|| toml::Value::String(text.to_owned()));
    Ok(())
}

/// Shows a run on stderr.
struct Watcher {
    interrupt: Interrupt,
    bar: Option<Bar>,
    last: String,
}

impl Observer for Watcher {
    fn stage_started(&mut self, stage: &str, done: u64, total: u64) {
        if done > 0 {
            eprintln!("{stage}: goes on after step {done} of {total}");
        }
        self.last.clear();
        self.bar = Some(Bar::new(stage, done, total));
    }

    fn step(&mut self, view: &StepView<'_>) -> ControlFlow<()> {
        let shown = SHOWN.iter().filter_map(|(name, label)| Some(format!("{label} {:.3}", view.metrics.number(name)?)));
        let speed = view.timings.number("tokens_per_second").map(|speed| format!("{speed:.0} tokens/s"));
        self.last = shown.chain(speed).collect::<Vec<_>>().join(", ");
        if let Some(bar) = &mut self.bar {
            bar.set(view.step, &self.last);
        }
        if self.interrupt.is_raised() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn stage_finished(&mut self, stage: &str) {
        match self.bar.take() {
            Some(bar) => bar.finish(&self.last),
            None => eprintln!("{stage}: was finished before"),
        }
    }

    fn message(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.say(text),
            None => eprintln!("{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "seed = 1\n[model]\nhidden_size = 8\n[[stage]]\nname = \"base\"\nsteps = 5\n";

    fn after(key: &str, text: &str) -> std::result::Result<toml::Value, String> {
        let mut run = toml::Value::Table(RUN.parse().unwrap());
        set(&mut run, key, text).map(|()| run)
    }

    #[test]
    fn values_are_replaced_where_the_key_leads() {
        assert_eq!(after("seed", "2").unwrap()["seed"].as_integer(), Some(2));
        assert_eq!(after("stage.base.steps", "7").unwrap()["stage"][0]["steps"].as_integer(), Some(7));
        assert_eq!(after("model.rope.theta", "1e4").unwrap()["model"]["rope"]["theta"].as_float(), Some(1e4));
        assert_eq!(after("name", "other one").unwrap()["name"].as_str(), Some("other one"));
        assert!(after("stage.bose.steps", "7").unwrap_err().contains("bose"));
        assert!(after("seed.deep", "7").unwrap_err().contains("plain value"));
    }
}
