//! Counters and histograms for Prometheus, in its text format.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use minke_chat::{Event, FinishReason, PolicyVersion};
use minke_engine::Stats;

/// Upper ends of the buckets, in seconds.
const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// What is counted about requests.
#[derive(Default)]
pub(crate) struct Metrics(Arc<Counters>);

#[derive(Default)]
struct Counters {
    stopped: AtomicU64,
    length: AtomicU64,
    cancelled: AtomicU64,
    failed: AtomicU64,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    reasoning_tokens: AtomicU64,
    first_token: Mutex<Histogram>,
    between_tokens: Mutex<Histogram>,
    duration: Mutex<Histogram>,
}

#[derive(Default)]
struct Histogram {
    counts: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn add(&mut self, seconds: f64) {
        if let Some(i) = BUCKETS.iter().position(|&end| seconds <= end) {
            self.counts[i] += 1;
        }
        self.count += 1;
        self.sum += seconds;
    }
}

/// What is counted about one answer while it is generated.
pub(crate) struct RequestMetrics {
    counters: Arc<Counters>,
    state: Mutex<State>,
}

struct State {
    begun: Instant,
    last_token: Option<Instant>,
    ended: bool,
}

impl Metrics {
    /// Begins to count one answer.
    pub(crate) fn request(&self) -> RequestMetrics {
        let state = State { begun: Instant::now(), last_token: None, ended: false };
        RequestMetrics { counters: self.0.clone(), state: Mutex::new(state) }
    }

    /// All of it, what the engine says, and which version of a policy answers, as text.
    pub(crate) fn text(&self, stats: Option<&Stats>, policy: Option<PolicyVersion>) -> String {
        let counters = &*self.0;
        let mut out = String::new();
        let header = |out: &mut String, name: &str, kind: &str, help: &str| {
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        };
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let name = "minke_requests_total";
        header(&mut out, name, "counter", "Answers that ended, by how they ended.");
        for (reason, counter) in [
            ("stop", &counters.stopped),
            ("length", &counters.length),
            ("cancelled", &counters.cancelled),
            ("error", &counters.failed),
        ] {
            let _ = writeln!(out, "{name}{{finish=\"{reason}\"}} {}", value(counter));
        }
        for (name, help, counter) in [
            ("minke_prompt_tokens_total", "Tokens of prompts.", &counters.prompt_tokens),
            (
                "minke_prompt_tokens_cached_total",
                "Tokens of prompts that were found in the cache.",
                &counters.cached_tokens,
            ),
            ("minke_generated_tokens_total", "Tokens of answers, thoughts included.", &counters.generated_tokens),
            ("minke_reasoning_tokens_total", "Tokens of thoughts.", &counters.reasoning_tokens),
        ] {
            header(&mut out, name, "counter", help);
            let _ = writeln!(out, "{name} {}", value(counter));
        }
        for (name, help, histogram) in [
            ("minke_time_to_first_token_seconds", "Time from a request to its first token.", &counters.first_token),
            ("minke_inter_token_seconds", "Time between two tokens of an answer.", &counters.between_tokens),
            ("minke_request_duration_seconds", "Time from a request to its end.", &counters.duration),
        ] {
            header(&mut out, name, "histogram", help);
            let histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
            let mut sum = 0;
            for (end, count) in BUCKETS.iter().zip(histogram.counts) {
                sum += count;
                let _ = writeln!(out, "{name}_bucket{{le=\"{end}\"}} {sum}");
            }
            let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {}", histogram.count);
            let _ = writeln!(out, "{name}_sum {}\n{name}_count {}", histogram.sum, histogram.count);
        }
        if let Some(PolicyVersion { run, number }) = policy {
            let name = "minke_policy_version";
            header(&mut out, name, "gauge", "Version of the policy that answers.");
            let _ = writeln!(out, "{name}{{run=\"{run:08x}\"}} {number}");
        }
        let Some(stats) = stats else { return out };
        for (name, help, number) in [
            ("minke_requests_running", "Answers that take part in steps.", stats.running as u64),
            ("minke_requests_waiting", "Answers that wait for a place.", stats.waiting as u64),
            ("minke_kv_pages", "Pages of the cache, 32 tokens each.", stats.pages as u64),
            ("minke_kv_pages_free", "Pages that no answer owns.", stats.pages_free as u64),
        ] {
            header(&mut out, name, "gauge", help);
            let _ = writeln!(out, "{name} {number}");
        }
        for (name, help, number) in [
            ("minke_engine_steps_total", "Steps that computed something.", stats.steps),
            ("minke_engine_preemptions_total", "Times an answer gave its pages up.", stats.preemptions),
            ("minke_engine_prefilled_tokens_total", "Tokens of prompts that were computed.", stats.prefilled),
            ("minke_engine_draft_tokens_total", "Drafts of a next token by multi-token prediction.", stats.drafted),
            ("minke_engine_accepted_draft_tokens_total", "Drafts that became tokens of answers.", stats.accepted),
        ] {
            header(&mut out, name, "counter", help);
            let _ = writeln!(out, "{name} {number}");
        }
        out
    }
}

impl RequestMetrics {
    /// Counts an event.
    pub(crate) fn take(&self, event: &minke_chat::Result<Event>) {
        let (counters, now) = (&self.counters, Instant::now());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let add = |counter: &AtomicU64, number: usize| {
            counter.fetch_add(number as u64, Ordering::Relaxed);
        };
        let observe = |histogram: &Mutex<Histogram>, since: Instant| {
            histogram.lock().unwrap_or_else(PoisonError::into_inner).add((now - since).as_secs_f64());
        };
        let Ok(event) = event else { return self.end(&mut state, &counters.failed) };
        if event.token.is_some() {
            match state.last_token.replace(now) {
                None => observe(&counters.first_token, state.begun),
                Some(last) => observe(&counters.between_tokens, last),
            }
        }
        let Some(finish) = &event.finish else { return };
        let usage = event.usage;
        add(&counters.prompt_tokens, usage.prompt_tokens);
        add(&counters.cached_tokens, usage.cached_tokens);
        add(&counters.generated_tokens, usage.completion_tokens);
        add(&counters.reasoning_tokens, usage.reasoning_tokens);
        let counter = match finish {
            FinishReason::Stop | FinishReason::StopString(_) => &counters.stopped,
            FinishReason::Length => &counters.length,
            FinishReason::Cancelled => &counters.cancelled,
            _ => &counters.failed,
        };
        self.end(&mut state, counter);
    }

    fn end(&self, state: &mut State, counter: &AtomicU64) {
        if !std::mem::replace(&mut state.ended, true) {
            counter.fetch_add(1, Ordering::Relaxed);
            let seconds = state.begun.elapsed().as_secs_f64();
            self.counters.duration.lock().unwrap_or_else(PoisonError::into_inner).add(seconds);
        }
    }
}
