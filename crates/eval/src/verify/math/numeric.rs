//! What is it in floating point, and how wrong can that be? Complex numbers in f64 with a bound of the error, which grows
//! with every operation. Two values are equal if they differ by no more than their bounds; a value that lost its digits
//! (a term that vanishes beside another, a number longer than f64 holds) is no value at all.

use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive};

use super::budget::Budget;
use super::exact::{Point, constant};
use super::value::{Constant, Expr, Function};

/// A complex number with a bound of its error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Approx {
    pub(super) re: f64,
    pub(super) im: f64,
    pub(super) error: f64,
}

/// Relative error of one operation: a few units in the last place.
const EPSILON: f64 = 4.0 * f64::EPSILON;
/// How many times the sum of two bounds two equal values may differ.
const SLACK: f64 = 8.0;
/// The largest share of a value that its error may be.
const LARGEST_ERROR: f64 = 1e-9;
/// Numerators and denominators above this are not turned into f64.
const MAX_WHOLE: u64 = 1 << 40;

impl Approx {
    fn new(re: f64, im: f64, error: f64) -> Option<Self> {
        let value = Self { re, im, error };
        (value.size().is_finite() && error.is_finite()).then_some(value)
    }

    fn real(re: f64, error: f64) -> Option<Self> {
        Self::new(re, 0.0, error + EPSILON * re.abs())
    }

    fn size(self) -> f64 {
        self.re.hypot(self.im)
    }

    /// Whether it may be zero.
    fn vanishes(self) -> bool {
        self.size() <= SLACK * self.error
    }

    /// Whether two values are the same as far as can be known; values of which too little is known are not.
    pub(super) fn equals(self, other: Self) -> bool {
        let error = self.error + other.error;
        let known = |value: Self| {
            value.error <= LARGEST_ERROR * value.size() || value.vanishes() && value.error <= LARGEST_ERROR
        };
        known(self) && known(other) && (self.re - other.re).hypot(self.im - other.im) <= SLACK * error
    }
}

/// The value of an expression, complex or among the reals alone: then an even root of a negative number has none.
pub(super) fn approx(expr: &Expr, complex: bool, point: &Point<'_>, budget: &mut Budget) -> Option<Approx> {
    budget.spend(1)?;
    let mut eval = |expr: &Expr| approx(expr, complex, point, budget);
    match expr {
        Expr::Number(number) => rational(&number.value),
        Expr::Symbol(name) => rational(&point(name)?),
        Expr::Constant(Constant::Pi) => Approx::real(std::f64::consts::PI, 0.0),
        Expr::Constant(Constant::E) => Approx::real(std::f64::consts::E, 0.0),
        Expr::Constant(Constant::I) => Approx::new(0.0, 1.0, 0.0),
        Expr::Constant(Constant::Infinity) | Expr::PlusMinus { .. } => None,
        Expr::Sum(terms) => {
            let terms: Option<Vec<Approx>> = terms.iter().map(eval).collect();
            sum(&terms?)
        }
        Expr::Product(factors) => {
            let factors: Option<Vec<Approx>> = factors.iter().map(eval).collect();
            factors?.into_iter().try_fold(Approx { re: 1.0, im: 0.0, error: 0.0 }, product)
        }
        Expr::Power(base, exponent) => {
            let value = (eval(base)?, eval(exponent)?);
            // Whether a root is odd is a question for exact arithmetic.
            let fraction = constant(exponent, budget).ok()?;
            power(value.0, value.1, fraction.as_ref(), complex)
        }
        Expr::Call(function, arguments) => {
            let arguments: Option<Vec<Approx>> = arguments.iter().map(eval).collect();
            call(*function, &arguments?, complex)
        }
    }
}

/// A rational number that f64 holds well.
fn rational(value: &BigRational) -> Option<Approx> {
    let (above, below) = (value.numer().abs().to_u64()?, value.denom().to_u64()?);
    if above.max(below) > MAX_WHOLE {
        return None;
    }
    let size = above as f64 / below as f64;
    let error = if below == 1 { 0.0 } else { EPSILON * size };
    Approx::new(if value.is_negative() { -size } else { size }, 0.0, error)
}

fn sum(terms: &[Approx]) -> Option<Approx> {
    let total = terms.iter().fold((0.0, 0.0), |(re, im), term| (re + term.re, im + term.im));
    let largest = terms.iter().map(|term| term.size()).fold(0.0, f64::max);
    let error = terms.iter().map(|term| term.error).sum::<f64>() + EPSILON * largest;
    // A term that is not zero must leave a trace.
    let lost = terms.iter().any(|term| !term.vanishes() && term.size() < 1e3 * error);
    if lost { None } else { Approx::new(total.0, total.1, error) }
}

fn product(a: Approx, b: Approx) -> Option<Approx> {
    let (re, im) = (a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re);
    let size = a.size() * b.size();
    // Too small for f64.
    if size < f64::MIN_POSITIVE && a.size() > 0.0 && b.size() > 0.0 {
        return None;
    }
    Approx::new(re, im, a.size() * b.error + b.size() * a.error + a.error * b.error + EPSILON * size)
}

