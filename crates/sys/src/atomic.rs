//! Files and folders that appear whole or not at all: written beside their place under a hidden name, synced, renamed, and
//! the folder above synced. What a killed process left under the hidden name is overwritten by the next one.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file or folder that cannot be written.
#[derive(Debug)]
pub struct WriteError {
    /// Which one.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl WriteError {
    /// Makes the error of a path.
    pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { path: path.into(), source }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write {}: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for WriteError {}

/// The calls of the file system on whose order a loss of power depends; tests record them.
trait Disk {
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

struct RealDisk;

impl Disk for RealDisk {}

/// Replaces the contents of a file, or creates it.
///
/// # Errors
/// If it cannot be written; then the old contents stay.
pub fn replace(target: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    replace_with(target, |to| to.write_all(bytes).map_err(WriteError::at(target)))
}

/// Replaces the contents of a file by what `fill` writes, or creates it.
///
/// # Errors
/// Those of `fill`, or if it cannot be written; then the old contents stay.
pub fn replace_with<E: From<WriteError>>(
    target: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    replace_on(&RealDisk, target, fill)
}

fn replace_on<E: From<WriteError>>(
    disk: &impl Disk,
    target: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    let temporary = beside(target);
    let write = || -> Result<(), E> {
        let mut to = BufWriter::with_capacity(1 << 20, File::create(&temporary).map_err(WriteError::at(target))?);
        fill(&mut to)?;
        let file = to.into_inner().map_err(|error| WriteError::at(target)(error.into_error()))?;
        Ok(disk.sync(&file).map_err(WriteError::at(target))?)
    };
    write().inspect_err(|_| {
        // The disk may be full: half a file must not stay; that it cannot be removed either adds nothing.
        let _ = fs::remove_file(&temporary);
    })?;
    Ok(rename_on(disk, &temporary, target)?)
}

/// Gives a complete file, whose bytes are synced first, its final name.
///
/// # Errors
/// If it cannot be synced or renamed.
pub fn publish(file: &File, from: &Path, target: &Path) -> Result<(), WriteError> {
    RealDisk.sync(file).map_err(WriteError::at(from))?;
    rename(from, target)
}

/// Renames a file or folder such that the new name survives a loss of power.
///
/// # Errors
/// If it cannot be renamed, or its folder cannot be synced.
pub fn rename(from: &Path, target: &Path) -> Result<(), WriteError> {
    rename_on(&RealDisk, from, target)
}

fn rename_on(disk: &impl Disk, from: &Path, target: &Path) -> Result<(), WriteError> {
    let synced = disk.rename(from, target).and_then(|()| disk.sync_folder(parent(target)));
    synced.map_err(WriteError::at(target))
}

/// Creates a folder with everything that `fill` puts into it; `fill` syncs its files ([`write_new`]).
///
/// # Errors
/// Those of `fill`, or if the folder cannot be written or is there and not empty; then nothing stays.
pub fn create_folder<E: From<WriteError>>(target: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    folder_on(&RealDisk, target, false, fill)
}

/// Replaces a folder by one with everything that `fill` puts into it; `fill` syncs its files ([`write_new`]). The old one
/// is removed when the new one is complete.
///
/// # Errors
/// As [`create_folder`]; if `fill` fails, the old folder stays.
pub fn replace_folder<E: From<WriteError>>(target: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    folder_on(&RealDisk, target, true, fill)
}

fn folder_on<E: From<WriteError>>(
    disk: &impl Disk,
    target: &Path,
    replace: bool,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let temporary = beside(target);
    remove_folder(&temporary)?;
    fs::create_dir(&temporary).map_err(WriteError::at(target))?;
    let filled = fill(&temporary).and_then(|()| {
        disk.sync_folder(&temporary).map_err(WriteError::at(target))?;
        if replace {
            remove_folder(target)?;
        }
        Ok(rename_on(disk, &temporary, target)?)
    });
    filled.inspect_err(|_| {
        // As above.
        let _ = fs::remove_dir_all(&temporary);
    })
}

/// Writes and syncs a file, not atomically: for a folder that appears under its name later.
///
/// # Errors
/// If it cannot be written.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    write_on(&RealDisk, path, bytes)
}

fn write_on(disk: &impl Disk, path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        disk.sync(&file)
    };
    write().map_err(WriteError::at(path))
}

