//! How is a file written so that no reader ever sees half of it?

use crate::{Error, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| Error::Io { action: "read", path: path.into(), source })
}

/// Writes `folder/name` beside its place, syncs it, renames it and syncs the folder; makes the folder where it is missing.
pub(crate) fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let temporary = folder.join(format!(".{name}.tmp"));
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, folder.join(name))?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| {
        // The disk may be full: the half-written file must not stay; that it cannot be removed either adds nothing.
        let _ = fs::remove_file(&temporary);
        Error::Io { action: "write", path: folder.join(name), source }
    })
}
