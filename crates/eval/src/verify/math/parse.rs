//! Tokens to a [`Value`], by recursive descent of bounded depth.
//!
//! - Sides of a relation, parts of a list and of brackets are parsed by the same rules; what is left over at the end makes
//!   the whole text unreadable.
//! - Factors side by side are multiplied, from left to right with `/` and `*`: `1/2x` is half of `x`.
//! - `3\frac12` and `3 1/2` are mixed numbers.
//! - `(a, b)` is a pair or an open interval, whichever the other side is; a square bracket makes it an interval.
//! - Words behind a number are its unit; words alone stand for themselves.

use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive};

use super::budget::Budget;
use super::lex::{Token, tokens};
use super::unit::unit;
use super::value::{Constant, Expr, Function, Joiner, Number, Relation, Value, plain_words};

/// What a text says; nothing if it is no mathematics and no words.
pub(super) fn value(text: &str, budget: &mut Budget) -> Option<Value> {
    let text = text.trim();
    let parsed = tokens(text, budget).and_then(|tokens| {
        let mut parser = Parser { tokens, at: 0, depth: 0, bars: 0, budget };
        let value = signed(parser.list()?);
        (parser.at == parser.tokens.len()).then_some(value)
    });
    parsed.or_else(|| words(text))
}

/// A text without digits and signs of mathematics.
fn words(text: &str) -> Option<Value> {
    let stripped = ["\\text", "\\textbf", "\\mathrm", "\\mbox"]
        .iter()
        .fold(text.to_string(), |text, command| text.replace(&format!("{command}{{"), "{"));
    let fine = |c: char| c.is_alphabetic() || c.is_whitespace() || "{}'’-.,!()\"".contains(c);
    let words = plain_words(&stripped);
    let some = !words.is_empty() && words.split(' ').any(|word| word.chars().count() > 1);
    (text.len() <= MAX_WORDS && some && stripped.chars().all(fine)).then_some(Value::Text(words))
}

/// Bytes of the longest answer in words.
const MAX_WORDS: usize = 200;
/// How deep brackets and arguments may be nested.
const MAX_DEPTH: u32 = 40;
/// Most exponents and signs behind one factor.
const MAX_MARKS: usize = 8;
/// Most parts of a list.
const MAX_PARTS: usize = 64;

