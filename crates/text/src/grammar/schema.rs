//! JSON schemas: what is refused, and where.
//!
//! llguidance refuses most of what it does not do, without saying where. Here a schema is read first: each keyword that would
//! not be obeyed is named with its JSON pointer, and what the library obeys only in part is made exact.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::GrammarError;

/// The longest schema, in bytes of JSON.
const MAX_BYTES: usize = 256 << 10;
/// Schemas within schemas.
const MAX_DEPTH: usize = 64;
/// White space characters in a row, outside of strings.
pub(super) const MAX_SPACE: usize = 8;
/// Integers up to here are exact in the library, which has floats.
const MAX_EXACT: u64 = 1 << 53;
/// How long the keyword to blame is searched for.
const SEARCH: Duration = Duration::from_millis(300);

/// Keywords of some draft that assert something and are not obeyed.
const UNSUPPORTED: [&str; 20] = [
    "$dynamicAnchor",
    "$dynamicRef",
    "$recursiveAnchor",
    "$recursiveRef",
    "contains",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "else",
    "extends",
    "if",
    "maxContains",
    "minContains",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
    "contentSchema",
];
/// Keywords whose value is a schema, a list of schemas (or one), or an object of schemas.
const ONE: [&str; 2] = ["additionalProperties", "additionalItems"];
const LIST: [&str; 5] = ["allOf", "anyOf", "oneOf", "prefixItems", "items"];
const NAMED: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];
/// Formats that are obeyed.
const FORMATS: [&str; 11] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "unknown"];

/// A year from 0001 on: calendars have no year 0.
const YEAR: &str = "([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])";
/// A leap year from 0001 on.
const LEAP_YEAR: &str = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)";
const MONTH_DAY: &str = "(0[13-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])|02-(0[1-9]|1[0-9]|2[0-8])";

/// The schema as the library gets it.
///
/// # Errors
/// It is too long, nested too deeply, or has a keyword that would not be obeyed.
pub(super) fn prepare(schema: &Value) -> Result<Value, GrammarError> {
    let length = schema.to_string().len();
    if length > MAX_BYTES {
        return Err(GrammarError::at("", format!("has {length} bytes; at most {MAX_BYTES} are taken")));
    }
    let mut root = schema.clone();
    if let Value::Object(map) = &mut root {
        // The library takes settings of its own from here.
        map.remove("x-guidance");
    }
    let (mut seen, mut waiting) = (BTreeSet::new(), vec![String::new()]);
    while let Some(pointer) = waiting.pop() {
        if !seen.insert(pointer.clone()) {
            continue;
        }
        if pointer.matches('/').count() > 2 * MAX_DEPTH {
            return Err(GrammarError::at(pointer, format!("is nested more than {MAX_DEPTH} deep")));
        }
        let Some(node) = root.pointer(&pointer) else { continue };
        let Value::Object(map) = node else {
            if node.is_boolean() {
                continue;
            }
            return Err(GrammarError::at(pointer, "is no schema: give an object, true or false"));
        };
        check(&root, map, &pointer, &mut waiting)?;
        if let Some(exact) = exact_format(map)
            && let Some(Value::Object(map)) = root.pointer_mut(&pointer)
        {
            let all = map.entry("allOf").or_insert_with(|| json!([]));
            if let Value::Array(all) = all {
                all.push(json!({ "pattern": exact }));
            }
        }
        if let Some(Value::Object(map)) = root.pointer_mut(&pointer)
            && map.get("uniqueItems") == Some(&Value::Bool(false))
        {
            map.remove("uniqueItems");
        }
    }
    Ok(root)
}

/// Checks the keywords of one schema; adds the schemas in it to those that wait.
fn check(root: &Value, map: &Map<String, Value>, pointer: &str, waiting: &mut Vec<String>) -> Result<(), GrammarError> {
    for (keyword, value) in map {
        let at = || below(pointer, keyword);
        let refuse = |reason: &str| Err(GrammarError::at(at(), reason));
        match keyword.as_str() {
            "uniqueItems" if value == &Value::Bool(false) => {}
            keyword if UNSUPPORTED.contains(&keyword) => return refuse("is not supported; remove it"),
            "$id" if !pointer.is_empty() => return refuse("is supported in the outermost schema only"),
            "$ref" => waiting.push(target(root, value, &at)?),
            "format" => match value.as_str() {
                Some(format) if FORMATS.contains(&format) => {}
                _ => {
                    let known = FORMATS[..FORMATS.len() - 1].join(", ");
                    return refuse(&format!("{value} is not supported; supported are {known}"));
                }
            },
            "minProperties" if !can_be_reached(map, value) => {
                return refuse("is more than the number of required properties, and others may repeat; require them");
            }
            "const" | "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" if !is_exact(value) => {
                return refuse("has a number that a float does not hold exactly");
            }
            "enum" => match value.as_array() {
                Some(values) if values.is_empty() => return refuse("has no values"),
                Some(values) if values.iter().all(is_exact) => {}
                Some(_) => return refuse("has a number that a float does not hold exactly"),
                None => return refuse("is not a list of values"),
            },
            keyword if NAMED.contains(&keyword) => match value.as_object() {
                Some(named) => waiting.extend(named.keys().map(|name| below(&at(), name))),
                None => return refuse("is not an object of schemas"),
            },
            keyword if LIST.contains(&keyword) && value.is_array() => {
                let length = value.as_array().map_or(0, Vec::len);
                waiting.extend((0..length).map(|i| format!("{}/{i}", at())));
            }
            keyword if ONE.contains(&keyword) || keyword == "items" => waiting.push(at()),
            keyword if LIST.contains(&keyword) => return refuse("is not a list of schemas"),
            _ => {}
        }
    }
    Ok(())
}

