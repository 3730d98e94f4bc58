//! Trains a tiny model on two-number Countdown, pre-training and then GRPO, and prints what each stage came to:
//! `cargo run --release --package minke --example train_tiny -- FOLDER`. Stopped and started again, it goes on.

use std::ops::ControlFlow;
use std::path::PathBuf;

use minke::train::{Observer, StepView, execute};
use minke::{Device, RunConfig};

const RUN: &str = include_str!("../../../runs/tiny.toml");

struct Progress;

impl Observer for Progress {
    fn step(&mut self, view: &StepView<'_>) -> ControlFlow<()> {
        if view.step.is_multiple_of(20) {
            println!("{} {}/{}", view.stage, view.step, view.total);
        }
        ControlFlow::Continue(())
    }

    fn stage_finished(&mut self, stage: &str) {
        println!("{stage} is finished");
    }
}

fn main() -> minke::Result<()> {
    let folder: PathBuf = std::env::args().nth(1).unwrap_or_else(|| "out/tiny".into()).into();
    let device = Device::open("cpu", 2)?;
    execute(&RunConfig::from_toml(RUN)?, &folder, &device, None, &mut Progress)?;
    println!("the model: {}", folder.join("stages/zero/model").display());
    Ok(())
}
