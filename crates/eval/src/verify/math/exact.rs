//! Which rational number is it? Exact arithmetic, as far as a value is rational and not too long.

use num_bigint::{BigInt, BigUint, Sign};
use num_rational::BigRational;
use num_traits::{One, Pow, Signed, ToPrimitive, Zero};

use super::budget::Budget;
use super::value::{Expr, Function};

/// Why a value has no meaning: a division by zero, a logarithm of zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Undefined;

/// Values of symbols.
pub(super) type Point<'a> = dyn Fn(&str) -> Option<BigRational> + 'a;

/// The rational value of an expression, all of whose parts are looked at; nothing if it is not known to be rational, too
/// long, or too much work.
///
/// # Errors
/// If a part of it is undefined, whatever it is multiplied with.
pub(super) fn exact(expr: &Expr, point: &Point<'_>, budget: &mut Budget) -> Result<Option<BigRational>, Undefined> {
    if budget.spend(1).is_none() {
        return Ok(None);
    }
    match expr {
        Expr::Number(number) => Ok(Some(number.value.clone())),
        Expr::Symbol(name) => Ok(point(name)),
        Expr::Constant(_) | Expr::PlusMinus { .. } => Ok(None),
        Expr::Sum(terms) => fold(terms, BigRational::zero(), point, budget, |a, b| a + b),
        Expr::Product(factors) => fold(factors, BigRational::one(), point, budget, |a, b| a * b),
        Expr::Power(base, exponent) => {
            let (base_value, exponent_value) = (exact(base, point, budget)?, exact(exponent, point, budget)?);
            match (base_value, exponent_value) {
                (Some(base), Some(exponent)) => power(&base, &exponent, budget),
                (None, Some(outer)) => power_of_power(base, &outer, point, budget),
                _ => Ok(None),
            }
        }
        Expr::Call(function, arguments) => {
            let values: Result<Vec<_>, _> = arguments.iter().map(|argument| exact(argument, point, budget)).collect();
            match values?.into_iter().collect::<Option<Vec<_>>>() {
                Some(values) => call(*function, &values, budget),
                None => Ok(None),
            }
        }
    }
}

/// The value of an expression without symbols.
pub(super) fn constant(expr: &Expr, budget: &mut Budget) -> Result<Option<BigRational>, Undefined> {
    exact(expr, &|_| None, budget)
}

/// Bits of the longest numerator and denominator.
const MAX_BITS: u64 = 1 << 15;
/// The largest number whose factorial is computed.
const MAX_FACTORIAL: u64 = 2000;

/// All values taken together; an unknown one makes the result unknown, but the others are looked at.
fn fold(
    parts: &[Expr],
    start: BigRational,
    point: &Point<'_>,
    budget: &mut Budget,
    step: impl Fn(BigRational, BigRational) -> BigRational,
) -> Result<Option<BigRational>, Undefined> {
    let mut total = Some(start);
    for part in parts {
        let value = exact(part, point, budget)?;
        total = match (total, value) {
            (Some(total), Some(value)) => affordable(&[&total, &value], budget).map(|()| step(total, value)),
            _ => None,
        };
    }
    Ok(total.filter(short))
}

fn bits(value: &BigRational) -> u64 {
    value.numer().bits().max(value.denom().bits())
}

fn short(value: &BigRational) -> bool {
    bits(value) <= MAX_BITS
}

/// Pays for an operation on numbers of this length: the common divisor takes quadratic time.
fn affordable(values: &[&BigRational], budget: &mut Budget) -> Option<()> {
    let words = values.iter().map(|value| bits(value) / 64 + 1).max().unwrap_or(1);
    budget.spend(words * words / 16 + 1)
}

fn power(base: &BigRational, exponent: &BigRational, budget: &mut Budget) -> Result<Option<BigRational>, Undefined> {
    if base.is_zero() {
        // The zeroth power of zero is left undefined, as it is a limit of anything.
        return if exponent.is_positive() { Ok(Some(BigRational::zero())) } else { Err(Undefined) };
    }
    let (Some(above), Some(below)) = (exponent.numer().to_i64(), exponent.denom().to_u32()) else {
        // Of these alone is a power of any size known.
        let even = (exponent.numer() % BigInt::from(2)).is_zero();
        let unit = base.abs().is_one() && (base.is_positive() || exponent.is_integer());
        return Ok(unit.then(|| if base.is_positive() || even { BigRational::one() } else { -BigRational::one() }));
    };
    let Some(root) = root(base, below, budget) else { return Ok(None) };
    if bits(&root).saturating_sub(1).saturating_mul(above.unsigned_abs()) > MAX_BITS {
        return Ok(None);
    }
    let Ok(size) = u32::try_from(above.unsigned_abs()) else {
        // Only of one can such a power be short.
        return Ok(root.abs().is_one().then(|| if above % 2 == 0 { BigRational::one() } else { root }));
    };
    let Some(()) = affordable(&[&root], budget) else { return Ok(None) };
    let raised = BigRational::new_raw(root.numer().pow(size), root.denom().pow(size));
    Ok(Some(if above < 0 { raised.recip() } else { raised }).filter(short))
}

/// The root of a rational number if it is rational; of a negative one only an odd root.
fn root(value: &BigRational, degree: u32, budget: &mut Budget) -> Option<BigRational> {
    if degree == 1 {
        return Some(value.clone());
    }
    if value.is_negative() && degree.is_multiple_of(2) {
        return None;
    }
    affordable(&[value], budget)?;
    let whole = |number: &BigInt| -> Option<BigInt> {
        if u64::from(degree) > number.bits() {
            return (number.bits() <= 1).then(|| number.clone());
        }
        let (sign, size): (Sign, BigUint) = (number.sign(), number.magnitude().clone());
        let root = size.nth_root(degree);
        (Pow::pow(&root, degree) == size).then(|| BigInt::from_biguint(sign, root))
    };
    Some(BigRational::new_raw(whole(value.numer())?, whole(value.denom())?))
}