fn power(base: Approx, exponent: Approx, fraction: Option<&BigRational>, complex: bool) -> Option<Approx> {
    if base.size() == 0.0 {
        let positive = exponent.im == 0.0 && exponent.re > 0.0;
        return positive.then_some(Approx { re: 0.0, im: 0.0, error: base.error });
    }
    if base.vanishes() {
        return None;
    }
    let whole = fraction.filter(|fraction| fraction.is_integer()).and_then(|fraction| fraction.numer().to_i32());
    let relative = base.error / base.size();
    let (log, angle) = (base.size().ln(), base.im.atan2(base.re));
    let result = match whole {
        Some(n) if base.im == 0.0 => (base.re.powi(n), 0.0),
        Some(n) => polar((log * f64::from(n)).exp(), angle * f64::from(n)),
        None if base.im == 0.0 && base.re > 0.0 && exponent.im == 0.0 => (base.re.powf(exponent.re), 0.0),
        None if complex => {
            let (re, im) = (log * exponent.re - angle * exponent.im, log * exponent.im + angle * exponent.re);
            polar(re.exp(), im)
        }
        // Among the reals a negative number has odd roots.
        None => {
            let fraction = fraction?;
            let odd = |number: &num_bigint::BigInt| number.bit(0);
            if base.im != 0.0 || !odd(fraction.denom()) {
                return None;
            }
            let size = (-base.re).powf(exponent.re);
            (if odd(fraction.numer()) { -size } else { size }, 0.0)
        }
    };
    let size = result.0.hypot(result.1);
    if size < f64::MIN_POSITIVE {
        return None;
    }
    let turn = log.abs() + angle.abs();
    let error = exponent.size() * relative + (turn + 1.0) * exponent.error + (1.0 + exponent.size() * turn) * EPSILON;
    Approx::new(result.0, result.1, size * error)
}

fn polar(size: f64, angle: f64) -> (f64, f64) {
    (size * angle.cos(), size * angle.sin())
}

fn call(function: Function, of: &[Approx], complex: bool) -> Option<Approx> {
    let [first, rest @ ..] = of else { return None };
    let x = *first;
    if function == Function::Abs {
        return Approx::real(x.size(), x.error);
    }
    if x.im != 0.0 || rest.iter().any(|value| value.im != 0.0) {
        return match function {
            Function::Exp => {
                let (re, im) = polar(x.re.exp(), x.im);
                Approx::new(re, im, x.re.exp() * (x.error + EPSILON * (1.0 + x.size())))
            }
            _ => None,
        };
    }
    // An error of the argument grows by the slope, an error of rounding does not.
    let with_slope = |value: f64, slope: f64| Approx::real(value, slope.abs() * (x.error + EPSILON * x.re.abs()));
    let reciprocal = |value: Approx| power(value, Approx { re: -1.0, im: 0.0, error: 0.0 }, Some(&-one()), complex);
    let sine = || with_slope(x.re.sin(), x.re.cos().abs().max(x.error));
    let cosine = || with_slope(x.re.cos(), x.re.sin().abs().max(x.error));
    // At their ends, inverse functions have no slope.
    let steep = |inside: f64| 1.0 / inside.max(x.error).max(f64::EPSILON).sqrt();
    match function {
        Function::Sin => sine(),
        Function::Cos => cosine(),
        Function::Tan => product(sine()?, reciprocal(cosine()?)?),
        Function::Cot => product(cosine()?, reciprocal(sine()?)?),
        Function::Sec => reciprocal(cosine()?),
        Function::Csc => reciprocal(sine()?),
        Function::Arcsin if x.re.abs() <= 1.0 => with_slope(x.re.asin(), steep(1.0 - x.re * x.re)),
        Function::Arccos if x.re.abs() <= 1.0 => with_slope(x.re.acos(), steep(1.0 - x.re * x.re)),
        Function::Arctan => with_slope(x.re.atan(), 1.0 / (1.0 + x.re * x.re)),
        Function::Arccot => {
            let value = std::f64::consts::FRAC_PI_2 - x.re.atan();
            Approx::real(value, x.error + EPSILON)
        }
        Function::Sinh => with_slope(x.re.sinh(), x.re.cosh()),
        Function::Cosh => with_slope(x.re.cosh(), x.re.sinh()),
        Function::Tanh => with_slope(x.re.tanh(), 1.0),
        Function::Exp if x.re.exp() >= f64::MIN_POSITIVE => with_slope(x.re.exp(), x.re.exp()),
        Function::Ln => logarithm(x, complex),
        Function::Log => {
            let [of] = rest else { return None };
            product(logarithm(*of, complex)?, reciprocal(logarithm(x, complex)?)?)
        }
        Function::Floor | Function::Ceil => {
            let whole = x.re.round();
            if x.error > 0.0 && (x.re - whole).abs() <= SLACK * x.error {
                return None;
            }
            Approx::new(if function == Function::Floor { x.re.floor() } else { x.re.ceil() }, 0.0, 0.0)
        }
        Function::Percent => Approx::real(x.re / 100.0, x.error / 100.0),
        Function::Degree => Approx::real(x.re.to_radians(), x.error),
        Function::Min => of.iter().copied().reduce(|a, b| if b.re < a.re { b } else { a }),
        Function::Max => of.iter().copied().reduce(|a, b| if b.re > a.re { b } else { a }),
        _ => None,
    }
}

fn one() -> BigRational {
    num_traits::One::one()
}

fn logarithm(x: Approx, complex: bool) -> Option<Approx> {
    if x.vanishes() || x.re < 0.0 && !complex {
        return None;
    }
    let error = x.error / x.re.abs() + EPSILON;
    let value = x.re.abs().ln();
    Approx::new(value, if x.re < 0.0 { std::f64::consts::PI } else { 0.0 }, error + EPSILON * value.abs())
}
