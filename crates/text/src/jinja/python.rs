//! What templates expect of Python: methods of texts that the engine does not have, `strftime`, and `%`.

use minijinja::value::{ArgType, Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

/// Methods that are added to the engine's: those of Python's `str` that it lacks, then the library's.
pub(super) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str()
        && let Some(result) = text_method(state, text, name, args)
    {
        return result;
    }
    pycompat::unknown_method_callback(state, value, name, args)
}

fn text_method(state: &State, text: &str, name: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    Some(match name {
        "removeprefix" => one(args).map(|prefix: &str| text.strip_prefix(prefix).unwrap_or(text).into()),
        "removesuffix" => one(args).map(|suffix: &str| text.strip_suffix(suffix).unwrap_or(text).into()),
        "partition" => one(args).map(|by: &str| match text.split_once(by) {
            Some((before, after)) => tuple([before, by, after]),
            None => tuple([text, "", ""]),
        }),
        "rpartition" => one(args).map(|by: &str| match text.rsplit_once(by) {
            Some((before, after)) => tuple([before, by, after]),
            None => tuple(["", "", text]),
        }),
        "rsplit" => rsplit(text, args),
        "index" | "rindex" | "find" | "rfind" => find(text, name, args),
        "startswith" | "endswith" if args.len() > 1 => {
            from_args(args).and_then(|(affix, start, end): (Value, Option<i64>, Option<i64>)| {
                state_free(pycompat_affix(slice(text, start, end), name, &affix))
            })
        }
        "swapcase" => none(args).map(|()| {
            let swap = |c: char| -> String {
                if c.is_lowercase() { c.to_uppercase().collect() } else { c.to_lowercase().collect() }
            };
            Value::from(text.chars().map(swap).collect::<String>())
        }),
        "casefold" => none(args).map(|()| Value::from(text.to_lowercase())),
        "zfill" => from_args(args).and_then(|(width,): (usize,)| {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            Ok(Value::from(format!("{sign}{}{digits}", filling(state, text, width, '0')?)))
        }),
        "ljust" | "rjust" | "center" => {
            from_args(args).and_then(|(width, fill): (usize, Option<char>)| {
                let filling = filling(state, text, width, fill.unwrap_or(' '))?;
                let count = filling.chars().count();
                // Python's rule for the odd one.
                let left = match name {
                    "ljust" => 0,
                    "rjust" => count,
                    _ => count / 2 + (count & width & 1),
                };
                let filling: Vec<char> = filling.chars().collect();
                let side = |part: &[char]| part.iter().collect::<String>();
                Ok(Value::from(format!("{}{text}{}", side(&filling[..left]), side(&filling[left..]))))
            })
        }
        _ => return None,
    })
}

fn one<'a, T: ArgType<'a, Output = T>>(args: &'a [Value]) -> Result<T, Error> {
    from_args(args).map(|(value,)| value)
}

fn none(args: &[Value]) -> Result<(), Error> {
    from_args(args)
}

fn tuple(parts: [&str; 3]) -> Value {
    Value::from(Tuple::from(parts.map(Value::from)))
}

/// What fills a text to so many characters; it is paid for before it is made.
fn filling(state: &State, text: &str, width: usize, fill: char) -> Result<String, Error> {
    let count = width.saturating_sub(text.chars().count());
    state.consume_fuel((count / 16) as u64)?;
    Ok(std::iter::repeat_n(fill, count).collect())
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (mut positional, kwargs): (&[Value], Kwargs) = from_args(args)?;
    let mut next = || {
        let (first, rest) = positional.split_first()?;
        positional = rest;
        Some(first.clone())
    };
    let by = next().map_or_else(|| kwargs.get::<Option<Value>>("sep"), |value| Ok(Some(value)))?;
    let most = next().map_or_else(|| kwargs.get::<Option<Value>>("maxsplit"), |value| Ok(Some(value)))?;
    kwargs.assert_all_used()?;
    let most = most.map_or(Ok(-1), i64::try_from)?;
    let pieces = usize::try_from(most).map_or(usize::MAX, |most| most.saturating_add(1));
    let by = by.filter(|by| !by.is_none());
    let mut parts: Vec<&str> = match by.as_ref().map(|by| by.as_str()) {
        Some(Some("")) | Some(None) => return Err(Error::new(ErrorKind::InvalidOperation, "cannot split by this")),
        Some(Some(by)) => text.rsplitn(pieces, by).collect(),
        None => {
            let (mut rest, mut parts) = (text.trim_end(), Vec::new());
            while parts.len() + 1 < pieces
                && let Some(at) = rest.rfind(char::is_whitespace)
            {
                let start = at + rest[at..].chars().next().map_or(1, char::len_utf8);
                parts.push(&rest[start..]);
                rest = rest[..at].trim_end();
            }
            if !rest.is_empty() {
                parts.push(rest);
            }
            parts
        }
    };
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}

/// The characters of a text from one place to another, counted from the end if negative.
fn slice(text: &str, start: Option<i64>, end: Option<i64>) -> &str {
    let length = text.chars().count() as i64;
    let place = |at: i64| (if at < 0 { at + length } else { at }).clamp(0, length) as usize;
    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    let (start, end) = (byte(place(start.unwrap_or(0))), byte(place(end.unwrap_or(length))));
    text.get(start..end).unwrap_or_default()
}

fn find(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
    let within = slice(text, start, end);
    let found = if name.starts_with('r') { within.rfind(what) } else { within.find(what) };
    match found {
        Some(at) => {
            let before = within.as_ptr() as usize - text.as_ptr() as usize + at;
            Ok(Value::from(text[..before].chars().count()))
        }
        None if name.ends_with("find") => Ok(Value::from(-1)),
        None => Err(Error::new(ErrorKind::InvalidOperation, "substring not found")),
    }
}

