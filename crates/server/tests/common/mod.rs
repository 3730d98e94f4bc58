//! A server in this process with a scripted model, and a client that shows every byte.
#![allow(clippy::unwrap_used)]
#![allow(dead_code)]

#[path = "../../../chat/tests/common/mod.rs"]
pub mod scripted;

pub mod document;
pub mod draws;
pub mod told;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use minke_chat::{ChatModel, Worker, WorkerConfig};
use minke_server::{Loader, Server, ServerConfig};
use minke_tensor::Device;
use serde_json::Value;

use document::Document;

/// A server that runs until it is dropped.
pub struct Running {
    pub address: String,
    loader: Loader,
    thread: Option<JoinHandle<()>>,
    base_path: String,
    document: OnceLock<Document>,
    _folder: tempfile::TempDir,
}

/// A configuration for tests, of these settings in TOML.
pub fn config(settings: &str) -> ServerConfig {
    toml::from_str(&format!("port = 0\n{settings}")).unwrap()
}

impl Running {
    /// Serves a scripted model.
    pub fn start(model: fn(&Path) -> PathBuf, settings: &str) -> Self {
        Self::start_logged(model, settings, |_| {})
    }

    /// The same with a line about each request.
    pub fn start_logged(
        model: fn(&Path) -> PathBuf,
        settings: &str,
        lines: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = model(folder.path());
        let config = config(settings);
        let base_path = config.base_path.clone();
        let worker = WorkerConfig::default()
            .with_max_running(config.max_running)
            .with_max_waiting(config.max_waiting)
            .with_chunk_tokens(64);
        let server = Server::bind(config, |_| {}).unwrap().with_log(lines);
        let url = server.url().unwrap_or_default();
        let address = url.split('/').nth(2).unwrap_or_default().to_owned();
        let loader = server.loader();
        let model = ChatModel::open(&path, &Device::open("cpu", 1).unwrap()).unwrap();
        loader.serve(Worker::start(Arc::new(model), worker).unwrap(), "scripted");
        let thread = Some(std::thread::spawn(move || server.run().unwrap()));
        Self { address, loader, thread, base_path, document: OnceLock::new(), _folder: folder }
    }

    /// Sends a request and waits for all of the response, which is what the server's document says.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let response = self.exchange(method, path, headers, body);
        self.document().check(method, path, &response);
        response
    }

    /// What the server says of itself.
    pub fn document(&self) -> &Document {
        let read = || self.exchange("GET", &format!("{}/openapi.json", self.base_path), &[], b"").json();
        self.document.get_or_init(|| Document(read()))
    }

    fn exchange(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let mut stream = self.connect();
        stream.write_all(&self.head(method, path, headers, body.len())).unwrap();
        // A server that refuses early closes before it has read everything.
        let _ = stream.write_all(body);
        Response::read(&mut stream)
    }

    /// The head of a request.
    pub fn head(&self, method: &str, path: &str, headers: &[(&str, &str)], length: usize) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            head += &format!("host: {}\r\n", self.address);
        }
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        (head + &format!("content-length: {length}\r\n\r\n")).into_bytes()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    pub fn get(&self, path: &str) -> Response {
        self.send("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// The value of a metric.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find(|line| line.split_once(' ').is_some_and(|(key, _)| key == name));
        line.and_then(|line| line.split_once(' ')?.1.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
    }

    /// Waits until nothing runs or waits.
    pub fn wait_until_idle(&self) {
        let begin = Instant::now();
        while self.metric("minke_requests_running") + self.metric("minke_requests_waiting") > 0.0 {
            assert!(begin.elapsed() < Duration::from_secs(20), "something still runs");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks the server to end, as a signal would.
    pub fn stop(&self) {
        self.loader.stop();
    }

    /// Waits for the end.
    pub fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.loader.stop();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What a server answered.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// Reads to the end of the connection.
    pub fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut response = Self { status, headers, body: bytes[end + 4..].to_vec() };
        if response.header("transfer-encoding") == Some("chunked") {
            response.body = unchunked(&response.body);
        }
        response
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The events of a stream: their names and data; comments have neither.
    pub fn events(&self) -> Vec<(String, Value)> {
        told::events(&self.body)
    }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        let data = &bytes[end + 2..];
        if size == 0 || data.len() < size {
            break;
        }
        whole.extend_from_slice(&data[..size]);
        bytes = &data[size + 2..];
    }
    whole
}
