//! Errors in one line, and their exit codes for scripts. Decided here and nowhere else, from the error that reached
//! `main`.

use std::fmt::Display;
use std::process::ExitCode;

/// The exit codes; 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was tried and did not work.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// This machine is too small.
    DoesNotFit = 3,
    /// A file that was to be read is missing, broken, or of a kind that is not supported.
    BadFile = 4,
    /// A server cannot be reached, refuses, or sends something else.
    Network = 5,
    /// Ctrl-C.
    Interrupted = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Something that the command line itself refuses: one line that says what, why and what to do.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Exit {
    /// An error with this exit code.
    pub fn because(self, message: impl Into<String>) -> anyhow::Error {
        Failure { exit: self, message: message.into() }.into()
    }
}

/// Prints what went wrong and returns the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(is_broken_pipe) {
        // The reader, such as `head`, has seen enough.
        return ExitCode::SUCCESS;
    }
    eprintln!("minke: {}", line(error));
    exit_code(error).into()
}

/// An error and its causes on one line. A cause that the line already quotes is not said twice.
pub fn line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            let separator = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{separator}{cause}");
        }
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ")
}

fn is_broken_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The exit code of an error.
pub fn exit_code(error: &anyhow::Error) -> Exit {
    error.chain().find_map(of_cause).unwrap_or(Exit::Failed)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(failure.exit);
    }
    let train = cause.downcast_ref().map(of_train);
    let chat = || cause.downcast_ref().map(of_chat);
    let eval = || cause.downcast_ref().map(of_eval);
    let engine = || cause.downcast_ref().map(of_engine);
    let weights = || cause.downcast_ref().map(of_weights);
    let text = || cause.downcast_ref().map(of_text);
    let spec = || cause.downcast_ref::<minke_spec::Error>().map(|_| Exit::BadFile);
    let hub = || cause.downcast_ref().map(of_hub);
    let server = || cause.downcast_ref::<minke_server::Error>().map(|_| Exit::Failed);
    let plan = || cause.downcast_ref().map(of_plan);
    train
        .or_else(chat)
        .or_else(server)
        .or_else(hub)
        .or_else(eval)
        .or_else(engine)
        .or_else(weights)
        .or_else(text)
        .or_else(spec)
        .or_else(plan)
}

fn of_plan(error: &minke_plan::Error) -> Exit {
    use minke_plan::Error;
    match error {
        Error::Hardware { .. } => Exit::BadFile,
        Error::Impossible(_) => Exit::DoesNotFit,
        Error::Picture(_) => Exit::Failed,
        _ => Exit::Usage,
    }
}

fn of_train(error: &minke_train::Error) -> Exit {
    use minke_train::Error;
    match error {
        Error::Config(_) | Error::BadFile { .. } | Error::Read { .. } => Exit::BadFile,
        Error::Interrupted { .. } => Exit::Interrupted,
        Error::Endpoint { .. } => Exit::Network,
        Error::Weights(error) => of_weights(error),
        Error::Text(error) => of_text(error),
        Error::Eval(error) => of_eval(error),
        Error::Engine(error) => of_engine(error),
        Error::Io { .. } | Error::InUse(_) | Error::Diverged { .. } | Error::Model(_) | Error::Tensor(_) => {
            Exit::Failed
        }
    }
}

fn of_hub(error: &minke_hub::Error) -> Exit {
    use minke_hub::Error;
    match error {
        Error::Name { .. } => Exit::Usage,
        Error::Refused { .. } | Error::Network { .. } | Error::Corrupt { .. } => Exit::Network,
        Error::Io { .. } => Exit::Failed,
    }
}

fn of_chat(error: &minke_chat::Error) -> Exit {
    use minke_chat::Error;
    match error {
        Error::BadFile { .. } | Error::NotDownloaded { .. } => Exit::BadFile,
        Error::Name(error) => of_hub(error),
        Error::DoesNotFit { .. } => Exit::DoesNotFit,
        Error::Text(error) => of_text(error),
        Error::Weights(error) => of_weights(error),
        Error::Engine(error) => of_engine(error),
        Error::Step(error) => of_engine(error),
        _ => Exit::Failed,
    }
}

fn of_eval(error: &minke_eval::Error) -> Exit {
    use minke_eval::Error;
    match error {
        Error::Engine(error) => of_engine(error),
        Error::Text(error) => of_text(error),
        Error::Read { .. } | Error::BadFile { .. } | Error::Compare { .. } => Exit::BadFile,
        _ => Exit::Failed,
    }
}

fn of_engine(error: &minke_engine::Error) -> Exit {
    use minke_engine::Error;
    match error {
        Error::Setting { .. } => Exit::Usage,
        _ => Exit::Failed,
    }
}

fn of_weights(error: &minke_weights::Error) -> Exit {
    use minke_weights::Error;
    match error {
        Error::BadFile { .. } | Error::BadTensor { .. } | Error::Config(_) => Exit::BadFile,
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Exit::BadFile,
        Error::Interrupted => Exit::Interrupted,
        Error::Io { .. } | Error::Model(_) | Error::Tensor(_) => Exit::Failed,
    }
}

fn of_text(error: &minke_text::Error) -> Exit {
    use minke_text::Error;
    match error {
        // A tokenizer is only trained with the settings of a run.
        Error::Config { .. } | Error::Training { .. } | Error::Tokenizer { .. } | Error::Template { .. } => {
            Exit::BadFile
        }
        Error::Tools(_) => Exit::Usage,
        Error::Read { .. } => Exit::BadFile,
        Error::Write { .. } => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_line_has_every_cause_once() {
        let io = std::io::Error::new(std::io::ErrorKind::NotFound, "not\nthere");
        let text = minke_text::Error::Read { path: "t.json".into(), source: io };
        let error = Err::<(), _>(text).context("while loading").unwrap_err();
        assert_eq!(line(&error), "while loading: cannot read t.json: not there");
        assert_eq!(exit_code(&error), Exit::BadFile);
    }

    #[test]
    fn wrapped_errors_keep_their_code() {
        let inner = minke_weights::Error::BadFile { path: "a.gguf".into(), reason: "broken".into() };
        let error = anyhow::Error::from(minke_train::Error::from(inner));
        assert_eq!(exit_code(&error), Exit::BadFile);
        assert_eq!(exit_code(&anyhow::anyhow!("something")), Exit::Failed);
    }
}
