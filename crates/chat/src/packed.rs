//! Packed copies of models in a folder: where they lie, and of which state of a model's files they are.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use minke_tensor::{Device, LAYOUT};
use minke_weights::{Archive, Packed};
use sha2::{Digest, Sha256};

use crate::Result;

/// A folder of packed copies.
#[derive(Clone, Debug)]
pub struct PackedFolder(pub PathBuf);

impl PackedFolder {
    /// Where the copy of a model lies, if the model has a path.
    pub fn path(&self, archive: &Archive) -> Option<PathBuf> {
        let path = fs::canonicalize(&archive.path).ok()?;
        let sum = Sha256::digest(path.as_os_str().as_encoded_bytes());
        let sum: String = sum[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Some(self.0.join(format!("{}-{sum}.packed", path.file_stem()?.display())))
    }

    /// The copy of a model as it is now, for a device; or why the one that is there is not used.
    ///
    /// # Errors
    /// That reason, in a line.
    pub fn find(&self, archive: &Archive, device: &Device) -> std::result::Result<Option<Packed>, String> {
        let Some(path) = self.path(archive).filter(|path| path.exists()) else { return Ok(None) };
        let packed = Packed::open(&path).map_err(|error| format!("packed copy not used: {error}"))?;
        if packed.state() == state(archive, device) {
            return Ok(Some(packed));
        }
        let path = path.display();
        Err(format!(
            "{path}: packed copy not used, the model or this machine has changed since; minke pack makes it anew"
        ))
    }

    /// Writes the copy of a model, which replaces an older one, and returns where. `progress` is called with the bytes that are done
    /// and returns whether to go on.
    ///
    /// # Errors
    /// If the model is malformed, the copy cannot be written, or `progress` returns false; then nothing has changed.
    pub fn pack(&self, archive: &Archive, device: &Device, progress: &dyn Fn(u64) -> bool) -> Result<PathBuf> {
        let io = |path: &Path, source| minke_weights::Error::Io { path: path.into(), source };
        fs::create_dir_all(&self.0).map_err(|error| io(&self.0, error))?;
        let path = self.path(archive).ok_or_else(|| io(&archive.path, std::io::ErrorKind::NotFound.into()))?;
        archive.pack(device, &state(archive, device), &path, progress)?;
        Ok(path)
    }
}

/// What a copy depends on: sizes and times of the model's files, and the layout for a device. To sum up the weights themselves
/// would take longer than to pack them.
fn state(archive: &Archive, device: &Device) -> String {
    let mut state = format!("layout {LAYOUT}, {}", device.name());
    for file in &archive.files {
        let changed = fs::metadata(&file.path).and_then(|data| data.modified()).ok();
        let since = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_nanos());
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        write!(state, "; {name} {} {since}", file.bytes.len()).expect("invariant: a text takes all");
    }
    state
}
