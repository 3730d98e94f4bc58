//! The longest files and functions, for a reader to judge; no limit fails a build.

use std::path::Path;

use anyhow::Result;

use crate::relative;
use crate::source::{Token, closing, project_files, read, tokens};

/// Something that has a length.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    /// Length in lines.
    pub lines: usize,
    /// The file, or `file:line function`.
    pub what: String,
}

/// The longest files and the longest functions of the project, longest first.
///
/// # Errors
/// If the sources cannot be read.
pub fn largest(root: &Path, count: usize) -> Result<(Vec<Size>, Vec<Size>)> {
    let (mut files, mut functions) = (Vec::new(), Vec::new());
    for path in project_files(root)? {
        let (name, text) = (relative(root, &path), read(&path)?);
        functions.extend(
            function_sizes(&tokens(&text))
                .into_iter()
                .map(|(function, line, lines)| Size { lines, what: format!("{name}:{line} {function}") }),
        );
        files.push(Size { lines: text.lines().count(), what: name });
    }
    for sizes in [&mut files, &mut functions] {
        sizes.sort_by(|a, b| b.cmp(a));
        sizes.truncate(count);
    }
    Ok((files, functions))
}

/// Name, first line and length in lines of each function that has a body.
fn function_sizes(all: &[Token]) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (i, pair) in all.windows(2).enumerate() {
        // `fn(` is the type of a pointer; a function has a name.
        if pair[0].text != "fn" || pair[1].text == "(" {
            continue;
        }
        let mut at = i + 2;
        while at < all.len() && !["{", ";"].contains(&all[at].text.as_str()) {
            at = if ["(", "["].contains(&all[at].text.as_str()) { closing(all, at) } else { at + 1 };
        }
        if all.get(at).is_some_and(|t| t.text == "{") {
            let last = &all[closing(all, at) - 1];
            found.push((pair[1].text.clone(), pair[0].line, last.line - pair[0].line + 1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_as_long_as_from_its_name_to_its_last_brace() {
        let text =
            "trait T { fn a(&self); }\nfn b(f: fn(u8) -> [u8; 2]) -> u8 {\n  if x { 1 }\n  else { 2 }\n}\nfn c() {}";
        assert_eq!(function_sizes(&tokens(text)), [("b".to_string(), 2, 4), ("c".to_string(), 6, 1)]);
    }
}
