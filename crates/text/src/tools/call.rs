//! What the parsers of all formats share: text for the person, and calls that are JSON objects.

use super::ToolEvent;

/// Adds a piece of text for the person.
pub(super) fn give_content(text: &str, events: &mut Vec<ToolEvent>) {
    match events.last_mut() {
        _ if text.is_empty() => {}
        Some(ToolEvent::Content(last)) => last.push_str(text),
        _ => events.push(ToolEvent::Content(text.into())),
    }
}

/// Adds a piece of arguments.
pub(super) fn give_arguments(text: &str, events: &mut Vec<ToolEvent>) {
    match events.last_mut() {
        _ if text.is_empty() => {}
        Some(ToolEvent::Arguments(last)) => last.push_str(text),
        _ => events.push(ToolEvent::Arguments(text.into())),
    }
}

/// The longest end of a text that is the beginning of one of these tags, in bytes.
pub(super) fn part_of_tag(text: &str, tags: &[&str]) -> usize {
    let longest = tags.iter().map(|tag| tag.len().saturating_sub(1)).max().unwrap_or(0).min(text.len());
    let part = |length: &usize| {
        let from = text.len() - length;
        text.is_char_boundary(from) && tags.iter().any(|tag| tag.len() > *length && tag.starts_with(&text[from..]))
    };
    (1..=longest).rev().find(part).unwrap_or(0)
}

/// Text outside of calls: held back as long as it may be the beginning of a tag, or blank text around calls, which is dropped.
#[derive(Clone, Debug, Default)]
pub(super) struct Speech {
    /// What may be the beginning of a tag.
    held: String,
    /// Blank text since the last call, or since the beginning.
    blank: String,
    /// Whether there was more than blank text since then.
    spoke: bool,
    called: bool,
}

impl Speech {
    /// Adds a character. If one of these tags ends with it, the tag; the text in front of it was given out.
    pub fn push(&mut self, c: char, tags: &[&'static str], events: &mut Vec<ToolEvent>) -> Option<&'static str> {
        self.held.push(c);
        let tag = tags.iter().find(|tag| self.held.ends_with(*tag));
        let free = match tag {
            Some(tag) => self.held.len() - tag.len(),
            None => self.held.len() - part_of_tag(&self.held, tags),
        };
        let text: String = self.held.drain(..free).collect();
        if self.spoke || !text.trim().is_empty() {
            self.say(&text, events);
        } else {
            self.blank.push_str(&text);
        }
        if tag.is_some() {
            self.held.clear();
        }
        tag.copied()
    }

    /// Gives out text, and blank text that stood in front of it.
    pub fn say(&mut self, text: &str, events: &mut Vec<ToolEvent>) {
        give_content(&self.blank, events);
        give_content(text, events);
        self.blank.clear();
        self.spoke = true;
    }

    /// Notes that a call was given out: blank text in front of it is dropped.
    pub fn call_ended(&mut self) {
        self.blank.clear();
        (self.spoke, self.called) = (false, true);
    }

    /// Gives out what was held back; blank text behind calls is dropped.
    pub fn finish(&mut self, events: &mut Vec<ToolEvent>) {
        let held = std::mem::take(&mut self.held);
        if self.spoke || !self.called || !held.trim().is_empty() {
            self.say(&held, events);
        }
    }
}

/// What a character is to a JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scanned {
    /// A part of it.
    Inside,
    /// Its last character.
    Last,
    /// Behind it: a number or word ended before.
    Behind,
    /// No value begins so.
    Broken,
}

/// Finds the end of a JSON value, character by character. It checks strings and brackets, not what stands between.
#[derive(Clone, Debug, Default)]
pub(super) struct Scanner {
    begun: bool,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Whether a string had a character that JSON does not allow there, so that its end may be missing.
    pub doubtful: bool,
}

impl Scanner {
    pub fn push(&mut self, c: char) -> Scanned {
        if self.in_string {
            self.doubtful |= c < ' ';
            match c {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => self.in_string = false,
                _ => {}
            }
            return if self.is_complete() { Scanned::Last } else { Scanned::Inside };
        }
        let begins = !std::mem::replace(&mut self.begun, true);
        match c {
            '"' if begins || self.depth > 0 => self.in_string = true,
            '{' | '[' if begins || self.depth > 0 => self.depth += 1,
            '}' | ']' if self.depth > 0 => {
                self.depth -= 1;
                return if self.depth == 0 { Scanned::Last } else { Scanned::Inside };
            }
            _ if self.depth > 0 => {}
            '-' | '0'..='9' | 't' | 'f' | 'n' if begins => {}
            _ if begins => return Scanned::Broken,
            ',' | '}' | ']' => return Scanned::Behind,
            c if c.is_whitespace() => return Scanned::Behind,
            _ => {}
        }
        Scanned::Inside
    }

