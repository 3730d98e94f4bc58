//! The paths in the pages: every path that a page names in backticks must exist.

use std::path::Path;

use anyhow::Result;

use crate::source::read;

/// Pages that describe the project as it is. Decision records and the log describe it as it was.
const PAGES: [&str; 7] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "docs/vocabulary.md",
    "docs/kernels.md",
    "docs/planner.md",
    "docs/clusters.md",
];
/// A word in backticks is a path of the repository if it begins with one of these.
const FOLDERS: [&str; 7] = ["crates/", "xtask/", "docs/", "testdata/", "bench/", "runs/", "models/"];

/// One line for each path that a page names and that does not exist.
///
/// # Errors
/// If a page cannot be read.
pub fn complaints(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for page in PAGES {
        for (i, line) in read(&root.join(page))?.lines().enumerate() {
            let missing = paths_in(line).filter(|path| !root.join(path).exists());
            found.extend(missing.map(|path| format!("{page}:{}: {path} does not exist: correct the page", i + 1)));
        }
    }
    Ok(found)
}

/// The paths that a line names in backticks; a name with a placeholder such as `<op>` is none.
fn paths_in(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.filter(|text| FOLDERS.iter().any(|f| text.starts_with(f)) && !text.contains(['<', '*', ' ', '{']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stand_in_backticks() {
        let line = "see `crates/spec/src/cost.rs` and crates/no, `cargo test`, `bench/results/<machine>.csv`, `docs/`";
        assert_eq!(paths_in(line).collect::<Vec<_>>(), ["crates/spec/src/cost.rs", "docs/"]);
    }
}
