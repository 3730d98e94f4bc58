//! `minke eval`: a model, or every stage of a run, graded on the same held-out problems in the modes that were chosen; answers
//! of other programs; and comparisons.

mod compare;
mod set;

use std::path::{Path, PathBuf};

use anyhow::Result;
use minke_chat::SamplingOptions;
use minke_engine::{EngineConfig, Replicas};
use minke_eval::tasks::{Arithmetic, Countdown, Programs};
use minke_eval::{EvalConfig, Evaluator, Interval, Problem, Split, Task, TaskReport};
use minke_tensor::{Device, PAGE_TOKENS};
use minke_train::config::StageConfig;
use minke_train::data::NamedTask;
use minke_train::publish::refresh_card;
use minke_train::scores;
use serde::Serialize;

use super::{chat_model, print_json, print_line};
use crate::args::{Eval, Side};
use crate::error::Exit;
use crate::interrupt::Interrupt;
use crate::progress::Bar;
use crate::{locate, runs};

/// Sequences that are decoded at once.
const BATCH: usize = 256;
/// Held-out problems of every task of a run.
const PROBLEMS: usize = 500;
/// The lower of the two temperatures at which a base model is asked; it also answers greedily.
const LOW_TEMPERATURE: f32 = 0.6;

/// Scores of one model.
#[derive(Serialize)]
struct Scores {
    /// The stage that made it; nothing for a model of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<String>,
    model: PathBuf,
    reports: Vec<TaskReport>,
}

/// Runs `minke eval`.
pub fn run(args: &Eval) -> Result<()> {
    let Eval { temperature, seed, max_tokens, .. } = *args;
    SamplingOptions { temperature, seed, max_tokens, ..SamplingOptions::default() }.validate()?;
    Interrupt::ends_at_once()?;
    if args.target.is_none() && args.adapter.folder().is_some() {
        return Err(Exit::Usage.because("--adapter: stands beside a model; name the model too"));
    }
    if let [before, after] = &args.compare[..] {
        return compare::run(before, after, args.output.json);
    }
    let is_run = |target: &PathBuf| target.extension().is_some_and(|extension| extension == "toml");
    let scores = match &args.target {
        Some(target) if is_run(target) => of_run(args, target)?,
        target => {
            let (families, sets) = set::split(args)?;
            match (target, &sets[..]) {
                (None, sets) => return set::of_answers(args, sets),
                (Some(target), []) => vec![of_model(args, target)?],
                (Some(target), sets) if families.is_empty() => return set::of_model(args, target, sets),
                (Some(_), _) => {
                    let (names, advice) = (families.join(", "), "grade sets and families one after the other");
                    return Err(Exit::Usage.because(format!("--task {names}: is no set as the others are; {advice}")));
                }
            }
        }
    };
    if args.output.json {
        return print_json(&scores);
    }
    let rows: Vec<[String; 15]> = scores.iter().flat_map(rows).collect();
    print_line(&table(&HEADINGS, &rows))
}

/// Grades a model on the families with their default settings.
fn of_model(args: &Eval, target: &Path) -> Result<Scores> {
    let families = [
        Task::Countdown(Countdown::default()),
        Task::Arithmetic(Arithmetic::default()),
        Task::Programs(Programs::default()),
    ];
    let tasks: Vec<NamedTask> = families.map(|task| NamedTask { name: task.name().to_owned(), task }).into();
    let sets = problem_sets(args, &tasks, Side::Test)?;
    let model = locate::model(target)?;
    let placed = args.adapter.beside(model.clone())?;
    let reports = grade(&placed, "", &sets, &[mode(args)], &args.compute.device()?)?;
    Ok(Scores { stage: None, model, reports })
}

