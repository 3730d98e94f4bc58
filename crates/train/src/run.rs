//! How is a run done, and gone on with after it was killed? Stage by stage; every stage from its newest checkpoint.
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
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use minke_model::Transformer;
use minke_spec::Placement;
use minke_sys::atomic;
use minke_tensor::Device;
use minke_text::{Tokenizer, TrainOptions};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, State};
use crate::config::{RunConfig, StageConfig, TokenizerConfig};
use crate::data::tokenizer_texts;
use crate::distill::student;
use crate::grpo::Grpo;
use crate::pretrain::Pretraining;
use crate::record::{Logs, Metrics};
use crate::reject::Reject;
use crate::sft::FineTuning;
use crate::stage::{Context, Stage};
use crate::trainer::Trainer;
use crate::training::Training;
use crate::{Error, Result, files, publish};

/// Steps in a row without a finite update after which a stage goes back to its last checkpoint.
const SKIPPED_AT_MOST: u32 = 3;
/// Rollbacks without a checkpoint between them after which a stage is given up.
const ROLLBACKS_AT_MOST: u32 = 3;

/// Somebody who watches a run.
pub trait Observer {
    /// A stage begins, or goes on after so many steps that were done before.
    fn stage_started(&mut self, _stage: &str, _done: u64, _total: u64) {}

    /// A step is done. To break ends the run; the same call goes on from the last checkpoint.
    fn step(&mut self, _view: &StepView<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// A stage is finished, now or in an earlier call.
    fn stage_finished(&mut self, _stage: &str) {}

    /// Something happened that somebody should know.
    fn message(&mut self, _text: &str) {}
}

/// An observer who looks away.
pub struct Silent;

impl Observer for Silent {}

/// A step that was done.
#[derive(Clone, Copy, Debug)]
pub struct StepView<'a> {
    /// The stage.
    pub stage: &'a str,
    /// Steps done, this one included.
    pub step: u64,
    /// Steps of the stage.
    pub total: u64,
    /// What was written to `metrics.jsonl`.
    pub metrics: &'a Metrics,
    /// What was written to `timings.jsonl`.
    pub timings: &'a Metrics,
}

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
    for stage in &config.stages {
        // Before anything is written: what is there must be of this run.
        is_done(config, stage, out)?;
    }
    let Device::Cpu(cpu) = device;
    let machine = serde_json::json!({
        "arch": std::env::consts::ARCH, "os": std::env::consts::OS, "isa": cpu.isa().name(), "threads": cpu.threads(),
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
            execute_stage(config, stage, context, observer)?;
        }
        observer.stage_finished(stage.name());
    }
    Ok(())
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

/// Returns whether a stage is finished.
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

/// Returns the tokenizer of a run, learned on the first call.
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

fn execute_stage(
    config: &RunConfig,
    stage: &StageConfig,
    context: Context<'_>,
    observer: &mut dyn Observer,
) -> Result<()> {
    let model = config.model_of(stage);
    let positions = model.max_position_embeddings;
    let mut work: Box<dyn Stage + '_> = match stage {
        StageConfig::Pretrain(settings) => Box::new(Pretraining::new(context, settings, positions)?),
        StageConfig::Sft(settings) => Box::new(FineTuning::new(context, settings, positions)?),
        StageConfig::Distill(settings) => Box::new(student(context, settings, positions)?),
        StageConfig::Grpo(settings) => Box::new(Grpo::new(context, settings, model)?),
        StageConfig::Reject(settings) => Box::new(Reject::new(context, settings, model)?),
    };
    let mut trainer = begin(config, stage, context)?;
    let place = Place {
        folder: context.stages.join(stage.name()),
        name: stage.name(),
        config_hash: config.hash_of(stage),
        checkpoint_every: stage.checkpoint_every(),
    };
    files::make_folder(&place.folder)?;
    place.drive(work.as_mut(), &mut trainer, observer)?;
    if stage.trains() {
        publish::publish(config, stage, &trainer.model, context.tokenizer, &place.folder)?;
    }
    let done = Done { config_hash: place.config_hash, steps: work.total_steps() };
    files::replace_json(&place.folder.join("done.json"), &done)
}

