//! Pieces of an answer that may call tools.

/// A piece of an answer, told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolEvent {
    /// The next piece of text for the person.
    Content(String),
    /// A call of this function begins.
    Call(String),
    /// The next piece of the arguments of the call that began last, in JSON.
    Arguments(String),
    /// The answer ended inside the call that began last: its arguments are not whole.
    Incomplete,
}
