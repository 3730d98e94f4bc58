//! Rollouts from workers on other machines: who is asked, what comes back, and what is written down of it.
//!
//! A worker serves the policy that the stage publishes (`minke serve --watch`), and says with every answer which version gave it. Every
//! rollout is a request of its own; several threads for each worker take them from one queue, so that who is fast does more, and what
//! a worker takes with it when it vanishes are the requests that it had. Rollouts of a policy that is too old are thrown away and asked
//! for again. Where the bound allows it, those of the next step are asked for while this one is trained.
//!
//! What a worker says is no function of the seed. So the rollouts that a step learns from are facts of the run: they are lines of
//! `answers.jsonl` before anything is learned from them, and a step that is done again takes them from there.

pub(super) mod config;
mod queue;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use minke_endpoint::{Completion, Endpoint};
use minke_engine::{Finish, SamplingParams};
use minke_spec::draw::{Domain, draw, hash_name};
use minke_weights::PolicyVersion;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::rollout::Policy;
use super::types::{Group, Question, Rollout};
use crate::answers::Answers;
use crate::record::Metrics;
use crate::stage::{Context, Progress};
use crate::{Error, Result, export, files, metric};
use config::WorkersConfig;
use queue::{Job, Outcome, Place, Shared, Worker};

/// What was counted since the last step: facts of the machine.
#[derive(Default)]
struct Counts {
    /// Requests that a worker took with it.
    lost: u64,
    /// Rollouts that were thrown away because their policy was too old.
    stale: u64,
    /// Rollouts by worker.
    by_worker: Vec<u64>,
    /// Seconds of writing versions.
    publish_s: f64,
    last: Option<minke_endpoint::Error>,
}

/// A line of `answers.jsonl`: the rollouts to one question.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    cursor: u64,
    question: u64,
    rollouts: Vec<Drawn>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drawn {
    /// Number of the version that drew it.
    version: u64,
    /// Whether the last token is the one that ended it; it was cut off otherwise.
    ended: bool,
    token_ids: Vec<u32>,
    /// As f64, which reads back to the same f32.
    log_probs: Vec<f64>,
}

impl From<&Rollout> for Drawn {
    fn from(rollout: &Rollout) -> Self {
        Self {
            version: rollout.policy_version,
            ended: !rollout.truncated(),
            token_ids: rollout.token_ids.clone(),
            log_probs: rollout.log_probs.iter().map(|&value| f64::from(value)).collect(),
        }
    }
}

impl From<Drawn> for Rollout {
    fn from(drawn: Drawn) -> Self {
        let finish = match (drawn.ended, drawn.token_ids.last()) {
            (true, Some(last)) => Finish::Stop(*last),
            _ => Finish::Length,
        };
        let log_probs = drawn.log_probs.into_iter().map(|value| value as f32).collect();
        Self { token_ids: drawn.token_ids, log_probs, entropies: Vec::new(), policy_version: drawn.version, finish }
    }
}

/// What is asked about every question of a step.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub params: &'a SamplingParams,
    /// Rollouts of each question.
    pub n: usize,
    pub cursor: u64,
}

/// The workers of a stage.
pub(super) struct Pool<'a> {
    config: &'a WorkersConfig,
    context: Context<'a>,
    /// Ids of the model, of which the tokenizer may know fewer.
    vocab_size: usize,
    /// The rows that are written down, by cursor and question.
    answers: Answers<(u64, u64)>,
    shared: Arc<Shared>,
    outcomes: Option<Receiver<Outcome>>,
    published: Option<u64>,
    round: u64,
    /// Rollouts that are asked for, and those that came.
    asked: BTreeSet<Place>,
    came: BTreeMap<Place, Rollout>,
    /// Where the stage stands after the step that was done last.
    expected: Option<Progress>,
    counts: Counts,
}

