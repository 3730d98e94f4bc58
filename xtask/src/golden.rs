//! The test data: `testdata/manifest.json` states the origin of every file; this rebuilds and verifies them.
//!
//! The manifest is a list of groups. A group is made by one command (run by bash in the root of the repository), or is
//! a copy of published data and has none:
//!
//! ```json
//! {
//!   "groups": [
//!     {
//!       "command": "python3 testdata/make/tiny_v3.py",
//!       "files": { "tiny-v3/logits.json": "sha256 in hexadecimal" },
//!       "licence": "MIT OR Apache-2.0",
//!       "needs": "a Python venv with testdata/make/requirements.txt",
//!       "source": "random weights through transformers' DeepseekV3ForCausalLM in f64"
//!     }
//!   ]
//! }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::relative;
use crate::source::{files, read};

const FOLDER: &str = "testdata";
const MANIFEST: &str = "testdata/manifest.json";

/// One line for each file that is unlisted, missing or changed, and each group that does not say its origin.
///
/// # Errors
/// If the manifest or a file cannot be read.
pub fn complaints(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut listed = BTreeSet::new();
    for group in groups(&manifest(root)?)? {
        for key in ["source", "licence"] {
            if group[key].as_str().is_none_or(|text| text.trim().is_empty()) {
                let first = hashes(group)?.into_keys().next().unwrap_or_default();
                found.push(format!("{MANIFEST}: the group of {first} has no `{key}`"));
            }
        }
        for (name, expected) in hashes(group)? {
            match std::fs::read(root.join(FOLDER).join(&name)) {
                Err(_) => found.push(format!("{FOLDER}/{name} is listed and missing: rebuild it or take its line out")),
                Ok(bytes) if sha256(&bytes) != expected => {
                    found.push(format!(
                        "{FOLDER}/{name} is not what {MANIFEST} says: restore it, or `cargo xtask golden --record`"
                    ));
                }
                Ok(_) => {}
            }
            if !listed.insert(name.clone()) {
                found.push(format!("{MANIFEST} lists {name} twice"));
            }
        }
    }
    for path in files(&root.join(FOLDER))? {
        let name = relative(&root.join(FOLDER), &path);
        if !listed.contains(&name) && relative(root, &path) != MANIFEST {
            found.push(format!("{FOLDER}/{name} is not in {MANIFEST}: add it with source, licence and command"));
        }
    }
    Ok(found)
}

/// Runs the command of every group, or of the one that lists a file, then records the hashes of what they made and prints
/// which files changed.
///
/// # Errors
/// If a command fails; the message says what it needs. If no command makes the file.
pub fn rebuild(root: &Path, only: Option<&str>) -> Result<()> {
    let manifest = manifest(root)?;
    let mut made = Vec::new();
    for group in groups(&manifest)? {
        let wanted = only.map_or(Ok(true), |file| hashes(group).map(|files| files.contains_key(file)))?;
        made.extend(group["command"].as_str().filter(|_| wanted).map(|command| (command, group["needs"].as_str())));
    }
    if let (Some(file), true) = (only, made.is_empty()) {
        bail!("no command of {MANIFEST} makes {file:?}; name a file as it stands there");
    }
    let needs: BTreeSet<&str> = made.iter().filter_map(|(_, needs)| *needs).collect();
    needs.iter().for_each(|need| println!("needs: {need}"));
    for (command, needs) in made {
        println!("run: {command}");
        let mut bash = Command::new("bash");
        // Python's byte code would lie in testdata/ as unlisted files.
        bash.args(["-c", command]).current_dir(root).env("PYTHONDONTWRITEBYTECODE", "1");
        if !bash.status().context("cannot start bash")?.success() {
            bail!("`{command}` failed; it needs {}", needs.unwrap_or("nothing but what it names itself"));
        }
    }
    record(root)
}

