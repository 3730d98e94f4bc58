//! Sets of problems from files: a model asked, or given answers graded, with every answer kept in a file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use minke_chat::{CHUNK_TOKENS, ChatModel, machine};
use minke_engine::{EngineConfig, Replicas};
use minke_eval::published::{Figure, figure};
use minke_eval::tasks::{ProblemSet, SetFiles, SetFormat};
use minke_eval::{
    Answer, EvalConfig, Evaluator, Header, Problem, Prompt, Questions, Results, Split, Task, TaskReport, harness,
    prompts,
};
use minke_spec::cost::kv_bytes_per_token;
use minke_tensor::PAGE_TOKENS;
use minke_train::report::{Benchmark, benchmark};
use minke_weights::{ADAPTER_CONFIG_FILE, ADAPTER_FILE, Archive};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{chat_model, interval, percent, print_json, print_line, table};
use crate::args::{Eval, Side};
use crate::error::Exit;
use crate::files::read_text;
use crate::progress::Bar;
use crate::{environment, locate};

/// The file of answers in the folder of an evaluation.
pub const ANSWERS: &str = "answers.jsonl";
/// The page about them.
const REPORT: &str = "report.html";
/// Sequences that are decoded at once, if memory allows.
const BATCH: usize = 32;
/// Temperature at which several answers are drawn, and the share of the probability: those that R1 is evaluated with.
const SAMPLED: (f32, f32) = (0.6, 0.95);
/// Longest answer unless another is asked for, in tokens.
const MAX_TOKENS: usize = 1024;

/// A set that was asked for.
pub struct Set {
    /// As it was typed, without folder and ending.
    name: String,
    task: Task,
}

/// Scores of answers to a set.
#[derive(Serialize)]
struct Scored {
    model: String,
    folder: PathBuf,
    report: TaskReport,
    /// What the makers of the model say.
    #[serde(skip_serializing_if = "Option::is_none")]
    published: Option<f64>,
}

/// Tells the names of tasks from sets, which are read.
///
/// # Errors
/// If a file is missing or broken, or `--data` and `--examples` do not say whose they are.
pub fn split(args: &Eval) -> Result<(Vec<&str>, Vec<Set>)> {
    let (mut others, mut sets) = (Vec::new(), Vec::new());
    for name in &args.tasks {
        let format = SetFormat::PUBLISHED.into_iter().find(|format| format.name() == name);
        let path = match format {
            Some(format) => Some(args.data.clone().map_or_else(|| cached(format), Ok)?),
            None => Some(PathBuf::from(name)).filter(|path| path.extension().is_some()),
        };
        match path {
            Some(path) => sets.push(read(args, name, format, path)?),
            None => others.push(name.as_str()),
        }
    }
    let flags =
        [("--data", args.data.is_some()), ("--shots", args.shots.is_some()), ("--answers", args.answers.is_some())];
    if let Some((flag, _)) = flags.into_iter().find(|(_, given)| *given && sets.len() != 1) {
        let named = "name it with one --task, such as --task gsm8k";
        return Err(Exit::Usage.because(format!("{flag}: is about one set of problems; {named}")));
    }
    if args.side == Some(Side::Validation) && !sets.is_empty() {
        let advice = "name the file of its validation problems with --data";
        return Err(Exit::Usage.because(format!("--side: all problems of a set count as its test; {advice}")));
    }
    Ok((others, sets))
}

fn read(args: &Eval, name: &str, format: Option<SetFormat>, path: PathBuf) -> Result<Set> {
    let format = match format {
        Some(format) => format,
        None => SetFormat::recognize(&read_text(&path)?),
    };
    let files = SetFiles { examples: args.examples.clone(), ..SetFiles::held_out(format, path) };
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Set { name: stem, task: Task::Set(ProblemSet::read(files)?) })
}

