//! A run that is watched in a browser: what the folder says, under the names that the page asks for.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use minke_eval::Verdict;
use minke_server::{Dashboard, Polled, Source, SourceError};
use minke_train::live::{Known, LiveRun, RolloutQuery};
use serde::Serialize;

/// Where a dashboard listens unless another address is given.
pub const ADDRESS: &str = "127.0.0.1:8090";

/// Groups in an answer unless another number is asked for.
const LIMIT: usize = 40;

/// A dashboard of the run in a folder that listens.
///
/// # Errors
/// If the address is taken, or is one that other machines reach.
pub fn dashboard(folder: &Path, address: SocketAddr) -> minke_server::Result<Dashboard> {
    Dashboard::bind(address, Arc::new(Watched(LiveRun::new(folder))))
}

/// Serves a dashboard on a thread of its own beside a run. What goes wrong with it is a line on stderr.
pub fn beside(folder: &Path, address: SocketAddr) {
    let started = dashboard(folder, address).map_err(|error| error.to_string()).and_then(|dashboard| {
        let url = dashboard.url();
        let serve = move || {
            if let Err(error) = dashboard.run_beside() {
                eprintln!("minke: the dashboard ended: {error}; the run goes on");
            }
        };
        let thread = std::thread::Builder::new().name("dashboard".into()).spawn(serve);
        thread.map(|_| url).map_err(|error| format!("the system gives no thread: {error}"))
    });
    match started {
        Ok(url) => eprintln!("dashboard: {url}"),
        Err(error) => eprintln!("minke: no dashboard: {error}; the run goes on without it"),
    }
}

/// The documents of a run.
struct Watched(LiveRun);

impl Source for Watched {
    fn poll(&self) -> Result<Polled, String> {
        let growth = self.0.poll().map_err(|error| error.to_string())?;
        Ok(Polled { changed: growth.changed, more: growth.more })
    }

    fn document(&self, name: &str, query: &[(String, String)]) -> Result<Vec<u8>, SourceError> {
        let query = Query(query);
        let failed = |error: minke_train::Error| SourceError::Failed(error.to_string());
        let missing = |what: &str| SourceError::Missing(format!("the run has no such {what}"));
        match name {
            "run" => json(&self.0.reading()),
            "config" => json(&self.0.config()),
            "series" => {
                let known = Known {
                    generation: query.number("generation")?.unwrap_or_default(),
                    metrics: query.number("metrics")?.unwrap_or_default(),
                    timings: query.number("timings")?.unwrap_or_default(),
                };
                json(&self.0.series(query.stage()?, known).ok_or_else(|| missing("stage"))?)
            }
            "rollouts" => {
                let wanted = RolloutQuery {
                    step: query.number("step")?,
                    problem: query.number("problem")?,
                    verdict: query.choice("verdict", &VERDICTS)?,
                    truncated: query.choice("truncated", &[("true", true), ("false", false)])?,
                    text: query.text("text").map(str::to_owned),
                    oldest_first: query.choice("order", &[("newest", false), ("oldest", true)])?.unwrap_or_default(),
                    from: query.number("from")?,
                    limit: query.number("limit")?.unwrap_or(LIMIT),
                };
                let found = self.0.rollouts(query.stage()?, &wanted).map_err(failed)?;
                json(&found.ok_or_else(|| missing("stage"))?)
            }
            "group" => {
                let number = query.number("group")?.ok_or_else(|| SourceError::Query("group is missing".into()))?;
                let group = self.0.group(query.stage()?, number).map_err(failed)?;
                json(&group.ok_or_else(|| missing("group of rollouts"))?)
            }
            _ => Err(SourceError::Missing(format!("there is nothing called {name:?} here"))),
        }
    }
}

const VERDICTS: [(&str, Verdict); 3] =
    [("right", Verdict::Right), ("wrong", Verdict::Wrong), ("gold_unusable", Verdict::GoldUnusable)];

fn json(value: &impl Serialize) -> Result<Vec<u8>, SourceError> {
    serde_json::to_vec(value).map_err(|error| SourceError::Failed(error.to_string()))
}

/// What stands behind the question mark of an address. An empty value is as none.
struct Query<'a>(&'a [(String, String)]);

impl<'a> Query<'a> {
    fn text(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(have, _)| have == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn stage(&self) -> Result<&'a str, SourceError> {
        self.text("stage").ok_or_else(|| SourceError::Query("stage is missing".into()))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, SourceError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| SourceError::Query(format!("{name} = {text:?} is no number of its kind")))
    }

    fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, SourceError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let found = choices.iter().find(|(choice, _)| *choice == text);
        let names = || choices.iter().map(|(choice, _)| *choice).collect::<Vec<_>>().join(", ");
        let unknown = || SourceError::Query(format!("{name} = {text:?} is none of {}", names()));
        found.map(|(_, value)| Some(*value)).ok_or_else(unknown)
    }
}
