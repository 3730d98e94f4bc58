//! Which program does an answer hold?
//!
//! Models put programs into fences with and without a language, forget to close them, repeat the signature or go on where the
//! question stopped, and add examples, tests and explanations. What is run is the part that defines the function:
//!
//! 1. Of several fenced blocks, the last complete one that defines it; else the last that was never closed and defines it.
//! 2. Without such a block, the lines of the text from the first of the code around its definition.
//! 3. Without a definition, the last block, or the text, as the body that completes the question.
//!
//! In front come the imports and helpers of the question. Behind the definition, tests, prints, main guards and prose are cut.

mod fences;
mod lines;

use std::borrow::Cow;

use fences::{Block, blocks};
use lines::{Line, lines};

/// The program of an answer, ready to be run; empty if the answer holds none. `prompt` is the beginning of the program that the
/// question gave, if it gave one, and `entry_point` the function that is asked for.
///
/// # Examples
/// ```
/// use minke_eval::verify::code::read_program;
/// let answer = "Sure:\n```python\ndef f(x):\n    return x + 1\n\nprint(f(1))\n```\nIt adds one.";
/// assert_eq!(read_program("", "f", answer), "def f(x):\n    return x + 1\n");
/// ```
pub fn read_program(prompt: &str, entry_point: &str, answer: &str) -> String {
    let prompt = unix_lines(prompt);
    let answer = unix_lines(answer);
    let answer = answer.trim_start_matches('\u{feff}');
    let blocks = blocks(answer);
    let defining = |closed: bool| {
        let found = blocks.iter().rev().find(|block| block.closed == closed && defines(&block.code, entry_point));
        found.map(|block| (block.code.clone(), closed))
    };
    let bare = || {
        let text = without_language(answer);
        defines(&text, entry_point).then(|| (around_definition(&text, entry_point), false))
    };
    let whole = defining(true).or_else(|| defining(false)).or_else(bare);
    if let Some((code, is_complete)) = whole {
        return joined(before_definition(&prompt, entry_point), &without_tests(&code, entry_point, is_complete));
    }
    let body = match blocks.iter().rev().find(|block| block.is_python) {
        Some(Block { code, .. }) => code.clone(),
        None if blocks.is_empty() => without_language(answer),
        None => return String::new(),
    };
    completed(&prompt, entry_point, &body)
}

fn unix_lines(text: &str) -> Cow<'_, str> {
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n").into() } else { text.into() }
}

/// Without a first line that only names the language.
fn without_language(text: &str) -> String {
    let text = text.trim_start_matches('\n');
    match text.split_once('\n') {
        Some((first, rest)) if fences::is_python(first.trim()) && !first.trim().is_empty() => rest.to_owned(),
        _ => text.to_owned(),
    }
}

/// Whether code defines a name at its outermost level.
fn defines(code: &str, name: &str) -> bool {
    lines(code).iter().any(|line| line.starts && line_defines(line.text, name))
}

fn line_defines(line: &str, name: &str) -> bool {
    let head = ["def ", "async def ", "class "].iter().find_map(|word| line.strip_prefix(word));
    let ends = |rest: &str, marks: &[char]| rest.trim_start().starts_with(marks);
    match (head.map(str::trim_start), line.strip_prefix(name)) {
        (Some(head), _) => head.strip_prefix(name).is_some_and(|rest| ends(rest, &['(', ':', '['])),
        (None, Some(rest)) => ends(rest, &['=', ':']) && !rest.trim_start().starts_with("=="),
        (None, None) => false,
    }
}

/// What a prompt has before the function that it asks for.
fn before_definition<'a>(prompt: &'a str, name: &str) -> &'a str {
    let all = lines(prompt);
    let Some(mut at) = all.iter().rposition(|line| line.starts && line_defines(line.text, name)) else { return "" };
    while at > 0 && all[at - 1].starts && all[at - 1].text.starts_with('@') {
        at -= 1;
    }
    &prompt[..all[at].offset]
}

fn joined(before: &str, code: &str) -> String {
    match before.trim() {
        "" => code.to_owned(),
        _ => format!("{}\n\n\n{code}", before.trim_end()),
    }
}

/// The lines around a definition that are code: back to the first of an unbroken run, and on to the first line of prose.
fn around_definition(text: &str, name: &str) -> String {
    let all = lines(text);
    let Some(at) = all.iter().rposition(|line| line.starts && line_defines(line.text, name)) else {
        return String::new();
    };
    // Statements only: what is indented belongs to the statement before it.
    let before = all[..at].iter().rposition(|line| line.starts && !line.is_code());
    let first = before.map_or(0, |prose| prose + 1);
    text[all[first].offset..].to_owned()
}

