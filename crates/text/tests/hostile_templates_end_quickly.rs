//! Hostile chat templates, as downloaded weights may bring them, neither hang nor crash the program.
#![allow(clippy::unwrap_used)]

use minke_text::{ChatTemplate, Message, SpecialTokens};
use std::time::{Duration, Instant};

/// Most time that a template takes; under AddressSanitizer everything takes several times as long.
const LIMIT: Duration = Duration::from_millis(if cfg!(exact_buffers) { 1000 } else { 100 });

/// At most 100 ms and 16 MiB each. The machine may be busy, so the best of three counts.
fn check(name: &str, source: &str) -> Result<String, String> {
    let messages = [Message::user("Hi"), Message::assistant("Hello"), Message::user("again")];
    let run = || {
        let start = Instant::now();
        let template = ChatTemplate::new(source, SpecialTokens::new("<s>", "</s>"));
        let outcome = template.and_then(|template| template.render(&messages, true)).map_err(|error| error.to_string());
        (start.elapsed(), outcome)
    };
    let (elapsed, outcome) = (0..3).map(|_| run()).min_by_key(|(elapsed, _)| *elapsed).unwrap();
    println!(
        "{name}: {elapsed:?} {}",
        outcome.as_ref().map_or_else(|error| error.clone(), |text| format!("{} bytes", text.len()))
    );
    assert!(elapsed <= LIMIT, "{name} took {elapsed:?}");
    match &outcome {
        Ok(text) => assert!(text.len() <= 16 << 20, "{name}"),
        Err(message) => {
            assert!(message.starts_with("chat template (given text): ") && !message.contains('\n'), "{message}")
        }
    }
    outcome
}

