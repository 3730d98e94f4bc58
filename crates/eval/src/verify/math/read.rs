//! Where in a model's text is the answer? The first of these that is there:
//!
//! 1. The last `\boxed{...}` or `\fbox{...}` that is not empty, closed or not, unless a final answer is stated behind it. Boxes with nothing but `and`, `or`, `maybe` and
//!    signs between them are one answer of several parts.
//! 2. What stands behind the last `####`.
//! 3. What stands behind the last `answer is`, `Answer:` and the like, up to the end of the sentence, or on the next line that
//!    has something. It begins with the answer; `not`, `between` and `either` in front of it make it none.
//! 4. The whole text, if it is short and nothing but an expression or a few words.
//! 5. The last formula or number of the last sentence that has one. A question is no answer, a sum that was not computed
//!    neither, and a number behind `or` is not the only one.
//!
//! The text is what stands behind the thought: a box inside of a thought is none.

use super::budget::Budget;
use super::lex::MAX_BYTES;
use super::parse::value;
use super::value::{Expr, Relation, Value};

/// An answer as a text has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The expression or the words, without what stood around them.
    pub text: String,
    /// How it was found.
    pub source: Source,
}

/// How an answer was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a box.
    Boxed,
    /// Behind `####`.
    Marked,
    /// Behind `the answer is`.
    Stated,
    /// The text is nothing else.
    Whole,
    /// The last expression.
    Last,
}

/// The answer that a text gives; nothing if it gives none, or does not commit itself to one.
///
/// # Examples
/// ```
/// use minke_eval::verify::math::read;
/// let answer = |text: &str| read(text).map(|answer| answer.text);
/// assert_eq!(answer("So $x - p = \\boxed{2 - 2p}$.").as_deref(), Some("2 - 2p"));
/// assert_eq!(answer("9 * 2 = $18 a day.\n#### 18").as_deref(), Some("18"));
/// assert_eq!(answer("She makes $18 per day.").as_deref(), Some("18 per day"));
/// assert_eq!(answer("I do not know what it is."), None);
/// ```
pub fn read(text: &str) -> Option<Answer> {
    read_within(text, &mut Budget::new())
}

pub(super) fn read_within(text: &str, budget: &mut Budget) -> Option<Answer> {
    let answer = |text: String, source| {
        let text = text.trim().to_string();
        (!text.is_empty() && text.len() <= MAX_BYTES).then_some(Answer { text, source })
    };
    if let Some((text, behind)) = boxed(text) {
        // What is called final behind all boxes is final.
        let lower = tail(behind, TAIL_BYTES).to_ascii_lowercase();
        let stated =
            if lower.contains("final answer") { stated(tail(behind, TAIL_BYTES), budget) } else { Finding::Absent };
        return match stated {
            Finding::Found(text) => answer(text, Source::Stated),
            Finding::Refused | Finding::Absent => answer(text, Source::Boxed),
        };
    }
    let text = &without_annotations(tail(text, TAIL_BYTES));
    if let Some((_, behind)) = text.rsplit_once("####") {
        let line = behind.trim_start_matches(['#', ' ']).lines().next().unwrap_or_default();
        return answer(trimmed(line).to_string(), Source::Marked);
    }
    match stated(text, budget) {
        Finding::Found(text) => return answer(text, Source::Stated),
        Finding::Refused => return None,
        Finding::Absent => {}
    }
    if let Some(text) = whole(text, budget) {
        return answer(text, Source::Whole);
    }
    match last(text, budget) {
        Finding::Found(text) => answer(text, Source::Last),
        Finding::Refused | Finding::Absent => None,
    }
}

/// Bytes at the end of a text that are searched for what is not in a box.
const TAIL_BYTES: usize = 8192;
/// Most boxes of one answer.
const MAX_BOXES: usize = 16;
/// Most words of an expression in a sentence.
const MAX_RUN: usize = 24;
/// Most words between two boxes of one answer.
const MAX_JOIN: usize = 6;
/// Most words of a unit.
const MAX_UNIT: usize = 3;
/// Most sentences that are searched for a number.
const MAX_SENTENCES: usize = 64;

enum Finding {
    Found(String),
    /// There is something that commits itself to no answer.
    Refused,
    Absent,
}

