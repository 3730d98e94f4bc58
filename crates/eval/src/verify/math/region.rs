//! Which real numbers are meant? Intervals, finite sets, their unions and differences, and inequalities in one variable, as
//! pieces in rising order that do not touch. Two regions are equal if their pieces are.

use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};

use super::budget::Budget;
use super::exact::exact;
use super::numeric::approx;
use super::scalar::same;
use super::value::{Constant, Expr, Joiner, Relation, Value};

/// A region, and the variable whose values it has if the text names one.
#[derive(Clone, Debug)]
pub(super) struct Region {
    pub(super) variable: Option<String>,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
struct Piece {
    low: End,
    high: End,
}

#[derive(Clone, Debug)]
struct End {
    /// Where it is in the order.
    at: f64,
    /// Its exact value, unless it is infinite.
    value: Option<Expr>,
    closed: bool,
}

/// Whether two texts mean the same numbers, of the same variable where both name one; nothing if one means no region.
pub(super) fn same_region(a: &Value, b: &Value, budget: &mut Budget) -> Option<bool> {
    let (a, b) = (region(a, budget)?, region(b, budget)?);
    let variables = a.variable.is_none() || b.variable.is_none() || a.variable == b.variable;
    let mut ends_agree = |a: &End, b: &End| {
        a.closed == b.closed
            && match (&a.value, &b.value) {
                (None, None) => a.at == b.at,
                (Some(a), Some(b)) => same(a, b, budget),
                _ => false,
            }
    };
    let mut pieces = a.pieces.iter().zip(&b.pieces);
    Some(
        variables
            && a.pieces.len() == b.pieces.len()
            && pieces.all(|(a, b)| ends_agree(&a.low, &b.low) && ends_agree(&a.high, &b.high)),
    )
}

/// Whether a value can only be read as a region.
pub(super) fn is_region(value: &Value) -> bool {
    match value {
        Value::Interval { .. } | Value::Reals | Value::Union(_) | Value::Intersection(_) | Value::Difference(..) => {
            true
        }
        Value::Chain { links, .. } => !links.iter().any(|link| matches!(link, Relation::Equal | Relation::Approx)),
        Value::List(parts, _) => parts.iter().any(is_region) && parts.iter().all(is_region),
        _ => false,
    }
}

/// Most pieces of a region.
const MAX_PIECES: usize = 64;

fn region(value: &Value, budget: &mut Budget) -> Option<Region> {
    budget.spend(4)?;
    let unnamed = |pieces| Some(Region { variable: None, pieces });
    match value {
        Value::Reals => unnamed(vec![Piece { low: infinite(false), high: infinite(true) }]),
        Value::Interval { low, high, low_closed, high_closed } => {
            unnamed(interval(low, *low_closed, high, *high_closed, budget)?)
        }
        Value::Tuple(parts) => match &parts[..] {
            [Value::Scalar(low), Value::Scalar(high)] => unnamed(interval(low, false, high, false, budget)?),
            _ => None,
        },
        Value::Set(parts) => {
            let mut pieces = Vec::new();
            for part in parts {
                let point = end(part.scalar()?, true, budget).filter(|end| end.value.is_some())?;
                pieces = union(pieces, vec![Piece { low: point.clone(), high: point }]);
            }
            unnamed(pieces)
        }
        Value::Union(parts) => combine(parts, budget, union),
        Value::Intersection(parts) => combine(parts, budget, intersection),
        Value::Difference(from, without) => {
            let (from, without) = (region(from, budget)?, region(without, budget)?);
            unnamed(intersection(from.pieces, complement(without.pieces)))
        }
        Value::Chain { sides, links } => chain(sides, links, budget),
        Value::List(parts, joiner) => {
            if !parts.iter().all(|part| matches!(part, Value::Chain { .. } | Value::Interval { .. } | Value::Tuple(_)))
            {
                return None;
            }
            match joiner {
                Joiner::Or => combine(parts, budget, union),
                Joiner::And if parts.iter().all(|part| matches!(part, Value::Chain { .. })) => {
                    // `x < 1 and x > 2` is said of what no number does.
                    combine(parts, budget, intersection)
                        .filter(|region| !region.pieces.is_empty())
                        .or_else(|| combine(parts, budget, union))
                }
                Joiner::Comma | Joiner::And => {
                    let both = combine(parts, budget, intersection).filter(|region| !region.pieces.is_empty());
                    if matches!(parts[0], Value::Chain { .. }) && both.is_some() {
                        return both;
                    }
                    combine(parts, budget, union)
                }
            }
        }
        _ => None,
    }
    .filter(|region| region.pieces.len() <= MAX_PIECES)
}

fn combine(
    parts: &[Value],
    budget: &mut Budget,
    operation: fn(Vec<Piece>, Vec<Piece>) -> Vec<Piece>,
) -> Option<Region> {
    let mut parts = parts.iter();
    let mut total = region(parts.next()?, budget)?;
    for part in parts {
        let next = region(part, budget)?;
        if total.variable.is_some() && next.variable.is_some() && total.variable != next.variable {
            return None;
        }
        budget.spend((total.pieces.len() + next.pieces.len()) as u64)?;
        total = Region { variable: total.variable.or(next.variable), pieces: operation(total.pieces, next.pieces) };
        if total.pieces.len() > MAX_PIECES {
            return None;
        }
    }
    Some(total)
}

/// `low < x <= high`, `x > low`, `x != point`, `x in S`; also linear, as `2x + 1 < 5`.
fn chain(sides: &[Value], links: &[Relation], budget: &mut Budget) -> Option<Region> {
    if let ([Value::Scalar(Expr::Symbol(name)), set], [Relation::In]) = (sides, links) {
        return Some(Region { variable: Some(name.clone()), ..region(set, budget)? });
    }
    let mut total: Option<Region> = None;
    for (pair, link) in sides.windows(2).zip(links) {
        let next = comparison(pair[0].scalar()?, *link, pair[1].scalar()?, budget)?;
        total = Some(match total {
            None => next,
            Some(total) if total.variable == next.variable => {
                Region { variable: total.variable, pieces: intersection(total.pieces, next.pieces) }
            }
            Some(_) => return None,
        });
    }
    total
}

fn comparison(left: &Expr, link: Relation, right: &Expr, budget: &mut Budget) -> Option<Region> {
    let mut names = Vec::new();
    left.symbols(&mut names);
    right.symbols(&mut names);
    let [name] = names[..] else { return None };
    let is_variable = |expr: &Expr| matches!(expr, Expr::Symbol(_));
    let (rising, bound) = if is_variable(left) && !right.has_symbols() {
        (true, right.clone())
    } else if is_variable(right) && !left.has_symbols() {
        (false, left.clone())
    } else {
        linear(left, right, budget)?
    };
    let at = |closed: bool, budget: &mut Budget| end(&bound, closed, budget).filter(|end| end.value.is_some());
    let below = |closed, budget: &mut Budget| Some(vec![Piece { low: infinite(false), high: at(closed, budget)? }]);
    let above = |closed, budget: &mut Budget| Some(vec![Piece { low: at(closed, budget)?, high: infinite(true) }]);
    let pieces = match (link, rising) {
        (Relation::Less, true) | (Relation::Greater, false) => below(false, budget)?,
        (Relation::LessEqual, true) | (Relation::GreaterEqual, false) => below(true, budget)?,
        (Relation::Greater, true) | (Relation::Less, false) => above(false, budget)?,
        (Relation::GreaterEqual, true) | (Relation::LessEqual, false) => above(true, budget)?,
        (Relation::NotEqual, _) => union(below(false, budget)?, above(false, budget)?),
        (Relation::Equal | Relation::Approx | Relation::In, _) => return None,
    };
    Some(Region { variable: Some(name.to_string()), pieces })
}

/// Whether `left - right` rises, and where it is zero, if it is linear with rational coefficients.
fn linear(left: &Expr, right: &Expr, budget: &mut Budget) -> Option<(bool, Expr)> {
    let difference = Expr::Sum(vec![left.clone(), right.clone().negative()]);
    let mut at = |x: i64| {
        let x = BigRational::from_integer(x.into());
        exact(&difference, &|_| Some(x.clone()), budget).ok().flatten()
    };
    let (zero, one, two, seven) = (at(0)?, at(1)?, at(2)?, at(7)?);
    let slope = &one - &zero;
    let straight = &two - &one == slope && seven == &zero + &slope * BigRational::from_integer(7.into());
    (straight && !slope.is_zero()).then(|| (slope.is_positive(), Expr::rational(-zero / slope)))
}

fn interval(low: &Expr, low_closed: bool, high: &Expr, high_closed: bool, budget: &mut Budget) -> Option<Vec<Piece>> {
    let (low, high) = (end(low, low_closed, budget)?, end(high, high_closed, budget)?);
    let fine = low.at < high.at || low.at == high.at && low.closed && high.closed;
    fine.then(|| vec![Piece { low, high }])
}

fn infinite(positive: bool) -> End {
    End { at: if positive { f64::INFINITY } else { f64::NEG_INFINITY }, value: None, closed: false }
}

/// An end of an interval; nothing if it is no real number. What is infinite is never closed.
fn end(expr: &Expr, closed: bool, budget: &mut Budget) -> Option<End> {
    let infinity = Expr::Constant(Constant::Infinity);
    if *expr == infinity {
        return Some(infinite(true));
    }
    if *expr == infinity.negative() {
        return Some(infinite(false));
    }
    let at = match exact(expr, &|_| None, budget).ok()? {
        Some(value) => value.to_f64()?,
        None => approx(expr, false, &|_| None, budget)?.re,
    };
    Some(End { at, value: Some(expr.clone()), closed })
}

/// Whether `a` ends so that `b`, which begins there or before, continues it.
fn touches(high: &End, low: &End) -> bool {
    low.at < high.at || low.at == high.at && (low.closed || high.closed)
}

fn union(mut a: Vec<Piece>, b: Vec<Piece>) -> Vec<Piece> {
    a.extend(b);
    a.sort_by(|a, b| a.low.at.total_cmp(&b.low.at).then(b.low.closed.cmp(&a.low.closed)));
    let mut pieces: Vec<Piece> = Vec::new();
    for piece in a {
        match pieces.last_mut() {
            Some(last) if touches(&last.high, &piece.low) => {
                let longer = piece.high.at > last.high.at || piece.high.at == last.high.at && piece.high.closed;
                if longer {
                    last.high = piece.high;
                }
            }
            _ => pieces.push(piece),
        }
    }
    pieces
}

fn complement(pieces: Vec<Piece>) -> Vec<Piece> {
    let flipped = |end: End| End { closed: !end.closed && end.value.is_some(), ..end };
    let mut gaps = Vec::new();
    let mut low = Some(infinite(false));
    for piece in pieces {
        if let Some(low) = low.take().filter(|_| piece.low.value.is_some()) {
            gaps.push(Piece { low, high: flipped(piece.low) });
        }
        low = piece.high.value.is_some().then(|| flipped(piece.high));
    }
    gaps.extend(low.map(|low| Piece { low, high: infinite(true) }));
    gaps
}

fn intersection(a: Vec<Piece>, b: Vec<Piece>) -> Vec<Piece> {
    complement(union(complement(a), complement(b)))
}
