//! Is the answer to a problem of mathematics right?
//!
//! A text is read ([`read()`]), its answer parsed and compared with the gold. How:
//!
//! - where the answer stands in a text: `read`;
//! - what is mathematics: `lex`, `parse`, `unit`; what it can be: `value`;
//! - what a gold accepts, and where gold and answer have different rules: `equal`;
//! - when two scalars are equal, exactly or in floating point: `scalar`, `exact`, `numeric`; two sets of reals: `region`;
//! - how much work is done: `budget`. A verdict is a function of its two texts on every machine.
//!
//! What is not read (integrals, limits, congruences, number words) is wrong as an answer and unusable as a gold.

mod budget;
mod equal;
mod exact;
mod lex;
mod numeric;
mod parse;
mod read;
mod region;
mod scalar;
mod unit;
mod value;

pub(super) use read::letter;
pub use read::{Answer, Source, read};

use crate::Verdict;
use budget::Budget;
use value::{Expr, Value};

/// A right answer, parsed once to judge many texts.
#[derive(Clone, Debug)]
pub struct Gold {
    value: Value,
    /// The letter of a choice, if the gold is one.
    letter: Option<char>,
}

impl Gold {
    /// The gold that a text gives: an expression, or a solution that ends in one; nothing if it is no answer, or undefined.
    pub fn parse(text: &str) -> Option<Self> {
        let mut budget = Budget::new();
        let solution = text.contains("\\boxed") || text.contains("####");
        let whole = if solution { None } else { value_of(text, &mut budget) };
        let value = match whole {
            Some(value) => value,
            None => {
                let answer = read::read_within(text, &mut budget)?;
                // A gold that is no expression has to say where its answer is.
                let said = !matches!(answer.source, Source::Whole | Source::Last) || text.contains(['$', '\n']);
                value_of(&answer.text, &mut budget).filter(|_| said)?
            }
        };
        let letter = match &value {
            Value::Scalar(Expr::Symbol(name)) if name.len() == 1 => name.chars().find(char::is_ascii_uppercase),
            _ => None,
        };
        Some(Self { value, letter })
    }

    /// The verdict on a text: what a model says behind its thought.
    pub fn judge(&self, text: &str) -> Verdict {
        let mut budget = Budget::new();
        let right = read::read_within(text, &mut budget).is_some_and(|answer| self.accepts(&answer.text, &mut budget));
        if right { Verdict::Right } else { Verdict::Wrong }
    }

    fn accepts(&self, answer: &str, budget: &mut Budget) -> bool {
        if self.letter.is_some() && letter(answer) == self.letter {
            return true;
        }
        if let Some(value) = value_of(answer, budget)
            && equal::equal(&self.value, &value, budget)
        {
            return true;
        }
        self.is_decimal_comma(answer, budget)
    }

    /// `1,22` as it is written where a comma is the decimal point: only for a gold that has one.
    fn is_decimal_comma(&self, answer: &str, budget: &mut Budget) -> bool {
        let decimal = |value: &Value| matches!(value, Value::Scalar(expr) if expr.literal().is_some_and(|number| number.places.is_some()));
        let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        let Some((whole, places)) = answer.trim().split_once(',') else { return false };
        if !decimal(&self.value) || !digits(whole.trim_start_matches('-')) || !digits(places) {
            return false;
        }
        value_of(&format!("{whole}.{places}"), budget).is_some_and(|value| equal::equal(&self.value, &value, budget))
    }
}

/// The verdict on a text: right if it answers what the gold says, by the rules at the head of this module.
///
/// # Paper
/// - R1 2.2.2 (accuracy reward: a rule decides)
/// - Test: crates/eval/src/verify/math/tests.rs::the_table_holds
///
/// # Examples
/// ```
/// use minke_eval::{Verdict, verify::math::judge};
/// assert_eq!(judge("\\frac{1}{2}", "The probability is 2/4."), Verdict::Right);
/// assert_eq!(judge("1/3", "\\boxed{0.333}"), Verdict::Wrong);
/// assert_eq!(judge("4", "It is 3 or 4."), Verdict::Wrong);
/// assert_eq!(judge("1/0", "1"), Verdict::GoldUnusable);
/// ```
pub fn judge(gold: &str, text: &str) -> Verdict {
    match Gold::parse(gold) {
        Some(gold) => gold.judge(text),
        None => Verdict::GoldUnusable,
    }
}

/// The value of a text, none of whose parts is undefined.
fn value_of(text: &str, budget: &mut Budget) -> Option<Value> {
    let value = parse::value(text, budget)?;
    is_defined(&value, budget).then_some(value)
}

fn is_defined(value: &Value, budget: &mut Budget) -> bool {
    let mut scalar = |expr: &Expr| exact::constant(expr, budget).is_ok();
    match value {
        Value::Scalar(expr) | Value::Quantity(expr, _) => scalar(expr),
        Value::Interval { low, high, .. } => scalar(low) && scalar(high),
        Value::Matrix(rows) => rows.iter().flatten().all(scalar),
        Value::Ratio(parts) => parts.iter().all(scalar),
        Value::Tuple(parts) | Value::Set(parts) | Value::List(parts, _) => {
            parts.iter().all(|part| is_defined(part, budget))
        }
        Value::Union(parts) | Value::Intersection(parts) => parts.iter().all(|part| is_defined(part, budget)),
        Value::Chain { sides, .. } => sides.iter().all(|side| is_defined(side, budget)),
        Value::Difference(from, without) => is_defined(from, budget) && is_defined(without, budget),
        Value::Reals | Value::Based { .. } | Value::Text(_) => true,
    }
}

#[cfg(test)]
mod tests;