/// The last bytes of a text, from the beginning of a character on.
fn tail(text: &str, bytes: usize) -> &str {
    let mut start = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// Without the notes `<<2*9=18>>` of GSM8K's solutions, which stand in front of the same number.
fn without_annotations(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("<<") {
        kept.push_str(before);
        match behind.split_once(">>").filter(|(note, _)| !note.contains('\n')) {
            Some((_, after)) => rest = after,
            None => {
                kept.push_str("<<");
                rest = behind;
            }
        }
    }
    kept.push_str(rest);
    kept
}

/// Without white space, emphasis and the full stop around it.
fn trimmed(text: &str) -> &str {
    let mut text = text.trim();
    loop {
        let before = text;
        text = text.trim_matches(|c: char| c.is_whitespace() || "*`\"“”_".contains(c));
        text = text.strip_suffix(['.', ',', ';', ':']).unwrap_or(text);
        text = text.strip_suffix("\\\\").unwrap_or(text);
        if text == before {
            return text;
        }
    }
}

// --- boxes

/// The contents of the last boxes, and what stands behind them.
fn boxed(text: &str) -> Option<(String, &str)> {
    let mut last = None;
    let mut found: Vec<&str> = Vec::new();
    let mut gaps: Vec<&str> = Vec::new();
    let mut end = text.len();
    let mut behind: Option<usize> = None;
    for _ in 0..MAX_BOXES {
        let Some(start) = text[..end].rfind("\\boxed").max(text[..end].rfind("\\fbox")) else { break };
        let (inside, after) = contents(&text[start..]);
        let after = start + after;
        last.get_or_insert(after);
        if let Some(behind) = behind {
            if after > behind {
                // A box around the one that was found.
                end = start;
                continue;
            }
            if !is_connection(&text[after..behind]) {
                break;
            }
            gaps.push(&text[after..behind]);
        }
        if !trimmed(inside).is_empty() {
            found.push(inside);
        }
        behind = Some(start);
        end = start;
    }
    found.reverse();
    let mut distinct: Vec<&str> = Vec::new();
    for inside in found {
        if !distinct.iter().any(|other| trimmed(other) == trimmed(inside)) {
            distinct.push(inside);
        }
    }
    let joiner = if gaps.iter().any(|gap| gap.to_lowercase().contains("or")) { " or " } else { " , " };
    let joined = distinct.iter().map(|inside| trimmed(inside)).collect::<Vec<_>>().join(joiner);
    (!distinct.is_empty()).then(|| (joined, &text[last.unwrap_or(text.len())..]))
}

/// What is in the box that a text begins with, and where it ends; an unclosed one ends with its line.
fn contents(text: &str) -> (&str, usize) {
    let command = if text.starts_with("\\boxed") { "\\boxed".len() } else { "\\fbox".len() };
    let start = command + (text[command..].len() - text[command..].trim_start().len());
    let inside = &text[start..];
    if !inside.starts_with('{') {
        // `\boxed 42`
        let length = inside.find(|c: char| c.is_whitespace() || "$\\.,".contains(c)).unwrap_or(inside.len());
        return (&inside[..length], start + length);
    }
    let mut depth = 0usize;
    let mut escaped = false;
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            _ if escaped => {
                escaped = false;
                continue;
            }
            b'\\' => escaped = true,
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (&inside[1..at], start + at + 1);
        }
    }
    let line = inside[1..].split(['\n', '$']).next().unwrap_or_default();
    (line, start + 1 + line.len())
}

/// Whether what stands between two boxes makes them one answer.
fn is_connection(gap: &str) -> bool {
    const WORDS: [&str; 24] = [
        "or",
        "and",
        "maybe",
        "perhaps",
        "possibly",
        "alternatively",
        "it",
        "could",
        "might",
        "may",
        "be",
        "also",
        "either",
        "else",
        "otherwise",
        "even",
        "as",
        "well",
        "another",
        "option",
        "text",
        "quad",
        "qquad",
        "x",
    ];
    let letters = gap.to_lowercase();
    let words: Vec<&str> = letters.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    // `\boxed{1} apple and \boxed{2} pears`
    let joined =
        words.len() <= MAX_JOIN && words.iter().any(|word| ["and", "or"].contains(word)) && !gap.contains(['.', '\n']);
    gap.len() <= 80 && (joined || words.iter().all(|word| WORDS.contains(word)))
}

// --- statements

/// What stands behind the last statement of the answer.
fn stated(text: &str, budget: &mut Budget) -> Finding {
    let lower = text.to_ascii_lowercase();
    let mut end = lower.len();
    for _ in 0..MAX_BOXES {
        let Some(at) = lower[..end].rfind("answer") else { break };
        end = at;
        let Some(phrase) = statement(&text[at + "answer".len()..]) else { continue };
        let phrase = first_sentence(phrase);
        if phrase.chars().any(char::is_alphanumeric) {
            return reduced(phrase, budget);
        }
    }
    Finding::Absent
}