    /// Whether what was read is a whole value.
    pub fn is_complete(&self) -> bool {
        self.begun && self.depth == 0 && !self.in_string
    }
}

/// How far the object of a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More must come.
    Open,
    /// The call is whole.
    Done,
    /// The call is whole as far as it can be, and the last character is not part of it.
    DoneBefore,
    /// It is no call; nothing was given out.
    NoCall,
}

#[derive(Clone, Debug)]
enum Place {
    BeforeObject,
    BeforeKey,
    Key(String, Scanner),
    Colon(String),
    Value(String, String, Scanner),
    /// Arguments, with what is held back as it may be the beginning of the closing tag.
    Arguments(String, Scanner),
    AfterValue,
}

/// A call that is a JSON object: `{"name": NAME, "arguments": ARGUMENTS}`, or with `parameters`, in any order, with any other
/// keys.
#[derive(Clone, Debug)]
pub(super) struct Call {
    place: Place,
    name: Option<String>,
    /// Arguments that came before the name.
    early: Option<String>,
    /// Whether the call was given out.
    pub begun: bool,
    /// The names that count; all if there are none.
    names: Vec<String>,
    /// Whether an object without arguments is a call.
    pub may_lack_arguments: bool,
    /// What ends the call even inside arguments that are broken.
    close: &'static str,
}

impl Call {
    pub fn new(close: &'static str) -> Self {
        Self {
            place: Place::BeforeObject,
            name: None,
            early: None,
            begun: false,
            names: Vec::new(),
            may_lack_arguments: true,
            close,
        }
    }

    /// A call of one of these names, any if there are none, which has arguments.
    pub fn of(names: &[String]) -> Self {
        Self { names: names.to_vec(), may_lack_arguments: false, ..Self::new("") }
    }

    /// Adds a character.
    pub fn push(&mut self, c: char, events: &mut Vec<ToolEvent>) -> Progress {
        let blank = c.is_whitespace();
        match &mut self.place {
            Place::BeforeObject | Place::BeforeKey | Place::Colon(_) | Place::AfterValue if blank => Progress::Open,
            Place::BeforeObject if c == '{' => self.go_on(Place::BeforeKey),
            Place::BeforeKey if c == '"' => {
                let mut scanner = Scanner::default();
                scanner.push(c);
                self.go_on(Place::Key(c.into(), scanner))
            }
            Place::BeforeKey if c == '}' => self.end(events),
            Place::Key(text, scanner) => {
                text.push(c);
                match scanner.push(c) {
                    Scanned::Last => match serde_json::from_str(text) {
                        Ok(key) => self.go_on(Place::Colon(key)),
                        Err(_) => self.fail(),
                    },
                    _ => Progress::Open,
                }
            }
            Place::Colon(key) if c == ':' => {
                let key = std::mem::take(key);
                self.go_on(Place::Value(key, String::new(), Scanner::default()))
            }
            Place::Value(_, text, _) if blank && text.is_empty() => Progress::Open,
            Place::Value(..) => self.push_value(c, events),
            Place::Arguments(..) => self.push_arguments(c, events),
            Place::AfterValue if c == ',' => self.go_on(Place::BeforeKey),
            Place::AfterValue if c == '}' => self.end(events),
            _ => self.fail(),
        }
    }

