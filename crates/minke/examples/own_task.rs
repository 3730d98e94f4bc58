//! Asks questions of one's own and grades the answers with a function of one's own:
//! `cargo run --release --package minke --example own_task -- [MODEL]`.
//!
//! A task that runs train on too is a file in `crates/eval/src/tasks/` (CONTRIBUTING.md says how).

use std::sync::Arc;

use minke::eval::Interval;
use minke::{ChatModel, Device, Message, RenderOptions, Request, SamplingOptions, Worker, WorkerConfig};

/// The sum of two numbers, asked and checked.
struct Sum(u32, u32);

impl Sum {
    fn question(&self) -> String {
        format!("compute {} + {}", self.0, self.1)
    }

    fn is_right(&self, answer: &str) -> bool {
        answer.trim().parse() == Ok(self.0 + self.1)
    }
}

fn main() -> minke::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "models/first-light".into());
    let model = Arc::new(ChatModel::open(path.as_ref(), &Device::open("cpu", 2)?)?);
    let worker = Worker::start(Arc::clone(&model), WorkerConfig::default())?;
    let problems: Vec<Sum> = (0..8).map(|i| Sum(11 + 7 * i, 3 + 5 * i)).collect();
    let render = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
    // All of them are worked on at once; each has a channel of its own.
    let mut asked = Vec::new();
    for problem in &problems {
        let prompt = model.prompt(&[Message::user(problem.question())], &render)?;
        let options = SamplingOptions { temperature: Some(0.0), max_tokens: Some(64), ..SamplingOptions::default() };
        asked.push(worker.submit(Request::new(prompt).with_options(options))?);
    }
    let mut scores = Vec::new();
    for (problem, events) in problems.iter().zip(asked) {
        let reply = events.reply()?;
        let right = problem.is_right(&reply.content);
        println!("{} -> {:?} {}", problem.question(), reply.content.trim(), if right { "right" } else { "wrong" });
        scores.push(f64::from(right));
    }
    // Each problem is a cluster of its own.
    let clusters: Vec<u64> = (0..scores.len() as u64).collect();
    if let Some(score) = Interval::over_clusters(&scores, &clusters) {
        println!("pass@1 {:.2} ({:.2} to {:.2})", score.mean, score.low, score.high);
    }
    Ok(())
}
