//! A run in its folder: stage by stage, each from its newest checkpoint. Killed and started again, it ends with the same
//! bytes.
//!
//! ```text
//! OUT/run.json                   resolved configuration, seed, commit, machine; written first
//! OUT/tokenizer/                 tokenizer.json
//! OUT/stages/NAME/*.jsonl        logs, cut to the checkpoint's lengths on resume
//! OUT/stages/NAME/checkpoints/   the two newest
//! OUT/stages/NAME/model/         what the stage made, as published on the Hub; of a stage with lora
//! OUT/stages/NAME/adapter/       instead: the adapter, as PEFT loads it
//! OUT/stages/NAME/answers.jsonl  of a stage whose questions an endpoint answers: every answer as it came
//! OUT/stages/NAME/done.json      the stage is finished
//! ```

use std::fs::{File, TryLockError};
use std::path::Path;

use minke_sys::atomic;
use minke_tensor::Device;
use minke_text::{Tokenizer, TrainOptions};
use serde::{Deserialize, Serialize};

use crate::asked::Asking;
use crate::base::Bases;
use crate::config::{RunConfig, StageConfig, TokenizerConfig};
use crate::data::tokenizer_texts;
use crate::files::STDIN;
use crate::observer::Observer;
use crate::stage::Context;
use crate::stage_loop::StageLoop;
use crate::start::Start;
use crate::{Error, Result, files, publish};

/// The file that says a stage is finished.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Done {
    config_hash: String,
    steps: u64,
}

/// Does a run from random weights in an output folder, as [`execute_with`].
///
/// # Errors
/// As [`execute_with`].
pub fn execute(
    config: &RunConfig,
    out: &Path,
    device: &Device,
    commit: Option<&str>,
    observer: &mut dyn Observer,
) -> Result<()> {
    execute_with(config, &Bases::default(), out, device, commit, observer)
}

/// Does a run in an output folder, or goes on with it: finished stages are left as they are, the one that was interrupted
/// goes on from its newest checkpoint that is whole. `bases` has the models of [`RunConfig::published`].
///
/// # Errors
/// If the folder is in use or cannot be written, a stage there was made by another configuration, the observer breaks,
/// or the run diverges.
pub fn execute_with(
    config: &RunConfig,
    bases: &Bases,
    out: &Path,
    device: &Device,
    commit: Option<&str>,
    observer: &mut dyn Observer,
) -> Result<()> {
    let hashes: Vec<String> = config.stages.iter().map(|stage| hash_of(config, stage, bases)).collect::<Result<_>>()?;
    files::make_folder(out)?;
    let _lock = lock(out)?;
    // Before anything is written: what is there must be of this run.
    let stdin = bases.stdin().filter(|_| config.reads_stdin()).map(|text| files::sha256(text.as_bytes()));
    same_precision(config, out)?;
    same_stdin(stdin.as_deref(), out)?;
    for (stage, hash) in config.stages.iter().zip(&hashes) {
        is_done(stage, hash, out)?;
    }
    let machine = serde_json::json!({
        "arch": std::env::consts::ARCH, "os": std::env::consts::OS, "isa": device.name(), "threads": device.threads(),
    });
    let mut record = serde_json::json!({
        "name": config.name, "seed": config.seed, "version": env!("CARGO_PKG_VERSION"), "commit": commit,
        "machine": machine, "config": config,
    });
    if let Some(sum) = stdin {
        record["stdin_sha256"] = sum.into();
    }
    files::replace_json(&out.join("run.json"), &record)?;
    let own = config.tokenizer.map(|settings| tokenizer(config, settings, out)).transpose()?;
    let stages = out.join("stages");
    for (stage, hash) in config.stages.iter().zip(&hashes) {
        if !is_done(stage, hash, out)? {
            let name = stage.name();
            if let Some((settings, teacher)) = stage.asked() {
                let folder = stages.join(name);
                let steps = Asking::new(config, settings, teacher, bases, &folder)?.run(observer)?;
                leave_done(&folder, hash, steps)?;
                observer.stage_finished(name);
                continue;
            }
            let published = config.published_of(stage).map(|name| bases.get(name)).transpose()?;
            let tokenizer = match (&own, published) {
                (_, Some(base)) => &base.tokenizer,
                (Some(own), None) => own,
                (None, None) => unreachable!("invariant: a run has a tokenizer or starts from a published model"),
            };
            let tasks = &config.tasks;
            let (seed, stages, stdin) = (config.seed, &*stages, bases.stdin());
            let context = Context { device, seed, stage: name, tasks, tokenizer, published, stages, stdin };
            let start = Start::of(config, stage, context)?;
            let mut stage_loop = prepare(config, stage, context, &start, hash)?;
            observer.message(&start.summary(name, &stage_loop.trainer().model));
            stage_loop.run(observer)?;
            finish(config, stage, context, &start, hash, &stage_loop)?;
        }
        observer.stage_finished(stage.name());
    }
    Ok(())
}

