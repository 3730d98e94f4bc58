//! The prefix cache on disk: pages of keys and values that outlive the process, found again by their tokens.
//!
//! A page is a file. Its name is a sum over the tenant, all tokens before it and its own, so equal beginnings of prompts share
//! files, and nobody finds a page without knowing the tokens and being the tenant. Files of other models lie in other
//! folders. What is damaged, cut short or foreign is removed and computed anew: the store only saves time.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use minke_tensor::{Dtype, PAGE_TOKENS};
use sha2::{Digest, Sha256};

use crate::Identity;

const MAGIC: &[u8; 8] = b"MINKE-PG";
const VERSION: u32 = 1;
/// The ending of the files' names.
const ENDING: &str = "page";

/// The name of a page.
pub(crate) type PageKey = [u8; 32];

/// Pages of one model in a folder, with those of other models beside them.
pub(crate) struct PrefixStore {
    folder: PathBuf,
    header: Vec<u8>,
    identity: Identity,
    page_bytes: usize,
    most_bytes: u64,
    warn: fn(&str),
    index: Mutex<Index>,
}

/// Where pages are kept on disk, and how many.
#[derive(Clone, Debug)]
pub struct DiskCache {
    /// Folder of the files; other models have theirs in it too.
    pub folder: PathBuf,
    /// Most bytes of files, those of other models included.
    pub most_bytes: u64,
    /// What is done with a line about a file that is not used.
    pub warn: fn(&str),
}

/// What is in the folder.
#[derive(Default)]
struct Index {
    /// The folders of models, this one's first.
    folders: Vec<PathBuf>,
    own: HashMap<PageKey, u64>,
    /// All files, the longest unused first. Without their paths: there may be hundreds of thousands.
    by_use: BTreeMap<u64, PageFile>,
    bytes: u64,
    clock: u64,
}

/// A page of a model.
struct PageFile {
    folder: u32,
    key: PageKey,
    bytes: u64,
}

/// The folder of this model among those of the index.
const OWN: u32 = 0;

impl Index {
    fn add(&mut self, file: PageFile) {
        self.clock += 1;
        self.bytes += file.bytes;
        if file.folder == OWN {
            self.own.insert(file.key, self.clock);
        }
        self.by_use.insert(self.clock, file);
    }

    fn remove(&mut self, key: &PageKey) {
        if let Some(file) = self.own.remove(key).and_then(|used| self.by_use.remove(&used)) {
            self.bytes -= file.bytes;
        }
    }

    fn touch(&mut self, key: &PageKey) {
        self.clock += 1;
        let clock = self.clock;
        if let Some(used) = self.own.get_mut(key)
            && let Some(file) = self.by_use.remove(used)
        {
            self.by_use.insert(clock, file);
            *used = clock;
        }
    }
}

