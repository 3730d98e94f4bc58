//! Requests to a server: one at a time, a few attempts each; redirects are followed here, so that a token never leaves its host.

use std::time::Duration;

use ureq::http::{Response, StatusCode, Uri};
use ureq::{Agent, Body};

use crate::{Error, Result, tls};

/// Attempts in a row that bring nothing.
pub(crate) const ATTEMPTS: u32 = 6;
/// The first wait between attempts; each further one is twice as long.
const WAIT: Duration = Duration::from_millis(100);
/// Most redirects of one request.
const REDIRECTS: usize = 10;
/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// A server with the interface of the Hugging Face Hub.
pub struct Hub {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The headers of the first answer that names a file's hash.
    Head,
    /// The contents, from a byte on.
    From(u64),
    /// A part of the contents: its first byte, and how many.
    Part(u64, u64),
}

impl Hub {
    /// A server by its address, with the token of the user.
    ///
    /// # Errors
    /// If the address is none, or the processor lacks what encryption needs.
    pub fn new(endpoint: &str, token: Option<String>) -> Result<Self> {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let uri = endpoint.parse::<Uri>().ok().filter(|uri| uri.host().is_some());
        match uri.as_ref().and_then(Uri::scheme_str) {
            Some("http") => {}
            Some("https") if tls::is_possible() => {}
            Some("https") => return Err(refused(&endpoint, "needs encryption, for which this processor is too old")),
            _ => return Err(refused(&endpoint, "is not the address of a server; write it as https://huggingface.co")),
        }
        let agent = Agent::config_builder()
            .tls_config(tls::config())
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .user_agent(concat!("minke/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .build()
            .new_agent();
        Ok(Self { agent, endpoint, token })
    }

    /// The address of the list of a revision's files.
    pub(crate) fn list_address(&self, repo: &str, revision: &str) -> String {
        format!("{}/api/models/{repo}/revision/{}?blobs=true", self.endpoint, encoded(revision))
    }

    /// The address of a file.
    pub(crate) fn file_address(&self, repo: &str, commit: &str, path: &str) -> String {
        let path: Vec<String> = path.split('/').map(encoded).collect();
        format!("{}/{repo}/resolve/{commit}/{}", self.endpoint, path.join("/"))
    }

    /// Sends the request until the server answers and `read` gets through its answer, a few times.
    ///
    /// # Errors
    /// If the server refuses, cannot be reached, or `read` returns an error that another request would not mend.
    pub(crate) fn answer<T>(
        &self,
        what: &str,
        address: &str,
        ask: Ask,
        read: impl Fn(Response<Body>) -> std::result::Result<Result<T>, String>,
    ) -> Result<T> {
        let mut last = String::new();
        for attempt in 0..ATTEMPTS {
            pause(attempt);
            let response = match self.ask(address, ask) {
                Ok(response) => response,
                Err(reason) => {
                    last = reason;
                    continue;
                }
            };
            let status = response.status();
            if let Some(error) = refusal(what, status) {
                return Err(error);
            }
            let is_answer = status.is_success() || (ask == Ask::Head && status.is_redirection());
            if !is_answer {
                last = format!("the server answers {status}");
                continue;
            }
            match read(response) {
                Ok(result) => return result,
                Err(reason) => last = reason,
            }
        }
        Err(Error::Network { what: what.into(), reason: last })
    }

    /// Sends one request, and follows redirects. The answer may be an error of the server's.
    pub(crate) fn ask(&self, address: &str, ask: Ask) -> std::result::Result<Response<Body>, String> {
        let mut address = address.to_owned();
        for _ in 0..REDIRECTS {
            let mut request = match ask {
                Ask::Head => self.agent.head(&address),
                Ask::From(_) | Ask::Part(..) => self.agent.get(&address),
            };
            match ask {
                Ask::From(first @ 1..) => request = request.header("Range", format!("bytes={first}-")),
                Ask::Part(first, bytes) => {
                    request = request.header("Range", format!("bytes={first}-{}", first + bytes - 1));
                }
                Ask::Head | Ask::From(0) => {}
            }
            if let Some(token) = self.token.as_ref().filter(|_| origin(&address) == origin(&self.endpoint)) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| error.to_string())?;
            let named = response.headers().contains_key("x-linked-etag");
            if !response.status().is_redirection() || (ask == Ask::Head && named) {
                return Ok(response);
            }
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            address = location.and_then(|to| next_address(&address, to)).ok_or("a redirect leads nowhere")?;
        }
        Err("redirects go round in circles".into())
    }
}

/// Waits before an attempt that follows fruitless ones.
pub(crate) fn pause(fruitless: u32) {
    if fruitless > 0 {
        std::thread::sleep(WAIT * 2u32.pow(fruitless - 1));
    }
}

/// The error of a server's refusal; nothing if another request could help.
pub(crate) fn refusal(what: &str, status: StatusCode) -> Option<Error> {
    let reason = match status.as_u16() {
        401 | 403 => "the server asks who you are: set HF_TOKEN, and accept the model's conditions on its page",
        404 | 410 => "the server has no such thing; check the spelling, or set HF_TOKEN if it is private",
        _ => return None,
    };
    Some(refused(what, reason))
}

pub(crate) fn refused(what: &str, reason: impl Into<String>) -> Error {
    Error::Refused { what: what.into(), reason: reason.into() }
}

/// Where a redirect leads; never from an encrypted address to an open one.
fn next_address(from: &str, to: &str) -> Option<String> {
    let (scheme, _, _) = origin(from)?;
    if to.starts_with("https://") || (to.starts_with("http://") && scheme == "http") {
        return Some(to.to_owned());
    }
    let host = from.get(..scheme.len() + 3 + from.get(scheme.len() + 3..)?.find('/')?)?;
    match to {
        to if to.starts_with("//") => Some(format!("{scheme}:{to}")),
        to if to.starts_with('/') => Some(format!("{host}{to}")),
        _ => None,
    }
}

/// Scheme, host and port of an address.
fn origin(address: &str) -> Option<(String, String, u16)> {
    let uri: Uri = address.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// A part of a path as an address holds it.
fn encoded(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_within_reason() {
        let from = "https://huggingface.co/a/b";
        assert_eq!(next_address(from, "/c?d"), Some("https://huggingface.co/c?d".into()));
        assert_eq!(next_address(from, "https://cdn.example/x"), Some("https://cdn.example/x".into()));
        assert_eq!(next_address(from, "http://cdn.example/x"), None);
        assert_eq!(next_address("http://127.0.0.1:9/a", "/c"), Some("http://127.0.0.1:9/c".into()));
        assert_ne!(origin("http://127.0.0.1:1/"), origin("http://127.0.0.1:2/"));
        assert_eq!(origin("https://HuggingFace.co/x"), origin("https://huggingface.co:443"));
        assert_eq!(encoded("a b/é"), "a%20b%2F%C3%A9");
    }

    #[test]
    fn an_encrypting_client_can_be_made_here() {
        assert!(Hub::new("https://huggingface.co", None).is_ok());
        for wrong in ["huggingface.co", "ftp://huggingface.co", "https://", ""] {
            assert!(Hub::new(wrong, None).is_err(), "{wrong}");
        }
    }
}
