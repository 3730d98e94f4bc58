//! Systems other than Linux: nothing is started that cannot be confined.

use std::convert::Infallible;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use super::{End, Files, Layer, Limits};

/// What a process may do. Never made here.
#[derive(Debug)]
pub struct Confinement(Infallible);

/// A confined process. Never made here.
pub struct Child(Infallible);

fn refusal() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "programs that nobody trusts are run on Linux alone: other systems lack what confines them",
    )
}

/// The layers of this system, each with the reason why it is missing.
pub fn layers() -> Vec<(Layer, Result<(), String>)> {
    Layer::ALL.map(|layer| (layer, Err("Linux alone has it".to_owned()))).into()
}

/// Refused.
///
/// # Errors
/// Always.
pub fn memory_file(_: &[u8]) -> io::Result<OwnedFd> {
    Err(refusal())
}

/// Refused.
///
/// # Errors
/// Always.
pub fn wait_readable(_: &[BorrowedFd], _: Duration) -> io::Result<Vec<bool>> {
    Err(refusal())
}

impl Confinement {
    /// Refused.
    ///
    /// # Errors
    /// Always.
    pub fn new(_: &[Layer], _: Limits, _: &Files) -> io::Result<Self> {
        Err(refusal())
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn start(&self, _: &Path, _: &[&str], _: &[(&str, &str)], _: &[BorrowedFd]) -> io::Result<Child> {
        match self.0 {}
    }
}

impl Child {
    /// Never called.
    pub fn ended(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }

    /// Never called.
    pub fn kill(&self) {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn wait(self) -> io::Result<End> {
        match self.0 {}
    }
}
