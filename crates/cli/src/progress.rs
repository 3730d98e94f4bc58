//! Progress: on a terminal a bar with the time that is left and one line that changes; elsewhere a plain line every so
//! often. All of it on stderr.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(10);
const BAR: &str = "{prefix:12} [{bar:30}] {pos}/{len}, {eta} left {msg}";
const BYTES_BAR: &str =
    "{prefix:12} [{bar:30}] {decimal_bytes}/{decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left {msg}";

/// The progress of one thing of known length.
pub struct Bar {
    bar: ProgressBar,
    name: String,
    total: u64,
    begun: Instant,
    /// When a plain line was printed last; nothing on a terminal.
    printed: Option<Instant>,
}

impl Bar {
    /// A bar of which some is done already.
    pub fn new(name: &str, done: u64, total: u64) -> Self {
        Self::with_template(BAR, name, done, total)
    }

    /// A bar of bytes, which shows how fast they come.
    pub fn bytes(name: &str, done: u64, total: u64) -> Self {
        Self::with_template(BYTES_BAR, name, done, total)
    }

    fn with_template(template: &str, name: &str, done: u64, total: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template(template).expect("invariant: the template is well-formed");
        let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style.progress_chars("=> "));
        bar.set_prefix(name.to_owned());
        bar.set_position(done);
        bar.reset_eta();
        let now = Instant::now();
        Self { bar, name: name.to_owned(), total, begun: now, printed: (!terminal).then_some(now) }
    }

    /// Notes how much is done, and what there is to say about it.
    pub fn set(&mut self, done: u64, text: &str) {
        self.bar.set_position(done);
        self.bar.set_message(text.to_owned());
        if self.printed.is_some_and(|printed| printed.elapsed() >= PLAIN_EVERY) {
            self.printed = Some(Instant::now());
            let left = HumanDuration(self.bar.eta());
            eprintln!("{}: {done}/{}, {left} left {text}", self.name, self.total);
        }
    }

    /// Prints a line that stays.
    pub fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Replaces the bar by a line that stays.
    pub fn finish(self, text: &str) {
        self.bar.finish_and_clear();
        let seconds = self.begun.elapsed().as_secs_f64();
        let gap = if text.is_empty() { "" } else { "; " };
        eprintln!("{}: {}/{} in {seconds:.1} s{gap}{text}", self.name, self.total, self.total);
    }
}