struct Parser<'a> {
    tokens: Vec<(Token, bool)>,
    at: usize,
    depth: u32,
    /// Open `|`: the next one closes.
    bars: u32,
    budget: &'a mut Budget,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn behind(&self, offset: usize) -> Option<&Token> {
        self.tokens.get(self.at + offset).map(|(token, _)| token)
    }

    fn eat(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, token: &Token) -> Option<()> {
        self.eat(token).then_some(())
    }

    /// One level deeper.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.budget.spend(4)?;
        if self.depth >= MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// One part, or several with what joins them.
    fn list(&mut self) -> Option<Value> {
        let mut parts = vec![self.part()?];
        let mut joiner = Joiner::Comma;
        while let Some(found) = self.joiner() {
            if found != Joiner::Comma {
                joiner = found;
            }
            parts.push(self.part()?);
            if parts.len() > MAX_PARTS {
                return None;
            }
        }
        match <[Value; 1]>::try_from(parts) {
            Ok([part]) => Some(part),
            Err(parts) => Some(Value::List(parts, joiner)),
        }
    }

    /// A comma, a word or both.
    fn joiner(&mut self) -> Option<Joiner> {
        let comma = self.eat(&Token::Comma);
        if self.eat(&Token::And) {
            return Some(Joiner::And);
        }
        if self.eat(&Token::Or) {
            return Some(Joiner::Or);
        }
        comma.then_some(Joiner::Comma)
    }

    /// A relation or what stands on one side of it.
    fn part(&mut self) -> Option<Value> {
        // `= 5` and `≈ 5`, where the other side was left out.
        if let Some(Token::Relation(Relation::Equal | Relation::Approx)) = self.peek() {
            self.at += 1;
        }
        let mut sides = vec![self.side()?];
        let mut links = Vec::new();
        while let Some(Token::Relation(link)) = self.peek() {
            links.push(*link);
            self.at += 1;
            sides.push(self.side()?);
        }
        if links.is_empty() { sides.pop() } else { Some(Value::Chain { sides, links }) }
    }

    /// Operations on sets of what has no such operation inside.
    fn side(&mut self) -> Option<Value> {
        let mut left = self.ratio()?;
        loop {
            let operation = match self.peek() {
                Some(operation @ (Token::Cup | Token::Cap | Token::Without)) => operation.clone(),
                _ => return Some(left),
            };
            self.at += 1;
            let right = self.ratio()?;
            left = match operation {
                Token::Cup => Value::Union(vec![left, right]),
                Token::Cap => Value::Intersection(vec![left, right]),
                _ => Value::Difference(Box::new(left), Box::new(right)),
            };
        }
    }

    fn ratio(&mut self) -> Option<Value> {
        let first = self.quantity()?;
        if self.peek() != Some(&Token::Colon) {
            return Some(first);
        }
        let mut parts = vec![first.scalar()?.clone()];
        while self.eat(&Token::Colon) {
            parts.push(self.sum()?.scalar()?.clone());
        }
        // `Answer: 5` is no ratio.
        if parts.iter().any(Expr::has_symbols) && !parts.iter().all(is_named) {
            return None;
        }
        // `3:30 pm`
        let words = self.words();
        (words.is_empty() || unit(&words, None).is_some() || is_noun(&words)).then_some(Value::Ratio(parts))
    }

    /// A sum with the words behind it.
    fn quantity(&mut self) -> Option<Value> {
        let start = self.at;
        let value = self.sum()?;
        let article = matches!(self.peek(), Some(Token::Name(_))) && matches!(self.behind(1), Some(Token::Word(_)));
        let worded = article || matches!(self.peek(), Some(Token::Word(_)));
        self.at += usize::from(article);
        if !worded || matches!(self.tokens.get(start), Some((Token::Word(_), _))) {
            return Some(value);
        }
        let expr = value.scalar()?.clone();
        if matches!(expr, Expr::Symbol(_)) {
            return None;
        }
        let mut words = self.words();
        let multiple =
            MULTIPLES.iter().find_map(|(name, power)| Some((words.strip_prefix(name)?.trim().to_string(), power)));
        let expr = match multiple {
            Some((rest, power)) if rest.is_empty() || words.as_bytes().contains(&b' ') => {
                words = rest;
                let ten = Expr::Power(Box::new(Expr::integer(10)), Box::new(Expr::integer(*power)));
                Expr::Product(vec![expr, ten])
            }
            _ => expr,
        };
        let mut exponent = None;
        if self.eat(&Token::Caret) {
            let group = self.eat(&Token::GroupOpen);
            let Some((Token::Number(number), _)) = self.tokens.get(self.at) else { return None };
            exponent = number.value.to_integer().to_u32();
            self.at += 1;
            if group {
                self.expect(&Token::GroupClose)?;
            }
        } else if self.peek() == Some(&Token::Divide) && matches!(self.behind(1), Some(Token::Word(_) | Token::Name(_)))
        {
            self.at += 1;
            words.push_str(" / ");
            if let Some(Token::Name(name)) = self.peek() {
                words.push_str(name);
                self.at += 1;
            }
            words.push_str(&self.words());
        }
        match unit(&words, exponent) {
            Some(unit) => Some(Value::Quantity(expr, unit)),
            None if words.is_empty() || is_noun(&words) => Some(Value::Scalar(expr)),
            None => None,
        }
    }

    /// The words that stand here.
    fn words(&mut self) -> String {
        let mut words: Vec<String> = Vec::new();
        loop {
            match self.peek() {
                Some(Token::Word(word)) => words.push(word.clone()),
                Some(Token::Name(name)) if !words.is_empty() && name == "a" => words.push(name.clone()),
                _ => return words.join(" "),
            }
            self.at += 1;
        }
    }

    fn sum(&mut self) -> Option<Value> {
        self.nested(|parser| {
            let mut terms = Vec::new();
            let mut sign = parser.sign();
            loop {
                let term = parser.product()?;
                let term = match sign {
                    None => term,
                    Some(Token::Minus) => minus(term)?,
                    Some(Token::PlusMinus { flipped }) => {
                        Value::Scalar(Expr::PlusMinus { flipped, of: Box::new(term.scalar()?.clone()) })
                    }
                    Some(_) => term,
                };
                terms.push(term);
                sign = parser.sign();
                if sign.is_none() {
                    break;
                }
            }
            if terms.len() == 1 {
                return terms.pop();
            }
            add(&terms)
        })
    }

    fn sign(&mut self) -> Option<Token> {
        let sign = match self.peek() {
            Some(sign @ (Token::Plus | Token::Minus | Token::PlusMinus { .. })) => sign.clone(),
            _ => return None,
        };
        self.at += 1;
        Some(sign)
    }

    fn product(&mut self) -> Option<Value> {
        let first = self.factor()?;
        let mut factors = vec![first];
        loop {
            self.budget.spend(1)?;
            let divided = match self.peek() {
                Some(Token::Times) => {
                    self.at += 1;
                    false
                }
                Some(Token::Divide) if !matches!(self.behind(1), Some(Token::Word(_))) => {
                    self.at += 1;
                    true
                }
                Some(token) if self.starts_factor(token) => false,
                _ => break,
            };
            let factor = match self.peek() {
                // `2 * -3`
                Some(Token::Minus) => {
                    self.at += 1;
                    minus(self.factor()?)?
                }
                _ => self.factor()?,
            };
            factors.push(if divided { Value::Scalar(factor.scalar()?.clone().inverse()) } else { factor });
        }
        if factors.len() == 1 {
            return factors.pop();
        }
        multiply(factors)
    }

    /// Whether a token may follow a factor directly.
    fn starts_factor(&self, token: &Token) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map(|(token, _)| token);
        match (before, token) {
            // Two numbers side by side are no product, a mixed number was read already, and words are no factors.
            (Some(Token::Number(_)), Token::Number(_)) | (Some(Token::Word(_)), _) => return false,
            _ => {}
        }
        match token {
            Token::Number(_) => true,
            Token::Bar => self.bars == 0,
            // `180 a week`
            Token::Name(name) if name == "a" => !matches!(self.behind(1), Some(Token::Word(_))),
            Token::Name(_) | Token::Function(_) | Token::Root { .. } | Token::Frac | Token::Binom | Token::Overline => {
                true
            }
            Token::Constant(constant) => *constant != Constant::Infinity,
            Token::Open(bracket) => *bracket == '(',
            Token::GroupOpen | Token::FloorOpen | Token::CeilOpen => true,
            Token::Begin(name) => name.ends_with("matrix") || name == "array",
            _ => false,
        }
    }

    /// A primary with exponents and signs behind it.
    fn factor(&mut self) -> Option<Value> {
        let mut base = self.primary()?;
        for _ in 0..MAX_MARKS {
            match self.peek() {
                // Words have no powers: `a total of **540**`.
                _ if self.at > 0 && matches!(self.tokens[self.at - 1], (Token::Word(_), _)) => return Some(base),
                Some(Token::Caret) => {
                    self.at += 1;
                    if self.eat(&Token::Degree) || self.degree_in_braces() {
                        base = call(Function::Degree, base)?;
                        // Degrees of which scale says nothing about the number.
                        if matches!(self.peek(), Some(Token::Name(name)) if name == "C" || name == "F") {
                            self.at += 1;
                        }
                        continue;
                    }
                    if self.eat(&Token::Prime) {
                        base = primed(&base)?;
                        continue;
                    }
                    let exponent = self.exponent()?;
                    base = Value::Scalar(Expr::Power(Box::new(base.scalar()?.clone()), Box::new(exponent)));
                }
                Some(Token::Factorial) => {
                    self.at += 1;
                    base = call(Function::Factorial, base)?;
                }
                Some(Token::Percent) => {
                    self.at += 1;
                    base = call(Function::Percent, base)?;
                }
                Some(Token::Degree) => {
                    self.at += 1;
                    base = call(Function::Degree, base)?;
                    if matches!(self.peek(), Some(Token::Name(name)) if name == "C" || name == "F") {
                        self.at += 1;
                    }
                }
                Some(Token::Prime) => {
                    self.at += 1;
                    base = primed(&base)?;
                }
                _ => return Some(base),
            }
        }
        None
    }

    /// `{\circ}`
    fn degree_in_braces(&mut self) -> bool {
        let is = self.peek() == Some(&Token::GroupOpen)
            && self.behind(1) == Some(&Token::Degree)
            && self.behind(2) == Some(&Token::GroupClose);
        self.at += 3 * usize::from(is);
        is
    }

    /// What stands behind `^`: a group, or a signed primary with an exponent of its own.
    fn exponent(&mut self) -> Option<Expr> {
        self.nested(|parser| {
            if parser.eat(&Token::Minus) {
                return Some(parser.exponent()?.negative());
            }
            let base = parser.primary()?.scalar()?.clone();
            if parser.eat(&Token::Caret) {
                return Some(Expr::Power(Box::new(base), Box::new(parser.exponent()?)));
            }
            Some(base)
        })
    }

    /// An argument of `\frac` or `\sqrt`: a group, one digit or one other primary.
    fn argument(&mut self) -> Option<Expr> {
        let Some((Token::Number(number), spaced)) = self.tokens.get(self.at).cloned() else {
            return self.nested(Self::primary)?.scalar().cloned();
        };
        let digits = number.digits?;
        let digit = Expr::integer(i64::from(digits.chars().next()?.to_digit(10)?));
        if digits.len() == 1 {
            self.at += 1;
        } else {
            let rest = digits.get(1..)?.to_string();
            let value = BigRational::from_integer(rest.parse().ok()?);
            self.tokens[self.at] = (Token::Number(Number { value, places: None, digits: Some(rest) }), spaced);
        }
        Some(digit)
    }

    fn primary(&mut self) -> Option<Value> {
        self.nested(Self::primary_inside)
    }

    fn primary_inside(&mut self) -> Option<Value> {
        let token = self.peek()?.clone();
        self.at += 1;
        let scalar = |expr| Some(Value::Scalar(expr));
        match token {
            Token::Number(number) => self.number(number),
            Token::Constant(constant) => scalar(Expr::Constant(constant)),
            Token::Name(name) => self.name(name),
            Token::Word(_) => {
                self.at -= 1;
                let words = self.words();
                is_noun(&words).then_some(Value::Scalar(Expr::Symbol(words)))
            }
            Token::Function(function) => scalar(self.function(function)?),
            Token::Root { latex } => {
                let mut degree = Expr::integer(2);
                if latex && self.eat(&Token::Open('[')) {
                    degree = self.sum()?.scalar()?.clone();
                    self.expect(&Token::Close(']'))?;
                }
                let of = if latex { self.argument()? } else { self.primary()?.scalar()?.clone() };
                scalar(Expr::Power(Box::new(of), Box::new(degree.inverse())))
            }
            Token::Frac => {
                let numerator = self.argument()?;
                scalar(Expr::Product(vec![numerator, self.argument()?.inverse()]))
            }
            Token::Binom => {
                let of = self.argument()?;
                scalar(Expr::Call(Function::Binomial, vec![of, self.argument()?]))
            }
            Token::Open(bracket) => self.brackets(bracket),
            Token::GroupOpen => {
                let inside = self.list()?;
                self.expect(&Token::GroupClose)?;
                Some(inside)
            }
            Token::SetOpen => self.set(),
            Token::Empty => Some(Value::Set(Vec::new())),
            Token::Reals => Some(Value::Reals),
            Token::AngleOpen => {
                let parts = self.parts()?;
                self.expect(&Token::AngleClose)?;
                Some(Value::Tuple(parts))
            }
            Token::FloorOpen => scalar(self.enclosed(Function::Floor, &Token::FloorClose)?),
            Token::CeilOpen => scalar(self.enclosed(Function::Ceil, &Token::CeilClose)?),
            Token::Bar => {
                self.bars += 1;
                let inside = self.sum();
                self.bars -= 1;
                let inside = inside?.scalar()?.clone();
                self.expect(&Token::Bar)?;
                scalar(Expr::Call(Function::Abs, vec![inside]))
            }
            Token::Begin(environment) => self.matrix(&environment),
            Token::Overline => {
                self.expect(&Token::GroupOpen)?;
                let mut name = String::from("line ");
                while let Some(Token::Name(letter)) = self.peek() {
                    name.push_str(letter);
                    self.at += 1;
                }
                self.expect(&Token::GroupClose)?;
                (name.len() > 5).then_some(Value::Scalar(Expr::Symbol(name)))
            }
            _ => None,
        }
    }

    /// A number, with the fraction behind it if it is a mixed one, or with its base.
    fn number(&mut self, number: Number) -> Option<Value> {
        if let Some(digits) = &number.digits
            && self.peek() == Some(&Token::Underscore)
        {
            self.at += 1;
            let group = self.eat(&Token::GroupOpen);
            let Some((Token::Number(base), _)) = self.tokens.get(self.at) else { return None };
            let base = base.value.to_integer().to_u32().filter(|base| (2..=36).contains(base))?;
            self.at += 1;
            if group {
                self.expect(&Token::GroupClose)?;
            }
            return Some(Value::Based { digits: digits.trim_start_matches('0').to_string(), base });
        }
        if number.digits.is_some()
            && let Some(fraction) = self.mixed()
        {
            let value = number.value + fraction;
            return Some(Value::Scalar(Expr::Number(Number { value, places: None, digits: None })));
        }
        Some(Value::Scalar(Expr::Number(number)))
    }

    /// A proper fraction of two whole numbers that follows a whole number.
    fn mixed(&mut self) -> Option<BigRational> {
        let start = self.at;
        let fraction = self.proper_fraction();
        if fraction.is_none() {
            self.at = start;
        }
        fraction
    }

    fn proper_fraction(&mut self) -> Option<BigRational> {
        let whole = |expr: &Expr| match expr {
            Expr::Number(Number { value, places: None, .. }) if value.is_integer() && value.is_positive() => {
                Some(value.clone())
            }
            _ => None,
        };
        let (numerator, denominator) = if self.peek() == Some(&Token::Frac) {
            let plain = |parser: &Self, at: usize| {
                matches!(parser.behind(at), Some(Token::GroupOpen))
                    && matches!(parser.behind(at + 1), Some(Token::Number(_)))
                    || matches!(parser.behind(at), Some(Token::Number(_)))
            };
            if !plain(self, 1) {
                return None;
            }
            self.budget.spend(self.tokens.len() as u64)?;
            let saved = self.tokens.clone();
            self.at += 1;
            let parts = self.argument().and_then(|numerator| Some((numerator, self.argument()?)));
            let proper = parts.and_then(|(numerator, denominator)| Some((whole(&numerator)?, whole(&denominator)?)));
            match proper.filter(|(numerator, denominator)| numerator < denominator) {
                Some(parts) => parts,
                None => {
                    self.tokens = saved;
                    return None;
                }
            }
        } else {
            let (Some((Token::Number(numerator), true)), Some(Token::Divide), Some(Token::Number(denominator))) =
                (self.tokens.get(self.at), self.behind(1), self.behind(2))
            else {
                return None;
            };
            let parts = (whole(&Expr::Number(numerator.clone()))?, whole(&Expr::Number(denominator.clone()))?);
            self.at += 3;
            parts
        };
        (numerator < denominator).then(|| numerator / denominator)
    }

    /// A variable with its index, a constant, or a function that has no meaning here with its argument.
    fn name(&mut self, mut name: String) -> Option<Value> {
        if self.eat(&Token::Underscore) {
            let start = self.at;
            self.primary()?;
            let index: Vec<String> =
                self.tokens[start..self.at].iter().filter_map(|(token, _)| index_text(token)).collect();
            name = format!("{name}_{}", index.concat());
        } else if name == "i" {
            return Some(Value::Scalar(Expr::Constant(Constant::I)));
        } else if name == "e" {
            return Some(Value::Scalar(Expr::Constant(Constant::E)));
        }
        let mut primes = 0;
        while ["f", "g", "h"].contains(&name.as_str()) && self.eat(&Token::Prime) {
            primes += 1;
        }
        name.extend(std::iter::repeat_n('\'', primes));
        let function = name.trim_end_matches('\'');
        if UNKNOWN_FUNCTIONS.contains(&function) && self.peek() == Some(&Token::Open('(')) {
            let start = self.at;
            self.primary()?;
            let argument: Vec<String> =
                self.tokens[start..self.at].iter().filter_map(|(token, _)| index_text(token)).collect();
            name.push_str(&argument.concat());
        }
        Some(Value::Scalar(Expr::Symbol(name)))
    }

    /// A function with exponent, base and argument.
    fn function(&mut self, function: Function) -> Option<Expr> {
        let mut base = None;
        let mut power = None;
        for _ in 0..2 {
            if power.is_none() && self.eat(&Token::Caret) {
                power = Some(self.exponent()?);
            } else if function == Function::Log && base.is_none() && self.eat(&Token::Underscore) {
                base = Some(self.argument_of_log()?);
            }
        }
        let mut arguments = self.arguments()?;
        if function == Function::Log && arguments.len() == 1 {
            arguments.insert(0, base.unwrap_or_else(|| Expr::integer(10)));
        } else if base.is_some() {
            return None;
        }
        let fitting = match function {
            Function::Log | Function::Binomial => arguments.len() == 2,
            Function::Gcd | Function::Lcm | Function::Min | Function::Max => !arguments.is_empty(),
            _ => arguments.len() == 1,
        };
        if !fitting {
            return None;
        }
        // `sin^{-1}` is the inverse function.
        let inverse = |power: &Expr| power.literal().is_some_and(|number| number.value == -BigRational::one());
        if power.as_ref().is_some_and(inverse) {
            let inverse = match function {
                Function::Sin => Function::Arcsin,
                Function::Cos => Function::Arccos,
                Function::Tan => Function::Arctan,
                Function::Cot => Function::Arccot,
                _ => return None,
            };
            return Some(Expr::Call(inverse, arguments));
        }
        let call = Expr::Call(function, arguments);
        Some(match power {
            Some(power) => Expr::Power(Box::new(call), Box::new(power)),
            None => call,
        })
    }

    /// The base of a logarithm: a group, a name or a whole number.
    fn argument_of_log(&mut self) -> Option<Expr> {
        match self.tokens.get(self.at).cloned() {
            // `\log_28` has the base 2.
            Some((Token::Number(number), _)) if number.digits.as_ref().is_some_and(|digits| digits.len() > 1) => {
                match self.behind(1) {
                    Some(Token::Open(_) | Token::GroupOpen | Token::Name(_) | Token::Number(_) | Token::Frac) => {
                        self.at += 1;
                        Some(Expr::Number(number))
                    }
                    _ => self.argument(),
                }
            }
            _ => self.primary()?.scalar().cloned(),
        }
    }

    /// In brackets, or all factors up to the next sign, function or bracket.
    fn arguments(&mut self) -> Option<Vec<Expr>> {
        self.nested(|parser| {
            let bracketed = matches!(parser.peek(), Some(Token::Open('(' | '[')));
            if bracketed {
                parser.at += 1;
                let parts = parser.parts()?;
                if !matches!(parser.peek(), Some(Token::Close(_))) {
                    return None;
                }
                parser.at += 1;
                return parts.iter().map(|part| part.scalar().cloned()).collect();
            }
            if parser.eat(&Token::Minus) {
                return Some(vec![parser.factor()?.scalar()?.clone().negative()]);
            }
            let mut factors = vec![parser.factor()?.scalar()?.clone()];
            while let Some(Token::Number(_) | Token::Name(_) | Token::Constant(_) | Token::Frac | Token::Root { .. }) =
                parser.peek()
            {
                factors.push(parser.factor()?.scalar()?.clone());
            }
            // `\sin \pi/6`
            if parser.peek() == Some(&Token::Divide) && matches!(parser.behind(1), Some(Token::Number(_))) {
                parser.at += 1;
                factors.push(parser.factor()?.scalar()?.clone().inverse());
            }
            Some(vec![if factors.len() == 1 { factors.pop()? } else { Expr::Product(factors) }])
        })
    }

    /// Parts between commas, none of them left out.
    fn parts(&mut self) -> Option<Vec<Value>> {
        let bars = std::mem::take(&mut self.bars);
        let parts = self.separated();
        self.bars = bars;
        parts
    }

    fn separated(&mut self) -> Option<Vec<Value>> {
        let mut parts = vec![self.part()?];
        while self.eat(&Token::Comma) {
            parts.push(self.part()?);
            if parts.len() > MAX_PARTS {
                return None;
            }
        }
        Some(parts)
    }

    /// Behind an opening bracket: one part in brackets, an interval or a tuple.
    fn brackets(&mut self, open: char) -> Option<Value> {
        let parts = self.parts()?;
        let Some(Token::Close(close)) = self.peek().cloned() else { return None };
        self.at += 1;
        let square = open == '[' || close == ']';
        let matching = (open == '(') == (close == ')');
        match &parts[..] {
            [part] => match part {
                Value::Scalar(_) if matching => Some(part.clone()),
                Value::Matrix(_) | Value::Quantity(..) | Value::Tuple(_) if matching => Some(part.clone()),
                Value::Chain { .. } | Value::Interval { .. } | Value::Union(_) if matching => Some(part.clone()),
                _ => None,
            },
            [Value::Scalar(low), Value::Scalar(high)] if square => Some(Value::Interval {
                low: low.clone(),
                high: high.clone(),
                low_closed: open == '[',
                high_closed: close == ']',
            }),
            _ if matching => Some(Value::Tuple(parts)),
            _ => None,
        }
    }

    /// Behind `\{`: parts, none, or a variable and what holds of it.
    fn set(&mut self) -> Option<Value> {
        if self.eat(&Token::SetClose) {
            return Some(Value::Set(Vec::new()));
        }
        if let (Some(Token::Name(_)), Some(Token::Bar | Token::Colon)) = (self.peek(), self.behind(1)) {
            self.at += 2;
            let condition = self.list()?;
            self.expect(&Token::SetClose)?;
            return Some(condition);
        }
        let parts = self.parts()?.into_iter().flat_map(both_signs).collect();
        self.expect(&Token::SetClose)?;
        Some(Value::Set(parts))
    }

    fn enclosed(&mut self, function: Function, close: &Token) -> Option<Expr> {
        let inside = self.sum()?.scalar()?.clone();
        self.expect(close)?;
        Some(Expr::Call(function, vec![inside]))
    }

    /// Behind `\begin{...}` of a matrix; a determinant is its value.
    fn matrix(&mut self, environment: &str) -> Option<Value> {
        if !matches!(environment, "matrix" | "pmatrix" | "bmatrix" | "vmatrix" | "Bmatrix" | "smallmatrix" | "array") {
            return None;
        }
        if environment == "array" && self.eat(&Token::GroupOpen) {
            while !self.eat(&Token::GroupClose) {
                self.at += 1;
                self.peek()?;
            }
        }
        let mut rows: Vec<Vec<Expr>> = vec![Vec::new()];
        let end = Token::End(environment.to_string());
        loop {
            if self.eat(&end) {
                break;
            }
            let entry = self.sum()?.scalar()?.clone();
            rows.last_mut()?.push(entry);
            match self.peek()? {
                Token::Column => self.at += 1,
                Token::Row => {
                    self.at += 1;
                    rows.push(Vec::new());
                }
                token if *token == end => {}
                _ => return None,
            }
            if rows.len() * rows[0].len() > MAX_PARTS {
                return None;
            }
        }
        if rows.last()?.is_empty() {
            rows.pop();
        }
        let columns = rows.first()?.len();
        if columns == 0 || rows.iter().any(|row| row.len() != columns) {
            return None;
        }
        if environment == "vmatrix" {
            return determinant(&rows).map(Value::Scalar);
        }
        Some(Value::Matrix(rows))
    }
}

