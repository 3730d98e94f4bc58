//! How does a file appear whole or not at all? Written beside, synced, renamed, and the folder synced.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Writes a new file and syncs it; only for folders that nobody looks into yet.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(Error::io("write", path))
}

/// Makes a file hold these bytes: before, or after, never something between.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().expect("invariant: the path of a file has a name").to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    write(&temporary, bytes).inspect_err(|_| {
        // The disk may be full: half a file must not stay; that it cannot be removed either adds nothing.
        let _ = fs::remove_file(&temporary);
    })?;
    fs::rename(&temporary, path).map_err(Error::io("write", path))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Makes a file hold a value as JSON.
pub(crate) fn replace_json(path: &Path, value: &impl Serialize) -> Result<()> {
    replace(path, &json(value))
}

/// Returns a value as indented JSON with a newline behind it.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("invariant: what is written is plain JSON");
    text.push(b'\n');
    text
}

/// Returns the value in a JSON file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    let bad = |error| Error::BadFile { path: path.into(), reason: format!("{error}; start over in another folder") };
    serde_json::from_slice(&text).map_err(bad)
}

/// Makes a folder appear under its name with everything that `fill` puts into it. An older folder of that name goes.
pub(crate) fn replace_folder(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = folder.file_name().expect("invariant: the path of a folder has a name").to_string_lossy();
    let parent = folder.parent().unwrap_or(Path::new("."));
    let temporary = parent.join(format!(".{name}.tmp"));
    remove_folder(&temporary)?;
    fs::create_dir_all(&temporary).map_err(Error::io("make", &temporary))?;
    let filled = fill(&temporary).and_then(|()| sync_folder(&temporary));
    if filled.is_err() {
        // As above.
        let _ = fs::remove_dir_all(&temporary);
    }
    filled?;
    remove_folder(folder)?;
    fs::rename(&temporary, folder).map_err(Error::io("write", folder))?;
    sync_folder(parent)
}

/// Removes a folder with all that is in it, if it is there.
pub(crate) fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", folder)(error)),
        _ => Ok(()),
    }
}

/// Makes a folder, those above it included.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io("make", folder))
}

/// Makes the names in a folder outlive a loss of power.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", folder))
}

/// Returns the SHA-256 of some bytes, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
