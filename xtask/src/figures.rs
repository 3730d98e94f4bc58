//! Every measured figure of README.md stands in a file of raw rows that its paragraph names, or beside the command that shows it.

use std::path::Path;

use anyhow::Result;

use crate::source::read;

const PAGE: &str = "README.md";
const RESULTS: &str = "bench/results/";
/// Words in backticks that begin like this are commands.
const COMMANDS: [&str; 5] = ["cargo ", "minke ", "python ", "target/", ".ci/"];

/// One line for each paragraph with a figure that nothing shows.
///
/// # Errors
/// If the page or a file that it names cannot be read.
pub fn complaints(root: &Path) -> Result<Vec<String>> {
    let page = read(&root.join(PAGE))?;
    let mut found = Vec::new();
    for (line, paragraph) in paragraphs(&page) {
        let quoted: Vec<&str> = paragraph.split('`').skip(1).step_by(2).collect();
        let mut files = quoted.iter().filter(|word| word.starts_with(RESULTS) && word.ends_with(".csv")).peekable();
        if files.peek().is_none() && quoted.iter().any(|word| COMMANDS.iter().any(|command| word.starts_with(command)))
        {
            continue;
        }
        let mut rows = String::new();
        for file in files {
            rows += &read(&root.join(file))?;
        }
        let fields: Vec<&str> = rows.split([',', '\n', ' ']).collect();
        let text: String = paragraph.split('`').step_by(2).collect();
        for figure in figures(&text).filter(|figure| !fields.contains(figure)) {
            found.push(format!(
                "{PAGE}:{line}: nothing shows {figure}: name a file of {RESULTS} that has it, or the command that prints it"
            ));
        }
    }
    Ok(found)
}

/// The paragraphs, list items and tables with the number of their first line. A paragraph that begins with "Rows:" belongs to
/// the one before.
fn paragraphs(page: &str) -> Vec<(usize, String)> {
    let mut all: Vec<(usize, String)> = Vec::new();
    let (mut begun, mut code) = (false, false);
    for (i, line) in page.lines().enumerate() {
        code ^= line.starts_with("```");
        if line.trim().is_empty() || line.starts_with('#') || code {
            begun = false;
            continue;
        }
        let belongs = line.starts_with("Rows:") || (begun && !line.starts_with(['*', '-']));
        match all.last_mut().filter(|_| belongs) {
            Some((_, text)) => *text = format!("{text}\n{line}"),
            None => all.push((i + 1, line.to_owned())),
        }
        begun = true;
    }
    all
}

/// The measured figures of a text: numbers with a decimal point, percentages and factors.
fn figures(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| c.is_whitespace() || "()[]|,;:".contains(c));
    let words: Vec<&str> = words.map(|word| word.trim_end_matches('.')).filter(|word| !word.is_empty()).collect();
    let number = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_digit()) && word.chars().all(|c| c.is_ascii_digit() || c == '.')
    };
    let followed = words.clone().into_iter().skip(1).chain([""]);
    let measured = words.into_iter().zip(followed).filter(move |(word, next)| {
        number(word) && (word.contains('.') || ["%", "times", "points", "minutes", "seconds"].contains(next))
    });
    measured.map(|(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_a_figure_and_what_counts_is_none() {
        let text = "It is 1.12 times as fast (0.73), 46 % of 500 problems in R1, 8 models, 31 points; 3.";
        assert_eq!(figures(text).collect::<Vec<_>>(), ["1.12", "0.73", "46", "31"]);
    }

    #[test]
    fn a_figure_that_no_row_has_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir_all(folder.path().join(RESULTS)).expect("created");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        write("bench/results/a.csv", "run,ratio\nx,1.25\n");
        write(
            PAGE,
            "# Page\n\n* It is 1.25 times as fast.\nRows: `bench/results/a.csv`.\n* Now 1.5 times.\n\nHere 2.5 times (`cargo bench`).\n",
        );
        let found = complaints(folder.path()).expect("readable");
        assert!(found.len() == 1 && found[0].starts_with("README.md:5: nothing shows 1.5"), "{found:?}");
        write(PAGE, "It is 1.35 times as fast (`bench/results/a.csv`, `cargo bench`).\n");
        assert_eq!(complaints(folder.path()).expect("readable").len(), 1);
    }
}