/// The file of a published set in the cache.
///
/// # Errors
/// If it is not there; the message says where it is published.
fn cached(format: SetFormat) -> Result<PathBuf> {
    let (file, origin) = match format {
        SetFormat::Gsm8k => ("gsm8k_test.jsonl", "openai/grade-school-math: grade_school_math/data/test.jsonl"),
        SetFormat::Svamp => ("svamp.json", "arkilpatel/SVAMP: SVAMP.json"),
        SetFormat::HumanEval => ("humaneval.jsonl", "openai/human-eval: data/HumanEval.jsonl.gz, unpacked"),
        SetFormat::Mbpp => ("mbpp.jsonl", "google-research/google-research: mbpp/mbpp.jsonl"),
        SetFormat::Jsonl => ("", ""),
    };
    let name = format.name();
    let place = environment::problems().map(|folder| folder.join(file));
    match place.as_ref().filter(|place| place.is_file()) {
        Some(place) => Ok(place.clone()),
        None => {
            let place = place.map_or(String::new(), |place| format!("no file {}; ", place.display()));
            let advice = format!("put the published file there ({origin}), or name yours with --data FILE");
            Err(Exit::BadFile.because(format!("--task {name}: {place}{advice}")))
        }
    }
}

/// Asks a model.
pub fn of_model(args: &Eval, target: &Path, sets: &[Set]) -> Result<()> {
    let path = locate::model(target)?;
    let name = name_of(&path);
    let (base, adapter) = args.adapter.beside(path)?;
    let model_sha256 = hash_of(&base, adapter.as_deref())?;
    let loaded = chat_model(&base, adapter.as_deref(), &args.compute.device()?, BATCH)?;
    let config = mode(args);
    let mut scored = Vec::new();
    for set in sets {
        let problems = problems(args, set)?;
        let prompts = prompts(&loaded.template, &loaded.tokenizer, &set.task, &problems, &config)?;
        let all: String = prompts.iter().map(|prompt| harness::sha256(&prompt.text)).collect();
        let header = Header {
            model: name.clone(),
            model_sha256: model_sha256.clone(),
            samples: config.samples,
            config: Some(config.clone()),
            prompts: Some(harness::sha256(&all)),
            ..header(set, &problems)
        };
        let out = folder(args, &name, set)?;
        let mut results = Results::open(&out.join(ANSWERS), header.clone())?;
        ask(&loaded, set, &problems, &prompts, &config, &mut results)?;
        scored.push(finish(out, set, &problems, Some(&prompts), (header, results))?);
    }
    print(args, &scored)
}

/// Lets a model answer what has no answer yet.
fn ask(
    loaded: &ChatModel,
    set: &Set,
    problems: &[Problem],
    prompts: &[Prompt],
    config: &EvalConfig,
    results: &mut Results,
) -> Result<()> {
    let (done, total) = (results.done(), problems.len() * config.samples);
    if done.len() >= total {
        return Ok(());
    }
    let sizes = sizes(loaded, prompts, config);
    let mut engines = Replicas::new(&loaded.device, loaded.model.config(), &sizes)?;
    let (model, tokenizer, template) = (&loaded.model, &loaded.tokenizer, &loaded.template);
    let mut evaluator = Evaluator { engines: &mut engines, model, tokenizer, template };
    let mut bar = Bar::new(&set.name, done.len() as u64, total as u64);
    let mut right = results.answers().iter().filter(|answer| answer.is_right()).count();
    let questions = Questions { task: &set.task, problems, prompts, config };
    evaluator.answer(questions, &done, &mut |answer| {
        right += usize::from(answer.is_right());
        results.append(answer)?;
        bar.set(results.answers().len() as u64, &format!("{right} right"));
        Ok(())
    })?;
    bar.finish(&format!("{right} right"));
    Ok(())
}

