//! The headers of a model that was not downloaded: its files laid out in a folder with their true sizes, of the weights only
//! the beginnings. A reader of headers cannot tell them from the model.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::client::{Ask, Hub};
use crate::error::io;
use crate::pull::list;
use crate::{Error, ModelName, Result};

/// Bytes of a safetensors file that are asked for first; most headers are shorter.
const FIRST: u64 = 100 << 10;
/// Bytes of the longest header of safetensors that is fetched, and of a file that is fetched whole.
const LONGEST: u64 = 100 << 20;

/// A model of a server, laid out in a folder.
pub struct Preview<'a> {
    hub: &'a Hub,
    /// The folder, or the first GGUF file.
    path: PathBuf,
    weights: Vec<Weights>,
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gguf")
}

/// A file of weights.
struct Weights {
    what: String,
    address: String,
    path: PathBuf,
    /// Bytes from its beginning that are there.
    have: u64,
    /// Bytes of all of it; nothing before the first answer.
    size: Option<u64>,
}

impl<'a> Preview<'a> {
    /// Fetches the small files of a model into a folder that is empty.
    ///
    /// # Errors
    /// If the server does not have the model or cannot be reached, or a file cannot be written.
    pub fn new(hub: &'a Hub, name: &ModelName, folder: &Path) -> Result<Self> {
        let listing = list(hub, name)?;
        let mut weights = Vec::new();
        for file in &listing.files {
            let (what, path) = (format!("{}/{file}", name.repo), folder.join(file));
            let address = hub.file_address(&name.repo, &listing.commit, file);
            let parent = path.parent().expect("invariant: a file lies in its folder");
            fs::create_dir_all(parent).map_err(io("write", parent))?;
            if file.ends_with(".safetensors") || file.ends_with(".gguf") {
                weights.push(Weights { what, address, path, have: 0, size: None });
            } else {
                let (bytes, size) = part(hub, &what, &address, 0, LONGEST)?;
                if bytes.len() as u64 != size {
                    return Err(Error::Corrupt {
                        what,
                        reason: format!("has {size} bytes, more than such a file needs"),
                    });
                }
                fs::write(&path, bytes).map_err(io("write", &path))?;
            }
        }
        let gguf = weights.first().filter(|first| is_gguf(&first.path)).map(|first| first.path.clone());
        Ok(Self { hub, path: gguf.unwrap_or_else(|| folder.into()), weights })
    }

    /// Where the model seems to lie: the folder, or the first GGUF file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fetches the headers of safetensors, and so many bytes from the beginning of each GGUF file, whose header does
    /// not give its length. `say` is called with how many files of how many are done. Returns whether anything came.
    ///
    /// # Errors
    /// As [`Preview::new`].
    pub fn fetch(&mut self, bytes: u64, say: &mut dyn FnMut(usize, usize)) -> Result<bool> {
        let (mut came, count) = (false, self.weights.len());
        for (i, file) in self.weights.iter_mut().enumerate() {
            let before = file.have;
            match is_gguf(&file.path) {
                true => file.extend(self.hub, bytes)?,
                false => {
                    let start = file.extend(self.hub, FIRST)?;
                    let header = start.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
                    file.extend(self.hub, header.saturating_add(8).min(LONGEST))?
                }
            };
            came |= file.have > before;
            say(i + 1, count);
        }
        Ok(came)
    }
}

impl Weights {
    /// Makes so many bytes of the file be there, and returns those that came.
    fn extend(&mut self, hub: &Hub, to: u64) -> Result<Vec<u8>> {
        let to = self.size.map_or(to, |size| size.min(to));
        if self.have >= to {
            return Ok(Vec::new());
        }
        let (bytes, size) = part(hub, &self.what, &self.address, self.have, to - self.have)?;
        let write = || {
            let mut file = File::options().write(true).create(true).truncate(false).open(&self.path)?;
            file.set_len(size)?;
            file.seek(SeekFrom::Start(self.have))?;
            file.write_all(&bytes)
        };
        write().map_err(io("write", &self.path))?;
        (self.have, self.size) = (self.have + bytes.len() as u64, Some(size));
        Ok(bytes)
    }
}

/// Requests bytes of a file, and returns what came of them and the size of the file.
fn part(hub: &Hub, what: &str, address: &str, first: u64, bytes: u64) -> Result<(Vec<u8>, u64)> {
    hub.answer(what, address, Ask::Part(first, bytes), |mut response| {
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let (skip, size) = match response.status().as_u16() {
            206 => {
                let range = header("content-range").and_then(|range| range.strip_prefix("bytes ")?.split_once('/'));
                let (range, size) = range.ok_or("the server does not say which part it sends")?;
                if range.split('-').next() != Some(first.to_string().as_str()) {
                    return Err("the server sent another part than was asked for".into());
                }
                (0, size.parse().ok())
            }
            // The whole file, whatever was asked for.
            _ => (first, header("content-length").and_then(|size| size.parse().ok())),
        };
        let size: u64 = size.ok_or("the server does not say how long the file is")?;
        let wanted = bytes.min(size.saturating_sub(first));
        let mut body = std::io::Read::take(response.body_mut().as_reader(), skip + wanted);
        let mut part = Vec::new();
        std::io::Read::read_to_end(&mut body, &mut part).map_err(|error| error.to_string())?;
        if part.len() as u64 != skip + wanted {
            return Err("the connection ended early".into());
        }
        part.drain(..skip as usize);
        Ok(Ok((part, size)))
    })
}
