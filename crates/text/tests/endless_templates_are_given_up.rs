//! A template that would never end is given up when its steps are used up.
#![allow(clippy::unwrap_used)]

use minke_text::{ChatTemplate, Message, SpecialTokens};
use std::time::{Duration, Instant};

#[test]
fn lists_that_hold_each_other_twice_are_given_up() {
    // Each list holds the one before twice: 2^60 elements to compare, in 60 lists.
    let source = "{% set n = namespace(l=[], m=[]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}\
                  {% set n.m = [n.m, n.m] %}{% endfor %}{{ n.l == n.m }}";
    let template = ChatTemplate::new(source, SpecialTokens::default()).unwrap();
    let start = Instant::now();
    let message = template.render(&[Message::user("Hi")], true).unwrap_err().to_string();
    assert!(message.starts_with("chat template (given text): engine ran out of fuel"), "{message}");
    assert!(start.elapsed() < Duration::from_secs(4));
}
