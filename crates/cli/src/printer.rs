//! The output of an answer while it arrives: first the thought, dim on a terminal or folded to one line, then a blank
//! line, then the answer; its last line is the last line of stdout.

use std::borrow::Cow;
use std::io::{IsTerminal, Stdout, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use console::Term;
use minke_chat::{Event, Piece, ThoughtLimit};

use crate::args::Think;

const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";
/// Time between two states of the line that changes.
const REDRAW: Duration = Duration::from_millis(100);
/// Prompts that are read faster than this leave no line.
const PATIENCE: Duration = Duration::from_millis(400);

/// Prints one answer to stdout, and a line about it that changes to stderr if that is a terminal.
pub struct Printer {
    out: Stdout,
    think: Think,
    dim: bool,
    in_thought: bool,
    begun: Instant,
    /// When the thought began; nothing once it has ended.
    thinking_since: Option<Instant>,
    thought_tokens: usize,
    /// Content that may turn out to be the thought: held back from programs that are to read the answer alone.
    held: Option<String>,
    /// Tokens of the prompt that were read, and all of them; nothing once it is read.
    reading: Option<(usize, usize)>,
    line: Line,
}

impl Printer {
    /// A printer; `dim` is whether stdout understands dim text.
    pub fn new(think: Think, dim: bool) -> Self {
        let holds = think != Think::Show && !std::io::stdout().is_terminal();
        Self {
            out: std::io::stdout(),
            held: holds.then(String::new),
            think,
            dim,
            in_thought: false,
            begun: Instant::now(),
            thinking_since: None,
            thought_tokens: 0,
            reading: Some((0, 0)),
            line: Line::new(),
        }
    }

    /// Prints what a step brought.
    ///
    /// # Errors
    /// If stdout is closed.
    pub fn print(&mut self, event: &Event) -> Result<()> {
        let usage = &event.usage;
        let reads = usage.completion_tokens == 0;
        self.reading = reads.then_some((usage.prefilled_tokens, usage.prompt_tokens));
        if usage.reasoning_tokens > self.thought_tokens {
            self.thinking_since.get_or_insert_with(Instant::now);
            self.thought_tokens = usage.reasoning_tokens;
        }
        self.tick();
        event.pieces.iter().try_for_each(|piece| self.say(piece))?;
        let Some(closed) = event.thought_closed else { return Ok(()) };
        self.leave_thought("\n\n")?;
        self.line.replace_by(match closed {
            ThoughtLimit::Budget => "the thought was closed: its budget is spent",
            ThoughtLimit::Repetition => "the thought was closed: it repeats itself",
        });
        Ok(())
    }

    /// Shows that time goes by.
    pub fn tick(&mut self) {
        let line = match (self.reading, self.thinking_since) {
            (Some(_), _) if self.begun.elapsed() < PATIENCE => return,
            (Some((0, _)), _) => format!("reading... {} s", self.begun.elapsed().as_secs()),
            (Some((read, tokens)), _) => {
                let left = self.begun.elapsed().as_secs_f64() * (tokens - read) as f64 / read as f64;
                format!("reading {read}/{tokens} tokens, {left:.0} s left")
            }
            (None, Some(since)) if self.think == Think::Fold => {
                let seconds = since.elapsed().as_secs();
                format!("thinking... {seconds} s, {} tokens", self.thought_tokens)
            }
            _ => return,
        };
        self.line.show(&line);
    }

    /// Prints what was held back, if anything was.
    fn release(&mut self) -> Result<()> {
        let held = self.held.take().unwrap_or_default();
        self.put(&harmless(&held))
    }

    /// Ends the answer with a newline.
    ///
    /// # Errors
    /// If stdout is closed.
    pub fn finish(mut self) -> Result<()> {
        self.release()?;
        self.leave_thought("")?;
        self.line.clear();
        self.put("\n")
    }

    fn say(&mut self, piece: &Piece) -> Result<()> {
        if matches!(piece, Piece::Reasoning(_)) {
            self.release()?;
        }
        match piece {
            Piece::Reasoning(piece) if self.think == Think::Show => {
                self.line.clear();
                if !self.in_thought && self.dim {
                    self.put(DIM)?;
                }
                self.in_thought = true;
                self.put(&harmless(piece))
            }
            // A conversation at the terminal offers no tools.
            Piece::Reasoning(_) | Piece::Call(_) | Piece::Arguments(_) | Piece::Incomplete => Ok(()),
            Piece::Content(piece) => {
                self.leave_thought("\n\n")?;
                self.line.clear();
                match &mut self.held {
                    Some(held) => held.push_str(piece),
                    None => self.put(&harmless(piece))?,
                }
                Ok(())
            }
            Piece::ContentWasReasoning => {
                // What was printed cannot be taken back; the answer begins behind a gap.
                self.in_thought = self.held.take().is_none();
                Ok(())
            }
        }
    }

    fn leave_thought(&mut self, gap: &str) -> Result<()> {
        if std::mem::take(&mut self.in_thought) {
            let end = if self.dim { PLAIN } else { "" };
            self.put(&format!("{end}{gap}"))?;
        }
        if let Some(since) = self.thinking_since.take().filter(|_| self.think == Think::Fold) {
            let seconds = since.elapsed().as_secs();
            self.line.replace_by(&format!("thought for {seconds} s, {} tokens", self.thought_tokens));
        }
        Ok(())
    }

    /// Prints at once, so that every piece is seen when it comes.
    fn put(&mut self, text: &str) -> Result<()> {
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        written.context("cannot write to standard output")
    }
}

/// Prints a text to stdout, dim if that is understood.
///
/// # Errors
/// If stdout is closed.
pub fn print_dim(text: &str, dim: bool) -> Result<()> {
    let (begin, end) = if dim { (DIM, PLAIN) } else { ("", "") };
    writeln!(std::io::stdout(), "{begin}{}{end}", harmless(text)).context("cannot write to standard output")
}

/// One line of stderr that changes, where that is a terminal.
struct Line {
    term: Option<Term>,
    shown: bool,
    drawn: Option<Instant>,
}

impl Line {
    fn new() -> Self {
        let term = Term::stderr();
        Self { term: Some(term).filter(Term::is_term), shown: false, drawn: None }
    }

    /// Shows a text, not too often and never on more than one line of the terminal.
    fn show(&mut self, text: &str) {
        let Some(term) = &self.term else { return };
        if self.shown && self.drawn.is_some_and(|drawn| drawn.elapsed() < REDRAW) {
            return;
        }
        let width = usize::from(term.size().1).saturating_sub(1);
        // The line is decoration: an error is ignored.
        let _ = term.clear_line().and_then(|()| term.write_str(&fitting(text, width)));
        (self.shown, self.drawn) = (true, Some(Instant::now()));
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = self.term.as_ref().map(Term::clear_line);
        }
    }

    /// Prints a line that stays.
    fn replace_by(&mut self, text: &str) {
        self.clear();
        eprintln!("{text}");
    }
}

/// The beginning of a text that fills at most so many columns; CJK and emoji fill two each.
pub fn fitting(text: &str, columns: usize) -> Cow<'_, str> {
    console::truncate_str(text, columns, "…")
}

/// A text that cannot steer a terminal.
fn harmless(text: &str) -> String {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_count_two_columns() {
        for (text, columns, want) in [("思考中です", 6, "思考…"), ("🐋🐋🐋", 5, "🐋🐋…"), ("abc", 3, "abc")]
        {
            let cut = fitting(text, columns);
            assert_eq!(cut, want);
            assert!(console::measure_text_width(&cut) <= columns);
        }
    }
}
