//! What was downloaded, and where does it lie?

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use crate::error::io;
use crate::{ModelName, Result};

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
    /// Returns the cache in a folder, `$HF_HOME/hub`, which need not exist.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Returns the folder of all models.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the folder of a repository.
    pub(crate) fn repo(&self, name: &ModelName) -> PathBuf {
        self.root.join(name.folder())
    }

    /// Returns where a model lies, if the files of the given revision were downloaded.
    pub fn find(&self, name: &ModelName, revision: &str) -> Option<PathBuf> {
        let repo = self.repo(name);
        let commit = fs::read_to_string(repo.join("refs").join(revision)).unwrap_or_else(|_| revision.into());
        let snapshot = repo.join("snapshots").join(one_component(commit.trim())?);
        let models = models_in(&snapshot, &name.repo);
        models.into_iter().find(|model| same(&model.name.quant, &name.quant)).map(|model| model.path)
    }

    /// Returns everything that was downloaded: of each repository the newest snapshot of each model in it.
    pub fn models(&self) -> Vec<CachedModel> {
        let mut found: BTreeMap<String, CachedModel> = BTreeMap::new();
        for folder in entries(&self.root) {
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(repo) = name.strip_prefix("models--").map(|name| name.replacen("--", "/", 1)) else { continue };
            for model in entries(&folder.join("snapshots")).iter().flat_map(|snapshot| models_in(snapshot, &repo)) {
                let known = found.entry(model.name.to_string()).or_insert_with(|| model.clone());
                if known.when < model.when {
                    *known = model;
                }
            }
        }
        found.into_values().collect()
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

/// Returns a text that is a single name in a folder.
fn one_component(text: &str) -> Option<&str> {
    let mut parts = Path::new(text).components();
    (matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none()).then_some(text)
}

fn same(a: &Option<String>, b: &Option<String>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
        (None, None) => true,
        _ => false,
    }
}

/// Returns the models in a snapshot: its GGUF files by quantization, and its safetensors if it has a configuration.
fn models_in(snapshot: &Path, repo: &str) -> Vec<CachedModel> {
    let mut groups: BTreeMap<Option<String>, Vec<PathBuf>> = BTreeMap::new();
    for file in files_below(snapshot) {
        groups.entry(quant_of(snapshot, &file)).or_default().push(file);
    }
    let model = |(quant, files): (Option<String>, Vec<PathBuf>)| {
        let data: Vec<fs::Metadata> = files.iter().filter_map(|file| fs::metadata(file).ok()).collect();
        let path = if quant.is_some() { files.first()?.clone() } else { snapshot.to_owned() };
        // Weights that are still on their way, or files beside a GGUF file, are no model.
        let whole = quant.is_some()
            || files.iter().any(|file| file.extension().is_some_and(|extension| extension == "safetensors"))
                && snapshot.join("config.json").exists();
        whole.then(|| CachedModel {
            name: ModelName { repo: repo.into(), quant },
            path,
            bytes: data.iter().map(fs::Metadata::len).sum(),
            when: data.iter().filter_map(|data| data.modified().ok()).max().unwrap_or(SystemTime::UNIX_EPOCH),
        })
    };
    groups.into_iter().filter_map(model).collect()
}

/// Returns the quantization of a GGUF file of a snapshot.
fn quant_of(snapshot: &Path, file: &Path) -> Option<String> {
    file.strip_prefix(snapshot).ok()?.to_str().and_then(quantization)
}

/// Returns the quantization that the path of a GGUF file names: the last word before number and extension, `UD-` included.
pub(crate) fn quantization(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?.strip_suffix(".gguf")?;
    let whole = name.rsplit_once("-of-").and_then(|(rest, _)| Some(rest.rsplit_once('-')?.0)).unwrap_or(name);
    let start = whole.rfind(['-', '.']).map_or(0, |at| at + 1);
    let before = &whole[..start];
    let dynamic = before.to_ascii_uppercase().ends_with("UD-");
    Some(if dynamic { whole[start - 3..].to_owned() } else { whole[start..].to_owned() })
}

/// Returns what a folder holds, in order; nothing if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

/// Returns the files below a folder, in order; links to files are files.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let is_folder = |path: &Path| fs::symlink_metadata(path).is_ok_and(|data| data.is_dir());
    let below = |path: PathBuf| if is_folder(&path) { files_below(&path) } else { vec![path] };
    entries(folder).into_iter().flat_map(below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantizations_are_read_off_names() {
        for (path, quant) in [
            ("DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf", Some("Q4_K_M")),
            ("qwen.Q8_0.gguf", Some("Q8_0")),
            ("UD-IQ1_S/DeepSeek-R1-0528-UD-IQ1_S-00001-of-00004.gguf", Some("UD-IQ1_S")),
            ("DeepSeek-R1.Q2_K/DeepSeek-R1-Q2_K-00002-of-00005.gguf", Some("Q2_K")),
            ("config.json", None),
        ] {
            assert_eq!(quantization(path).as_deref(), quant, "{path}");
        }
    }
}
