//! How is a template run that nobody vouches for?
//!
//! It comes with the weights and is as untrusted as they are. It runs with a budget of steps and bytes, so a hostile one ends
//! in milliseconds; what the budget does not see is given up after a deadline.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use minijinja::machinery::{Token, tokenize};
use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, Value, syntax::SyntaxConfig};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use crate::{Error, Result};

/// Three times the longest published template.
const MAX_TEMPLATE_BYTES: usize = 64 << 10;
/// Seven times the longest tag of DeepSeek's templates.
const MAX_TOKENS_PER_TAG: usize = 300;
/// What a unit of fuel pays for, if not an instruction.
const BYTES_PER_FUEL: usize = 64;
/// The engine recurses: while compiling at most once per byte of the source, while rendering at most once per unit of fuel
/// (a list in a list in a list). So much stack is set aside for it: three times what was measured; only what is used costs.
const STACK_BYTES: usize = 4 << 20;
const STACK_BYTES_PER_SOURCE_BYTE: usize = 512;
const STACK_BYTES_PER_FUEL: usize = 128;
/// Rendering takes milliseconds. The engine does not count the elements of a list that holds another twice, which again
/// holds another twice, and can walk such a thing for years.
const DEADLINE: Duration = Duration::from_secs(2);
/// The widest indentation of JSON.
const MAX_INDENT: usize = 16;
/// The name under which a template can be found in its environment.
const TEMPLATE: &str = "chat_template";

/// A template, compiled.
#[derive(Debug)]
pub(crate) struct Template {
    environment: Environment<'static>,
    /// Where it comes from, for errors.
    origin: String,
    /// Whether it mentions the variable `tools`.
    pub knows_tools: bool,
}

impl Template {
    /// Compiles a source.
    ///
    /// # Errors
    /// It is no Jinja, nested too deeply or too long.
    pub fn compile(origin: &str, source: &str) -> Result<Self> {
        if source.len() > MAX_TEMPLATE_BYTES {
            let reason = format!("has {} bytes; at most {MAX_TEMPLATE_BYTES} are read", source.len());
            return Err(Error::Template { origin: origin.into(), reason });
        }
        let source = source.to_owned();
        let (environment, knows_tools) = bounded(origin, source.len() * STACK_BYTES_PER_SOURCE_BYTE, move || {
            let mut environment = Environment::new();
            // As transformers sets Jinja up; published templates rely on it.
            let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
            let tokens = checked_tokens(&source, syntax.clone())?;
            let knows_tools = tokens.iter().any(|token| matches!(token, Token::Ident("tools")));
            environment.set_syntax(syntax);
            // There is one template; it includes, imports and extends nothing.
            environment.set_path_join_callback(|_, _| "".into());
            environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
            environment.add_function("raise_exception", raise_exception);
            // Both format a nested value in cubic time, which the fuel does not see; no chat template needs them.
            environment.remove_filter("pprint");
            environment.remove_global("debug");
            environment.add_template_owned(TEMPLATE, source)?;
            Ok((environment, knows_tools))
        })?;
        Ok(Self { environment, origin: origin.into(), knows_tools })
    }

    /// Returns the text for these variables, if it takes no more than so much fuel: an instruction or 64 bytes of data each.
    ///
    /// # Errors
    /// The template raises an error or takes more.
    pub fn render(&self, context: Value, fuel: usize) -> Result<String> {
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel as u64));
        let budget = Arc::new(AtomicUsize::new(fuel * BYTES_PER_FUEL));
        environment.add_filter("tojson", move |value: &Value, indent: Option<usize>, options: Kwargs| {
            to_json(value, indent, &options, &budget)
        });
        bounded(&self.origin, fuel * STACK_BYTES_PER_FUEL, move || environment.get_template(TEMPLATE)?.render(context))
    }
}

/// The filter `tojson` of transformers.
fn to_json(
    value: &Value,
    indent: Option<usize>,
    options: &Kwargs,
    budget: &AtomicUsize,
) -> std::result::Result<String, minijinja::Error> {
    let indent = indent.map_or_else(|| options.get("indent"), |indent| Ok(Some(indent)))?;
    options.get::<Option<bool>>("ensure_ascii")?;
    options.assert_all_used()?;
    let spaces = indent.map(|indent: usize| " ".repeat(indent.min(MAX_INDENT)));
    write_json(value, spaces.as_deref(), Budgeted { text: Vec::new(), budget })
        .map_err(|reason| minijinja::Error::new(ErrorKind::InvalidOperation, format!("cannot write JSON: {reason}")))
}

/// Returns a value in JSON.
///
/// # Errors
/// The value has no form in JSON.
pub(crate) fn json(value: &Value) -> std::result::Result<String, String> {
    write_json(value, None, Budgeted { text: Vec::new(), budget: &AtomicUsize::new(usize::MAX) })
}

