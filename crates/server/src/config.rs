//! What a server is told: where it listens, whom it lets in, how much it takes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Settings of a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port to listen on; 0 for one that is free.
    pub port: u16,
    /// A Unix socket to listen on instead.
    pub socket: Option<PathBuf>,
    /// Certificates and private key (PEM); both or none.
    pub tls_cert: Option<PathBuf>,
    /// See [`tls_cert`](Self::tls_cert).
    pub tls_key: Option<PathBuf>,
    /// A file of API keys, a line each; a line that begins with # is a comment.
    pub key_file: Option<PathBuf>,
    /// Path below which everything lies, for a proxy that does not remove it: `/minke`, for instance.
    pub base_path: String,
    /// Origins of pages on other hosts that may use this server: `https://chat.example.org`, or `*`.
    pub cors_origins: Vec<String>,
    /// Names by which this server is addressed, beside those of the machine itself.
    pub allowed_hosts: Vec<String>,
    /// Name of the model for clients; none for that of its file.
    pub model_name: Option<String>,
    /// Other names by which it may be asked for.
    pub model_aliases: Vec<String>,
    /// Requests that are worked on at once.
    pub max_running: usize,
    /// Requests that may wait; more are told to come again.
    pub max_waiting: usize,
    /// Answers to one request.
    pub max_n: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// Bytes of a request's body.
    pub max_body_bytes: usize,
    /// Whether different keys find each other's beginnings of prompts in the cache. Then the time that a prompt takes tells
    /// whether somebody else has asked it.
    pub share_cache: bool,
    /// Folder of the prefix cache on disk; none for the system's place for caches.
    pub disk_cache: Option<PathBuf>,
    /// Most bytes of that folder; 0 for no cache on disk.
    pub disk_cache_bytes: u64,
    /// Whether thoughts are called `reasoning` in chat completions, instead of `reasoning_content`.
    pub reasoning_field: ReasoningField,
    /// Whether the page is served.
    pub page: bool,
    /// How a line about each request is written; it says nothing of what was asked or answered.
    pub log: LogFormat,
    /// Seconds that a shutdown gives to what is under way; then streams end with an error.
    pub grace_seconds: u64,
}

/// How lines about requests are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Not at all.
    #[default]
    Off,
    /// `name=value`, with a space between two.
    Text,
    /// An object of JSON.
    Json,
}

/// The name that a thought has in chat completions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningField {
    /// As DeepSeek names it.
    #[default]
    ReasoningContent,
    /// As vLLM and OpenRouter name it.
    Reasoning,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8080,
            socket: None,
            tls_cert: None,
            tls_key: None,
            key_file: None,
            base_path: String::new(),
            cors_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            model_name: None,
            model_aliases: Vec::new(),
            max_running: 64,
            max_waiting: 512,
            max_n: 16,
            max_connections: 4096,
            max_body_bytes: 32 << 20,
            share_cache: false,
            disk_cache: None,
            disk_cache_bytes: 8 << 30,
            reasoning_field: ReasoningField::default(),
            page: true,
            log: LogFormat::default(),
            grace_seconds: 4,
        }
    }
}

impl ServerConfig {
    /// Checks what can be checked without the files that it names.
    ///
    /// # Errors
    /// What cannot be, in one line.
    pub fn validate(&self) -> Result<()> {
        let refuse = |ok: bool, reason: &str| if ok { Ok(()) } else { Err(Error::Config(reason.into())) };
        let loopback = self.socket.is_some() || self.host.is_loopback();
        refuse(
            loopback || self.key_file.is_some(),
            "whoever reaches this address could use the server: give a key_file, or listen on 127.0.0.1",
        )?;
        refuse(
            self.tls_cert.is_some() == self.tls_key.is_some(),
            "tls_cert and tls_key go together: give both or none",
        )?;
        let path = &self.base_path;
        refuse(
            path.is_empty() || (path.starts_with('/') && !path.ends_with('/') && !path.contains(['?', '#', '{', '}'])),
            "base_path must begin with / and end without one: /minke, for instance",
        )?;
        refuse(self.max_running > 0 && self.max_n > 0, "max_running and max_n must be at least 1")?;
        refuse(
            self.max_connections > 0 && self.max_body_bytes > 0,
            "max_connections and max_body_bytes must be at least 1",
        )
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits { body_bytes: self.max_body_bytes, ..Limits::default() }
    }
}

/// Bounds on what a client may send, and how slowly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub body_bytes: usize,
    /// For the whole head of a request.
    pub head_seconds: u64,
    /// For the next bytes of a body, and for a client to take the next bytes of an answer.
    pub stall_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body_bytes: 32 << 20, head_seconds: 10, stall_seconds: 60 }
    }
}

/// The keys of a file, a line each.
///
/// # Errors
/// If the file cannot be read, has no key, or has one that is too short to be one.
pub(crate) fn read_keys(path: &std::path::Path) -> Result<Vec<String>> {
    let refuse = |reason: String| Error::Config(format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let keys: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(Into::into).collect();
    if keys.is_empty() {
        return Err(refuse("has no key; write one in a line of its own".into()));
    }
    if let Some(i) = keys.iter().position(|key| key.len() < 8 || !key.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(refuse(format!("key {} must have at least 8 visible ASCII characters", i + 1)));
    }
    Ok(keys)
}
