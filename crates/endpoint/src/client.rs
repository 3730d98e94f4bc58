//! Requests to an endpoint: each a few times, with waits that the endpoint can lengthen for all of them.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value};
use ureq::http::header::{CONTENT_TYPE, RETRY_AFTER};
use ureq::http::{Response, Uri};
use ureq::{Agent, Body, Timeout};

use crate::reply::{Completion, Reply, message_in, policy_version_in};
use crate::{Error, Result};

/// Most bytes of a body that are read.
pub const BODY_AT_MOST: u64 = 16 << 20;
/// Most bytes of a refusal that are read.
const REFUSAL_AT_MOST: u64 = 64 << 10;
/// Most characters of it that are shown.
const SHOWN: usize = 200;
/// Most characters of a reason.
const REASON_AT_MOST: usize = 400;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(30);
/// The longest wait between two attempts that is not asked for.
const WAIT_AT_MOST: Duration = Duration::from_secs(60);
/// The longest wait that an endpoint may ask for.
const RETRY_AFTER_AT_MOST: Duration = Duration::from_secs(15 * 60);
/// How often a wait looks whether it should end.
const GLANCE: Duration = Duration::from_millis(50);
/// Where chat completions, completions of ids and the list of models lie below the base of an address.
const CHAT: &str = "/chat/completions";
const COMPLETIONS: &str = "/completions";
const MODELS: &str = "/models";

/// Where an endpoint is, and how patiently it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointSettings {
    /// The base of its addresses, as OpenAI's clients take it; without a path, `/v1` is meant.
    pub url: String,
    /// What it calls the model.
    pub model: String,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Attempts for a request.
    pub attempts: u32,
    /// The first wait between attempts; each further one is twice as long.
    pub first_wait: Duration,
}

impl EndpointSettings {
    /// Six attempts of at most ten minutes, and waits from a second on.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        let (timeout, first_wait) = (Duration::from_secs(600), Duration::from_secs(1));
        Self { url: url.into(), model: model.into(), timeout, attempts: 6, first_wait }
    }

    /// Another limit to the time of an attempt.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Another number of attempts.
    pub fn with_attempts(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    /// Another first wait.
    pub fn with_first_wait(self, first_wait: Duration) -> Self {
        Self { first_wait, ..self }
    }

    /// What is wrong with the address, if anything.
    ///
    /// # Errors
    /// In one line: what, and what to write.
    pub fn check(&self) -> Result<()> {
        base(&self.url).map(|_| ())
    }
}

/// An endpoint that answers. Many threads may ask it at once.
pub struct Endpoint {
    agent: Agent,
    settings: EndpointSettings,
    /// What stands before the paths of requests.
    address: String,
    key: Option<String>,
    /// Until when every request waits, as the endpoint asked.
    pause: Mutex<Option<Instant>>,
}

/// Without the key.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("address", &self.address).field("model", &self.settings.model).finish()
    }
}

/// What an attempt came to, if not to an answer.
enum Miss {
    /// Another request would fare as this one.
    Refused(String),
    /// This request is not answered, however often it is sent.
    Final(String),
    /// The same request may be answered later, perhaps not before the endpoint's wait.
    Later(String, Option<Duration>),
}

