//! What `minke serve` takes: flags, environment, a file and defaults, in this order.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use minke_server::ServerConfig;
use serde::Serialize;
use toml::{Table, Value};

use super::{Adapter, Compute, Output};
use crate::environment;
use crate::error::Exit;

/// `minke serve`
#[derive(Args)]
pub struct Serve {
    /// Folder of a model, GGUF file, folder or TOML of a run (its newest model), or name of a downloaded model
    /// [default: models/first-light]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub model: Option<String>,
    #[command(flatten)]
    pub adapter: Adapter,
    /// Serve the policy that a run publishes in this folder, and each that follows; MODEL is then the base of its adapter, if it is one
    #[arg(long, value_name = "FOLDER", conflicts_with = "folder")]
    pub watch: Option<PathBuf>,
    #[command(flatten)]
    pub settings: Settings,
    #[command(flatten)]
    pub compute: Compute,
}

/// `minke config`
#[derive(Subcommand)]
pub enum Config {
    /// Say which settings `minke serve` would have
    Show {
        #[command(flatten)]
        settings: Settings,
        /// Say where each comes from
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        output: Output,
    },
}

/// Settings of a server. Each can also stand in the file, under its name with underscores, and in a variable, as
/// MINKE_PORT for --port.
#[derive(Args, Default, Serialize)]
pub struct Settings {
    /// TOML of settings [default: MINKE_CONFIG, else none]
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<std::net::IpAddr>,
    /// Port to listen on, 0 for one that is free [default: 8080]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    /// Listen on a Unix socket instead
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<PathBuf>,
    /// Certificates (PEM) for TLS
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cert: Option<PathBuf>,
    /// Private key (PEM) for TLS
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_key: Option<PathBuf>,
    /// File of API keys, a line each
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<PathBuf>,
    /// Path below which everything lies, such as /minke
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    base_path: Option<String>,
    /// Origins of pages on other hosts that may use the server; may be given again
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cors_origins: Vec<String>,
    /// Names by which the server is addressed, beside this machine's own; may be given again
    #[arg(long = "allowed-host", value_name = "NAME")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed_hosts: Vec<String>,
    /// Name of the model for clients [default: that of its file]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    model_name: Option<String>,
    /// Other names by which it may be asked for, * for any; may be given again
    #[arg(long = "model-alias", value_name = "NAME")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    model_aliases: Vec<String>,
    /// Requests that are worked on at once [default: 64]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_running: Option<usize>,
    /// Requests that may wait; more are told to come again [default: 512]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_waiting: Option<usize>,
    /// Folder of the prefix cache on disk [default: the system's place for caches]
    #[arg(long, value_name = "FOLDER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_cache: Option<PathBuf>,
    /// Most bytes of that folder, 0 for no cache on disk [default: 8589934592]
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_cache_bytes: Option<u64>,
    /// Write a line about each request to stderr, without what was asked and answered [default: off]
    #[arg(long, value_name = "FORMAT", value_parser = ["off", "text", "json"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    /// Let different keys find each other's beginnings of prompts in the cache
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    share_cache: bool,
}

/// The settings that count, and where each comes from.
pub struct Resolved {
    pub config: ServerConfig,
    pub origins: Vec<(String, Value, String)>,
}

impl Settings {
    /// The flags, else the environment, else the file, else the defaults.
    ///
    /// # Errors
    /// If the file cannot be read, or a value is not one of its setting.
    pub fn resolve(&self) -> Result<Resolved> {
        let defaults = Table::try_from(ServerConfig::default()).context("the defaults")?;
        let mut layers: Vec<(String, Table)> = Vec::new();
        if let Some(path) = self.config.clone().or_else(environment::config) {
            let shown = path.display().to_string();
            let refuse = |reason: String| Exit::BadFile.because(format!("{shown}: {reason}"));
            let text = std::fs::read_to_string(&path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
            let table: Table = text.parse().map_err(|error| refuse(format!("is no TOML: {error}")))?;
            // The file by itself, so that an error is about it.
            table.clone().try_into::<ServerConfig>().map_err(|error| refuse(error.message().to_owned()))?;
            layers.push((shown, table));
        }
        for (name, text) in environment::settings() {
            // Behind the program's name stands that of the setting.
            let key = name.split_once('_').map_or("", |(_, key)| key).to_lowercase();
            // A number or a list as TOML writes it, else the text itself.
            let parsed = format!("{key} = {text}").parse::<Table>().ok().filter(accepts);
            let table = parsed.unwrap_or_else(|| Table::from_iter([(key.clone(), Value::String(text.clone()))]));
            if !accepts(&table) {
                return Err(Exit::Usage.because(format!("{name}={text}: is not a value of the setting {key}")));
            }
            layers.push((name, table));
        }
        let flags = Table::try_from(self).context("the flags")?;
        layers.extend(flags.into_iter().map(|(key, value)| {
            let flag = format!("--{}", key.replace("_", "-").trim_end_matches("es").trim_end_matches('s'));
            (flag, Table::from_iter([(key, value)]))
        }));
        let mut origins: Vec<(String, Value, String)> =
            defaults.into_iter().map(|(key, value)| (key, value, "default".into())).collect();
        for (origin, table) in layers {
            for (key, value) in table {
                match origins.iter_mut().find(|(known, ..)| *known == key) {
                    Some(entry) => (entry.1, entry.2) = (value, origin.clone()),
                    None => origins.push((key, value, origin.clone())),
                }
            }
        }
        let all = Table::from_iter(origins.iter().map(|(key, value, _)| (key.clone(), value.clone())));
        let config: ServerConfig =
            all.try_into().map_err(|error: toml::de::Error| Exit::Usage.because(error.message().to_owned()))?;
        config.validate().map_err(|error| Exit::Usage.because(error.to_string()))?;
        Ok(Resolved { config, origins })
    }
}

/// Whether a setting by itself has a value that it can have.
fn accepts(table: &Table) -> bool {
    table.clone().try_into::<ServerConfig>().is_ok()
}