/// What follows `answer` and a verb or a colon.
fn statement(text: &str) -> Option<&str> {
    const VERBS: [&str; 7] = [":", " is", " are", "=", " be", " was", "："];
    let line = text.find('\n').unwrap_or(text.len());
    let window = tail_start(text, line.min(80));
    let digits = window.find(|c: char| c.is_ascii_digit() || "$\\.?!".contains(c)).unwrap_or(window.len());
    let lower = window[..digits].to_ascii_lowercase();
    let verb = |verb: &&str| lower.find(*verb).map(|at| at + verb.len());
    let at = VERBS.iter().filter_map(verb).filter(|at| {
        let ends = !text[*at..].starts_with(char::is_alphanumeric);
        ends || text[..*at].ends_with([':', '=', '：'])
    });
    let mut rest = &text[at.min()?..];
    // `is:`, `**:`
    rest = rest.trim_start_matches([' ', '\t', ':', '*', '=', '：', '_']);
    Some(rest.trim_start())
}

/// The first bytes of a text, up to the end of a character.
fn tail_start(text: &str, mut bytes: usize) -> &str {
    while !text.is_char_boundary(bytes) {
        bytes -= 1;
    }
    &text[..bytes]
}

/// Up to the end of the first sentence or line. What stands between dollar signs is not searched for an end.
fn first_sentence(text: &str) -> &str {
    let display = text.starts_with("\\[") || text.starts_with("$$") || text.starts_with("\\begin");
    let mut dollars = 0;
    for (at, c) in text.char_indices() {
        let rest = &text[at + c.len_utf8()..];
        match c {
            '$' => dollars += 1,
            '\n' if !display => return &text[..at],
            '\n' if rest.starts_with('\n') => return &text[..at],
            '.' | '!' | '?' if dollars % 2 == 0 && rest.starts_with([' ', '\n']) => {
                return &text[..at + usize::from(c == '?')];
            }
            _ => {}
        }
    }
    text
}

/// The answer at the beginning of a phrase.
fn reduced(phrase: &str, budget: &mut Budget) -> Finding {
    const FILLERS: [&str; 24] = [
        "therefore",
        "thus",
        "so",
        "simply",
        "just",
        "exactly",
        "equal to",
        "equals",
        "given by",
        "that",
        "about",
        "approximately",
        "around",
        "roughly",
        "option",
        "choice",
        "letter",
        "the number",
        "a total of",
        "only",
        "indeed",
        "probably",
        "the",
        "clearly",
    ];
    let mut phrase = phrase.replace("**", "").replace('`', "");
    loop {
        let text = trimmed(&phrase);
        let lower = text.to_ascii_lowercase();
        let after =
            |filler: &&str| lower.strip_prefix(*filler).filter(|rest| rest.starts_with([' ', ',', ':'])).map(str::len);
        match FILLERS.iter().find_map(after) {
            Some(rest) => phrase = text[text.len() - rest..].trim_start_matches([',', ':', ' ']).to_string(),
            None => {
                phrase = text.to_string();
                break;
            }
        }
    }
    if phrase.ends_with('?') || starts_undecided(&phrase) {
        return Finding::Refused;
    }
    let parses =
        |text: &str, budget: &mut Budget| value(text, budget).is_some_and(|value| !matches!(value, Value::Text(_)));
    if parses(&phrase, budget) {
        return Finding::Found(phrase);
    }
    if let Some((formulas, rest)) = formulas(&phrase).filter(|_| phrase.starts_with(['$', '\\'])) {
        return if is_alternative(rest) { Finding::Refused } else { Finding::Found(formulas) };
    }
    // The longest beginning that is an expression.
    let ends: Vec<usize> =
        phrase.char_indices().filter(|(_, c)| c.is_whitespace()).map(|(at, _)| at).take(MAX_RUN).collect();
    for end in ends.into_iter().rev() {
        let beginning = trimmed(&phrase[..end]);
        if beginning.chars().any(|c| c.is_ascii_digit()) && parses(beginning, budget) {
            return if is_alternative(&phrase[end..]) || beginning.contains(" or ") {
                Finding::Refused
            } else {
                Finding::Found(beginning.to_string())
            };
        }
    }
    if let Some((letter, rest)) = choice(&phrase) {
        return if is_alternative(rest) { Finding::Refused } else { Finding::Found(letter.to_string()) };
    }
    if phrase.chars().any(|c| c.is_ascii_digit()) {
        return last(&phrase, budget);
    }
    Finding::Found(phrase)
}