/// An engine as `minke run` has it, with as many sequences at once as fit into half of the memory that is left.
fn sizes(loaded: &ChatModel, prompts: &[Prompt], config: &EvalConfig) -> EngineConfig {
    let defaults = EngineConfig::default();
    let model = loaded.model.config();
    let longest = prompts.iter().map(|prompt| prompt.token_ids.len()).max().unwrap_or(0);
    let longest = longest.saturating_add(config.max_tokens).min(model.max_position_embeddings);
    let pages = longest.div_ceil(PAGE_TOKENS) + 1;
    let page_bytes = kv_bytes_per_token(model, defaults.cache_dtype.format()) * PAGE_TOKENS;
    let memory = machine::memory().map_or(u64::MAX, |memory| memory.available / 2) as usize;
    let sequences = (memory / page_bytes.max(1) / pages).clamp(1, BATCH);
    defaults.with_pages(sequences * pages).with_max_sequences(sequences).with_chunk_tokens(CHUNK_TOKENS)
}

/// A line of a file of given answers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenLine {
    id: String,
    text: String,
}

/// Grades the answers of a file.
pub fn of_answers(args: &Eval, sets: &[Set]) -> Result<()> {
    let (Some(path), [set]) = (&args.answers, sets) else {
        return Err(Exit::Usage.because("--answers: is about one set of problems; name it with --task"));
    };
    let problems = problems(args, set)?;
    let by_name: HashMap<&str, &Problem> = problems.iter().map(|problem| (problem.name.as_str(), problem)).collect();
    let text = read_text(path)?;
    let bad = |i: usize, reason: String| Exit::BadFile.because(format!("{}: line {}: {reason}", path.display(), i + 1));
    let mut given: Vec<(&Problem, usize, String)> = Vec::new();
    let mut counts: HashMap<String, usize> = HashMap::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let GivenLine { id, text } = serde_json::from_str(line).map_err(|error| bad(i, error.to_string()))?;
        let problem =
            by_name.get(id.as_str()).copied().ok_or_else(|| bad(i, format!("{} has no problem {id}", set.name)))?;
        let sample = counts.entry(id).or_default();
        given.push((problem, *sample, text));
        *sample += 1;
    }
    let samples = counts.values().copied().max().unwrap_or(0);
    let short = problems.iter().find(|problem| counts.get(&problem.name).copied().unwrap_or(0) != samples);
    if let Some(Problem { name, .. }) = short.filter(|_| samples > 0) {
        let have = counts.get(name).copied().unwrap_or(0);
        let reason = format!("{}: {name} has {have} answers, others have {samples}", path.display());
        return Err(Exit::BadFile.because(reason));
    }
    let name = name_of(path);
    let model_sha256 = harness::sha256(&text);
    let header = Header { model: name.clone(), model_sha256, samples, ..header(set, &problems) };
    let out = folder(args, &name, set)?;
    let mut results = Results::open(&out.join(ANSWERS), header.clone())?;
    let done = results.done();
    let mut bar = Bar::new(&set.name, done.len() as u64, given.len() as u64);
    for (problem, sample, text) in given {
        if !done.contains(&(problem.name.clone(), sample)) {
            results.append(Answer::given(&set.task, problem, sample, text)?)?;
            bar.set(results.answers().len() as u64, "");
        }
    }
    bar.finish("");
    let scored = finish(out, set, &problems, None, (header, results))?;
    print(args, &[scored])
}

/// What all answers to a set have in common.
fn header(set: &Set, problems: &[Problem]) -> Header {
    Header {
        minke: env!("CARGO_PKG_VERSION").into(),
        task: set.name.clone(),
        data: set.task.set().map(|set| set.sha256().to_owned()).unwrap_or_default(),
        problems: problems.len(),
        samples: 0,
        model: String::new(),
        model_sha256: String::new(),
        config: None,
        prompts: None,
    }
}

fn problems(args: &Eval, set: &Set) -> Result<Vec<Problem>> {
    let problems = set.task.problem_set(Split::Test, args.seed, args.problems.unwrap_or(usize::MAX));
    if problems.len() < 2 {
        bail!("{}: one problem gives no interval; evaluate at least 2", set.name);
    }
    Ok(problems)
}

