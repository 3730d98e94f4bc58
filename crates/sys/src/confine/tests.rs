//! Small programs of the system, each with one layer at a time: what a layer is for fails with it and works without.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::*;

const LIMITS: Limits = Limits { cpu_s: 1, memory_bytes: 1 << 30 };

/// What programs of the system read, and the shell.
fn files() -> Files {
    let there = |paths: &[&str]| paths.iter().map(PathBuf::from).filter(|path| path.exists()).collect();
    let loaders = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    let programs = ["/bin/sh", "/bin/cat", "/usr/bin/env", "/bin/sleep"];
    // The folders themselves and nothing above them; the loader is named by a link.
    let libraries = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/etc/ld.so.cache"];
    Files { readable: there(&libraries), executable: there(&[&loaders[..], &programs[..]].concat()) }
}

/// The layers of this machine among those asked for, or nothing, said aloud.
fn with(asked: &[Layer]) -> Option<Confinement> {
    for (layer, works) in layers() {
        if let (true, Err(reason)) = (asked.contains(&layer), works) {
            println!("skipped: {}: {reason}", layer.name());
            return None;
        }
    }
    Some(Confinement::new(asked, LIMITS, &files()).expect("prepared"))
}

fn start(confinement: &Confinement, program: &str, arguments: &[&str], out: BorrowedFd) -> Child {
    let nothing = File::open("/dev/null").expect("there");
    let files = [nothing.as_fd(), out, out];
    confinement.start(Path::new(program), arguments, &[("ONLY", "this")], &files).expect("started")
}

/// How a program ends and what it says.
fn run(confinement: &Confinement, program: &str, arguments: &[&str]) -> (How, String) {
    let (mut said, saying) = std::io::pipe().expect("a pipe");
    let child = start(confinement, program, arguments, saying.as_fd());
    drop(saying);
    let mut text = String::new();
    said.read_to_string(&mut text).expect("text");
    (child.wait().expect("ended").how, text)
}

#[test]
fn a_process_gets_what_it_is_given_and_no_more() {
    for layers in [&[][..], &Layer::ALL] {
        let Some(confinement) = with(layers) else { continue };
        assert_eq!(run(&confinement, "/usr/bin/env", &[]), (How::Exited(0), "ONLY=this\n".into()));
        let limits = run(&confinement, "/bin/sh", &["-c", "ulimit -t; ulimit -v; ulimit -f; ulimit -c"]);
        assert_eq!(limits, (How::Exited(0), "1\n1048576\n0\n0\n".into()));
        assert_eq!(run(&confinement, "/bin/sh", &["-c", "exit 7"]), (How::Exited(7), String::new()));
    }
}

#[test]
fn descriptors_and_privileges_stay_outside() {
    let Some(confinement) = with(&[]) else { return };
    let (_, said) = run(&confinement, "/bin/cat", &["/proc/self/status"]);
    let line = |name: &str| said.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    assert!(line("NoNewPrivs:").ends_with('1'), "{said}");
    for capabilities in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert!(line(capabilities).ends_with("0000000000000000"), "{said}");
    }
    assert!(line("SigBlk:").ends_with("0000000000000000") && line("SigIgn:").ends_with("0000000000000000"), "{said}");
    // One that a program started here would inherit.
    let open = File::open("/etc/passwd").expect("there");
    let open = rustix::io::fcntl_dupfd_cloexec(&open, 9).expect("a copy");
    rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).expect("inherited");
    let (how, said) = run(&confinement, "/bin/cat", &[&format!("/proc/self/fd/{}", open.as_raw_fd())]);
    assert!(how == How::Exited(1) && said.contains("No such file"), "{how:?} {said}");
}

#[test]
fn files_are_kept_by_landlock_and_by_mounts_each() {
    let secret = ["/etc/passwd"];
    let open = Confinement::new(&[], LIMITS, &files()).expect("prepared");
    assert_eq!(run(&open, "/bin/cat", &secret).0, How::Exited(0));
    for layers in [&[Layer::Landlock][..], &[Layer::UserNamespace, Layer::MountNamespace]] {
        let Some(confinement) = with(layers) else { continue };
        let (how, said) = run(&confinement, "/bin/cat", &secret);
        assert!(how == How::Exited(1) && said.contains("/etc/passwd: "), "{layers:?}: {said}");
        let (how, _) = run(&confinement, "/bin/sh", &["-c", ": > /usr/minke-left"]);
        assert_ne!(how, How::Exited(0), "{layers:?}");
        assert!(!Path::new("/usr/minke-left").exists());
    }
}

#[test]
fn processes_are_kept_by_the_filter_and_by_limits() {
    let script = ["-c", "(exit 0); echo $?"];
    let Some(filtered) = with(&[Layer::Seccomp]) else { return };
    let (how, said) = run(&filtered, "/bin/sh", &script);
    assert!(how != How::Exited(0) && !said.starts_with('0'), "{how:?} {said}");
    let open = Confinement::new(&[], LIMITS, &files()).expect("prepared");
    // The limit on processes does not bind root.
    let root = rustix::process::geteuid().is_root();
    assert_eq!(run(&open, "/bin/sh", &script).0 == How::Exited(0), root);
}

#[test]
fn a_process_ends_with_its_time_and_with_what_holds_it() {
    for layers in [&[][..], &Layer::ALL] {
        let Some(confinement) = with(layers) else { continue };
        let nothing = File::options().write(true).open("/dev/null").expect("there");
        let end =
            start(&confinement, "/bin/sh", &["-c", "while :; do :; done"], nothing.as_fd()).wait().expect("ended");
        assert_eq!(end.how, How::Signalled(libc::SIGKILL));
        assert!(end.cpu > Duration::from_millis(500) && end.cpu < Duration::from_secs(2), "{end:?}");
        let (mut said, saying) = std::io::pipe().expect("a pipe");
        let begin = Instant::now();
        let child = start(&confinement, "/bin/sleep", &["100"], saying.as_fd());
        assert_eq!(wait_readable(&[child.ended()], Duration::from_millis(50)).expect("waited"), [false]);
        drop((child, saying));
        // Its end of the pipe is closed.
        assert_eq!(said.read(&mut [0]).expect("an end"), 0);
        let child = std::thread::scope(|scope| {
            let thread = scope.spawn(|| start(&confinement, "/bin/sleep", &["100"], nothing.as_fd()));
            thread.join().expect("a thread")
        });
        assert_eq!(child.wait().expect("ended").how, How::Signalled(libc::SIGKILL));
        assert!(begin.elapsed() < Duration::from_secs(50));
    }
}

#[test]
fn what_cannot_be_started_is_refused() {
    let confinement = Confinement::new(&[], LIMITS, &files()).expect("prepared");
    let error = confinement.start(Path::new("/nowhere"), &[], &[], &[]).err().expect("refused").to_string();
    assert!(error.starts_with("the program: No such file"), "{error}");
    let missing = Files { readable: vec!["/nowhere".into()], executable: Vec::new() };
    for layer in [Layer::Landlock, Layer::MountNamespace] {
        assert!(Confinement::new(&[layer], LIMITS, &missing).is_err());
    }
    for (layer, works) in layers() {
        println!("{}: {works:?}", layer.name());
    }
}
