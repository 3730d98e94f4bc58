//! Answers a question with a model of a folder or GGUF file, text as it comes:
//! `cargo run --release --package minke --example generate -- [MODEL] [QUESTION]`.

use std::io::Write;
use std::sync::Arc;

use minke::{ChatModel, Device, Message, Piece, RenderOptions, Reply, Request, Worker, WorkerConfig};

fn main() -> minke::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "models/first-light".into());
    let question = arguments.next().unwrap_or_else(|| "make 24 from 3 8 1".into());

    let model = Arc::new(ChatModel::open(path.as_ref(), &Device::open("cpu", 2)?)?);
    let worker = Worker::start(Arc::clone(&model), WorkerConfig::default())?;
    let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
    let prompt = model.prompt(&[Message::user(&question)], &options)?;
    let events = worker.submit(Request::new(prompt))?;
    let mut reply = Reply::default();
    loop {
        let event = events.recv()?;
        for piece in &event.pieces {
            if let Piece::Reasoning(text) | Piece::Content(text) = piece {
                print!("{text}");
                let _ = std::io::stdout().flush();
            }
        }
        reply.add(&event);
        if event.finish.is_some() {
            break;
        }
    }
    println!("\n\n{} tokens in {:.2} s", reply.usage.completion_tokens, reply.usage.seconds);
    Ok(())
}
