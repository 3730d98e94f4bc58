//! `minke launch`: a coding agent that uses a running server.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::print_line;
use crate::args::{Agent, Launch, Settings};
use crate::environment;
use crate::error::Exit;

/// How long a server may take to say what it serves.
const SILENCE: Duration = Duration::from_secs(10);

/// Milliseconds that an agent waits for the beginning of an answer: a long prompt may take a small machine minutes to read.
const PATIENCE: &str = "3600000";

/// Runs `minke launch`.
pub fn run(args: &Launch) -> Result<()> {
    let url = match &args.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => own_address()?,
    };
    let server = Server::ask(url)?;
    let setup = Setup::new(args.agent, &server);
    if args.print {
        return print_line(&setup.text(args.agent));
    }
    let mut command = Command::new(args.agent.program());
    command.envs(setup.variables.iter().map(|(name, value)| (name, value.get())));
    command.args(setup.arguments()).args(&args.arguments);
    // The agent takes the place of this program.
    let error = command.exec();
    let (program, package) = (args.agent.program(), args.agent.package());
    Err(match error.kind() {
        ErrorKind::NotFound => Exit::Failed
            .because(format!("{program} is not installed, or not in PATH; npm install -g {package} installs it")),
        _ => Exit::Failed.because(format!("{program} cannot be started: {error}")),
    })
}

/// The address of a server with the settings of this machine.
fn own_address() -> Result<String> {
    let config = Settings::default().resolve()?.config;
    if config.socket.is_some() {
        return Err(
            Exit::Usage.because("the settings name a Unix socket, and agents speak to addresses; say which by --url")
        );
    }
    let scheme = if config.tls_cert.is_some() { "https" } else { "http" };
    let host = if config.host.is_unspecified() { "127.0.0.1".parse()? } else { config.host };
    Ok(format!("{scheme}://{}{}", std::net::SocketAddr::new(host, config.port), config.base_path))
}

/// A server that answered.
struct Server {
    url: String,
    model: String,
    context: u64,
    has_key: bool,
}

impl Server {
    /// Asks a server what it serves.
    fn ask(url: String) -> Result<Self> {
        let refuse = |reason: String| Exit::Network.because(format!("{url}: {reason}"));
        if !url.starts_with("http://") {
            let reason =
                "an agent is set up for a server at http://HOST:PORT; one with TLS may stand behind that by a proxy";
            return Err(Exit::Usage.because(format!("{url}: {reason}")));
        }
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(SILENCE)).build();
        let key = environment::api_key();
        let mut request = config.new_agent().get(format!("{url}/v1/models"));
        if let Some(key) = &key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let mut answer = request.call().map_err(|error| {
            refuse(format!("no server answers ({error}); start one with minke serve, or name another by --url"))
        })?;
        match answer.status().as_u16() {
            200 => {}
            401 => {
                return Err(refuse(format!(
                    "the server asks for a key; set {} to one of its keys",
                    environment::API_KEY
                )));
            }
            503 => return Err(refuse("the server still loads its model; try again soon".into())),
            status => return Err(refuse(format!("is no server of minke: it answers {status}"))),
        }
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        let models: Value = serde_json::from_str(&text).unwrap_or_default();
        let first = &models["data"][0];
        match (first["id"].as_str(), first["context_length"].as_u64()) {
            (Some(model), Some(context)) => Ok(Self { model: model.into(), context, has_key: key.is_some(), url }),
            _ => Err(refuse("is no server of minke: it names no model with its context".into())),
        }
    }
}

impl Agent {
    fn program(self) -> &'static str {
        match self {
            Self::Codex => "codex",
            Self::Claude => "claude",
            Self::Opencode => "opencode",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Codex => "@openai/codex",
            Self::Claude => "@anthropic-ai/claude-code",
            Self::Opencode => "opencode-ai",
        }
    }
}

