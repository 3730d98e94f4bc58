//! The cache that other programs fill: what `list` shows, `run` runs, wherever the environment puts it.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/server.rs"]
#[allow(dead_code)]
mod server;

use common::{Done, command, minke, thinker};
use server::{COMMIT, files_of};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba98";
const WEIGHTS: &str = "model.safetensors";

type Files = BTreeMap<String, Vec<u8>>;

/// A folder with a cache as `huggingface_hub` writes it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn hub(&self) -> PathBuf {
        self.0.path().join("no-cache/hub")
    }

    /// Writes a snapshot: links to blobs.
    fn snapshot(&self, repo: &str, commit: &str, files: &Files) -> PathBuf {
        let folder = self.hub().join(format!("models--{}", repo.replace('/', "--")));
        let snapshot = folder.join("snapshots").join(commit);
        fs::create_dir_all(folder.join("blobs")).unwrap();
        fs::create_dir_all(&snapshot).unwrap();
        for (name, bytes) in files {
            let blob = server::sha256(bytes);
            fs::write(folder.join("blobs").join(&blob), bytes).unwrap();
            symlink(Path::new("../../blobs").join(blob), snapshot.join(name)).unwrap();
        }
        snapshot
    }

    fn main_is(&self, repo: &str, commit: &str) {
        let refs = self.hub().join(format!("models--{}/refs", repo.replace('/', "--")));
        fs::create_dir_all(&refs).unwrap();
        fs::write(refs.join("main"), commit).unwrap();
    }

    fn minke(&self, args: &[&str]) -> Done {
        minke(self.0.path(), args)
    }

    fn listed(&self) -> Vec<(String, String)> {
        let lines = self.minke(&["list", "--json"]).json().remove(0);
        let text = |line: &serde_json::Value, key: &str| line[key].as_str().unwrap().to_owned();
        lines.as_array().unwrap().iter().map(|line| (text(line, "name"), text(line, "path"))).collect()
    }

    /// Checks that a name runs, and that the list shows it at that path.
    fn runs(&self, name: &str, listed: &str, path: &Path) {
        let done = self.minke(&["run", name, "hello"]);
        assert_eq!((done.code, done.out.lines().last()), (0, Some("8*3")), "{name}: {done:?}");
        assert!(self.listed().contains(&(listed.into(), path.display().to_string())), "{name}: {:?}", self.listed());
    }

    /// Checks that a name is refused with these words, and that the list does not show it.
    fn is_refused(&self, name: &str, code: i32, part: &str) {
        let done = self.minke(&["run", name, "hello"]);
        assert_eq!((done.code, done.out.as_str(), done.err.lines().count()), (code, "", 1), "{name}: {done:?}");
        assert!(done.err.contains(part), "{name}: {part:?} is not in {done:?}");
        assert!(self.listed().iter().all(|(listed, _)| listed != name), "{name}: {:?}", self.listed());
    }
}

fn thinker_files() -> Files {
    let folder = tempfile::tempdir().unwrap();
    files_of(&thinker(folder.path()))
}

fn without(files: &Files, name: &str) -> Files {
    files.iter().filter(|(other, _)| *other != name).map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
}

/// The model as GGUF.
fn gguf() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    thinker(folder.path());
    let done = minke(folder.path(), &["convert", "thinker", "m.gguf"]);
    assert_eq!(done.code, 0, "{done:?}");
    fs::read(folder.path().join("m.gguf")).unwrap()
}

#[test]
fn a_snapshot_counts_if_it_is_whole_whatever_refs_say() {
    let (place, files) = (Place::new(), thinker_files());
    let main = place.snapshot("a/main", COMMIT, &files);
    place.main_is("a/main", COMMIT);
    place.runs("a/main", "a/main", &main);
    let no_refs = place.snapshot("a/norefs", COMMIT, &files);
    place.runs("a/norefs", "a/norefs", &no_refs);
    // A newer commit of which only the configuration was fetched.
    let whole = place.snapshot("a/two", COMMIT, &files);
    let config = files.iter().filter(|(name, _)| *name == "config.json");
    place.snapshot("a/two", OTHER, &config.map(|(name, bytes)| (name.clone(), bytes.clone())).collect());
    place.main_is("a/two", OTHER);
    place.runs("a/two", "a/two", &whole);
    // Of two whole ones the one that main is.
    let old = place.snapshot("a/three", COMMIT, &files);
    let new = place.snapshot("a/three", OTHER, &files);
    place.main_is("a/three", COMMIT);
    place.runs("a/three", "a/three", &old);
    place.main_is("a/three", OTHER);
    place.runs("a/three", "a/three", &new);
}

