//! Chat templates, run: Jinja as transformers sets it up, with bounds.
//!
//! A template comes with the weights and is as untrusted as they are. It runs with a budget of steps and bytes, so a hostile
//! one ends in milliseconds; what the budget does not see is given up after a deadline. How deeply the engine may recurse is
//! bounded by the source (tokens per tag, branches), by a limit on calls within calls, and by a limit on lists within lists,
//! which is checked wherever a template makes one.

mod dialect;
mod json;
mod python;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, ErrorKind, State, Value, functions, syntax::SyntaxConfig};

use crate::bounded::{self, GivenUp};
use crate::{Error, Result};
pub(crate) use json::{Style, dumps};

/// Three times the longest published template.
const MAX_TEMPLATE_BYTES: usize = 64 << 10;
/// What a unit of fuel pays for, if not an instruction.
const BYTES_PER_FUEL: usize = 64;
/// Lists and maps within each other. JSON is read 127 deep.
const MAX_DEPTH: usize = 160;
/// Macros, loops and blocks within each other while rendering; a call of a macro counts about six.
const MAX_RECURSION: usize = 200;
/// The engine recurses at most for each token of a tag or branch of a condition, each call and each list within a list: the
/// limits above bound all of them. Three times what was measured; only what is used costs.
const STACK_BYTES: usize = 16 << 20;
/// Rendering takes milliseconds. The engine does not count the elements of a list that holds another twice, which again
/// holds another twice, and can walk such a thing for years.
const DEADLINE: Duration = Duration::from_secs(2);
/// The widest indentation of JSON.
const MAX_INDENT: usize = 16;
/// The name under which a template can be found in its environment.
const TEMPLATE: &str = "chat_template";

type Outcome<T> = std::result::Result<T, minijinja::Error>;

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
        let (environment, knows_tools) = bounded(origin, move || {
            let mut environment = environment()?;
            let translated = dialect::translate(&source, syntax()?)?;
            environment.add_template_owned(TEMPLATE, translated.source)?;
            Ok((environment, translated.knows_tools))
        })?;
        Ok(Self { environment, origin: origin.into(), knows_tools })
    }

    /// The text for these variables, if it takes no more than so much fuel: an instruction or 64 bytes of data each.
    ///
    /// # Errors
    /// The template raises an error or takes more.
    pub fn render(&self, context: Value, fuel: usize) -> Result<String> {
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel as u64));
        let budget = Arc::new(AtomicUsize::new(fuel * BYTES_PER_FUEL));
        environment.add_filter("tojson", move |value: &Value, positional: Rest<Value>, options: Kwargs| {
            to_json(value, &positional, &options, &budget)
        });
        bounded(&self.origin, move || environment.get_template(TEMPLATE)?.render(context))
    }
}

/// As transformers sets Jinja up; published templates rely on it.
fn syntax() -> Outcome<SyntaxConfig> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()
}

fn environment() -> Outcome<Environment<'static>> {
    let mut environment = Environment::new();
    environment.set_syntax(syntax()?);
    environment.set_recursion_limit(MAX_RECURSION);
    // There is one template; it includes, imports and extends nothing.
    environment.set_path_join_callback(|_, _| "".into());
    environment.set_unknown_method_callback(python::method);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_function("namespace", namespace);
    environment.add_function("dict", |state: &State, value: Option<Value>, more: Kwargs| {
        nested(state, functions::dict(value, more)?)
    });
    environment.add_filter(dialect::NESTED, nested);
    environment.add_filter(dialect::STORED, stored);
    environment.add_filter(dialect::PERCENT, python::percent);
    environment.add_test("sequence", python::is_sequence);
    environment.add_test("iterable", python::is_iterable);
    // The first two format a nested value in cubic time, which the fuel does not see; the others nest values unseen. No chat
    // template needs them.
    environment.remove_global("debug");
    for filter in ["pprint", "batch", "chain", "groupby", "slice", "zip"] {
        environment.remove_filter(filter);
    }
    Ok(environment)
}

/// A list, tuple or map that a template makes, if it is not too deep.
fn nested(state: &State, value: Value) -> Outcome<Value> {
    check_depth(state, &value, 0, &|_| Ok(()))?;
    Ok(value)
}

/// A value for an attribute of a namespace. No namespace can hold one, so none can hold itself, which would be shown or
/// compared on and on; an iterator becomes a list, lest it walk the namespace that holds it.
fn stored(state: &State, value: Value) -> Outcome<Value> {
    let value = if value.kind() == ValueKind::Iterable { value.try_iter()?.collect() } else { value };
    let check = |value: &Value| match value.as_object() {
        Some(object) if object.type_name().ends_with("::Namespace") => {
            Err(invalid("a namespace cannot be kept in a namespace"))
        }
        _ => Ok(()),
    };
    check_depth(state, &value, 0, &check)?;
    Ok(value)
}