/// Words for powers of ten.
const MULTIPLES: [(&str, i64); 5] = [("hundred", 2), ("thousand", 3), ("million", 6), ("billion", 9), ("trillion", 12)];

/// Letters that are functions in front of a bracket.
const UNKNOWN_FUNCTIONS: [&str; 6] = ["f", "g", "h", "F", "G", "H"];

/// Whether words behind a number can be what is counted: a sentence that goes on is none.
fn is_noun(words: &str) -> bool {
    const GOING_ON: [&str; 26] = [
        "is",
        "are",
        "was",
        "were",
        "not",
        "but",
        "because",
        "since",
        "so",
        "then",
        "when",
        "where",
        "than",
        "as",
        "if",
        "to",
        "with",
        "or",
        "the",
        "nan",
        "undefined",
        "maybe",
        "possibly",
        "perhaps",
        "isn",
        "which",
    ];
    words.split(' ').count() <= 6 && !words.split(' ').any(|word| GOING_ON.contains(&word))
}

/// Whether all symbols of an expression are names as geometry has them, `AB` or `S_1`, and it has some.
pub(super) fn is_named(expr: &Expr) -> bool {
    let mut names = Vec::new();
    expr.symbols(&mut names);
    !names.is_empty()
        && names.iter().all(|name| name.starts_with(|c: char| c.is_ascii_uppercase()) || name.starts_with("line "))
}