/// The letter of a choice that an answer is or begins with: `B`, `\text{(B)}`, `B. 42`.
pub(in crate::verify) fn letter(answer: &str) -> Option<char> {
    const FONTS: [&str; 6] = ["\\textbf{", "\\text{", "\\mathrm{", "\\mathbf{", "{", "}"];
    let plain = FONTS.iter().fold(answer.to_string(), |text, font| text.replace(font, ""));
    let mut alone = plain.trim().chars();
    if let (Some(letter @ 'A'..='Z'), None) = (alone.next(), alone.next()) {
        return Some(letter);
    }
    choice(&plain).filter(|(_, rest)| !rest.contains(" or "))?.0.chars().next()
}

/// `B. 42` and `(B) because ...`: the letter of a choice, and what follows.
fn choice(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let (open, inside) = match text.strip_prefix('(') {
        Some(inside) => (true, inside),
        None => (false, text),
    };
    let letter = inside.get(..1).filter(|letter| letter.starts_with(|c: char| c.is_ascii_uppercase()))?;
    let rest = &inside[1..];
    let rest = if open { rest.strip_prefix(')')? } else { rest.strip_prefix([')', '.', ':', ','])? };
    // `A, B`
    let next = rest.trim_start_matches(|c: char| !c.is_alphanumeric());
    let another = next.starts_with(|c: char| c.is_ascii_uppercase()) && !next[1..].starts_with(char::is_alphanumeric);
    (!another && (rest.is_empty() || rest.is_empty() || rest.starts_with([' ', '\\', '.', ',', ':', '\n', '$'])))
        .then_some((letter, rest))
}

/// Whether a phrase says what the answer is not, or a range or choice of answers.
fn starts_undecided(phrase: &str) -> bool {
    const UNDECIDED: [&str; 17] = [
        "not",
        "between",
        "either",
        "at least",
        "at most",
        "less than",
        "more than",
        "greater than",
        "one of",
        "no more",
        "no less",
        "up to",
        "over",
        "under",
        "above",
        "below",
        "neither of",
    ];
    let lower = phrase.to_ascii_lowercase();
    UNDECIDED.iter().any(|word| lower.strip_prefix(word).is_some_and(|rest| rest.starts_with([' ', ':', '$'])))
}

/// Whether what follows an answer names another one.
fn is_alternative(rest: &str) -> bool {
    let lower = rest.to_ascii_lowercase();
    let rest = lower.trim_start_matches(|c: char| c.is_whitespace() || ",;.()$".contains(c));
    ["or", "maybe", "possibly", "perhaps", "alternatively", "/"]
        .iter()
        .any(|word| rest.strip_prefix(word).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric)))
}

/// The first formulas of a phrase that are connected, without their signs, and what follows.
fn formulas(phrase: &str) -> Option<(String, &str)> {
    let mut spans = spans(phrase).into_iter();
    let first = spans.next()?;
    let (mut parts, mut end) = (vec![first.inside], first.end);
    let mut or = false;
    for next in spans {
        let gap = &phrase[end..next.start];
        if !is_connection(gap) {
            break;
        }
        or |= gap.to_lowercase().contains("or");
        parts.push(next.inside);
        end = next.end;
    }
    let parts: Vec<&str> = parts.into_iter().map(trimmed).collect();
    Some((parts.join(if or { " or " } else { " , " }), &phrase[end..]))
}

struct Span<'a> {
    start: usize,
    end: usize,
    inside: &'a str,
}

/// The formulas of a text: between dollar signs, `\(` and `\)`, `\[` and `\]`. Dollars in front of a sum of money open none.
fn spans(text: &str) -> Vec<Span<'_>> {
    let mut spans = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find(['$', '\\']) {
        let start = at + found;
        let rest = &text[start..];
        let pair = [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")]
            .into_iter()
            .find(|(open, _)| rest.starts_with(open));
        let Some((open, close)) = pair else {
            // A command, or a dollar sign with a backslash in front.
            at = start + 1 + text[start + 1..].chars().next().map_or(0, char::len_utf8);
            continue;
        };
        let inside = &rest[open.len()..];
        let length = inside.find(close);
        let prose = |inside: &str| open == "$" && has_prose(inside);
        match length.map(|length| &inside[..length]).filter(|inside| !prose(inside)) {
            Some(inside) => {
                let end = start + open.len() + inside.len() + close.len();
                if !inside.trim().is_empty() {
                    spans.push(Span { start, end, inside });
                }
                at = end;
            }
            None => at = start + open.len(),
        }
    }
    spans
}