/// Code without what only tries its definition out, behind it, and, where nothing says where the code ends, up to the first
/// line of prose.
fn without_tests(code: &str, name: &str, is_complete: bool) -> String {
    let all = lines(code);
    let Some(at) = all.iter().rposition(|line| line.starts && line_defines(line.text, name)) else {
        return code.to_owned();
    };
    let (mut kept, mut keeps) = (code[..all[at].offset].trim_start_matches('\n').to_owned(), true);
    for line in &all[at..] {
        if line.starts {
            if !is_complete && !line.is_code() {
                break;
            }
            keeps = !line.is_trial();
        }
        if keeps {
            kept.push_str(line.text);
            kept.push('\n');
        }
    }
    kept.truncate(kept.trim_end().len());
    kept.push('\n');
    kept
}

/// A prompt with the body of its function; code that defines something else is left as it is.
fn completed(prompt: &str, name: &str, body: &str) -> String {
    let all = lines(body);
    // Prose in front of the first line that is code.
    let is_body = |line: &Line| !line.text.trim().is_empty() && (!line.starts || line.is_code());
    let Some(first) = all.iter().position(is_body) else { return String::new() };
    let body = body[all[first].offset..].trim_end();
    let indentation = last_indentation(prompt);
    let is_whole = defines_something(body, indentation.len());
    if prompt.trim().is_empty() || is_whole {
        return joined(before_definition(prompt, name), &format!("{body}\n"));
    }
    let dedented = is_dedented(body, indentation.len());
    let mut text = String::from(prompt.trim_end());
    text.push('\n');
    for (number, line) in lines(body).into_iter().enumerate() {
        if number > 0 && line.starts && (!line.is_code() || (line.is_trial() && !dedented)) {
            break;
        }
        // Templates strip the white space in front of the first line.
        if dedented && !line.text.is_empty() || number == 0 && line.starts {
            text.push_str(&indentation);
        }
        text.push_str(line.text);
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Whether code starts with a definition of the outermost level: its body is indented no further than a prompt's would be.
fn defines_something(code: &str, indentation: usize) -> bool {
    let mut filled = code.lines().filter(|line| !line.trim().is_empty());
    let (first, second) = (filled.next().unwrap_or_default(), filled.next().unwrap_or_default());
    ["def ", "class ", "async def ", "@"].iter().any(|word| first.starts_with(word)) && white(second) <= indentation
}

/// Bytes of white space in front of a line.
fn white(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Whether a whole body, not its first line alone, lacks the indentation that it needs.
fn is_dedented(body: &str, indentation: usize) -> bool {
    let mut filled = body.lines().filter(|line| !line.trim().is_empty());
    let (first, second) = (filled.next().unwrap_or_default(), filled.next().unwrap_or_default());
    let statements = lines(body).into_iter().take_while(|line| !line.starts || line.is_code());
    let returns = |line: Line| line.starts && line.text.starts_with("return");
    white(first) == 0 && (statements.skip(1).any(returns) || first.ends_with(':') && white(second) <= indentation)
}

/// The white space in front of the last line of a prompt, where its body goes on.
fn last_indentation(prompt: &str) -> String {
    let last = prompt.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let indentation: String = last.chars().take_while(|c| *c == ' ' || *c == '\t').collect();
    if indentation.is_empty() { "    ".into() } else { indentation }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Row {
        name: String,
        prompt: String,
        entry_point: String,
        answer: String,
        program: String,
    }

    #[test]
    fn the_program_of_each_answer_is_found() {
        let rows = include_str!("../../../../../../testdata/code/answers.jsonl");
        let mut wrong = Vec::new();
        for row in rows.lines().map(|line| serde_json::from_str::<Row>(line).expect("a row")) {
            let read = read_program(&row.prompt, &row.entry_point, &row.answer);
            if read != row.program {
                wrong.push(format!("{}:\n{read:?} instead of\n{:?}", row.name, row.program));
            }
        }
        assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.lines().count(), wrong.join("\n"));
    }

    #[test]
    fn long_hostile_answers_take_no_longer_than_their_length() {
        let parts =
            ["```\n", "```python\n", "\"\"\"\n```\n", "def f(", "(((\n", "f = ", "'\n", "\\\n", "~~~~\n`````\n"];
        for part in parts {
            let start = std::time::Instant::now();
            read_program("def f(x):\n    ", "f", &part.repeat(1 << 16));
            assert!(start.elapsed().as_secs() < 10, "{part:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(
            answer in "([ \\t\\r\\n]|```|~~~|\"\"\"|'|\\(|\\)|#|def f\\(x\\):|python|\\PC){0,60}"
        ) {
            read_program("def f(x):\n    '''x'''\n", "f", &answer);
            read_program(&answer, "f", "return 1");
        }
    }
}
