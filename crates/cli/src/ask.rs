//! A request to the worker while a person may press Ctrl-C: the prompt is back at once, and a long step that was under way
//! ends behind it.

use std::time::{Duration, Instant};

use anyhow::Result;
use minke_chat::{FinishReason, Reply, Request, Worker};

use crate::printer::Printer;

/// How often Ctrl-C is looked for, and time is shown to go by.
const TICK: Duration = Duration::from_millis(20);
/// How long a step that is under way is waited for after Ctrl-C.
const GRACE: Duration = Duration::from_millis(50);

/// Prints the answer to a request, if there is a printer, and returns it; once `is_interrupted`, what there was of it.
///
/// # Errors
/// If the request fails, or stdout is closed.
pub fn ask(
    worker: &Worker,
    request: Request,
    is_interrupted: &dyn Fn() -> bool,
    mut printer: Option<&mut Printer>,
) -> Result<Reply> {
    let begun = Instant::now();
    let (mut reply, mut interrupted) = (Reply::default(), None);
    reply.usage.prompt_tokens = request.prompt.token_ids.len();
    let events = worker.submit(request)?;
    loop {
        match (events.recv_timeout(TICK)?, &mut printer) {
            (Some(event), printer) => {
                reply.add(&event);
                printer.iter_mut().try_for_each(|printer| printer.print(&event))?;
                if event.finish.is_some() {
                    return Ok(reply);
                }
            }
            (None, Some(printer)) => printer.tick(),
            (None, None) => {}
        }
        if is_interrupted() {
            events.cancel();
            interrupted.get_or_insert_with(Instant::now);
        }
        if interrupted.is_some_and(|since: Instant| since.elapsed() > GRACE) {
            reply.usage.seconds = begun.elapsed().as_secs_f64();
            return Ok(reply);
        }
    }
}

/// Why an answer ended, as scripts read it.
pub fn finish_reason(finish: &FinishReason) -> &'static str {
    match finish {
        FinishReason::Length => "length",
        FinishReason::Cancelled => "interrupted",
        FinishReason::NotFinite => "not_finite",
        FinishReason::NothingAllowed => "nothing_allowed",
        FinishReason::ConstraintPanicked => "constraint_panicked",
        _ => "stop",
    }
}
