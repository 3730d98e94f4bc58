//! Downloads survive kills, cut connections, flipped bits and servers that answer as they like: in the end every byte
//! is right, or one line says what is wrong.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/server.rs"]
mod server;

use common::{Done, command, thinker};
use server::{COMMIT, Fault, Server, etag, files_of, sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const WEIGHTS: &str = "model.safetensors";

/// A cache of its own, and a server.
struct Place {
    folder: tempfile::TempDir,
    server: Server,
}

impl Place {
    fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), server: Server::start(files) }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = command(self.folder.path(), args);
        command.env("HF_HOME", self.folder.path()).env("HF_ENDPOINT", self.server.endpoint()).env("HF_TOKEN", "secret");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn minke(&self, args: &[&str]) -> Done {
        Done::of(self.command(args).output().unwrap())
    }

    fn repo(&self) -> PathBuf {
        self.folder.path().join("hub/models--a--b")
    }

    /// Forgets what was downloaded.
    fn clear(&self) {
        let _ = fs::remove_dir_all(self.folder.path().join("hub"));
    }
}

fn thinker_files() -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let mut files = files_of(&thinker(folder.path()));
    files.insert("README.md".into(), b"nobody needs this".into());
    files
}

/// Bytes that are the same every time and nowhere alike.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn is_refused(done: &Done, code: i32, part: &str) {
    assert_eq!((done.code, done.out.as_str(), done.err.lines().count()), (code, "", 1), "{part}: {done:?}");
    assert!(done.err.starts_with("minke: ") && done.err.contains(part), "{part:?} is not in {done:?}");
}

#[test]
fn a_model_is_pulled_listed_run_and_removed() {
    let place = Place::new(thinker_files());
    is_refused(&place.minke(&["run", "a/b", "q"]), 4, "a/b: no such file or folder, and not downloaded; check the");
    is_refused(&place.minke(&["pull", "a/b", "--offline"]), 4, "a/b: not downloaded");
    let done = place.minke(&["pull", "a/b"]);
    assert_eq!(done.code, 0, "{done:?}");
    let snapshot = place.repo().join("snapshots").join(COMMIT);
    assert_eq!(Path::new(done.out.trim()), snapshot);
    assert_eq!(fs::read_to_string(place.repo().join("refs/main")).unwrap(), COMMIT);
    assert!(!snapshot.join("README.md").exists());
    // The layout of `huggingface_hub`: relative links to blobs that are called as their etag.
    for (name, bytes) in thinker_files().iter().filter(|(name, _)| *name != "README.md") {
        let target = fs::read_link(snapshot.join(name)).unwrap();
        assert_eq!(target, Path::new("../../blobs").join(etag(name, bytes)), "{name}");
        assert_eq!(&fs::read(snapshot.join(name)).unwrap(), bytes, "{name}");
    }
    let asked = place.server.requests();
    assert!(asked.iter().all(|request| request.authorization.as_deref() == Some("Bearer secret")), "{asked:?}");
    // What is there is not asked for again.
    place.server.set(Fault::Silent);
    assert_eq!(place.minke(&["pull", "a/b"]).code, 0);
    assert!(place.server.requests().iter().all(|request| request.method == "HEAD" || request.path.starts_with("/api")));
    let offline = place.minke(&["pull", "a/b", "--offline", "--json"]).json();
    assert_eq!(offline[0]["path"], snapshot.to_str().unwrap());

    assert_eq!(place.minke(&["run", "a/b", "q"]).out.trim_end().lines().last(), Some("8*3"));
    assert_eq!(place.minke(&["show", "a/b", "--json"]).json()[0]["model_type"], "llama");
    let listed = place.minke(&["list", "--json"]).json();
    let bytes: usize = thinker_files().iter().filter(|(name, _)| *name != "README.md").map(|(_, b)| b.len()).sum();
    assert_eq!((&listed[0][0]["name"], &listed[0][0]["bytes"]), (&"a/b".into(), &bytes.into()));
    assert_eq!(listed[0][0]["quantization"], "F32");
    let removed = place.minke(&["rm", "a/b", "--json"]).json();
    assert_eq!(removed[0]["freed_bytes"], bytes);
    assert!(!place.repo().exists());
    is_refused(&place.minke(&["rm", "a/b"]), 4, "a/b: not downloaded");
}

