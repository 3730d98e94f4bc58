//! Texts and numbers as HTML.

use minke_eval::Interval;

/// A share with its interval, as markup.
pub(super) fn interval(interval: &Interval) -> String {
    format!("{} <small>[{}, {}]</small>", percent(interval.mean), percent(interval.low), percent(interval.high))
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// Text that HTML shows as it is.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
