//! A server in the Hub's language, with faults on request.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::Digest;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What a server does wrong with the contents of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Sends 64 KiB per 4 milliseconds.
    Slow,
    /// Ends every connection after a third of what is missing, and at least 50,000 bytes.
    Cuts,
    /// Cuts, and sends the whole file whatever is asked for, which helps once it no longer cuts.
    CutsAndIgnoresRanges,
    /// Flips a bit the first time.
    FlipsOnce,
    /// Flips a bit every time.
    Flips,
    /// Cuts once, then says once that there is no such range.
    NoSuchRange,
    /// Cuts once, then sends once from another byte on.
    WrongRange,
    /// Is busy twice.
    Busy,
    /// Sends more than it announced.
    TooMuch,
    /// Closes without an answer, always.
    Silent,
    /// Redirects to itself.
    Circle,
    /// Redirects to another server.
    Elsewhere(u16),
    /// Answers 401.
    Denies,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub first: usize,
    /// The byte behind the last one that is wanted, if it was said.
    pub end: Option<usize>,
    pub authorization: Option<String>,
}

pub struct Server {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    files: BTreeMap<String, Vec<u8>>,
    fault: Mutex<Fault>,
    /// Contents of weights that were asked for since the fault was set.
    asked: Mutex<usize>,
    requests: Mutex<Vec<Request>>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&sha2::Sha256::digest(bytes))
}

/// The etag that the Hub gives a file: SHA-256 of large ones, that of git of the others.
pub fn etag(name: &str, bytes: &[u8]) -> String {
    if is_large(name) {
        return sha256(bytes);
    }
    hex(&sha1::Sha1::digest([format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat()))
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".gguf")
}

/// The files of a folder.
pub fn files_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
}

impl Server {
    /// Starts a server that has these files in every repository.
    pub fn start(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (fault, asked, requests) = (Mutex::new(Fault::None), Mutex::new(0), Mutex::default());
        let state = Arc::new(State { files, fault, asked, requests });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // The server goes on if its client was killed.
                std::thread::spawn(move || state.answer(stream));
            }
        });
        Self { port, state }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn set(&self, fault: Fault) {
        *self.state.fault.lock().unwrap() = fault;
        *self.state.asked.lock().unwrap() = 0;
        self.state.requests.lock().unwrap().clear();
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }
}

impl State {
    fn answer(&self, mut stream: TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        let line = lines.next()?.ok()?;
        let mut words = line.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut request = Request { method, path, first: 0, end: None, authorization: None };
        for line in lines {
            let line = line.ok()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "range" => {
                    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
                    request.first = first.parse().ok()?;
                    request.end = last.parse().ok().map(|last: usize| last + 1);
                }
                "authorization" => request.authorization = Some(value.to_owned()),
                _ => {}
            }
        }
        self.requests.lock().unwrap().push(request.clone());
        let fault = *self.fault.lock().unwrap();
        if request.path.starts_with("/api/models/") {
            if request.path.contains("/none/") {
                return head(&mut stream, "404 Not Found", &[("Content-Length", "0".into())]);
            }
            let siblings: Vec<_> = self.files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
            let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
            head(&mut stream, "200 OK", &[("Content-Length", body.len().to_string())])?;
            return stream.write_all(body.as_bytes()).ok();
        }
        let name = request.path.rsplit('/').next()?;
        let bytes = self.files.get(name)?;
        if request.method == "HEAD" {
            let (etag, size) = (format!("\"{}\"", etag(name, bytes)), bytes.len().to_string());
            return match is_large(name) {
                true => head(
                    &mut stream,
                    "302 Found",
                    &[
                        ("X-Repo-Commit", COMMIT.into()),
                        ("X-Linked-Etag", etag),
                        ("X-Linked-Size", size),
                        ("Location", "http://127.0.0.1:1/nowhere".into()),
                        ("Content-Length", "0".into()),
                    ],
                ),
                false => head(
                    &mut stream,
                    "200 OK",
                    &[("X-Repo-Commit", COMMIT.into()), ("ETag", etag), ("Content-Length", size)],
                ),
            };
        }
        let fault = if is_large(name) { fault } else { Fault::None };
        self.send(&mut stream, &request, bytes, fault)
    }

    /// Sends the contents of a file, or what the fault makes of them.
    fn send(&self, stream: &mut TcpStream, request: &Request, bytes: &[u8], fault: Fault) -> Option<()> {
        let time = {
            let mut asked = self.asked.lock().unwrap();
            *asked += usize::from(fault != Fault::None);
            *asked
        };
        let empty = ("Content-Length", "0".to_owned());
        let (mut first, mut bytes) = (request.first, bytes.to_vec());
        match fault {
            Fault::Silent => return None,
            Fault::Busy if time <= 2 => return head(stream, "503 Service Unavailable", &[empty]),
            Fault::Denies => return head(stream, "401 Unauthorized", &[empty]),
            Fault::NoSuchRange if time == 2 => return head(stream, "416 Range Not Satisfiable", &[empty]),
            Fault::Circle => return head(stream, "302 Found", &[("Location", request.path.clone()), empty]),
            Fault::Elsewhere(port) => {
                let location = format!("http://127.0.0.1:{port}{}", request.path);
                return head(stream, "302 Found", &[("Location", location), empty]);
            }
            Fault::WrongRange if time == 2 => first /= 2,
            Fault::CutsAndIgnoresRanges => first = 0,
            Fault::Flips => bytes[77_777] ^= 4,
            Fault::FlipsOnce if time == 1 => bytes[77_777] ^= 4,
            Fault::TooMuch => bytes.extend_from_slice(&[0; 5000]),
            _ => {}
        }
        let end = request.end.map_or(bytes.len(), |end| end.min(bytes.len()));
        let missing = end.checked_sub(first)?;
        let mut headers = vec![("Content-Length", missing.to_string())];
        let is_part = first > 0 || request.end.is_some();
        if is_part {
            headers.push(("Content-Range", format!("bytes {first}-{}/{}", end - 1, bytes.len())));
        }
        head(stream, if is_part { "206 Partial Content" } else { "200 OK" }, &headers)?;
        let sent = match fault {
            Fault::Cuts => (missing / 3).max(50_000),
            Fault::NoSuchRange | Fault::WrongRange if time == 1 => missing / 2,
            Fault::CutsAndIgnoresRanges if time <= 2 => missing / (4 - time),
            _ => missing,
        };
        for piece in bytes[first..first + sent.min(missing)].chunks(64 << 10) {
            stream.write_all(piece).ok()?;
            if fault == Fault::Slow {
                std::thread::sleep(Duration::from_millis(4));
            }
        }
        Some(())
    }
}

fn head(stream: &mut TcpStream, status: &str, headers: &[(&str, String)]) -> Option<()> {
    let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    text.push_str("\r\n");
    stream.write_all(text.as_bytes()).ok()
}
