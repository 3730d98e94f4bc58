//! Grades a model on held-out Countdown problems and prints pass@1 with its interval:
//! `cargo run --release --package minke --example grade -- [MODEL] [PROBLEMS]`.

use minke::engine::Replicas;
use minke::eval::{EvalConfig, Evaluator, Split, Task};
use minke::{ChatModel, Device, EngineConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "models/first-light".into());
    let problems = arguments.next().map_or(Ok(20), |count| count.parse())?;

    let ChatModel { device, model, tokenizer, template, .. } =
        ChatModel::open(path.as_ref(), &Device::open("cpu", 2)?)?;
    let task: Task = serde_json::from_str(r#"{ "family": "countdown", "counts": [3] }"#)?;
    let config = EvalConfig { samples: 4, ..EvalConfig::default() };
    let engine = EngineConfig::default().with_pages(512).with_max_sequences(32);
    let mut engines = Replicas::new(&device, model.config(), &engine)?;
    let mut evaluator = Evaluator { engines: &mut engines, model: &model, tokenizer: &tokenizer, template: &template };
    let report =
        evaluator.evaluate("countdown", &task, &task.problem_set(Split::Test, 0, problems), &config, &mut |_, _| {})?;
    let score = &report.pass_at_1;
    println!("pass@1 {:.1} % ({:.1} to {:.1})", 100.0 * score.mean, 100.0 * score.low, 100.0 * score.high);
    Ok(())
}