#[test]
fn blobs_that_others_use_stay() {
    let files = [("m-Q4_K_M.gguf", noise(3000)), ("m-Q8_0.gguf", noise(5000)), ("copy-Q8_0.gguf", noise(3000))];
    let place = Place::new(files.map(|(name, bytes)| (name.to_owned(), bytes)).into());
    is_refused(&place.minke(&["pull", "a/b"]), 5, "holds GGUF files; say which, as a/b:QUANT: Q4_K_M, Q8_0");
    is_refused(&place.minke(&["pull", "a/b:Q2_K"]), 5, "there is no such quantization; there are Q4_K_M, Q8_0");
    assert_eq!(place.minke(&["pull", "a/b:Q4_K_M"]).code, 0);
    assert_eq!(place.minke(&["pull", "a/b:q8_0"]).code, 0);
    // Noise is no GGUF, so neither can be run.
    let listed = place.minke(&["list", "--json"]);
    assert_eq!((listed.code, listed.out.as_str(), listed.err.lines().count()), (0, "[]\n", 2), "{listed:?}");
    for name in ["a/b:Q4_K_M: cannot be run: ", "a/b:Q8_0: cannot be run: "] {
        assert!(listed.err.contains(name), "{listed:?}");
    }
    // The copy of Q8_0 is the blob of Q4_K_M.
    assert_eq!(place.minke(&["rm", "a/b:Q8_0", "--json"]).json()[0]["freed_bytes"], 5000);
    is_refused(&place.minke(&["show", "a/b:Q4_K_M"]), 4, "m-Q4_K_M.gguf: is a file, but not GGUF");
    assert_eq!(place.minke(&["rm", "a/b", "--json"]).json()[0]["freed_bytes"], 3000);
}

#[test]
fn misbehaving_servers_do_no_harm() {
    let place = Place::new([("config.json".to_owned(), b"{}".to_vec()), (WEIGHTS.to_owned(), noise(400_000))].into());
    let other = Server::start([(WEIGHTS.to_owned(), noise(400_000))].into());
    let weights = place.repo().join("snapshots").join(COMMIT).join(WEIGHTS);
    for fault in [
        Fault::Cuts,
        Fault::CutsAndIgnoresRanges,
        Fault::FlipsOnce,
        Fault::NoSuchRange,
        Fault::WrongRange,
        Fault::Busy,
        Fault::TooMuch,
        Fault::Elsewhere(other.port),
    ] {
        place.clear();
        place.server.set(fault);
        let done = place.minke(&["pull", "a/b"]);
        assert_eq!(done.code, 0, "{fault:?}: {done:?}");
        assert_eq!(sha256(&fs::read(&weights).unwrap()), sha256(&noise(400_000)), "{fault:?}");
        let firsts: Vec<usize> = place.server.requests().iter().map(|request| request.first).collect();
        if fault == Fault::Cuts {
            assert!(firsts.iter().filter(|&&first| first > 0).count() >= 3, "it goes on where it stopped: {firsts:?}");
        }
    }
    // The other server has the contents and never got the token.
    let asked = other.requests();
    assert!(!asked.is_empty() && asked.iter().all(|request| request.authorization.is_none()), "{asked:?}");
    for (fault, part) in [
        (Fault::Flips, "a/b/model.safetensors: arrived 3 times with another hash than announced"),
        (Fault::Silent, "what has arrived is kept: run the same command again"),
        (Fault::Circle, "redirects go round in circles"),
        (Fault::Denies, "the server asks who you are: set HF_TOKEN"),
    ] {
        place.clear();
        place.server.set(fault);
        is_refused(&place.minke(&["pull", "a/b"]), 5, part);
        assert!(!weights.exists() && !place.repo().join("refs/main").exists(), "{fault:?}");
    }
    place.server.set(Fault::None);
    is_refused(
        &place.minke(&["pull", "a/none"]),
        5,
        "a/none at main: the server has no such thing; check the spelling",
    );
    is_refused(&place.minke(&["pull", "a/b", "--revision", "../x"]), 2, "is no revision");
}