impl Endpoint {
    /// An endpoint, with the key that it wants, if it wants one.
    ///
    /// # Errors
    /// If the address is none, the key cannot stand in a header, or the processor lacks what encryption needs.
    pub fn new(settings: EndpointSettings, key: Option<String>) -> Result<Self> {
        let address = base(&settings.url)?;
        let key = key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
        if key.as_ref().is_some_and(|key| !key.bytes().all(|byte| (0x21..0x7f).contains(&byte))) {
            return Err(Error::Settings("the key has characters that no key has; set it again".into()));
        }
        let agent = Agent::config_builder()
            .tls_config(minke_hub::tls::config())
            // A redirect could carry the key to another host.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(settings.timeout))
            .timeout_connect(Some(CONNECT))
            .user_agent(concat!("minke/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity");
        // A proxy of the environment leads to the network, where this machine's own addresses mean nothing.
        let agent = if is_loopback(&address) { agent.proxy(None) } else { agent };
        let agent = agent.build().new_agent();
        Ok(Self { agent, settings, address, key, pause: Mutex::new(None) })
    }

    /// What stands before the paths of requests.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The answer to messages: `request` is the body without `model` and `stream`. Waits, and asks again, as the settings say; raising
    /// `stop` ends a wait.
    ///
    /// # Errors
    /// [`Error::Refused`] if no request will be answered, [`Error::Unanswered`] if this one is not.
    pub fn chat(&self, request: &Map<String, Value>, stop: &AtomicBool) -> Result<Reply> {
        self.ask(CHAT, Some(request), Reply::parse, stop)
    }

    /// The continuation of a prompt of ids, as ids with their log-probabilities. Otherwise as [`Endpoint::chat`].
    ///
    /// # Errors
    /// As [`Endpoint::chat`].
    pub fn complete(&self, request: &Map<String, Value>, stop: &AtomicBool) -> Result<Completion> {
        let mut request = request.clone();
        request.insert("return_token_ids".into(), true.into());
        request.insert("logprobs".into(), 0.into());
        self.ask(COMPLETIONS, Some(&request), Completion::parse, stop)
    }

    /// Which version of a policy the endpoint serves now, as `minke serve --watch` says it; nothing while it loads its first.
    ///
    /// # Errors
    /// As [`Endpoint::chat`]; also if what it serves has no version.
    pub fn policy_version(&self, stop: &AtomicBool) -> Result<Option<String>> {
        match self.ask(MODELS, None, policy_version_in, stop)? {
            Ok(version) => Ok(version),
            Err(reason) => Err(self.refused(&self.address, reason)),
        }
    }

    /// What `parse` makes of the answer to a request, which is a POST if it has a body.
    fn ask<T>(
        &self,
        path: &str,
        request: Option<&Map<String, Value>>,
        parse: fn(&[u8]) -> std::result::Result<T, String>,
        stop: &AtomicBool,
    ) -> Result<T> {
        let body = request.map(|request| {
            let mut body = request.clone();
            body.insert("model".into(), self.settings.model.clone().into());
            body.insert("stream".into(), false.into());
            Value::Object(body).to_string()
        });
        let address = format!("{}{path}", self.address);
        let attempts = self.settings.attempts.max(1);
        let mut last = String::new();
        for attempt in 0..attempts {
            let wait = if attempt == 0 { Duration::ZERO } else { self.backoff(attempt - 1) };
            self.wait(wait, &address, stop)?;
            match self.attempt(&address, body.as_deref(), parse) {
                Ok(answer) => return Ok(answer),
                Err(Miss::Refused(reason)) => return Err(self.refused(&address, &reason)),
                Err(Miss::Final(reason)) => return Err(self.unanswered(&address, &reason)),
                Err(Miss::Later(reason, wanted)) => {
                    if let Some(wanted) = wanted {
                        if wanted > RETRY_AFTER_AT_MOST {
                            let seconds = wanted.as_secs();
                            let reason = format!("{reason}; it asks to wait {seconds} s: come back later");
                            return Err(self.refused(&address, &reason));
                        }
                        self.pause_until(Instant::now() + wanted);
                    }
                    last = reason;
                }
            }
        }
        Err(self.unanswered(&address, &format!("{last}; {attempts} attempts")))
    }

    fn attempt<T>(
        &self,
        address: &str,
        body: Option<&str>,
        parse: fn(&[u8]) -> std::result::Result<T, String>,
    ) -> std::result::Result<T, Miss> {
        let accept = ("Accept", "application/json");
        let key = self.key.as_ref().map(|key| ("Authorization", format!("Bearer {key}")));
        let sent = match body {
            Some(body) => {
                let request = self.agent.post(address).content_type("application/json").header(accept.0, accept.1);
                key.into_iter().fold(request, |request, (name, value)| request.header(name, value)).send(body)
            }
            None => {
                let request = self.agent.get(address).header(accept.0, accept.1);
                key.into_iter().fold(request, |request, (name, value)| request.header(name, value)).call()
            }
        };
        let mut response = sent.map_err(|error| self.miss(&error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(refusal(&mut response));
        }
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or("no content type").to_owned();
        let bytes = response.body_mut().with_config().limit(BODY_AT_MOST).read_to_vec();
        let bytes = bytes.map_err(|error| self.miss(&error))?;
        parse(&bytes).map_err(|reason| match content_type.contains("json") {
            true => Miss::Later(reason, None),
            false => Miss::Final(format!("it answers {content_type}, not JSON: is this the address of the API?")),
        })
    }

    /// What a failure of the transport means.
    fn miss(&self, error: &ureq::Error) -> Miss {
        match error {
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                Miss::Later("cannot be reached in time".into(), None)
            }
            ureq::Error::Timeout(_) => {
                let seconds = self.settings.timeout.as_secs_f64();
                Miss::Final(format!("no whole answer within {seconds} s; allow more time, or shorter answers"))
            }
            ureq::Error::BodyExceedsLimit(bytes) => Miss::Final(format!("the answer has more than {bytes} bytes")),
            error => Miss::Later(error.to_string(), None),
        }
    }

    fn backoff(&self, fruitless: u32) -> Duration {
        self.settings.first_wait.saturating_mul(2u32.saturating_pow(fruitless)).min(WAIT_AT_MOST)
    }

    /// Waits, and as long as the endpoint asked everyone to.
    fn wait(&self, least: Duration, address: &str, stop: &AtomicBool) -> Result<()> {
        let least = Instant::now() + least;
        loop {
            if stop.load(Ordering::SeqCst) {
                return Err(Error::Stopped { address: address.to_owned() });
            }
            let until =
                self.pause.lock().unwrap_or_else(PoisonError::into_inner).map_or(least, |pause| pause.max(least));
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(GLANCE));
        }
    }

