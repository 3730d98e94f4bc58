//! Versions of a policy on their way from the run that trains it to the workers that sample from it: a folder with a subfolder of
//! weights for each version, and one small file that says which is the current one.
//!
//! ```text
//! FOLDER/policy.json        the current version, with a sum of each of its files; replaced when the version is whole
//! FOLDER/3fa90c1b-12/       weights as they are published elsewhere: a model, or an adapter alone
//! ```
//!
//! A version appears under its name when all of it is on the disk, and `policy.json` names it after that. Where something else carries
//! the folder to another machine, in whatever order, the sums say whether a version is whole.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use minke_sys::atomic;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::contents::bad;
use crate::{Error, Result};

/// The file that names the current version.
const POLICY_FILE: &str = "policy.json";

/// Which policy weights are. As a text `3fa90c1b-12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PolicyVersion {
    /// What tells the stage of the run that made it from others.
    pub run: u32,
    /// How many steps of data the run had gone through: a later version has a larger number.
    pub number: u64,
}

impl fmt::Display for PolicyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.run, self.number)
    }
}

impl FromStr for PolicyVersion {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parts = text.split_once('-').filter(|(run, _)| run.len() == 8);
        let read = |(run, number): (&str, &str)| {
            Some(Self { run: u32::from_str_radix(run, 16).ok()?, number: number.parse().ok()? })
        };
        let version = parts.and_then(read).filter(|version| version.to_string() == text);
        version.ok_or_else(|| format!("{text:?} is no version of a policy, which looks like 3fa90c1b-12"))
    }
}

impl TryFrom<String> for PolicyVersion {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl From<PolicyVersion> for String {
    fn from(version: PolicyVersion) -> Self {
        version.to_string()
    }
}

/// The version that a folder has now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Current {
    version: PolicyVersion,
    /// SHA-256 of its files by their names.
    files: BTreeMap<String, String>,
}

/// Makes what `fill` writes the current version of a folder. The one before it stays, for those that are reading it; older ones go.
///
/// # Errors
/// Those of `fill`, or if a file cannot be written; then the version before stays the current one.
pub fn publish<E: From<Error> + From<atomic::WriteError>>(
    folder: &Path,
    version: PolicyVersion,
    fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    std::fs::create_dir_all(folder).map_err(at(folder))?;
    // What cannot be read is replaced.
    let before = current(folder).ok().flatten();
    let inside = folder.join(version.to_string());
    atomic::replace_folder(&inside, fill)?;
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(&inside).map_err(at(&inside))? {
        let name = entry.map_err(at(&inside))?.file_name().to_string_lossy().into_owned();
        let sum = sum(&inside.join(&name))?;
        files.insert(name, sum);
    }
    let text = serde_json::to_vec_pretty(&Current { version, files }).expect("invariant: texts are plain JSON");
    atomic::replace(&folder.join(POLICY_FILE), &text)?;
    let kept = [Some(version), before.map(|before| before.version)];
    for entry in std::fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        let found = path.file_name().and_then(|name| name.to_string_lossy().parse().ok());
        if found.is_some() && !kept.contains(&found) {
            atomic::remove_folder(&path)?;
        }
    }
    Ok(())
}

/// The current version of a folder; nothing where none was published yet.
///
/// # Errors
/// If the file that names it cannot be read.
pub fn current_version(folder: &Path) -> Result<Option<PolicyVersion>> {
    Ok(current(folder)?.map(|current| current.version))
}

/// The current version of a folder and where it lies, once all of it is there.
///
/// # Errors
/// If there is none, or a file of it is missing or is not the one that was published.
pub fn whole_version(folder: &Path) -> Result<(PolicyVersion, PathBuf)> {
    let Some(Current { version, files }) = current(folder)? else {
        return Err(bad(folder, format!("has no {POLICY_FILE}; name the folder in which a run publishes its policy")));
    };
    let inside = folder.join(version.to_string());
    for (name, expected) in &files {
        // A name leads nowhere else.
        let plain = Path::new(name).file_name().is_some_and(|plain| plain == name.as_str());
        if !plain || sum(&inside.join(name))? != *expected {
            return Err(bad(
                &inside.join(name),
                "is not the file that was published; it is still on its way, or damaged",
            ));
        }
    }
    Ok((version, inside))
}