/// Copies and syncs a file, not atomically: for a folder that appears under its name later.
///
/// # Errors
/// If it cannot be read or written.
pub fn copy_new(from: &Path, path: &Path) -> Result<(), WriteError> {
    let copy = || {
        fs::copy(from, path)?;
        RealDisk.sync(&File::open(path)?)
    };
    copy().map_err(WriteError::at(path))
}

/// Removes a folder with all that is in it, if it is there.
///
/// # Errors
/// If it cannot be removed.
pub fn remove_folder(folder: &Path) -> Result<(), WriteError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(WriteError::at(folder)(error)),
        _ => Ok(()),
    }
}

fn beside(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.tmp"))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Does what the real disk does, notes it, and fails at the call with this number.
    #[derive(Default)]
    struct Recorder {
        calls: RefCell<Vec<String>>,
        fails_at: Option<usize>,
    }

    impl Recorder {
        fn note(&self, call: String) -> io::Result<()> {
            let mut calls = self.calls.borrow_mut();
            calls.push(call);
            if self.fails_at == Some(calls.len() - 1) { Err(io::Error::other("no space")) } else { Ok(()) }
        }
    }

    fn name(path: &Path) -> String {
        path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    impl Disk for Recorder {
        fn sync(&self, file: &File) -> io::Result<()> {
            self.note(format!("sync {} bytes", file.metadata()?.len()))?;
            RealDisk.sync(file)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.note(format!("rename {} {}", name(from), name(to)))?;
            RealDisk.rename(from, to)
        }

        fn sync_folder(&self, folder: &Path) -> io::Result<()> {
            self.note(format!("sync folder {}", name(folder)))?;
            RealDisk.sync_folder(folder)
        }
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let outer = tempfile::tempdir().expect("a temporary folder");
        let inner = outer.path().join("in");
        fs::create_dir(&inner).expect("created");
        (outer, inner)
    }

    fn entries(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).expect("readable").map(|entry| name(&entry.expect("an entry").path())).collect();
        names.sort();
        names
    }

    fn put(disk: &Recorder, target: &Path) -> Result<(), WriteError> {
        replace_on(disk, target, |to| to.write_all(b"new").map_err(WriteError::at(target)))
    }

    #[test]
    fn a_file_is_synced_before_it_is_renamed_and_its_folder_after() {
        let (_outer, inner) = folder();
        let disk = Recorder::default();
        put(&disk, &inner.join("a")).expect("written");
        assert_eq!(*disk.calls.borrow(), ["sync 3 bytes", "rename .a.tmp a", "sync folder in"]);
        assert_eq!((entries(&inner), fs::read(inner.join("a")).expect("read")), (vec!["a".into()], b"new".to_vec()));
    }

    #[test]
    fn a_folder_is_synced_with_its_files_before_it_is_renamed() {
        let (_outer, inner) = folder();
        for replace in [false, true] {
            let disk = Recorder::default();
            let fill = |to: &Path| write_on(&disk, &to.join("x"), b"12");
            folder_on(&disk, &inner.join("f"), replace, fill).expect("written");
            let calls = ["sync 2 bytes", "sync folder .f.tmp", "rename .f.tmp f", "sync folder in"];
            assert_eq!(*disk.calls.borrow(), calls);
            assert_eq!((entries(&inner), entries(&inner.join("f"))), (vec!["f".into()], vec!["x".into()]));
        }
        // A folder that is there is replaced only where that was asked for.
        let again = create_folder(&inner.join("f"), |to| write_new(&to.join("y"), b"3"));
        assert!(again.is_err() && entries(&inner) == ["f"] && entries(&inner.join("f")) == ["x"]);
    }

    #[test]
    fn where_it_fails_the_old_contents_or_the_new_ones_are_there() {
        for (fails_at, contents) in [(0, "old"), (1, "old"), (2, "new")] {
            let (_outer, inner) = folder();
            let target = inner.join("a");
            fs::write(&target, "old").expect("written");
            let disk = Recorder { fails_at: Some(fails_at), ..Recorder::default() };
            let error = put(&disk, &target).expect_err("it failed");
            assert_eq!(error.to_string(), format!("cannot write {}: no space", target.display()));
            assert_eq!(fs::read_to_string(&target).expect("there"), contents);
        }
        let (_outer, inner) = folder();
        let failed: Result<(), WriteError> = replace_folder(&inner.join("f"), |to| {
            fs::write(to.join("half"), "").map_err(WriteError::at(to))?;
            Err(WriteError::at(to)(io::Error::other("stopped")))
        });
        assert!(failed.is_err() && entries(&inner).is_empty());
    }
}
