//! What if a template does what the engine does not count?
#![allow(clippy::unwrap_used)]

use minke_text::{ChatTemplate, Message};
use std::time::{Duration, Instant};

#[test]
fn the_caller_learns_of_it_in_seconds() {
    // Each list holds the one before twice: 2^60 elements to compare, in 60 lists.
    let source = "{% set n = namespace(l=[], m=[]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}\
                  {% set n.m = [n.m, n.m] %}{% endfor %}{{ n.l == n.m }}";
    let template = ChatTemplate::new(source, "", "").unwrap();
    let start = Instant::now();
    let message = template.render(&[Message::user("Hi")], true).unwrap_err().to_string();
    assert_eq!(message, "chat template (given text): came to no end in 2 s; use another template");
    assert!(start.elapsed() < Duration::from_secs(4));
    // The thread left behind hinders nobody else.
    assert!(ChatTemplate::r1().render(&[Message::user("Hi")], true).is_ok());
}