    fn push_value(&mut self, c: char, events: &mut Vec<ToolEvent>) -> Progress {
        let Place::Value(key, text, scanner) = &mut self.place else { return Progress::Open };
        let is_arguments = matches!(key.as_str(), "arguments" | "parameters");
        if is_arguments
            && text.is_empty()
            && !self.begun
            && (c == '{' || self.may_lack_arguments)
            && let Some(name) = self.name.clone()
        {
            self.begin(name, events);
            self.place = Place::Arguments(String::new(), Scanner::default());
            return self.push_arguments(c, events);
        }
        let scanned = scanner.push(c);
        if scanned == Scanned::Broken {
            return self.fail();
        }
        if scanned != Scanned::Behind {
            text.push(c);
        }
        if scanned == Scanned::Inside {
            return Progress::Open;
        }
        let (is_name, text) = (key == "name", std::mem::take(text));
        if is_name && self.name.is_none() {
            let known = |name: &String| !name.is_empty() && (self.names.is_empty() || self.names.contains(name));
            self.name = serde_json::from_str::<String>(&text).ok().filter(known);
            if self.name.is_none() {
                return self.fail();
            }
        } else if is_arguments && !self.begun && (text.starts_with('{') || self.may_lack_arguments) {
            self.early = Some(text);
        }
        if let (Some(name), Some(early)) = (self.name.clone(), &self.early) {
            let early = early.clone();
            self.early = None;
            self.begin(name, events);
            give_arguments(&early, events);
        }
        self.place = Place::AfterValue;
        if scanned == Scanned::Behind { self.push(c, events) } else { Progress::Open }
    }

    fn push_arguments(&mut self, c: char, events: &mut Vec<ToolEvent>) -> Progress {
        let Place::Arguments(held, scanner) = &mut self.place else { return Progress::Open };
        match scanner.push(c) {
            Scanned::Behind => {
                self.place = Place::AfterValue;
                return self.push(c, events);
            }
            Scanned::Broken => return self.fail(),
            Scanned::Last => {
                held.push(c);
                give_arguments(held, events);
                return self.go_on(Place::AfterValue);
            }
            Scanned::Inside => held.push(c),
        }
        if scanner.doubtful && !self.close.is_empty() {
            if let Some(arguments) = held.strip_suffix(self.close) {
                give_arguments(arguments.trim_end(), events);
                return Progress::Done;
            }
            // White space in front of the tag is not part of the arguments.
            let mut free = held.len() - part_of_tag(held, &[self.close]);
            free = held[..free].trim_end().len();
            give_arguments(&held[..free], events);
            held.drain(..free);
        } else {
            give_arguments(held, events);
            held.clear();
        }
        Progress::Open
    }

    fn begin(&mut self, name: String, events: &mut Vec<ToolEvent>) {
        self.begun = true;
        events.push(ToolEvent::Call(name));
    }

    fn go_on(&mut self, place: Place) -> Progress {
        self.place = place;
        Progress::Open
    }

    fn fail(&self) -> Progress {
        if self.begun { Progress::DoneBefore } else { Progress::NoCall }
    }

    /// At the end of the object.
    fn end(&mut self, events: &mut Vec<ToolEvent>) -> Progress {
        match self.name.clone() {
            _ if self.begun => Progress::Done,
            Some(name) if self.may_lack_arguments => {
                self.begin(name, events);
                give_arguments("{}", events);
                Progress::Done
            }
            _ => Progress::NoCall,
        }
    }

    /// At the end of the answer: gives out what was held back; whether the arguments are not whole.
    pub fn finish(self, events: &mut Vec<ToolEvent>) -> bool {
        match self.place {
            Place::Arguments(held, scanner) => {
                give_arguments(&held, events);
                // A number or word may end with the answer.
                !scanner.is_complete()
            }
            _ => false,
        }
    }
}
