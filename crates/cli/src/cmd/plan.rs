//! `minke plan`: what a model costs to train and serve, and on what; nothing is measured or downloaded.

use std::path::Path;

use anyhow::{Context, Result};
use minke_chat::{CHUNK_TOKENS, MemoryPlan, MemoryPlanner};
use minke_plan::balance::Ranks;
use minke_plan::cluster::{Arithmetic, Batch};
use minke_plan::questions::{self, Cheapest, Fit, Restricted, Rl, Runs, Serve, Train};
use minke_plan::{Answer, Hardware, Ledger, Model};
use minke_spec::{ModelConfig, presets};

use super::{open, print_json, print_line};
use crate::args::{Assumed, Drawn, Plan, PlanFit, PlanTrain};
use crate::error::Exit;
use crate::measured;

/// Runs `minke plan`.
pub fn run(args: &Plan) -> Result<()> {
    match args {
        Plan::Cost(args) => {
            let (hardware, ledger) = assumed(&args.assumed)?;
            show(&args.assumed.drawn, questions::cost(&model(&args.model.model)?, &hardware, ledger)?)
        }
        Plan::Train(args) => train(args, questions::train),
        Plan::Scale(args) => train(args, questions::scale),
        Plan::Failure(args) => train(args, questions::failure),
        Plan::Cheapest(args) => {
            let (hardware, ledger) = assumed(&args.assumed)?;
            let mut asked = Cheapest::new(args.tokens);
            (asked.days, asked.most) = (args.days, args.most);
            asked.batch = Batch { sequences: args.batch, sequence_tokens: args.sequence };
            show(&args.assumed.drawn, questions::cheapest(&model(&args.model.model)?, &hardware, &asked, ledger)?)
        }
        Plan::Export(args) => {
            let (hardware, ledger) = assumed(&args.assumed)?;
            let mut asked = Restricted::new(args.tokens);
            (asked.days, asked.most, asked.context_tokens) = (args.days, args.most, args.context);
            show(&args.assumed.drawn, questions::export(&model(&args.model.model)?, &hardware, &asked, ledger)?)
        }
        Plan::Rl(args) => {
            let (hardware, ledger) = assumed(&args.assumed)?;
            let mut asked = Rl::new(args.rollout_tokens);
            (asked.part, asked.count, asked.decode_ranks) = (args.part.clone(), args.count, args.decode_ranks);
            show(&args.assumed.drawn, questions::rl(&model(&args.model.model)?, &hardware, &asked, ledger)?)
        }
        Plan::Serve(args) => {
            let (hardware, ledger) = assumed(&args.assumed)?;
            let mut asked = Serve::new(&args.part);
            (asked.decode_ranks, asked.prefill_ranks) = (args.decode_ranks, args.prefill_ranks);
            (asked.context_tokens, asked.prompt_tokens, asked.users) = (args.context, args.prompt, args.users);
            show(&args.assumed.drawn, questions::serve(&model(&args.model.model)?, &hardware, &asked, ledger)?)
        }
        Plan::Fit(args) => {
            let (hardware, ledger) = assumed(&args.assumed)?;
            if let Some(file) =
                args.model.as_deref().filter(|name| Path::new(name).extension() == Some("gguf".as_ref()))
            {
                return runs(file, args, &hardware, ledger);
            }
            let models = match &args.model {
                Some(name) => vec![model(name)?],
                None => every_model()?,
            };
            let mut asked = Fit::new(&args.part);
            (asked.count, asked.context_tokens) = (args.count, args.context);
            show(&args.assumed.drawn, questions::fit(&models, &hardware, &asked, ledger)?)
        }
        Plan::Balance(args) => {
            let told = args.loads.display();
            let loads: Vec<Vec<f64>> = serde_json::from_str(&read(&args.loads)?).map_err(|error| {
                Exit::BadFile.because(format!("{told}: not lists of loads, such as [[90, 132, 40]] ({error})"))
            })?;
            let ranks = Ranks { slots: args.slots, groups: args.groups, nodes: args.nodes, ranks: args.ranks };
            show(&args.drawn, questions::balance(&loads, ranks)?)
        }
        Plan::Hardware(args) => show(&args.drawn, questions::hardware(&hardware(&args.drawn)?)),
    }
}

type Question = fn(&Model, &Hardware, &Train, Ledger) -> Result<Answer, minke_plan::Error>;

