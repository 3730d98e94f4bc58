//! When does an answer equal a gold? The rules that are not symmetric are those of what a problem asks for:
//!
//! - Gold `5`, answer `x = 5` or `2 + 3 = 5`: right. Gold `x = 5`, answer `5`: right if the gold names one thing, wrong for
//!   an equation such as `x^2 + y^2 = 5`. Gold `x = 5`, answer `y = 5`: wrong.
//! - `a ≈ b` says `a`; for a decimal gold also `b`.
//! - Gold `0.333`, answer `1/3`: right, since the gold is what it rounds to; gold `1/3`, answer `0.333`: wrong.
//! - Gold `28%`, answer `28` or `0.28`: right; gold `28`, answer `28%`: right; gold `0.28`, answer `28`: wrong.
//! - A unit that one side leaves out changes nothing; two units are converted, and wrong if they measure different things.
//! - Sets and lists (`2, 3`; `2 or 3`) have no order, tuples and vectors have; a list may stand for a tuple.
//! - One gold, several answers: wrong, unless all of them are right.
//! - Equations are equal if one is a multiple of the other, inequalities and intervals if they mean the same numbers.
//! - Words are compared without regard to case and punctuation.

use super::budget::Budget;
use super::parse::is_named;
use super::region::{is_region, same_region};
use super::scalar::{proportional, rounds_to, same};
use super::unit::{Kind, Unit};
use super::value::{Expr, Function, Relation, Value, plain_words};

/// Whether an answer is right.
pub(super) fn equal(gold: &Value, answer: &Value, budget: &mut Budget) -> bool {
    if budget.spend(2).is_none() {
        return false;
    }
    if let (Value::Chain { .. }, Value::Chain { .. }) = (gold, answer) {
        return same_chains(gold, answer, budget);
    }
    if let Some(results) = results(answer).filter(|_| !is_chain(gold)) {
        let decimal =
            matches!(gold, Value::Scalar(expr) if expr.literal().is_some_and(|number| number.places.is_some()));
        return results.into_iter().take(if decimal { 2 } else { 1 }).any(|result| equal(gold, result, budget));
    }
    if let Some(result) = assigned(gold).filter(|_| !matches!(answer, Value::Chain { .. })) {
        return equal(result, answer, budget);
    }
    if is_region(gold) || is_region(answer) {
        return match same_region(gold, answer, budget) {
            Some(same) => same,
            None => same_structure(gold, answer, budget),
        };
    }
    same_structure(gold, answer, budget)
}

/// Whether a relation is one of equality throughout.
fn is_chain(value: &Value) -> bool {
    matches!(value, Value::Chain { .. })
}

/// What a chain of equalities comes to: its last side, or the one in front of `≈` and then the last.
fn results(value: &Value) -> Option<Vec<&Value>> {
    let Value::Chain { sides, links } = value else { return None };
    if let [Value::Scalar(Expr::Symbol(_)), set] = &sides[..]
        && links[..] == [Relation::In]
        && !is_region(set)
    {
        return Some(vec![set]);
    }
    if !links.iter().all(|link| matches!(link, Relation::Equal | Relation::Approx)) {
        return None;
    }
    let name = |value: &Value| matches!(value, Value::Scalar(Expr::Symbol(_)));
    let last = sides.last()?;
    if name(last) {
        // `5 = x`
        return (!sides[0].scalar()?.has_symbols()).then(|| vec![&sides[0]]);
    }
    // `4 = 5` is two answers.
    if sides[0].scalar().and_then(Expr::literal).is_some() && links[0] == Relation::Equal {
        return None;
    }
    match links.iter().position(|link| *link == Relation::Approx) {
        Some(at) if !name(&sides[at]) => Some(vec![&sides[at], last]),
        _ => Some(vec![last]),
    }
}

/// What a gold of the form `x = ...`, `(x, y) = ...` or `AB = ...` gives its name to.
fn assigned(gold: &Value) -> Option<&Value> {
    let Value::Chain { sides, links } = gold else { return None };
    let constant = |side: &Value| side.scalar().is_some_and(|side| !side.has_symbols());
    let (first, last) = (sides.first()?, sides.last()?);
    if links[..] == [Relation::In] {
        return matches!(first, Value::Scalar(Expr::Symbol(_))).then_some(last);
    }
    if !links.iter().all(|link| *link == Relation::Equal) {
        return None;
    }
    if constant(first) && matches!(last, Value::Scalar(Expr::Symbol(_))) {
        return Some(first);
    }
    (is_name(first) || constant(first) && constant(last)).then_some(last)
}

