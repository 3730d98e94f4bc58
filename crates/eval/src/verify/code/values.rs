//! The little of `python/values.py` that this side needs: it sends texts and lists of texts, and reads a verdict.

use std::io::Write;

/// A value that goes to a process or comes from one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<Value>),
}

impl Value {
    pub fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// The bytes of a value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.append(&mut out);
        out
    }

    fn append(&self, out: &mut Vec<u8>) {
        let sized = |out: &mut Vec<u8>, letter: char, content: &[u8]| {
            write!(out, "{letter}{}:", content.len()).expect("invariant: memory takes what is written");
            out.extend_from_slice(content);
        };
        match self {
            Self::None => out.push(b'N'),
            Self::Bool(value) => out.push(if *value { b'T' } else { b'F' }),
            Self::Int(value) if *value < 0 => sized(out, 'i', format!("-{:x}", value.unsigned_abs()).as_bytes()),
            Self::Int(value) => sized(out, 'i', format!("{value:x}").as_bytes()),
            Self::Text(text) => sized(out, 's', text.as_bytes()),
            Self::List(values) => {
                write!(out, "l{}:", values.len()).expect("invariant: memory takes what is written");
                values.iter().for_each(|value| value.append(out));
            }
        }
    }

    /// The list that bytes stand for, if they are one of values other than lists.
    pub fn decode_list(bytes: &[u8]) -> Option<Vec<Self>> {
        let (count, mut rest) = sized(bytes.strip_prefix(b"l")?)?;
        let mut values = Vec::new();
        for _ in 0..count {
            let (letter, after) = rest.split_first()?;
            let value = match letter {
                b'N' => Self::None,
                b'T' => Self::Bool(true),
                b'F' => Self::Bool(false),
                b'i' | b's' => {
                    let (size, content) = sized(after)?;
                    let (content, behind) = content.split_at_checked(size)?;
                    rest = behind;
                    // A text may hold halves of surrogate pairs, which Python allows and Rust does not.
                    let text = String::from_utf8_lossy(content).into_owned();
                    values.push(if *letter == b's' {
                        Self::Text(text)
                    } else {
                        Self::Int(i64::from_str_radix(&text, 16).ok()?)
                    });
                    continue;
                }
                _ => return None,
            };
            rest = after;
            values.push(value);
        }
        rest.is_empty().then_some(values)
    }
}

/// A count, and what stands behind its colon.
fn sized(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let colon = bytes.iter().take(12).position(|byte| *byte == b':')?;
    let count = std::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
    Some((count, &bytes[colon + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_back_and_what_is_none_is_refused() {
        let list = vec![Value::None, Value::Bool(true), Value::Int(-31), Value::Int(400), Value::text("a:\u{fc}\0")];
        let bytes = Value::List(list.clone()).encode();
        assert_eq!(Value::decode_list(&bytes), Some(list));
        for end in 0..bytes.len() {
            assert_eq!(Value::decode_list(&bytes[..end]), None, "{end}");
        }
        for bytes in ["", "l", "l1:", "l1:x", "l0:N", "l1:s5:abc", "l1:i1:g", "l99999999999:N", "s1:a", "l1:l0:"] {
            assert_eq!(Value::decode_list(bytes.as_bytes()), None, "{bytes}");
        }
    }
}
