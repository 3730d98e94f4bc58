//! LaTeX, plain text and Unicode to tokens.
//!
//! - `\dfrac`, `\tfrac`, `\left`, `\displaystyle`, `\boxed`, `$` and spaces of LaTeX change nothing.
//! - `1,000`, `1{,}000`, `1\,000` and `1 000` are one number where groups of three digits follow; inside brackets a plain
//!   comma separates. Only the digits 0 to 9 count.
//! - A run of letters is a function, a constant, a unit or a word; up to three other letters are a product of variables.
//! - What is not known is no token, and the text no mathematics.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Pow};

use super::budget::Budget;
use super::unit::is_unit;
use super::value::{Constant, Function, Number, Relation};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Number(Number),
    /// A variable.
    Name(String),
    /// A word of a language.
    Word(String),
    Constant(Constant),
    Function(Function),
    /// `\sqrt` of LaTeX, whose argument may be one digit; `√` and `sqrt` take a whole number.
    Root {
        latex: bool,
    },
    Frac,
    Binom,
    Plus,
    Minus,
    PlusMinus {
        flipped: bool,
    },
    Times,
    Divide,
    Caret,
    Underscore,
    Factorial,
    Percent,
    Degree,
    Prime,
    /// `(` or `[`
    Open(char),
    /// `)` or `]`
    Close(char),
    GroupOpen,
    GroupClose,
    SetOpen,
    SetClose,
    AngleOpen,
    AngleClose,
    FloorOpen,
    FloorClose,
    CeilOpen,
    CeilClose,
    Bar,
    Comma,
    And,
    Or,
    Colon,
    Relation(Relation),
    Cup,
    Cap,
    Without,
    Empty,
    Reals,
    Column,
    Row,
    Begin(String),
    End(String),
    /// A name with a line above, as `\overline{AB}`.
    Overline,
}

/// The tokens of a text, each with whether white space stood in front of it; nothing if it has anything else.
pub(super) fn tokens(text: &str, budget: &mut Budget) -> Option<Vec<(Token, bool)>> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let mut lexer =
        Lexer { rest: text, tokens: Vec::new(), spaced: false, brackets: 0, matrices: 0, latex: is_latex(text) };
    while !lexer.rest.is_empty() {
        budget.spend(1)?;
        lexer.next()?;
    }
    Some(lexer.tokens)
}

/// Bytes of the longest answer that is read.
pub(super) const MAX_BYTES: usize = 2048;
/// Digits of the longest number.
const MAX_DIGITS: usize = 1000;
/// The largest exponent behind an `e`.
const MAX_EXPONENT: u32 = 400;

struct Lexer<'a> {
    rest: &'a str,
    tokens: Vec<(Token, bool)>,
    spaced: bool,
    /// Open brackets, in which a comma separates even what looks like thousands.
    brackets: u32,
    /// Matrices that begin and have not ended.
    matrices: u32,
    /// Whether letters are more likely variables than words.
    latex: bool,
}

fn is_latex(text: &str) -> bool {
    let mut runs = text.split(|c: char| !c.is_ascii_alphabetic());
    let mut prose = || runs.any(|run| run.len() > 3 && !FUNCTIONS.iter().any(|(name, _)| *name == run));
    text.contains('\\') || text.contains(['^', '$', '=']) && !prose()
}