/// Grades what every stage of a run made, and leaves the scores beside it.
fn of_run(args: &Eval, target: &Path) -> Result<Vec<Scores>> {
    if args.data.is_some() || args.shots.is_some() {
        let advice = "a run says in its TOML where its problems are, and asks its models in conversations";
        return Err(Exit::Usage.because(format!("--data, --shots: are for models, not for runs; {advice}")));
    }
    let config = runs::load(target, &[])?;
    let out = args.folder.of(&config);
    let sets = problem_sets(args, &config.tasks, Side::Validation)?;
    if args.adapter.folder().is_some() {
        return Err(Exit::Usage.because("--adapter: is for a model; the stages of a run have their own"));
    }
    let made = |stage: &StageConfig| {
        let folders = [runs::model_folder(&out, stage.name()), runs::adapter_folder(&out, stage.name())];
        folders.into_iter().find(|folder| folder.exists())
    };
    let finished = |stage: &&StageConfig| made(stage).is_some();
    let stages: Vec<&StageConfig> = config.stages.iter().filter(|stage| stage.trains()).filter(finished).collect();
    if stages.is_empty() {
        let advice = format!("run `minke train {}` first, or name its folder with --out", target.display());
        return Err(
            Exit::BadFile.because(format!("{}: no stage of the run is finished there; {advice}", out.display()))
        );
    }
    let folder = |stage: &StageConfig| out.join("stages").join(stage.name());
    // Scores that could not be added to what is there are refused before they are made.
    stages.iter().try_for_each(|stage| scores::read(&folder(stage)).map(|_| ()))?;
    let (device, mut all) = (args.compute.device()?, Vec::new());
    for stage in stages {
        let Some(model) = made(stage) else { continue };
        let placed = args.adapter.beside(model.clone())?;
        let reports = grade(&placed, stage.name(), &sets, &modes(args, stage), &device)?;
        scores::add(&folder(stage), &reports)?;
        refresh_card(&config, &out, stage.name())?;
        all.push(Scores { stage: Some(stage.name().to_owned()), model, reports });
    }
    Ok(all)
}

/// The held-out problems of the tasks that were asked for, the same for every model, of a side unless another was chosen.
fn problem_sets<'a>(args: &Eval, tasks: &'a [NamedTask], side: Side) -> Result<Vec<(&'a NamedTask, Vec<Problem>)>> {
    let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
    if let Some(unknown) = args.tasks.iter().find(|task| !names.contains(&task.as_str())) {
        return Err(
            Exit::Usage.because(format!("--task {unknown}: there is no such task; there are {}", names.join(", ")))
        );
    }
    let wanted = tasks.iter().filter(|task| args.tasks.is_empty() || args.tasks.contains(&task.name));
    let split = match args.side.unwrap_or(side) {
        Side::Validation => Split::Validation,
        Side::Test => Split::Test,
    };
    let problems = |task: &'a NamedTask| {
        let problems = task.task.problem_set(split, args.seed, args.problems.unwrap_or(PROBLEMS));
        if problems.is_empty() {
            let advice = "name a file of them as validation in its table of the TOML, or ask for --side test";
            return Err(Exit::Usage.because(format!(
                "task {}: it has no {} problems; {advice}",
                task.name,
                split.name()
            )));
        }
        Ok((task, problems))
    };
    wanted.map(problems).collect()
}

/// The mode that the person chose.
fn mode(args: &Eval) -> EvalConfig {
    let defaults = EvalConfig::default();
    EvalConfig {
        samples: args.samples.unwrap_or(defaults.samples),
        temperature: args.temperature.unwrap_or(defaults.temperature),
        max_tokens: args.max_tokens.unwrap_or(defaults.max_tokens),
        force_thought: args.force_thought,
        seed: args.seed,
        ..defaults
    }
}

/// The modes in which a stage is graded. A base model, with which the others are compared, is given every chance: its
/// thought forced open, and a lower temperature.
fn modes(args: &Eval, stage: &StageConfig) -> Vec<EvalConfig> {
    let chosen = mode(args);
    if !matches!(stage, StageConfig::Pretrain(_)) || args.temperature.is_some() || args.force_thought {
        return vec![chosen];
    }
    let low = EvalConfig { temperature: LOW_TEMPERATURE, greedy: false, ..chosen.clone() };
    let forced = |mode: &EvalConfig| EvalConfig { force_thought: true, ..mode.clone() };
    vec![chosen.clone(), low.clone(), forced(&chosen), forced(&low)]
}

