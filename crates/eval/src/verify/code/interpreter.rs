//! Which Python is there, and which files does it read?

use std::path::PathBuf;
use std::process::Command;

use minke_sys::confine::Files;
use serde::Deserialize;

use crate::{Error, Result};

/// Asks the interpreter for its own file, its standard library, and what is loaded when the library's modules are imported.
const QUESTION: &str = include_str!("python/files.py");
const COMPILE: &str = "import marshal, sys
sys.stdout.buffer.write(marshal.dumps(compile(sys.argv[1], '<driver>', 'exec')))";
/// Files that help to find libraries and are read where they exist.
const HELPFUL: [&str; 1] = ["/etc/ld.so.cache"];

/// An interpreter of Python on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// The file that is run: no link and no script in front of it.
    pub path: PathBuf,
    /// Its version.
    pub version: String,
    /// What it needs to read.
    pub files: Files,
}

#[derive(Deserialize)]
struct Reply {
    executable: PathBuf,
    loader: Option<PathBuf>,
    version: String,
    folders: Vec<PathBuf>,
}

impl Interpreter {
    /// Looks an interpreter up: a path, or a name for which the system's search path is gone through. It is run once.
    ///
    /// # Errors
    /// If there is none, or it is too old or not CPython.
    pub fn find(python: &std::path::Path) -> Result<Self> {
        let failed = |reason: String| Error::Python { python: python.into(), reason };
        let output = Command::new(python).args(["-s", "-S", "-B", "-c", QUESTION]).output();
        let output =
            output.map_err(|error| failed(format!("{error}; install Python 3.8 or newer, or say where it is")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(said.lines().last().unwrap_or("it failed without a word").to_owned()));
        }
        let reply: Reply = serde_json::from_slice(&output.stdout)
            .map_err(|error| failed(format!("it does not say where its files are: {error}")))?;
        let mut readable = reply.folders;
        readable.extend(HELPFUL.map(PathBuf::from).into_iter().filter(|path| path.exists()));
        let executable = [Some(reply.executable.clone()), reply.loader].into_iter().flatten().collect();
        Ok(Self { path: reply.executable, version: reply.version, files: Files { readable, executable } })
    }

    /// Code as the interpreter keeps it once it was parsed, which takes it longer than starting to run it.
    ///
    /// # Errors
    /// If it cannot be parsed.
    pub(super) fn compile(&self, code: &str) -> Result<Vec<u8>> {
        let output = Command::new(&self.path).args(["-s", "-S", "-B", "-c", COMPILE, code]).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
            return Err(Error::Python {
                python: self.path.clone(),
                reason: format!("it cannot read its driver: {said}"),
            });
        }
        Ok(output.stdout)
    }
}