fn call(function: Function, of: Value) -> Option<Value> {
    Some(Value::Scalar(Expr::Call(function, vec![of.scalar()?.clone()])))
}

/// `f'` is a variable of its own.
fn primed(base: &Value) -> Option<Value> {
    match base.scalar()? {
        Expr::Symbol(name) => Some(Value::Scalar(Expr::Symbol(format!("{name}'")))),
        _ => None,
    }
}

fn minus(value: Value) -> Option<Value> {
    match value {
        Value::Scalar(expr) => Some(Value::Scalar(expr.negative())),
        Value::Matrix(_) => multiply(vec![Value::Scalar(Expr::integer(-1)), value]),
        _ => None,
    }
}

/// A sum of scalars, or of matrices of one size.
fn add(terms: &[Value]) -> Option<Value> {
    if let Some(scalars) = terms.iter().map(|term| term.scalar().cloned()).collect::<Option<Vec<Expr>>>() {
        return Some(Value::Scalar(Expr::Sum(scalars)));
    }
    let matrix = |term: &Value| match term {
        Value::Matrix(rows) => Some(rows.clone()),
        _ => None,
    };
    let matrices = terms.iter().map(matrix).collect::<Option<Vec<_>>>()?;
    let first = &matrices[0];
    let size = |rows: &Vec<Vec<Expr>>| (rows.len(), rows[0].len());
    if matrices.iter().any(|rows| size(rows) != size(first)) {
        return None;
    }
    let entry = |row: usize, column: usize| Expr::Sum(matrices.iter().map(|rows| rows[row][column].clone()).collect());
    let rows = (0..first.len()).map(|row| (0..first[0].len()).map(|column| entry(row, column)).collect());
    Some(Value::Matrix(rows.collect()))
}

