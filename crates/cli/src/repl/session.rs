//! Sessions: conversations that outlive the program. Two files in the folder of sessions, each whole or not at all:
//! `NAME.json` with text and settings, and `NAME.kv` with the cache, which only saves time.
//!
//! `NAME.json` is a line `minke session 1 SHA256`, the sum of all that follows, and JSON. Numbers of `NAME.kv` are
//! little-endian: `MINKE-KV`, version u32, tokens per page u32, type of the pages' numbers (4 bytes, `F32` or `BF16`), identity
//! of the model (32 bytes), tokens u64, bytes of a page u64, the token ids u32, the pages, SHA-256 of everything before. Pages
//! are found by their tokens, so a file that is older than its text is still right.

use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use minke_chat::{Identity, PrefixCache, SamplingOptions};
use minke_engine::Tenant;
use minke_sys::atomic;
use minke_tensor::{Dtype, PAGE_TOKENS};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::conversation::Conversation;
use crate::args::Think;
use crate::environment;
use crate::error::Exit;

const FIRST_LINE: &str = "minke session 1 ";
/// Longest text: a thousand times what fills the context of a large model would be more.
const LONGEST_TEXT: u64 = 256 << 20;

const MAGIC: &[u8; 8] = b"MINKE-KV";
const VERSION: u32 = 2;
const HEADER: u64 = 8 + 4 + 4 + 4 + 32 + 8 + 8;
const SUM: u64 = 32;

/// What is kept of a conversation.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Path of the model it was held with.
    pub model: String,
    /// What was said.
    pub conversation: Conversation,
    /// Settings.
    pub sampling: SamplingOptions,
    /// What happens to thoughts.
    pub think: Think,
}

/// The names of all kept conversations, sorted.
pub fn names() -> Vec<String> {
    let entries = environment::sessions().and_then(|folder| std::fs::read_dir(folder).ok());
    let name = |entry: std::fs::DirEntry| Some(entry.file_name().to_str()?.strip_suffix(".json")?.to_owned());
    let mut names: Vec<String> = entries.into_iter().flatten().flatten().filter_map(name).collect();
    names.sort();
    names
}

/// The text file of a name.
///
/// # Errors
/// If it could not be the name of a file everywhere, or there is no place for sessions.
pub fn path(name: &str) -> Result<PathBuf> {
    let letters = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'));
    if name.is_empty() || name.len() > 100 || !letters || name.starts_with('-') {
        return Err(Exit::Usage.because(format!("{name}: is no name; use letters, digits, - and _")));
    }
    let folder = environment::sessions().context("there is no place for sessions; set XDG_DATA_HOME or HOME")?;
    Ok(folder.join(format!("{name}.json")))
}

