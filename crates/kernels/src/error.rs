//! Errors of opening a device; operations on an open one have none.

/// The names of devices.
pub(crate) const DEVICE_NAMES: [&str; 2] = ["cpu", "reference"];

/// A device that cannot be had.
#[derive(Debug)]
pub enum Error {
    /// The system gave fewer threads than were asked for.
    Thread {
        /// Threads asked for.
        threads: usize,
        /// The error of the system.
        source: std::io::Error,
    },
    /// No device has this name.
    UnknownDevice {
        /// The name.
        name: String,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Thread { threads, source } => write!(f, "cannot start {threads} threads: {source}; ask for fewer"),
            Self::UnknownDevice { name } => {
                write!(f, "no device is called '{name}'; there are {}", DEVICE_NAMES.join(" and "))
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Thread { source, .. } => Some(source),
            Self::UnknownDevice { .. } => None,
        }
    }
}
