//! Streaming: the text that can be shown while tokens are still arriving.
//!
//! A token can end in the middle of a character, and a piece of text in the middle of a stop string. Both types here hold
//! back just what is undecided, so that what they give out, joined, does not depend on how the input was cut.

/// Turns bytes that arrive in pieces into text; the pieces, joined, are `String::from_utf8_lossy` of the whole.
///
/// ```
/// let mut stream = minke_text::Utf8Stream::default();
/// assert_eq!(stream.push(b"na\xc3"), "na");
/// assert_eq!(stream.push(b"\xaf"), "ï");
/// assert_eq!(stream.push(b"ve\xe2\x82"), "ve");
/// assert_eq!(stream.finish(), "\u{fffd}");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    /// The beginning of a character whose remaining bytes have not come: at most three bytes.
    held: Vec<u8>,
}

impl Utf8Stream {
    /// The text that these bytes complete.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.held.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, invalid) = rest.split_at(error.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).expect("invariant: checked by the same function"));
                    let Some(length) = error.error_len() else {
                        rest = invalid;
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &invalid[length..];
                }
            }
        }
        self.held = rest.to_vec();
        text
    }

    /// The replacement character if the input ended within a character, else nothing.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}

/// Passes text on until a stop string occurs, of which no byte is ever passed on.
///
/// The first stop string to be complete counts; of several that end at the same byte, the longest.
///
/// ```
/// let mut stops = minke_text::StopStrings::new(["END"]);
/// assert_eq!(stops.push("one E"), "one ");
/// assert_eq!(stops.push("gg EN"), "Egg ");
/// assert_eq!(stops.push("D more"), "");
/// assert_eq!(stops.hit(), Some("END"));
/// ```
#[derive(Debug)]
pub struct StopStrings {
    stops: Vec<String>,
    /// The longest end of the text so far with which a stop string could begin.
    held: String,
    hit: Option<usize>,
}

impl StopStrings {
    /// A filter for these stop strings; empty ones are ignored.
    pub fn new<S: Into<String>>(stops: impl IntoIterator<Item = S>) -> Self {
        let stops = stops.into_iter().map(Into::into).filter(|stop: &String| !stop.is_empty()).collect();
        StopStrings { stops, held: String::new(), hit: None }
    }

    /// The text that certainly stands before any stop string; nothing any more after a hit.
    pub fn push(&mut self, text: &str) -> String {
        if self.hit.is_some() {
            return String::new();
        }
        for c in text.chars() {
            self.held.push(c);
            self.hit = (0..self.stops.len())
                .filter(|&i| self.held.ends_with(&self.stops[i]))
                .max_by_key(|&i| self.stops[i].len());
            if let Some(hit) = self.hit {
                self.held.truncate(self.held.len() - self.stops[hit].len());
                return std::mem::take(&mut self.held);
            }
        }
        let ready = self.undecided();
        let undecided = self.held.split_off(ready);
        std::mem::replace(&mut self.held, undecided)
    }

    /// The stop string that occurred.
    pub fn hit(&self) -> Option<&str> {
        self.hit.map(|i| self.stops[i].as_str())
    }

    /// The text that was held back and turned out not to belong to a stop string.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the end of `held` begins that is the beginning of a stop string.
    fn undecided(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.floor_char_boundary(self.held.len().saturating_sub(longest));
        self.held[from..]
            .char_indices()
            .map(|(i, _)| from + i)
            .find(|&i| self.stops.iter().any(|stop| stop.starts_with(&self.held[i..])))
            .unwrap_or(self.held.len())
    }
}
