//! The lines of code, each with whether a statement of the outermost level starts there.

/// A line of code.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Without its end.
    pub text: &'a str,
    /// Where it starts, in bytes.
    pub offset: usize,
    /// Whether a statement starts at its first character: not within brackets or a text of many lines, not indented, not empty.
    pub starts: bool,
}

/// What is open at the end of a line.
#[derive(Clone, Copy, Default)]
pub struct State {
    /// The quotes that end a text of many lines.
    pub quotes: Option<&'static str>,
    brackets: usize,
    /// Whether the line goes on after a backslash.
    goes_on: bool,
}

/// Quotes of texts that may have many lines.
pub const LONG_QUOTES: [&str; 2] = ["\"\"\"", "'''"];

/// The lines of a text. Code that ends within brackets or quotes is read as if they were closed where the next definition
/// starts.
pub fn lines(text: &str) -> Vec<Line<'_>> {
    let mut found = Vec::new();
    let (mut state, mut offset) = (State::default(), 0);
    for line in text.split_inclusive('\n') {
        let content = line.strip_suffix('\n').unwrap_or(line);
        let outermost = content.chars().next().is_some_and(|c| !c.is_whitespace());
        if state.brackets > 0 && state.quotes.is_none() && outermost && is_definition(content) {
            state = State::default();
        }
        let inside = state.quotes.is_some() || state.brackets > 0 || state.goes_on;
        found.push(Line { text: content, offset, starts: outermost && !inside });
        state = state.after(content);
        offset += line.len();
    }
    found
}

impl State {
    /// What is open behind one more line.
    pub fn after(mut self, line: &str) -> Self {
        self.goes_on = false;
        let mut rest = line;
        while let Some(next) = rest.chars().next() {
            if let Some(quotes) = self.quotes {
                let Some(end) = end_of_text(rest, quotes) else { return self };
                rest = &rest[end..];
                self.quotes = None;
                continue;
            }
            if let Some(quotes) = LONG_QUOTES.into_iter().find(|quotes| rest.starts_with(quotes)) {
                self.quotes = Some(quotes);
                rest = &rest[quotes.len()..];
                continue;
            }
            let quote = &rest[..next.len_utf8()];
            rest = &rest[next.len_utf8()..];
            match next {
                '#' => return self,
                '\\' => self.goes_on = rest.is_empty(),
                // A quote without its other half is an apostrophe, or an error of the code.
                '"' | '\'' => rest = end_of_text(rest, quote).map_or(rest, |end| &rest[end..]),
                '(' | '[' | '{' => self.brackets += 1,
                ')' | ']' | '}' => self.brackets = self.brackets.saturating_sub(1),
                _ => {}
            }
        }
        self
    }
}

/// Behind the quotes that end a text, if they are in this line.
fn end_of_text(text: &str, quotes: &str) -> Option<usize> {
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with(quotes) {
            return Some(at + quotes.len());
        }
        let mut characters = rest.chars();
        let first = characters.next().unwrap_or_default();
        at += first.len_utf8();
        at += if first == '\\' { characters.next().map_or(0, char::len_utf8) } else { 0 };
    }
    None
}

fn is_definition(line: &str) -> bool {
    ["def ", "async def ", "class ", "import ", "@"].iter().any(|word| line.starts_with(word))
}

/// Words that a statement starts with and a sentence hardly does, as sentences begin with a capital letter.
const STATEMENTS: [&str; 14] = [
    "async", "import", "else", "try", "except", "finally", "return", "raise", "assert", "pass", "del", "global",
    "print", "yield",
];

/// Words that a statement with a body, or the head of a definition, starts with.
const HEADS: [&str; 7] = ["def", "class", "if", "elif", "for", "while", "with"];

/// What starts a statement that only tries a function out.
const TRIALS: [&str; 8] = ["print(", "print (", "assert ", "assert(", "check(", "main(", "unittest.", "doctest."];

impl Line<'_> {
    /// Whether the first line of a statement reads as code rather than as a sentence.
    pub fn is_code(&self) -> bool {
        let text = self.text;
        let word = text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        let rest = &text[word.len()..];
        match word {
            "" => text.starts_with(['@', '#', ')', ']', '}', '"', '\'', '(', '[', '{']) && !text.starts_with("##"),
            "from" => rest.contains(" import "),
            _ if HEADS.contains(&word) => rest.contains([':', '(']),
            _ if STATEMENTS.contains(&word) => true,
            // A call as a statement, or a value for a name.
            _ if rest.starts_with(['(', '.', '[']) && rest.trim_end().ends_with([')', '(', ',', '[', '{']) => true,
            _ => is_assignment(rest.trim_start()),
        }
    }

    /// Whether the statement only tries a function out.
    pub fn is_trial(&self) -> bool {
        let text = self.text;
        let guard = text.starts_with("if ") && text.contains("__name__");
        let test = text.starts_with("test") && text.contains('(') && !text.contains('=');
        guard || test || TRIALS.iter().any(|trial| text.starts_with(trial))
    }
}

/// Whether what follows a name gives it a value or a type.
fn is_assignment(rest: &str) -> bool {
    // Targets such as `a.b`, `a, b` and `a[0]`.
    let rest = match rest.starts_with(['.', ',', '[']) {
        true => rest.find('=').map_or("", |at| &rest[at..]),
        false => rest,
    };
    let operators = ["=", "+=", "-=", "*=", "/=", "//=", "%=", "|=", "&=", "^=", "**=", ">>=", "<<="];
    let kind = rest.strip_prefix(':').and_then(|typed| typed.split_once('=')).map(|(kind, _)| kind.trim());
    kind.is_some_and(|kind| !kind.is_empty() && (kind.contains('[') || !kind.contains(' ')))
        || operators.iter().any(|operator| rest.starts_with(operator) && !rest.starts_with("=="))
}