/// Whether the left side of a gold names one thing, and is no equation to be fulfilled.
fn is_name(side: &Value) -> bool {
    let symbol = |value: &Value| matches!(value, Value::Scalar(Expr::Symbol(_)));
    match side {
        Value::Scalar(Expr::Symbol(_)) => true,
        Value::Scalar(expr) => is_named(expr),
        Value::Tuple(parts) => parts.iter().all(symbol),
        Value::Ratio(parts) => parts.iter().all(is_named),
        _ => false,
    }
}

fn same_chains(gold: &Value, answer: &Value, budget: &mut Budget) -> bool {
    let (Value::Chain { sides: gold_sides, links: gold_links }, Value::Chain { sides, links }) = (gold, answer) else {
        return false;
    };
    let equalities = |links: &[Relation]| links.iter().all(|link| matches!(link, Relation::Equal | Relation::Approx));
    if equalities(gold_links) != equalities(links) {
        return false;
    }
    if !equalities(links) {
        if let Some(same) = same_region(gold, answer, budget) {
            return same;
        }
        return same_comparisons((gold_sides, gold_links), (sides, links), budget);
    }
    let (Some(gold_last), Some(last)) = (gold_sides.last(), sides.last()) else { return false };
    // `x = 3.14` is rounded as `3.14` is.
    let named = |side: &Value| matches!(side, Value::Scalar(Expr::Symbol(_)));
    if named(&gold_sides[0]) && gold_sides[0] == sides[0] || !named(&gold_sides[0]) && gold_sides[0].scalar().is_none()
    {
        let left = equal(&gold_sides[0], &sides[0], budget);
        if left && equal(gold_last, last, budget) {
            return true;
        }
    }
    let difference =
        |left: &Value, right: &Value| Some(Expr::Sum(vec![left.scalar()?.clone(), right.scalar()?.clone().negative()]));
    match (difference(&gold_sides[0], gold_last), difference(&sides[0], last)) {
        (Some(gold), Some(answer)) if gold.has_symbols() => proportional(&gold, &answer, budget).is_some(),
        _ => false,
    }
}

/// Inequalities in several variables: the same ones in any order of their sides, or a multiple.
fn same_comparisons(gold: (&[Value], &[Relation]), answer: (&[Value], &[Relation]), budget: &mut Budget) -> bool {
    let turned = |link: Relation| match link {
        Relation::Less => Relation::Greater,
        Relation::LessEqual => Relation::GreaterEqual,
        Relation::Greater => Relation::Less,
        Relation::GreaterEqual => Relation::LessEqual,
        other => other,
    };
    if let ([gold_left, gold_right], [gold_link], [left, right], [link]) = (gold.0, gold.1, answer.0, answer.1) {
        let difference = |left: &Value, right: &Value| {
            Some(Expr::Sum(vec![left.scalar()?.clone(), right.scalar()?.clone().negative()]))
        };
        return match (difference(gold_left, gold_right), difference(left, right)) {
            (Some(gold), Some(answer)) => match proportional(&gold, &answer, budget) {
                Some(positive) => *gold_link == if positive { *link } else { turned(*link) },
                None => false,
            },
            _ => gold_link == link && equal(gold_left, left, budget) && equal(gold_right, right, budget),
        };
    }
    let mut matches = |sides: Vec<&Value>, links: Vec<Relation>| {
        gold.1 == links
            && gold.0.len() == sides.len()
            && gold.0.iter().zip(sides).all(|(gold, side)| equal(gold, side, budget))
    };
    matches(answer.0.iter().collect(), answer.1.to_vec())
        || matches(answer.0.iter().rev().collect(), answer.1.iter().rev().map(|link| turned(*link)).collect())
}