fn current(folder: &Path) -> Result<Option<Current>> {
    let path = folder.join(POLICY_FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(&path)(error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| bad(&path, format!("names no version: {error}")))
}

fn sum(path: &Path) -> Result<String> {
    let mut sum = Sha256::new();
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(at(path))?);
    loop {
        let bytes = file.fill_buf().map_err(at(path))?;
        if bytes.is_empty() {
            break;
        }
        sum.update(bytes);
        let read = bytes.len();
        file.consume(read);
    }
    Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64) -> PolicyVersion {
        PolicyVersion { run: 0x3fa9_0c1b, number }
    }

    fn publish_text(folder: &Path, number: u64, text: &str) {
        let fill = |inside: &Path| Ok::<_, Error>(atomic::write_new(&inside.join("a"), text.as_bytes())?);
        publish(folder, version(number), fill).unwrap();
    }

    fn versions(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.filter(|name| name != POLICY_FILE).collect();
        names.sort();
        names
    }

    #[test]
    fn a_version_is_its_text() {
        assert_eq!(version(12).to_string(), "3fa90c1b-12");
        assert_eq!("3fa90c1b-12".parse(), Ok(version(12)));
        for wrong in ["", "12", "3fa90c1-12", "3fa90c1b-", "3fa90c1b-x", "3FA90C1B-1", "3fa90c1b-01", "+fa90c1b-1"] {
            assert!(wrong.parse::<PolicyVersion>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_current_version_and_the_one_before_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("policy");
        assert_eq!(current_version(&at).unwrap(), None);
        assert!(whole_version(&at).unwrap_err().to_string().contains("has no policy.json"));
        for number in [0, 1, 2, 7] {
            publish_text(&at, number, &format!("weights {number}"));
            let (current, inside) = whole_version(&at).unwrap();
            assert_eq!(current, version(number));
            assert_eq!(std::fs::read_to_string(inside.join("a")).unwrap(), format!("weights {number}"));
        }
        assert_eq!(versions(&at), ["3fa90c1b-2", "3fa90c1b-7"]);
        // A run that went back publishes a smaller number, and that is the current one.
        publish_text(&at, 5, "weights 5");
        assert_eq!(current_version(&at).unwrap(), Some(version(5)));
        assert_eq!(versions(&at), ["3fa90c1b-5", "3fa90c1b-7"]);
    }

    #[test]
    fn what_is_half_there_is_no_version() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        publish_text(at, 1, "weights 1");
        // A writer that ends in the middle leaves the version before.
        let fill = |inside: &Path| {
            atomic::write_new(&inside.join("a"), b"wei").unwrap();
            Err(bad(inside, "the disk is full"))
        };
        publish(at, version(2), fill).unwrap_err();
        assert_eq!((whole_version(at).unwrap().0, versions(at)), (version(1), vec!["3fa90c1b-1".into()]));
        // What carries the folder elsewhere may bring the name before the files, and files in part.
        std::fs::write(at.join("3fa90c1b-1/a"), "weigh").unwrap();
        let refused = whole_version(at).unwrap_err().to_string();
        assert!(refused.contains("is not the file that was published"), "{refused}");
        std::fs::remove_file(at.join("3fa90c1b-1/a")).unwrap();
        whole_version(at).unwrap_err();
        std::fs::write(at.join(POLICY_FILE), "{\"version\": \"3fa90c1b-1\", \"files\": {\"../policy.json\": \"\"}}")
            .unwrap();
        whole_version(at).unwrap_err();
        std::fs::write(at.join(POLICY_FILE), "{\"version\"").unwrap();
        assert!(current_version(at).unwrap_err().to_string().contains("names no version"));
    }
}