/// Returns the trainer with which a stage starts.
fn begin(config: &RunConfig, stage: &StageConfig, context: Context<'_>) -> Result<Trainer> {
    let device = context.device;
    let model = match stage.from() {
        Some(from) => minke_weights::load_dense(device, &context.stages.join(from).join("model"))?,
        None => Transformer::random(device, config.model_of(stage), &Placement::single(), config.seed)?,
    };
    let with = |rates, training: &Training, model| {
        Trainer::new(device, model, rates, training.optimizer, training.mtp_weight != 0.0)
    };
    Ok(match stage {
        StageConfig::Pretrain(settings) => with(settings.learning_rate, &settings.training, model),
        StageConfig::Sft(settings) => with(settings.learning_rate, &settings.training, model),
        StageConfig::Distill(settings) => with(settings.learning_rate, &settings.training, model),
        StageConfig::Grpo(settings) => Trainer::new(device, model, settings.learning_rate, settings.optimizer, false),
        StageConfig::Reject(_) => Trainer::frozen(device, model),
    })
}

/// Where a stage works.
struct Place<'a> {
    folder: PathBuf,
    name: &'a str,
    config_hash: String,
    checkpoint_every: u64,
}

impl Place<'_> {
    /// Does all steps of a stage that are not done yet.
    fn drive(&self, stage: &mut dyn Stage, trainer: &mut Trainer, observer: &mut dyn Observer) -> Result<()> {
        let total = stage.total_steps();
        let mut state = match self.resume(trainer, observer)? {
            Some(state) => state,
            None => {
                let state = State::start(self.name, self.config_hash.clone());
                // There is always something to go back to.
                checkpoint::save(&self.checkpoints(), trainer, &state)?;
                state
            }
        };
        let mut logs = Logs::open(&self.folder, state.log_bytes)?;
        observer.stage_started(self.name, state.step, total);
        let mut rollbacks = 0;
        while state.step < total {
            let began = Instant::now();
            let record = stage.step(trainer, state.at(), &mut logs)?;
            let seconds = began.elapsed().as_secs_f64();
            let metrics = numbered(state.step).followed_by(&record.metrics);
            let mut timings = numbered(state.step);
            timings.set("step_time", seconds).set("tokens_per_second", record.tokens as f64 / seconds.max(1e-9));
            let timings = timings.followed_by(&record.timings);
            logs.metrics.append(&metrics)?;
            logs.timings.append(&timings)?;
            state.step += 1;
            state.cursor += 1;
            state.skipped_in_a_row = if record.skipped { state.skipped_in_a_row + 1 } else { 0 };
            let save = state.step.is_multiple_of(self.checkpoint_every) || state.step == total;
            if state.skipped_in_a_row >= SKIPPED_AT_MOST || (save && !trainer.is_finite()) {
                rollbacks += 1;
                state = self.roll_back(&state, rollbacks, trainer, &mut logs, observer)?;
                continue;
            }
            if save {
                state.log_bytes = logs.sync()?;
                state.updates = trainer.optimizer.updates();
                checkpoint::save(&self.checkpoints(), trainer, &state)?;
                rollbacks = 0;
            }
            let view = StepView { stage: self.name, step: state.step, total, metrics: &metrics, timings: &timings };
            if observer.step(&view).is_break() && state.step < total {
                return Err(Error::Interrupted { stage: self.name.to_owned(), step: state.step });
            }
        }
        Ok(())
    }

    /// Goes back to the last checkpoint, and on from there with the data behind that which did no good. Whoever is killed
    /// before the next checkpoint comes to the same point again: nothing needs to be saved.
    fn roll_back(
        &self,
        failed: &State,
        rollbacks: u32,
        trainer: &mut Trainer,
        logs: &mut Logs,
        observer: &mut dyn Observer,
    ) -> Result<State> {
        let stage = self.name.to_owned();
        if rollbacks > ROLLBACKS_AT_MOST {
            return Err(Error::Diverged { stage, step: failed.step, rollbacks: ROLLBACKS_AT_MOST });
        }
        let Some(back) = self.resume(trainer, observer)? else {
            return Err(Error::Diverged { stage, step: failed.step, rollbacks: 0 });
        };
        let mut line = numbered(failed.step);
        line.set("rollback_to", back.step).set("skipped_data", vec![back.cursor, failed.cursor]);
        logs.metrics.append(&line)?;
        observer.message(&format!(
            "stage {stage}: values were not finite at step {}; back to step {}, past the data in between",
            failed.step, back.step
        ));
        Ok(State { cursor: failed.cursor, skipped_in_a_row: 0, ..back })
    }

    fn checkpoints(&self) -> PathBuf {
        self.folder.join("checkpoints")
    }

    fn resume(&self, trainer: &mut Trainer, observer: &mut dyn Observer) -> Result<Option<State>> {
        checkpoint::resume(&self.checkpoints(), trainer, &self.config_hash, |text| observer.message(text))
    }
}

