//! Rust source as tokens with line numbers, without comments, strings and test code.
//!
//! That is enough for rules about words (`unsafe`, `cfg`), paths (`crate::a::b`) and lengths, and needs no parser.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One word or sign of the source. Strings and characters keep their place as the token `""`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The word, or the sign; `::`, `==`, `->` and `=>` are one token.
    pub text: String,
    /// Line in the file, counted from 1.
    pub line: usize,
}

/// Every `.rs` file under a folder, sorted; none if the folder does not exist.
///
/// # Errors
/// If a folder cannot be read.
pub fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(files(folder)?.into_iter().filter(|p| p.extension().is_some_and(|e| e == "rs")).collect())
}

/// Every file under a folder, sorted; none if the folder does not exist.
///
/// # Errors
/// If a folder cannot be read.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        if !next.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(&next).with_context(|| format!("cannot list {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}

/// The Rust files of the project: those of every crate and of `xtask`.
///
/// # Errors
/// If a folder cannot be read.
pub fn project_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = rust_files(&root.join("crates"))?;
    found.extend(rust_files(&root.join("xtask"))?);
    Ok(found)
}

/// The text of a file.
///
/// # Errors
/// If it cannot be read or is not UTF-8.
pub fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The tokens of a source text.
pub fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while at < chars.len() {
        let start = at;
        let rest = &chars[at..];
        let mut word = None;
        if rest.starts_with(&['/', '/']) {
            at += rest.iter().position(|&c| c == '\n').unwrap_or(rest.len());
        } else if rest.starts_with(&['/', '*']) {
            at += block_comment(rest);
        } else if let Some(length) = string_literal(rest).or_else(|| char_literal(rest)) {
            at += length;
            word = Some("\"\"".to_string());
        } else if is_word(rest[0]) {
            at += rest.iter().position(|&c| !is_word(c)).unwrap_or(rest.len());
            word = Some(chars[start..at].iter().collect());
        } else {
            let pair: String = rest.iter().take(2).collect();
            let sign = if ["::", "==", "->", "=>"].contains(&pair.as_str()) { pair } else { rest[0].to_string() };
            at += sign.chars().count();
            word = Some(sign).filter(|s| !s.trim().is_empty());
        }
        found.extend(word.map(|text| Token { text, line }));
        line += chars[start..at].iter().filter(|&&c| c == '\n').count();
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the block comment that `chars` begins with; comments nest.
fn block_comment(chars: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < chars.len() {
        if chars[at..].starts_with(&['/', '*']) {
            depth += 1;
            at += 2;
        } else if chars[at..].starts_with(&['*', '/']) {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The length of the string literal, raw or not, that `chars` begins with.
fn string_literal(chars: &[char]) -> Option<usize> {
    let prefix = chars.iter().take(2).take_while(|c| matches!(c, 'b' | 'c' | 'r')).count();
    let raw = chars[..prefix].contains(&'r');
    let hashes = if raw { chars[prefix..].iter().take_while(|&&c| c == '#').count() } else { 0 };
    let mut at = prefix + hashes;
    if chars.get(at) != Some(&'"') {
        return None;
    }
    at += 1;
    while at < chars.len() {
        match chars[at] {
            '\\' if !raw => at += 1,
            '"' if chars[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes => break,
            _ => {}
        }
        at += 1;
    }
    Some((at + 1 + hashes).min(chars.len()))
}

/// The length of the character literal that `chars` begins with; a lifetime is none.
fn char_literal(chars: &[char]) -> Option<usize> {
    let start = usize::from(chars[0] == 'b' && chars.get(1) == Some(&'\''));
    match (chars[start], chars.get(start + 1)?, chars.get(start + 2)) {
        ('\'', '\\', Some(_)) => chars[start + 3..].iter().position(|&c| c == '\'').map(|end| start + end + 4),
        ('\'', _, Some('\'')) => Some(start + 3),
        _ => None,
    }
}

/// The index behind the bracket that closes the one at `open`.
pub fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0i32;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    tokens.len()
}

/// The tokens without the items that are marked `#[cfg(test)]`.
pub fn without_tests(tokens: &[Token]) -> Vec<Token> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if tokens[at..].iter().take(MARK.len()).map(|t| t.text.as_str()).eq(MARK) {
            at = end_of_item(tokens, at);
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// The index behind the item, attributes included, that starts at `at`.
fn end_of_item(tokens: &[Token], mut at: usize) -> usize {
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" => return closing(tokens, at),
            ";" => return at + 1,
            "(" | "[" => at = closing(tokens, at),
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        tokens(text).into_iter().map(|t| t.text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_strings_and_characters_hide_their_words() {
        let cases = [
            ("a // unsafe\nb", "a b"),
            ("a /* x /* unsafe */ y */ b", "a b"),
            (r#"f("unsafe \" unsafe", b"u")"#, "f ( \"\" , \"\" )"),
            ("r#\"a \" unsafe\"# x", "\"\" x"),
            (r"'\'' 'x' '\u{1F}' &'a str", "\"\" \"\" \"\" & ' a str"),
            ("crate::a::b == c => d", "crate :: a :: b == c => d"),
            ("br\"x\" bread carrot 'é' é", "\"\" bread carrot \"\" é"),
        ];
        for (text, expected) in cases {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let found = tokens("a\n/* \n */ b \"x\ny\"\n→ c");
        let lines: Vec<_> = found.iter().map(|t| (t.text.as_str(), t.line)).collect();
        assert_eq!(lines, [("a", 1), ("b", 3), ("\"\"", 3), ("→", 5), ("c", 5)]);
    }

    #[test]
    fn test_items_are_left_out() {
        let kept =
            without_tests(&tokens("use a; #[cfg(test)] #[x] mod tests { fn f() {} } fn g() {} #[cfg(test)] use b; z"));
        let text: Vec<_> = kept.iter().map(|t| t.text.as_str()).collect();
        assert_eq!(text.join(" "), "use a ; fn g ( ) { } z");
    }
}