impl<'a> Lexer<'a> {
    fn push(&mut self, token: Token) -> Option<()> {
        match token {
            Token::Open(_) | Token::SetOpen => self.brackets += 1,
            Token::Close(_) | Token::SetClose => self.brackets = self.brackets.saturating_sub(1),
            _ => {}
        }
        self.tokens.push((token, std::mem::take(&mut self.spaced)));
        Some(())
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    fn take(&mut self, while_true: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !while_true(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn next(&mut self) -> Option<()> {
        let first = self.rest.chars().next()?;
        if first.is_ascii_digit() || first == '.' && self.rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
            return self.number();
        }
        if self.rest.starts_with(".\\overline{") || self.rest.starts_with(".\\bar{") {
            return self.number();
        }
        if first == '\\' {
            return self.command();
        }
        if first.is_ascii_alphabetic() {
            let run = self.take(|c| c.is_ascii_alphabetic());
            return self.letters(run, false);
        }
        if let Some((text, tokens)) = SYMBOLS.iter().find(|(text, _)| self.rest.starts_with(text)) {
            self.skip(text.len());
            return tokens.iter().try_for_each(|token| self.push(token()));
        }
        self.skip(first.len_utf8());
        match first {
            '$' | '€' | '£' | '¥' => Some(()),
            // The end of a sentence, or of a number that has no digits behind it.
            '.' if self.rest.is_empty() || self.rest.starts_with([' ', '$']) => Some(()),
            _ if first.is_whitespace() || first == '~' => {
                self.spaced = true;
                Some(())
            }
            '¼' => self.fraction(1, 4),
            '½' => self.fraction(1, 2),
            '¾' => self.fraction(3, 4),
            '⅓' => self.fraction(1, 3),
            '⅔' => self.fraction(2, 3),
            'π' => self.push(Token::Constant(Constant::Pi)),
            'α'..='ω' | 'ϵ' | 'ϕ' | 'Γ' | 'Δ' | 'Θ' | 'Λ' | 'Ξ' | 'Π' | 'Σ' | 'Φ' | 'Ψ' | 'Ω' => {
                let (_, name) = GREEK.iter().find(|(letter, _)| *letter == first)?;
                self.push(Token::Name((*name).to_string()))
            }
            _ if first.is_alphabetic() => {
                let rest = self.take(char::is_alphabetic);
                self.push(Token::Word(format!("{first}{rest}").to_lowercase()))
            }
            _ => None,
        }
    }

    /// A fraction in one character, with a whole number in front or without: `1½` is a mixed number.
    fn fraction(&mut self, numerator: i64, denominator: i64) -> Option<()> {
        let fraction = BigRational::new(BigInt::from(numerator), BigInt::from(denominator));
        if let Some((Token::Number(Number { value, digits: Some(_), .. }), _)) = self.tokens.last() {
            let value = value + fraction;
            self.tokens.pop();
            return self.push(Token::Number(Number { value, places: None, digits: None }));
        }
        self.push(Token::Number(Number { value: fraction, places: None, digits: None }))
    }

    fn number(&mut self) -> Option<()> {
        let mut digits = self.take(|c| c.is_ascii_digit()).to_string();
        let mut grouped = false;
        while let Some(separator) = self.thousands(&digits, grouped) {
            self.skip(separator);
            digits.push_str(self.take(|c| c.is_ascii_digit()));
            grouped = true;
        }
        if digits.len() > MAX_DIGITS {
            return None;
        }
        let whole = digits.clone();
        let (mut places, mut repeating) = (None, "");
        let decimals = self.rest.strip_prefix('.');
        let bar = |text: &'a str| text.strip_prefix("\\overline{").or(text.strip_prefix("\\bar{"));
        if let Some(behind) =
            decimals.filter(|text| text.starts_with(|c: char| c.is_ascii_digit()) || bar(text).is_some())
        {
            self.rest = behind;
            let fraction = self.take(|c| c.is_ascii_digit());
            digits.push_str(fraction);
            places = Some(u32::try_from(fraction.len()).ok()?);
            if let Some(text) = bar(self.rest) {
                self.rest = text;
                repeating = self.take(|c| c.is_ascii_digit());
                self.rest = self.rest.strip_prefix('}')?;
                if repeating.is_empty() {
                    return None;
                }
            }
        }
        if digits.len() + repeating.len() > MAX_DIGITS {
            return None;
        }
        let ten = |power: u32| BigInt::from(10).pow(power);
        let scale = ten(places.unwrap_or(0));
        let parse = |digits: &str| if digits.is_empty() { Some(BigInt::ZERO) } else { digits.parse::<BigInt>().ok() };
        let mut value = BigRational::new(parse(&digits)?, scale.clone());
        if !repeating.is_empty() {
            let nines = ten(u32::try_from(repeating.len()).ok()?) - BigInt::one();
            value += BigRational::new(parse(repeating)?, nines * scale);
            places = None;
        }
        let exponent = self.exponent();
        match exponent {
            Some(power) if power >= 0 => value *= BigRational::from_integer(ten(power.unsigned_abs())),
            Some(power) => value /= BigRational::from_integer(ten(power.unsigned_abs())),
            None => {}
        }
        let plain = exponent.is_none() && repeating.is_empty();
        let digits = (plain && places.is_none()).then_some(whole);
        self.push(Token::Number(Number { value, places: places.filter(|_| plain), digits }))
    }

    /// Bytes of a separator of thousands that stands here, with three digits and no more behind it.
    fn thousands(&self, digits: &str, grouped: bool) -> Option<usize> {
        let comma_counts = self.brackets == 0 && !digits.starts_with('0');
        let first = grouped || (1..=3).contains(&digits.len());
        let separator = SEPARATORS.iter().find(|text| self.rest.starts_with(**text))?;
        let mut behind = self.rest[separator.len()..].chars();
        let three = behind.by_ref().take(3).filter(char::is_ascii_digit).count() == 3;
        let ends = !behind.next().is_some_and(|c| c.is_ascii_digit());
        let plain = *separator == "," || *separator == " ";
        (first && three && ends && (comma_counts || !plain)).then_some(separator.len())
    }

    /// The power of ten behind an `e`.
    fn exponent(&mut self) -> Option<i32> {
        let text = self.rest.strip_prefix(['e', 'E'])?;
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let length = unsigned.find(|c: char| !c.is_ascii_digit()).unwrap_or(unsigned.len());
        let ends = !unsigned[length..].starts_with(|c: char| c.is_ascii_alphabetic());
        let signed = text.len() - unsigned.len() + length;
        let power: i32 = text[..signed].parse().ok().filter(|power: &i32| power.unsigned_abs() <= MAX_EXPONENT)?;
        ends.then(|| self.skip(1 + signed)).map(|()| power)
    }

    /// A run of letters, in `\text` or outside of it.
    fn letters(&mut self, run: &str, in_text: bool) -> Option<()> {
        let lower = run.to_ascii_lowercase();
        let token = match lower.as_str() {
            "or" => Token::Or,
            "and" => Token::And,
            "percent" | "pct" | "percentage" => Token::Percent,
            "degree" | "degrees" | "deg" => Token::Degree,
            "pi" => Token::Constant(Constant::Pi),
            "inf" | "infinity" | "infty" | "oo" => Token::Constant(Constant::Infinity),
            "sqrt" => Token::Root { latex: false },
            "nan" | "undefined" => return self.push(Token::Word(lower)),
            _ if run.len() == 1 && self.is_unit_letter(run, in_text) => Token::Word(lower),
            _ if run.len() == 1 => Token::Name(run.to_string()),
            // `min` and `sec` are functions too.
            _ if is_unit(&lower) && matches!(self.tokens.last(), Some((Token::Number(_), _))) => Token::Word(lower),
            _ => match FUNCTIONS.iter().find(|(name, _)| *name == lower) {
                Some((_, function)) => Token::Function(*function),
                None if !in_text
                    && self.latex
                    && run.len() <= 3
                    && !is_unit(&lower)
                    && (!WORDS.contains(&lower.as_str()) || run.bytes().all(|c| c.is_ascii_uppercase())) =>
                {
                    return run.chars().try_for_each(|letter| self.push(Token::Name(letter.to_string())));
                }
                None => Token::Word(lower),
            },
        };
        self.push(token)
    }

    /// Whether a letter behind a number is a unit: `5 m`, `5 m²`, `5\text{ m}`; in formulas it is a variable.
    fn is_unit_letter(&self, letter: &str, in_text: bool) -> bool {
        let behind = matches!(self.tokens.last(), Some((Token::Number(_) | Token::GroupClose, _)));
        let plain = !self.latex && (self.spaced || self.rest.starts_with(['²', '³']));
        behind && is_unit(letter) && (in_text || plain)
    }

    fn command(&mut self) -> Option<()> {
        let before = self.rest;
        self.skip(1);
        let first = self.rest.chars().next()?;
        if !first.is_ascii_alphabetic() {
            self.skip(first.len_utf8());
            return match first {
                // Outside of a matrix, a backslash that was escaped once too often.
                '\\' if self.matrices == 0
                    && self.rest.starts_with(|c: char| c.is_ascii_alphabetic() || "{}%".contains(c)) =>
                {
                    self.rest = &before[1..];
                    self.command()
                }
                '\\' => self.push(Token::Row),
                '{' => self.push(Token::SetOpen),
                '}' => self.push(Token::SetClose),
                '%' => self.push(Token::Percent),
                '|' => self.push(Token::Bar),
                '(' | ')' | '[' | ']' | '$' => Some(()),
                '!' | ',' | ';' | ':' | ' ' | '\n' => {
                    self.spaced = true;
                    Some(())
                }
                _ => None,
            };
        }
        let name = self.take(|c| c.is_ascii_alphabetic());
        if let Some(run) = name.strip_prefix("quad").filter(|run| !run.is_empty()) {
            // `\quadx`, where a space was lost.
            self.spaced = true;
            return self.letters(run, false);
        }
        if TEXT.contains(&name) {
            return self.text();
        }
        if SKIPPED.contains(&name) {
            // `\left.` closes nothing that can be seen.
            if matches!(name, "left" | "right") {
                self.rest = self.rest.strip_prefix('.').unwrap_or(self.rest);
            }
            self.spaced |= matches!(name, "quad" | "qquad");
            return Some(());
        }
        if let Some((_, function)) = FUNCTIONS.iter().find(|(function, _)| *function == name) {
            return self.push(Token::Function(*function));
        }
        if let Some((_, token)) = COMMANDS.iter().find(|(names, _)| names.contains(&name)) {
            return self.push(token());
        }
        if GREEK.iter().any(|(_, letter)| *letter == name) {
            return self.push(Token::Name(name.to_string()));
        }
        match name {
            "begin" | "end" => {
                let environment = self.braces()?;
                let environment = environment.trim_end_matches('*').to_string();
                if name == "begin" {
                    self.matrices += 1;
                    return self.push(Token::Begin(environment));
                }
                self.matrices = self.matrices.saturating_sub(1);
                self.push(Token::End(environment))
            }
            "mathbb" => {
                // `\mathbb R` and `\mathbb{R}`
                let letter = match self.rest.trim_start().strip_prefix(|c: char| c.is_ascii_uppercase()) {
                    Some(rest) => {
                        let letter = self.rest.trim_start().get(..1)?;
                        self.rest = rest;
                        letter
                    }
                    None => self.braces()?,
                };
                self.push(if letter == "R" { Token::Reals } else { Token::Name(format!("mathbb {letter}")) })
            }
            _ => None,
        }
    }

    /// What stands in the braces that begin here.
    fn braces(&mut self) -> Option<&'a str> {
        let text = self.rest.trim_start().strip_prefix('{')?;
        let (inside, rest) = text.split_once('}')?;
        self.rest = rest;
        Some(inside)
    }

    /// `\text{...}`: words, or a number in a text font.
    fn text(&mut self) -> Option<()> {
        let text = self.rest.trim_start();
        let Some(mut rest) = text.strip_prefix('{') else { return Some(()) };
        self.spaced = true;
        let mut depth = 1;
        while depth > 0 {
            let first = rest.chars().next()?;
            if first.is_ascii_alphabetic() {
                let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
                let (run, behind) = rest.split_at(end);
                self.letters(run, true)?;
                rest = behind;
                continue;
            }
            match first {
                '{' => depth += 1,
                '}' => depth -= 1,
                '\'' | '’' | '.' | '?' | ':' if !rest[first.len_utf8()..].starts_with(|c: char| c.is_ascii_digit()) =>
                    {}
                _ => {
                    self.rest = rest;
                    self.next()?;
                    rest = self.rest;
                    continue;
                }
            }
            rest = &rest[first.len_utf8()..];
        }
        self.rest = rest;
        self.spaced = true;
        Some(())
    }
}

/// What may stand between groups of three digits.
const SEPARATORS: [&str; 11] = [" {, }", ",\\! ", ",\\!", "\\!,\\!", "\\!,", "{,}", "{, }", "\\,", "\\ ", ",", " "];

/// Commands whose argument is set in another font.
const TEXT: [&str; 13] = [
    "text",
    "mbox",
    "textbf",
    "textit",
    "textrm",
    "textnormal",
    "textsf",
    "texttt",
    "mathrm",
    "mathbf",
    "mathit",
    "mathsf",
    "operatorname",
];

/// Commands that change nothing.
const SKIPPED: [&str; 25] = [
    "left",
    "right",
    "big",
    "Big",
    "bigg",
    "Bigg",
    "bigl",
    "bigr",
    "Bigl",
    "Bigr",
    "biggl",
    "biggr",
    "boxed",
    "fbox",
    "displaystyle",
    "textstyle",
    "boldsymbol",
    "bm",
    "quad",
    "qquad",
    "limits",
    "mathcal",
    "vec",
    "hat",
    "emph",
];

/// Short words that are no products of variables.
const WORDS: [&str; 48] = [
    "odd", "yes", "no", "not", "is", "the", "of", "in", "per", "but", "if", "so", "to", "a", "an", "day", "for", "it",
    "by", "am", "pm", "are", "all", "one", "on", "at", "as", "he", "she", "we", "his", "her", "old", "new", "now",
    "can", "has", "had", "was", "did", "may", "out", "off", "up", "do", "men", "red", "each",
];

const FUNCTIONS: [(&str, Function); 31] = [
    ("sin", Function::Sin),
    ("cos", Function::Cos),
    ("tan", Function::Tan),
    ("cot", Function::Cot),
    ("sec", Function::Sec),
    ("csc", Function::Csc),
    ("arcsin", Function::Arcsin),
    ("arccos", Function::Arccos),
    ("arctan", Function::Arctan),
    ("asin", Function::Arcsin),
    ("acos", Function::Arccos),
    ("atan", Function::Arctan),
    ("sinh", Function::Sinh),
    ("cosh", Function::Cosh),
    ("tanh", Function::Tanh),
    ("ln", Function::Ln),
    ("log", Function::Log),
    ("lg", Function::Log),
    ("exp", Function::Exp),
    ("abs", Function::Abs),
    ("floor", Function::Floor),
    ("ceil", Function::Ceil),
    ("factorial", Function::Factorial),
    ("binomial", Function::Binomial),
    ("gcd", Function::Gcd),
    ("lcm", Function::Lcm),
    ("min", Function::Min),
    ("max", Function::Max),
    ("arcctg", Function::Arccot),
    ("arccot", Function::Arccot),
    ("tg", Function::Tan),
];

type Make = fn() -> Token;

const COMMANDS: [(&[&str], Make); 41] = [
    (&["frac", "dfrac", "tfrac", "cfrac"], || Token::Frac),
    (&["binom", "dbinom", "tbinom"], || Token::Binom),
    (&["sqrt"], || Token::Root { latex: true }),
    (&["cdot", "times", "ast", "cdotp"], || Token::Times),
    (&["div"], || Token::Divide),
    (&["pm"], || Token::PlusMinus { flipped: false }),
    (&["mp"], || Token::PlusMinus { flipped: true }),
    (&["pi"], || Token::Constant(Constant::Pi)),
    (&["infty"], || Token::Constant(Constant::Infinity)),
    (&["imath"], || Token::Name("i".into())),
    (&["le", "leq", "leqslant"], || Token::Relation(Relation::LessEqual)),
    (&["ge", "geq", "geqslant"], || Token::Relation(Relation::GreaterEqual)),
    (&["lt"], || Token::Relation(Relation::Less)),
    (&["gt"], || Token::Relation(Relation::Greater)),
    (&["ne", "neq"], || Token::Relation(Relation::NotEqual)),
    (&["approx", "simeq", "thickapprox"], || Token::Relation(Relation::Approx)),
    (&["in"], || Token::Relation(Relation::In)),
    (&["cup"], || Token::Cup),
    (&["cap"], || Token::Cap),
    (&["setminus", "backslash"], || Token::Without),
    (&["emptyset", "varnothing"], || Token::Empty),
    (&["lbrace"], || Token::SetOpen),
    (&["rbrace"], || Token::SetClose),
    (&["langle"], || Token::AngleOpen),
    (&["rangle"], || Token::AngleClose),
    (&["lfloor"], || Token::FloorOpen),
    (&["rfloor"], || Token::FloorClose),
    (&["lceil"], || Token::CeilOpen),
    (&["rceil"], || Token::CeilClose),
    (&["vert", "lvert", "rvert", "mid"], || Token::Bar),
    (&["colon"], || Token::Colon),
    (&["circ", "degree"], || Token::Degree),
    (&["prime"], || Token::Prime),
    (&["land", "wedge"], || Token::And),
    (&["lor", "vee"], || Token::Or),
    (&["overline", "bar", "overrightarrow"], || Token::Overline),
    (&["ell"], || Token::Name("l".into())),
    (&["lbrack"], || Token::Open('[')),
    (&["rbrack"], || Token::Close(']')),
    (&["lparen"], || Token::Open('(')),
    (&["rparen"], || Token::Close(')')),
];

/// The longest that fits stands first.
const SYMBOLS: [(&str, &[Make]); 61] = [
    ("**", &[|| Token::Caret]),
    ("<=", &[|| Token::Relation(Relation::LessEqual)]),
    (">=", &[|| Token::Relation(Relation::GreaterEqual)]),
    ("!=", &[|| Token::Relation(Relation::NotEqual)]),
    ("==", &[|| Token::Relation(Relation::Equal)]),
    ("+/-", &[|| Token::PlusMinus { flipped: false }]),
    ("+", &[|| Token::Plus]),
    ("-", &[|| Token::Minus]),
    ("−", &[|| Token::Minus]),
    ("–", &[|| Token::Minus]),
    ("±", &[|| Token::PlusMinus { flipped: false }]),
    ("∓", &[|| Token::PlusMinus { flipped: true }]),
    ("*", &[|| Token::Times]),
    ("×", &[|| Token::Times]),
    ("·", &[|| Token::Times]),
    ("⋅", &[|| Token::Times]),
    ("∗", &[|| Token::Times]),
    ("/", &[|| Token::Divide]),
    ("÷", &[|| Token::Divide]),
    ("⁄", &[|| Token::Divide]),
    ("^", &[|| Token::Caret]),
    ("²", &[|| Token::Caret, || Token::Number(small(2))]),
    ("³", &[|| Token::Caret, || Token::Number(small(3))]),
    ("⁴", &[|| Token::Caret, || Token::Number(small(4))]),
    ("_", &[|| Token::Underscore]),
    ("!", &[|| Token::Factorial]),
    ("%", &[|| Token::Percent]),
    ("°", &[|| Token::Degree]),
    ("'", &[|| Token::Prime]),
    ("(", &[|| Token::Open('(')]),
    ("[", &[|| Token::Open('[')]),
    (")", &[|| Token::Close(')')]),
    ("]", &[|| Token::Close(']')]),
    ("{", &[|| Token::GroupOpen]),
    ("}", &[|| Token::GroupClose]),
    ("⟨", &[|| Token::AngleOpen]),
    ("⟩", &[|| Token::AngleClose]),
    ("⌊", &[|| Token::FloorOpen]),
    ("⌋", &[|| Token::FloorClose]),
    ("⌈", &[|| Token::CeilOpen]),
    ("⌉", &[|| Token::CeilClose]),
    ("|", &[|| Token::Bar]),
    (",", &[|| Token::Comma]),
    (";", &[|| Token::Comma]),
    (":", &[|| Token::Colon]),
    ("=", &[|| Token::Relation(Relation::Equal)]),
    ("<", &[|| Token::Relation(Relation::Less)]),
    (">", &[|| Token::Relation(Relation::Greater)]),
    ("≤", &[|| Token::Relation(Relation::LessEqual)]),
    ("≥", &[|| Token::Relation(Relation::GreaterEqual)]),
    ("≠", &[|| Token::Relation(Relation::NotEqual)]),
    ("≈", &[|| Token::Relation(Relation::Approx)]),
    ("∈", &[|| Token::Relation(Relation::In)]),
    ("∪", &[|| Token::Cup]),
    ("∩", &[|| Token::Cap]),
    ("∖", &[|| Token::Without]),
    ("∅", &[|| Token::Empty]),
    ("∞", &[|| Token::Constant(Constant::Infinity)]),
    ("√", &[|| Token::Root { latex: false }]),
    ("ℝ", &[|| Token::Reals]),
    ("&", &[|| Token::Column]),
];

fn small(value: i64) -> Number {
    Number { value: BigRational::from_integer(BigInt::from(value)), places: None, digits: Some(value.to_string()) }
}

const GREEK: [(char, &str); 34] = [
    ('α', "alpha"),
    ('β', "beta"),
    ('γ', "gamma"),
    ('δ', "delta"),
    ('ε', "epsilon"),
    ('ϵ', "varepsilon"),
    ('ζ', "zeta"),
    ('η', "eta"),
    ('θ', "theta"),
    ('ι', "iota"),
    ('κ', "kappa"),
    ('λ', "lambda"),
    ('μ', "mu"),
    ('ν', "nu"),
    ('ξ', "xi"),
    ('ρ', "rho"),
    ('σ', "sigma"),
    ('τ', "tau"),
    ('υ', "upsilon"),
    ('φ', "phi"),
    ('ϕ', "varphi"),
    ('χ', "chi"),
    ('ψ', "psi"),
    ('ω', "omega"),
    ('Γ', "Gamma"),
    ('Δ', "Delta"),
    ('Θ', "Theta"),
    ('Λ', "Lambda"),
    ('Ξ', "Xi"),
    ('Π', "Pi"),
    ('Σ', "Sigma"),
    ('Φ', "Phi"),
    ('Ψ', "Psi"),
    ('Ω', "Omega"),
];