/// Returns the beginning of a line about a step.
fn numbered(step: u64) -> Metrics {
    let mut metrics = Metrics::new();
    metrics.set("step", step);
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::{At, StepRecord};
    use crate::testing::{RATES, documents, trainer, weights};

    /// Learns from the same documents in every step, but is broken by some data.
    struct Fragile {
        broken: std::ops::Range<u64>,
        seen: Vec<(u64, u64)>,
        poisons: bool,
    }

    impl Stage for Fragile {
        fn total_steps(&self) -> u64 {
            10
        }

        fn step(&mut self, trainer: &mut Trainer, at: At, _logs: &mut Logs) -> Result<StepRecord> {
            self.seen.push((at.step, at.cursor));
            let broken = self.broken.contains(&at.cursor);
            if broken && self.poisons {
                let device = trainer.device.clone();
                trainer.model.params_mut()[0].update(&device, |values| values[0] = f32::INFINITY);
            }
            if broken {
                return Ok(StepRecord { skipped: !self.poisons, ..StepRecord::default() });
            }
            Training::default().step(trainer, &documents(), RATES)
        }
    }

    struct Listens(Vec<String>);

    impl Observer for Listens {
        fn message(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }

    fn drive(stage: &mut Fragile) -> (Result<()>, Trainer, Vec<String>, String) {
        let folder = tempfile::tempdir().unwrap();
        let place = Place {
            folder: folder.path().to_path_buf(),
            name: "fragile",
            config_hash: "hash".into(),
            checkpoint_every: 4,
        };
        let (mut trainer, mut listens) = (trainer(true), Listens(Vec::new()));
        let result = place.drive(stage, &mut trainer, &mut listens);
        let metrics = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        let mut kept: Vec<String> = std::fs::read_dir(place.checkpoints())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        kept.sort();
        if result.is_ok() {
            assert_eq!(kept, ["step-00000008", "step-00000010"]);
        }
        (result, trainer, listens.0, metrics)
    }

    fn undisturbed() -> Vec<(String, Vec<f32>)> {
        let mut stage = Fragile { broken: 0..0, seen: Vec::new(), poisons: false };
        let (result, trainer, messages, _) = drive(&mut stage);
        result.unwrap();
        assert!(messages.is_empty());
        assert_eq!(stage.seen, (0..10).map(|step| (step, step)).collect::<Vec<_>>());
        weights(&trainer.model)
    }

    #[test]
    fn two_bad_steps_are_skipped_and_three_roll_back_past_their_data() {
        let mut stage = Fragile { broken: 5..7, seen: Vec::new(), poisons: false };
        let (result, _, messages, _) = drive(&mut stage);
        result.unwrap();
        assert!(messages.is_empty() && stage.seen.len() == 10);

        let mut stage = Fragile { broken: 5..8, seen: Vec::new(), poisons: false };
        let (result, trainer, messages, metrics) = drive(&mut stage);
        result.unwrap();
        // Steps 4 to 7 fail on data 5, 6, 7; back to the checkpoint of step 4, on with data 8.
        let rest = [(4, 8), (5, 9), (6, 10), (7, 11), (8, 12), (9, 13)];
        assert_eq!(stage.seen, [(0..8).map(|i| (i, i)).collect::<Vec<_>>(), rest.to_vec()].concat());
        assert!(messages.len() == 1 && messages[0].contains("back to step 4"), "{messages:?}");
        assert!(metrics.contains("{\"step\":8,\"rollback_to\":4,\"skipped_data\":[4,8]}\n"), "{metrics}");
        // The same documents in every step: ten good updates in the end, as without the disturbance.
        assert_eq!(weights(&trainer.model), undisturbed());
    }

    #[test]
    fn weights_that_are_not_finite_are_never_saved() {
        let mut stage = Fragile { broken: 5..6, seen: Vec::new(), poisons: true };
        let (result, trainer, messages, _) = drive(&mut stage);
        result.unwrap();
        assert!(messages.len() == 1 && trainer.is_finite());
        assert_eq!(weights(&trainer.model), undisturbed());
    }

    #[test]
    fn a_run_that_cannot_go_on_says_so() {
        let mut stage = Fragile { broken: 5..1000, seen: Vec::new(), poisons: false };
        let (result, _, messages, _) = drive(&mut stage);
        let message = result.unwrap_err().to_string();
        assert_eq!(message, "stage fragile: step 7 is not finite after 3 rollbacks; lower the learning rates");
        assert_eq!(messages.len(), 3);
    }
}
