//! The settings of a teacher: an OpenAI-compatible endpoint that answers a stage's questions in place of a model of the run.

use std::collections::BTreeMap;
use std::time::Duration;

use minke_endpoint::EndpointSettings;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most requests in flight.
const REQUESTS_AT_MOST: usize = 1024;
/// The fields of a request that the stage writes itself.
const OWN_FIELDS: [&str; 7] = ["model", "messages", "max_tokens", "temperature", "seed", "stream", "n"];

/// An endpoint that answers: ours, vLLM, llama-server, or one on the network that wants a key.
///
/// # Examples
/// ```
/// let teacher: minke_train::teacher::TeacherConfig = toml::from_str(r#"
///     url = "http://127.0.0.1:8080"
///     model = "deepseek-r1"
///     body = { top_p = 0.95 }
/// "#)?;
/// assert_eq!((teacher.requests, teacher.timeout_s), (16, 600));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    /// The base of its addresses, as OpenAI's clients take it; without a path, `/v1` is meant.
    pub url: String,
    /// What it calls the model.
    pub model: String,
    /// The variable of the environment that has its key, if it wants one. The key itself is never written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// Requests in flight at most.
    #[serde(default = "defaults::requests")]
    pub requests: usize,
    /// Seconds that one attempt may take.
    #[serde(default = "defaults::timeout_s")]
    pub timeout_s: u64,
    /// Attempts for an answer, with growing waits between them.
    #[serde(default = "defaults::attempts")]
    pub attempts: u32,
    /// What else every request says, such as `top_p`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub body: BTreeMap<String, Value>,
}

/// How an endpoint is asked if a run does not say it; workers are asked so too.
pub(crate) mod defaults {
    pub fn requests() -> usize {
        16
    }
    pub fn timeout_s() -> u64 {
        600
    }
    pub fn attempts() -> u32 {
        6
    }
}

impl TeacherConfig {
    /// The client's part of the settings.
    pub(crate) fn settings(&self) -> EndpointSettings {
        EndpointSettings::new(&self.url, &self.model)
            .with_timeout(Duration::from_secs(self.timeout_s))
            .with_attempts(self.attempts)
    }

    /// The part that answers depend on.
    pub(crate) fn identity(&self) -> Self {
        let Self { model, body, .. } = self.clone();
        Self { url: String::new(), model, key_env: None, requests: 0, timeout_s: 0, attempts: 0, body }
    }

    /// What is wrong with the settings, if anything.
    pub(crate) fn fault(&self) -> Option<String> {
        if let Err(error) = self.settings().check() {
            return Some(format!("url: {error}"));
        }
        if let Some(field) = self.body.keys().find(|field| OWN_FIELDS.contains(&field.as_str())) {
            return Some(format!("body: {field} is the stage's to set; remove it"));
        }
        let fault = access_fault(&self.model, self.key_env.as_deref(), self.requests, self.timeout_s, self.attempts);
        fault.map(Into::into)
    }
}

/// What is wrong with how an endpoint is asked, if anything: the field, and why.
pub(crate) fn access_fault(
    model: &str,
    key_env: Option<&str>,
    requests: usize,
    timeout_s: u64,
    attempts: u32,
) -> Option<&'static str> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    Some(if model.trim().is_empty() {
        "model is empty; name it as the endpoint does (GET /v1/models)"
    } else if key_env.is_some_and(|name| name.is_empty() || !name.chars().all(of_name)) {
        // The value is not shown: it may be the key itself.
        "key_env must be the name of a variable of the environment, of letters, digits and '_', not the key"
    } else if !(1..=REQUESTS_AT_MOST).contains(&requests) {
        "requests must lie between 1 and 1024"
    } else if !(1..=86_400).contains(&timeout_s) {
        "timeout_s must lie between 1 and 86400"
    } else if !(1..=100).contains(&attempts) {
        "attempts must lie between 1 and 100"
    } else {
        return None;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(more: &str) -> String {
        let text = format!("url = \"http://127.0.0.1:1\"\nmodel = \"m\"\n{more}");
        toml::from_str::<TeacherConfig>(&text).unwrap().fault().unwrap_or_default()
    }

    #[test]
    fn faults_are_named_without_keys() {
        assert_eq!(fault("key_env = \"TEACHER_KEY\"\nbody = { top_p = 0.95 }"), "");
        assert!(fault("key_env = \"sk-0123\"").starts_with("key_env must be the name"));
        assert!(!fault("key_env = \"sk-0123\"").contains("0123"));
        assert_eq!(fault("body = { n = 4 }"), "body: n is the stage's to set; remove it");
        for (more, field) in
            [("requests = 0", "requests"), ("timeout_s = 0", "timeout_s"), ("attempts = 0", "attempts")]
        {
            assert!(fault(more).starts_with(field), "{more}");
        }
        let of_url =
            |url: &str| toml::from_str::<TeacherConfig>(&format!("url = {url:?}\nmodel = \"m\"")).unwrap().fault();
        assert!(of_url("127.0.0.1:8080").unwrap().starts_with("url: "));
        assert!(!of_url("http://me:hunter2@h").unwrap().contains("hunter2"));
    }

    #[test]
    fn an_address_is_no_part_of_what_answers_depend_on() {
        let of = |more: &str| toml::from_str::<TeacherConfig>(&format!("model = \"m\"\n{more}")).unwrap().identity();
        let base = of("url = \"http://a\"");
        assert_eq!(base, of("url = \"http://b\"\nkey_env = \"K\"\nrequests = 3\ntimeout_s = 5\nattempts = 1"));
        assert_ne!(base, of("url = \"http://a\"\nbody = { top_p = 0.9 }"));
    }
}
