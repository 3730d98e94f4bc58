//! The commands behind a slash: one table for help, completion and the advice after a typo.

use std::path::PathBuf;

use anyhow::Result;

use crate::args::Think;
use crate::error::Exit;

/// Most letters that a typo may differ in from what was meant.
const TYPO: usize = 2;

/// Name, arguments and meaning of every command.
pub const COMMANDS: [(&str, &str, &str); 15] = [
    ("help", "", "this list"),
    ("new", "", "start a new conversation"),
    ("regen", "", "answer the last question again, with the next seed"),
    ("undo", "", "take the last question and its answer back"),
    ("edit", "", "change the last question in $VISUAL or $EDITOR, and ask it again"),
    ("read", "FILE", "put a file in front of the next question"),
    ("system", "[TEXT]", "instructions before the conversation; none takes them away, alone shows them"),
    ("think", "show|fold|hide|last", "what happens to thoughts; last prints the last one"),
    ("set", "[NAME VALUE]", "a setting; default as VALUE takes it back; alone lists all"),
    ("ctx", "", "what fills the context"),
    ("stats", "", "what was computed, and what was found in the cache"),
    ("save", "NAME", "keep conversation, settings and cache"),
    ("load", "NAME", "go on with a kept conversation"),
    ("list", "", "kept conversations"),
    ("export", "FILE.md", "write the conversation as Markdown"),
];

/// Leaving has a line of its own: it stands last in the help.
pub const QUIT: (&str, &str, &str) =
    ("quit", "", "leave, as /exit, /bye, the words exit and quit alone, and Ctrl-D do");

/// A command.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Help,
    New,
    Regen,
    Undo,
    Edit,
    Read(PathBuf),
    System(Option<String>),
    Think(Think),
    LastThought,
    Settings,
    Set(String, String),
    Context,
    Stats,
    Save(String),
    Load(String),
    List,
    Export(PathBuf),
    Quit,
}

/// The names of all commands.
pub fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().chain([&QUIT]).map(|(name, _, _)| *name)
}

/// The command that a line behind its slash stands for.
///
/// # Errors
/// If there is no such command, or its arguments are others.
pub fn parse(line: &str) -> Result<Command> {
    let (name, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
    let rest = rest.trim();
    Ok(match (name, rest) {
        ("help", "") => Command::Help,
        ("new", "") => Command::New,
        ("regen", "") => Command::Regen,
        ("undo", "") => Command::Undo,
        ("edit", "") => Command::Edit,
        ("read", file) if !file.is_empty() => Command::Read(file.into()),
        ("system", "") => Command::System(None),
        ("system", text) => Command::System(Some(text.into())),
        ("think", "show") => Command::Think(Think::Show),
        ("think", "fold") => Command::Think(Think::Fold),
        ("think", "hide") => Command::Think(Think::Hide),
        ("think", "last") => Command::LastThought,
        ("set", "") => Command::Settings,
        ("set", pair) if pair.split_whitespace().count() == 2 => {
            let (name, value) = pair.split_once(char::is_whitespace).expect("invariant: two words");
            Command::Set(name.into(), value.trim().into())
        }
        ("ctx", "") => Command::Context,
        ("stats", "") => Command::Stats,
        ("save", name) if !name.is_empty() => Command::Save(name.into()),
        ("load", name) if !name.is_empty() => Command::Load(name.into()),
        ("list", "") => Command::List,
        ("export", file) if !file.is_empty() => Command::Export(file.into()),
        ("quit" | "exit" | "bye", "") => Command::Quit,
        _ => return Err(Exit::Usage.because(advice(name))),
    })
}

/// The message about a command that is not understood.
fn advice(name: &str) -> String {
    if let Some((name, arguments, meaning)) = COMMANDS.iter().chain([&QUIT]).find(|(known, ..)| *known == name) {
        let space = if arguments.is_empty() { "" } else { " " };
        return format!("/{name}{space}{arguments}: {meaning}");
    }
    let meant = nearest(name, names()).map_or(String::new(), |meant| format!("did you mean /{meant}? "));
    format!("/{name}: no such command; {meant}/help lists them, a space before the slash makes it a question")
}

/// The one of some names that a typo is nearest to, if it is near.
pub fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let begins = |name: &str| !typed.is_empty() && name.starts_with(typed);
    let distance = |name: &&str| if begins(name) { 1 } else { strsim::damerau_levenshtein(typed, name) };
    names.map(|name| (distance(&name), name)).min().filter(|(far, _)| *far <= TYPO).map(|(_, name)| name)
}

/// What `/help` prints.
pub fn help() -> String {
    let line =
        |(name, arguments, meaning): &(&str, &str, &str)| format!("{:28} {meaning}", format!("/{name} {arguments}"));
    let lines: Vec<String> = COMMANDS.iter().chain([&QUIT]).map(line).collect();
    format!(
        "{}\n\nA line that ends with \\ goes on, and so does everything between two \"\"\"; what is pasted is one message.\n\
         Ctrl-C ends an answer early and keeps what there is; arrow keys recall what was typed; Tab completes.",
        lines.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_the_table_is_understood() {
        for (name, arguments, _) in COMMANDS.iter().chain([&QUIT]) {
            let argument = match *arguments {
                "show|fold|hide|last" => "fold",
                "[NAME VALUE]" => "top_k 5",
                other => other,
            };
            parse(&format!("{name} {argument}")).unwrap_or_else(|error| panic!("/{name} {argument}: {error}"));
        }
    }

    #[test]
    fn typos_are_told_what_was_probably_meant() {
        for (typed, part) in [
            ("hlep", "did you mean /help?"),
            ("exprot a.md", "did you mean /export?"),
            ("qu", "did you mean /quit?"),
            ("save", "/save NAME: keep"),
            ("think loud", "/think show|fold|hide|last: "),
            ("xyzzy", "no such command; /help"),
        ] {
            let said = parse(typed).map(|_| ()).map_err(|error| error.to_string());
            assert!(said.as_ref().is_err_and(|said| said.contains(part)), "/{typed}: {said:?}");
        }
    }
}
