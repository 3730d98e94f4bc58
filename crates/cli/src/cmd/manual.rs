//! Completions for shells and pages for `man`, made from the definition that also parses the commands.

use std::path::Path;

use anyhow::{Context, Result};
use clap_complete::Shell;

use crate::args::definition;

/// Runs `minke completions`.
pub fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut definition(), "minke", &mut script);
    std::io::Write::write_all(&mut std::io::stdout(), &script).context("cannot write to standard output")
}

/// Runs `minke man`.
pub fn pages(folder: &Path) -> Result<()> {
    let written = clap_mangen::generate_to(definition(), folder);
    written.with_context(|| format!("cannot write man pages to {}; does the folder exist?", folder.display()))
}