    fn pause_until(&self, until: Instant) {
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        *pause = Some(pause.map_or(until, |have| have.max(until)));
    }

    fn refused(&self, address: &str, reason: &str) -> Error {
        Error::Refused { address: address.to_owned(), reason: self.shown(reason) }
    }

    fn unanswered(&self, address: &str, reason: &str) -> Error {
        Error::Unanswered { address: address.to_owned(), reason: self.shown(reason) }
    }

    /// A text of the endpoint in one line, without the key, which some endpoints repeat.
    fn shown(&self, text: &str) -> String {
        let text = match &self.key {
            Some(key) => text.replace(key.as_str(), "[key]"),
            None => text.to_owned(),
        };
        let text = text.replace(|c: char| c.is_control(), " ");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        text.chars().take(REASON_AT_MOST).collect()
    }
}

/// What a status that is no success means.
fn refusal(response: &mut Response<Body>) -> Miss {
    let (status, wanted) = (response.status(), retry_after(response));
    let said = response.body_mut().with_config().limit(REFUSAL_AT_MOST).read_to_vec().unwrap_or_default();
    let said: String = message_in(&said).chars().take(SHOWN).collect();
    let said = if said.trim().is_empty() { String::new() } else { format!(" ({})", said.trim()) };
    match status.as_u16() {
        401 | 403 => Miss::Refused(format!("answers {status}{said}: name the variable of its key with key_env")),
        404 | 405 | 410 => {
            Miss::Refused(format!("answers {status}{said}: check the address and the name of the model"))
        }
        402 => Miss::Refused(format!("answers {status}{said}")),
        300..=399 => Miss::Refused(format!("answers {status}: give the address that it leads to")),
        408 | 409 | 425 | 429 | 500..=599 => Miss::Later(format!("answers {status}{said}"), wanted),
        _ => Miss::Final(format!("answers {status}{said}")),
    }
}