/// A product of scalars and at most two matrices, whose entries stay short.
fn multiply(factors: Vec<Value>) -> Option<Value> {
    let mut scalars = Vec::new();
    let mut matrices = Vec::new();
    for factor in factors {
        match factor {
            Value::Scalar(expr) => scalars.push(expr),
            Value::Matrix(rows) => matrices.push(rows),
            _ => return None,
        }
    }
    let rows = match &matrices[..] {
        [] => return Some(Value::Scalar(Expr::Product(scalars))),
        [rows] => rows.clone(),
        [left, right] if left[0].len() == right.len() => {
            let term =
                |row: &[Expr], k: usize, column: usize| Expr::Product(vec![row[k].clone(), right[k][column].clone()]);
            let entry =
                |row: &[Expr], column: usize| Expr::Sum((0..right.len()).map(|k| term(row, k, column)).collect());
            left.iter().map(|row| (0..right[0].len()).map(|column| entry(row, column)).collect()).collect()
        }
        _ => return None,
    };
    if scalars.is_empty() {
        return Some(Value::Matrix(rows));
    }
    let scaled = |entry: Expr| Expr::Product(scalars.iter().cloned().chain([entry]).collect());
    Some(Value::Matrix(rows.into_iter().map(|row: Vec<Expr>| row.into_iter().map(scaled).collect()).collect()))
}