/// The scores of the model in a folder.
fn grade(
    (folder, adapter): &(PathBuf, Option<PathBuf>),
    name: &str,
    sets: &[(&NamedTask, Vec<Problem>)],
    modes: &[EvalConfig],
    device: &Device,
) -> Result<Vec<TaskReport>> {
    let loaded = chat_model(folder, adapter.as_deref(), device, 1)?;
    let context = loaded.model.config().max_position_embeddings;
    let longest = modes.iter().map(|mode| mode.max_tokens).max().unwrap_or(0);
    // A prompt takes a few pages; where they run out, sequences wait for each other and nothing else changes.
    let pages = BATCH * context.min(longest + context / 4).div_ceil(PAGE_TOKENS);
    let sizes = EngineConfig::default()
        .with_pages(pages)
        .with_max_sequences(BATCH)
        .with_chunk_tokens(1024)
        .exact()
        .with_prefix_cache(false);
    let mut engines = Replicas::new(&loaded.device, loaded.model.config(), &sizes)?;
    let mut evaluator = Evaluator {
        engines: &mut engines,
        model: &loaded.model,
        tokenizer: &loaded.tokenizer,
        template: &loaded.template,
    };
    let mut reports = Vec::new();
    for (task, problems) in sets {
        for mode in modes {
            let label =
                [name, &task.name].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" ");
            let answers = problems.len() * (mode.samples + usize::from(mode.greedy));
            let mut bar = Bar::new(label.trim(), 0, answers as u64);
            let mut progress = |done: usize, _total: usize| bar.set(done as u64, "");
            let report = evaluator.evaluate(&task.name, &task.task, problems, mode, &mut progress)?;
            bar.finish(&format!("pass@1 {}", interval(&report.pass_at_1)));
            reports.push(report);
        }
    }
    Ok(reports)
}

const HEADINGS: [&str; 15] = [
    "model",
    "task",
    "side",
    "mode",
    "pass@1",
    "blind",
    "no repeats",
    "constant",
    "pass@k",
    "cons@k",
    "greedy",
    "tokens right/wrong",
    "attempts",
    "format",
    "false claims",
];

fn rows(scores: &Scores) -> Vec<[String; 15]> {
    let model = scores.stage.clone().unwrap_or_else(|| scores.model.display().to_string());
    let row = |report: &TaskReport| {
        let config = &report.config;
        let (k, pass_at_k) = report.pass_at_k.last().copied().unwrap_or((1, 0.0));
        let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.0}"));
        let share = |share: Option<f64>| share.map_or("-".into(), percent);
        let search = report.search;
        let blind_attempts = search.and_then(|search| search.attempts_as_right);
        let blind_attempts = blind_attempts.map_or(String::new(), |attempts| format!(" ({attempts:.1})"));
        let tokens = [report.thought_tokens_right, report.thought_tokens_wrong].map(number);
        [
            model.clone(),
            report.task.clone(),
            report.side.name().to_owned(),
            config.as_ref().map_or("given".into(), |config| {
                format!("T={}{}", config.temperature, if config.force_thought { " forced" } else { "" })
            }),
            interval(&report.pass_at_1),
            share(search.map(|search| search.blind)),
            share(search.map(|search| search.without_repeats)),
            share(report.constant.as_ref().map(|(_, share)| *share)),
            format!("{} ({k})", percent(pass_at_k)),
            share(report.cons_at_k.map(|majority| majority.mean)),
            share(report.greedy.map(|greedy| greedy.mean)),
            tokens.join("/"),
            report.attempts.map_or("-".into(), |attempts| format!("{attempts:.1}{blind_attempts}")),
            percent(report.format_rate),
            share(report.false_claims),
        ]
    };
    scores.reports.iter().map(row).collect()
}

fn interval(interval: &Interval) -> String {
    format!("{} [{}, {}]", percent(interval.mean), percent(interval.low), percent(interval.high))
}

fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// Rows under headings, columns aligned.
fn table<const N: usize>(headings: &[&str; N], rows: &[[String; N]]) -> String {
    let width = |i: usize| rows.iter().map(|row| row[i].len()).max().unwrap_or(0).max(headings[i].len());
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let head = std::iter::once(line(*headings));
    head.chain(rows.iter().map(|row| line(std::array::from_fn(|i| row[i].as_str())))).collect::<Vec<_>>().join("\n")
}