/// How long the endpoint asks to wait: seconds, or until a date.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        // What is out of range is as good as for ever, or as nothing.
        return (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Whether an address is one of this machine's own.
fn is_loopback(address: &str) -> bool {
    let Some(host) = address.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)) else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The base of an endpoint's addresses.
fn base(url: &str) -> Result<String> {
    let wrong = |reason: &str| Err(Error::Settings(format!("{url:?} {reason}")));
    let url_of = url.trim_end_matches('/');
    let Some(uri) = url_of.parse::<Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty())) else {
        return wrong("is not the address of an endpoint; write it as http://127.0.0.1:8080");
    };
    // Not even the address is shown: what stands in front of the host is a password.
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(Error::Settings(
            "the address has a name or a key in it; keys come from the variable that key_env names".into(),
        ));
    }
    if uri.query().is_some() {
        return Err(Error::Settings("the address has a query; keys come from the variable that key_env names".into()));
    }
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") if minke_hub::tls::is_possible() => {}
        Some("https") => return wrong("needs encryption, for which this processor is too old"),
        _ => return wrong("is not the address of an endpoint; write it as http://127.0.0.1:8080"),
    }
    if url_of.ends_with(CHAT) {
        return wrong("is the address of chat completions; give what stands in front of /chat/completions");
    }
    Ok(if uri.path() == "/" { format!("{url_of}/v1") } else { url_of.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_what_clients_of_openai_take() {
        let of = |url: &str| base(url).unwrap();
        assert_eq!(of("http://127.0.0.1:8080"), "http://127.0.0.1:8080/v1");
        assert_eq!(of("http://127.0.0.1:8080/"), "http://127.0.0.1:8080/v1");
        assert_eq!(of("https://api.example/v1/"), "https://api.example/v1");
        assert_eq!(of("http://[::1]:80/v1beta/openai"), "http://[::1]:80/v1beta/openai");
        for wrong in
            ["", "127.0.0.1:8080", "ftp://a", "http://", "http:///v1", "http://h/v1/chat/completions", "not an address"]
        {
            let message = base(wrong).unwrap_err().to_string();
            assert!(!message.contains('\n') && message.contains("address"), "{wrong}: {message}");
        }
        for secret in ["http://me:hunter2@host/v1", "http://host/v1?key=hunter2"] {
            let message = base(secret).unwrap_err().to_string();
            assert!(message.contains("key_env") && !message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn addresses_of_this_machine_are_known() {
        for own in ["http://127.0.0.1:8080/v1", "http://[::1]:80", "http://LOCALHOST/v1", "http://127.8.8.8"] {
            assert!(is_loopback(own), "{own}");
        }
        for other in ["http://10.0.0.1", "https://127.0.0.1.example", "http://[2001:db8::1]:80/v1"] {
            assert!(!is_loopback(other), "{other}");
        }
    }

    #[test]
    fn keys_are_not_shown() {
        let settings = EndpointSettings::new("http://127.0.0.1:9", "m");
        let endpoint = Endpoint::new(settings.clone(), Some(" secret-key\n".into())).unwrap();
        assert!(!format!("{endpoint:?}").contains("secret"));
        assert_eq!(endpoint.shown("the key secret-key\r\n is  wrong"), "the key [key] is wrong");
        let message = Endpoint::new(settings, Some("two\nlines".into())).unwrap_err().to_string();
        assert!(!message.contains("two"), "{message}");
    }

    #[test]
    fn waits_grow_to_a_limit() {
        let endpoint = Endpoint::new(EndpointSettings::new("http://127.0.0.1:9", "m"), None).unwrap();
        let waits: Vec<u64> = [0, 1, 2, 5, 6, 40].into_iter().map(|i| endpoint.backoff(i).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 32, 60, 60]);
    }
}
