//! Errors of the planner: one line that says what, why and what to do.

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that does not exist.
    #[error("{kind} {name:?} is not known; known: {known}")]
    Unknown {
        /// What was named.
        kind: &'static str,
        /// As it was given.
        name: String,
        /// What exists.
        known: String,
    },
    /// A figure of a part that has no source, and so no value.
    #[error(
        "{part}: {figure} ({unit}) has no sourced value; give one with --set {part}.{figure}=VALUE or a file of --hardware"
    )]
    NoFigure {
        /// Name of the part.
        part: String,
        /// Name of the figure.
        figure: String,
        /// Its unit.
        unit: &'static str,
    },
    /// A file of parts that cannot be used.
    #[error("{file}: {reason}")]
    Hardware {
        /// Name of the file.
        file: String,
        /// What is wrong, and what to write instead.
        reason: String,
    },
    /// A value outside of its range.
    #[error("{name} = {value}: {reason}")]
    Invalid {
        /// What has the value.
        name: String,
        /// The value.
        value: String,
        /// What it must satisfy.
        reason: String,
    },
    /// Nothing that was tried does what was asked.
    #[error("{0}")]
    Impossible(String),
    /// A picture that cannot be drawn.
    #[error("the picture cannot be drawn: {0}")]
    Picture(String),
}

impl Error {
    /// A value outside of its range.
    pub fn invalid(name: impl Into<String>, value: impl ToString, reason: impl Into<String>) -> Self {
        Self::Invalid { name: name.into(), value: value.to_string(), reason: reason.into() }
    }

    /// A name that is not among those that exist.
    pub fn unknown<'a>(kind: &'static str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        Self::Unknown { kind, name: name.to_owned(), known: known.join(", ") }
    }
}
