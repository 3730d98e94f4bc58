//! `minke train`: a bar per stage, its most telling numbers on one line, and a clean end on Ctrl-C.

use std::io::{IsTerminal, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use minke_chat::{template, tokenizer};
use minke_tensor::Comm;
use minke_train::{Base, Bases, Observer, Ranks, RunConfig, StepView, metric};
use minke_weights::Archive;
use serde::Serialize;

use super::print_json;
use crate::args::Train;
use crate::interrupt::Interrupt;
use crate::progress::Bar;
use crate::{environment, live, locate, ranks, runs};

/// The numbers of a step that are worth a look, and what they are called on the line.
const SHOWN: [(&str, &str); 6] = [
    (metric::LOSS, "loss"),
    (metric::REWARD, "reward"),
    (metric::ACCURACY, "right"),
    (metric::MEAN_LENGTH, "tokens"),
    (metric::ENTROPY, "entropy"),
    (metric::KEPT, "kept"),
];

/// The JSON about a finished run.
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

/// Runs `minke train`, perhaps as one of several ranks.
pub fn run(args: &Train) -> Result<()> {
    let comm = ranks::join()?;
    train(args, &comm).inspect_err(|error| ranks::end_all(&comm, error))
}

fn train(args: &Train, comm: &Comm) -> Result<()> {
    let is_first = comm.rank() == 0;
    let config = runs::load(&args.run, &args.sets)?;
    let out = args.folder.of(&config);
    let mut bases = bases(&config, is_first)?;
    bases.set_ranks(Ranks::sharing(comm.clone(), args.expert_parallel, args.pipeline_parallel)?);
    let device = args.compute.device()?;
    let interrupt = Interrupt::install_with_terminate()?;
    let mut watcher: Box<dyn Observer> = match is_first {
        true => Box::new(Watcher { interrupt, bar: None, last: String::new() }),
        false => Box::new(Listener { interrupt }),
    };
    let commit = option_env!("MINKE_COMMIT");
    // Behind the handler of Ctrl-C, and before anything is computed.
    if let Some(address) = args.dashboard.filter(|_| is_first) {
        live::beside(&out, address);
    }
    minke_train::execute_with(&config, &bases, &out, &device, commit, &mut *watcher)?;
    if !is_first {
        return Ok(());
    }
    if args.output.json {
        let stages = config.stages.iter().map(|stage| StageSummary {
            name: stage.name(),
            kind: stage.kind(),
            model: stage.trains().then(|| match stage.settings().lora() {
                Some(_) => runs::adapter_folder(&out, stage.name()),
                None => runs::model_folder(&out, stage.name()),
            }),
        });
        return print_json(&Summary { name: &config.name, out: &out, stages: stages.collect() });
    }
    eprintln!("everything is in {0}; to talk to its newest model: minke run {0}", out.display());
    Ok(())
}

/// What a run takes from outside: the published models that it starts from, each where `minke run` would find it, the keys of
/// endpoints from the variables that it names, and standard input. What is to be said about them is said by the first rank.
fn bases(config: &RunConfig, is_first: bool) -> Result<Bases> {
    let say = |note: &String| {
        if is_first {
            eprintln!("minke: {note}");
        }
    };
    let mut bases = Bases::default();
    for name in config.published() {
        let found = locate::model(Path::new(name))
            .with_context(|| format!("{}: from = {name:?} is no earlier stage", config.name))?;
        let (path, adapter) = match locate::base_of_adapter(&found)? {
            Some(base) => (base, Some(found)),
            None => (found, None),
        };
        let archive = Archive::open(&path)?;
        archive.check_weights()?;
        archive.notes.iter().for_each(say);
        let tokenizer = tokenizer(&archive)?;
        let (template, note) = template(&archive, &tokenizer)?;
        note.iter().for_each(say);
        // A name of the Hub stays one; a path is the same from every folder.
        let known_as = match adapter.is_none() && !Path::new(name).exists() {
            true => name.to_owned(),
            false => std::path::absolute(&path)?.to_string_lossy().into_owned(),
        };
        bases.add(name, Base { name: known_as, archive, adapter, tokenizer, template })?;
    }
    for name in config.key_variables() {
        if let Some(key) = environment::key(name) {
            bases.add_key(name, key);
        }
    }
    // Of a terminal nothing is read: a person who forgot the data would wait for the end of it.
    if config.reads_stdin() && !std::io::stdin().is_terminal() {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read standard input")?;
        bases.set_stdin(bytes)?;
    }
    Ok(bases)
}

/// A rank that leaves it to the first to show the run.
struct Listener {
    interrupt: Interrupt,
}

impl Observer for Listener {
    fn step(&mut self, _view: &StepView<'_>) -> ControlFlow<()> {
        self.waiting()
    }

    fn waiting(&mut self) -> ControlFlow<()> {
        self.interrupt.flow()
    }
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
        let speed = view.timings.number(metric::TOKENS_PER_SECOND).map(|speed| format!("{speed:.0} tokens/s"));
        self.last = shown.chain(speed).collect::<Vec<_>>().join(", ");
        if let Some(bar) = &mut self.bar {
            bar.set(view.step, &self.last);
        }
        self.waiting()
    }

    fn waiting(&mut self) -> ControlFlow<()> {
        self.interrupt.flow()
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
