//! The loop of a stage: steps, logs, checkpoints, and the way back where values are not finite.

use std::path::PathBuf;
use std::time::Instant;

use crate::checkpoint::{self, State};
use crate::metric;
use crate::observer::{Observer, StepView};
use crate::record::{Logs, Metrics};
use crate::stage::{Stage, StepRecord};
use crate::trainer::Trainer;
use crate::{Error, Result, files};

/// Steps in a row without a finite update after which a stage goes back to its last checkpoint.
const SKIPPED_AT_MOST: u32 = 3;
/// Rollbacks without a checkpoint between them after which a stage is given up.
const ROLLBACKS_AT_MOST: u32 = 3;

/// A stage at work in its folder. It stands where its newest checkpoint does.
pub(crate) struct StageLoop<'a> {
    name: &'a str,
    folder: PathBuf,
    config_hash: String,
    checkpoint_every: u64,
    stage: Box<dyn Stage + 'a>,
    trainer: Trainer,
}

impl<'a> StageLoop<'a> {
    pub(crate) fn new(
        name: &'a str,
        folder: PathBuf,
        config_hash: String,
        checkpoint_every: u64,
        stage: Box<dyn Stage + 'a>,
        trainer: Trainer,
    ) -> Self {
        Self { name, folder, config_hash, checkpoint_every, stage, trainer }
    }

    /// The model as it is now.
    pub(crate) fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    pub(crate) fn total_steps(&self) -> u64 {
        self.stage.total_steps()
    }

    /// Does all steps that are not done yet.
    ///
    /// # Errors
    /// If a step fails, a file cannot be written, the observer breaks, or the stage diverges.
    pub(crate) fn run(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let total = self.stage.total_steps();
        let mut state = self.begin(observer)?;
        let mut logs = match self.trainer.ranks.is_first() {
            true => Logs::open(&self.folder, state.log_bytes)?,
            false => Logs::elsewhere(),
        };
        observer.stage_started(self.name, state.step, total);
        let mut rollbacks = 0;
        while state.step < total {
            let began = Instant::now();
            let record = self.stage.step(&mut self.trainer, state.progress(), &mut logs)?;
            let (metrics, timings) = lines(state.step, &record, began.elapsed().as_secs_f64());
            logs.metrics.append(&metrics)?;
            logs.timings.append(&timings)?;
            state.step += 1;
            state.cursor += 1;
            state.skipped_in_a_row = if record.skipped { state.skipped_in_a_row + 1 } else { 0 };
            let save = state.step.is_multiple_of(self.checkpoint_every) || state.step == total;
            if state.skipped_in_a_row >= SKIPPED_AT_MOST || (save && !self.trainer.is_finite()?) {
                rollbacks += 1;
                state = self.roll_back(&state, rollbacks, &mut logs, observer)?;
                continue;
            }
            if save {
                state.log_bytes = logs.sync()?;
                state.updates = self.trainer.optimizer.updates();
                checkpoint::save(&self.checkpoints(), &self.trainer, &state)?;
                rollbacks = 0;
            }
            if let Some(advice) = &record.advice {
                observer.message(&format!("stage {}, step {}: {advice}", self.name, state.step));
            }
            let view = StepView { stage: self.name, step: state.step, total, metrics: &metrics, timings: &timings };
            let stops = observer.step(&view).is_break();
            if self.trainer.ranks.any(stops)? && state.step < total {
                return Err(Error::Interrupted { stage: self.name.to_owned(), step: state.step });
            }
        }
        Ok(())
    }

    /// Loads the newest checkpoint; without any, the start becomes one, so that there is always one to go back to.
    fn begin(&mut self, observer: &mut dyn Observer) -> Result<State> {
        files::make_folder(&self.folder)?;
        if let Some(state) = self.resume(observer)? {
            return Ok(state);
        }
        let state = State::start(self.name, self.config_hash.clone());
        checkpoint::save(&self.checkpoints(), &self.trainer, &state)?;
        Ok(state)
    }

    /// Goes back to the last checkpoint, and on from there with the data behind that which gave values that are not
    /// finite. Nothing needs to be saved: a run that is killed before its next checkpoint repeats the same rollback.
    fn roll_back(
        &mut self,
        failed: &State,
        rollbacks: u32,
        logs: &mut Logs,
        observer: &mut dyn Observer,
    ) -> Result<State> {
        let stage = self.name.to_owned();
        if rollbacks > ROLLBACKS_AT_MOST {
            return Err(Error::Diverged { stage, step: failed.step, rollbacks: ROLLBACKS_AT_MOST });
        }
        let Some(back) = self.resume(observer)? else {
            return Err(Error::Diverged { stage, step: failed.step, rollbacks: 0 });
        };
        let mut line = numbered(failed.step);
        line.set(metric::ROLLBACK_TO, back.step).set(metric::SKIPPED_DATA, vec![back.cursor, failed.cursor]);
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

    fn resume(&mut self, observer: &mut dyn Observer) -> Result<Option<State>> {
        checkpoint::resume(&self.checkpoints(), &mut self.trainer, &self.config_hash, |text| observer.message(text))
    }
}

/// The lines of a step in `metrics.jsonl` and `timings.jsonl`.
fn lines(step: u64, record: &StepRecord, seconds: f64) -> (Metrics, Metrics) {
    let mut timings = numbered(step);
    timings.set(metric::STEP_TIME, seconds).set(metric::TOKENS_PER_SECOND, record.tokens as f64 / seconds.max(1e-9));
    (numbered(step).followed_by(&record.metrics), timings.followed_by(&record.timings))
}

/// The beginning of a line about a step.
fn numbered(step: u64) -> Metrics {
    let mut metrics = Metrics::new();
    metrics.set(metric::STEP, step);
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Progress;
    use crate::supervised::SupervisedConfig;
    use crate::testing::{RATES, documents, trainer, update, weights};

    /// Learns from the same documents in every step, but is broken by some data.
    struct Fragile {
        broken: std::ops::Range<u64>,
        seen: Vec<(u64, u64)>,
        poisons: bool,
    }

    impl Stage for &mut Fragile {
        fn total_steps(&self) -> u64 {
            10
        }

        fn step(&mut self, trainer: &mut Trainer, at: Progress, _logs: &mut Logs) -> Result<StepRecord> {
            self.seen.push((at.step, at.cursor));
            let broken = self.broken.contains(&at.cursor);
            if broken && self.poisons {
                let device = trainer.device.clone();
                trainer.model.params_mut()[0].update(&device, |values| values[0] = f32::INFINITY);
            }
            if broken {
                return Ok(StepRecord { skipped: !self.poisons, ..StepRecord::default() });
            }
            update(&SupervisedConfig::default(), trainer, &documents(), RATES)
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
        let mut listens = Listens(Vec::new());
        let mut looped =
            StageLoop::new("fragile", folder.path().into(), "hash".into(), 4, Box::new(stage), trainer(true));
        let result = looped.run(&mut listens);
        let metrics = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        let mut kept: Vec<String> = std::fs::read_dir(looped.checkpoints())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        kept.sort();
        if result.is_ok() {
            assert_eq!(kept, ["step-00000008", "step-00000010"]);
        }
        (result, looped.trainer, listens.0, metrics)
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
        assert!(messages.len() == 1 && trainer.is_finite().unwrap());
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