/// Writes JSON as Python's `json.dumps` does without escaping other alphabets. (The engine's own filter writes for HTML.)
fn write_json(value: &Value, indent: Option<&str>, mut out: Budgeted<'_>) -> std::result::Result<String, String> {
    let done = match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut out, Python)),
        Some(indent) => {
            value.serialize(&mut Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(indent.as_bytes())))
        }
    };
    done.map_err(|error| error.to_string())?;
    String::from_utf8(out.text).map_err(|error| error.to_string())
}

/// A text that stops growing when the budget of all such texts is used up.
struct Budgeted<'a> {
    text: Vec<u8>,
    budget: &'a AtomicUsize,
}

impl Write for Budgeted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let left = |budget: usize| budget.checked_sub(bytes.len());
        if self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_err() {
            return Err(std::io::Error::other("it is longer than the messages can justify"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Separators with spaces, as Python has them.
struct Python;

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

/// What templates call when they cannot render these messages.
fn raise_exception(message: String) -> std::result::Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// Returns the tokens of a source; refuses what the engine accepts and then does not survive.
fn checked_tokens(source: &str, syntax: SyntaxConfig) -> std::result::Result<Vec<Token<'_>>, minijinja::Error> {
    let tokens = tokenize(source, false, syntax).map(|token| Ok(token?.0));
    let tokens: Vec<Token> = tokens.collect::<std::result::Result<_, minijinja::Error>>()?;
    let refuse = |reason: String| Err(minijinja::Error::new(ErrorKind::InvalidOperation, reason));
    // The time to fold constants grows with the square of an expression's depth.
    let ends = |token: &Token| matches!(token, Token::BlockEnd | Token::VariableEnd);
    if tokens.split(ends).any(|tag| tag.len() > MAX_TOKENS_PER_TAG) {
        return refuse(format!("a tag has more than {MAX_TOKENS_PER_TAG} tokens; split it"));
    }
    match misused_namespace(&tokens) {
        None => Ok(tokens),
        Some(name) => {
            refuse(format!("{name}: make a namespace by `set x = namespace(...)` and use it as `x.attribute` only"))
        }
    }
}

/// The name of a namespace that is used but for its attributes: it might be kept in itself, and then be shown, compared or
/// hashed on and on, for which no stack is large enough. Lists and maps cannot hold themselves.
fn misused_namespace<'a>(tokens: &[Token<'a>]) -> Option<&'a str> {
    use Token::{Assign, Dot, Ident, ParenOpen};
    let made = |window: &[Token<'a>]| match window {
        [Ident("set"), Ident(name), Assign, Ident("namespace"), ParenOpen] => Some(*name),
        _ => None,
    };
    let names: Vec<&str> = tokens.windows(5).filter_map(made).collect();
    let misused = |(i, token): (usize, &Token<'a>)| {
        let Ident(name) = token else { return None };
        let ok = match (i.checked_sub(1).map(|before| &tokens[before]), &tokens[i + 1..]) {
            (Some(Dot), _) => true,
            (_, after) if names.contains(name) => {
                matches!(after, [Assign, ..] | [Dot, Ident(_), ..] | [Ident("is"), ..])
            }
            _ if *name == "namespace" => i >= 3 && tokens.get(i - 3..i + 2).and_then(made).is_some(),
            _ => true,
        };
        (!ok).then_some(*name)
    };
    tokens.iter().enumerate().find_map(misused)
}

/// Runs the template engine on a thread of its own, with a stack larger than the usual one by this many bytes, and leaves
/// the thread behind if it does not come to an end: nothing can stop it, but whoever waits learns what is wrong.
fn bounded<T: Send + 'static>(
    origin: &str,
    stack_bytes: usize,
    run: impl FnOnce() -> std::result::Result<T, minijinja::Error> + Send + 'static,
) -> Result<T> {
    let stack_bytes = STACK_BYTES + stack_bytes;
    let (sender, receiver) = mpsc::channel();
    let engine = move || {
        // The receiver is gone after the deadline; then nobody wants the result.
        let _ = sender.send(run().map_err(|error| error.to_string()));
    };
    let outcome = match std::thread::Builder::new().stack_size(stack_bytes).spawn(engine) {
        Err(error) => Err(format!("no stack of {stack_bytes} bytes to run on: {error}")),
        Ok(_) => receiver.recv_timeout(DEADLINE).unwrap_or_else(|reason| match reason {
            RecvTimeoutError::Timeout => {
                Err(format!("came to no end in {} s; use another template", DEADLINE.as_secs()))
            }
            RecvTimeoutError::Disconnected => Err("the template engine panicked".into()),
        }),
    };
    outcome.map_err(|reason| Error::Template { origin: origin.into(), reason: reason.replace('\n', " ") })
}