/// What a disk or another program can leave of a download.
#[test]
fn what_is_damaged_in_a_partial_download_is_fetched_again() {
    let data = noise(300_000);
    let place = Place::new([("config.json".to_owned(), b"{}".to_vec()), (WEIGHTS.to_owned(), data.clone())].into());
    let flipped = |mut bytes: Vec<u8>, at: usize| {
        bytes[at] ^= 1;
        bytes
    };
    let beginning = data[..200_000].to_vec();
    for (what, left) in [
        ("a bit of the beginning", flipped(beginning.clone(), 0)),
        ("a bit of the last byte", flipped(beginning.clone(), 199_999)),
        ("a page of zeros", [&beginning[..100_000], &[0; 100_000][..]].concat()),
        ("all of it, but another file", noise(300_001)[1..].to_vec()),
        ("more than all of it", [data.clone(), vec![1]].concat()),
        ("a bit, all bytes there", flipped(data.clone(), 150_000)),
    ] {
        place.clear();
        let blobs = place.repo().join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(sha256(&data)).with_added_extension("incomplete"), left).unwrap();
        let done = place.minke(&["pull", "a/b"]);
        assert_eq!(done.code, 0, "{what}: {done:?}");
        let weights = fs::read(place.repo().join("snapshots").join(COMMIT).join(WEIGHTS)).unwrap();
        assert_eq!(sha256(&weights), sha256(&data), "{what}");
    }
}

#[test]
fn lists_that_lead_out_of_the_folder_are_refused() {
    for name in ["../model.safetensors", "/tmp/model.safetensors", "x/../../model.safetensors"] {
        let place = Place::new([("config.json".to_owned(), b"{}".to_vec()), (name.to_owned(), noise(10))].into());
        is_refused(&place.minke(&["pull", "a/b"]), 5, "which would lie outside of its folder");
    }
}

#[test]
fn fifty_kills_lose_nothing() {
    let data = noise(20_000_000);
    let place = Place::new([("config.json".to_owned(), b"{}".to_vec()), (WEIGHTS.to_owned(), data.clone())].into());
    place.server.set(Fault::Slow);
    let unfinished = place.repo().join("blobs").join(sha256(&data)).with_added_extension("incomplete");
    let (mut before, mut grown) = (0, 0);
    for kill in 0..50u64 {
        let mut child = place.command(&["pull", "a/b"]).spawn().unwrap();
        // At any point, and every other time while bytes arrive, however slow the machine is.
        let growing = || fs::metadata(&unfinished).is_ok_and(|data| data.len() > before as u64);
        let mut waits = if kill % 2 == 0 { 500 } else { 0 };
        while waits > 0 && !growing() {
            std::thread::sleep(Duration::from_millis(4));
            waits -= 1;
        }
        std::thread::sleep(Duration::from_millis(kill * 7 % 17));
        child.kill().unwrap();
        child.wait().unwrap();
        // Whatever is there is a beginning of the file, and never shorter than before.
        let arrived = fs::read(&unfinished).unwrap_or_default();
        assert!(data.starts_with(&arrived), "after kill {kill}");
        assert!(arrived.len() >= before, "{} bytes are there after kill {kill}, {before} before it", arrived.len());
        grown += usize::from(arrived.len() > before);
        before = arrived.len();
    }
    println!("{grown} of 50 kills came while bytes arrived; {before} of {} are there", data.len());
    place.server.set(Fault::None);
    let done = place.minke(&["pull", "a/b"]);
    assert_eq!(done.code, 0, "{done:?}");
    let weights = fs::read(place.repo().join("snapshots").join(COMMIT).join(WEIGHTS)).unwrap();
    assert_eq!(sha256(&weights), sha256(&data));
    let asked = place.server.requests();
    let contents = asked.iter().find(|request| request.method == "GET" && request.path.ends_with(WEIGHTS));
    assert_eq!(contents.map(|request| request.first), Some(before), "it goes on at the last byte");
    assert!(grown >= 20, "the kills met no download");
}
