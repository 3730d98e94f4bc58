//! Work for untrusted input, on a thread of its own: with a stack that suffices, and given up after a deadline.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum GivenUp {
    /// No thread could be started.
    NoThread(std::io::Error),
    /// The deadline passed.
    Deadline,
    /// The work panicked.
    Panicked,
}

/// What `run` gives, if it comes to an end before the deadline. Nothing can stop a thread: one that takes longer is left
/// behind, but the caller learns what is wrong.
///
/// # Errors
/// There is no result, and why.
pub(crate) fn bounded<T: Send + 'static>(
    stack_bytes: usize,
    deadline: Duration,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<T, GivenUp> {
    let (sender, receiver) = mpsc::channel();
    let work = move || {
        // The receiver is gone after the deadline; then the result is of no use.
        let _ = sender.send(run());
    };
    std::thread::Builder::new().stack_size(stack_bytes).spawn(work).map_err(GivenUp::NoThread)?;
    receiver.recv_timeout(deadline).map_err(|reason| match reason {
        RecvTimeoutError::Timeout => GivenUp::Deadline,
        RecvTimeoutError::Disconnected => GivenUp::Panicked,
    })
}
