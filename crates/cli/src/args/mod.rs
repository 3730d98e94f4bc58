//! The command line: one definition that parses arguments and from which help, completions and man pages are made.

mod common;
mod plan;
mod serve;
mod values;
mod verbs;

use clap::{CommandFactory, Parser};

pub use self::common::{Adapter, Compute, Model, Output, RunFolder};
pub use self::plan::{Assumed, Drawn, Plan, PlanFit, PlanTrain};
pub use self::serve::{Config, Serve, Settings};
pub use self::verbs::*;
use crate::error::Exit;

/// The DeepSeek-R1 system in one binary.
#[derive(Parser)]
#[command(name = "minke", version, disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
}

/// Parses the command line. `--help` and `--version` print and end the program here.
///
/// # Errors
/// A usage error of one line.
pub fn parse() -> anyhow::Result<Verb> {
    let parsed = CommandLine::try_parse().or_else(|error| {
        use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
        match error.kind() {
            DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
            _ => Err(Exit::Usage.because(one_line(&error.render().to_string()))),
        }
    })?;
    Ok(parsed.verb)
}

/// The definition of the command line.
pub fn definition() -> clap::Command {
    CommandLine::command()
}

/// An error of clap's, of many lines in a frame, on one line.
fn one_line(rendered: &str) -> String {
    let lines = rendered.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty() && !line.starts_with("For more")).collect();
    let text = lines.join(" ");
    format!("{}; see --help", text.trim_start_matches("error: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_sound() {
        definition().debug_assert();
    }
}
