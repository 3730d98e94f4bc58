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
//! OUT/stages/NAME/policy/        of a stage with workers: the policy, as it is published for them
//! OUT/stages/NAME/answers.jsonl  of a stage whose questions an endpoint answers: every answer as it came
//! OUT/stages/NAME/done.json      the stage is finished
//! ```
//!
//! Several ranks may share a run. All of them read the folder, so it lies where all see it; the first alone writes there.

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
use crate::ranks::Ranks;
use crate::stage::{Context, Outside};
use crate::stage_loop::StageLoop;
use crate::start::Start;
use crate::{Error, Result, checkpoint, files, publish};

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
/// or the run diverges. If the ranks do not see the same folder and configuration, another rank has ended, or they come to a stage that
/// one rank must do alone.
pub fn execute_with(
    config: &RunConfig,
    bases: &Bases,
    out: &Path,
    device: &Device,
    commit: Option<&str>,
    observer: &mut dyn Observer,
) -> Result<()> {
    let hashes: Vec<String> = config.stages.iter().map(|stage| hash_of(config, stage, bases)).collect::<Result<_>>()?;
    let ranks = bases.ranks();
    if ranks.count() > 1 && config.reads_stdin() {
        let reason =
            "the run learns from standard input, which only one of several ranks has; name a file in its place";
        return Err(Error::Config(reason.into()));
    }
    files::make_folder(out)?;
    let _lock = ranks.is_first().then(|| lock(out)).transpose()?;
    // Before anything is written: what is there must be of this run.
    let stdin = bases.stdin().filter(|_| config.reads_stdin()).map(|text| files::sha256(text.as_bytes()));
    same_precision(config, out)?;
    same_stdin(stdin.as_deref(), out)?;
    for (stage, hash) in config.stages.iter().zip(&hashes) {
        is_done(stage, hash, out)?;
    }
    let mut machine = serde_json::json!({
        "arch": std::env::consts::ARCH, "os": std::env::consts::OS, "isa": device.name(), "threads": device.threads(),
    });
    if ranks.count() > 1 {
        machine["ranks"] = ranks.count().into();
    }
    let mut record = serde_json::json!({
        "name": config.name, "seed": config.seed, "version": env!("CARGO_PKG_VERSION"), "commit": commit,
        "machine": machine, "config": config,
    });
    if let Some(sum) = stdin {
        record["stdin_sha256"] = sum.into();
    }
    ranks.agree(&hashes.concat(), "has another configuration, other files or other models than rank 0")?;
    let path = out.join("run.json");
    ranks.first(|| files::replace_json(&path, &record))?;
    let seen = std::fs::read_to_string(&path).unwrap_or_default();
    let other = "sees another folder than rank 0: it must be on a file system that all ranks share";
    ranks.agree(&seen, &format!("{other} ({})", out.display()))?;
    let own = config.tokenizer.map(|settings| {
        ranks.first(|| tokenizer(config, settings, out).map(|_| ()))?;
        tokenizer(config, settings, out)
    });
    let own = own.transpose()?;
    let stages = out.join("stages");
    for (stage, hash) in config.stages.iter().zip(&hashes) {
        if !is_done(stage, hash, out)? {
            let name = stage.name();
            if let Some((settings, teacher)) = stage.asked() {
                let folder = stages.join(name);
                ranks.first(|| {
                    let steps = Asking::new(config, settings, teacher, bases, &folder)?.run(observer)?;
                    leave_done(&folder, hash, steps)
                })?;
                observer.stage_finished(name);
                continue;
            }
            if ranks.count() > 1 && !stage.settings().is_shared() {
                return Err(Error::Config(format!(
                    "stage {name}: a stage of kind {} is not shared by ranks; what is before it is done: start the same command once, \
                     without mpirun or srun, and it goes on here",
                    stage.kind()
                )));
            }
            let published = config.published_of(stage).map(|name| bases.get(name)).transpose()?;
            let tokenizer = match (&own, published) {
                (_, Some(base)) => &base.tokenizer,
                (Some(own), None) => own,
                (None, None) => unreachable!("invariant: a run has a tokenizer or starts from a published model"),
            };
            let tasks = &config.tasks;
            let (seed, stages) = (config.seed, &*stages);
            let outside = Outside { bases: Some(bases), config_hash: hash, adapter: None };
            let context = Context { device, seed, stage: name, tasks, tokenizer, published, stages, outside };
            let start = Start::of(config, stage, context)?;
            let adapter = stage.settings().lora().zip(start.name());
            let context = Context { outside: Outside { adapter, ..outside }, ..context };
            let mut stage_loop = prepare(config, stage, context, &start, hash, ranks)?;
            observer.message(&start.summary(name, &stage_loop.trainer().model));
            stage_loop.run(observer)?;
            finish(config, stage, context, hash, &stage_loop)?;
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
    ranks: &Ranks,
) -> Result<StageLoop<'a>> {
    let settings = stage.settings();
    let mut weights = start.weights(config, stage, context.device)?;
    if ranks.have_parts() {
        let refuse = |reason: &str| Err(Error::Config(format!("stage {}: {reason}", stage.name())));
        if settings.lora().is_some() {
            return refuse(
                "lora trains beside whole weights, which are shared out; leave out --expert-parallel and --pipeline-parallel",
            );
        }
        if weights.config().num_hidden_layers < ranks.pipeline().ranks() {
            return refuse("the model has fewer layers than stages are to share them; leave out --pipeline-parallel");
        }
        let experts = ranks.experts().ranks();
        if experts > 1 && weights.config().moe.as_ref().is_none_or(|moe| moe.n_routed_experts < experts) {
            return refuse("the model has fewer experts than ranks are to share them; leave out --expert-parallel");
        }
        weights = weights.part(context.device, &ranks.placement()).with_precision(context.device, config.precision);
    }
    let work = settings.start(context, weights.config())?;
    let trainer = settings.trainer(context.device, weights, ranks);
    let folder = context.stages.join(settings.name());
    Ok(StageLoop::new(settings.name(), folder, hash.to_owned(), settings.checkpoint_every(), work, trainer))
}

/// Publishes what a stage made, and leaves the file that says it is finished.
fn finish(
    config: &RunConfig,
    stage: &StageConfig,
    context: Context<'_>,
    hash: &str,
    done: &StageLoop<'_>,
) -> Result<()> {
    let folder = context.stages.join(stage.name());
    let model = checkpoint::whole_model(done.trainer())?;
    done.trainer().ranks.first(|| {
        if let Some(model) = model.filter(|_| stage.trains()) {
            publish::publish(config, stage, context, &model, &folder)?;
        }
        leave_done(&folder, hash, done.total_steps())
    })
}

/// Leaves the file that says a stage is finished.
fn leave_done(folder: &Path, hash: &str, steps: u64) -> Result<()> {
    files::replace_json(&folder.join("done.json"), &Done { config_hash: hash.to_owned(), steps })
}
