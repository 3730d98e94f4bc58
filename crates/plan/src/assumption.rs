//! Assumptions: every number that an answer rests on and that does not follow from the model, with its source.
//!
//! A computation asks the [`Ledger`] for each number by name and hands it the default with its source. What was set by the
//! user takes the place of the default. In the end the ledger lists all that was asked for, and refuses what was set and
//! never asked for.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Error;
use crate::hardware::{Part, unit_of};

/// A number that an answer rests on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Assumption {
    /// The name by which it is set.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// The unit of the value.
    pub unit: String,
    /// Where the value comes from.
    pub source: String,
}

/// What was set by the user, and what was asked for.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    set: BTreeMap<String, f64>,
    used: Vec<Assumption>,
}

/// The source of what the user set.
const SET: &str = "set by you";

impl Ledger {
    /// A ledger with settings of the user, by name.
    pub fn new(set: impl IntoIterator<Item = (String, f64)>) -> Self {
        Self { set: set.into_iter().collect(), used: Vec::new() }
    }

    /// Settings from a TOML file of `name = value`; names of figures are quoted, as in `"h800.rent" = 1.5`.
    ///
    /// # Errors
    /// If the text is not TOML or a value is not a number.
    pub fn read_settings(file: &str, text: &str) -> Result<Vec<(String, f64)>, Error> {
        let table: BTreeMap<String, f64> = toml::from_str(text).map_err(|error| Error::Hardware {
            file: file.to_owned(),
            reason: format!("{}; write lines such as mfu = 0.35", error.message()),
        })?;
        Ok(table.into_iter().collect())
    }

    /// A positive number.
    ///
    /// # Errors
    /// If what was set is not positive.
    pub fn positive(&mut self, name: &str, default: f64, unit: &str, source: &str) -> Result<f64, Error> {
        self.number(name, default, unit, source, |value| value > 0.0, "must be a number above 0")
    }

    /// A number that is not negative.
    ///
    /// # Errors
    /// If what was set is negative.
    pub fn not_negative(&mut self, name: &str, default: f64, unit: &str, source: &str) -> Result<f64, Error> {
        self.number(name, default, unit, source, |value| value >= 0.0, "must be a number from 0 on")
    }

    /// A share, above 0 and at most 1.
    ///
    /// # Errors
    /// If what was set is none.
    pub fn share(&mut self, name: &str, default: f64, unit: &str, source: &str) -> Result<f64, Error> {
        self.number(name, default, unit, source, |v| v > 0.0 && v <= 1.0, "must be a share above 0 and at most 1")
    }

    fn number(
        &mut self,
        name: &str,
        default: f64,
        unit: &str,
        source: &str,
        holds: impl Fn(f64) -> bool,
        reason: &str,
    ) -> Result<f64, Error> {
        let (value, source) = self.set.get(name).map_or((default, source), |&value| (value, SET));
        if !value.is_finite() || !holds(value) {
            return Err(Error::invalid(name, value, reason));
        }
        self.record(name, value, unit, source);
        Ok(value)
    }

    /// A figure of a part, as its data file has it or as it was set (`h800.rent`).
    ///
    /// # Errors
    /// If it has no sourced value, or what was set is not positive.
    pub fn figure(&mut self, part: &Part, figure: &str) -> Result<f64, Error> {
        let unit = unit_of(figure).unwrap_or_default();
        let known = part.figures.get(figure);
        let name = format!("{}.{figure}", part.name);
        match (self.set.get(&name), known) {
            (None, None) => Err(Error::NoFigure { part: part.name.clone(), figure: figure.to_owned(), unit }),
            (Some(&value), None) => self.positive(&name, value, unit, SET),
            (_, Some(known)) => self.positive(&name, known.value, unit, &known.source),
        }
    }

    /// Whether a figure has a value.
    pub fn has(&self, part: &Part, figure: &str) -> bool {
        part.figures.contains_key(figure) || self.set.contains_key(&format!("{}.{figure}", part.name))
    }

    fn record(&mut self, name: &str, value: f64, unit: &str, source: &str) {
        if self.used.iter().any(|used| used.name == name) {
            return;
        }
        let (name, unit, source) = (name.to_owned(), unit.to_owned(), source.to_owned());
        self.used.push(Assumption { name, value, unit, source });
    }

    /// All that was asked for, in order.
    ///
    /// # Errors
    /// If something was set that was never asked for.
    pub fn finish(self) -> Result<Vec<Assumption>, Error> {
        match self.set.keys().find(|name| !self.used.iter().any(|used| &used.name == *name)) {
            Some(name) => Err(Error::unknown("assumption", name, self.used.iter().map(|used| used.name.as_str()))),
            None => Ok(self.used),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::Hardware;

    #[test]
    fn what_is_set_takes_the_place_of_the_default_and_says_so() {
        let mut ledger = Ledger::new([("mfu".to_owned(), 0.3)]);
        assert_eq!(ledger.share("mfu", 0.4, "", "a paper").unwrap(), 0.3);
        assert_eq!(ledger.positive("years", 3.0, "years", "a habit").unwrap(), 3.0);
        let used = ledger.finish().unwrap();
        assert_eq!((used[0].source.as_str(), used[1].source.as_str()), (SET, "a habit"));
    }

    #[test]
    fn unknown_names_and_wrong_values_are_refused() {
        let mut ledger = Ledger::new([("mfo".to_owned(), 0.3)]);
        ledger.share("mfu", 0.4, "", "a paper").unwrap();
        let error = ledger.finish().unwrap_err().to_string();
        assert_eq!(error, "assumption \"mfo\" is not known; known: mfu");
        for wrong in [0.0, 1.5, f64::NAN, f64::INFINITY] {
            let error = Ledger::new([("mfu".to_owned(), wrong)]).share("mfu", 0.4, "", "").unwrap_err();
            assert!(error.to_string().contains("must be a share"), "{error}");
        }
    }

    #[test]
    fn a_figure_without_a_source_is_refused_by_name_until_it_is_set() {
        let hardware = Hardware::known().unwrap();
        let l20 = hardware.part("l20").unwrap();
        let error = Ledger::default().figure(l20, "rent").unwrap_err().to_string();
        assert!(error.starts_with("l20: rent (USD/h) has no sourced value"), "{error}");
        let mut ledger = Ledger::new([("l20.rent".to_owned(), 0.5)]);
        assert_eq!(ledger.figure(l20, "rent").unwrap(), 0.5);
    }

    #[test]
    fn settings_are_read_from_toml() {
        let set = Ledger::read_settings("a.toml", "mfu = 0.35\n\"h800.rent\" = 1.5").unwrap();
        assert_eq!(set, [("h800.rent".to_owned(), 1.5), ("mfu".to_owned(), 0.35)]);
        assert!(Ledger::read_settings("a.toml", "mfu = 'much'").is_err());
    }
}
