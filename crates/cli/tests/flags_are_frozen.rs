//! The list of all flags: scripts rely on them, and a new one is a decision.
#![allow(clippy::unwrap_used)]

mod common;

use common::minke;
use std::collections::BTreeSet;
use std::path::Path;

fn flags(verb: &str) -> BTreeSet<String> {
    let words: Vec<&str> = verb.split(' ').chain(["--help"]).collect();
    let help = minke(Path::new("."), &words);
    assert_eq!((help.code, help.err.as_str()), (0, ""));
    let words = help.out.split(|c: char| c.is_whitespace() || c == ',');
    words.filter_map(|word| word.strip_prefix("--")).filter(|flag| !flag.is_empty()).map(str::to_owned).collect()
}

#[test]
fn every_verb_has_exactly_its_flags() {
    for (verb, expected) in [
        ("run", "adapter help json max-tokens seed session temperature think think-budget threads top-p"),
        (
            "serve",
            "adapter allowed-host base-path config cors-origin disk-cache disk-cache-bytes help host key-file log max-running max-waiting model-alias model-name \
             port share-cache socket threads tls-cert tls-key watch",
        ),
        ("launch", "help print url"),
        ("train", "dashboard expert-parallel help json out pipeline-parallel set threads"),
        (
            "eval",
            "adapter answers compare data examples force-thought help json max-tokens out problems samples seed shots side task temperature threads",
        ),
        ("report", "help json live out"),
        ("show", "help json"),
        ("fit", "context help json memory threads"),
        ("plan cost", "assume hardware help json set svg"),
        ("plan train", PLAN_TRAIN),
        ("plan scale", PLAN_TRAIN),
        ("plan failure", PLAN_TRAIN),
        ("plan cheapest", "assume batch days hardware help json most sequence set svg tokens"),
        ("plan export", "assume context days hardware help json most set svg tokens"),
        ("plan rl", "assume count decode-ranks hardware help json part rollout-tokens set svg"),
        ("plan serve", "assume context decode-ranks hardware help json part prefill-ranks prompt set svg users"),
        ("plan fit", "assume context count hardware help json part set svg"),
        ("plan balance", "groups hardware help json nodes ranks slots svg"),
        ("plan hardware", "hardware help json svg"),
        ("doctor", "help json part threads"),
        ("pull", "help json offline revision"),
        ("list", "help json"),
        ("rm", "help json"),
        ("pack", "help json remove threads"),
        ("bench", "adapter batch generate help json prompt threads"),
        ("perplexity", "cache-type context help json threads"),
        ("convert", "adapter format help json threads"),
        ("quantize", "help imatrix json tensor threads to"),
        ("imatrix", "chunk help json out threads"),
    ] {
        assert_eq!(flags(verb), expected.split(' ').map(str::to_owned).collect(), "minke {verb}");
    }
}

const PLAN_TRAIN: &str =
    "assume batch count expert hardware help json mfu part pipeline precision schedule sequence set svg tokens";

const VERBS: [&str; 23] = [
    "run",
    "serve",
    "launch",
    "config",
    "train",
    "eval",
    "report",
    "show",
    "fit",
    "plan",
    "doctor",
    "pull",
    "list",
    "rm",
    "pack",
    "bench",
    "perplexity",
    "convert",
    "quantize",
    "imatrix",
    "debug",
    "completions",
    "man",
];

#[test]
fn there_are_exactly_these_verbs() {
    let help = minke(Path::new("."), &["--help"]).out;
    let commands = help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let verbs: Vec<&str> = commands.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(verbs, VERBS);
    let version = minke(Path::new("."), &["--version"]);
    assert_eq!(version.out, format!("minke {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_and_man_pages_know_every_flag_of_every_verb() {
    let folder = tempfile::tempdir().unwrap();
    let done = minke(folder.path(), &["man", "."]);
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "", ""));
    let shells = ["bash", "zsh", "fish", "powershell"].map(|shell| {
        let done = minke(folder.path(), &["completions", shell]);
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{shell}");
        (shell, done.out)
    });
    let pages = std::fs::read_dir(folder.path()).unwrap().count();
    let (debug, config, plan) = (5, 1, 11);
    assert_eq!(pages, 1 + VERBS.len() + debug + config + plan, "a page of each, and of what stands below these three");
    for verb in VERBS {
        let page = std::fs::read_to_string(folder.path().join(format!("minke-{verb}.1"))).unwrap().replace("\\-", "-");
        shells.iter().for_each(|(shell, script)| assert!(script.contains(verb), "{verb} in {shell}"));
        for flag in flags(verb) {
            assert!(page.contains(&format!("--{flag}")), "--{flag} on the page of {verb}");
            // fish writes flags as `-l flag`.
            let known = |(_, script): &(_, String)| {
                [format!("--{flag}"), format!("-l {flag}")].iter().any(|f| script.contains(f))
            };
            assert!(shells.iter().all(known), "--{flag} of {verb}");
        }
    }
    let done = minke(folder.path(), &["man", "missing"]);
    assert!(done.code == 1 && done.err.contains("does the folder exist?") && done.err.lines().count() == 1, "{done:?}");
}
