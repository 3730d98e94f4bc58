//! Downloads of whole models: which files make one, and how they get into the cache.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use minke_sys::atomic;
use serde::Deserialize;

use crate::cache::{Cache, INDEX};
use crate::client::{Ask, Hub, refused};
use crate::download::{announced, download};
use crate::error::io;
use crate::name::{is_inside, quantization};
use crate::{ModelName, Result};

/// Bytes of the longest list of files that is read.
const LONGEST_LIST: u64 = 64 << 20;
/// Files beside the weights that are used here.
const TEXT_FILES: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];
/// Folder of the templates that a model has beside the one of its conversations.
const TEMPLATE_FOLDER: &str = "additional_chat_templates/";

/// How far a download is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The file that is arriving.
    pub file: &'a str,
    /// Bytes of all files that are there; it never becomes less.
    pub bytes: u64,
    /// Bytes of all files.
    pub of: u64,
}

/// The files of a model, and the commit that they are of.
pub(crate) struct Listing {
    pub commit: String,
    pub files: Vec<String>,
}

/// A revision, as the server describes it.
#[derive(Deserialize)]
struct Revision {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// The revision of names that give none.
const MAIN: &str = "main";

/// Downloads a model, at the revision that its name gives or else `main`, and returns where it lies. What is there already is
/// not asked for again.
///
/// # Errors
/// If the server does not have it, cannot be reached, or sends something else; or a file cannot be written.
pub fn pull(hub: &Hub, cache: &Cache, name: &ModelName, say: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf> {
    let revision = name.revision.as_deref().unwrap_or(MAIN);
    let Listing { commit, files } = list(hub, name)?;
    let (repo, commit) = (cache.repo(name), &commit);
    let blobs = repo.join("blobs");
    fs::create_dir_all(&blobs).map_err(io("write", &blobs))?;
    let what = |file: &str| format!("{}/{file}", name.repo);
    let mut parts = Vec::new();
    for file in &files {
        let address = hub.file_address(&name.repo, commit, file);
        parts.push((announced(hub, &what(file), &address)?, address));
    }
    let (of, mut before) = (parts.iter().map(|(announced, _)| announced.size).sum(), 0);
    for (file, (announced, address)) in files.iter().zip(&parts) {
        let blob = blobs.join(&announced.etag);
        // A blob has its name only after its hash was compared.
        if !fs::metadata(&blob).is_ok_and(|data| data.len() == announced.size) {
            let mut arrived = |bytes: u64| say(Progress { file, bytes: before + bytes, of });
            download(hub, (&what(file), address), announced, &blob, &mut arrived)?;
        }
        link(&repo.join("snapshots").join(commit), file, &announced.etag)?;
        before += announced.size;
        say(Progress { file, bytes: before, of });
    }
    if revision != commit {
        write(&repo.join("refs").join(revision), commit)?;
    }
    let pulled = ModelName { revision: Some(commit.clone()), ..name.clone() };
    cache.find(&pulled).map_err(|_| refused(&name.to_string(), "was downloaded and is no model that can be read here"))
}

/// Requests the list of the files that make a model.
///
/// # Errors
/// As [`pull`].
pub(crate) fn list(hub: &Hub, name: &ModelName) -> Result<Listing> {
    let revision = name.revision.as_deref().unwrap_or(MAIN);
    let (what, address) = (format!("{} at {revision}", name.repo), hub.list_address(&name.repo, revision));
    let text = hub.answer(&what, &address, Ask::From(0), |mut response| {
        let text = response.body_mut().with_config().limit(LONGEST_LIST).read_to_string();
        text.map(Ok).map_err(|error| error.to_string())
    })?;
    let Revision { sha, siblings } = serde_json::from_str(&text)
        .map_err(|error| refused(&name.repo, format!("the server sends no list of its files ({error})")))?;
    if sha.len() != 40 || !sha.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(refused(&name.repo, "its revision has no hash"));
    }
    Ok(Listing { commit: sha, files: choose(name, &siblings)? })
}

/// The files that make a model: those of one quantization, or configuration, tokenizer and safetensors.
fn choose(name: &ModelName, siblings: &[Sibling]) -> Result<Vec<String>> {
    let all: BTreeSet<&str> = siblings.iter().map(|sibling| sibling.rfilename.as_str()).collect();
    if let Some(wrong) = all.iter().find(|path| !is_inside(path)) {
        return Err(refused(&name.repo, format!("lists a file {wrong:?}, which would lie outside of its folder")));
    }
    let quants: BTreeSet<String> = all.iter().filter_map(|path| quantization(path)).collect();
    let is_weight = |path: &&str| path.ends_with(".safetensors") && !path.contains('/');
    let weights: Vec<&str> = all.iter().copied().filter(is_weight).collect();
    // Where there is nothing to choose from, the name needs no quantization.
    let only = quants.first().filter(|_| quants.len() == 1 && weights.is_empty());
    let Some(quant) = name.quant.as_ref().or(only) else {
        // Where files of another program lie beside, those of this one are called `model`.
        let own = |path: &&&str| path.starts_with("model") || !weights.iter().any(|path| path.starts_with("model"));
        let is_template = |path: &&str| path.starts_with(TEMPLATE_FOLDER) && path.ends_with(".jinja");
        let texts = TEXT_FILES.into_iter().chain([INDEX]).filter(|text| all.contains(text));
        let texts = texts.chain(all.iter().copied().filter(is_template));
        let files: Vec<String> = texts.chain(weights.iter().filter(own).copied()).map(str::to_owned).collect();
        let reason = match weights.is_empty() {
            false if all.contains("config.json") => return Ok(files),
            false => "has no config.json".into(),
            true if !quants.is_empty() => {
                format!("holds GGUF files; say which, as {}:QUANT: {}", name.repo, listed(&quants))
            }
            true => "holds neither safetensors nor GGUF files".into(),
        };
        return Err(refused(&name.repo, reason));
    };
    let wanted = |path: &&&str| quantization(path).is_some_and(|found| found.eq_ignore_ascii_case(quant));
    let files: Vec<String> = all.iter().filter(wanted).map(|path| (*path).to_owned()).collect();
    if files.is_empty() {
        let others = match quants.is_empty() {
            true => "it holds no GGUF files".into(),
            false => format!("there are {}", listed(&quants)),
        };
        return Err(refused(&name.to_string(), format!("there is no such quantization; {others}")));
    }
    Ok(files)
}

fn listed(quants: &BTreeSet<String>) -> String {
    quants.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Makes the file of a snapshot a link to its blob.
fn link(snapshot: &Path, file: &str, etag: &str) -> Result<()> {
    let path = snapshot.join(file);
    let folder = path.parent().expect("invariant: a file of a snapshot lies in it");
    fs::create_dir_all(folder).map_err(io("write", folder))?;
    let up = "../".repeat(2 + file.matches('/').count());
    let target = PathBuf::from(format!("{up}blobs/{etag}"));
    if fs::read_link(&path).is_ok_and(|old| old == target) {
        return Ok(());
    }
    let new = folder.join(format!(".{etag}.new"));
    let _ = fs::remove_file(&new);
    std::os::unix::fs::symlink(&target, &new).map_err(io("write", &new))?;
    Ok(atomic::rename(&new, &path)?)
}

/// Writes a small file whole or not at all.
fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().expect("invariant: a reference lies in a folder");
    fs::create_dir_all(folder).map_err(io("write", folder))?;
    Ok(atomic::replace(path, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(name: &str, files: &[&str]) -> std::result::Result<String, String> {
        let siblings: Vec<Sibling> = files.iter().map(|file| Sibling { rfilename: (*file).into() }).collect();
        let name = ModelName::parse(name).expect("a name");
        choose(&name, &siblings).map(|files| files.join(" ")).map_err(|error| error.to_string())
    }

    #[test]
    fn files_are_those_of_one_model() {
        let folder =
            ["README.md", "config.json", "tokenizer.json", "model-1.safetensors", INDEX, "original/x.safetensors"];
        assert_eq!(chosen("a/b", &folder), Ok(format!("config.json tokenizer.json {INDEX} model-1.safetensors")));
        let tools = "additional_chat_templates/tool_use.jinja";
        let beside = ["config.json", "model.safetensors", tools, "additional_chat_templates/README.md"];
        assert_eq!(chosen("a/b", &beside), Ok(format!("config.json {tools} model.safetensors")));
        let gguf =
            ["m-Q4_K_M.gguf", "m-UD-Q4_K_M.gguf", "Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf"];
        assert_eq!(chosen("a/b:q4_k_m", &gguf), Ok("m-Q4_K_M.gguf".into()));
        assert_eq!(chosen("a/b:UD-Q4_K_M", &gguf), Ok("m-UD-Q4_K_M.gguf".into()));
        assert_eq!(chosen("a/b:Q8_0", &gguf).map(|files| files.split(' ').count()), Ok(2));
        assert_eq!(chosen("a/b", &["config.json", "m-Q4_K_M.gguf"]), Ok("m-Q4_K_M.gguf".into()));
        let refusals = [
            ("a/b", &gguf[..], "holds GGUF files; say which, as a/b:QUANT: Q4_K_M, Q8_0, UD-Q4_K_M"),
            ("a/b:Q2_K", &gguf, "there is no such quantization; there are Q4_K_M"),
            ("a/b:Q2_K", &folder, "it holds no GGUF files"),
            ("a/b", &["README.md"], "neither safetensors nor GGUF"),
            ("a/b", &["model.safetensors"], "has no config.json"),
            ("a/b", &["config.json", "../model.safetensors"], "outside of its folder"),
            ("a/b", &["config.json", "/etc/model.safetensors"], "outside of its folder"),
            ("a/b", &["config.json", "a/../../model.safetensors"], "outside of its folder"),
        ];
        for (name, files, part) in refusals {
            let reason = chosen(name, files).expect_err("refused");
            assert!(reason.contains(part), "{part:?} is not in {reason}");
        }
    }
}
