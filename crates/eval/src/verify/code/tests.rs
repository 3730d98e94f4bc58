//! Programs of HumanEval, right and broken; hostile ones; what reasons say; that nothing is left.

use std::time::Duration;

use minke_sys::confine::{How, Layer, layers};
use rayon::prelude::*;
use serde::Deserialize;

use super::*;
use crate::{Error, Verdict};

/// Limits under which hostile programs soon end.
fn short() -> SandboxConfig {
    SandboxConfig { cpu_s: 1, wall_s: 5, ..SandboxConfig::default() }
}

/// A sandbox; nothing, said aloud, where there is no Python or the machine has too few layers.
fn sandbox(config: SandboxConfig) -> Option<Sandbox> {
    if let Err(error) = Interpreter::find(&config.python) {
        println!("skipped: {error}");
        return None;
    }
    match Sandbox::new(config) {
        Err(error @ Error::Unprotected { .. }) => println!("skipped: {error}"),
        other => return Some(other.expect("Python starts in the sandbox")),
    }
    None
}

/// The problems of HumanEval, each with its published solution.
fn human_eval() -> Vec<(CodeProblem, String)> {
    #[derive(Deserialize)]
    struct Solution {
        canonical_solution: String,
    }
    let lines = include_str!("../../../../../testdata/code/humaneval.jsonl").lines();
    let read = |line| {
        let problem = CodeProblem::human_eval(line).expect("a problem");
        let solution: Solution = serde_json::from_str(line).expect("a solution");
        let program = read_program(&problem.prompt, &problem.entry_point, &solution.canonical_solution);
        (problem, program)
    };
    lines.map(read).collect()
}

/// What makes every result of a function another one.
const CHANGED: &str = "
def _changed(value):
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return value + 'x'
    if isinstance(value, dict):
        return {**value, 'x': 'x'}
    return type(value)([*value, 'x'])
";

#[test]
fn published_solutions_are_right_and_broken_ones_are_wrong() {
    let Some(sandbox) = sandbox(SandboxConfig::default()) else { return };
    let problems = human_eval();
    assert_eq!(problems.len(), 164);
    let (sandbox, problems) = (&sandbox, &problems);
    let wrong: Vec<String> = problems
        .par_iter()
        .flat_map_iter(|(problem, program)| {
            let name = &problem.entry_point;
            let changed = format!(
                "{program}\n{CHANGED}\n_right = {name}\n\ndef {name}(*arguments):\n    return _changed(_right(*arguments))\n"
            );
            let empty = format!("{program}\n\ndef {name}(*arguments):\n    return None\n");
            let cases = [(program.clone(), Verdict::Right), (changed, Verdict::Wrong), (empty, Verdict::Wrong)];
            cases.into_iter().filter_map(move |(program, expected)| {
                let report = sandbox.judge(problem, &program).expect("judged");
                (report.verdict != expected).then(|| format!("{name}: {}\n{program}", report.reason))
            })
        })
        .collect();
    assert!(wrong.is_empty(), "{} wrong verdicts: {}", wrong.len(), wrong.join("\n"));
}

#[derive(Clone, Deserialize)]
struct Hostile {
    name: String,
    kind: String,
    program: String,
}

