//! Expressions over whole numbers: read from answers, written with few parentheses, and evaluated exactly.

use std::fmt;

/// One of the four operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl Operator {
    pub(super) const ALL: [Self; 4] = [Self::Add, Self::Subtract, Self::Multiply, Self::Divide];

    /// The character that stands for the operation.
    pub(super) fn symbol(self) -> char {
        match self {
            Self::Add => '+',
            Self::Subtract => '-',
            Self::Multiply => '*',
            Self::Divide => '/',
        }
    }

    /// Whether the operation takes back what the other one of its precedence does.
    fn inverts(self) -> bool {
        matches!(self, Self::Subtract | Self::Divide)
    }

    fn precedence(self) -> u8 {
        match self {
            Self::Add | Self::Subtract => 1,
            Self::Multiply | Self::Divide => 2,
        }
    }
}

/// An expression over whole numbers. Displayed with no parenthesis that its value does not need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    Number(u32),
    Binary(Operator, Box<Expression>, Box<Expression>),
}

impl Expression {
    /// The expression that a text is, of whatever origin; nothing if it is none or longer or deeper than any
    /// honest answer.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_LENGTH {
            return None;
        }
        let mut parser = Parser { rest: text.as_bytes() };
        let expression = parser.sum(0)?;
        parser.peek().is_none().then_some(expression)
    }

    /// The exact value; nothing for a division by zero or a number beyond 128 bits.
    pub(super) fn value(&self) -> Option<Ratio> {
        match self {
            Self::Number(number) => Some(Ratio::from(*number)),
            Self::Binary(op, left, right) => left.value()?.apply(*op, right.value()?),
        }
    }

    /// The numbers in the order in which they are written.
    pub(super) fn numbers(&self) -> Vec<u32> {
        match self {
            Self::Number(number) => vec![*number],
            Self::Binary(_, left, right) => [left.numbers(), right.numbers()].concat(),
        }
    }

    /// A text that is equal for expressions which differ only in the order and grouping of terms and factors.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Binary(op, ..) => {
                let mut operands = Vec::new();
                self.operands(op.precedence(), false, &mut operands);
                operands.sort_unstable();
                let symbols = if op.precedence() == 1 { ['+', '-'] } else { ['*', '/'] };
                let parts =
                    operands.into_iter().map(|(inverted, key)| format!("{}{key}", symbols[usize::from(inverted)]));
                format!("({})", parts.collect::<String>())
            }
        }
    }

    /// Collects the terms (precedence 1) or factors (2) of a chain, each with whether it is taken away.
    fn operands(&self, precedence: u8, inverted: bool, operands: &mut Vec<(bool, String)>) {
        match self {
            Self::Binary(op, left, right) if op.precedence() == precedence => {
                left.operands(precedence, inverted, operands);
                right.operands(precedence, inverted ^ op.inverts(), operands);
            }
            _ => operands.push((inverted, self.key())),
        }
    }

    /// Whether the expression needs parentheses beside an operation.
    fn needs_parentheses(&self, beside: Operator, on_the_right: bool) -> bool {
        match self {
            Self::Number(_) => false,
            Self::Binary(op, ..) => {
                op.precedence() < beside.precedence()
                    || on_the_right && beside.inverts() && op.precedence() == beside.precedence()
            }
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Binary(op, left, right) = self else {
            let Self::Number(number) = self else { return Ok(()) };
            return write!(f, "{number}");
        };
        let side = |f: &mut fmt::Formatter<'_>, operand: &Self, on_the_right| {
            if operand.needs_parentheses(*op, on_the_right) { write!(f, "({operand})") } else { write!(f, "{operand}") }
        };
        side(f, left, false)?;
        write!(f, "{}", op.symbol())?;
        side(f, right, true)
    }
}

/// A recursive descent over bytes; anything unexpected ends it without a result.
struct Parser<'a> {
    rest: &'a [u8],
}

impl Parser<'_> {
    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_ascii_start();
        self.rest.first().copied()
    }

    fn take_op(&mut self, ops: [Operator; 2]) -> Option<Operator> {
        let next = self.peek()?;
        let op = ops.into_iter().find(|op| op.symbol() == char::from(next))?;
        self.rest = &self.rest[1..];
        Some(op)
    }

    fn sum(&mut self, depth: usize) -> Option<Expression> {
        let mut left = self.product(depth)?;
        while let Some(op) = self.take_op([Operator::Add, Operator::Subtract]) {
            left = Expression::Binary(op, Box::new(left), Box::new(self.product(depth)?));
        }
        Some(left)
    }

    fn product(&mut self, depth: usize) -> Option<Expression> {
        let mut left = self.atom(depth)?;
        while let Some(op) = self.take_op([Operator::Multiply, Operator::Divide]) {
            left = Expression::Binary(op, Box::new(left), Box::new(self.atom(depth)?));
        }
        Some(left)
    }

    fn atom(&mut self, depth: usize) -> Option<Expression> {
        if self.peek()? == b'(' {
            if depth == MAX_DEPTH {
                return None;
            }
            self.rest = &self.rest[1..];
            let inner = self.sum(depth + 1)?;
            if self.peek()? != b')' {
                return None;
            }
            self.rest = &self.rest[1..];
            return Some(inner);
        }
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        // No digits, or more than 32 bits hold.
        std::str::from_utf8(number).ok()?.parse().ok().map(Expression::Number)
    }
}