fn same_structure(gold: &Value, answer: &Value, budget: &mut Budget) -> bool {
    match (gold, answer) {
        (Value::List(golds, _), Value::List(answers, _)) => same_lists(golds, answers, budget),
        (Value::Set(golds), Value::Set(answers) | Value::List(answers, _)) => unordered(golds, answers, budget),
        (Value::List(golds, _), Value::Set(answers)) => unordered(golds, answers, budget),
        (Value::Tuple(golds), Value::Tuple(answers)) => ordered(golds, answers, budget),
        (Value::Tuple(golds), Value::List(answers, _)) => ordered(golds, &by_name(answers), budget),
        (Value::List(golds, _), Value::Tuple(answers)) => ordered(&by_name(golds), answers, budget),
        (Value::Matrix(rows), Value::Matrix(others)) => same_matrices(rows, others, budget),
        (Value::Matrix(rows), Value::Tuple(parts) | Value::List(parts, _))
        | (Value::Tuple(parts), Value::Matrix(rows)) => is_rows(rows, parts, budget),
        (
            Value::Interval { low, high, low_closed, high_closed },
            Value::Interval {
                low: other_low,
                high: other_high,
                low_closed: other_low_closed,
                high_closed: other_high_closed,
            },
        ) => {
            low_closed == other_low_closed
                && high_closed == other_high_closed
                && same(low, other_low, budget)
                && same(high, other_high, budget)
        }
        (Value::Union(golds), Value::Union(answers)) => unordered(golds, answers, budget),
        (Value::Intersection(golds), Value::Intersection(answers)) => unordered(golds, answers, budget),
        (Value::Difference(from, without), Value::Difference(other, others)) => {
            equal(from, other, budget) && equal(without, others, budget)
        }
        (Value::Set(golds), answer) if golds.len() == 1 => equal(&golds[0], answer, budget),
        (gold, Value::Set(answers)) if answers.len() == 1 => equal(gold, &answers[0], budget),
        (gold, Value::List(answers, _)) => answers.iter().all(|answer| equal(gold, answer, budget)),
        (Value::Ratio(parts), Value::Ratio(others)) => {
            parts.len() == others.len()
                && parts.iter().zip(others).all(|(part, other)| {
                    let product = |a: &Expr, b: &Expr| Expr::Product(vec![a.clone(), b.clone()]);
                    same(&product(part, &others[0]), &product(other, &parts[0]), budget)
                })
        }
        (Value::Ratio(parts), Value::Scalar(scalar)) | (Value::Scalar(scalar), Value::Ratio(parts)) => match &parts[..]
        {
            [above, below] => same(&Expr::Product(vec![above.clone(), below.clone().inverse()]), scalar, budget),
            _ => false,
        },
        (Value::Based { .. }, Value::Based { .. }) => gold == answer,
        (Value::Based { digits, .. }, Value::Scalar(expr)) | (Value::Scalar(expr), Value::Based { digits, .. }) => {
            matches!(expr, Expr::Number(number) if number.digits.as_ref().is_some_and(|other| other.trim_start_matches('0') == digits))
        }
        (Value::Reals, Value::Reals) => true,
        _ => {
            let word = |value: &Value| matches!(value, Value::Text(_) | Value::Scalar(Expr::Symbol(_)));
            let alike = (word(gold) || word(answer)) && words(gold).is_some() && words(gold) == words(answer);
            alike || same_quantities(gold, answer, budget)
        }
    }
}

/// The name that a part of a list gives to its value.
fn name_of(part: &Value) -> Option<String> {
    match part {
        Value::Chain { sides, .. } if is_name(&sides[0]) => Some(format!("{:?}", sides[0])),
        _ => None,
    }
}

/// Several golds that each name another thing have an order where the answer names none.
fn same_lists(golds: &[Value], answers: &[Value], budget: &mut Budget) -> bool {
    let mut names: Vec<String> = golds.iter().filter_map(name_of).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() == golds.len() && !answers.iter().any(is_chain) {
        return ordered(golds, answers, budget);
    }
    unordered(golds, answers, budget)
}

/// `y = 3, x = 2` in the order of the names; other lists as they are.
fn by_name(parts: &[Value]) -> Vec<Value> {
    let mut sorted = parts.to_vec();
    if parts.iter().all(|part| name_of(part).is_some()) {
        sorted.sort_by_key(name_of);
    }
    sorted
}

fn ordered(golds: &[Value], answers: &[Value], budget: &mut Budget) -> bool {
    golds.len() == answers.len() && golds.iter().zip(answers).all(|(gold, answer)| equal(gold, answer, budget))
}

/// Whether every gold has an answer and every answer a gold; how often one is said does not count.
fn unordered(golds: &[Value], answers: &[Value], budget: &mut Budget) -> bool {
    let mut found = vec![false; golds.len()];
    for answer in answers {
        let mut any = false;
        for (gold, found) in golds.iter().zip(&mut found) {
            if equal(gold, answer, budget) {
                (any, *found) = (true, true);
            }
        }
        if !any {
            return false;
        }
    }
    found.into_iter().all(|found| found)
}