fn hostile() -> Vec<Hostile> {
    let lines = include_str!("../../../../../testdata/code/hostile.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).expect("a hostile program")).collect()
}

/// What a hostile program is up against: one that escapes says so, one that fakes cannot add.
fn problem(hostile: &Hostile) -> CodeProblem {
    let (entry_point, test) = match hostile.kind.as_str() {
        "escape" => ("attempt", "candidate() == 'escaped'"),
        _ => ("add", "all(map(lambda case: candidate(*case) == sum(case), [(2, 3), (10 ** 20, 1), (40, 2)]))"),
    };
    // Expected values as text, for those who look for them.
    let text = "candidate(2, 3) == 5\n    candidate(40, 2) == 42";
    let test = format!("def check(candidate):\n    '''{text}\n    '''\n    assert {test}\n");
    CodeProblem { prompt: String::new(), entry_point: entry_point.into(), tests: Tests::Check(test) }
}

/// The hostile programs that got what they wanted.
fn successful(sandbox: &Sandbox) -> Vec<String> {
    let judged = hostile().into_par_iter().map(|hostile| {
        let report = sandbox.judge(&problem(&hostile), &hostile.program).expect("judged");
        println!("{}: {}: {}", hostile.kind, hostile.name, report.reason);
        (report.verdict != Verdict::Wrong).then_some(hostile.name)
    });
    judged.flatten().collect()
}

#[test]
fn hostile_programs_neither_escape_nor_pass() {
    let victim = tempfile::Builder::new().prefix("minke-hostile-victim").tempfile().expect("a file");
    let Some(sandbox) = sandbox(short()) else { return };
    assert!(hostile().len() >= 60);
    assert_eq!(successful(&sandbox), Vec::<String>::new(), "without {:?}", sandbox.missing());
    assert!(victim.path().exists());
    let left: Vec<_> = ["/tmp", "/dev/shm", "."]
        .into_iter()
        .flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("minke-hostile"))
        .filter(|entry| entry.path() != victim.path())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_other_layers_hold_where_one_is_missing() {
    let works: Vec<Layer> = layers().into_iter().filter(|(_, works)| works.is_ok()).map(|(layer, _)| layer).collect();
    if sandbox(short()).is_none() || works.len() < Layer::ALL.len() {
        println!("skipped: this machine has {works:?} alone");
        return;
    }
    let without_landlock = &Layer::ALL[1..];
    let without_namespaces = [Layer::Landlock, Layer::Seccomp];
    for layers in [without_landlock, &without_namespaces] {
        let sandbox = Sandbox::with_layers(short(), layers).expect("Python starts in the sandbox");
        assert_eq!(successful(&sandbox), Vec::<String>::new(), "{layers:?}");
    }
}

fn judge(sandbox: &Sandbox, tests: Tests, program: &str) -> Report {
    let problem = CodeProblem { prompt: String::new(), entry_point: "f".into(), tests };
    sandbox.judge(&problem, program).expect("judged")
}

fn asserts(tests: &[&str]) -> Tests {
    Tests::Asserts { setup: String::new(), asserts: tests.iter().map(|test| (*test).to_owned()).collect() }
}

#[test]
fn reasons_say_what_is_wrong() {
    let Some(sandbox) = sandbox(short()) else { return };
    let tests = ["assert f(1) == 2", "assert f(2) == 3"];
    for (program, reason) in [
        ("def f(x):\n    return x + 1\n", "passed, 2 calls"),
        ("def f(x):\n    return 2\n", "wrong on case 2: (2) gave 2"),
        ("def f(x):\n    return [x][x]\n", "IndexError in line 2 on case 1: list index out of range"),
        ("def f(x)\n    return x\n", "syntax error in line 1: expected ':'"),
        ("import nothing\n", "ModuleNotFoundError in line 1 before the tests: No module named 'nothing'"),
        ("def g(x):\n    return 2\n", "`f` is not defined"),
        ("", "`f` is not defined"),
        ("def f(x):\n    while True: pass\n", "timeout: its CPU time was over"),
        ("import time\ndef f(x):\n    time.sleep(100)\n", "timeout: it waited too long"),
        ("import os\ndef f(x):\n    os._exit(3)\n", "its process ended by itself with code 3"),
        ("def f(x):\n    return object()\n", "result on case 1 is an object of the program, which cannot be compared"),
        (
            "def f(x):\n    open('/etc/passwd')\n",
            "forbidden: PermissionError in line 2 on case 1: [Errno 13] Permission denied: '/etc/passwd'",
        ),
        ("def f(x):\n    return 'a' * 2 ** 40\n", "MemoryError in line 2 on case 1: "),
        ("def f(x):\n    return None\n", "wrong on case 1: (1) gave None"),
        ("def f(x):\n    return 'a' * 2 ** 24\n", "NotPlain on case 1: takes more than 8388608 bytes"),
    ] {
        let found = judge(&sandbox, asserts(&tests), program).reason.to_string();
        // Without Landlock the file is not there.
        let missing = reason.replace("forbidden: PermissionError", "FileNotFoundError");
        let missing = missing.replace("13] Permission denied", "2] No such file or directory");
        assert!(found == reason || found == missing, "{program}: {found}");
    }
    for (test, reason) in [
        ("assert f(1) ==", "the tests do not work: SyntaxError: invalid syntax (<tests>, line 1)"),
        ("assert 1 == 1", "the tests do not work: the tests call nothing"),
        ("import nothing", "the tests do not work: ModuleNotFoundError: No module named 'nothing'"),
    ] {
        let report = judge(&sandbox, asserts(&[test]), "def f(x):\n    return x\n");
        assert_eq!((report.verdict, report.reason.to_string().as_str()), (Verdict::GoldUnusable, reason));
    }
}

#[test]
fn values_arrive_as_what_they_are() {
    let Some(sandbox) = sandbox(short()) else { return };
    for value in [
        "None",
        "-2 ** 200",
        "1.5e-300",
        "float('inf')",
        "2 + 1j",
        "'a\\ud800\\0\u{fc}'",
        "b'\\xff'",
        "[1, [2, ()], {3: {4}}]",
        "(1, 'a')",
        "frozenset([1, 2])",
        "range(1, 9, 2)",
        "(int, dict)",
        "{'b': 1, 'a': None}",
    ] {
        let test = format!("assert f({value}) == {value} and type(f({value})) is type({value})");
        let report = judge(&sandbox, asserts(&[&test]), "def f(x):\n    return x\n");
        assert_eq!(report.verdict, Verdict::Right, "{value}: {}", report.reason);
    }
    let nan = judge(&sandbox, asserts(&["assert f(0.0) != f(0.0)"]), "def f(x):\n    return float('nan')\n");
    assert_eq!(nan.verdict, Verdict::Right);
    let setup = "root = Node(1)\nroot.left = Node(2)".to_owned();
    let tests = Tests::Asserts { setup, asserts: vec!["assert f(root) == 3 and root.left.value == 2".into()] };
    let program = "class Node:\n    def __init__(self, value):\n        self.value = value\n\n\
                   def f(root):\n    return root.value + root.left.value\n";
    assert_eq!(judge(&sandbox, tests, program).verdict, Verdict::Right);
}

#[test]
fn the_same_program_has_the_same_verdict_under_load() {
    let config = SandboxConfig { cpu_s: 1, wall_s: 60, ..SandboxConfig::default() };
    let Some(sandbox) = sandbox(config) else { return };
    let cases = [
        ("def f(x):\n    for i in range(10 ** 6): pass\n    return x + 1\n", Verdict::Right),
        ("def f(x):\n    return list({'a', 'b', 'c', 'd', 'e'})\n", Verdict::Wrong),
        ("import random\ndef f(x):\n    return random.random()\n", Verdict::Wrong),
    ];
    let runs: Vec<(usize, Report)> = (0..60_usize)
        .into_par_iter()
        .map(|run| (run % 3, judge(&sandbox, asserts(&["assert f(1) == 2"]), cases[run % 3].0)))
        .collect();
    for (case, (program, verdict)) in cases.iter().enumerate() {
        let mut reasons: Vec<&Report> = runs.iter().filter(|(of, _)| *of == case).map(|(_, report)| report).collect();
        assert!(reasons.iter().all(|report| report.verdict == *verdict), "{program}: {reasons:?}");
        reasons.dedup_by(|a, b| a.reason == b.reason);
        assert_eq!(reasons.len(), 1, "{program}: {reasons:?}");
    }
}

#[test]
fn verdicts_without_the_number_of_the_run_do_not_count() {
    let Some(sandbox) = sandbox(short()) else { return };
    // Tests that write a verdict of their own and end: what a program could do that got into their process.
    let forged = "import posix\ndef check(candidate):\n    word = b'l3:s32:' + b'0' * 32 + b's5:righti1:1'\n    \
                  posix.write(5, len(word).to_bytes(4, 'big') + word)\n    posix._exit(0)\n";
    let report = judge(&sandbox, Tests::Check(forged.into()), "def f(x):\n    return x\n");
    assert_eq!((report.verdict, report.reason), (Verdict::Wrong, Reason::TestsEnded { how: How::Exited(0) }));
}

#[test]
fn what_cannot_run_is_refused_by_name() {
    let missing = SandboxConfig { python: "/nowhere/python3".into(), ..SandboxConfig::default() };
    let error = Sandbox::new(missing).expect_err("no Python").to_string();
    assert!(error.starts_with("/nowhere/python3: ") && error.contains("install Python 3.8"), "{error}");
    let other = SandboxConfig { python: "/bin/true".into(), ..SandboxConfig::default() };
    let error = Sandbox::new(other).expect_err("no Python").to_string();
    assert!(error.starts_with("/bin/true: it does not say where its files are"), "{error}");
    let config = SandboxConfig { memory_bytes: 1 << 20, ..SandboxConfig::default() };
    match Sandbox::new(config) {
        Err(Error::Python { reason, .. }) => println!("{reason}"),
        other => panic!("a sandbox of one megabyte: {other:?}"),
    }
}

#[test]
fn cpu_time_is_measured() {
    let Some(sandbox) = sandbox(short()) else { return };
    let report = judge(&sandbox, asserts(&["assert f(1) == 2"]), "def f(x):\n    while True: pass\n");
    assert!(report.cpu >= Duration::from_millis(500) && report.cpu < Duration::from_secs(3), "{:?}", report.cpu);
}
