//! When are two scalars equal?
//!
//! 1. Both rational: exactly if their values are.
//! 2. Written alike: if nothing in them is undefined.
//! 3. With symbols: at random points (the same for every call), exactly where both are rational there, otherwise in
//!    floating point with a bound of its error. Points at which one of them is undefined do not count, and too few that
//!    count are no proof: `ln x^2` and `2 ln x` are equal, `|x|` and `x` are not.
//! 4. Without symbols: in floating point, and a rational number only if it is short. `355/113` is not π, and no decimal of
//!    any length is `\sqrt 2`.
//! 5. Among the reals, unless one of them has an `i`.

use minke_spec::draw::{hash, hash_name};
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive};

use super::budget::Budget;
use super::exact::{constant, exact};
use super::numeric::{Approx, approx};
use super::value::{Constant, Expr, Number};

/// Whether two scalars are equal; neither has precedence.
pub(super) fn same(a: &Expr, b: &Expr, budget: &mut Budget) -> bool {
    let (Ok(exact_a), Ok(exact_b)) = (constant(a, budget), constant(b, budget)) else { return false };
    if let (Some(a), Some(b)) = (&exact_a, &exact_b) {
        return a == b;
    }
    if alike(a, b) {
        return true;
    }
    let (a_symbols, b_symbols) = (a.has_symbols(), b.has_symbols());
    if a_symbols || b_symbols {
        return agree(a, b, budget) >= Some(MIN_POINTS);
    }
    let short =
        |value: &BigRational| value.numer().abs() <= BigInt::from(LONGEST) && *value.denom() <= BigInt::from(LONGEST);
    if [exact_a, exact_b].iter().flatten().any(|value| !short(value)) {
        return false;
    }
    let complex = is_complex(a) || is_complex(b);
    let value = |expr: &Expr, budget: &mut Budget| approx(expr, complex, &|_| None, budget);
    matches!((value(a, budget), value(b, budget)), (Some(a), Some(b)) if a.equals(b))
}

/// Whether an answer is what was rounded to a decimal gold: the gold has at least [`FEWEST_PLACES`] places and
/// [`FEWEST_DIGITS`] digits that count, and the answer is written without a decimal point.
pub(super) fn rounds_to(answer: &Expr, gold: &Number, budget: &mut Budget) -> bool {
    let Some(places) = gold.places.filter(|places| *places >= FEWEST_PLACES) else { return false };
    let scale = BigRational::from_integer(BigInt::from(10).pow(places));
    let scaled = &gold.value * &scale;
    let digits = scaled.to_integer().abs();
    let decimal = |node: &Expr| matches!(node, Expr::Number(Number { places: Some(_), .. }));
    if digits < BigInt::from(10).pow(FEWEST_DIGITS - 1) || answer.any(&decimal) || answer.has_symbols() {
        return false;
    }
    match constant(answer, budget) {
        Ok(Some(value)) => (value * scale).round() == scaled,
        Ok(None) => {
            let value = approx(answer, false, &|_| None, budget).and_then(|value| Some(value.re * scale.to_f64()?));
            matches!((value, scaled.to_f64()), (Some(value), Some(scaled)) if (value - scaled).abs() <= 0.5)
        }
        Err(_) => false,
    }
}

/// The factor by which `b` is `a` at every point, if there is one: whether it is positive.
pub(super) fn proportional(a: &Expr, b: &Expr, budget: &mut Budget) -> Option<bool> {
    let complex = is_complex(a) || is_complex(b);
    let mut ratio: Option<Ratio> = None;
    let mut count = 0;
    for index in 0..POINTS {
        let point = |name: &str| Some(coordinate(name, index));
        let (exact_a, exact_b) = (exact(a, &point, budget).ok()?, exact(b, &point, budget).ok()?);
        let next = match (exact_a, exact_b) {
            (Some(a), Some(b)) => {
                let zero = |value: &BigRational| *value.numer() == BigInt::ZERO;
                match (zero(&a), zero(&b)) {
                    (true, true) => continue,
                    (false, false) => Ratio::Exact(b / a),
                    _ => return None,
                }
            }
            _ => {
                let (Some(a), Some(b)) = (approx(a, complex, &point, budget), approx(b, complex, &point, budget))
                else {
                    continue;
                };
                Ratio::Approx(a, b)
            }
        };
        let fits = match (&ratio, &next) {
            (None, _) => true,
            (Some(Ratio::Exact(first)), Ratio::Exact(next)) => first == next,
            // a1 b2 = a2 b1
            (Some(first), next) => cross(first, next)?,
        };
        if !fits {
            return None;
        }
        count += 1;
        ratio.get_or_insert(next);
    }
    let positive = match ratio? {
        Ratio::Exact(ratio) => ratio.is_positive(),
        Ratio::Approx(a, b) => a.re * b.re > 0.0,
    };
    (count >= MIN_POINTS).then_some(positive)
}

