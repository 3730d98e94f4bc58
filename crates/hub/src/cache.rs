//! The cache of downloaded models that other libraries share: what is in it, where it lies, and whether it is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;

use crate::error::io;
use crate::name::quantization;
use crate::{ModelName, Result};

/// The file of all weights, and the index of which shard holds which.
const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// The folder of all models.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// A model that was downloaded: the safetensors of a repository, or one quantization of its GGUF files.
#[derive(Clone, Debug)]
pub struct CachedModel {
    /// What it is called.
    pub name: ModelName,
    /// The folder of its snapshot, or the first of its GGUF files.
    pub path: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
    /// When the last of them arrived.
    pub when: SystemTime,
    /// A file without which it cannot be loaded and that is not there; nothing if the model is whole.
    pub missing: Option<String>,
}

/// Why the cache cannot give a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Nothing of it was downloaded.
    Unknown,
    /// This file of it is not there.
    Incomplete(String),
    /// The repository has several quantizations here, and the name has none of them.
    Several(Vec<String>),
}

/// What [`Cache::remove`] did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Removed {
    /// Files of snapshots.
    pub files: usize,
    /// Bytes of blobs that nothing else uses.
    pub bytes: u64,
}

impl Cache {
    /// The cache in a folder, which need not exist.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder of all models.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a repository.
    pub(crate) fn repo(&self, name: &ModelName) -> PathBuf {
        self.root.join(name.folder())
    }

    /// Finds a model, of the revision that the name gives, else as [`Cache::models`]. A name without quantization means
    /// safetensors, or the GGUF files if all that are there have one quantization.
    ///
    /// # Errors
    /// Why there is none that can be loaded.
    pub fn find(&self, name: &ModelName) -> std::result::Result<PathBuf, Absent> {
        let models = self.of_repo(&self.repo(name), &name.repo, name.revision.as_deref());
        let meant = models.iter().find(|model| same(&model.name.quant, &name.quant));
        let whole: Vec<&CachedModel> = models.iter().filter(|model| model.missing.is_none()).collect();
        match (meant, whole.as_slice()) {
            (Some(CachedModel { path, missing: None, .. }), _) => Ok(path.clone()),
            (_, [only]) if name.quant.is_none() => Ok(only.path.clone()),
            (_, [_, _, ..]) if name.quant.is_none() => {
                Err(Absent::Several(whole.iter().map(|model| model.name.to_string()).collect()))
            }
            _ => {
                let partial = meant.or(models.first().filter(|_| name.quant.is_none()));
                Err(partial.and_then(|model| model.missing.clone()).map_or(Absent::Unknown, Absent::Incomplete))
            }
        }
    }

    /// Everything that was downloaded, incomplete models included. Of a model in several snapshots of its
    /// repository, the one of `refs/main` counts if it is whole, else the newest that is.
    pub fn models(&self) -> Vec<CachedModel> {
        let mut found = Vec::new();
        for folder in entries(&self.root) {
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some((org, repo)) = name.strip_prefix("models--").and_then(|name| name.split_once("--")) {
                found.extend(self.of_repo(&folder, &format!("{org}/{repo}"), None));
            }
        }
        found
    }

    /// The models of a repository, each from the best of its snapshots; of a revision, from the one of its commit.
    fn of_repo(&self, folder: &Path, repo: &str, revision: Option<&str>) -> Vec<CachedModel> {
        let commit = |revision: &str| fs::read_to_string(folder.join("refs").join(revision)).ok();
        let snapshots = folder.join("snapshots");
        let main = commit("main").map(|commit| snapshots.join(commit.trim()));
        let wanted = revision.map(|revision| commit(revision).unwrap_or_else(|| revision.to_owned()));
        let wanted = wanted.map(|commit| snapshots.join(commit.trim()));
        let rank = |model: &CachedModel| {
            let is_main = main.as_ref().is_some_and(|main| model.path.starts_with(main));
            (model.missing.is_none(), is_main, model.when)
        };
        let mut best: BTreeMap<Option<String>, CachedModel> = BTreeMap::new();
        for snapshot in entries(&snapshots) {
            if wanted.as_ref().is_some_and(|wanted| *wanted != snapshot) {
                continue;
            }
            for model in models_in(&snapshot, repo) {
                let other = best.entry(model.name.quant.clone()).or_insert_with(|| model.clone());
                if rank(other) < rank(&model) {
                    *other = model;
                }
            }
        }
        best.into_values().collect()
    }