/// Whether `minProperties` is reached by properties with different names. The library counts a name twice that occurs twice.
fn can_be_reached(map: &Map<String, Value>, min: &Value) -> bool {
    let required = map.get("required").and_then(Value::as_array).map_or(0, Vec::len);
    min.as_u64().is_none_or(|min| min <= required.max(1) as u64)
}

/// The pointer that a `$ref` stands for.
fn target(root: &Value, reference: &Value, at: &dyn Fn() -> String) -> Result<String, GrammarError> {
    let Some(reference) = reference.as_str() else { return Err(GrammarError::at(at(), "is not a text")) };
    let refuse = |reason: &str| Err(GrammarError::at(at(), format!("{reference:?} {reason}")));
    match reference.strip_prefix('#') {
        Some("" | "/") => Ok(String::new()),
        Some(pointer) if pointer.contains(['~', '%']) => refuse("has an escaped character; rename what it names"),
        Some(pointer) if pointer.starts_with('/') => match root.pointer(pointer) {
            Some(_) => Ok(pointer.to_owned()),
            None => refuse("leads to nothing in this schema"),
        },
        _ => refuse("leads out of this schema; only #/... is supported"),
    }
}

/// Whether every integer in a value is the float that the library makes of it.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number <= MAX_EXACT,
            (_, Some(number)) => number.unsigned_abs() <= MAX_EXACT,
            _ => true,
        },
        Value::Array(values) => values.iter().all(is_exact),
        Value::Object(map) => map.values().all(is_exact),
        _ => true,
    }
}

/// What a date has to match besides the library's pattern, which has a 29th of February in every year, a year 0 and a second
/// 60 in every minute.
fn exact_format(map: &Map<String, Value>) -> Option<String> {
    let date = format!("({YEAR}-({MONTH_DAY})|{LEAP_YEAR}-02-29)");
    match map.get("format")?.as_str()? {
        "date" => Some(format!("^{date}$")),
        "date-time" => Some(format!("^{date}T[0-9:]{{6}}[0-5]")),
        "time" => Some("^[0-9:]{6}[0-5]".into()),
        _ => None,
    }
}

fn below(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// The pointer of the keyword without which a schema compiles that does not: found by leaving out one part after the other,
/// as far as the time allows.
pub(super) fn locate(schema: &Value, compiles: &dyn Fn(&Value) -> bool) -> String {
    let end = Instant::now() + SEARCH;
    let mut pointer = String::new();
    'deeper: loop {
        let Some(node) = schema.pointer(&pointer) else { return pointer };
        for child in children(node) {
            if Instant::now() > end {
                return pointer;
            }
            let child = format!("{pointer}{child}");
            let mut changed = schema.clone();
            if let Some(part) = changed.pointer_mut(&child) {
                *part = Value::Bool(true);
            }
            if compiles(&changed) {
                pointer = child;
                continue 'deeper;
            }
        }
        for keyword in node.as_object().into_iter().flat_map(Map::keys) {
            let mut changed = schema.clone();
            if let Some(Value::Object(map)) = changed.pointer_mut(&pointer) {
                map.remove(keyword);
            }
            if Instant::now() > end {
                return pointer;
            }
            if compiles(&changed) {
                return below(&pointer, keyword);
            }
        }
        return pointer;
    }
}

/// The pointers, from a schema, of the schemas in it.
fn children(node: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for (keyword, value) in node.as_object().into_iter().flatten() {
        let at = below("", keyword);
        match value {
            Value::Object(named) if NAMED.contains(&keyword.as_str()) => {
                all.extend(named.keys().map(|name| below(&at, name)));
            }
            Value::Array(list) if LIST.contains(&keyword.as_str()) => {
                all.extend((0..list.len()).map(|i| format!("{at}/{i}")));
            }
            Value::Object(_) if ONE.contains(&keyword.as_str()) || keyword == "items" => all.push(at),
            _ => {}
        }
    }
    all
}
