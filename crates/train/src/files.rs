//! JSON files, folders and sums of a run.

use std::fs;
use std::path::Path;

use minke_sys::atomic;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The path that stands for standard input.
pub(crate) const STDIN: &str = "-";

/// Makes a file hold a value as JSON.
pub(crate) fn replace_json(path: &Path, value: &impl Serialize) -> Result<()> {
    Ok(atomic::replace(path, &json(value))?)
}

/// A value as indented JSON with a newline behind it.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("invariant: what is written is plain JSON");
    text.push(b'\n');
    text
}

/// The value in a JSON file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(Error::read(path))?;
    let bad = |error| Error::BadFile { path: path.into(), reason: format!("{error}; start over in another folder") };
    serde_json::from_slice(&text).map_err(bad)
}

/// Makes a folder, those above it included.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io("make", folder))
}

/// The SHA-256 of some bytes, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Bytes as hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
