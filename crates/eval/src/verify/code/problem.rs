//! Problems whose answers are programs, in the two forms that are published.

use serde::Deserialize;

use super::values::Value;

/// A problem: what the program has to define, and how that is tested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeProblem {
    /// The beginning of the program, if the problem gives one: imports, helpers, and the function up to its description.
    pub prompt: String,
    /// The name of the function that is asked for.
    pub entry_point: String,
    /// Its tests.
    pub tests: Tests,
}

/// Tests of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tests {
    /// Code that defines `check(candidate)`, as in HumanEval; helpers of the prompt are at hand.
    Check(String),
    /// Statements, as in MBPP: some that prepare, then those that each are a test.
    Asserts {
        /// What is run before.
        setup: String,
        /// The tests.
        asserts: Vec<String>,
    },
}

#[derive(Deserialize)]
struct HumanEvalRow {
    prompt: String,
    entry_point: String,
    test: String,
}

#[derive(Deserialize)]
struct MbppRow {
    test_setup_code: String,
    test_list: Vec<String>,
}

impl CodeProblem {
    /// A line of HumanEval's file.
    ///
    /// # Errors
    /// If it is no such line.
    pub fn human_eval(line: &str) -> Result<Self, serde_json::Error> {
        let row: HumanEvalRow = serde_json::from_str(line)?;
        Ok(Self { prompt: row.prompt, entry_point: row.entry_point, tests: Tests::Check(row.test) })
    }

    /// A line of MBPP's file. The function is the first that the first test calls and that Python does not have, or
    /// the first of Python's that it replaces.
    ///
    /// # Errors
    /// If it is no such line.
    pub fn mbpp(line: &str) -> Result<Self, serde_json::Error> {
        let row: MbppRow = serde_json::from_str(line)?;
        Self::asserts(row.test_setup_code, row.test_list)
            .ok_or_else(|| <serde_json::Error as serde::de::Error>::custom("the first test calls no function"))
    }

    /// The problem of statements, some that prepare and some that each are a test; nothing if the first test calls no function.
    pub fn asserts(setup: String, asserts: Vec<String>) -> Option<Self> {
        let entry_point = called(asserts.first()?)?;
        Some(Self { prompt: String::new(), entry_point, tests: Tests::Asserts { setup, asserts } })
    }

    /// What the process with the tests reads of them: whether a case is a call, what to run before the tests, the tests, the
    /// name of the function.
    pub(super) fn for_judge(&self) -> Vec<Value> {
        let list = |cases: &[String]| Value::List(cases.iter().map(|case| Value::text(case)).collect());
        let (by_call, setup, cases) = match &self.tests {
            Tests::Check(code) => (true, &self.prompt, list(&[code.clone(), format!("check({})", self.entry_point)])),
            Tests::Asserts { setup, asserts } => (false, setup, list(asserts)),
        };
        vec![Value::Bool(by_call), Value::text(setup), cases, Value::text(&self.entry_point)]
    }
}

/// Functions of Python's own that tests wrap around the one in question.
const BUILT_IN: [&str; 21] = [
    "abs",
    "all",
    "any",
    "bool",
    "dict",
    "float",
    "frozenset",
    "int",
    "isclose",
    "isinstance",
    "len",
    "list",
    "max",
    "min",
    "round",
    "set",
    "sorted",
    "str",
    "sum",
    "tuple",
    "type",
];

/// The first name that a test calls and that is not [`BUILT_IN`]; the first of those, if it calls no other.
fn called(test: &str) -> Option<String> {
    let names: Vec<&str> = test.match_indices('(').filter_map(|(at, _)| name_before(&test[..at])).collect();
    let own = names.iter().find(|name| !BUILT_IN.contains(name));
    own.or(names.first()).map(|name| (*name).to_owned())
}

/// The name at the end of a text, if it is not a word of the language.
fn name_before(text: &str) -> Option<&str> {
    let text = text.trim_end();
    let name = &text[text.trim_end_matches(|c: char| c.is_alphanumeric() || c == '_').len()..];
    (!name.is_empty() && !["assert", "not", "and", "or", "in"].contains(&name)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_of_a_test_is_found() {
        for (test, name) in [
            ("assert min_cost([[1, 2]], 2) == 8", Some("min_cost")),
            ("assert set(similar((3, 4),(5, 7))) == set((4, 5))", Some("similar")),
            ("assert (max_height(root)) == 3", Some("max_height")),
            ("assert not is_even (3)", Some("is_even")),
            ("assert math.isclose(volume(3), 9.0, rel_tol=0.001)", Some("volume")),
            ("assert sum(10,15) == 6", Some("sum")),
            ("assert 1 == 1", None),
            ("assert (1, 2) == (1, 2)", None),
        ] {
            assert_eq!(called(test).as_deref(), name, "{test}");
        }
    }

    #[test]
    fn lines_of_other_files_are_refused() {
        assert!(CodeProblem::human_eval("{}").is_err() && CodeProblem::mbpp("[]").is_err());
        assert!(CodeProblem::mbpp(r#"{"test_setup_code": "", "test_list": []}"#).is_err());
    }
}