/// What an agent is told: variables, and settings that its command line takes as well as its file.
struct Setup {
    variables: Vec<(&'static str, Setting)>,
    settings: Vec<(&'static str, Value)>,
}

/// A value of a variable.
enum Setting {
    Text(String),
    /// The key of the person, which is not printed.
    Key,
}

impl Setting {
    fn get(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Key => environment::api_key().unwrap_or_default(),
        }
    }

    /// As a shell reads it.
    fn quoted(&self) -> String {
        match self {
            Self::Text(text) => format!("'{}'", text.replace('\'', r"'\''")),
            Self::Key => format!("\"${}\"", environment::API_KEY),
        }
    }
}

impl Setup {
    fn new(agent: Agent, server: &Server) -> Self {
        let Server { url, model, context, has_key } = server;
        let text = |text: &str| Setting::Text(text.to_owned());
        let mut setup = Self { variables: Vec::new(), settings: Vec::new() };
        match agent {
            Agent::Codex => {
                setup.settings = vec![
                    ("model", json!(model)),
                    ("model_context_window", json!(context)),
                    ("model_provider", json!("minke")),
                    ("model_providers.minke.name", json!("Minke")),
                    ("model_providers.minke.base_url", json!(format!("{url}/v1"))),
                    ("model_providers.minke.wire_api", json!("responses")),
                ];
                if *has_key {
                    setup.settings.push(("model_providers.minke.env_key", json!(environment::API_KEY)));
                }
            }
            Agent::Claude => {
                // Without a token it asks people to log in.
                let token = if *has_key { Setting::Key } else { text("none") };
                setup.variables = vec![("ANTHROPIC_BASE_URL", text(url)), ("ANTHROPIC_AUTH_TOKEN", token)];
                for name in ["ANTHROPIC_MODEL", "ANTHROPIC_DEFAULT_HAIKU_MODEL", "CLAUDE_CODE_SUBAGENT_MODEL"] {
                    setup.variables.push((name, text(model)));
                }
                setup.variables.push(("CLAUDE_CODE_AUTO_COMPACT_WINDOW", text(&context.to_string())));
                // It gives an answer up that does not begin within five minutes, and takes no sign of life for a beginning.
                setup.variables.push(("CLAUDE_STREAM_IDLE_TIMEOUT_MS", text(PATIENCE)));
                setup.variables.push(("API_TIMEOUT_MS", text(PATIENCE)));
            }
            Agent::Opencode => {
                let mut options = json!({"baseURL": format!("{url}/v1"), "timeout": false});
                if *has_key {
                    options["apiKey"] = json!(format!("{{env:{}}}", environment::API_KEY));
                }
                let name = format!("minke/{model}");
                let limit = json!({"context": context, "output": context / 4});
                let provider = json!({
                    "npm": "@ai-sdk/openai-compatible",
                    "name": "Minke",
                    "options": options,
                    "models": {model: {"name": model, "limit": limit}},
                });
                let config = json!({"model": name, "small_model": name, "provider": {"minke": provider}});
                setup.variables = vec![("OPENCODE_CONFIG_CONTENT", Setting::Text(config.to_string()))];
            }
        }
        setup
    }

    /// The settings as arguments of the command line.
    fn arguments(&self) -> Vec<OsString> {
        self.settings.iter().flat_map(|(name, value)| ["-c".into(), format!("{name}={value}").into()]).collect()
    }

    /// What to put where, for people.
    fn text(&self, agent: Agent) -> String {
        let mut lines = Vec::new();
        if !self.settings.is_empty() {
            lines.push("# at the top of ~/.codex/config.toml".to_owned());
            lines.extend(self.settings.iter().map(|(name, value)| format!("{name} = {value}")));
        }
        if !self.variables.is_empty() {
            lines.push(format!("# in the shell that starts {}", agent.program()));
            lines.extend(self.variables.iter().map(|(name, value)| format!("export {name}={}", value.quoted())));
        }
        lines.join("\n")
    }
}
