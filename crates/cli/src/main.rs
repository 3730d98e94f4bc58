//! The program `minke`. A command becomes one call, its result text or JSON on stdout, everything else goes to stderr, and what
//! went wrong is one line and an exit code.

mod args;
mod ask;
mod cmd;
mod environment;
mod error;
mod files;
mod interrupt;
mod live;
mod locate;
mod measured;
mod metadata;
mod printer;
mod progress;
mod published;
mod ranks;
mod repl;
mod runs;
mod verdict;

use std::process::ExitCode;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        // A panic in another thread is handled by the code that started it.
        if matches!(std::thread::current().name(), Some("main" | minke_chat::ENGINE_THREAD)) {
            let text = panic.payload_as_str().unwrap_or("no reason given").replace('\n', " ");
            let place = panic.location().map_or(String::new(), |at| format!(" ({}:{})", at.file(), at.line()));
            eprintln!(
                "minke: an error of Minke itself: {text}{place}; please report it with the command that led here"
            );
        }
    }));
    match std::panic::catch_unwind(|| args::parse().and_then(cmd::dispatch)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => error::report(&error),
        Err(_) => error::Exit::Failed.into(),
    }
}