fn nested(open: &str, close: &str, depth: usize) -> String {
    format!("{}x{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn refused() {
    let loops = "{% for i in range(99999) %}".repeat(5) + "x" + &"{% endfor %}".repeat(5);
    let grow = |how: &str| {
        format!(
            "{{% set n = namespace(s='x', l=[1]) %}}{{% for i in range(200) %}}{how}{{% endfor %}}{{{{ n.s }}}}{{{{ n.l|length }}}}"
        )
    };
    let templates = [
        ("range(10**12)", "{% for i in range(10**12) %}x{% endfor %}".to_owned()),
        ("nested loops", loops),
        ("one long loop", "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}".into()),
        ("loop over a string", "{% for i in 'x' * 99999999 %}{{ i }}{% endfor %}".into()),
        ("huge string", "{{ 'x' * 10**9 }}".into()),
        ("huge string, just allowed", "{{ 'x' * 99999999 }}".into()),
        ("doubling", grow("{% set n.s = n.s ~ n.s %}")),
        ("doubling with +", grow("{% set n.s = n.s + n.s %}")),
        ("doubling by replace", grow("{% set n.s = n.s.replace('x', 'xx') %}")),
        ("doubling by join", grow("{% set n.s = [n.s, n.s]|join %}")),
        ("doubling by format", grow("{% set n.s = '%s%s'|format(n.s, n.s) %}")),
        ("recursive macro", "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}".into()),
        (
            "branching macro",
            "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}".into(),
        ),
        (
            "mutual macros",
            "{% macro g() %}{{ f() }}{% endmacro %}{% macro f() %}{{ g() }}{% endmacro %}{{ f() }}".into(),
        ),
        ("recursive loop", "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}".into()),
        ("includes itself", "{% include 'chat_template' %}".into()),
        ("extends itself", "{% extends 'chat_template' %}".into()),
        ("imports itself", "{% import 'chat_template' as t %}".into()),
        ("reads a file", "{% include '/etc/passwd' %}".into()),
        ("50,000 nested ifs", nested("{% if true %}", "{% endif %}", 50_000)),
        ("50,000 nested loops", nested("{% for i in [1] %}", "{% endfor %}", 50_000)),
        ("50,000 parentheses", format!("{{{{ {} }}}}", nested("(", ")", 50_000))),
        ("50,000 brackets", format!("{{{{ {} }}}}", nested("[", "]", 50_000))),
        ("2,000 nested ifs", nested("{% if true %}", "{% endif %}", 2_000)),
        ("2,000 nested loops", nested("{% for i in [1] %}", "{% endfor %}", 2_000)),
        ("2,000 nested macros", nested("{% macro f() %}", "{% endmacro %}", 2_000)),
        ("two megabytes", "x".repeat(2 << 20)),
        ("not closed", "{% if".into()),
        ("raises", "{{ raise_exception('no\nsystem role') }}".into()),
        ("format width", "{{ '%999999999d'|format(1) }}".into()),
        ("format precision", "{{ '%.999999999f'|format(1) }}".into()),
        ("indent", "{{ 'x\\n'|indent(999999999) }}".into()),
        ("namespace in itself", "{% set n = namespace() %}{% set n.n = n %}{{ n.n }}".into()),
        ("namespace in a list in itself", "{% set n = namespace() %}{% set n.n = [n] %}{{ n.n == n.n }}".into()),
        ("namespace in a map in itself", "{% set n = namespace() %}{% set n.n = {'a': n} %}{{ n.n|tojson }}".into()),
        ("namespace in its own argument", "{% set n = namespace(a=namespace()) %}".into()),
        ("namespace in a namespace", "{% set n = namespace() %}{% set n.n = namespace() %}".into()),
        ("namespace of another name", "{% set f = namespace %}{% set n = f() %}{% set n.n = n %}{{ n }}".into()),
        ("namespace in a tuple", "{% set n = namespace(), 1 %}{% set m = n[0] %}{% set m.n = m %}{{ m }}".into()),
        ("namespace in a tuple, by number", "{% set n = namespace(), 1 %}{% set m = n.0 %}{% set m.n = m %}{{ m }}".into()),
        ("namespace by with", "{% with n = namespace() %}{% set n.n = n %}{{ n }}{% endwith %}".into()),
        ("namespace by a macro", "{% macro f(m) %}{% set m.n = m %}{{ m }}{% endmacro %}{% set n = namespace() %}{{ f(n) }}".into()),
        ("namespace by a loop", "{% for m in [namespace()] %}{% set m.n = m %}{{ m }}{% endfor %}".into()),
        ("namespace by a filter", "{% set n = 1|default(namespace()) %}{% set n.n = n %}{{ n }}".into()),
        ("namespace by import", "{% set n = namespace() %}{% if not x %}{% set x = 1 %}{% import 'chat_template' as t %}{% set y = t.n %}{{ y }}{% endif %}".into()),
        ("python sandbox escape", "{{ ''.__class__.__mro__[1].__subclasses__() }}".into()),
    ];
    for (name, source) in templates {
        assert!(check(name, &source).is_err(), "{name} was not refused");
    }
}

#[test]
fn bounded() {
    // Of the longest source that is read: the parser recurses for each of these.
    let fill = |open: &str, piece: &str, close: &str| {
        open.to_owned() + &piece.repeat((65_000 - open.len() - close.len()) / piece.len()) + close
    };
    let chain = |piece: &str| fill("{{ x", piece, " }}");
    let nest = |how: &str, show: &str| {
        format!("{{% set n = namespace(l=[], m=[]) %}}{{% for i in range(COUNT) %}}{how}{{% endfor %}}{{{{ {show} }}}}")
    };
    let (list, dict) = ("{% set n.l = [n.l] %}", "{% set n.l = {'a': n.l} %}");
    let deep = [
        ("nested list", nest(list, "1")),
        ("nested list, shown", nest(list, "n.l")),
        ("nested list, as text", nest(list, "n.l|string")),
        ("nested list, tojson", nest(list, "n.l|tojson")),
        ("nested list, pprint", nest(list, "n.l|pprint")),
        ("nested list, sorted", nest(list, "[n.l, n.l]|sort|length")),
        ("nested list, unique", nest(list, "[n.l, n.l]|unique|list|length")),
        ("nested list, in a key", nest(list, "{n.l: 1}|length")),
        ("nested list, compared", nest("{% set n.l = [n.l] %}{% set n.m = [n.m] %}", "n.l == n.m")),
        ("nested dict, shown", nest(dict, "n.l")),
        ("nested dict, tojson", nest(dict, "n.l|tojson")),
        ("nested dict, compared", nest(dict, "n.l < n.l")),
        ("nested tuple, shown", nest("{% set n.l = (n.l, 1) %}", "n.l")),
        ("list sums", nest("{% set n.l = n.l + [n.l] %}", "n.l|length")),
    ];
    // As deep as the fuel allows, and less deep so that some is left for what follows.
    for (name, source) in &deep {
        for count in [99_999, 6_000, 4_000, 2_000, 500] {
            let _ = check(&format!("{name}, {count}"), &source.replace("COUNT", &count.to_string()));
        }
    }
    let templates = [
        ("nots", fill("{{ ", "not ", "x }}")),
        ("minuses", fill("{{ ", "-", "1 }}")),
        ("ifexprs", fill("{{ ", "1 if x else ", "1 }}")),
        ("elifs", fill("{% if x %}", "{%elif x%}", "{% endif %}")),
        ("ors", chain(" or x")),
        ("sums", chain("+1")),
        ("tildes", chain("~x")),
        ("powers", chain("**2")),
        ("comparisons", chain("<1")),
        ("filters", chain("|e")),
        ("attributes", chain(".a")),
        ("items", chain("[0]")),
        ("calls", chain("()")),
        ("tests", chain(" is a")),
        ("expressions", fill("", "{{a}}", "")),
        ("statements", fill("", "{%set a=1%}", "")),
        ("comments", fill("", "{##}", "")),
        ("text", fill("", "x", "")),
        ("list", fill("{{ [", "2,1,", "1]|sort }}")),
        ("filter block", fill("{% filter e", "|e", " %}{% endfilter %}")),
        ("many nots", fill("", &format!("{{{{ {}1 }}}}", "not ".repeat(290)), "")),
        ("many minuses", fill("", &format!("{{{{ {}1 }}}}", "-".repeat(290)), "")),
        ("many sums", fill("", &format!("{{{{ 1{} }}}}", "+1".repeat(140)), "")),
        ("powers of powers", "{{ 10**10**10 }}".into()),
        ("sort", "{{ range(99999)|sort|length }}".into()),
        ("unique", "{{ range(99999)|unique|list|length }}".into()),
        ("groupby", "{{ range(99999)|groupby('x')|length }}".into()),
        ("map", "{% for i in range(9) %}{{ messages|map(attribute='content')|list }}{% endfor %}".into()),
    ];
    for (name, source) in templates {
        let _ = check(name, &source);
    }
}

#[test]
fn long_messages_do_not_buy_a_crash() {
    let messages = [Message::user("x".repeat(1 << 20))];
    for show in ["", "{{ n.l }}", "{{ n.l|tojson }}"] {
        for count in [99_999, 50_000] {
            let source = format!(
                "{{% set n = namespace(l=[]) %}}{{% for i in range({count}) %}}{{% set n.l = [n.l] %}}{{% endfor %}}{show}"
            );
            let _ = ChatTemplate::new(source, SpecialTokens::default()).unwrap().render(&messages, true);
        }
    }
}