/// A fraction in lowest terms with a positive denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ratio {
    numerator: i128,
    denominator: i128,
}

impl Ratio {
    /// The result of an operation; nothing for a division by zero or an overflow.
    pub(super) fn apply(self, op: Operator, right: Self) -> Option<Self> {
        let (a, b) = (self.numerator, self.denominator);
        let (c, d) = (right.numerator, right.denominator);
        match op {
            Operator::Add => Self::reduced(a.checked_mul(d)?.checked_add(c.checked_mul(b)?)?, b.checked_mul(d)?),
            Operator::Subtract => Self::reduced(a.checked_mul(d)?.checked_sub(c.checked_mul(b)?)?, b.checked_mul(d)?),
            Operator::Multiply => Self::reduced(a.checked_mul(c)?, b.checked_mul(d)?),
            Operator::Divide => Self::reduced(a.checked_mul(d)?, b.checked_mul(c)?),
        }
    }

    fn reduced(numerator: i128, denominator: i128) -> Option<Self> {
        let (mut divisor, mut rest) = (numerator.checked_abs()?, denominator.checked_abs()?);
        while rest != 0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        if denominator == 0 {
            return None;
        }
        let divisor = divisor * denominator.signum();
        Some(Self { numerator: numerator / divisor, denominator: denominator / divisor })
    }
}

impl From<u32> for Ratio {
    fn from(number: u32) -> Self {
        Self { numerator: i128::from(number), denominator: 1 }
    }
}

/// Bytes of the longest answer that is read.
const MAX_LENGTH: usize = 256;
/// Nested parentheses of the deepest answer that is read.
const MAX_DEPTH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Expression {
        Expression::parse(text).unwrap_or_else(|| panic!("{text} is an expression"))
    }

    #[test]
    fn values_are_exact_and_follow_precedence() {
        for (text, value) in [("8-3-1", 4), ("2+3*4", 14), ("12/2/3", 2), ("8/(3-8/3)", 24), ("(1+2)*(3+4)", 21)] {
            assert_eq!(parse(text).value(), Some(Ratio::from(value)), "{text}");
        }
        assert_eq!(parse("1/3*3").value(), Some(Ratio::from(1)));
        assert_eq!(parse("3-5").value(), Some(Ratio { numerator: -2, denominator: 1 }));
        assert_eq!(parse("1/(5-5)").value(), None);
        let huge = ["4294967295"; 5].join("*");
        assert_eq!(parse(&huge).value(), None, "beyond 128 bits");
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in ["", " ", "-3", "3+", "*3", "(3", "3)", "()", "3 4", "3++4", "3=3", "3.0", "4294967296", "３", "x"]
        {
            assert_eq!(Expression::parse(text), None, "{text:?}");
        }
        assert!(Expression::parse(&format!("{}1{}", "(".repeat(32), ")".repeat(32))).is_some());
        assert_eq!(Expression::parse(&format!("{}1{}", "(".repeat(33), ")".repeat(33))), None);
        assert_eq!(Expression::parse(&"1+".repeat(100_000)), None);
    }

    #[test]
    fn parentheses_are_written_only_where_the_value_needs_them() {
        for (text, short) in [
            ("(1*(7+6))", "1*(7+6)"),
            ("(8-(3-1))", "8-(3-1)"),
            ("((8-3)-1)", "8-3-1"),
            ("(8/(4/2))", "8/(4/2)"),
            ("(8*(4/2))", "8*4/2"),
            ("(8+(4-2))", "8+4-2"),
            ("(8/(4*2))", "8/(4*2)"),
            ("((8*4)+(6/2))", "8*4+6/2"),
            ("((8+4)*(6-2))", "(8+4)*(6-2)"),
        ] {
            assert_eq!(parse(text).to_string(), short);
            assert_eq!(parse(text).value(), parse(short).value(), "{text}");
        }
    }

    #[test]
    fn keys_ignore_order_and_grouping_and_nothing_else() {
        for (a, b) in [("1*(7+6)", "(6 + 7)*1"), ("8-(3-1)", "1+8-3"), ("8*(4/2)", "4/2*8"), ("2+(3+4)", "4+3+2")] {
            assert_eq!(parse(a).key(), parse(b).key(), "{a} {b}");
        }
        for (a, b) in [("1*(7+6)", "1*7+6"), ("8-3-1", "8-(3-1)"), ("2*3", "2+3"), ("12+3", "1+23"), ("6/1", "6*1")] {
            assert_ne!(parse(a).key(), parse(b).key(), "{a} {b}");
        }
    }
}