/// Whether a supposed formula has words outside of `\text{}`.
fn has_prose(inside: &str) -> bool {
    let mut words = inside.split(|c: char| c.is_whitespace()).filter(|word| word.len() > 1);
    !inside.contains('\\')
        && words.clone().count() > 0
        && words.any(|word| word.len() > 2 && word.chars().all(|c| c.is_ascii_lowercase()))
}

// --- the whole text

fn whole(text: &str, budget: &mut Budget) -> Option<String> {
    let line = trimmed(text);
    let one_line = line.lines().count() == 1 || line.starts_with('\\') || line.starts_with("$$");
    if !one_line || line.len() > MAX_BYTES || line.ends_with('?') {
        return None;
    }
    let found = value(line, budget)?;
    let words = |text: &str| text.split_whitespace().count();
    let a_sentence = matches!(&found, Value::Text(_) | Value::Scalar(Expr::Symbol(_))) && words(line) > 6;
    // `16 - 7 = 9, 9 * 2 = 18` is on its way.
    let steps = matches!(&found, Value::List(parts, _) if parts.iter().any(is_step));
    let line = match &spans(line)[..] {
        [span] if span.start == 0 && span.end == line.len() => span.inside,
        _ => line,
    };
    (!a_sentence && !steps).then(|| line.to_string())
}

/// Whether a part is a computation with what it comes to.
fn is_step(part: &Value) -> bool {
    matches!(part, Value::Chain { sides, links } if links.contains(&Relation::Equal)
        && sides[0].scalar().is_some_and(|side| !side.has_symbols()))
}

// --- the last expression

/// The last expression of the last sentence that has one.
fn last(text: &str, budget: &mut Budget) -> Finding {
    let mut tried = 0;
    for line in text.lines().rev() {
        let line = without_marker(line);
        for sentence in sentences(line).into_iter().rev() {
            tried += 1;
            if tried > MAX_SENTENCES {
                return Finding::Absent;
            }
            if sentence.trim_end().ends_with('?') {
                continue;
            }
            match last_of(sentence, budget) {
                Finding::Absent => {}
                found => return found,
            }
        }
    }
    // A formula may have lines of its own.
    match spans(text).last() {
        Some(span) if span.inside.contains('\n') => Finding::Found(trimmed(span.inside).to_string()),
        _ => Finding::Absent,
    }
}

/// A line without the sign or number of a list or heading.
fn without_marker(line: &str) -> &str {
    let line = line.trim_start().trim_start_matches(['#', '>', '•']).trim_start();
    let line = line.strip_prefix("- ").or(line.strip_prefix("* ")).unwrap_or(line);
    let digits = line.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
    match line[digits..].strip_prefix(['.', ')']) {
        Some(rest) if digits > 0 && (rest.starts_with(' ') || rest.is_empty()) => rest,
        _ => line,
    }
}

/// The sentences of a line, with the signs at their ends. No sentence ends within a formula.
fn sentences(line: &str) -> Vec<&str> {
    let formulas = spans(line);
    let mut formula = formulas.iter().peekable();
    let (mut sentences, mut start) = (Vec::new(), 0);
    for (at, c) in line.char_indices() {
        while formula.peek().is_some_and(|span| span.end <= at) {
            formula.next();
        }
        let inside = formula.peek().is_some_and(|span| span.start <= at);
        let end = at + c.len_utf8();
        if !inside && matches!(c, '.' | '!' | '?') && (line[end..].is_empty() || line[end..].starts_with(' ')) {
            sentences.push(&line[start..end]);
            start = end;
        }
    }
    sentences.push(&line[start..]);
    sentences
}