fn pycompat_affix(text: &str, name: &str, affix: &Value) -> Option<bool> {
    let has = |affix: &str| if name == "startswith" { text.starts_with(affix) } else { text.ends_with(affix) };
    match affix.as_str() {
        Some(affix) => Some(has(affix)),
        None => affix.try_iter().ok()?.try_fold(false, |any, affix| Some(any || has(affix.as_str()?))),
    }
}

fn state_free(found: Option<bool>) -> Result<Value, Error> {
    let reason = "wants a text, or several of them";
    found.map(Value::from).ok_or_else(|| Error::new(ErrorKind::InvalidOperation, reason))
}

/// `format % value` of a text: a tuple holds several values, everything else is one.
pub(super) fn percent(state: &mut State, format: &str, value: Value) -> Result<Value, Error> {
    let mut args = vec![Value::from(format)];
    match value.downcast_object_ref::<Tuple>() {
        Some(_) => args.extend(value.try_iter()?),
        None => args.push(value),
    }
    state.apply_filter("format", &args)
}

/// The test `sequence`: whatever has a length and can be indexed, texts and maps among it.
pub(super) fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
}

/// The test `iterable`: what a loop can walk, the undefined among it; none and numbers not.
pub(super) fn is_iterable(value: &Value) -> bool {
    is_sequence(value) || matches!(value.kind(), ValueKind::Iterable | ValueKind::Undefined)
}

/// Python's `strftime` in the C locale, of seconds since 1970 in UTC.
pub(super) fn strftime(format: &str, seconds: i64) -> Result<String, Error> {
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let weekday = (days + 4).rem_euclid(7);
    let of_year = days - days_of(year, 1, 1);
    const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let (day_name, month_name) = (DAYS[weekday as usize], MONTHS[month as usize - 1]);
    let half = (hour + 11) % 12 + 1;
    let (mut text, mut rest) = (String::new(), format.chars());
    while let Some(c) = rest.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut directive = rest.next();
        let bare = directive == Some('-');
        if bare {
            directive = rest.next();
        }
        let padded = |value: i64, width: usize| if bare { value.to_string() } else { format!("{value:0width$}") };
        text += &match directive {
            Some('Y') => padded(year, 1),
            Some('y') => padded(year.rem_euclid(100), 2),
            Some('m') => padded(month, 2),
            Some('d') => padded(day, 2),
            Some('e') => {
                if bare {
                    day.to_string()
                } else {
                    format!("{day:2}")
                }
            }
            Some('H') => padded(hour, 2),
            Some('I') => padded(half, 2),
            Some('M') => padded(minute, 2),
            Some('S') => padded(second, 2),
            Some('f') => "000000".into(),
            Some('j') => padded(of_year + 1, 3),
            Some('u') => (if weekday == 0 { 7 } else { weekday }).to_string(),
            Some('w') => weekday.to_string(),
            Some('A') => day_name.into(),
            Some('a') => day_name[..3].into(),
            Some('B') => month_name.into(),
            Some('b' | 'h') => month_name[..3].into(),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.into(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('D' | 'x') => format!("{month:02}/{day:02}/{:02}", year.rem_euclid(100)),
            Some('T' | 'X') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('R') => format!("{hour:02}:{minute:02}"),
            Some('c') => {
                format!("{} {} {day:2} {hour:02}:{minute:02}:{second:02} {year}", &day_name[..3], &month_name[..3])
            }
            Some('s') => seconds.to_string(),
            // A time without a zone has none to name.
            Some('z' | 'Z') => String::new(),
            Some('n') => "\n".into(),
            Some('t') => "\t".into(),
            Some('%') => "%".into(),
            other => {
                let directive = other.map_or(String::new(), String::from);
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("strftime: %{directive} is not supported"),
                ));
            }
        };
    }
    Ok(text)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; years begin in March, so that leap days are last.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// The date that many days after 1970-01-01: year, month, day.
fn civil(days: i64) -> (i64, i64, i64) {
    // An average year has 365.2425 days: the guess is a year too late at most.
    let mut year = 1971 + (days * 400).div_euclid(146_097);
    while days < days_of(year, 1, 1) {
        year -= 1;
    }
    let month = (1..=12).rev().find(|&month| days >= days_of(year, month, 1)).unwrap_or(1);
    (year, month, days - days_of(year, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strftime_is_pythons() {
        // datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).strftime(format) in Python 3.
        for (seconds, format, text) in [
            (0, "%Y-%m-%d %H:%M:%S", "1970-01-01 00:00:00"),
            (1_709_208_000, "%d %b %Y", "29 Feb 2024"),
            (1_709_208_000, "%A, %B %-d, %Y %I:%M %p", "Thursday, February 29, 2024 12:00 PM"),
            (1_735_689_599, "%j %y %a %e %-I %%", "366 24 Tue 31 11 %"),
            (
                951_827_696,
                "%c|%x|%X|%F|%T|%u%w|%Z",
                "Tue Feb 29 12:34:56 2000|02/29/00|12:34:56|2000-02-29|12:34:56|22|",
            ),
            (4_102_444_800, "%Y %j", "2100 001"),
            (-1, "%Y-%m-%d %H:%M:%S", "1969-12-31 23:59:59"),
        ] {
            assert_eq!(strftime(format, seconds).unwrap(), text, "{seconds} {format}");
        }
        assert!(strftime("%Q", 0).is_err() && strftime("%", 0).is_err());
    }
}
