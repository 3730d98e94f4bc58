//! Words that may stand only in certain places: `unsafe`, `cfg(feature)`, reading the environment, devices by name.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use crate::source::{Token, closing, project_files, read, tokens, without_tests};
use crate::{metadata, relative};

/// Where `unsafe` may stand (I2).
const UNSAFE: [&str; 2] = ["crates/kernels/", "crates/sys/"];
/// Where the environment may be read (I10). `xtask` is a tool of the project and no part of the program.
const ENVIRONMENT: [&str; 2] = [READS, "xtask/"];
/// The file of the program that reads it.
const READS: &str = "crates/cli/src/environment.rs";
/// Where a device may be named: elsewhere one is opened by its name as text and given to operations (I3).
const DEVICES: &str = "crates/kernels/";
/// The variants of `minke_kernels::Device`.
const DEVICE_VARIANTS: [&str; 2] = ["Cpu", "Reference"];
/// How many `cfg(feature)` the workspace may have: the one that will switch a device on (I11).
const FEATURES: usize = 1;

/// One line for each word that stands where it may not.
///
/// # Errors
/// If the sources cannot be read or cargo fails.
pub fn complaints(root: &Path) -> Result<Vec<String>> {
    let (mut found, mut features) = (Vec::new(), Vec::new());
    for path in project_files(root)? {
        let name = relative(root, &path);
        let all = tokens(&read(&path)?);
        if !may_be_unsafe(&name) {
            found.extend(lines_of(&all, "unsafe").map(|line| {
                let places = UNSAFE.join(" and ");
                format!("{name}:{line}: `unsafe` outside {places}: move it there or use a safe library (I2)")
            }));
        }
        if !name.starts_with(DEVICES) {
            found.extend(devices_of(&all).map(|line| {
                format!("{name}:{line}: names a device: only {DEVICES} may, move the operation there (I3)")
            }));
        }
        if name.contains("/src/") && !ENVIRONMENT.iter().any(|place| name.starts_with(place)) {
            found.extend(environment_reads(&without_tests(&all)).map(|line| {
                format!("{name}:{line}: reads the environment: only {READS} may, pass the value down (I10)")
            }));
        }
        features.extend(features_of(&all).map(|line| format!("{name}:{line}")));
    }
    if features.len() > FEATURES {
        found.push(format!(
            "{} cfg(feature) in the workspace, {FEATURES} allowed (I11): {}",
            features.len(),
            features.join(", ")
        ));
    }
    found.extend(missing_lints(root)?);
    found.extend(unnamed_variables(&read(&root.join(READS))?, &read(&root.join("ARCHITECTURE.md"))?));
    Ok(found)
}

/// One line for each variable that is read and not named by I10, or named and not read.
fn unnamed_variables(source: &str, page: &str) -> Vec<String> {
    let is_variable =
        |word: &&str| word.len() > 3 && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let read: BTreeSet<&str> = code.split('"').filter(is_variable).collect();
    let row = page.lines().find(|line| line.starts_with("| I10 |")).unwrap_or_default();
    let named: BTreeSet<&str> = row.split('`').filter(is_variable).collect();
    let line = |variable: &&str| {
        let what = if read.contains(variable) { "is read and not named" } else { "is named and not read" };
        format!("ARCHITECTURE.md: I10: {variable} {what} in {READS}")
    };
    read.symmetric_difference(&named).map(line).collect()
}

fn may_be_unsafe(name: &str) -> bool {
    UNSAFE.iter().any(|place| name.starts_with(place))
}

/// One line for each package that does not take the lints of the workspace, which forbid `unsafe`.
fn missing_lints(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for package in metadata(root)? {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let name = relative(root, manifest);
        if !may_be_unsafe(&name) && !read(manifest)?.contains("[lints]\nworkspace = true") {
            found.push(format!(
                "{name}: add `[lints]` with `workspace = true`, so that `unsafe` is forbidden here too (I2)"
            ));
        }
    }
    Ok(found)
}

fn lines_of<'a>(all: &'a [Token], word: &'a str) -> impl Iterator<Item = usize> + 'a {
    all.iter().filter(move |t| t.text == word).map(|t| t.line)
}

fn environment_reads(all: &[Token]) -> impl Iterator<Item = usize> + '_ {
    all.windows(3)
        .filter(|w| w[0].text == "env" && w[1].text == "::" && ["var", "var_os", "vars"].contains(&w[2].text.as_str()))
        .map(|w| w[0].line)
}

fn devices_of(all: &[Token]) -> impl Iterator<Item = usize> + '_ {
    all.windows(3)
        .filter(|w| w[0].text == "Device" && w[1].text == "::" && DEVICE_VARIANTS.contains(&w[2].text.as_str()))
        .map(|w| w[0].line)
}

fn features_of(all: &[Token]) -> impl Iterator<Item = usize> + '_ {
    let is_cfg = |t: &Token| t.text == "cfg" || t.text == "cfg_attr";
    all.iter().enumerate().filter(move |(_, t)| is_cfg(t)).flat_map(|(i, _)| {
        let open = i + 1 + usize::from(all.get(i + 1).is_some_and(|t| t.text == "!"));
        let inside = &all[open.min(all.len())..closing(all, open)];
        inside.windows(2).filter(|w| w[0].text == "feature" && w[1].text == "=").map(|w| w[0].line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_features_of_cfg_count() {
        let cases = [
            ("#[cfg(feature = \"cuda\")] mod a;", 1),
            ("#[cfg(all(unix, not(feature = \"x\")))] mod a;", 1),
            ("if cfg!(feature = \"x\") {}", 1),
            ("#[cfg_attr(feature = \"x\", allow(y))] fn f() {}", 1),
            ("#[target_feature(enable = \"avx2\")] fn f() {}", 0),
            ("#[cfg(target_feature = \"avx2\")] fn f() {}", 0),
            ("let feature = 1; // cfg(feature = \"x\")", 0),
        ];
        for (text, expected) in cases {
            assert_eq!(features_of(&tokens(text)).count(), expected, "{text}");
        }
    }

    #[test]
    fn variables_are_named_where_they_are_read() {
        let page = "| I9 | `HF_HOME` |\n| I10 | `HOME`, `MINKE_LOG`, and (`NO_COLOR`) |\n";
        let source = "variable(\"HOME\"); variable(\"EDITOR\"); \"NO_COLOR\" #[cfg(test)] \"TESTED\"";
        let lines = unnamed_variables(source, page);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("EDITOR is read") && lines[1].contains("MINKE_LOG is named"), "{lines:?}");
    }

    #[test]
    fn a_device_is_named_by_its_variant() {
        let text = "let Device::Cpu(cpu) = x; Device::open(\"cpu\", 1); Device::cpu(1, isa) // Device::Cpu\n Device::Reference(_)";
        assert_eq!(devices_of(&tokens(text)).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn the_environment_is_read_by_function_and_not_by_macro() {
        assert_eq!(
            environment_reads(&tokens("std::env::var(\"A\"); env::var_os(x); env!(\"B\"); env::temp_dir()")).count(),
            2
        );
    }
}