fn namespace(state: &State, value: Option<Value>, more: Kwargs) -> Outcome<Value> {
    let attributes = functions::dict(value, more)?;
    for name in attributes.try_iter()? {
        stored(state, attributes.get_item(&name)?)?;
    }
    functions::namespace(Some(attributes.into()))
}

/// Checks how deeply a value is nested, and each list and map in it.
fn check_depth(state: &State, value: &Value, depth: usize, check: &dyn Fn(&Value) -> Outcome<()>) -> Outcome<()> {
    check(value)?;
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Map) {
        return Ok(());
    }
    if depth == MAX_DEPTH {
        return Err(invalid(format!("lists and maps are nested more than {MAX_DEPTH} deep")));
    }
    let is_map = value.kind() == ValueKind::Map;
    for item in value.try_iter()? {
        state.consume_fuel(1)?;
        let item = if is_map { value.get_item(&item)? } else { item };
        check_depth(state, &item, depth + 1, check)?;
    }
    Ok(())
}

fn invalid(reason: impl Into<String>) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, reason.into())
}

/// The filter `tojson` of transformers: `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
fn to_json(value: &Value, positional: &[Value], options: &Kwargs, budget: &AtomicUsize) -> Outcome<String> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    if positional.len() > names.len() {
        return Err(ErrorKind::TooManyArguments.into());
    }
    let mut given = names.map(|_| Value::UNDEFINED);
    for (i, name) in names.into_iter().enumerate() {
        let named = options.get::<Option<Value>>(name)?;
        given[i] = positional.get(i).cloned().or(named).unwrap_or(Value::UNDEFINED);
    }
    options.assert_all_used()?;
    let [ensure_ascii, indent, separators, sort_keys] = given;
    let is_given = |value: &Value| !value.is_undefined() && !value.is_none();
    let indent = match &indent {
        indent if !is_given(indent) => None,
        indent => Some(match indent.as_str() {
            Some(text) => text.chars().take(MAX_INDENT).collect(),
            None => " ".repeat(i64::try_from(indent.clone())?.clamp(0, MAX_INDENT as i64) as usize),
        }),
    };
    let separators = match separators {
        separators if !is_given(&separators) => None,
        separators => {
            let parts: Vec<Value> = separators.try_iter()?.collect();
            match parts.as_slice() {
                [between, behind_key] => Some((between.to_string(), behind_key.to_string())),
                _ => return Err(invalid("tojson: separators are two texts")),
            }
        }
    };
    let style = Style { ensure_ascii: ensure_ascii.is_true(), indent, separators, sort_keys: sort_keys.is_true() };
    let text = dumps(value, &style).map_err(|reason| invalid(format!("cannot write JSON: {reason}")))?;
    let left = |budget: usize| budget.checked_sub(text.len());
    match budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left) {
        Ok(_) => Ok(text),
        Err(_) => Err(invalid("cannot write JSON: it is longer than the messages can justify")),
    }
}

/// What templates call when they cannot render these messages.
fn raise_exception(message: String) -> Outcome<Value> {
    Err(invalid(message))
}

/// What templates call for today's date, in UTC.
fn strftime_now(format: String) -> Outcome<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    python::strftime(&format, i64::try_from(now).unwrap_or(0))
}

/// Runs the template engine with bounds.
fn bounded<T: Send + 'static>(origin: &str, run: impl FnOnce() -> Outcome<T> + Send + 'static) -> Result<T> {
    let engine = move || run().map_err(|error| error.to_string());
    let outcome = bounded::bounded(STACK_BYTES, DEADLINE, engine).unwrap_or_else(|reason| match reason {
        GivenUp::NoThread(error) => Err(format!("no stack of {STACK_BYTES} bytes to run on: {error}")),
        GivenUp::Deadline => Err(format!("came to no end in {} s; use another template", DEADLINE.as_secs())),
        GivenUp::Panicked => Err("the template engine panicked".into()),
    });
    outcome.map_err(|reason| Error::Template { origin: origin.into(), reason: reason.replace('\n', " ") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn what_never_ends_is_given_up_after_the_deadline() {
        let start = Instant::now();
        let endless = || -> Outcome<()> {
            loop {
                std::thread::park();
            }
        };
        let message = bounded("t", endless).unwrap_err().to_string();
        assert_eq!(message, "chat template t: came to no end in 2 s; use another template");
        assert!((DEADLINE..2 * DEADLINE).contains(&start.elapsed()));
        // The thread left behind hinders no other.
        assert_eq!(bounded("t", || Ok(1)).unwrap(), 1);
    }
}