/// `(b^p)^q` for a positive rational `b`: `b^(pq)`.
fn power_of_power(
    base: &Expr,
    outer: &BigRational,
    point: &Point<'_>,
    budget: &mut Budget,
) -> Result<Option<BigRational>, Undefined> {
    let Expr::Power(inner, exponent) = base else { return Ok(None) };
    match (exact(inner, point, budget)?, exact(exponent, point, budget)?) {
        (Some(inner), Some(exponent)) if inner.is_positive() && short(&exponent) => {
            power(&inner, &(exponent * outer), budget)
        }
        _ => Ok(None),
    }
}

fn call(function: Function, of: &[BigRational], budget: &mut Budget) -> Result<Option<BigRational>, Undefined> {
    let Some(()) = affordable(&of.iter().collect::<Vec<_>>(), budget) else { return Ok(None) };
    let small = |value: &BigRational| value.is_integer().then(|| value.numer().to_u64()).flatten();
    let [first, rest @ ..] = of else { return Ok(None) };
    Ok(match function {
        Function::Abs => Some(first.abs()),
        Function::Floor => Some(first.floor()),
        Function::Ceil => Some(first.ceil()),
        Function::Percent => Some(first / BigRational::from_integer(BigInt::from(100))),
        Function::Factorial => match small(first).filter(|n| *n <= MAX_FACTORIAL) {
            Some(n) if budget.spend(n * n / 64 + 1).is_some() => {
                Some(BigRational::from_integer((1..=n).map(BigInt::from).product()))
            }
            _ if first.is_integer() && first.is_negative() => return Err(Undefined),
            _ => None,
        },
        Function::Binomial => {
            let [below] = rest else { return Ok(None) };
            match (small(first).filter(|n| *n <= MAX_FACTORIAL), small(below)) {
                (Some(n), Some(k)) if k > n => Some(BigRational::zero()).filter(|_| n < u64::MAX),
                (Some(n), Some(k)) if budget.spend(n * n / 64 + 1).is_some() => {
                    let k = k.min(n - k);
                    let step = |product: BigInt, i: u64| product * BigInt::from(n - i) / BigInt::from(i + 1);
                    Some(BigRational::from_integer((0..k).fold(BigInt::one(), step)))
                }
                _ => None,
            }
        }
        Function::Gcd | Function::Lcm => {
            let Some(numbers) =
                of.iter().map(|value| value.is_integer().then(|| value.numer().abs())).collect::<Option<Vec<_>>>()
            else {
                return Ok(None);
            };
            let gcd = |a: BigInt, b: BigInt| gcd(a, b);
            let join = |a: BigInt, b: BigInt| {
                if function == Function::Gcd {
                    return gcd(a, b);
                }
                let divisor = gcd(a.clone(), b.clone());
                if divisor.is_zero() { divisor } else { a / divisor * b }
            };
            numbers.into_iter().reduce(join).map(BigRational::from_integer).filter(short)
        }
        Function::Min => of.iter().min().cloned(),
        Function::Max => of.iter().max().cloned(),
        Function::Ln if first.is_zero() => return Err(Undefined),
        Function::Log => {
            let [of] = rest else { return Ok(None) };
            if of.is_zero() || first.is_zero() || first.is_one() {
                return Err(Undefined);
            }
            logarithm(first, of)
        }
        Function::Ln if first.is_one() => Some(BigRational::zero()),
        Function::Exp | Function::Cos | Function::Cosh | Function::Sec if first.is_zero() => Some(BigRational::one()),
        Function::Sin
        | Function::Tan
        | Function::Arcsin
        | Function::Arctan
        | Function::Sinh
        | Function::Tanh
        | Function::Degree
            if first.is_zero() =>
        {
            Some(BigRational::zero())
        }
        Function::Cot | Function::Csc if first.is_zero() => return Err(Undefined),
        _ => None,
    })
}

fn gcd(mut a: BigInt, mut b: BigInt) -> BigInt {
    while !b.is_zero() {
        (a, b) = (b.clone(), a % b);
    }
    a
}

/// A logarithm that is a fraction with a small denominator.
fn logarithm(base: &BigRational, of: &BigRational) -> Option<BigRational> {
    if !base.is_positive() || !of.is_positive() || bits(base) > 256 || bits(of) > 2048 {
        return None;
    }
    let ln = |value: &BigRational| Some(value.numer().to_f64()?.ln() - value.denom().to_f64()?.ln());
    let estimate = ln(of)? / ln(base)?;
    (1..=12u32).find_map(|denominator| {
        let numerator = (estimate * f64::from(denominator)).round();
        if !numerator.is_finite() || numerator.abs() >= 4096.0 {
            return None;
        }
        let numerator = numerator as i64;
        let raised =
            |value: &BigRational, power: u32| BigRational::new_raw(value.numer().pow(power), value.denom().pow(power));
        let size = u32::try_from(numerator.unsigned_abs()).ok()?;
        let left = raised(base, size);
        let left = if numerator < 0 { left.recip() } else { left };
        (left == raised(of, denominator)).then(|| BigRational::new(BigInt::from(numerator), BigInt::from(denominator)))
    })
}