/// Writes the hashes of the listed files into the manifest and prints which changed.
///
/// # Errors
/// If a listed file is missing or the manifest cannot be written.
pub fn record(root: &Path) -> Result<()> {
    let mut manifest = manifest(root)?;
    let groups = manifest["groups"].as_array_mut().context("the manifest has no `groups`")?;
    for (name, hash) in groups.iter_mut().filter_map(|g| g["files"].as_object_mut()).flatten() {
        let path = root.join(FOLDER).join(name);
        let new = sha256(&std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        if *hash != new {
            println!("changed: {FOLDER}/{name}");
            *hash = Value::String(new);
        }
    }
    std::fs::write(root.join(MANIFEST), serde_json::to_string_pretty(&manifest)? + "\n")
        .with_context(|| format!("cannot write {MANIFEST}"))
}

fn manifest(root: &Path) -> Result<Value> {
    serde_json::from_str(&read(&root.join(MANIFEST))?).with_context(|| format!("{MANIFEST} is not JSON"))
}

fn groups(manifest: &Value) -> Result<&Vec<Value>> {
    manifest["groups"].as_array().with_context(|| format!("{MANIFEST} has no list `groups`"))
}

/// The files of a group and their hashes.
fn hashes(group: &Value) -> Result<BTreeMap<String, String>> {
    let files = group["files"].as_object().with_context(|| format!("{MANIFEST}: a group has no `files`"))?;
    Ok(files.iter().map(|(name, hash)| (name.clone(), hash.as_str().unwrap_or_default().to_string())).collect())
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn folder(manifest: &str, files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("testdata/deep")).unwrap();
        std::fs::write(root.path().join(MANIFEST), manifest).unwrap();
        files.iter().for_each(|f| std::fs::write(root.path().join("testdata").join(f), "abc").unwrap());
        root
    }

    fn group(files: &str) -> String {
        format!(r#"{{"groups": [{{"files": {{{files}}}, "licence": "MIT", "source": "here"}}]}}"#)
    }

    #[test]
    fn every_kind_of_disorder_is_named() {
        let whole = format!(r#""deep/a.txt": "{ABC}""#);
        let cases: [(String, &[&str], &str); 5] = [
            (group(&whole), &["deep/a.txt"], ""),
            (group(&whole), &["deep/a.txt", "b.txt"], "b.txt is not in"),
            (group(&whole), &[], "deep/a.txt is listed and missing"),
            (group(r#""deep/a.txt": "00""#), &["deep/a.txt"], "deep/a.txt is not what"),
            (group(&whole).replace("MIT", " "), &["deep/a.txt"], "has no `licence`"),
        ];
        for (manifest, files, expected) in cases {
            let found = complaints(folder(&manifest, files).path()).unwrap().join("; ");
            assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{expected}: {found}");
        }
    }

    #[test]
    fn recorded_files_verify() {
        let root = folder(&group(r#""deep/a.txt": """#), &["deep/a.txt"]);
        assert_eq!(complaints(root.path()).unwrap().len(), 1);
        record(root.path()).unwrap();
        assert_eq!(complaints(root.path()).unwrap(), [""; 0]);
        assert!(std::fs::read_to_string(root.path().join(MANIFEST)).unwrap().contains(ABC));
    }

    #[test]
    fn a_failing_command_says_what_it_needs() {
        let manifest = group("").replace(r#""source""#, r#""command": "exit 3", "needs": "a wish", "source""#);
        let error = rebuild(folder(&manifest, &[]).path(), None).unwrap_err().to_string();
        assert!(error.contains("exit 3") && error.contains("a wish"), "{error}");
    }

    #[test]
    fn one_file_can_be_remade_alone() {
        let remade = group(r#""deep/a.txt": """#)
            .replace(r#""licence""#, r#""command": "printf abc > testdata/deep/a.txt", "licence""#);
        let other = r#"{"command": "exit 3", "files": {}}]}"#;
        let root = folder(&remade.replace("]}", &format!(", {other}")), &[]);
        rebuild(root.path(), Some("deep/a.txt")).unwrap();
        assert!(std::fs::read_to_string(root.path().join(MANIFEST)).unwrap().contains(ABC));
        assert!(rebuild(root.path(), Some("b.txt")).unwrap_err().to_string().contains("b.txt"));
    }
}