/// A hash of everything that the result of a stage depends on, published models and files of the user included.
fn hash_of(config: &RunConfig, stage: &StageConfig, bases: &Bases) -> Result<String> {
    let mut outside = Vec::new();
    for stage in config.lineage(stage) {
        if config.parent(stage).is_none()
            && let Some(name) = stage.settings().from()
        {
            outside.push(bases.identity(name)?.to_owned());
        }
        for path in stage.settings().files() {
            outside.push(match (path == Path::new(STDIN), bases.stdin()) {
                (true, Some(text)) => files::sha256(text.as_bytes()),
                (true, None) => {
                    let reason = "learns from standard input, and nothing was given; give its data as in: < data.jsonl";
                    return Err(Error::Config(format!("stage {}: {reason}", stage.name())));
                }
                (false, _) => files::sha256(&std::fs::read(path).map_err(Error::read(path))?),
            });
        }
    }
    let hash = config.hash_of(stage);
    // What depends on nothing outside has the hash that it always had.
    Ok(if outside.is_empty() { hash } else { files::sha256(format!("{hash} {}", outside.join(" ")).as_bytes()) })
}

/// Refuses a folder whose run has another precision.
fn same_precision(config: &RunConfig, out: &Path) -> Result<()> {
    let path = out.join("run.json");
    if !path.exists() {
        return Ok(());
    }
    let record: serde_json::Value = files::read_json(&path)?;
    // A record that is older than the choice says nothing.
    let (have, want) = (record["config"]["precision"].as_str().unwrap_or("f32"), config.precision.name());
    if have == want {
        return Ok(());
    }
    let reason = format!("the run was begun with precision = \"{have}\", not \"{want}\"; choose another folder");
    Err(Error::BadFile { path, reason })
}

/// Refuses a folder whose run read something else from standard input.
fn same_stdin(sum: Option<&str>, out: &Path) -> Result<()> {
    let path = out.join("run.json");
    let Some(sum) = sum.filter(|_| path.exists()) else { return Ok(()) };
    let record: serde_json::Value = files::read_json(&path)?;
    match record["stdin_sha256"].as_str() {
        Some(have) if have != sum => {
            let reason =
                "the run was begun with other data on standard input; give it the same, or choose another folder";
            Err(Error::BadFile { path, reason: reason.into() })
        }
        _ => Ok(()),
    }
}

/// Keeps other processes out of the folder until it is dropped or the process ends.
fn lock(out: &Path) -> Result<File> {
    let path = out.join(".lock");
    let file = File::create(&path).map_err(Error::io("write", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse(out.to_path_buf())),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
    }
}

/// Whether a stage is finished.
fn is_done(stage: &StageConfig, hash: &str, out: &Path) -> Result<bool> {
    let path = out.join("stages").join(stage.name()).join("done.json");
    if !path.exists() {
        return Ok(false);
    }
    let done: Done = files::read_json(&path)?;
    if done.config_hash == hash {
        return Ok(true);
    }
    let reason = "the stage was made by another configuration; choose another folder, or remove that of the stage";
    Err(Error::BadFile { path, reason: reason.into() })
}

/// The tokenizer of a run, learned on the first call.
fn tokenizer(config: &RunConfig, settings: TokenizerConfig, out: &Path) -> Result<Tokenizer> {
    let (folder, hash) = (out.join("tokenizer"), config.tokenizer_hash());
    if std::fs::read_to_string(folder.join("config_hash")).is_ok_and(|have| have == hash) {
        return Ok(Tokenizer::load(&folder)?);
    }
    let TokenizerConfig { vocab_size, documents } = settings;
    let texts: Vec<String> = tokenizer_texts(config.seed, &config.tasks, documents).collect();
    let tokenizer = Tokenizer::train(texts.iter(), &TrainOptions { vocab_size, added_tokens: Vec::new() })?;
    atomic::replace_folder(&folder, |inside| -> Result<()> {
        tokenizer.save(inside)?;
        Ok(atomic::write_new(&inside.join("config_hash"), hash.as_bytes())?)
    })?;
    Ok(tokenizer)
}

/// The loop of a stage, where it begins.
fn prepare<'a>(
    config: &'a RunConfig,
    stage: &'a StageConfig,
    context: Context<'a>,
    start: &Start<'_>,
    hash: &str,
) -> Result<StageLoop<'a>> {
    let settings = stage.settings();
    let weights = start.weights(config, stage, context.device)?;
    let work = settings.start(context, weights.config())?;
    let trainer = settings.trainer(context.device, weights);
    let folder = context.stages.join(settings.name());
    Ok(StageLoop::new(settings.name(), folder, hash.to_owned(), settings.checkpoint_every(), work, trainer))
}

/// Publishes what a stage made, and leaves the file that says it is finished.
fn finish(
    config: &RunConfig,
    stage: &StageConfig,
    context: Context<'_>,
    start: &Start<'_>,
    hash: &str,
    done: &StageLoop<'_>,
) -> Result<()> {
    let folder = context.stages.join(stage.name());
    if stage.trains() {
        publish::publish(config, stage, context, start, &done.trainer().model, &folder)?;
    }
    leave_done(&folder, hash, done.total_steps())
}

/// Leaves the file that says a stage is finished.
fn leave_done(folder: &Path, hash: &str, steps: u64) -> Result<()> {
    files::replace_json(&folder.join("done.json"), &Done { config_hash: hash.to_owned(), steps })
}
