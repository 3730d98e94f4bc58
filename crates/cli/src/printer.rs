//! How does an answer look while it arrives? First the thought, dim on a terminal, then a blank line, then the answer; its
//! last line is the last line of stdout.

use std::io::{Stdout, Write};

use anyhow::Result;
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
            ReasoningEvent::Reasoning(_) if self.think == Think::Hide => return Ok(()),
            ReasoningEvent::Reasoning(piece) => {
                if !self.in_thought && self.dim {
                    self.out.write_all(DIM.as_bytes())?;
                }
                self.in_thought = true;
                self.out.write_all(harmless(piece).as_bytes())?;
            }
            ReasoningEvent::Content(piece) => {
                self.leave_thought("\n\n")?;
                self.out.write_all(harmless(piece).as_bytes())?;
            }
        }
        Ok(self.out.flush()?)
    }

    /// Ends the answer with a newline.
    ///
    /// # Errors
    /// If stdout is closed.
    pub fn finish(mut self) -> Result<()> {
        self.leave_thought("")?;
        self.out.write_all(b"\n")?;
        Ok(self.out.flush()?)
    }

    fn leave_thought(&mut self, gap: &str) -> Result<()> {
        if std::mem::take(&mut self.in_thought) {
            let end = if self.dim { PLAIN } else { "" };
            self.out.write_all(format!("{end}{gap}").as_bytes())?;
        }
        Ok(())
    }
}

/// Returns a text that cannot steer a terminal.
fn harmless(text: &str) -> String {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
