//! `minke eval --compare`: two files of answers to the same problems.

use std::path::{Path, PathBuf};

use anyhow::Result;
use minke_eval::{Results, compare};

use super::set::ANSWERS;
use super::{interval, print_json, print_line};

/// Compares two files of answers, or those in two folders.
pub fn run(before: &Path, after: &Path, json: bool) -> Result<()> {
    let (before, after) = (file(before), file(after));
    let (first, second) = (Results::read(&before)?, Results::read(&after)?);
    let found = compare(&first, &second)?;
    if json {
        return print_json(&found);
    }
    print_line(&format!("{}: {} problems, pass@1 with 95 % intervals", found.task, found.problems))?;
    print_line(&format!("before      {}  {}", interval(&found.before), before.display()))?;
    print_line(&format!("after       {}  {}", interval(&found.after), after.display()))?;
    print_line(&format!("difference  {}, paired; by bootstrap {}", interval(&found.gain), interval(&found.bootstrap)))?;
    print_line(&format!("problems    {} better after, {} better before", found.won, found.lost))
}

fn file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(ANSWERS) } else { path.into() }
}