fn same_matrices(rows: &[Vec<Expr>], others: &[Vec<Expr>], budget: &mut Budget) -> bool {
    rows.len() == others.len()
        && rows.iter().zip(others).all(|(row, other)| {
            row.len() == other.len() && row.iter().zip(other).all(|(entry, other)| same(entry, other, budget))
        })
}

/// Whether a tuple has the entries of a column, or tuples of the entries of each row.
fn is_rows(rows: &[Vec<Expr>], parts: &[Value], budget: &mut Budget) -> bool {
    let entries = |row: &[Expr]| row.iter().cloned().map(Value::Scalar).collect::<Vec<_>>();
    rows.len() == parts.len()
        && rows.iter().zip(parts).all(|(row, part)| match part {
            Value::Tuple(parts) => ordered(&entries(row), parts, budget),
            Value::Interval { low, high, low_closed: true, high_closed: true } => {
                ordered(&entries(row), &entries(&[low.clone(), high.clone()]), budget)
            }
            Value::Scalar(expr) => row.len() == 1 && same(&row[0], expr, budget),
            _ => false,
        })
}

/// The words of a value that has nothing else: `cat` in mathematics is a product of three variables.
fn words(value: &Value) -> Option<String> {
    match value {
        Value::Text(words) => Some(words.clone()),
        Value::Scalar(Expr::Symbol(name)) => Some(plain_words(name)).filter(|words| words.len() > 1),
        Value::Scalar(Expr::Product(parts)) => {
            let letter = |part: &Expr| match part {
                Expr::Symbol(name) if name.len() == 1 => Some(name.to_lowercase()),
                Expr::Constant(super::value::Constant::E) => Some("e".to_string()),
                Expr::Constant(super::value::Constant::I) => Some("i".to_string()),
                _ => None,
            };
            parts.iter().map(letter).collect::<Option<String>>()
        }
        _ => None,
    }
}

/// Numbers with percent signs, degrees and units on either side or on none.
fn same_quantities(gold: &Value, answer: &Value, budget: &mut Budget) -> bool {
    let parts = |value: &Value| match value {
        Value::Scalar(expr) => Some((expr.clone(), None)),
        Value::Quantity(expr, unit) => Some((expr.clone(), Some(*unit))),
        _ => None,
    };
    let (Some((gold, gold_unit)), Some((answer, answer_unit))) = (parts(gold), parts(answer)) else { return false };
    match (gold_unit, answer_unit) {
        (Some(unit), Some(other)) if unit != other => {
            let converts = unit.kind == other.kind && unit.power == other.power && unit.kind != Kind::HalfOfDay;
            converts && same(&in_smallest(gold, unit), &in_smallest(answer, other), budget)
        }
        _ => same_scalars(&gold, &answer, budget),
    }
}

fn in_smallest(expr: Expr, unit: Unit) -> Expr {
    let factor = num_rational::BigRational::new(unit.factor.0.into(), unit.factor.1.into());
    let power = Expr::Power(Box::new(Expr::rational(factor)), Box::new(Expr::integer(i64::from(unit.power))));
    Expr::Product(vec![expr, power])
}

fn same_scalars(gold: &Expr, answer: &Expr, budget: &mut Budget) -> bool {
    let marked = |expr: &Expr| {
        let (minus, inside) = match expr {
            Expr::Product(parts) => match &parts[..] {
                [minus, Expr::Call(function, of)] if *minus == Expr::integer(-1) => (true, Some((*function, of))),
                _ => (false, None),
            },
            Expr::Call(function, of) => (false, Some((*function, of))),
            _ => (false, None),
        };
        let (function, of) = inside.filter(|(function, _)| matches!(function, Function::Percent | Function::Degree))?;
        Some((function, if minus { of[0].clone().negative() } else { of[0].clone() }))
    };
    match (marked(gold), marked(answer)) {
        // The sign may be left out, or be taken at its word.
        (Some((_, inside)), None) if same(&inside, answer, budget) => true,
        (None, Some((_, inside))) if same(gold, &inside, budget) => true,
        (Some((function, gold)), Some((other, answer))) if function == other => same_scalars(&gold, &answer, budget),
        _ => same(gold, answer, budget) || gold.literal().is_some_and(|gold| rounds_to(answer, &gold, budget)),
    }
}
