//! What do ten thousand runs of programs leave behind, and how long does one take?
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use minke_eval::Verdict;
use minke_eval::verify::code::{CodeProblem, Sandbox, SandboxConfig, Tests};

const RUNS: usize = 10_000;

/// Processes of this machine whose parent is this one, open descriptors, and files of shared memory and of the working folder.
fn left() -> (usize, usize, BTreeSet<String>) {
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let own = std::process::id().to_string();
    let is_child = |number: &String| {
        let stat = std::fs::read_to_string(Path::new("/proc").join(number).join("stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.split_whitespace().nth(1) == Some(&own))
    };
    let processes = names("/proc").iter().filter(|number| is_child(number)).count();
    let files = names("/dev/shm").union(&names(".")).cloned().collect();
    (processes, names("/proc/self/fd").len(), files)
}

#[test]
fn nothing_is_left_and_a_program_takes_milliseconds() {
    let sandbox = Sandbox::new(SandboxConfig { cpu_s: 1, ..SandboxConfig::default() }).unwrap();
    let asserts = vec!["assert f(1) == 2".to_owned(), "assert f(2) == 3".into()];
    let tests = Tests::Asserts { setup: String::new(), asserts };
    let problem = CodeProblem { prompt: String::new(), entry_point: "f".into(), tests };
    let programs = [
        ("def f(x):\n    return x + 1\n", Verdict::Right),
        ("def f(x):\n    return x\n", Verdict::Wrong),
        ("import os\ndef f(x):\n    os._exit(0)\n", Verdict::Wrong),
        ("import os\ndef f(x):\n    os.fork()\n", Verdict::Wrong),
        ("def f(x):\n    open('left', 'w')\n", Verdict::Wrong),
    ];
    let before = left();
    let mut times: Vec<Duration> = Vec::new();
    for run in 0..RUNS {
        let (program, verdict) = programs[run % programs.len()];
        let start = Instant::now();
        let report = sandbox.judge(&problem, program).unwrap();
        times.push(start.elapsed());
        assert_eq!(report.verdict, verdict, "{program}: {}", report.reason);
    }
    assert_eq!(left(), before);
    times.sort_unstable();
    let at = |share: f64| times[((RUNS - 1) as f64 * share) as usize];
    println!("{RUNS} runs: p50 {:?}, p90 {:?}, p99 {:?}, longest {:?}", at(0.5), at(0.9), at(0.99), at(1.0));
}
