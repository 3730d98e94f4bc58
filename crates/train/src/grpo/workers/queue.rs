//! The queue of rollouts that are wanted, and the threads that take them to workers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use minke_endpoint::{Completion, Endpoint};
use minke_weights::PolicyVersion;
use serde_json::{Map, Value};

/// How often a worker is asked whether it has the version that is wanted.
const GLANCE: Duration = Duration::from_millis(50);
/// The first wait for a worker that does not answer, and the longest; each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const WAIT_AT_MOST: Duration = Duration::from_secs(30);

/// Which rollout: of which data, to which question, and which of those to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub cursor: u64,
    pub question: u64,
    pub sample: usize,
}

/// A rollout that is wanted.
pub(super) struct Job {
    pub place: Place,
    /// Which of the pool's beginnings it belongs to: answers to an earlier one are nobody's.
    pub round: u64,
    pub request: Map<String, Value>,
    /// The number of the oldest version that may draw it.
    pub oldest: u64,
    pub failures: u32,
}

/// What became of a request, or of a worker that was looked at.
pub(super) enum Outcome {
    Answer { job: Job, worker: usize, completion: Completion },
    Lost { job: Job, error: minke_endpoint::Error },
    Down { error: minke_endpoint::Error },
    Refused(minke_endpoint::Error),
}

pub(super) struct Worker {
    pub endpoint: Endpoint,
    /// The number of the version that it serves; none while that is not known. One thread looks, the others wait for what it sees.
    pub served: Mutex<Option<u64>>,
    /// How often in a row it could not be looked at, or was without a version that is new enough.
    pub failures: AtomicU32,
}

/// What all threads share.
pub(super) struct Shared {
    pub workers: Vec<Worker>,
    pub queue: Mutex<VecDeque<Job>>,
    pub filled: Condvar,
    pub stop: AtomicBool,
    pub run: u32,
    /// The number of the version that was published last.
    pub newest: AtomicU64,
    /// How long a version may take to arrive.
    pub patience: Duration,
    /// Failures after which a worker is given up.
    pub attempts: u32,
}

impl Shared {
    /// The oldest version that the next job may have; nothing at the end.
    fn next(&self) -> Option<u64> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return None;
            }
            if let Some(job) = queue.front() {
                return Some(job.oldest);
            }
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub fn put(&self, jobs: impl IntoIterator<Item = Job>, in_front: bool) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        for job in jobs {
            if in_front { queue.push_front(job) } else { queue.push_back(job) }
        }
        drop(queue);
        self.filled.notify_all();
    }

    /// The next job, if a version may draw it.
    fn take(&self, version: u64) -> Option<Job> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front_if(|job| job.oldest <= version)
    }

    fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.stop.load(Ordering::SeqCst) && Instant::now() < until {
            std::thread::sleep(GLANCE.min(time));
        }
    }

    /// Asks one worker until the pool ends.
    pub fn work(&self, worker: usize, outcomes: &Sender<Outcome>) {
        let this = &self.workers[worker];
        while let Some(oldest) = self.next() {
            let version = match self.version_of(this, oldest) {
                Ok(version) => version,
                Err(error) => {
                    let outcome = match error {
                        minke_endpoint::Error::Unanswered { .. } => Outcome::Down { error },
                        _ => Outcome::Refused(error),
                    };
                    if outcomes.send(outcome).is_err() {
                        return;
                    }
                    continue;
                }
            };
            let Some(job) = version.and_then(|version| self.take(version)) else { continue };
            let outcome = match this.endpoint.complete(&job.request, &self.stop) {
                Ok(completion) => Outcome::Answer { job, worker, completion },
                Err(minke_endpoint::Error::Stopped { .. }) => return,
                Err(error @ minke_endpoint::Error::Unanswered { .. }) => {
                    *this.served.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    Outcome::Lost { job, error }
                }
                Err(error) => Outcome::Refused(error),
            };
            if outcomes.send(outcome).is_err() {
                return;
            }
        }
    }

    /// The version of this run that a worker serves, waiting a little for one that is new enough.
    fn version_of(&self, worker: &Worker, oldest: u64) -> minke_endpoint::Result<Option<u64>> {
        let mut served = worker.served.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        loop {
            if self.stop.load(Ordering::SeqCst) || served.is_some_and(|version| version >= oldest) {
                return Ok(*served);
            }
            match worker.endpoint.policy_version(&self.stop) {
                Ok(text) => {
                    let newest = self.newest.load(Ordering::SeqCst);
                    let of_run = text.as_deref().and_then(|text| text.parse().ok());
                    let of_run = of_run.filter(|version: &PolicyVersion| version.run == self.run);
                    *served = of_run.map(|version| version.number).filter(|number| *number <= newest);
                    if served.is_some_and(|version| version >= oldest) {
                        worker.failures.store(0, Ordering::SeqCst);
                    } else if begun.elapsed() > self.patience {
                        // So long a wait is worth all attempts.
                        worker.failures.fetch_add(self.attempts, Ordering::SeqCst);
                        let (address, text) = (worker.endpoint.address(), text.unwrap_or_else(|| "nothing yet".into()));
                        let wanted = PolicyVersion { run: self.run, number: newest };
                        let seconds = self.patience.as_secs();
                        let reason =
                            format!("serves {text} and not {wanted} after {seconds} s; does it watch the folder?");
                        return Err(minke_endpoint::Error::Unanswered { address: address.into(), reason });
                    } else {
                        self.sleep(GLANCE);
                    }
                }
                Err(minke_endpoint::Error::Stopped { .. }) => return Ok(None),
                Err(error @ minke_endpoint::Error::Unanswered { .. }) => {
                    let failures = worker.failures.fetch_add(1, Ordering::SeqCst);
                    self.sleep(FIRST_WAIT.saturating_mul(2u32.saturating_pow(failures)).min(WAIT_AT_MOST));
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
