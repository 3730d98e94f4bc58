//! What may a program do that nobody trusts? Nothing but read a few named files and the descriptors it was given.
//!
//! A [`Confinement`] is prepared once and starts any number of processes. Always: no new privileges, no capabilities, an
//! environment that is given, all other descriptors closed, a session of its own, limits on CPU time, memory, files and
//! processes, and death with the thread that started it. Where the kernel has them, the [`Layer`]s on top; each stops by itself
//! what it stops, so a hole in one is not a hole in all.

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod launch;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod root;
#[cfg(target_os = "linux")]
mod system_calls;
#[cfg(all(test, target_os = "linux"))]
mod tests;

#[cfg(not(target_os = "linux"))]
use elsewhere as system;
#[cfg(target_os = "linux")]
use linux as system;

use std::path::PathBuf;
use std::time::Duration;

pub use system::{Child, Confinement, layers, memory_file, wait_readable};

/// A protection that depends on the kernel and on how the machine is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// Files, TCP ports, abstract sockets and signals, by Landlock: the named files alone can be opened, for reading.
    Landlock,
    /// A list of system calls that are allowed: no process or thread, socket, signal or writable file.
    Seccomp,
    /// Users of its own: no rights over anything outside. The other namespaces need it.
    UserNamespace,
    /// A root of its own, read-only, in which the named files are all there is.
    MountNamespace,
    /// Processes of its own: no other can be seen or signalled, and all end with the first.
    PidNamespace,
    /// A network of its own without interfaces, and queues and shared memory of its own.
    NetworkNamespace,
}

impl Layer {
    /// All layers.
    pub const ALL: [Self; 6] = [
        Self::Landlock,
        Self::Seccomp,
        Self::UserNamespace,
        Self::MountNamespace,
        Self::PidNamespace,
        Self::NetworkNamespace,
    ];

    /// What it is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Landlock => "Landlock",
            Self::Seccomp => "seccomp",
            Self::UserNamespace => "user namespace",
            Self::MountNamespace => "mount namespace",
            Self::PidNamespace => "pid namespace",
            Self::NetworkNamespace => "network namespace",
        }
    }
}

/// What a process may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Seconds of CPU time, after which the kernel kills it.
    pub cpu_s: u64,
    /// Bytes of address space, beyond which it is given none.
    pub memory_bytes: u64,
}

/// The files that a process may read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Files, and folders with all that is in them.
    pub readable: Vec<PathBuf>,
    /// Files that may be run as well: the program, and the loader of its libraries.
    pub executable: Vec<PathBuf>,
}

/// How a process ended, and what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// How it ended.
    pub how: How,
    /// CPU time of user and system.
    pub cpu: Duration,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
}
