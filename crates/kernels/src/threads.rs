//! The fixed set of threads that a device owns.
//!
//! Each thread claims tasks from a range of its own first, because what the same tasks of the operation before wrote is
//! still in its cache, then from the others', so that a thread that the system took away holds up one task, not half of
//! them. That is allowed because tasks write disjoint memory and no sum crosses a task: which thread ran what cannot be
//! seen in the result. Idle threads spin for a moment, because the next operation is usually microseconds away, then
//! sleep.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

type Task = dyn Fn(usize) + Sync;

/// One call of `run`. Lives on the caller's stack.
struct Job {
    task: *const Task,
    tasks: usize,
    panicked: AtomicBool,
}

/// How many tasks of a thread's range were claimed, on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Claimed(AtomicUsize);

struct Shared {
    /// Even: idle; odd: a job is posted. Grows by one at each change.
    epoch: AtomicUsize,
    job: AtomicUsize,
    /// By thread.
    claimed: Vec<Claimed>,
    /// Workers that are inside the current job.
    inside: AtomicUsize,
    sleepers: Mutex<usize>,
    wake: Condvar,
    stop: AtomicBool,
}

/// The threads of a device.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held during a job: a second caller waits.
    turn: Mutex<()>,
}

/// Polls before a thread sleeps: about 30 microseconds.
const SPINS: usize = 2_000;

impl Threads {
    /// # Errors
    /// If the system does not start a thread; those that run end.
    pub(crate) fn new(count: usize) -> std::io::Result<Self> {
        Self::start(count, |i| std::thread::Builder::new().name(format!("minke-{i}")))
    }

    /// Starts thread i with `builder(i)`.
    fn start(count: usize, builder: impl Fn(usize) -> std::thread::Builder) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            job: AtomicUsize::new(0),
            claimed: (0..count).map(|_| Claimed::default()).collect(),
            inside: AtomicUsize::new(0),
            sleepers: Mutex::new(0),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let mut threads = Self { shared, workers: Vec::new(), turn: Mutex::new(()) };
        for i in 1..count {
            let shared = Arc::clone(&threads.shared);
            threads.workers.push(builder(i).spawn(move || shared.work(i))?);
        }
        Ok(threads)
    }

    pub(crate) fn count(&self) -> usize {
        self.workers.len() + 1
    }

    pub(crate) fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.workers.is_empty() {
            (0..tasks).for_each(task);
            return;
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: only the lifetime is erased; `finish` below returns after the last worker has left the job.
        let task: *const Task = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Task>(task) };
        let job = Job { task, tasks, panicked: AtomicBool::new(false) };
        self.shared.claimed.iter().for_each(|claimed| claimed.0.store(0, Ordering::Relaxed));
        self.shared.job.store(&raw const job as usize, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        if *self.shared.sleepers.lock().unwrap_or_else(PoisonError::into_inner) > 0 {
            self.shared.wake.notify_all();
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.shared.claim_all(&job, 0)));
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        let mut polls = 0;
        while self.shared.inside.load(Ordering::SeqCst) > 0 {
            polls += 1;
            if polls % 256 == 0 {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
        if let Err(payload) = outcome {
            std::panic::resume_unwind(payload);
        }
        assert!(!job.panicked.load(Ordering::SeqCst), "a task panicked on another thread");
    }
}

impl Shared {
    /// Runs tasks until none is left: those of the thread's own range, then those of the threads behind it.
    fn claim_all(&self, job: &Job, thread: usize) {
        let count = self.claimed.len();
        for owner in (thread..count).chain(0..thread) {
            let (start, end) = (job.tasks * owner / count, job.tasks * (owner + 1) / count);
            loop {
                let index = start + self.claimed[owner].0.fetch_add(1, Ordering::Relaxed);
                if index >= end {
                    break;
                }
                // SAFETY: the task outlives the job: `run` waits for all workers before it returns.
                unsafe { (*job.task)(index) };
            }
        }
    }

    fn work(&self, thread: usize) {
        let mut seen = 0;
        loop {
            let Some(epoch) = self.wait_for_job(seen) else { return };
            seen = epoch;
            // Enter first, then look again whether the job is still posted: `run` closes the job before it counts the
            // workers inside, so a worker that comes late never touches it.
            self.inside.fetch_add(1, Ordering::SeqCst);
            if self.epoch.load(Ordering::SeqCst) == epoch {
                let job = self.job.load(Ordering::SeqCst) as *const Job;
                // SAFETY: the job was posted under this epoch, and `run` waits for `inside` to return to zero.
                let job = unsafe { &*job };
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.claim_all(job, thread))).is_err() {
                    job.panicked.store(true, Ordering::SeqCst);
                }
            }
            self.inside.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// The epoch of a job that was not seen yet, or nothing when the device is gone.
    fn wait_for_job(&self, seen: usize) -> Option<usize> {
        let posted = |epoch: usize| epoch % 2 == 1 && epoch != seen;
        for _ in 0..SPINS {
            let epoch = self.epoch.load(Ordering::SeqCst);
            if posted(epoch) {
                return Some(epoch);
            }
            std::hint::spin_loop();
        }
        let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        *sleepers += 1;
        let found = loop {
            if self.stop.load(Ordering::SeqCst) {
                break None;
            }
            let epoch = self.epoch.load(Ordering::SeqCst);
            if posted(epoch) {
                break Some(epoch);
            }
            sleepers = self.wake.wait(sleepers).unwrap_or_else(PoisonError::into_inner);
        };
        *sleepers -= 1;
        found
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(self.shared.sleepers.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker never unwinds: panics of tasks are caught and reported by `run`.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whatever_the_number_of_threads() {
        for count in [1, 2, 5] {
            let threads = Threads::new(count).unwrap();
            for tasks in [0, 1, 2, 3, 17, 1000] {
                for _ in 0..50 {
                    let hits: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    threads.run(tasks, &|i| {
                        hits[i].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1));
                }
            }
        }
    }

    #[test]
    fn a_thread_that_does_not_start_is_an_error() {
        // The third asks for a stack that no address space holds.
        let builder = |i| {
            let builder = std::thread::Builder::new();
            if i < 2 { builder } else { builder.stack_size(1 << 62) }
        };
        assert!(Threads::start(2, builder).is_ok());
        assert!(Threads::start(3, builder).is_err());
    }

    #[test]
    fn threads_wake_from_sleep_and_survive_a_panic() {
        let threads = Threads::new(3).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(30));
        let total = AtomicUsize::new(0);
        threads.run(100, &|i| {
            total.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(total.load(Ordering::Relaxed), 4950);
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            threads.run(8, &|i| assert!(i != 5, "task five fails"));
        }));
        assert!(broken.is_err());
        threads.run(3, &|_| {
            total.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(total.load(Ordering::Relaxed), 4953);
    }
}
