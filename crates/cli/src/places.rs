//! Where does a person keep what the program keeps for them? Where the XDG base directories say.

use std::path::PathBuf;

/// Returns the file of what was typed, if there is a place for it.
pub fn history() -> Option<PathBuf> {
    folder("XDG_STATE_HOME", ".local/state").map(|folder| folder.join("history"))
}

/// Returns the folder of kept conversations, if there is a place for it.
pub fn sessions() -> Option<PathBuf> {
    folder("XDG_DATA_HOME", ".local/share").map(|folder| folder.join("sessions"))
}

/// Returns the command that edits a file, if the person named one.
pub fn editor() -> Option<String> {
    let named = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    named("VISUAL").or_else(|| named("EDITOR"))
}

/// Returns the program's folder below the one of a variable, or below home. A relative path is to be ignored.
fn folder(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)))?;
    Some(base.join("minke"))
}
