//! Files of a conversation: one goes in front of a question, an editor changes a question, and the conversation is
//! exported as one.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::environment;
use crate::error::Exit;

/// Bytes of text that no tokenizer makes into one token: what is longer than so many times the context fits in no way.
const MOST_BYTES_PER_TOKEN: usize = 32;

/// A file in the form in which R1 reads files, for a context of so many tokens.
///
/// # Errors
/// If it cannot be read, is no text, or is far too long.
pub fn read(path: &Path, limit: usize) -> Result<String> {
    let shown = path.display();
    let bad = |reason: String| Exit::BadFile.because(format!("{shown}: {reason}"));
    let file = File::open(path).map_err(|error| bad(error.to_string()))?;
    if !file.metadata()?.is_file() {
        return Err(bad("is no file".into()));
    }
    let most = limit * MOST_BYTES_PER_TOKEN;
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(bad(format!("is too long for a context of {limit} tokens; give a part of it")));
    }
    let text = String::from_utf8(bytes).map_err(|_| bad("is no text in UTF-8".into()))?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    Ok(format!("[file name]: {name}\n[file content begin]\n{text}\n[file content end]\n"))
}

/// A text as a person left it in their editor.
///
/// # Errors
/// If there is no editor, it fails, or nothing is left.
pub fn edit(text: &str) -> Result<String> {
    let editor = environment::editor()
        .ok_or_else(|| Exit::Usage.because("no editor is named; set VISUAL or EDITOR, for instance EDITOR=nano"))?;
    let mut file = tempfile::Builder::new().prefix("minke-").suffix(".md").tempfile()?;
    file.write_all(text.as_bytes())?;
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or_default();
    let status = Command::new(program).args(words).arg(file.path()).status();
    let status = status.with_context(|| format!("cannot start {program}; set EDITOR to another"))?;
    let edited = std::fs::read_to_string(file.path())?;
    match edited.trim() {
        _ if !status.success() => Err(Exit::Failed.because(format!("{program} failed; the question stays as it was"))),
        "" => Err(Exit::Failed.because("nothing is left; the question stays as it was")),
        edited => Ok(edited.to_owned()),
    }
}

/// Writes a file that is not there yet.
///
/// # Errors
/// If it is there, or cannot be written.
pub fn write_new(path: &Path, text: &str) -> Result<()> {
    let written = File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {}; nothing that exists is overwritten", path.display()))
}