/// Of at most three rows.
fn determinant(rows: &[Vec<Expr>]) -> Option<Expr> {
    let minor = |without: usize| -> Vec<Vec<Expr>> {
        let keep = |row: &Vec<Expr>| {
            row.iter().enumerate().filter(|(column, _)| *column != without).map(|(_, entry)| entry.clone()).collect()
        };
        rows[1..].iter().map(keep).collect()
    };
    match rows.len() {
        1 if rows[0].len() == 1 => Some(rows[0][0].clone()),
        2 | 3 if rows.len() == rows[0].len() => {
            let term = |(column, entry): (usize, &Expr)| {
                let sign = if column % 2 == 0 { 1 } else { -1 };
                Some(Expr::Product(vec![Expr::integer(sign), entry.clone(), determinant(&minor(column))?]))
            };
            rows[0].iter().enumerate().map(term).collect::<Option<Vec<Expr>>>().map(Expr::Sum)
        }
        _ => None,
    }
}

/// A value in which every part with `±` is two.
fn signed(value: Value) -> Value {
    let (parts, joiner) = match value {
        Value::List(parts, joiner) => (parts, joiner),
        value => (vec![value], Joiner::And),
    };
    let parts: Vec<Value> = parts.into_iter().flat_map(both_signs).collect();
    match <[Value; 1]>::try_from(parts) {
        Ok([part]) => part,
        Err(parts) => Value::List(parts, joiner),
    }
}