fn train(args: &PlanTrain, question: Question) -> Result<()> {
    let (hardware, ledger) = assumed(&args.assumed)?;
    let mut asked = Train::new(&args.part, args.count, args.tokens);
    asked.batch = Batch { sequences: args.batch, sequence_tokens: args.sequence };
    (asked.pipeline, asked.expert, asked.schedule) = (args.pipeline, args.expert, args.schedule);
    asked.arithmetic = args.precision.as_deref().map(|name| match name {
        "fp8" => Arithmetic::Fp8,
        "f32" => Arithmetic::F32,
        _ => Arithmetic::Bf16,
    });
    asked.mfu = args.mfu;
    show(&args.assumed.drawn, question(&model(&args.model.model)?, &hardware, &asked, ledger)?)
}

/// A model in its file, on a machine that was measured.
fn runs(file: &str, args: &PlanFit, hardware: &Hardware, mut ledger: Ledger) -> Result<()> {
    let archive = open(Path::new(file))?;
    let have = ledger.figure(hardware.part(&args.part)?, "memory_bytes")?;
    let planner = MemoryPlanner::new(&archive).for_memory(have as u64);
    let context_tokens = args.context as usize;
    let MemoryPlan { weights, cache, work, vocabulary, program, .. } = planner.plan(context_tokens);
    let memory =
        [("weights", weights), ("cache", cache), ("work", work), ("vocabulary", vocabulary), ("program", program)];
    let asked = Runs {
        part: args.part.clone(),
        context_tokens,
        chunk_tokens: CHUNK_TOKENS,
        read: measured::read(&planner),
        memory: memory.map(|(name, bytes)| (name, bytes as f64)).into(),
    };
    let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
    let model = Model::new(name, archive.config.clone());
    show(&args.assumed.drawn, questions::runs(&model, hardware, &asked, ledger)?)
}

/// Prints an answer, and draws it.
fn show(drawn: &Drawn, answer: Answer) -> Result<()> {
    if let Some(path) = &drawn.svg {
        let svg = answer.picture.svg()?;
        minke_sys::atomic::replace(path, svg.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if drawn.output.json { print_json(&answer) } else { print_line(&answer.text()) }
}

fn hardware(drawn: &Drawn) -> Result<Hardware> {
    let mut hardware = Hardware::known()?;
    for file in &drawn.hardware {
        hardware.add(&file.display().to_string(), &read(file)?)?;
    }
    Ok(hardware)
}

/// Parts and what was set; flags win over the file.
fn assumed(assumed: &Assumed) -> Result<(Hardware, Ledger)> {
    let mut set = match &assumed.assume {
        Some(file) => Ledger::read_settings(&file.display().to_string(), &read(file)?)?,
        None => Vec::new(),
    };
    for (name, value) in &assumed.set {
        let value = value.parse().map_err(|_| {
            Exit::Usage.because(format!("--set {name}={value}: the value must be a number such as 0.35"))
        })?;
        set.push((name.clone(), value));
    }
    Ok((hardware(&assumed.drawn)?, Ledger::new(set)))
}

/// The model of a name, of a repository of the Hub that is known, or of a file.
fn model(argument: &str) -> Result<Model> {
    let path = Path::new(argument);
    let file = if path.is_dir() { path.join("config.json") } else { path.to_owned() };
    if file.is_file() {
        let text = read(&file)?;
        let parsed = ModelConfig::from_json(&text).with_context(|| file.display().to_string())?;
        if !parsed.unknown_keys.is_empty() {
            eprintln!("minke: {}: not known and left aside: {}", file.display(), parsed.unknown_keys.join(", "));
        }
        return Ok(Model::new(argument, parsed.config));
    }
    match presets::known(argument) {
        Some(config) => Ok(Model::new(argument, config)),
        None => Ok(Model::named(argument)?),
    }
}

/// A model of each shape that has a name.
fn every_model() -> Result<Vec<Model>> {
    let same_as_r1 = ["deepseek-v3", "deepseek-r1-zero"];
    let names = minke_plan::model::names().into_iter().filter(|name| !same_as_r1.contains(&name.as_str()));
    names.map(|name| Ok(Model::named(&name)?)).collect()
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Exit::BadFile.because(format!("{}: {error}", path.display())))
}
