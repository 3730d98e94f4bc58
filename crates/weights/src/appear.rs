//! How does a file or a folder appear whole or not at all? Written beside its place under a hidden name, synced, renamed.
//! What a killed program leaves under that name is overwritten by the next.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Makes a file appear with what `fill` writes.
///
/// # Errors
/// Those of `fill`, or if the file cannot be written; then nothing stays.
pub fn file<E: From<Error>>(
    target: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let temporary = beside(target);
    let write = || -> std::result::Result<(), E> {
        let mut to = BufWriter::with_capacity(1 << 20, File::create(&temporary).map_err(io(target))?);
        fill(&mut to)?;
        let file = to.into_inner().map_err(|error| io(target)(error.into_error()))?;
        Ok(file.sync_all().and_then(|()| fs::rename(&temporary, target)).map_err(io(target))?)
    };
    write().inspect_err(|_| {
        // The disk may be full: half a file must not stay; that it cannot be removed either adds nothing.
        let _ = fs::remove_file(&temporary);
    })?;
    Ok(sync(parent(target))?)
}

/// Makes a folder appear with what `fill` puts into it; it syncs its files itself.
///
/// # Errors
/// As [`file()`].
pub fn folder<E: From<Error>>(
    target: &Path,
    fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let temporary = beside(target);
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(io(&temporary))?;
    }
    fs::create_dir(&temporary).map_err(io(target))?;
    let filled = fill(&temporary)
        .and_then(|()| Ok(sync(&temporary)?))
        .and_then(|()| Ok(fs::rename(&temporary, target).map_err(io(target))?));
    filled.inspect_err(|_| {
        // As above.
        let _ = fs::remove_dir_all(&temporary);
    })?;
    Ok(sync(parent(target))?)
}

fn beside(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.tmp"))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io(folder))
}

/// Returns what makes an error of this path.
pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { path: path.into(), source }
}

/// Writes a file that is not there yet and syncs it; only for folders that nobody looks into yet.
///
/// # Errors
/// If it cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let run = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    run().map_err(io(path))
}