impl PrefixStore {
    /// The store in a folder, which is made if it is not there, for nobody but its owner.
    ///
    /// # Errors
    /// If the folder cannot be made or read.
    pub(crate) fn open(cache: &DiskCache, identity: Identity, dtype: Dtype, page_bytes: usize) -> io::Result<Self> {
        let DiskCache { folder, most_bytes, warn } = cache.clone();
        let own: String = identity[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let own = folder.join(own);
        DirBuilder::new().recursive(true).mode(0o700).create(&own)?;
        let mut header = MAGIC.to_vec();
        header.extend(VERSION.to_le_bytes());
        header.extend((PAGE_TOKENS as u32).to_le_bytes());
        header.extend(format!("{:<8}", dtype.name()).bytes());
        header.extend(identity);
        let mut index = Index { folders: vec![own.clone()], ..Index::default() };
        let others = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        index.folders.extend(others.into_iter().filter(|path| *path != own));
        let mut found: Vec<(SystemTime, PageFile)> = Vec::new();
        for (number, model) in (OWN..).zip(&index.folders) {
            let Ok(files) = fs::read_dir(model) else { continue };
            for file in files.flatten() {
                let (path, data) = (file.path(), file.metadata());
                // What a killed process left.
                if path.extension().is_some_and(|ending| ending == "part") {
                    let _ = fs::remove_file(&path);
                }
                let is_page = path.extension().is_some_and(|ending| ending == ENDING);
                if let (true, Some(key), Ok(data)) = (is_page, key_of(&path), data) {
                    let used = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    found.push((used, PageFile { folder: number, key, bytes: data.len() }));
                }
            }
        }
        found.sort_by_key(|(used, file)| (*used, file.folder, file.key));
        found.into_iter().for_each(|(_, file)| index.add(file));
        let store = Self { folder: own, header, identity, page_bytes, most_bytes, warn, index: Mutex::new(index) };
        store.make_room(&mut store.lock(), 0);
        Ok(store)
    }

    /// The names of the full pages of these tokens, for tenants of a number.
    pub(crate) fn keys(&self, prefixes: u64, token_ids: &[u32]) -> Vec<PageKey> {
        let mut before: PageKey = {
            let mut sum = Sha256::new();
            sum.update(self.identity);
            sum.update(prefixes.to_le_bytes());
            sum.finalize().into()
        };
        let chunks: &[[u32; PAGE_TOKENS]] = token_ids.as_chunks().0;
        let key = |tokens: &[u32; PAGE_TOKENS]| {
            let mut sum = Sha256::new();
            sum.update(before);
            tokens.iter().for_each(|id| sum.update(id.to_le_bytes()));
            before = sum.finalize().into();
            before
        };
        chunks.iter().map(key).collect()
    }

    /// How many of these pages are there, from the first one on.
    pub(crate) fn count(&self, keys: &[PageKey]) -> usize {
        let index = self.lock();
        keys.iter().take_while(|key| index.own.contains_key(*key)).count()
    }

    pub(crate) fn has(&self, key: &PageKey) -> bool {
        self.lock().own.contains_key(key)
    }

    /// A page; none if it is gone or damaged, and then its file is removed.
    pub(crate) fn read(&self, key: &PageKey) -> Option<Vec<u8>> {
        let path = self.path(key);
        match self.read_file(&path, key) {
            Ok(page) => {
                self.lock().touch(key);
                // By this time the order of use is known after a restart; it is worth no error.
                let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                Some(page)
            }
            Err(reason) => {
                if reason.kind() != io::ErrorKind::NotFound {
                    (self.warn)(&format!("{}: is not used and removed: {reason}", path.display()));
                }
                self.lock().remove(key);
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    fn read_file(&self, path: &Path, key: &PageKey) -> io::Result<Vec<u8>> {
        let damaged = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
        let mut file = File::open(path)?;
        let length = self.header.len() + key.len() + self.page_bytes + 32;
        if file.metadata()?.len() != length as u64 {
            return Err(damaged("its size is not that of a page"));
        }
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes)?;
        let (contents, sum) = bytes.split_at(length - 32);
        if !contents.starts_with(&self.header) || contents[self.header.len()..][..key.len()] != key[..] {
            return Err(damaged("another model, build or version made it"));
        }
        if Sha256::digest(contents)[..] != *sum {
            return Err(damaged("its checksum is another"));
        }
        bytes.truncate(length - 32);
        bytes.drain(..self.header.len() + key.len());
        Ok(bytes)
    }

    /// Keeps a page; others that were not used for longer give way.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn write(&self, key: &PageKey, page: &[u8]) -> io::Result<()> {
        let contents = [&self.header[..], key, page].concat();
        let sum = Sha256::digest(&contents);
        let (path, bytes) = (self.path(key), (contents.len() + sum.len()) as u64);
        self.make_room(&mut self.lock(), bytes);
        // A file that is cut short by a loss of power is found by its sum, so nothing is synced.
        let beside = path.with_extension(format!("{}.part", std::process::id()));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(&contents)?;
            file.write_all(&sum)?;
            fs::rename(&beside, &path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        } else {
            let mut index = self.lock();
            index.remove(key);
            index.add(PageFile { folder: OWN, key: *key, bytes });
        }
        written
    }

    fn make_room(&self, index: &mut Index, bytes: u64) {
        while index.bytes + bytes > self.most_bytes
            && let Some((_, file)) = index.by_use.pop_first()
        {
            index.bytes -= file.bytes;
            if file.folder == OWN {
                index.own.remove(&file.key);
            }
            let _ = fs::remove_file(path_of(&index.folders[file.folder as usize], &file.key));
        }
    }

    fn path(&self, key: &PageKey) -> PathBuf {
        path_of(&self.folder, key)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file of a page.
fn path_of(folder: &Path, key: &PageKey) -> PathBuf {
    let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    folder.join(name).with_extension(ENDING)
}

/// The key that a file's name says.
fn key_of(path: &Path) -> Option<PageKey> {
    let name = path.file_stem()?.to_str().filter(|name| name.len() == 64 && name.is_ascii())?;
    let mut key = [0; 32];
    for (i, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&name[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PAGE: usize = 100;

    fn open(folder: &Path, identity: u8, most_bytes: u64) -> PrefixStore {
        let cache = DiskCache { folder: folder.into(), most_bytes, warn: |_| {} };
        PrefixStore::open(&cache, [identity; 32], Dtype::Bf16, PAGE).unwrap()
    }

    #[test]
    fn pages_outlive_the_store_and_are_found_by_tenant_and_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let ids: Vec<u32> = (0..100).collect();
        let store = open(folder.path(), 1, 1 << 20);
        let keys = store.keys(7, &ids);
        assert_eq!((keys.len(), store.count(&keys)), (3, 0));
        for (i, key) in keys.iter().enumerate() {
            store.write(key, &[i as u8; PAGE]).unwrap();
        }
        drop(store);
        let store = open(folder.path(), 1, 1 << 20);
        assert_eq!(store.count(&keys), 3);
        assert_eq!(store.read(&keys[1]), Some(vec![1; PAGE]));
        // Another tenant, other tokens, another model.
        assert_eq!(store.count(&store.keys(8, &ids)), 0);
        let other: Vec<u32> = ids.iter().map(|id| if *id == 40 { 41 } else { *id }).collect();
        assert_eq!(store.count(&store.keys(7, &other)), 1);
        let foreign = open(folder.path(), 2, 1 << 20);
        assert_eq!(foreign.count(&foreign.keys(7, &ids)), 0);
    }

    #[test]
    fn damaged_files_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), 1, 1 << 20);
        let keys = store.keys(0, &(0..128).collect::<Vec<u32>>());
        keys.iter().for_each(|key| store.write(key, &[5; PAGE]).unwrap());
        let change = |key: &PageKey, change: fn(&mut Vec<u8>)| {
            let mut bytes = fs::read(store.path(key)).unwrap();
            change(&mut bytes);
            fs::write(store.path(key), bytes).unwrap();
        };
        change(&keys[0], |bytes| *bytes.last_mut().unwrap() ^= 1);
        change(&keys[1], |bytes| bytes.truncate(40));
        change(&keys[2], |bytes| bytes[20] ^= 1);
        for key in &keys[..3] {
            assert!(store.read(key).is_none() && !store.has(key) && !store.path(key).exists());
        }
        assert_eq!(store.read(&keys[3]), Some(vec![5; PAGE]));
        // A page under another's name is foreign.
        fs::copy(store.path(&keys[3]), store.path(&keys[0])).unwrap();
        let again = open(folder.path(), 1, 1 << 20);
        assert!(again.has(&keys[0]) && again.read(&keys[0]).is_none());
    }

    #[test]
    fn the_folder_stays_within_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let file = (56 + 32 + PAGE + 32) as u64;
        let store = open(folder.path(), 1, 4 * file);
        let keys = store.keys(0, &(0..320).collect::<Vec<u32>>());
        for key in &keys[..4] {
            store.write(key, &[1; PAGE]).unwrap();
        }
        store.read(&keys[0]).unwrap();
        store.write(&keys[4], &[1; PAGE]).unwrap();
        let kept: Vec<bool> = keys[..5].iter().map(|key| store.has(key)).collect();
        assert_eq!(kept, [true, false, true, true, true], "the longest unused gives way");
        let files = |store: &PrefixStore| fs::read_dir(&store.folder).unwrap().count();
        assert!(files(&store) == 4 && !store.path(&keys[1]).exists());
        // Another model's store counts these too.
        let other = open(folder.path(), 2, 2 * file);
        assert_eq!(other.lock().by_use.len(), 2);
        assert_eq!((other.lock().bytes, files(&store)), (2 * file, 2));
    }
}