/// How a model is asked: greedily once, or several times at the published temperature.
fn mode(args: &Eval) -> EvalConfig {
    let samples = args.samples.unwrap_or(1);
    let (temperature, top_p) = if samples > 1 { SAMPLED } else { (0.0, 1.0) };
    EvalConfig {
        samples,
        temperature: args.temperature.unwrap_or(temperature),
        top_p,
        max_tokens: args.max_tokens.unwrap_or(MAX_TOKENS),
        force_thought: args.force_thought,
        greedy: false,
        seed: args.seed,
        shots: args.shots,
    }
}

fn folder(args: &Eval, name: &str, set: &Set) -> Result<PathBuf> {
    let stem = name.strip_suffix(".gguf").or(name.strip_suffix(".jsonl")).unwrap_or(name);
    let out = args.folder.or(Path::new("out").join(format!("{stem}-{}", set.name)));
    std::fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    Ok(out)
}

/// Puts the answers in order, and writes what is read of them.
fn finish(
    out: PathBuf,
    set: &Set,
    problems: &[Problem],
    prompts: Option<&[Prompt]>,
    (header, results): (Header, Results),
) -> Result<Scored> {
    let answers = results.finish(problems.iter().map(|problem| problem.name.as_str()))?;
    let report = TaskReport::new(&set.name, &set.task, problems, &answers, header.config.clone())?;
    let published: Option<&Figure> = figure(&header.model, set.task.name());
    let page = Benchmark { header: &header, report: &report, problems, answers: &answers, published };
    let replace = |file: &str, text: String| minke_sys::atomic::replace(&out.join(file), text.as_bytes());
    replace(REPORT, benchmark(&page))?;
    let key: String = harness::sha256(&serde_json::to_string(&header)?).chars().take(12).collect();
    replace(&format!("results_{key}.json"), serde_json::to_string_pretty(&harness::results(&header, &report))? + "\n")?;
    let samples = harness::samples(&header, problems, prompts, &answers).map(|row| format!("{row}\n")).collect();
    replace(&format!("samples_{}_{key}.jsonl", set.name), samples)?;
    let published = published.map(|figure| figure.score);
    Ok(Scored { model: header.model, folder: out, report, published })
}

const HEADINGS: [&str; 10] =
    ["model", "task", "mode", "problems", "pass@1", "pass@k", "cons@k", "tokens", "constant", "published"];

fn print(args: &Eval, scored: &[Scored]) -> Result<()> {
    if args.output.json {
        return print_json(&scored);
    }
    let dash = || "-".to_owned();
    let row = |scored: &Scored| {
        let report = &scored.report;
        let (k, share) = report.pass_at_k.last().copied().unwrap_or((1, 0.0));
        let many = k > 1;
        [
            scored.model.clone(),
            report.task.clone(),
            report.config.as_ref().map_or("given".into(), |config| {
                let shots = config.shots.map_or(String::new(), |shots| format!(" {shots} shots"));
                format!("T={}{shots}", config.temperature)
            }),
            report.problems.to_string(),
            interval(&report.pass_at_1),
            if many { format!("{} ({k})", percent(share)) } else { dash() },
            report.cons_at_k.filter(|_| many).map_or_else(dash, |majority| percent(majority.mean)),
            report.mean_tokens.map_or_else(dash, |tokens| format!("{tokens:.0}")),
            report.constant.as_ref().map_or_else(dash, |(_, share)| percent(*share)),
            scored.published.map_or_else(dash, percent),
        ]
    };
    let rows: Vec<[String; 10]> = scored.iter().map(row).collect();
    print_line(&table(&HEADINGS, &rows))?;
    scored.iter().for_each(|scored| eprintln!("minke: answers and report are in {}", scored.folder.display()));
    Ok(())
}

/// The name of a model's or a file's last part.
fn name_of(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The hash of all bytes of a model's weights, and of its adapter's.
fn hash_of(path: &Path, adapter: Option<&Path>) -> Result<String> {
    let archive = Archive::open(path)?;
    let mut sum = Sha256::new();
    archive.files.iter().for_each(|file| sum.update(&file.bytes[..]));
    for path in adapter.iter().flat_map(|folder| [ADAPTER_CONFIG_FILE, ADAPTER_FILE].map(|file| folder.join(file))) {
        sum.update(std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
