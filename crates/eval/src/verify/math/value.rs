//! What an answer can be, as a tree: scalars ([`Expr`]) and what is made of them ([`Value`]).

use num_bigint::BigInt;
use num_rational::BigRational;

use super::unit::Unit;

/// A scalar: a number or an expression with symbols.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    /// A number as it was written.
    Number(Number),
    /// A constant that is not rational.
    Constant(Constant),
    /// A variable, or a word that stands for itself.
    Symbol(String),
    /// All terms added. `a - b` is `a + (-1) b`.
    Sum(Vec<Expr>),
    /// All factors multiplied. `a / b` is `a b^(-1)`.
    Product(Vec<Expr>),
    /// Base and exponent; a root has the exponent `1/n`.
    Power(Box<Expr>, Box<Expr>),
    /// A function of its arguments.
    Call(Function, Vec<Expr>),
    /// `± x` or, if `flipped`, `∓ x`: stands for two values until [`Expr::with_sign`] chooses one.
    PlusMinus { flipped: bool, of: Box<Expr> },
}

/// A number as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Number {
    /// Its exact value.
    pub(super) value: BigRational,
    /// Digits behind the decimal point; nothing if there was no point, or digits that repeat for ever.
    pub(super) places: Option<u32>,
    /// Its digits, if they are all there is: `\frac12` and `1010_2` need them.
    pub(super) digits: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Constant {
    Pi,
    E,
    /// The imaginary unit.
    I,
    Infinity,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Function {
    Sin,
    Cos,
    Tan,
    Cot,
    Sec,
    Csc,
    Arcsin,
    Arccos,
    Arctan,
    Arccot,
    Sinh,
    Cosh,
    Tanh,
    Exp,
    /// Natural logarithm.
    Ln,
    /// Logarithm of the second argument to the base of the first.
    Log,
    Abs,
    Floor,
    Ceil,
    Factorial,
    Binomial,
    Gcd,
    Lcm,
    Min,
    Max,
    /// A hundredth.
    Percent,
    /// Degrees as radians.
    Degree,
}

/// How the parts of a relation are connected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Relation {
    Equal,
    Approx,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    NotEqual,
    In,
}

/// What stood between the parts of a list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Joiner {
    Comma,
    And,
    Or,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A number or expression.
    Scalar(Expr),
    /// With a unit of measurement.
    Quantity(Expr, Unit),
    /// `(a, b, ...)`: ordered. Two scalars in round brackets may also be an open interval.
    Tuple(Vec<Value>),
    /// `{a, b, ...}`: unordered.
    Set(Vec<Value>),
    /// `a, b` or `a or b` without brackets: several answers.
    List(Vec<Value>, Joiner),
    /// With at least one square bracket.
    Interval { low: Expr, high: Expr, low_closed: bool, high_closed: bool },
    /// All real numbers.
    Reals,
    /// Of the parts.
    Union(Vec<Value>),
    /// Of the parts.
    Intersection(Vec<Value>),
    /// The first without the second.
    Difference(Box<Value>, Box<Value>),
    /// Rows of equal length.
    Matrix(Vec<Vec<Expr>>),
    /// `sides[0] links[0] sides[1] ...`
    Chain { sides: Vec<Value>, links: Vec<Relation> },
    /// `a : b : ...`
    Ratio(Vec<Expr>),
    /// Digits with a base, as in `1010_2`.
    Based { digits: String, base: u32 },
    /// Words: letters and digits in lower case, one space between them.
    Text(String),
}

impl Expr {
    pub(super) fn integer(value: i64) -> Self {
        Self::rational(BigRational::from_integer(BigInt::from(value)))
    }

    pub(super) fn rational(value: BigRational) -> Self {
        Self::Number(Number { value, places: None, digits: None })
    }

    pub(super) fn negative(self) -> Self {
        Self::Product(vec![Self::integer(-1), self])
    }

    pub(super) fn inverse(self) -> Self {
        Self::Power(Box::new(self), Box::new(Self::integer(-1)))
    }

    /// The expressions directly below.
    pub(super) fn children(&self) -> Vec<&Expr> {
        match self {
            Self::Number(_) | Self::Constant(_) | Self::Symbol(_) => Vec::new(),
            Self::Sum(parts) | Self::Product(parts) | Self::Call(_, parts) => parts.iter().collect(),
            Self::Power(base, exponent) => vec![base, exponent],
            Self::PlusMinus { of, .. } => vec![of],
        }
    }

    /// Whether some node of the tree is as asked.
    pub(super) fn any(&self, is: &dyn Fn(&Expr) -> bool) -> bool {
        is(self) || self.children().into_iter().any(|child| child.any(is))
    }

    /// Whether it has a variable or a word.
    pub(super) fn has_symbols(&self) -> bool {
        self.any(&|node| matches!(node, Self::Symbol(_)))
    }

    /// Adds the names of its symbols, each once.
    pub(super) fn symbols<'a>(&'a self, names: &mut Vec<&'a str>) {
        if let Self::Symbol(name) = self
            && !names.contains(&name.as_str())
        {
            names.push(name);
        }
        self.children().into_iter().for_each(|child| child.symbols(names));
    }

    /// Whether it is a number as written, with or without a sign in front.
    pub(super) fn literal(&self) -> Option<Number> {
        match self {
            Self::Number(number) => Some(number.clone()),
            Self::Product(parts) => match &parts[..] {
                [minus, Self::Number(number)] if *minus == Self::integer(-1) => {
                    Some(Number { value: -number.value.clone(), digits: None, ..number.clone() })
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// The same with every `±` decided.
    pub(super) fn with_sign(&self, plus: bool) -> Self {
        let all = |parts: &[Expr]| parts.iter().map(|part| part.with_sign(plus)).collect();
        match self {
            Self::Number(_) | Self::Constant(_) | Self::Symbol(_) => self.clone(),
            Self::Sum(parts) => Self::Sum(all(parts)),
            Self::Product(parts) => Self::Product(all(parts)),
            Self::Call(function, parts) => Self::Call(*function, all(parts)),
            Self::Power(base, exponent) => {
                Self::Power(Box::new(base.with_sign(plus)), Box::new(exponent.with_sign(plus)))
            }
            Self::PlusMinus { flipped, of } if plus == *flipped => of.with_sign(plus).negative(),
            Self::PlusMinus { of, .. } => of.with_sign(plus),
        }
    }
}

impl Value {
    /// The scalar, if it is one without a unit.
    pub(super) fn scalar(&self) -> Option<&Expr> {
        match self {
            Self::Scalar(expr) => Some(expr),
            _ => None,
        }
    }
}

/// Words as they are compared: letters and digits in lower case, one space between them.
pub(super) fn plain_words(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}
