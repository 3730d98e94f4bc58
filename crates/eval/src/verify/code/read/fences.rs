//! Fenced blocks of an answer.

use super::lines::{LONG_QUOTES, State};

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What stands in it, without the indentation of its fence and without a line that only names the language.
    pub code: String,
    /// Whether its end is marked.
    pub closed: bool,
    /// Whether nothing says that it is of another language.
    pub is_python: bool,
}

/// Whether the name of a language is Python's, or there is none.
pub fn is_python(language: &str) -> bool {
    let names = ["", "python", "python3", "py", "py3", "python2", "code", "{python}", "{.python}", "ipython", "pycon"];
    names.contains(&language.to_lowercase().as_str())
}

/// A line that opens a block or closes one.
struct Fence<'a> {
    /// Three or more of one character.
    mark: &'a str,
    indentation: usize,
    /// What stands behind the mark.
    rest: &'a str,
}

fn fence(line: &str) -> Option<Fence<'_>> {
    let text = line.trim_start();
    let first = text.chars().next().filter(|c| *c == '`' || *c == '~')?;
    let rest = text.trim_start_matches(first);
    let mark = &text[..text.len() - rest.len()];
    // What has marks behind the mark is code within a line.
    (mark.len() >= 3 && !rest.contains('`')).then(|| Fence {
        mark,
        indentation: line.len() - text.len(),
        rest: rest.trim(),
    })
}

/// The blocks of a text, in order.
pub fn blocks(text: &str) -> Vec<Block> {
    let lines: Vec<&str> = text.lines().collect();
    // The last line with each kind of quotes.
    let last = LONG_QUOTES.map(|quotes| (quotes, lines.iter().rposition(|line| line.contains(quotes))));
    let closed_later = |quotes: &str, at: usize| last.iter().any(|(kind, last)| *kind == quotes && *last > Some(at));
    let (mut found, mut at) = (Vec::new(), 0);
    while at < lines.len() {
        let Some(open) = fence(lines[at]) else {
            at += 1;
            continue;
        };
        at += 1;
        let (language, first_line) = language(open.rest);
        let mut code: Vec<&str> = first_line.into_iter().collect();
        let mut state = code.iter().fold(State::default(), |state, line| state.after(line));
        let mut closed = false;
        while at < lines.len() && !closed {
            // A fence within a text of many lines is part of that text, if the text ends at all.
            let within = state.quotes.is_some_and(|quotes| closed_later(quotes, at));
            match fence(lines[at]).filter(|_| !within) {
                Some(end) if end.rest.is_empty() && end.mark.starts_with(open.mark) => {
                    closed = true;
                }
                // Another block starts where this one should have ended.
                Some(next) if next.mark == open.mark => break,
                _ => {
                    code.push(without(lines[at], open.indentation));
                    state = state.after(lines[at]);
                }
            }
            at += 1;
        }
        if code.first().is_some_and(|line| !line.trim().is_empty() && is_python(line.trim())) {
            code.remove(0);
        }
        found.push(Block { code: dedented(&code), closed, is_python: is_python(language) });
    }
    found
}

/// The language that stands behind the mark of a fence, and code that follows in the same line.
fn language(rest: &str) -> (&str, Option<&str>) {
    let starts_code =
        |text: &str| ["def ", "import ", "from ", "class ", "@"].iter().any(|word| text.starts_with(word));
    let (word, behind) = rest.split_once(' ').unwrap_or((rest, ""));
    if starts_code(rest) {
        ("", Some(rest))
    } else if is_python(word) && starts_code(behind.trim_start()) {
        (word, Some(behind.trim_start()))
    } else {
        (word, None)
    }
}

/// A line without as much white space as there is in front of its fence.
fn without(line: &str, indentation: usize) -> &str {
    let white = line.len() - line.trim_start().len();
    line.get(white.min(indentation)..).unwrap_or(line)
}

/// Code without the indentation that all of its lines share, if a definition or import starts it.
fn dedented(code: &[&str]) -> String {
    let filled = || code.iter().filter(|line| !line.trim().is_empty());
    let first = filled().next().map_or("", |line| line.trim_start());
    let is_whole = ["def ", "import ", "from ", "class ", "@", "async def "].iter().any(|word| first.starts_with(word));
    let shared = filled().map(|line| line.len() - line.trim_start().len()).min().unwrap_or_default();
    let lines = code.iter().map(|line| if is_whole { without(line, shared) } else { line });
    lines.collect::<Vec<_>>().join("\n")
}