    /// Removes a model from all snapshots of its repository, and the blobs that no snapshot uses any more; without a
    /// quantization all that the repository has.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn remove(&self, name: &ModelName) -> Result<Removed> {
        let (repo, mut removed) = (self.repo(name), Removed::default());
        for snapshot in entries(&repo.join("snapshots")) {
            for file in files_below(&snapshot) {
                let quant = quant_of(&snapshot, &file);
                if name.quant.is_none() || same(&quant, &name.quant) {
                    fs::remove_file(&file).map_err(io("remove", &file))?;
                    removed.files += 1;
                }
            }
        }
        let used: BTreeSet<PathBuf> = entries(&repo.join("snapshots"))
            .iter()
            .flat_map(|snapshot| files_below(snapshot))
            .filter_map(|file| fs::canonicalize(file).ok())
            .collect();
        for blob in entries(&repo.join("blobs")) {
            let unfinished = blob.extension().is_some_and(|extension| extension == "incomplete");
            let unused = fs::canonicalize(&blob).is_ok_and(|path| !used.contains(&path));
            if unused && (!unfinished || name.quant.is_none()) {
                removed.bytes += fs::metadata(&blob).map_or(0, |data| data.len());
                fs::remove_file(&blob).map_err(io("remove", &blob))?;
            }
        }
        if used.is_empty() && repo.exists() {
            fs::remove_dir_all(&repo).map_err(io("remove", &repo))?;
        }
        Ok(removed)
    }
}

fn same(a: &Option<String>, b: &Option<String>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
        (None, None) => true,
        _ => false,
    }
}

/// The models in a snapshot: its GGUF files by quantization, and its safetensors if there are any.
fn models_in(snapshot: &Path, repo: &str) -> Vec<CachedModel> {
    let mut groups: BTreeMap<Option<String>, Vec<PathBuf>> = BTreeMap::new();
    for file in files_below(snapshot) {
        groups.entry(quant_of(snapshot, &file)).or_default().push(file);
    }
    let model = |(quant, files): (Option<String>, Vec<PathBuf>)| {
        let missing = match quant {
            Some(_) => missing_gguf(&files),
            None => missing_safetensors(snapshot, &files)?,
        };
        let data: Vec<fs::Metadata> = files.iter().filter_map(|file| fs::metadata(file).ok()).collect();
        Some(CachedModel {
            path: if quant.is_some() { files.first()?.clone() } else { snapshot.to_owned() },
            name: ModelName { repo: repo.into(), quant, revision: None },
            bytes: data.iter().map(fs::Metadata::len).sum(),
            when: data.iter().filter_map(|data| data.modified().ok()).max().unwrap_or(SystemTime::UNIX_EPOCH),
            missing,
        })
    };
    groups.into_iter().filter_map(model).collect()
}

/// Whether a file is there; a link without a blob is not.
fn is_there(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|data| data.is_file())
}

fn name_of(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The first of the GGUF files of one quantization that is not there, parts of split ones included.
fn missing_gguf(files: &[PathBuf]) -> Option<String> {
    if let Some(file) = files.iter().find(|file| !is_there(file)) {
        return Some(name_of(file));
    }
    let name = name_of(files.first()?);
    let (start, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let parts: usize = count.parse().ok()?;
    let base = start.rsplit_once('-')?.0;
    (1..=parts)
        .map(|i| format!("{base}-{i:05}-of-{count}.gguf"))
        .find(|part| !files.iter().any(|f| name_of(f) == *part))
}

/// The first of the files without which safetensors cannot be loaded that is not there. Nothing at all if there are no
/// safetensors: configuration and tokenizer alone are no model.
fn missing_safetensors(snapshot: &Path, files: &[PathBuf]) -> Option<Option<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let is_weight =
        |file: &&PathBuf| file.parent() == Some(snapshot) && file.extension().is_some_and(|e| e == "safetensors");
    let index = snapshot.join(INDEX);
    if fs::symlink_metadata(&index).is_err() && !files.iter().any(|file| is_weight(&file)) {
        return None;
    }
    let lacks = |name: &str| !is_there(&snapshot.join(name));
    if lacks("config.json") {
        return Some(Some("config.json".into()));
    }
    if !lacks(SINGLE) {
        return Some(None);
    }
    let listed = fs::read_to_string(&index).ok().and_then(|text| serde_json::from_str::<Index>(&text).ok());
    let Some(Index { weight_map }) = listed else { return Some(Some(SINGLE.into())) };
    Some(weight_map.into_values().find(|shard| lacks(shard)))
}

/// The quantization of a GGUF file of a snapshot.
fn quant_of(snapshot: &Path, file: &Path) -> Option<String> {
    file.strip_prefix(snapshot).ok()?.to_str().and_then(quantization)
}

/// What a folder holds, in order; nothing if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

/// The files below a folder, in order; links to files are files.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let is_folder = |path: &Path| fs::symlink_metadata(path).is_ok_and(|data| data.is_dir());
    let below = |path: PathBuf| if is_folder(&path) { files_below(&path) } else { vec![path] };
    entries(folder).into_iter().flat_map(below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_are_not_there_are_named() {
        let file = |name: &str| PathBuf::from(name);
        let folder = std::env::temp_dir().join(format!("minke-hub-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let parts: Vec<PathBuf> =
            ["m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"].map(|name| folder.join(name)).into();
        parts.iter().for_each(|part| fs::write(part, "GGUF").expect("a file"));
        assert_eq!(missing_gguf(&parts), None);
        assert_eq!(missing_gguf(&parts[..1]).as_deref(), Some("m-Q8_0-00002-of-00002.gguf"));
        assert_eq!(missing_gguf(&[file("nowhere.gguf")]).as_deref(), Some("nowhere.gguf"));
        fs::remove_dir_all(&folder).expect("removed");
    }
}
