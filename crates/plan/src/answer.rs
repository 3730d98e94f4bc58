//! Answers: facts, tables, assumptions and a picture, as plain data that can be printed, written as JSON or drawn.

use std::fmt::Write;

use serde::Serialize;

use crate::assumption::Assumption;
pub use crate::number::{grouped, quantity};
use crate::picture::Picture;

/// An answer to a question.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// The question, in words.
    pub question: String,
    /// Its numbers.
    pub facts: Vec<Fact>,
    /// What has rows.
    pub tables: Vec<Table>,
    /// What to know beside the numbers.
    pub notes: Vec<String>,
    /// What the numbers rest on.
    pub assumptions: Vec<Assumption>,
    /// The numbers as a picture.
    pub picture: Picture,
}

/// A number of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fact {
    /// What it is.
    pub name: String,
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// What was published for it, if anything.
    pub published: Option<Published>,
}

/// A published number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Published {
    /// The number.
    pub value: f64,
    /// Where it is published.
    pub source: String,
}

/// Rows under a heading.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// Names of columns.
    pub columns: Vec<String>,
    /// Cells, as printed.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new<const N: usize>(title: &str, columns: [&str; N]) -> Self {
        Self { title: title.to_owned(), columns: columns.map(str::to_owned).to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    fn text(&self, out: &mut String) {
        let cells = || std::iter::once(&self.columns).chain(&self.rows);
        let width =
            |column: usize| cells().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        // Columns of numbers stand to the right.
        let number = |column: usize| {
            let filled = self.rows.iter().filter_map(|row| row.get(column)).filter(|cell| cell.as_str() != "-");
            let mut starts = filled.map(|cell| cell.starts_with(|c: char| c.is_ascii_digit() || c == '$')).peekable();
            starts.peek().is_some() && starts.all(|digit| digit)
        };
        let right: Vec<bool> = (0..self.columns.len()).map(number).collect();
        let _ = writeln!(out, "\n{}", self.title);
        for row in cells() {
            let mut line = String::from("  ");
            for (i, cell) in row.iter().enumerate() {
                let gap = " ".repeat(widths[i].saturating_sub(cell.chars().count()));
                let _ = if right[i] { write!(line, "{gap}{cell}  ") } else { write!(line, "{cell}{gap}  ") };
            }
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
}

impl Answer {
    /// An answer without anything.
    pub fn new(question: impl Into<String>) -> Self {
        Self {
            question: question.into(),
            facts: Vec::new(),
            tables: Vec::new(),
            notes: Vec::new(),
            assumptions: Vec::new(),
            picture: Picture::default(),
        }
    }

    /// Adds a number.
    pub fn fact(&mut self, name: &str, value: f64, unit: &str) -> &mut Self {
        self.facts.push(Fact { name: name.to_owned(), value, unit: unit.to_owned(), published: None });
        self
    }

    /// Adds a number that was published too.
    pub fn checked(&mut self, name: &str, value: f64, unit: &str, published: f64, source: &str) -> &mut Self {
        self.fact(name, value, unit);
        if let Some(fact) = self.facts.last_mut() {
            fact.published = Some(Published { value: published, source: source.to_owned() });
        }
        self
    }

    /// The number of a name.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.facts.iter().find(|fact| fact.name == name).map(|fact| fact.value)
    }

    /// The answer for a person.
    pub fn text(&self) -> String {
        let mut out = format!("{}\n", self.question);
        if !self.facts.is_empty() {
            out.push('\n');
        }
        let width = self.facts.iter().map(|fact| fact.name.chars().count()).max().unwrap_or(0);
        for Fact { name, value, unit, published } in &self.facts {
            let told = quantity(*value, unit);
            let _ = write!(out, "  {name:<width$}  {told}");
            if let Some(Published { value: printed, source }) = published {
                let off = 100.0 * (value / printed - 1.0);
                let _ = write!(out, "   published {} ({off:+.2} %; {source})", quantity(*printed, unit));
            }
            out.push('\n');
        }
        self.tables.iter().for_each(|table| table.text(&mut out));
        let picture = self.picture.text();
        if !picture.is_empty() {
            let _ = write!(out, "\n{picture}");
        }
        for note in &self.notes {
            let _ = write!(out, "\n{note}\n");
        }
        if !self.assumptions.is_empty() {
            out.push_str("\nRests on (change with --set NAME=VALUE)\n");
        }
        // Under each source what comes from it, in the order of first use.
        for (i, Assumption { source, .. }) in self.assumptions.iter().enumerate() {
            if self.assumptions[..i].iter().any(|before| before.source == *source) {
                continue;
            }
            let _ = writeln!(out, "  {source}");
            for Assumption { name, value, unit, .. } in self.assumptions.iter().filter(|a| a.source == *source) {
                let _ = writeln!(out, "      {name} = {}", quantity(*value, unit));
            }
        }
        out.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_people_read_them() {
        for (value, unit, told) in [
            (5_576_000.0, "USD", "$5,576,000"),
            (0.0378, "USD", "$0.0378"),
            (70_272.0, "bytes", "70.27 kB"),
            (989.5e12, "FLOP/s", "989.5 TFLOP/s"),
            (0.3891, "share", "38.9 %"),
            (19.952, "s", "19.95 s"),
            (0.00012096, "s", "121 us"),
            (671_026_419_200.0, "parameters", "671,026,419,200 parameters"),
            (-1.5, "", "-1.5"),
        ] {
            assert_eq!(quantity(value, unit), told);
        }
    }

    #[test]
    fn an_answer_is_text_with_its_assumptions_below() {
        let mut answer = Answer::new("What?");
        answer.checked("hours", 180.2, "h", 180.0, "V3").fact("price", 2.0, "USD");
        let mut table = Table::new("Rows", ["name", "count"]);
        table.row(["a".into(), "10".into()]);
        table.row(["bb".into(), "7".into()]);
        answer.tables.push(table);
        let text = answer.text();
        assert!(text.contains("  hours  180.2 h   published 180 h (+0.11 %; V3)"), "{text}");
        assert!(text.contains("  name  count\n  a        10\n  bb        7"), "{text}");
        assert_eq!(answer.value("price"), Some(2.0));
    }
}
