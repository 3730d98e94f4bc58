//! Who computes while a person may press Ctrl-C? A thread of its own: the prompt is back at once, and a long step that was
//! under way ends behind it.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Result;
use minke_chat::SamplingOptions;
use minke_text::Message;

use crate::answer::{Answer, Progress};
use crate::assistant::Assistant;
use crate::interrupt::Interrupt;
use crate::printer::Printer;

/// How often Ctrl-C is looked for, and time is shown to go by.
const TICK: Duration = Duration::from_millis(20);
/// How long a step that is under way is waited for after Ctrl-C.
const GRACE: Duration = Duration::from_millis(50);

/// Name of the thread.
pub const THREAD: &str = "answer";

enum Said {
    Progress(Progress),
    End(Result<Answer>),
}

/// Prints the answer to a conversation and returns it; after Ctrl-C, what there was of it.
///
/// # Errors
/// As [`Assistant::answer`].
pub fn ask(
    assistant: &Assistant,
    conversation: Vec<Message>,
    sampling: &SamplingOptions,
    interrupt: &Interrupt,
    printer: &mut Printer,
) -> Result<Answer> {
    let begun = Instant::now();
    let (stop, (sender, receiver)) = (Interrupt::default(), mpsc::channel());
    let worker = {
        let (assistant, sampling, stop) = (assistant.clone(), sampling.clone(), stop.clone());
        std::thread::Builder::new().name(THREAD.into()).spawn(move || {
            // Nobody listens any more after Ctrl-C.
            let say = |said| {
                let _ = sender.send(said);
            };
            let mut hear = |progress| {
                say(Said::Progress(progress));
                Ok(())
            };
            say(Said::End(assistant.answer(&conversation, &sampling, &stop, &mut hear)));
        })?
    };
    let (mut heard, mut stopped) = (Answer::default(), None);
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(Said::Progress(progress)) => {
                heard.hear(&progress);
                printer.hear(&progress).inspect_err(|_| stop.raise())?;
            }
            Ok(Said::End(answer)) => return answer,
            Err(RecvTimeoutError::Timeout) => printer.tick(),
            Err(RecvTimeoutError::Disconnected) => {
                std::panic::resume_unwind(worker.join().expect_err("invariant: a thread that ends well says so"));
            }
        }
        if interrupt.take() {
            stop.raise();
            stopped.get_or_insert_with(Instant::now);
        }
        if stopped.is_some_and(|stopped: Instant| stopped.elapsed() > GRACE) {
            heard.seconds = begun.elapsed().as_secs_f64();
            return Ok(heard);
        }
    }
}
