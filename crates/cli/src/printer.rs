//! How does an answer look while it arrives? First the thought, dim on a terminal, then a blank line, then the answer; its
//! last line is the last line of stdout.

use std::io::{Stdout, Write};

use anyhow::{Context, Result};
use minke_text::ReasoningEvent;

use crate::args::Think;

const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Prints one answer.
pub struct Printer {
    out: Stdout,
    think: Think,
    dim: bool,
    in_thought: bool,
}

impl Printer {
    /// Returns a printer to stdout.
    pub fn new(think: Think, dim: bool) -> Self {
        Self { out: std::io::stdout(), think, dim, in_thought: false }
    }

    /// Prints a piece.
    ///
    /// # Errors
    /// If stdout is closed.
    pub fn say(&mut self, event: &ReasoningEvent) -> Result<()> {
        match event {
            ReasoningEvent::Reasoning(_) if self.think == Think::Hide => Ok(()),
            ReasoningEvent::Reasoning(piece) => {
                if !self.in_thought && self.dim {
                    self.put(DIM)?;
                }
                self.in_thought = true;
                self.put(&harmless(piece))
            }
            ReasoningEvent::Content(piece) => {
                self.leave_thought("\n\n")?;
                self.put(&harmless(piece))
            }
        }
    }

    /// Ends the answer with a newline.
    ///
    /// # Errors
    /// If stdout is closed.
    pub fn finish(mut self) -> Result<()> {
        self.leave_thought("")?;
        self.put("\n")
    }

    fn leave_thought(&mut self, gap: &str) -> Result<()> {
        if std::mem::take(&mut self.in_thought) {
            let end = if self.dim { PLAIN } else { "" };
            self.put(&format!("{end}{gap}"))?;
        }
        Ok(())
    }

    /// Prints at once, so that every piece is seen when it comes.
    fn put(&mut self, text: &str) -> Result<()> {
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        written.context("cannot write to standard output")
    }
}

/// Returns a text that cannot steer a terminal.
fn harmless(text: &str) -> String {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
