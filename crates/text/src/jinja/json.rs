//! JSON as Python's `json.dumps` writes it.

use std::cmp::Ordering;
use std::fmt::Write;

use minijinja::Value;
use minijinja::value::ValueKind;

/// Options of `json.dumps`.
#[derive(Default)]
pub(crate) struct Style {
    /// Whether characters beyond ASCII are escaped.
    pub ensure_ascii: bool,
    /// What stands in front of a line, per level; none for one line.
    pub indent: Option<String>,
    /// Between two values, and behind a key.
    pub separators: Option<(String, String)>,
    /// Whether keys are in order.
    pub sort_keys: bool,
}

/// A value in JSON of this style.
///
/// # Errors
/// The value has no form in JSON.
pub(crate) fn dumps(value: &Value, style: &Style) -> Result<String, String> {
    let between = if style.indent.is_some() { "," } else { ", " };
    let (between, behind_key) =
        style.separators.as_ref().map_or((between, ": "), |(between, behind)| (between.as_str(), behind.as_str()));
    let mut writer = Writer { style, between, behind_key, text: String::new() };
    writer.value(value, 0)?;
    Ok(writer.text)
}

struct Writer<'a> {
    style: &'a Style,
    between: &'a str,
    behind_key: &'a str,
    text: String,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), String> {
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.text.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter().map_err(|error| error.to_string())?.collect();
                self.text.push('[');
                for (i, item) in items.iter().enumerate() {
                    self.begin_item(i, depth + 1);
                    self.value(item, depth + 1)?;
                }
                self.end_items(items.len(), depth, ']');
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter().map_err(|error| error.to_string())?.collect();
                if self.style.sort_keys {
                    keys.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
                }
                self.text.push('{');
                for (i, key) in keys.iter().enumerate() {
                    self.begin_item(i, depth + 1);
                    match key.kind() {
                        ValueKind::String => self.string(key.as_str().unwrap_or_default()),
                        ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                            self.text.push('"');
                            self.value(key, depth)?;
                            self.text.push('"');
                        }
                        other => return Err(format!("a key is {other}")),
                    }
                    self.text.push_str(self.behind_key);
                    self.value(&value.get_item(key).map_err(|error| error.to_string())?, depth + 1)?;
                }
                self.end_items(keys.len(), depth, '}');
            }
            other => return Err(format!("{other} has no form in it")),
        }
        Ok(())
    }

    fn begin_item(&mut self, i: usize, depth: usize) {
        if i > 0 {
            self.text.push_str(self.between);
        }
        self.line(depth);
    }

    fn end_items(&mut self, count: usize, depth: usize, bracket: char) {
        if count > 0 {
            self.line(depth);
        }
        self.text.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.style.indent {
            self.text.push('\n');
            (0..depth).for_each(|_| self.text.push_str(indent));
        }
    }

    fn string(&mut self, string: &str) {
        self.text.push('"');
        for c in string.chars() {
            match c {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                c if c < ' ' || self.style.ensure_ascii && c > '~' => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.text, "\\u{unit:04x}");
                    }
                }
                c => self.text.push(c),
            }
        }
        self.text.push('"');
    }
}

/// A number as Python writes it: floats with the fewest digits, an exponent from 1e16 on and below 1e-4.
fn number(value: &Value) -> String {
    let float = match f64::try_from(value.clone()) {
        Ok(float) if !value.is_integer() => float,
        _ => return value.to_string(),
    };
    if float.is_nan() {
        return "NaN".into();
    }
    if float.is_infinite() {
        return if float > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{float:e}");
        let (digits, exponent) = text.split_once('e').expect("invariant: an exponent was asked for");
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{float:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_pythons() {
        // What `repr` gives in Python 3.
        for (float, text) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-1.5, "-1.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e20, "1.5e+20"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (-2.5e-7, "-2.5e-07"),
            (1e100, "1e+100"),
            (0.0, "0.0"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(number(&Value::from(float)), text);
        }
    }
}
