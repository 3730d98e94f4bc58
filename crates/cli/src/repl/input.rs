//! Messages are typed in a line editor with history and completion; a message may have many lines.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::termios::{QueueSelector, tcflush};
use rustyline::completion::{Completer, FilenameCompleter};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Editor, Helper};

use super::commands::{self, Command};
use super::{session, settings};

/// What begins and ends a message of many lines.
const QUOTES: &str = "\"\"\"";
/// How long the rest of something pasted may take to arrive.
const PASTE: Duration = Duration::from_millis(50);
/// Bytes of the longest message that is remembered.
const LONGEST_REMEMBERED: usize = 16 << 10;

/// A line editor for this terminal.
pub struct Input {
    editor: Editor<Rules, FileHistory>,
    history: Option<PathBuf>,
}

/// What was typed.
pub enum Typed {
    /// A line behind a slash that is understood.
    Command(Command),
    /// One that is not, and what to say about it.
    Unknown(anyhow::Error),
    /// A message for the model.
    Message(String),
    /// Nothing, or something that was given up with Ctrl-C.
    Nothing,
    /// Ctrl-D.
    End,
}

impl Input {
    /// An editor that keeps its history in a file, if there is one.
    ///
    /// # Errors
    /// If the terminal cannot be used.
    pub fn new(history: Option<PathBuf>) -> Result<Self> {
        let config = Config::builder().history_ignore_dups(true)?.max_history_size(1000)?.build();
        let cannot = "cannot use this terminal; give the question as an argument";
        let mut editor = Editor::with_config(config).context(cannot)?;
        editor.set_helper(Some(Rules { files: FilenameCompleter::new() }));
        if let Some(path) = &history {
            // The file is not there at the first start; without history the conversation works as well.
            let _ = std::fs::create_dir_all(path.parent().unwrap_or(path));
            let _ = editor.load_history(path);
        }
        Ok(Self { editor, history })
    }

    /// What a person types next.
    ///
    /// # Errors
    /// If the terminal cannot be read.
    pub fn read(&mut self) -> Result<Typed> {
        let typed = match self.editor.readline("> ") {
            Ok(typed) => typed,
            Err(ReadlineError::Interrupted) => return Ok(Typed::Nothing),
            Err(ReadlineError::Eof) => return Ok(Typed::End),
            Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                discard_typed();
                let advice = "set the terminal to UTF-8 and type it again";
                return Ok(Typed::Unknown(anyhow!(
                    "nothing was asked: the line has a byte that is not UTF-8; {advice}"
                )));
            }
            Err(error) => return Err(error).context("cannot read from this terminal"),
        };
        if typed.trim().is_empty() {
            return Ok(Typed::Nothing);
        }
        if typed.len() <= LONGEST_REMEMBERED {
            // Without history the conversation works as well: an error is ignored.
            let _ = self.editor.add_history_entry(typed.trim_end());
            let _ = self.history.as_ref().map(|path| self.editor.append_history(path));
        }
        if ["exit", "quit"].iter().any(|word| word.eq_ignore_ascii_case(typed.trim())) {
            return Ok(Typed::Command(Command::Quit));
        }
        Ok(match typed.strip_prefix('/') {
            Some(command) => commands::parse(command).map_or_else(Typed::Unknown, Typed::Command),
            None => Typed::Message(message(&typed)),
        })
    }
}

/// Discards what was typed or pasted behind a byte that was refused, so that the rest of a line is no message of its own.
fn discard_typed() {
    std::thread::sleep(PASTE);
    // If the rest stays, it becomes a message of its own; that is no reason to stop.
    let _ = tcflush(std::io::stdin(), QueueSelector::IFlush);
}

/// Whether more lines belong to a message.
fn goes_on(typed: &str) -> bool {
    match typed.trim_start().strip_prefix(QUOTES) {
        Some(quoted) => !quoted.trim_end().ends_with(QUOTES),
        None => typed.ends_with('\\'),
    }
}

/// The message without the marks that held its lines together. Between quotes every character stays.
fn message(typed: &str) -> String {
    let quoted = |typed: &str| {
        let inner = typed.trim().strip_prefix(QUOTES)?.strip_suffix(QUOTES)?;
        let inner = inner.strip_prefix('\n').unwrap_or(inner);
        Some(inner.strip_suffix('\n').unwrap_or(inner).to_owned())
    };
    quoted(typed).unwrap_or_else(|| typed.replace("\\\n", "\n").trim().to_owned())
}

/// Callbacks of the editor while a person types.
struct Rules {
    files: FilenameCompleter,
}

impl Helper for Rules {}
impl Highlighter for Rules {}
impl Hinter for Rules {
    type Hint = String;
}

impl Validator for Rules {
    fn validate(&self, typed: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if goes_on(typed.input()) { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Completer for Rules {
    type Candidate = String;

    /// Completes commands, and what belongs behind them.
    fn complete(
        &self,
        line: &str,
        pos: usize,
        context: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let line = &line[..pos];
        let Some(command) = line.strip_prefix('/') else { return Ok((pos, Vec::new())) };
        let Some((name, argument)) = command.split_once(' ') else {
            return Ok((1, beginning(commands::names(), command)));
        };
        let start = pos - argument.len();
        let words: Vec<Cow<'_, str>> = match name {
            "read" | "export" => {
                let (start, found) = self.files.complete(line, pos, context)?;
                return Ok((start, found.into_iter().map(|pair| pair.replacement).collect()));
            }
            "think" => ["show", "fold", "hide", "last"].map(Cow::from).into(),
            "set" => settings::NAMES.map(Cow::from).into(),
            "load" | "save" => session::names().into_iter().map(Cow::from).collect(),
            _ => Vec::new(),
        };
        Ok((start, beginning(words.iter().map(AsRef::as_ref), argument)))
    }
}

fn beginning<'a>(words: impl Iterator<Item = &'a str>, typed: &str) -> Vec<String> {
    words.filter(|word| word.starts_with(typed)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_lines_are_one_message() {
        for (typed, goes, meaning) in [
            ("one\\", true, ""),
            ("one\\\ntwo", false, "one\ntwo"),
            ("\"\"\"", true, ""),
            ("\"\"\"\none\\\n\n  two\n\"\"\"", false, "one\\\n\n  two"),
            ("\"\"\"one\ntwo\"\"\"", false, "one\ntwo"),
            ("pasted\nlines", false, "pasted\nlines"),
        ] {
            assert_eq!(goes_on(typed), goes, "{typed}");
            assert!(goes || message(typed) == meaning, "{typed}: {}", message(typed));
        }
    }
}
