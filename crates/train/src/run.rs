//! A run in its folder: stage by stage, each from its newest checkpoint. Killed and started again, it ends with the same
//! bytes.
//!
//! ```text
//! OUT/run.json                   resolved configuration, seed, commit, machine; written first
//! OUT/tokenizer/                 tokenizer.json
//! OUT/stages/NAME/*.jsonl        logs, cut to the checkpoint's lengths on resume
//! OUT/stages/NAME/checkpoints/   the two newest
//! OUT/stages/NAME/model/         what the stage made, as published on the Hub
//! OUT/stages/NAME/done.json      the stage is finished
//! ```

use std::fs::{File, TryLockError};
use std::path::Path;

use minke_model::Transformer;
use minke_spec::Placement;
use minke_sys::atomic;
use minke_tensor::Device;
use minke_text::{Tokenizer, TrainOptions};
use serde::{Deserialize, Serialize};

use crate::config::{RunConfig, StageConfig, TokenizerConfig};
use crate::data::tokenizer_texts;
use crate::observer::Observer;
use crate::stage::Context;
use crate::stage_loop::StageLoop;
use crate::{Error, Result, files, publish};

/// The file that says a stage is finished.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Done {
    config_hash: String,
    steps: u64,
}

/// Does a run in an output folder, or goes on with it: finished stages are left as they are, the one that was interrupted
/// goes on from its newest checkpoint that is whole.
///
/// # Errors
/// If the folder is in use or cannot be written, a stage there was made by another configuration, the observer breaks,
/// or the run diverges.
pub fn execute(
    config: &RunConfig,
    out: &Path,
    device: &Device,
    commit: Option<&str>,
    observer: &mut dyn Observer,
) -> Result<()> {
    files::make_folder(out)?;
    let _lock = lock(out)?;
    // Before anything is written: what is there must be of this run.
    same_precision(config, out)?;
    for stage in &config.stages {
        is_done(config, stage, out)?;
    }
    let machine = serde_json::json!({
        "arch": std::env::consts::ARCH, "os": std::env::consts::OS, "isa": device.name(), "threads": device.threads(),
    });
    let record = serde_json::json!({
        "name": config.name, "seed": config.seed, "version": env!("CARGO_PKG_VERSION"), "commit": commit,
        "machine": machine, "config": config,
    });
    files::replace_json(&out.join("run.json"), &record)?;
    let tokenizer = tokenizer(config, out)?;
    let stages = out.join("stages");
    for stage in &config.stages {
        if !is_done(config, stage, out)? {
            let name = stage.name();
            let context = Context {
                device,
                seed: config.seed,
                stage: name,
                tasks: &config.tasks,
                tokenizer: &tokenizer,
                stages: &stages,
            };
            let mut stage_loop = prepare(config, stage, context)?;
            stage_loop.run(observer)?;
            finish(config, stage, context, &stage_loop)?;
        }
        observer.stage_finished(stage.name());
    }
    Ok(())
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
fn is_done(config: &RunConfig, stage: &StageConfig, out: &Path) -> Result<bool> {
    let path = out.join("stages").join(stage.name()).join("done.json");
    if !path.exists() {
        return Ok(false);
    }
    let done: Done = files::read_json(&path)?;
    if done.config_hash == config.hash_of(stage) {
        return Ok(true);
    }
    let reason = "the stage was made by another configuration; choose another folder, or remove that of the stage";
    Err(Error::BadFile { path, reason: reason.into() })
}

/// The tokenizer of a run, learned on the first call.
fn tokenizer(config: &RunConfig, out: &Path) -> Result<Tokenizer> {
    let (folder, hash) = (out.join("tokenizer"), config.tokenizer_hash());
    if std::fs::read_to_string(folder.join("config_hash")).is_ok_and(|have| have == hash) {
        return Ok(Tokenizer::load(&folder)?);
    }
    let TokenizerConfig { vocab_size, documents } = config.tokenizer;
    let texts: Vec<String> = tokenizer_texts(config.seed, &config.tasks, documents).collect();
    let tokenizer = Tokenizer::train(texts.iter(), &TrainOptions { vocab_size, added_tokens: Vec::new() })?;
    atomic::replace_folder(&folder, |inside| -> Result<()> {
        tokenizer.save(inside)?;
        Ok(atomic::write_new(&inside.join("config_hash"), hash.as_bytes())?)
    })?;
    Ok(tokenizer)
}

/// The loop of a stage, where it begins.
fn prepare<'a>(config: &'a RunConfig, stage: &'a StageConfig, context: Context<'a>) -> Result<StageLoop<'a>> {
    let settings = stage.settings();
    let model = config.model_of(stage);
    let work = settings.start(context, model)?;
    let weights = match settings.from() {
        Some(from) => minke_weights::load_dense(context.device, &context.stages.join(from).join("model"))?,
        None => Transformer::random(context.device, model, &Placement::single(), config.seed)?,
    };
    let weights = weights.with_precision(context.device, config.precision);
    let trainer = settings.trainer(context.device, weights);
    let folder = context.stages.join(settings.name());
    let (hash, every) = (config.hash_of(stage), settings.checkpoint_every());
    Ok(StageLoop::new(settings.name(), folder, hash, every, work, trainer))
}

/// Publishes what a stage made, and leaves the file that says it is finished.
fn finish(config: &RunConfig, stage: &StageConfig, context: Context<'_>, done: &StageLoop<'_>) -> Result<()> {
    let folder = context.stages.join(stage.name());
    if stage.trains() {
        publish::publish(config, stage, &done.trainer().model, context.tokenizer, &folder)?;
    }
    let done = Done { config_hash: config.hash_of(stage), steps: done.total_steps() };
    files::replace_json(&folder.join("done.json"), &done)
}
