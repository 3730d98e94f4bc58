//! The settings of workers.

use std::path::PathBuf;
use std::time::Duration;

use minke_endpoint::EndpointSettings;
use serde::{Deserialize, Serialize};

use crate::teacher::{self, access_fault};

/// The settings of workers: the table `[stage.workers]`.
///
/// # Examples
/// ```
/// let workers: minke_train::grpo::WorkersConfig = toml::from_str(r#"
///     urls = ["http://10.0.0.2:8080", "http://10.0.0.3:8080"]
/// "#)?;
/// assert_eq!((workers.requests, workers.max_staleness, workers.max_ratio), (16, 1, 2.0));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkersConfig {
    /// The bases of their addresses; without a path, `/v1` is meant.
    pub urls: Vec<String>,
    /// What they call the policy.
    #[serde(default = "defaults::model")]
    pub model: String,
    /// The variable of the environment that has their key, if they want one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// Requests that each has at once, at most.
    #[serde(default = "teacher::defaults::requests")]
    pub requests: usize,
    /// Seconds that one answer may take, and a version to arrive.
    #[serde(default = "teacher::defaults::timeout_s")]
    pub timeout_s: u64,
    /// Failures in a row after which a worker is given up; the stage ends when all are.
    #[serde(default = "teacher::defaults::attempts")]
    pub attempts: u32,
    /// Where versions of the policy are published; `policy/` in the folder of the stage if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// By how many steps the policy that drew a rollout may be older than the one that learns from it.
    #[serde(default = "defaults::max_staleness")]
    pub max_staleness: u64,
    /// Where importance weights are cut off.
    #[serde(default = "defaults::max_ratio")]
    pub max_ratio: f64,
}

mod defaults {
    pub fn model() -> String {
        "policy".into()
    }
    pub fn max_staleness() -> u64 {
        1
    }
    pub fn max_ratio() -> f64 {
        2.0
    }
}

impl WorkersConfig {
    /// The part that the result of a stage depends on, beside the answers themselves.
    pub(crate) fn identity(&self) -> Self {
        let Self { max_staleness, max_ratio, .. } = *self;
        let (urls, model, key_env, folder) = (Vec::new(), String::new(), None, None);
        Self { urls, model, key_env, requests: 0, timeout_s: 0, attempts: 0, folder, max_staleness, max_ratio }
    }

    pub(super) fn endpoint(&self, url: &str) -> EndpointSettings {
        // What fails is asked of another worker, not of the same one again.
        let timeout = Duration::from_secs(self.timeout_s);
        EndpointSettings::new(url, &self.model).with_timeout(timeout).with_attempts(1)
    }

    /// What is wrong with the settings, if anything.
    pub(crate) fn fault(&self) -> Option<String> {
        for (i, url) in self.urls.iter().enumerate() {
            if let Err(error) = self.endpoint(url).check() {
                return Some(format!("workers.urls: {error}"));
            }
            if self.urls[..i].contains(url) {
                return Some(format!("workers.urls: {url:?} is there twice; leave one out"));
            }
        }
        let reason = if self.urls.is_empty() {
            "workers.urls is empty; name a worker, as http://127.0.0.1:8080, or leave the table out"
        } else if !(1.0..=1e6).contains(&self.max_ratio) {
            "workers.max_ratio must lie between 1 and 1000000"
        } else if self.max_staleness > 1000 {
            "workers.max_staleness must be at most 1000"
        } else {
            let fault =
                access_fault(&self.model, self.key_env.as_deref(), self.requests, self.timeout_s, self.attempts);
            return fault.map(|fault| format!("workers.{fault}"));
        };
        Some(reason.into())
    }
}
