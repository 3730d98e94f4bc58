//! What the answers to the problems of a task come to.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::answer::FinishName;
use crate::metrics::{Interval, majority, pass_at_k};
use crate::tasks::{SearchBaseline, best_constant};
use crate::{Answer, Error, EvalConfig, Problem, Result, Split, Task, Verdict};

/// Answers kept of each kind, right and wrong, for reading.
const TRANSCRIPTS: usize = 6;

/// What the answers to one problem came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The problem.
    pub id: u64,
    /// What it is not independent of; nothing if it is on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<u64>,
    /// Right answers.
    pub right: usize,
    /// All answers.
    pub samples: usize,
}

/// An answer to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    /// What was asked.
    pub question: String,
    /// What came back, thought included.
    pub text: String,
    /// The grader's verdict.
    pub verdict: Verdict,
    /// Length in tokens, if it is known.
    pub tokens: Option<usize>,
}

/// How good a model is at a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// Name of the task.
    pub task: String,
    /// The side of the task that the problems are on.
    pub side: Split,
    /// How the model was asked; nothing for answers that were given.
    pub config: Option<EvalConfig>,
    /// Problems that were scored.
    pub problems: usize,
    /// Problems dropped because they cannot be graded.
    pub unusable: usize,
    /// Share of right answers, with its interval over problems.
    pub pass_at_1: Interval,
    /// Chance that one of k answers is right, for k = 1, 2, 4, ...
    pub pass_at_k: Vec<(usize, f64)>,
    /// Share of problems whose most frequent answer is right; nothing where answers have no votes.
    pub cons_at_k: Option<Interval>,
    /// Share of right greedy answers beside them.
    pub greedy: Option<Interval>,
    /// Mean length of an answer in tokens, thought included, if it is known.
    pub mean_tokens: Option<f64>,
    /// Mean length in tokens of thoughts before right answers.
    pub thought_tokens_right: Option<f64>,
    /// Mean length in tokens of thoughts before wrong answers.
    pub thought_tokens_wrong: Option<f64>,
    /// Mean number of attempts of an answer, if the task has such.
    pub attempts: Option<f64>,
    /// The share of its attempts that repeat an earlier one of the same thought, if there are attempts.
    pub repeats: Option<f64>,
    /// What blind searches come to at these problems, if there is something to search.
    pub search: Option<SearchBaseline>,
    /// The answer that is right at most problems, and at what share of them, if answers can be such: the simplest baseline.
    pub constant: Option<(String, f64)>,
    /// Share of answers with exactly one thought and then an answer.
    pub format_rate: f64,
    /// Share of answers that the cap cut off, if it is known.
    pub truncated: Option<f64>,
    /// Of the thoughts that end by claiming success, the share before wrong answers.
    pub false_claims: Option<f64>,
    /// Right answers by problem, in the order of the problems.
    pub counts: Vec<Count>,
    /// A few answers to read, right ones first.
    pub transcripts: Vec<Transcript>,
}

impl Count {
    /// The share of right answers.
    pub fn score(&self) -> f64 {
        share(self.right, self.samples)
    }

    /// What it is not independent of: itself at least.
    pub fn cluster(&self) -> u64 {
        self.cluster.unwrap_or(self.id)
    }
}

impl TaskReport {
    /// The report on all answers to these problems, reported under a name. Of every problem there must be as many answers.
    ///
    /// # Errors
    /// If there are no problems or they are of several sides; if one has no answer, or fewer than another; if fewer than two
    /// clusters of problems can be graded.
    pub fn new(
        name: &str,
        task: &Task,
        problems: &[Problem],
        answers: &[Answer],
        config: Option<EvalConfig>,
    ) -> Result<Self> {
        let refuse = |reason: String| Err(Error::Task { task: task.name(), reason });
        let Some(side) = problems.first().map(|problem| task.side(problem)) else {
            return refuse("there are no problems to evaluate".into());
        };
        if problems.iter().any(|problem| task.side(problem) != side) {
            return refuse("its problems are of several sides; evaluate one after the other".into());
        }
        let mut by_problem: HashMap<&str, Vec<&Answer>> = HashMap::new();
        for answer in answers {
            by_problem.entry(&answer.id).or_default().push(answer);
        }
        let samples = by_problem.values().map(Vec::len).max().unwrap_or(0);
        let mut tally = Tally::default();
        let mut scored: Vec<&Problem> = Vec::new();
        for problem in problems {
            let mut answers = by_problem.remove(problem.name.as_str()).unwrap_or_default();
            answers.sort_by_key(|answer| answer.sample);
            if answers.is_empty() || answers.len() < samples {
                let (name, have) = (&problem.name, answers.len());
                return refuse(format!("problem {name} has {have} answers, others have {samples}"));
            }
            if tally.add(task, problem, &answers) {
                scored.push(problem);
            }
        }
        let (problems, unusable) = (tally.counts.len(), tally.unusable);
        let attempts = tally.mean_of_attempts();
        let Some(mut report) = tally.report((name, side), samples, config, task.has_votes()) else {
            return refuse(format!(
                "{problems} problems ({unusable} unusable) give no interval; evaluate more of them"
            ));
        };
        report.search = attempts
            .and_then(|attempts| SearchBaseline::new(task, &scored, attempts, &report.scores(), &report.clusters()));
        report.constant = best_constant(task, &scored);
        Ok(report)
    }

    /// How much better this model is than another at the very same problems, with the interval of the paired
    /// difference: how hard a problem is cancels. Nothing if the problems are others.
    pub fn gain_over(&self, before: &Self) -> Option<Interval> {
        let ids = |report: &Self| report.counts.iter().map(|count| count.id).collect::<Vec<_>>();
        if (&self.task, self.side) != (&before.task, before.side) || ids(self) != ids(before) {
            return None;
        }
        Interval::of_paired_difference(&before.scores(), &self.scores(), &self.clusters())
    }

