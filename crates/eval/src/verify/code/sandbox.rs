//! How is a program run that a model wrote, so that it can neither do harm nor pass tests that it does not meet?
//!
//! Two confined processes for each program ([`minke_sys::confine`]), both started for it and killed behind it: one with the
//! program, which sees neither tests nor expected values, only what its functions are called with; one with the tests,
//! in which those functions are stand-ins. Between them go plain values (`python/values.py`). So there is nothing to find in
//! frames or in the collector, no `==` or `assert` to replace, and no exit that ends the tests. The verdict comes from the
//! second process, on a descriptor of its own and with a number that was drawn for this run; what the first prints goes nowhere.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use minke_sys::confine::{Child, Confinement, End, How, Layer, Limits, layers, memory_file, wait_readable};

use super::interpreter::Interpreter;
use super::values::Value;
use crate::{Error, Result};

const PROGRAM: &str = concat!(include_str!("python/values.py"), include_str!("python/program.py"));
const JUDGE: &str = concat!(include_str!("python/values.py"), include_str!("python/judge.py"));
/// Reads a driver in front of what the driver reads, and runs it.
const START: &str = "import marshal, posix
exec(marshal.loads(posix.read(0, int.from_bytes(posix.read(0, 4), 'big'))))";
/// Sets of texts have the same order in every run. Of the environment outside nothing arrives.
const ENVIRONMENT: [(&str, &str); 1] = [("PYTHONHASHSEED", "0")];
/// Bytes of a verdict, at most.
const VERDICT_BYTES: usize = 64 << 10;

/// How programs are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxConfig {
    /// The interpreter: a path, or a name that the system's search path knows.
    pub python: PathBuf,
    /// Whether a layer of protection that does not work on this machine is an error.
    pub strict: bool,
    /// Seconds of CPU time for a program, and as many for its tests.
    pub cpu_s: u64,
    /// Seconds on the clock for both: the backstop for a program that waits. Far longer than the CPU time, so that what else
    /// the machine does decides nothing.
    pub wall_s: u64,
    /// Bytes of address space for each of the two processes.
    pub memory_bytes: u64,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self { python: "python3".into(), strict: false, cpu_s: 10, wall_s: 120, memory_bytes: 1 << 30 }
    }
}

/// A place where programs in Python can be run. It has no state: any number of threads may use it.
#[derive(Debug)]
pub struct Sandbox {
    pub(super) config: SandboxConfig,
    interpreter: Interpreter,
    confinement: Confinement,
    missing: Vec<(Layer, String)>,
    /// The drivers of the two processes, each with its length in front.
    program: Vec<u8>,
    judge: Vec<u8>,
}

/// What a run came to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What the process with the tests said; nothing if it said nothing that counts.
    pub verdict: Option<Vec<Value>>,
    /// Whether the time on the clock was over first.
    pub over_time: bool,
    /// The end of the process with the program.
    pub program: End,
    /// The end of the process with the tests.
    pub judge: End,
}

impl Sandbox {
    /// Finds the interpreter and the layers that work here, and runs one line of Python in them.
    ///
    /// # Errors
    /// If there is no Python; if a layer is missing and the configuration is strict; if what is left would protect no files or
    /// let a program start others; if Python does not start.
    pub fn new(config: SandboxConfig) -> Result<Self> {
        let (mut working, mut missing) = (Vec::new(), Vec::new());
        for (layer, works) in layers() {
            match works {
                Ok(()) => working.push(layer),
                Err(reason) => missing.push((layer, reason)),
            }
        }
        let has = |layer| working.contains(&layer);
        let safe = (has(Layer::Landlock) || has(Layer::MountNamespace)) && has(Layer::Seccomp);
        if !safe || (config.strict && !missing.is_empty()) {
            let list: Vec<String> =
                missing.iter().map(|(layer, reason)| format!("{} ({reason})", layer.name())).collect();
            return Err(Error::Unprotected { missing: list.join(", ") });
        }
        Ok(Self { missing, ..Self::with_layers(config, &working)? })
    }

