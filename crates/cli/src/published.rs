//! What is known of a model before it is downloaded: from the table of known models, or from the headers that a server has.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use minke_hub::{Hub, ModelName, Preview};
use minke_spec::params::published_files;
use minke_spec::presets::known;
use minke_weights::{Archive, TensorEntry};
use tempfile::TempDir;

use crate::environment;
use crate::error::Exit;
use crate::progress::Bar;

/// Bytes from the beginning of a GGUF file that are fetched, one after the other until its header is whole.
const BEGINNINGS: [u64; 5] = [1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26];

/// The headers of a model of the Hub.
pub struct Published {
    /// What they say; its path is the name.
    pub archive: Archive,
    /// Where they lie, if they were fetched.
    _folder: Option<TempDir>,
}

/// The headers that are published under a name. `error` is the error if nothing is known and no server may be asked.
///
/// # Errors
/// If the server does not have it or cannot be reached, or its headers are broken.
pub fn headers(name: &ModelName, error: anyhow::Error) -> Result<Published> {
    if let Some(archive) = of_table(name) {
        eprintln!("minke: {name}: not downloaded; its sizes are those of the table of known models");
        return Ok(Published { archive, _folder: None });
    }
    if environment::is_offline() {
        return Err(error);
    }
    let hub = Hub::new(&environment::endpoint(), environment::token())?;
    let folder = tempfile::Builder::new().prefix("minke-").tempdir()?;
    let mut preview = Preview::new(&hub, name, folder.path())?;
    let mut last = None;
    for bytes in BEGINNINGS {
        let mut bar: Option<Bar> = None;
        preview.fetch(bytes, &mut |done, count| {
            bar.get_or_insert_with(|| Bar::new("headers", 0, count as u64)).set(done as u64, "");
        })?;
        let opened = Archive::open(preview.path()).and_then(|archive| archive.check_weights().map(|()| archive));
        match opened {
            Ok(mut archive) => {
                eprintln!(
                    "minke: {name}: not downloaded; its sizes are those of the headers that {} has",
                    environment::endpoint()
                );
                archive.path = PathBuf::from(name.to_string());
                return Ok(Published { archive, _folder: Some(folder) });
            }
            // More bytes would not change it.
            Err(error) if last.as_ref() == Some(&error.to_string()) => return Err(error.into()),
            Err(error) => last = Some(error.to_string()),
        }
    }
    Err(Exit::BadFile.because(format!("{name}: its headers cannot be read: {}", last.unwrap_or_default())))
}

/// The tensors of a known model as it is published; nothing for one that is not known, or a quantization of it.
fn of_table(name: &ModelName) -> Option<Archive> {
    let is_published = name.quant.is_none() && name.revision.as_deref().is_none_or(|revision| revision == "main");
    let config = known(&name.repo).filter(|_| is_published)?;
    let (mut tensors, mut end) = (BTreeMap::new(), 0);
    for (tensor, format, shape) in published_files(&config) {
        let start = end;
        end += format.bytes(shape.iter().product());
        tensors.insert(tensor, TensorEntry { dtype: format.name().into(), shape, file: 0, range: start..end });
    }
    let path = PathBuf::from(name.to_string());
    Some(Archive {
        path,
        config,
        unknown_keys: Vec::new(),
        notes: Vec::new(),
        files: Vec::new(),
        tensors,
        metadata: None,
    })
}
