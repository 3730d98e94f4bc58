//! The observer of a run: callbacks while it goes on, by which it can be stopped.

use std::ops::ControlFlow;

use crate::record::Metrics;

/// Callbacks of a run while it goes on.
pub trait Observer {
    /// A stage begins, or goes on after so many steps that were done before.
    fn stage_started(&mut self, _stage: &str, _done: u64, _total: u64) {}

    /// A step is done. To break ends the run; the same call goes on from the last checkpoint.
    fn step(&mut self, _view: &StepView<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// A stage waits for others, a few times a second. To break ends the run as in [`step`](Self::step).
    fn waiting(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// A stage is finished, now or in an earlier call.
    fn stage_finished(&mut self, _stage: &str) {}

    /// Something happened that a person should know.
    fn message(&mut self, _text: &str) {}
}

/// An observer that does nothing.
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