    /// The share of right answers of every problem.
    pub fn scores(&self) -> Vec<f64> {
        self.counts.iter().map(Count::score).collect()
    }

    /// The cluster of every problem.
    pub fn clusters(&self) -> Vec<u64> {
        self.counts.iter().map(Count::cluster).collect()
    }
}

/// Sums over answers.
#[derive(Default)]
struct Tally {
    counts: Vec<Count>,
    majority: Vec<f64>,
    unusable: usize,
    answers: usize,
    /// Of answers that were drawn: how many, their tokens, and how many were cut off.
    drawn: usize,
    tokens: usize,
    truncated: usize,
    /// Answers with attempts, and the attempts.
    tried: usize,
    attempts: usize,
    repeats: usize,
    /// Attempts, where an answer without any counts as one.
    guesses: usize,
    formatted: usize,
    claims: usize,
    false_claims: usize,
    /// Number and tokens of thoughts before wrong and before right answers.
    thoughts: [(usize, usize); 2],
    transcripts: [Vec<Transcript>; 2],
}

impl Tally {
    /// Counts the answers to one problem; whether it can be graded.
    fn add(&mut self, task: &Task, problem: &Problem, answers: &[&Answer]) -> bool {
        if answers.iter().any(|answer| answer.verdict == Verdict::GoldUnusable) {
            self.unusable += 1;
            return false;
        }
        for answer in answers {
            let right = answer.is_right();
            if let Some(drawn) = &answer.drawn {
                if let Some(thought) = drawn.thought_tokens {
                    let (number, tokens) = &mut self.thoughts[usize::from(right)];
                    *number += 1;
                    *tokens += thought;
                }
                self.drawn += 1;
                self.tokens += drawn.tokens;
                self.truncated += usize::from(drawn.finish != FinishName::Stop);
            }
            self.answers += 1;
            self.tried += usize::from(answer.attempts.is_some());
            self.attempts += answer.attempts.unwrap_or(0);
            self.repeats += answer.repeats.unwrap_or(0);
            self.guesses += answer.attempts.map_or(0, |attempts| attempts.max(1));
            self.formatted += usize::from(answer.format);
            let claims = answer.claims_success == Some(true);
            self.claims += usize::from(claims);
            self.false_claims += usize::from(claims && !right);
        }
        // The first answer to every problem, so that the kept ones are of many problems and not selected.
        if let Some(answer) = answers.first() {
            let kept = &mut self.transcripts[usize::from(answer.is_right())];
            if kept.len() < TRANSCRIPTS {
                let tokens = answer.drawn.as_ref().map(|drawn| drawn.tokens);
                let (question, text) = (problem.question.clone(), answer.text.clone());
                kept.push(Transcript { question, text, verdict: answer.verdict, tokens });
            }
        }
        let votes: Vec<_> = answers.iter().map(|answer| answer.vote.as_deref()).collect();
        let consensus =
            majority(&votes, |one, other| task.same_vote(one, other)).is_some_and(|winner| answers[winner].is_right());
        self.majority.push(f64::from(u8::from(consensus)));
        let right = answers.iter().filter(|answer| answer.is_right()).count();
        let cluster = (problem.cluster != problem.id).then_some(problem.cluster);
        self.counts.push(Count { id: problem.id, cluster, right, samples: answers.len() });
        true
    }

    /// Attempts of an answer in the mean, at least one each; nothing if the task has no attempts.
    fn mean_of_attempts(&self) -> Option<f64> {
        (self.tried > 0).then(|| share(self.guesses, self.tried))
    }

    /// The report, if there are problems enough for an interval.
    fn report(
        self,
        (name, side): (&str, Split),
        samples: usize,
        config: Option<EvalConfig>,
        has_votes: bool,
    ) -> Option<TaskReport> {
        let mean = |(number, tokens): (usize, usize)| (number > 0).then(|| share(tokens, number));
        let pass = |k: usize| {
            let chances = self.counts.iter().map(|count| pass_at_k(count.samples, count.right, k));
            (k, chances.sum::<f64>() / self.counts.len().max(1) as f64)
        };
        let powers = std::iter::successors(Some(1), |k| Some(2 * k)).take_while(|&k| k <= samples);
        let scores: Vec<f64> = self.counts.iter().map(Count::score).collect();
        let clusters: Vec<u64> = self.counts.iter().map(Count::cluster).collect();
        let pass_at_1 = Interval::over_clusters(&scores, &clusters)?;
        let cons_at_k = if has_votes { Some(Interval::over_clusters(&self.majority, &clusters)?) } else { None };
        let [wrong, right] = self.transcripts;
        Some(TaskReport {
            task: name.to_string(),
            side,
            config,
            problems: self.counts.len(),
            unusable: self.unusable,
            pass_at_1,
            pass_at_k: powers.map(pass).collect(),
            cons_at_k,
            greedy: None,
            mean_tokens: mean((self.drawn, self.tokens)),
            thought_tokens_right: mean(self.thoughts[1]),
            thought_tokens_wrong: mean(self.thoughts[0]),
            attempts: mean((self.tried, self.attempts)),
            repeats: mean((self.attempts, self.repeats)),
            search: None,
            constant: None,
            format_rate: share(self.formatted, self.answers),
            truncated: mean((self.drawn, self.truncated)),
            false_claims: (self.claims > 0).then(|| share(self.false_claims, self.claims)),
            counts: self.counts,
            transcripts: right.into_iter().chain(wrong).collect(),
        })
    }
}

fn share(part: usize, of: usize) -> f64 {
    part as f64 / of.max(1) as f64
}
