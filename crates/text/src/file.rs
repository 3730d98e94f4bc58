//! Text files beside a model.

use std::fs;
use std::path::Path;

use minke_sys::atomic::{self, WriteError};

use crate::{Error, Result};

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })
}

/// Replaces `folder/name`; makes the folder where it is missing.
pub(crate) fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    fs::create_dir_all(folder).map_err(WriteError::at(folder))?;
    Ok(atomic::replace(&folder.join(name), text.as_bytes())?)
}