/// The two parts that a part with `±` stands for.
fn both_signs(part: Value) -> Vec<Value> {
    let is = |expr: &Expr| expr.any(&|node| matches!(node, Expr::PlusMinus { .. }));
    let signed = |value: &Value, plus: bool| match value {
        Value::Scalar(expr) => Value::Scalar(expr.with_sign(plus)),
        value => value.clone(),
    };
    match &part {
        Value::Scalar(expr) if is(expr) => vec![signed(&part, true), signed(&part, false)],
        Value::Chain { sides, links } if sides.iter().any(|side| side.scalar().is_some_and(is)) => [true, false]
            .map(|plus| Value::Chain {
                sides: sides.iter().map(|side| signed(side, plus)).collect(),
                links: links.clone(),
            })
            .to_vec(),
        _ => vec![part],
    }
}

/// What a token of an index or of the argument of an unknown function is called; braces say nothing.
fn index_text(token: &Token) -> Option<String> {
    match token {
        Token::GroupOpen | Token::GroupClose => None,
        Token::Name(name) | Token::Word(name) => Some(name.clone()),
        Token::Number(number) => Some(number.value.to_string()),
        other => Some(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::equal::equal;
    use super::*;

    fn parse(text: &str) -> Option<Value> {
        value(text, &mut Budget::new())
    }

    #[test]
    fn notations_of_the_same_thing_parse_alike() {
        for (a, b) in [
            ("\\frac12", "\\frac{1}{2}"),
            ("\\left( 1, 2 \\right)", "(1,2)"),
            ("3\\frac{1}{2}", "3 1/2"),
            ("1{,}234", "1234"),
            ("$-5$", "-5"),
            ("x^{10}", "x^10"),
            ("[0, \\infty)", "[0,∞)"),
            ("2\\text{ or }3", "2 or 3"),
        ] {
            let (Some(one), Some(other)) = (parse(a), parse(b)) else { panic!("{a} or {b} is not read") };
            assert!(equal(&one, &other, &mut Budget::new()), "{one:?}\n{other:?}");
        }
    }

    #[test]
    fn what_is_no_mathematics_is_refused() {
        for text in ["", "(((", "\\frac{1}{", "1, 2, \\dots", "\\int_0^1 x", "2 +", "1,,2", "{}", "()", "4 = ", "5 5"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&"{".repeat(1 << 20)), None);
        assert_eq!(parse(&"(".repeat(1000)), None);
    }
}
