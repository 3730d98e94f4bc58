//! Errors of grammars.

/// A grammar that is refused: one line that says where, why and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrammarError {
    /// The JSON pointer of the keyword that is to blame, for a JSON schema; empty for the schema as a whole.
    pub pointer: Option<String>,
    /// Why it is refused.
    pub reason: String,
}

impl GrammarError {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { pointer: None, reason: one_line(&reason.into()) }
    }

    pub(crate) fn at(pointer: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), ..Self::new(reason) }
    }
}

impl std::fmt::Display for GrammarError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pointer.as_deref() {
            None => write!(f, "grammar: {}", self.reason),
            Some("") => write!(f, "JSON schema: {}", self.reason),
            Some(pointer) => write!(f, "JSON schema at {pointer}: {}", self.reason),
        }
    }
}

impl std::error::Error for GrammarError {}

/// The first lines of a message as one, without what the library adds for its own developers.
fn one_line(message: &str) -> String {
    const LONGEST: usize = 300;
    let useful = message.split("\n<").next().unwrap_or_default();
    let line = useful.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}
