//! What came of a program, in words.

use std::fmt;
use std::time::Duration;

use minke_sys::confine::How;

use super::problem::CodeProblem;
use super::sandbox::{Outcome, Sandbox};
use super::values::Value;
use crate::Result;
use crate::Verdict;

/// A verdict with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// CPU time of the program itself.
    pub cpu: Duration,
}

/// Why a program is right or wrong. A case is the number of a call where tests are one function, of a test where they are a
/// list, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// All tests passed.
    Passed {
        /// Calls of the program.
        calls: u64,
    },
    /// It cannot be parsed.
    Syntax {
        /// Line of the program.
        line: Option<u64>,
        /// What Python says.
        message: String,
    },
    /// It does not define what the tests need.
    Undefined {
        /// The name.
        name: String,
    },
    /// It raised an exception.
    Raised {
        /// Name of the exception.
        name: String,
        /// Its message.
        message: String,
        /// Line of the program, if it was one of its own.
        line: Option<u64>,
        /// The case; nothing if the program did not get as far as the tests.
        case: Option<u64>,
    },
    /// A result is not what a test expects.
    WrongResult {
        /// The case.
        case: u64,
        /// The last call and what it gave.
        detail: String,
    },
    /// A result is not plain data, or more than can be passed on.
    NotPlain {
        /// The case.
        case: Option<u64>,
        /// What is wrong with it.
        detail: String,
    },
    /// It took more CPU time than there is.
    CpuTime,
    /// It waited longer than the clock allows.
    WallTime,
    /// Its process ended, or closed its connection, before the tests did.
    Ended {
        /// How it ended.
        how: How,
    },
    /// The tests did not come to an end with what it returned.
    TestsEnded {
        /// How their process ended.
        how: How,
    },
    /// The tests themselves do not work.
    Unusable {
        /// Why.
        detail: String,
    },
}

impl Sandbox {
    /// The verdict on a program. Right is what passes every test; what the tests are at fault for is
    /// [`Verdict::GoldUnusable`].
    ///
    /// # Errors
    /// If the processes cannot be started or watched. What the program does is no error.
    pub fn judge(&self, problem: &CodeProblem, program: &str) -> Result<Report> {
        let outcome = self.run(program, problem.for_judge())?;
        let reason = reason(&outcome, self.config.cpu_s);
        let verdict = match reason {
            Reason::Passed { .. } => Verdict::Right,
            Reason::Unusable { .. } => Verdict::GoldUnusable,
            _ => Verdict::Wrong,
        };
        Ok(Report { verdict, reason, cpu: outcome.program.cpu })
    }
}

fn reason(outcome: &Outcome, cpu_s: u64) -> Reason {
    if outcome.over_time {
        return Reason::WallTime;
    }
    let Some(verdict) = &outcome.verdict else {
        return Reason::TestsEnded { how: outcome.judge.how };
    };
    let number = |at: usize| match verdict.get(at) {
        Some(Value::Int(number)) => u64::try_from(*number).ok(),
        _ => None,
    };
    let text = |at: usize| match verdict.get(at) {
        Some(Value::Text(text)) => text.clone(),
        _ => String::new(),
    };
    match text(0).as_str() {
        "right" => Reason::Passed { calls: number(1).unwrap_or_default() },
        "missing" => Reason::Undefined { name: text(1) },
        "raised"
            if ["SyntaxError", "IndentationError", "TabError"].contains(&text(2).as_str()) && number(1).is_none() =>
        {
            Reason::Syntax { line: number(4), message: text(3) }
        }
        "raised" => Reason::Raised { name: text(2), message: text(3), line: number(4), case: number(1) },
        "wrong" => Reason::WrongResult { case: number(1).unwrap_or_default(), detail: text(2) },
        "reply" => Reason::NotPlain { case: number(1), detail: text(2) },
        "gone" if outcome.program.how == How::Signalled(KILL) && outcome.program.cpu >= limit(cpu_s) => Reason::CpuTime,
        "gone" => Reason::Ended { how: outcome.program.how },
        "unusable" => Reason::Unusable { detail: text(1) },
        _ => Reason::TestsEnded { how: outcome.judge.how },
    }
}

/// The signal that cannot be caught, on every Linux.
const KILL: i32 = 9;

/// CPU time from which on the kernel may have ended a process for it: its limit counts whole ticks of the clock, which are more than
/// what was measured. Half is far from both.
fn limit(cpu_s: u64) -> Duration {
    Duration::from_secs(cpu_s) / 2
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |line: &Option<u64>| line.map_or(String::new(), |line| format!(" in line {line}"));
        let on = |case: &Option<u64>| case.map_or(" before the tests".into(), |case| format!(" on case {case}"));
        match self {
            Self::Passed { calls } => write!(f, "passed, {calls} calls"),
            Self::Syntax { line, message } => write!(f, "syntax error{}: {message}", at(line)),
            Self::Undefined { name } => write!(f, "`{name}` is not defined"),
            Self::Raised { name, message, line, case } => {
                let forbidden = if name == "PermissionError" { "forbidden: " } else { "" };
                write!(f, "{forbidden}{name}{}{}: {message}", at(line), on(case))
            }
            Self::WrongResult { case, detail } => write!(f, "wrong on case {case}: {detail}"),
            Self::NotPlain { case, detail } => write!(f, "result{} {detail}", on(case)),
            Self::CpuTime => write!(f, "timeout: its CPU time was over"),
            Self::WallTime => write!(f, "timeout: it waited too long"),
            Self::Ended { how } => write!(f, "its process {}", ended(how)),
            Self::TestsEnded { how } => write!(f, "comparing its results, the process with the tests {}", ended(how)),
            Self::Unusable { detail } => write!(f, "the tests do not work: {detail}"),
        }
    }
}

fn ended(how: &How) -> String {
    match how {
        How::Exited(code) => format!("ended by itself with code {code}"),
        How::Signalled(signal) => format!("was ended by signal {signal}"),
    }
}