impl<'a> Pool<'a> {
    /// The workers of a stage, none of which is asked yet.
    ///
    /// # Errors
    /// If a key is missing, or what was written down cannot be read.
    pub(super) fn new(config: &'a WorkersConfig, context: Context<'a>, vocab_size: usize) -> Result<Self> {
        let key = context.outside.key(context.stage, config.key_env.as_deref())?;
        let worker = |url: &String| {
            let endpoint = Endpoint::new(config.endpoint(url), key.clone());
            let endpoint = endpoint.map_err(|error| Error::Config(format!("stage {}: {error}", context.stage)))?;
            Ok(Worker { endpoint, served: Mutex::new(None), failures: AtomicU32::new(0) })
        };
        let folder = context.stages.join(context.stage);
        files::make_folder(&folder)?;
        let hash = context.outside.config_hash;
        let answers = Answers::open(&folder, hash, |row: &Row| Some((row.cursor, row.question)))?;
        let shared = Shared {
            workers: config.urls.iter().map(worker).collect::<Result<_>>()?,
            queue: Mutex::default(),
            filled: Condvar::new(),
            stop: AtomicBool::new(false),
            // The beginning of a hash: enough to tell runs apart that share a folder.
            run: hash.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0),
            newest: AtomicU64::new(0),
            patience: Duration::from_secs(config.timeout_s),
            attempts: config.attempts,
        };
        Ok(Self {
            config,
            context,
            vocab_size,
            answers,
            counts: Counts { by_worker: vec![0; shared.workers.len()], ..Counts::default() },
            shared: Arc::new(shared),
            outcomes: None,
            published: None,
            round: 0,
            asked: BTreeSet::new(),
            came: BTreeMap::new(),
            expected: None,
        })
    }

    /// Begins a step. What was asked for in front of it is forgotten if the stage did not come to where it was going.
    pub(super) fn begin(&mut self, progress: Progress) {
        if self.expected != Some(progress) {
            self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
            (self.round, self.published) = (self.round + 1, None);
            self.asked.clear();
            self.came.clear();
        }
        self.expected = Some(Progress { step: progress.step + 1, cursor: progress.cursor + 1 });
    }

    /// The groups of some questions, in order: as they are written down, else drawn now and written down.
    ///
    /// # Errors
    /// If no worker answers, or a file cannot be read or written.
    pub(super) fn groups(
        &mut self,
        policy: Policy<'_>,
        questions: Vec<Question>,
        asked: Asked<'_>,
    ) -> Result<Vec<Group>> {
        self.ask(policy, &questions, asked)?;
        let mut groups = Vec::new();
        for question in questions {
            let key = (asked.cursor, question.number);
            let rollouts = match self.answers.read::<Row>(&key)? {
                Some(row) => row.rollouts.into_iter().map(Rollout::from).collect(),
                None => {
                    let places = (0..asked.n).map(|sample| Place { cursor: key.0, question: key.1, sample });
                    let rollouts: Vec<Rollout> = places.map(|place| self.wait(place)).collect::<Result<_>>()?;
                    let row =
                        Row { cursor: key.0, question: key.1, rollouts: rollouts.iter().map(Drawn::from).collect() };
                    self.answers.append(key, &row)?;
                    rollouts
                }
            };
            groups.push(Group { question, rollouts });
        }
        self.answers.sync()?;
        Ok(groups)
    }

    /// Has the rollouts to some questions drawn in the background, by a policy that is no older than the settings allow.
    ///
    /// # Errors
    /// If the policy cannot be published.
    pub(super) fn ask(&mut self, policy: Policy<'_>, questions: &[Question], asked: Asked<'_>) -> Result<()> {
        let cursor = asked.cursor;
        let mut jobs = Vec::new();
        for question in questions.iter().filter(|question| !self.answers.has(&(cursor, question.number))) {
            let index = [hash_name(self.context.stage), cursor, question.number];
            let seed = draw(self.context.seed, Domain::Rollout, &index).bits();
            for sample in 0..asked.n {
                let place = Place { cursor, question: question.number, sample };
                if self.asked.insert(place) {
                    let request = request(question, asked.params, SamplingParams::seed_of_sample(seed, sample));
                    let oldest = cursor.saturating_sub(self.config.max_staleness);
                    jobs.push(Job { place, round: self.round, request, oldest, failures: 0 });
                }
            }
        }
        if !jobs.is_empty() || (self.outcomes.is_some() && self.published != Some(policy.version)) {
            self.publish(policy)?;
            self.start();
            self.shared.put(jobs, false);
        }
        Ok(())
    }

    /// Whether the rollouts of the next step may be drawn by the policy of this one.
    pub(super) fn looks_ahead(&self) -> bool {
        self.config.max_staleness > 0
    }

    /// What was counted since it was asked the last time.
    pub(super) fn timings(&mut self) -> Metrics {
        let by_worker = vec![0; self.counts.by_worker.len()];
        let counts = std::mem::replace(&mut self.counts, Counts { by_worker, ..Counts::default() });
        let mut timings = Metrics::new();
        timings
            .set(metric::seconds("publish"), counts.publish_s)
            .set(metric::LOST_REQUESTS, counts.lost)
            .set(metric::STALE_ROLLOUTS, counts.stale);
        for (worker, rollouts) in counts.by_worker.into_iter().enumerate() {
            timings.set(metric::rollouts_of_worker(worker), rollouts);
        }
        timings
    }

    /// What a person should know about the workers, if one failed since the timings were asked for.
    pub(super) fn trouble(&self) -> Option<String> {
        let (error, lost) = (self.counts.last.as_ref()?, self.counts.lost);
        Some(match lost {
            0 => format!("a worker is not there ({error})"),
            _ => format!("{lost} requests were lost with their workers, and asked of others ({error})"),
        })
    }

    /// Publishes the policy, if that was not done.
    fn publish(&mut self, policy: Policy<'_>) -> Result<()> {
        if self.published == Some(policy.version) {
            return Ok(());
        }
        let begun = Instant::now();
        let folder = self.folder();
        let version = PolicyVersion { run: self.shared.run, number: policy.version };
        minke_weights::publication::publish(&folder, version, |inside| {
            export::write_weights(self.context, policy.model, inside)
        })?;
        self.shared.newest.store(policy.version, Ordering::SeqCst);
        self.published = Some(policy.version);
        self.counts.publish_s += begun.elapsed().as_secs_f64();
        Ok(())
    }

    fn folder(&self) -> PathBuf {
        let own = || self.context.stages.join(self.context.stage).join("policy");
        self.config.folder.clone().unwrap_or_else(own)
    }

    fn start(&mut self) {
        if self.outcomes.is_some() {
            return;
        }
        let (sender, outcomes) = channel();
        self.outcomes = Some(outcomes);
        for worker in 0..self.shared.workers.len() {
            for _ in 0..self.config.requests {
                let (shared, sender) = (self.shared.clone(), sender.clone());
                // One that waits for an answer when the stage ends, ends when that comes.
                std::thread::spawn(move || shared.work(worker, &sender));
            }
        }
    }

    /// Waits for a rollout that was asked for.
    fn wait(&mut self, place: Place) -> Result<Rollout> {
        loop {
            if let Some(rollout) = self.came.remove(&place) {
                self.asked.remove(&place);
                return Ok(rollout);
            }
            let outcomes = self.outcomes.as_ref().expect("invariant: what is waited for was asked for");
            let outcome = outcomes.recv().expect("invariant: threads end when they are told to");
            self.take(outcome)?;
        }
    }

    fn take(&mut self, outcome: Outcome) -> Result<()> {
        match outcome {
            Outcome::Answer { job, worker, completion } if job.round == self.round => {
                let place = job.place;
                let address = || self.shared.workers[worker].endpoint.address().to_owned();
                match self.checked(&job, completion) {
                    Ok(rollout) => {
                        self.counts.by_worker[worker] += 1;
                        self.came.insert(place, rollout);
                    }
                    Err(Unfit::Stale(reason)) => {
                        self.counts.stale += 1;
                        let error = minke_endpoint::Error::Unanswered { address: address(), reason };
                        // What it serves is looked at again before it is given anything else; where that goes on, nothing is to do.
                        if let Ok(mut served) = self.shared.workers[worker].served.try_lock() {
                            *served = None;
                        }
                        return self.again(job, error);
                    }
                    Err(Unfit::Broken(reason)) => {
                        let error = minke_endpoint::Error::Unanswered { address: address(), reason };
                        return self.lost(job, error);
                    }
                }
            }
            Outcome::Lost { job, error } if job.round == self.round => return self.lost(job, error),
            Outcome::Answer { .. } | Outcome::Lost { .. } => {}
            Outcome::Down { error } => {
                let attempts = self.config.attempts;
                if self.shared.workers.iter().all(|worker| worker.failures.load(Ordering::SeqCst) >= attempts) {
                    return Err(self.given_up(error));
                }
                self.counts.last = Some(error);
            }
            Outcome::Refused(error) => return Err(self.given_up(error)),
        }
        Ok(())
    }

    fn lost(&mut self, job: Job, error: minke_endpoint::Error) -> Result<()> {
        self.counts.lost += 1;
        self.counts.last = Some(error.clone());
        self.again(job, error)
    }

    /// Has a job done by whoever takes it next.
    fn again(&self, mut job: Job, error: minke_endpoint::Error) -> Result<()> {
        job.failures += 1;
        if job.failures as usize >= self.config.attempts as usize * self.shared.workers.len() {
            return Err(self.given_up(error));
        }
        self.shared.put([job], true);
        Ok(())
    }

    fn given_up(&self, source: minke_endpoint::Error) -> Error {
        Error::Endpoint { stage: self.context.stage.to_owned(), kept: self.answers.len() as u64, source }
    }

    /// The rollout in an answer, if it is one that can be learned from.
    fn checked(&self, job: &Job, completion: Completion) -> std::result::Result<Rollout, Unfit> {
        let Completion { token_ids, log_probs, finish_reason, policy_version } = completion;
        let broken = |reason: String| Err(Unfit::Broken(reason));
        let Some(version) = policy_version else {
            return broken("the answer does not say which policy gave it".into());
        };
        let version: PolicyVersion = version.parse().map_err(Unfit::Broken)?;
        let (run, newest) = (self.shared.run, self.shared.newest.load(Ordering::SeqCst));
        if version.run != run || !(job.oldest..=newest).contains(&version.number) {
            let oldest = PolicyVersion { run, number: job.oldest };
            return Err(Unfit::Stale(format!(
                "the answer is of policy {version}, and {oldest} is the oldest that may be"
            )));
        }
        let vocabulary = self.vocab_size;
        if let Some(id) = token_ids.iter().find(|id| **id as usize >= vocabulary) {
            return broken(format!("the answer has token {id} of a vocabulary of {vocabulary}"));
        }
        // A log-probability that is a little above zero is one that was rounded.
        if let Some(value) = log_probs.iter().find(|value| !(value.is_finite() && **value <= 1e-3)) {
            return broken(format!("the answer has {value} as a log-probability"));
        }
        let cap = job.request["max_tokens"].as_u64().unwrap_or(0) as usize;
        let ends = self.context.end_ids().unwrap_or_default();
        let finish = match (finish_reason.as_deref(), token_ids.last()) {
            (Some("stop"), Some(last)) if ends.contains(last) && token_ids.len() <= cap => Finish::Stop(*last),
            (Some("length"), Some(_)) if token_ids.len() <= cap => Finish::Length,
            (reason, last) => {
                let (reason, tokens) = (reason.unwrap_or("nothing"), token_ids.len());
                return broken(format!(
                    "the answer ends with {reason} at token {last:?}, the {tokens}th of at most {cap}"
                ));
            }
        };
        Ok(Rollout { token_ids, log_probs, entropies: Vec::new(), policy_version: version.number, finish })
    }
}

/// Why nothing is learned from an answer.
enum Unfit {
    /// Its policy is too old, or of another run.
    Stale(String),
    /// It is not what was asked for.
    Broken(String),
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.filled.notify_all();
    }
}

/// What is sent for a rollout: the prompt as ids, and the distribution of the model itself, whatever its makers advise.
fn request(question: &Question, params: &SamplingParams, seed: u64) -> Map<String, Value> {
    let request = json!({
        "prompt": question.token_ids,
        "max_tokens": params.max_tokens,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        // As a number of 64 bits with a sign, which is how endpoints read it.
        "seed": seed.cast_signed(),
    });
    match request {
        Value::Object(request) => request,
        _ => Map::new(),
    }
}
