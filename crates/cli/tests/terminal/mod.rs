//! A terminal for tests: the program on the other side of a pseudo-terminal, and what it prints.
#![allow(clippy::unwrap_used, dead_code)]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Longest wait for anything; far more than it takes, so that a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// One terminal at a time: scripts measure time.
static ALONE: Mutex<()> = Mutex::new(());

pub struct Terminal {
    pub child: Child,
    master: File,
    printed: Arc<Mutex<Vec<u8>>>,
    /// Up to where the script has looked.
    seen: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Terminal {
    /// Starts `minke run` with these arguments in a folder that is also its home, and waits for the prompt.
    pub fn talk(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut terminal = Self::start(folder, args, environment);
        terminal.expect("> ");
        terminal
    }

    pub fn start(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Self {
        let alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let master = File::from(master);
        let mut command = Command::new("setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_minke"), "run"]).args(args).current_dir(folder);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("TERM", "xterm-256color");
        command.env("HOME", folder).envs(environment.iter().copied());
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        let printed = Arc::new(Mutex::new(Vec::new()));
        let (mut from, to) = (master.try_clone().unwrap(), printed.clone());
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(1..) = from.read(&mut piece).inspect(|&n| to.lock().unwrap().extend_from_slice(&piece[..n])) {}
        });
        let terminal = Self { child: command.spawn().unwrap(), master, printed, seen: 0, _alone: alone };
        terminal.resize(80);
        terminal
    }

    pub fn resize(&self, columns: u16) {
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).unwrap();
    }

    pub fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).unwrap();
    }

    /// Types a line, and returns everything that is printed up to the next prompt.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.send("\r");
        // Behind the echo of the line.
        self.expect("\x1b[?2004l");
        self.until_prompt()
    }

    /// Everything up to the next prompt.
    pub fn until_prompt(&mut self) -> String {
        self.expect("\x1b[?2004h").replace('\r', "")
    }

    /// Waits for a text behind what was seen so far, and returns what stands before it.
    pub fn expect(&mut self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            let printed = self.printed.lock().unwrap()[self.seen..].to_vec();
            if let Some(at) = printed.windows(text.len()).position(|window| window == text.as_bytes()) {
                self.seen += at + text.len();
                return String::from_utf8_lossy(&printed[..at]).into_owned();
            }
            let printed = String::from_utf8_lossy(&printed[..printed.len().min(4000)]).into_owned();
            assert!(begun.elapsed() < PATIENCE, "no {text:?} in {printed:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Presses Ctrl-C, and returns how long it takes until there is a prompt.
    pub fn interrupt(&mut self) -> Duration {
        let pressed = Instant::now();
        self.send("\x03");
        self.expect("\x1b[?2004h");
        pressed.elapsed()
    }

    /// Waits for the end of the program, and returns its exit code.
    pub fn end(mut self) -> i32 {
        let begun = Instant::now();
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status.code().unwrap(),
                None => assert!(begun.elapsed() < PATIENCE, "it does not end"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
