//! Ctrl-C: the first one stops what runs at its next clean point; the second ends the program at once. SIGTERM, by which schedulers
//! and containers end a program, is as good, but for a conversation, which Ctrl-C does not end.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use crate::error::Exit;

/// Whether the program was asked to stop.
#[derive(Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// A flag that Ctrl-C raises from now on.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn install() -> anyhow::Result<Self> {
        let raised = Arc::new(AtomicBool::new(false));
        let flag = raised.clone();
        let on_signal = move || {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(Exit::Interrupted as i32);
            }
        };
        ctrlc::set_handler(on_signal).context("cannot listen for Ctrl-C")?;
        Ok(Self(raised))
    }

    /// A flag that Ctrl-C and SIGTERM raise from now on.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn install_with_terminate() -> anyhow::Result<Self> {
        let interrupt = Self::install()?;
        minke_sys::terminate_as_interrupt().context("cannot listen for SIGTERM")?;
        Ok(interrupt)
    }

    /// Lets Ctrl-C and SIGTERM end the program at once, for work that leaves nothing half-done.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn ends_at_once() -> anyhow::Result<()> {
        let on_signal = || {
            eprintln!("minke: interrupted");
            std::process::exit(Exit::Interrupted as i32);
        };
        ctrlc::set_handler(on_signal).context("cannot listen for Ctrl-C")?;
        minke_sys::terminate_as_interrupt().context("cannot listen for SIGTERM")
    }

    /// Whether the flag is up.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// What an observer answers: to stop if the flag is up.
    pub fn flow(&self) -> ControlFlow<()> {
        if self.is_raised() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Takes the flag down, and returns whether it was up.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}
