//! A run small enough for a test: an MLA + MoE model of 0.1M parameters on two-number Countdown.
#![allow(clippy::unwrap_used, dead_code)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use minke_tensor::Device;
use minke_train::{Observer, RunConfig, StepView, execute};
use serde_json::Value;

/// Model, task, a base that has seen enough to be right now and then, and a stage of GRPO.
const TINY: &str = include_str!("../../../../runs/tiny.toml");

pub fn device() -> Device {
    Device::open("cpu", 2).unwrap()
}

/// Does a run: the base and the given stages. Returns its folder.
pub fn run(stages: &str) -> tempfile::TempDir {
    done(&config(stages))
}

/// Does a run and returns its folder.
pub fn done(config: &RunConfig) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    execute(config, folder.path(), &device(), None, &mut Watch { stop: None }).unwrap();
    folder
}

pub fn config(stages: &str) -> RunConfig {
    let (base, _) = TINY.split_once("[[stage]]\nkind = \"grpo\"").unwrap();
    RunConfig::from_toml(&format!("{base}{stages}")).unwrap()
}

/// The same in bf16.
pub fn config_in_bf16(stages: &str) -> RunConfig {
    let (base, _) = TINY.split_once("[[stage]]\nkind = \"grpo\"").unwrap();
    RunConfig::from_toml(&format!("precision = \"bf16\"\n{base}{stages}")).unwrap()
}

/// Stops a run after so many steps of a stage.
pub struct Watch {
    pub stop: Option<(&'static str, u64)>,
}

impl Observer for Watch {
    fn step(&mut self, view: &StepView<'_>) -> ControlFlow<()> {
        match self.stop {
            Some((stage, step)) if stage == view.stage && step == view.step => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

pub fn stage(run: &Path, name: &str) -> PathBuf {
    run.join("stages").join(name)
}

/// The lines of a log.
pub fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