impl Session {
    /// Writes the text.
    ///
    /// # Errors
    /// If it cannot be written; what was there before is then still there.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        let sum = hex(&Sha256::digest(text.as_bytes()));
        replace(path, |file| Ok(write!(file, "{FIRST_LINE}{sum}\n{text}")?))
    }

    /// Reads the text.
    ///
    /// # Errors
    /// If there is none, it is damaged, or of another version.
    pub fn read(path: &Path) -> Result<Self> {
        let bad = |reason: &str| Exit::BadFile.because(format!("{}: {reason}", path.display()));
        let bytes = std::fs::metadata(path).map_err(|_| bad("no such session; /list shows those there are"))?.len();
        if bytes > LONGEST_TEXT {
            return Err(bad("is too long for a session"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| bad(&error.to_string()))?;
        let rest = text.strip_prefix(FIRST_LINE).ok_or_else(|| bad("is no session of this version of Minke"))?;
        let (sum, text) = rest.split_once('\n').unwrap_or_default();
        if sum != hex(&Sha256::digest(text.as_bytes())) {
            return Err(bad("is damaged or was changed: its checksum is another"));
        }
        let session: Self = serde_json::from_str(text).map_err(|error| bad(&error.to_string()))?;
        session.sampling.validate()?;
        Ok(session)
    }
}

/// Writes what the cache holds of these tokens, and returns how many it holds.
///
/// # Errors
/// If the file cannot be written; what was there before is then still there.
pub fn write_cache(path: &Path, identity: &Identity, cache: &PrefixCache<'_>, token_ids: &[u32]) -> Result<usize> {
    let pages = cache.export(Tenant::default().prefixes, token_ids);
    let tokens = pages.len() * PAGE_TOKENS;
    replace(path, |file| {
        let mut out = Summed { inner: file, sum: Sha256::new() };
        out.write_all(MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        out.write_all(&(PAGE_TOKENS as u32).to_le_bytes())?;
        out.write_all(&dtype_bytes(cache.dtype()))?;
        out.write_all(identity)?;
        out.write_all(&(tokens as u64).to_le_bytes())?;
        out.write_all(&(cache.page_bytes() as u64).to_le_bytes())?;
        token_ids[..tokens].iter().try_for_each(|id| out.write_all(&id.to_le_bytes()))?;
        pages.into_iter().try_for_each(|page| out.write_all(&page))?;
        let Summed { inner, sum } = out;
        Ok(inner.write_all(&sum.finalize())?)
    })?;
    Ok(tokens)
}

/// Fills the cache from a file, and returns how many tokens it then holds.
///
/// # Errors
/// If the file is damaged, or another model, build or version made it; the cache is then as before, or right as far as it
/// was filled.
pub fn read_cache(path: &Path, identity: &Identity, cache: &mut PrefixCache<'_>) -> Result<usize> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut header = [0; HEADER as usize];
    file.read_exact(&mut header).context("is cut short")?;
    let number = |at: usize| u64::from_le_bytes(*header[at..].first_chunk().expect("invariant: within the header"));
    let short = |at: usize| u32::from_le_bytes(*header[at..].first_chunk().expect("invariant: within the header"));
    ensure!(&header[..8] == MAGIC, "is no cache of a session");
    ensure!((short(8), short(12)) == (VERSION, PAGE_TOKENS as u32), "is of another version");
    let (own, said) = (dtype_bytes(cache.dtype()), &header[16..20]);
    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    ensure!(said == own, "holds numbers as {}, and this cache as {}", name(said), name(&own));
    ensure!(header[20..52] == identity[..], "was computed by another model or another build");
    let (tokens, page_bytes) = (number(52), number(60));
    ensure!(page_bytes == cache.page_bytes() as u64, "has pages of another size");
    let ids_bytes = tokens.checked_mul(4);
    let expected = (tokens / PAGE_TOKENS as u64)
        .checked_mul(page_bytes)
        .zip(ids_bytes)
        .and_then(|(pages, ids)| pages.checked_add(ids)?.checked_add(HEADER + SUM));
    // The file is as long as its header says, so nothing that is allocated below is longer than it.
    ensure!(expected == Some(length) && tokens % PAGE_TOKENS as u64 == 0, "is cut short");
    file.rewind()?;
    check_sum(&mut file, length)?;
    file.seek(std::io::SeekFrom::Start(HEADER))?;
    let mut file = BufReader::new(file);
    let mut ids = vec![0; tokens as usize * 4];
    file.read_exact(&mut ids)?;
    let ids: Vec<u32> = ids.as_chunks().0.iter().map(|id| u32::from_le_bytes(*id)).collect();
    cache.import(
        Tenant::default().prefixes,
        &ids,
        (0..tokens / PAGE_TOKENS as u64).map(|_| {
            let mut page = vec![0; page_bytes as usize];
            file.read_exact(&mut page).map(|()| page).map_err(anyhow::Error::from)
        }),
    )
}

/// The name of a type, filled up with zeros.
fn dtype_bytes(dtype: Dtype) -> [u8; 4] {
    let (mut bytes, name) = ([0; 4], dtype.name().as_bytes());
    bytes[..name.len()].copy_from_slice(name);
    bytes
}

fn check_sum(file: &mut File, length: u64) -> Result<()> {
    let mut sum = Summed { inner: std::io::sink(), sum: Sha256::new() };
    std::io::copy(&mut file.take(length - SUM), &mut sum)?;
    let mut said = [0; SUM as usize];
    file.read_exact(&mut said)?;
    if sum.sum.finalize()[..] != said {
        bail!("is damaged: its checksum is another");
    }
    Ok(())
}

/// Passes bytes on and sums them up.
struct Summed<W> {
    inner: W,
    sum: Sha256,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Makes a file hold what `fill` writes: before, or after, never something between.
fn replace(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let folder = path.parent().expect("invariant: sessions lie in a folder");
    std::fs::create_dir_all(folder).with_context(|| format!("cannot write {}", path.display()))?;
    atomic::replace_with(path, |to| fill(to))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use minke_chat::{ChatModel, Prompt, Request, Worker, WorkerConfig};

    use super::*;

    /// What comes next: tokens, and the bits of their log-probabilities, into which every logit goes.
    fn next(worker: &Worker, text: &str) -> Vec<(u32, u32)> {
        let prompt = Prompt::new(text, &worker.model().tokenizer);
        let options = SamplingOptions { seed: 3, max_tokens: Some(12), ..SamplingOptions::default() };
        let events = worker.submit(Request::new(prompt).with_options(options)).unwrap();
        let mut tokens = Vec::new();
        loop {
            let event = events.recv().unwrap();
            tokens.extend(event.token.as_ref().map(|token| (token.token_id, token.log_prob.to_bits())));
            if event.finish.is_some() {
                return tokens;
            }
        }
    }

    #[test]
    fn what_comes_behind_a_loaded_session_is_the_same_to_the_bit() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/first-light");
        let model = Arc::new(ChatModel::open(&path, &minke_tensor::Device::open("cpu", 1).unwrap()).unwrap());
        let identity = model.identity;
        let start = || Worker::start(model.clone(), WorkerConfig::default()).unwrap();
        let (kept, loaded, fresh) = (start(), start(), start());
        let numbers: String = (0..60).map(|i| format!("{i} ")).collect();
        let text = format!("make 24 from {numbers}");
        let token_ids = model.tokenizer.encode_prompt(&text);
        let want = next(&kept, &text);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.kv");
        let (to, ids) = (path.clone(), token_ids.clone());
        let tokens = kept.with_prefix_cache(move |cache| write_cache(&to, &identity, cache, &ids)).unwrap().unwrap();
        assert!(tokens >= 96 && tokens == token_ids.len() / PAGE_TOKENS * PAGE_TOKENS, "{tokens}");
        let read = |worker: &Worker, from: &Path, identity: Identity| {
            let from = from.to_owned();
            worker.with_prefix_cache(move |cache| read_cache(&from, &identity, cache)).unwrap()
        };
        assert_eq!(read(&loaded, &path, identity).unwrap(), tokens);
        assert_eq!(next(&loaded, &text), want);
        assert_eq!(loaded.stats().unwrap().prefix_hits, tokens as u64);
        assert_eq!(next(&fresh, &text), want, "as if it were read again");
        assert_ne!(next(&loaded, &text.replace("30", "31")), want);
        assert!(read(&fresh, &path, [0; 32]).is_err());

        // Of another version, or with another type of numbers: said by name, and the text is read again.
        let refused = |at: usize, bytes: &[u8]| {
            let mut file = std::fs::read(&path).unwrap();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            let other = folder.path().join("b.kv");
            std::fs::write(&other, file).unwrap();
            read(&fresh, &other, identity).unwrap_err().to_string()
        };
        assert_eq!(refused(8, &1u32.to_le_bytes()), "is of another version");
        assert_eq!(refused(16, b"F32\0"), "holds numbers as F32, and this cache as BF16");
    }
}