#[test]
fn what_is_not_whole_is_named_with_what_is_missing() {
    let (place, files) = (Place::new(), thinker_files());
    let advice =
        |name: &str, file: &str| format!("{name}: was downloaded in part, {file} is missing; complete it with");
    let blob = |repo: &str, bytes: &[u8]| place.hub().join(format!("models--{repo}/blobs")).join(server::sha256(bytes));
    place.snapshot("a/dangling", COMMIT, &files);
    fs::remove_file(blob("a--dangling", &files[WEIGHTS])).unwrap();
    place.is_refused("a/dangling", 4, &advice("a/dangling", WEIGHTS));
    place.snapshot("a/config", COMMIT, &without(&files, "config.json"));
    place.is_refused("a/config", 4, &advice("a/config", "config.json"));
    let index = serde_json::json!({ "weight_map": { "x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors" } });
    let mut shards = without(&files, WEIGHTS);
    shards.insert("model.safetensors.index.json".into(), index.to_string().into_bytes());
    shards.insert("model-00001-of-00002.safetensors".into(), files[WEIGHTS].clone());
    place.snapshot("a/shards", COMMIT, &shards);
    place.is_refused("a/shards", 4, &advice("a/shards", "model-00002-of-00002.safetensors"));
    place.snapshot("a/split", COMMIT, &[("m-Q8_0-00001-of-00003.gguf".to_owned(), b"GGUF".to_vec())].into());
    place.is_refused("a/split:Q8_0", 4, &advice("a/split:Q8_0", "m-Q8_0-00002-of-00003.gguf"));
    let listed = place.minke(&["list"]);
    assert_eq!((listed.code, listed.out.as_str(), listed.err.lines().count()), (0, "", 4), "{listed:?}");
    // Tokenizer and configuration alone are no model that anything is missing of.
    place.snapshot("a/texts", COMMIT, &without(&files, WEIGHTS));
    place.is_refused("a/texts", 4, "a/texts: no such file or folder, and not downloaded");
    assert_eq!(place.minke(&["list"]).err.lines().count(), 4);
}

#[test]
fn a_quantization_need_not_be_named_where_there_is_one() {
    let (place, gguf) = (Place::new(), gguf());
    let one: Files = [("m-Q8_0.gguf".to_owned(), gguf.clone())].into();
    let snapshot = place.snapshot("a/G-GGUF", COMMIT, &one);
    for name in ["a/G-GGUF", "a/G-GGUF:Q8_0", "a/G-GGUF:q8_0", "hf.co/a/G-GGUF", "https://huggingface.co/a/G-GGUF:Q8_0"]
    {
        place.runs(name, "a/G-GGUF:Q8_0", &snapshot.join("m-Q8_0.gguf"));
    }
    place.is_refused("a/G-GGUF:Q4_K_M", 4, "a/G-GGUF:Q4_K_M: no such file or folder, and not downloaded");
    let two: Files = ["m-Q8_0.gguf", "m-F16.gguf"].map(|name| (name.to_owned(), gguf.clone())).into();
    place.snapshot("a/H-GGUF", COMMIT, &two);
    place.is_refused("a/H-GGUF", 2, "several quantizations of it are here; give one of a/H-GGUF:F16, a/H-GGUF:Q8_0");
}

#[test]
fn the_environment_says_where_it_is_and_whether_a_server_may_be_asked() {
    let (place, files) = (Place::new(), thinker_files());
    let at = place.0.path();
    place.snapshot("a/b", COMMIT, &files);
    fs::create_dir_all(at.join("caches")).unwrap();
    symlink(at.join("no-cache"), at.join("caches/huggingface")).unwrap();
    let (hub, caches) = (place.hub().display().to_string(), at.join("caches").display().to_string());
    for (variable, value) in [
        ("HF_HUB_CACHE", hub.as_str()),
        ("HUGGINGFACE_HUB_CACHE", &hub),
        ("XDG_CACHE_HOME", &caches),
        ("HF_HUB_CACHE", "~/no-cache/hub"),
        ("HF_HOME", "~/no-cache"),
        ("HF_HOME", "$HOME/no-cache"),
    ] {
        let mut list = command(at, &["list"]);
        list.env_remove("HF_HOME").env("HOME", at).env(variable, value);
        let done = Done::of(list.output().unwrap());
        assert!(done.out.starts_with("a/b "), "{variable}={value}: {done:?}");
    }
    let offline =
        |name: &str, value: &str| Done::of(command(at, &["pull", name]).env("HF_HUB_OFFLINE", value).output().unwrap());
    let done = offline("a/none", "1");
    assert_eq!((done.code, done.out.as_str()), (4, ""), "{done:?}");
    assert!(done.err.contains("a/none: not downloaded; HF_HUB_OFFLINE forbids to download it"), "{done:?}");
    assert_eq!(offline("a/b", "yes").code, 0);
    assert_eq!(offline("a/none", "0").code, 5, "asked, and there is no server");
}
