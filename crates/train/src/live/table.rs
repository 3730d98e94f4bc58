//! The lines of a log of numbers as columns.

use serde::Serialize;
use serde_json::{Map, Value};

use super::follow::Sink;
use crate::metric;

/// Most names of numbers that are kept of one file; a run writes some dozens.
const COLUMNS: usize = 512;
/// Most lines of a file in one answer.
const LINES: usize = 4000;

/// The numbers of a log, line by line.
#[derive(Debug, Default)]
pub(super) struct Table {
    steps: Vec<u64>,
    columns: Vec<(String, Vec<f32>)>,
    /// How often the file began anew.
    pub restarts: u64,
    /// Lines that are damaged: how many, and the number of the first.
    pub damaged: Option<(usize, usize)>,
    /// The newest line that is whole.
    pub newest: Option<Map<String, Value>>,
}

/// Lines of a log, from one behind those that were known to one behind the last here.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lines {
    /// Number of the first line here.
    pub from: usize,
    /// One behind the last here.
    pub to: usize,
    /// How many the file has.
    pub total: usize,
    /// The step of each.
    pub steps: Vec<u64>,
    /// The numbers of each name, `null` where a line has none. They have the precision of `f32`.
    pub columns: Vec<(String, Vec<Option<f32>>)>,
}

/// The numbers of a stage that somebody does not have yet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// Changes when a file begins anew, and what was known is void.
    pub generation: u64,
    /// `metrics.jsonl`
    pub metrics: Lines,
    /// `timings.jsonl`
    pub timings: Lines,
}

impl Table {
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// The step of a line.
    pub fn step(&self, line: usize) -> u64 {
        self.steps[line]
    }

    /// A number of a line.
    pub fn number(&self, line: usize, name: &str) -> Option<f64> {
        let (_, values) = self.columns.iter().find(|(have, _)| have == name)?;
        Some(f64::from(values[line])).filter(|value| value.is_finite())
    }

    /// The lines behind the first `known`, some thousands at most.
    pub fn lines(&self, known: usize) -> Lines {
        let from = known.min(self.len());
        let to = self.len().min(from + LINES);
        let column = |(name, values): &(String, Vec<f32>)| {
            let values = &values[from..to];
            let some = values.iter().any(|value| value.is_finite());
            some.then(|| (name.clone(), values.iter().map(|value| value.is_finite().then_some(*value)).collect()))
        };
        Lines {
            from,
            to,
            total: self.len(),
            steps: self.steps[from..to].to_vec(),
            columns: self.columns.iter().filter_map(column).collect(),
        }
    }

    /// The last numbers of a name, newest first.
    pub fn newest_of(&self, name: &str) -> impl Iterator<Item = f32> {
        let found = self.columns.iter().find(|(have, _)| have == name);
        found.into_iter().flat_map(|(_, values)| values.iter().rev().copied().filter(|value| value.is_finite()))
    }

    /// The sum of the numbers of a name.
    pub fn sum(&self, name: &str) -> f64 {
        self.newest_of(name).map(f64::from).sum()
    }

    /// The step behind the newest one.
    pub fn steps_done(&self) -> u64 {
        self.steps.last().map_or(0, |step| step + 1)
    }

    fn push(&mut self, line: &Map<String, Value>, step: u64) {
        let index = self.steps.len();
        self.steps.push(step);
        for (_, values) in &mut self.columns {
            values.push(f32::NAN);
        }
        let mut expected = 0;
        for (name, value) in line.iter().filter(|(name, _)| *name != metric::STEP) {
            let Some(value) = value.as_f64() else { continue };
            // Lines have the same names in the same order, nearly always.
            let found = match self.columns.get(expected) {
                Some((have, _)) if have == name => Some(expected),
                _ => self.columns.iter().position(|(have, _)| have == name),
            };
            let place = match found {
                Some(place) => place,
                None if self.columns.len() == COLUMNS => continue,
                None => {
                    self.columns.push((name.clone(), vec![f32::NAN; index + 1]));
                    self.columns.len() - 1
                }
            };
            self.columns[place].1[index] = value as f32;
            expected = place + 1;
        }
    }
}

impl Sink for Table {
    fn restart(&mut self) {
        *self = Self { restarts: self.restarts + 1, ..Self::default() };
    }

    fn line(&mut self, _: u64, number: usize, text: &[u8]) {
        let line: Option<Map<String, Value>> = serde_json::from_slice(text).ok();
        let whole = line.and_then(|line| Some((line.get(metric::STEP)?.as_u64()?, line)));
        match whole {
            Some((step, line)) => {
                self.push(&line, step);
                self.newest = Some(line);
            }
            None => count_damaged(&mut self.damaged, number),
        }
    }
}

/// Counts one more damaged line.
pub(super) fn count_damaged(damaged: &mut Option<(usize, usize)>, number: usize) {
    damaged.get_or_insert((0, number)).0 += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(lines: &[&str]) -> Table {
        let mut table = Table::default();
        lines.iter().enumerate().for_each(|(i, line)| table.line(0, i + 1, line.as_bytes()));
        table
    }

    #[test]
    fn lines_become_columns_and_a_damaged_one_is_counted() {
        let table = table(&[
            "{\"step\":0,\"loss\":0.5,\"note\":\"text\",\"reward\":null}",
            "{\"step\":1,\"lo",
            "{\"step\":2,\"reward\":1,\"loss\":0.25}",
            "[1]",
            "{\"loss\":0.1}",
        ]);
        assert_eq!((table.damaged, table.steps_done()), (Some((3, 2)), 3));
        let lines = table.lines(0);
        assert_eq!((lines.from, lines.to, lines.total, lines.steps), (0, 2, 2, vec![0, 2]));
        let expected = [("loss", vec![Some(0.5), Some(0.25)]), ("reward", vec![None, Some(1.0)])];
        assert_eq!(lines.columns, expected.map(|(name, values)| (name.to_owned(), values)));
        assert_eq!(table.lines(1).columns.len(), 2);
        assert_eq!((table.lines(2).steps.len(), table.lines(99).from), (0, 2));
        assert_eq!(table.newest_of("loss").collect::<Vec<_>>(), [0.25, 0.5]);
    }

    #[test]
    fn many_lines_come_in_several_answers() {
        let texts: Vec<String> = (0..LINES + 5).map(|step| format!("{{\"step\":{step},\"loss\":1}}")).collect();
        let table = table(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let first = table.lines(0);
        assert_eq!((first.to, first.total), (LINES, LINES + 5));
        assert_eq!(table.lines(first.to).steps.len(), 5);
    }
}