/// The last formula or number of a sentence.
fn last_of(sentence: &str, budget: &mut Budget) -> Finding {
    let sentence = sentence.replace("**", "").replace('`', "");
    let mut formulas = spans(&sentence);
    // A variable on its own is no answer.
    while formulas.last().is_some_and(|span| {
        trimmed(span.inside).chars().count() == 1 && !span.inside.contains(|c: char| c.is_ascii_digit())
    }) {
        formulas.pop();
    }
    let number = sentence.rfind(|c: char| c.is_ascii_digit());
    if formulas.last().is_none_or(|span| number.is_some_and(|at| at >= span.end)) {
        return last_number(&sentence, budget);
    }
    // The formulas that are connected with the last one.
    let mut first = formulas.len() - 1;
    while first > 0 && is_connection(&sentence[formulas[first - 1].end..formulas[first].start]) {
        first -= 1;
    }
    if is_undecided(&sentence[..formulas[first].start]) {
        return Finding::Refused;
    }
    let gaps = formulas[first..].windows(2).any(|pair| sentence[pair[0].end..pair[1].start].contains("or"));
    let parts: Vec<&str> = formulas[first..].iter().map(|span| trimmed(span.inside)).collect();
    let text = parts.join(if gaps { " or " } else { " , " });
    Finding::Found(text)
}

/// Whether the last words in front of an expression say what the answer is not, or open a range or a choice.
fn is_undecided(text: &str) -> bool {
    let lower = text.to_ascii_lowercase().replace("n't", " not");
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let last = &words[words.len().saturating_sub(3)..];
    let pairs = ["at least", "at most", "less than", "more than", "greater than"];
    last.iter().any(|word| ["not", "between", "either", "or", "never"].contains(word))
        || pairs.iter().any(|pair| last.join(" ").ends_with(pair))
}

/// The last number of a sentence with what belongs to it on its left: `x = 3/4`, `3 or 4`, `(1, 2)`.
fn last_number(sentence: &str, budget: &mut Budget) -> Finding {
    let words: Vec<&str> = sentence.split_whitespace().collect();
    let Some(end) = words.iter().rposition(|word| word.contains(|c: char| c.is_ascii_digit())) else {
        return Finding::Absent;
    };
    let mathematical = |word: &str| {
        let plain = word.trim_end_matches([',', ';']);
        let signs = plain.chars().all(|c| c.is_ascii_digit() || "+-−*/=^().,%$€£<>≤≥≈×÷·[]{}|π√°:".contains(c));
        let variable =
            plain.len() == 1 && plain.chars().all(|c| c.is_ascii_alphabetic()) && plain != "a" && plain != "I";
        signs || variable || plain == "or" || plain == "and"
    };
    let mut start = end;
    while start > 0
        && end - start < MAX_RUN
        && mathematical(words[start - 1])
        && !words[start - 1].ends_with(['.', ':'])
    {
        start -= 1;
    }
    while start < end && matches!(words[start].trim_end_matches(','), "or" | "and" | "=" | "-" | "–" | ":" | "*" | "+")
    {
        if words[start].starts_with("or") {
            return Finding::Refused;
        }
        start += 1;
    }
    if is_undecided(&words[..start].join(" ")) {
        return Finding::Refused;
    }
    for first in start..=end {
        // With its unit, if the words behind it can be one.
        let longest = (end + MAX_UNIT).min(words.len() - 1);
        if let Some(found) = (end..=longest).rev().find_map(|last| computed(&words[first..=last].join(" "), budget)) {
            return found;
        }
    }
    // A number within letters, as in `x²` or `A2`, or one with signs that have no meaning here.
    Finding::Absent
}

/// A run of words as an expression, unless it is a sum that was not computed, as in `Compute 3+4.`
fn computed(run: &str, budget: &mut Budget) -> Option<Finding> {
    // An exclamation mark ends a sentence, it is no factorial.
    let run = trimmed(run.trim_end_matches(['!', '?', '"', '\'']));
    let (opened, closed) = (run.matches('(').count(), run.matches(')').count());
    let run = if opened < closed { run.trim_end_matches(')') } else { run };
    let run = if opened > closed { run.trim_start_matches('(') } else { run };
    let run = trimmed(run).trim_start_matches(['$', '€', '£']);
    let found = value(run, budget).filter(|_| run.contains(|c: char| c.is_ascii_digit()))?;
    let open = |expr: &Expr| matches!(expr, Expr::Sum(parts) if !parts.iter().any(Expr::has_symbols));
    let open = matches!(&found, Value::Scalar(expr) if open(expr));
    // What stands in front may have begun further left: `4 inches + 1 = 5`.
    if let (Value::Chain { .. }, Some((_, result))) = (&found, run.rsplit_once('='))
        && is_step(&found)
    {
        return Some(Finding::Found(trimmed(result).to_string()));
    }
    Some(if open { Finding::Absent } else { Finding::Found(run.to_string()) })
}