enum Ratio {
    Exact(BigRational),
    Approx(Approx, Approx),
}

/// Whether two ratios of real values are the same.
fn cross(first: &Ratio, next: &Ratio) -> Option<bool> {
    let parts = |ratio: &Ratio| match ratio {
        Ratio::Exact(ratio) => Some((1.0, ratio.to_f64()?)),
        Ratio::Approx(a, b) => (a.im == 0.0 && b.im == 0.0).then_some((a.re, b.re)),
    };
    let ((a1, b1), (a2, b2)) = (parts(first)?, parts(next)?);
    if a1 == 0.0 || a2 == 0.0 || b1 == 0.0 || b2 == 0.0 {
        return Some(false);
    }
    Some((a1 * b2 - a2 * b1).abs() <= 1e-11 * (a1 * b2).abs())
}

/// How many points count, if both agree at all of them.
fn agree(a: &Expr, b: &Expr, budget: &mut Budget) -> Option<usize> {
    let complex = is_complex(a) || is_complex(b);
    let mut count = 0;
    for index in 0..POINTS {
        let point = |name: &str| Some(coordinate(name, index));
        let (Ok(exact_a), Ok(exact_b)) = (exact(a, &point, budget), exact(b, &point, budget)) else { continue };
        let fits = match (exact_a, exact_b) {
            (Some(a), Some(b)) => a == b,
            _ => match (approx(a, complex, &point, budget), approx(b, complex, &point, budget)) {
                (Some(a), Some(b)) => a.equals(b),
                _ => continue,
            },
        };
        if !fits {
            return None;
        }
        count += 1;
    }
    Some(count)
}

/// A coordinate of a point: a fraction between about 1/13 and 25, negative at every other point from the seventh on.
pub(super) fn coordinate(name: &str, index: usize) -> BigRational {
    let random = hash(hash_name(name) ^ hash(index as u64));
    let (numerator, denominator) = SCALES[index % SCALES.len()];
    let size = BigRational::new(BigInt::from((11 + random % 89) * numerator), BigInt::from(37 * denominator));
    if index >= 6 && random & (1 << 40) != 0 { -size } else { size }
}

/// Whether both are the same tree, whatever their numbers look like.
fn alike(a: &Expr, b: &Expr) -> bool {
    let all = |a: &[Expr], b: &[Expr]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b));
    match (a, b) {
        (Expr::Number(a), Expr::Number(b)) => a.value == b.value,
        (Expr::Sum(a), Expr::Sum(b)) | (Expr::Product(a), Expr::Product(b)) => all(a, b),
        (Expr::Power(a, x), Expr::Power(b, y)) => alike(a, b) && alike(x, y),
        (Expr::Call(f, a), Expr::Call(g, b)) => f == g && all(a, b),
        (a, b) => a == b,
    }
}

fn is_complex(expr: &Expr) -> bool {
    expr.any(&|node| *node == Expr::Constant(Constant::I))
}

/// Points that are tried, and how many must count.
const POINTS: usize = 14;
const MIN_POINTS: usize = 3;
/// Points of several sizes, so that some are where an expression is defined.
const SCALES: [(u64, u64); 6] = [(1, 1), (1, 1), (3, 1), (1, 4), (9, 1), (1, 2)];
/// The longest numerator and denominator of a rational number that equals what is not written as one.
const LONGEST: u64 = 1_000_000;
/// Of a decimal that may have been rounded.
const FEWEST_PLACES: u32 = 2;
const FEWEST_DIGITS: u32 = 3;
