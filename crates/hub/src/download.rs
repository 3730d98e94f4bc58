//! The download of a file: written beside its place, continued where it stopped, and put in its place once its hash is
//! the one that the server announced.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use minke_sys::atomic;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use ureq::http::HeaderMap;

use crate::client::{ATTEMPTS, Ask, Hub, pause, refusal};
use crate::error::io;
use crate::{Error, Result};

/// Downloads of a whole file that end with another hash.
const WHOLE_ATTEMPTS: u32 = 3;

/// Hash and size of a file, which a server announces before it sends it.
#[derive(Clone, Debug)]
pub(crate) struct Announced {
    pub etag: String,
    pub size: u64,
}

impl Announced {
    fn of(headers: &HeaderMap) -> std::result::Result<Self, String> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let etag = text("x-linked-etag").or_else(|| text("etag")).ok_or("the server does not say its hash")?;
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        // It becomes the name of a file.
        if etag.is_empty() || etag.len() > 128 || !etag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(format!("the server says {etag:?}, which is no hash"));
        }
        let size = text("x-linked-size").or_else(|| text("content-length")).and_then(|size| size.parse().ok());
        Ok(Self { etag: etag.to_ascii_lowercase(), size: size.ok_or("the server does not say its size")? })
    }
}

/// The hash that an etag is, while the bytes come in.
enum Hash {
    Sha256(Sha256),
    /// Of a blob of git: its kind, its size, its contents.
    Git(Sha1),
    /// The etag is something else; only the size can be compared.
    None,
}

impl Hash {
    fn new(announced: &Announced) -> Self {
        let hex = announced.etag.chars().all(|c| c.is_ascii_hexdigit());
        match announced.etag.len() {
            64 if hex => Self::Sha256(Sha256::new()),
            40 if hex => Self::Git(Sha1::new_with_prefix(format!("blob {}\0", announced.size))),
            _ => Self::None,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Git(hash) => hash.update(bytes),
            Self::None => {}
        }
    }

    fn is(self, etag: &str) -> bool {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match self {
            Self::Sha256(hash) => hex(&hash.finalize()) == etag,
            Self::Git(hash) => hex(&hash.finalize()) == etag,
            Self::None => true,
        }
    }
}

/// Hash and size of a file, as the server announces them.
pub(crate) fn announced(hub: &Hub, what: &str, address: &str) -> Result<Announced> {
    hub.answer(what, address, Ask::Head, |response| {
        Ok(Announced::of(response.headers()).map_err(|reason| Error::Corrupt { what: what.into(), reason }))
    })
}

/// Downloads a file to `blob`; `arrived` is called with the number of bytes that are there, which never falls.
pub(crate) fn download(
    hub: &Hub,
    (what, address): (&str, &str),
    announced: &Announced,
    blob: &Path,
    arrived: &mut dyn FnMut(u64),
) -> Result<()> {
    let path = blob.with_added_extension("incomplete");
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = file.map_err(io("write", &path))?;
    if file.try_lock().is_err() {
        let reason = "is being downloaded by another process; wait for it".into();
        return Err(Error::Refused { what: what.into(), reason });
    }
    let mut most = 0;
    let mut arrived = |have: u64| {
        most = have.max(most);
        arrived(most);
    };
    for _ in 0..WHOLE_ATTEMPTS {
        let mut partial = Partial::resume(&mut file, announced, &path)?;
        partial.complete(hub, (what, address), &mut arrived)?;
        if partial.hash.is(&announced.etag) {
            return Ok(atomic::publish(&file, &path, blob)?);
        }
        file.set_len(0).map_err(io("write", &path))?;
    }
    let reason = format!("arrived {WHOLE_ATTEMPTS} times with another hash than announced; try again later");
    Err(Error::Corrupt { what: what.into(), reason })
}

/// A file of which some bytes are there.
struct Partial<'a> {
    file: &'a mut File,
    path: &'a Path,
    announced: &'a Announced,
    have: u64,
    hash: Hash,
}

impl<'a> Partial<'a> {
    /// Goes on with what is there, and hashes it.
    fn resume(file: &'a mut File, announced: &'a Announced, path: &'a Path) -> Result<Self> {
        let mut hash = Hash::new(announced);
        if file.metadata().map_err(io("read", path))?.len() > announced.size {
            file.set_len(0).map_err(io("write", path))?;
        }
        file.seek(SeekFrom::Start(0)).map_err(io("read", path))?;
        let (mut have, mut buffer) = (0, vec![0; 1 << 20]);
        loop {
            match file.read(&mut buffer).map_err(io("read", path))? {
                0 => return Ok(Self { file, path, announced, have, hash }),
                read => {
                    hash.update(&buffer[..read]);
                    have += read as u64;
                }
            }
        }
    }

    /// Drops what is there.
    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(io("write", self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(io("write", self.path))?;
        (self.have, self.hash) = (0, Hash::new(self.announced));
        Ok(())
    }

    /// Sends requests until all bytes are there.
    fn complete(&mut self, hub: &Hub, (what, address): (&str, &str), arrived: &mut dyn FnMut(u64)) -> Result<()> {
        let (mut last, mut fruitless, mut most) = (String::new(), 0, self.have);
        arrived(self.have);
        while self.have < self.announced.size {
            if fruitless == ATTEMPTS {
                return Err(Error::Network { what: what.into(), reason: last });
            }
            pause(fruitless);
            last = self.attempt(hub, (what, address), arrived)?;
            // What came again after a server began anew is nothing new.
            fruitless = if self.have > most { 0 } else { fruitless + 1 };
            most = most.max(self.have);
        }
        Ok(())
    }

    /// Requests once what is missing. Returns why it ended.
    fn attempt(&mut self, hub: &Hub, (what, address): (&str, &str), arrived: &mut dyn FnMut(u64)) -> Result<String> {
        let mut response = match hub.ask(address, Ask::From(self.have)) {
            Ok(response) => response,
            Err(reason) => return Ok(reason),
        };
        let status = response.status();
        if let Some(error) = refusal(what, status) {
            return Err(error);
        }
        match status.as_u16() {
            // The whole file, whatever was asked for.
            200 => self.restart()?,
            206 => {
                let range = response.headers().get("content-range").and_then(|value| value.to_str().ok());
                let first = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok());
                if first != Some(self.have) {
                    self.restart()?;
                    return Ok("the server sent another part than was asked for".into());
                }
            }
            // What is there is longer than what the server has, as it claims.
            416 => {
                self.restart()?;
                return Ok("the server has no such part".into());
            }
            _ => return Ok(format!("the server answers {status}")),
        }
        let mut reader = response.body_mut().as_reader().take(self.announced.size - self.have);
        let mut buffer = vec![0; 256 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok("the connection ended early".into()),
                Ok(read) => {
                    self.file.write_all(&buffer[..read]).map_err(io("write", self.path))?;
                    self.hash.update(&buffer[..read]);
                    self.have += read as u64;
                    arrived(self.have);
                }
                Err(error) => return Ok(error.to_string()),
            }
        }
    }
}