    /// A sandbox with these layers alone.
    pub(super) fn with_layers(config: SandboxConfig, layers: &[Layer]) -> Result<Self> {
        let interpreter = Interpreter::find(&config.python)?;
        let limits = Limits { cpu_s: config.cpu_s, memory_bytes: config.memory_bytes };
        let confinement = Confinement::new(layers, limits, &interpreter.files)?;
        let driver = |code| -> Result<Vec<u8>> {
            let compiled = interpreter.compile(code)?;
            Ok([&(compiled.len() as u32).to_be_bytes()[..], &compiled].concat())
        };
        let (program, judge) = (driver(PROGRAM)?, driver(JUDGE)?);
        let sandbox = Self { config, interpreter, confinement, missing: Vec::new(), program, judge };
        sandbox.try_out()?;
        Ok(sandbox)
    }

    /// The layers that do not work on this machine, each with the reason.
    pub fn missing(&self) -> &[(Layer, String)] {
        &self.missing
    }

    /// The interpreter that runs the programs.
    pub fn interpreter(&self) -> &Interpreter {
        &self.interpreter
    }

    fn start(&self, code: &str, files: &[BorrowedFd]) -> Result<Child> {
        let arguments = ["-s", "-S", "-B", "-X", "utf8", "-c", code];
        Ok(self.confinement.start(&self.interpreter.path, &arguments, &ENVIRONMENT, files)?)
    }

    /// Starts Python once, so that what keeps it from starting is told as what it is.
    fn try_out(&self) -> Result<()> {
        let nothing = File::open("/dev/null")?;
        let (mut said, saying) = std::io::pipe()?;
        let (mut answer, answering) = std::io::pipe()?;
        let files = [nothing.as_fd(), answering.as_fd(), saying.as_fd()];
        let child = self.start("import json, math; print(math.comb(6, 3))", &files)?;
        drop((saying, answering));
        let ended = wait_readable(&[child.ended()], Duration::from_secs(self.config.wall_s))?[0];
        child.kill();
        let end = child.wait()?;
        let (mut answer_text, mut said_text) = (String::new(), String::new());
        answer.read_to_string(&mut answer_text)?;
        said.read_to_string(&mut said_text)?;
        if ended && end.how == How::Exited(0) && answer_text == "20\n" {
            return Ok(());
        }
        let last = said_text.lines().last().unwrap_or("it said nothing");
        let reason = format!("it does not start in the sandbox, {:?}: {last}", end.how);
        Err(Error::Python { python: self.interpreter.path.clone(), reason })
    }

    /// Runs a program against tests, which are one value each of what `python/judge.py` reads.
    ///
    /// # Errors
    /// If the processes cannot be started or watched.
    pub(super) fn run(&self, program: &str, tests: Vec<Value>) -> Result<Outcome> {
        let nonce = Value::Text(drawn()?);
        let tests = Value::List([nonce.clone()].into_iter().chain(tests).collect());
        let program = memory_file(&[&self.program[..], &Value::text(program).encode()].concat())?;
        let tests = memory_file(&[&self.judge[..], &tests.encode()].concat())?;
        let nothing = File::options().read(true).write(true).open("/dev/null")?;
        let (requests, asking) = std::io::pipe()?;
        let (replies, replying) = std::io::pipe()?;
        let (mut verdict, deciding) = std::io::pipe()?;
        let nothing = nothing.as_fd();
        let files = [program.as_fd(), nothing, nothing, requests.as_fd(), replying.as_fd()];
        let start = Instant::now();
        let program = self.start(START, &files)?;
        let files = [tests.as_fd(), nothing, nothing, replies.as_fd(), asking.as_fd(), deciding.as_fd()];
        let judge = self.start(START, &files)?;
        // Theirs alone from here on, so that each notices the end of the other.
        drop((requests, replying, replies, asking, deciding));
        let mut said = Vec::new();
        let wall = Duration::from_secs(self.config.wall_s);
        let over_time = loop {
            if !wait_readable(&[verdict.as_fd()], wall.saturating_sub(start.elapsed()))?[0] {
                break true;
            }
            let mut part = [0; 4096];
            let size = verdict.read(&mut part)?;
            said.extend_from_slice(&part[..size]);
            if size == 0 || said.len() > VERDICT_BYTES {
                break false;
            }
        };
        program.kill();
        judge.kill();
        let (program, judge) = (program.wait()?, judge.wait()?);
        let verdict = said
            .get(4..)
            .and_then(Value::decode_list)
            .and_then(|mut values| (values.first() == Some(&nonce)).then(|| values.split_off(1)));
        Ok(Outcome { verdict: verdict.filter(|_| !over_time), over_time, program, judge })
    }
}

/// A number that nobody knows in advance, as text.
fn drawn() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}
