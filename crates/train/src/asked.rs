//! A stage whose questions an endpoint answers.
//!
//! What an endpoint says is no function of the seed. So the answers themselves are what a stage goes on from: each is a line of
//! `answers.jsonl` as soon as it comes, right or wrong, and a stage that is started again asks for those that are missing.
//! `data.jsonl` and `metrics.jsonl` are made of them at the end, in the order of the questions, so that they depend neither on the
//! order in which answers came nor on interruptions.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use minke_endpoint::{Endpoint, Reply};
use minke_eval::{TrainingProblem, Verdict, judge};
use minke_spec::draw::{Domain, draw, hash_name};
use minke_text::{RepetitionRule, THINK_CLOSE, THINK_OPEN};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::answers::Answers;
use crate::base::Bases;
use crate::config::RunConfig;
use crate::data::Example;
use crate::observer::{Observer, StepView};
use crate::problems::Problems;
use crate::record::{Log, Metrics};
use crate::reject::RejectConfig;
use crate::teacher::TeacherConfig;
use crate::{Error, Result, files, metric};

/// Requests in a row without an answer after which a stage ends, if no more than that are in flight at once.
const UNANSWERED_IN_A_ROW: usize = 8;
/// How often a stage that waits asks whether it should end.
const GLANCE: Duration = Duration::from_millis(200);
/// Lines after which the file of answers is made sure to be on the disk.
const LINES_PER_SYNC: u64 = 64;
/// Questions without an answer that a message names; the rest is counted.
const NAMED: u64 = 5;
/// Where R1's control tokens begin: an answer that writes one out would teach it.
const CONTROL: &str = "<｜";

/// A line of `answers.jsonl`: what came of one request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// Number of the question.
    question: u64,
    /// Which of the answers to it.
    sample: u64,
    /// The answer; none if there is none for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A graded answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    /// Thought and answer as R1 writes them.
    completion: String,
    /// The grader's verdict.
    verdict: Verdict,
    /// Whether it has exactly one thought and then an answer.
    format: bool,
    /// Why it ended, as the endpoint says.
    finish: Option<String>,
    /// Its length as the endpoint counts it.
    tokens: Option<u64>,
    /// Whether it goes round in circles, writes a control token out, or has more words than tokens were asked for.
    unreadable: bool,
}

impl Answer {
    /// Whether it is right, has exactly one thought and then an answer if that is asked for, ended by itself, and can be read.
    fn is_worth_keeping(&self, thought: bool) -> bool {
        let has_form = self.format || !thought;
        self.verdict == Verdict::Right && has_form && self.finish.as_deref() == Some("stop") && !self.unreadable
    }
}

/// A stage at work in its folder.
pub(crate) struct Asking<'a> {
    config: &'a RejectConfig,
    seed: u64,
    problems: Problems<'a>,
    endpoint: Arc<Endpoint>,
    requests: usize,
    hash: String,
    folder: &'a Path,
}

/// Which answer: question and sample.
type Place = (u64, u64);

/// What is known of the answers so far.
#[derive(Default)]
struct Known {
    answered: u64,
    right: u64,
    tokens: u64,
}

impl Known {
    fn add(&mut self, row: &Row) {
        if let Some(answer) = &row.answer {
            self.answered += 1;
            self.right += u64::from(answer.verdict == Verdict::Right);
            self.tokens = self.tokens.saturating_add(answer.tokens.unwrap_or(0));
        }
    }
}

/// Threads that ask, one request each at a time.
struct Workers {
    jobs: Sender<(Place, Map<String, Value>)>,
    answers: Receiver<(Place, minke_endpoint::Result<Reply>)>,
    stop: Arc<AtomicBool>,
}

impl Workers {
    fn start(endpoint: &Arc<Endpoint>, count: usize) -> Self {
        let (jobs, taken) = channel::<(Place, Map<String, Value>)>();
        let (given, answers) = channel();
        let (taken, stop) = (Arc::new(Mutex::new(taken)), Arc::new(AtomicBool::new(false)));
        for _ in 0..count {
            let (taken, given, stop) = (Arc::clone(&taken), given.clone(), Arc::clone(&stop));
            let endpoint = Arc::clone(endpoint);
            std::thread::spawn(move || {
                loop {
                    let job = taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((place, request)) = job else { break };
                    if given.send((place, endpoint.chat(&request, &stop))).is_err() {
                        break;
                    }
                }
            });
        }
        Self { jobs, answers, stop }
    }
}

impl Drop for Workers {
    /// Lets the threads end by themselves: one that waits for an answer ends when that comes.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

impl<'a> Asking<'a> {
    /// The stage with these settings in its folder.
    ///
    /// # Errors
    /// If the address is none, or the key is missing.
    pub(crate) fn new(
        run: &'a RunConfig,
        config: &'a RejectConfig,
        teacher: &'a TeacherConfig,
        bases: &Bases,
        folder: &'a Path,
    ) -> Result<Self> {
        let refuse = |reason: String| Error::Config(format!("stage {}: {reason}", config.name));
        let key = bases.key_of(&config.name, teacher.key_env.as_deref())?;
        let endpoint = Endpoint::new(teacher.settings(), key).map_err(|error| refuse(error.to_string()))?;
        Ok(Self {
            config,
            seed: run.seed,
            problems: Problems::new(run.seed, &config.name, &run.tasks, &config.tasks),
            endpoint: Arc::new(endpoint),
            requests: teacher.requests,
            hash: run.hash_of_answers(config, teacher),
            folder,
        })
    }

    /// Asks for every answer that is missing, then makes data and metrics of all of them. Returns the number of steps.
    ///
    /// # Paper
    /// - R1 2.3.3 (several answers to each prompt, only right and readable ones are kept)
    /// - Test: crates/train/tests/endpoints_answer_in_place_of_a_model.rs
    ///
    /// # Errors
    /// If the endpoint does not answer, a file cannot be read or written, or the observer breaks.
    pub(crate) fn run(&self, observer: &mut dyn Observer) -> Result<u64> {
        files::make_folder(self.folder)?;
        let mut known = Known::default();
        // More than are wanted now may be there.
        let is_wanted =
            |row: &Row| row.question < self.config.questions as u64 && row.sample < self.config.samples as u64;
        let mut answers = Answers::open(self.folder, &self.hash, |row: &Row| {
            let wanted = is_wanted(row).then_some((row.question, row.sample));
            wanted.inspect(|_| known.add(row))
        })?;
        let name = &self.config.name;
        observer.message(&format!("stage {name}: {} answers; no model is loaded", self.endpoint.address()));
        observer.stage_started(name, answers.len() as u64, self.total());
        self.ask(&mut answers, &mut known, observer)?;
        answers.sync()?;
        self.write_results(&mut answers, observer)
    }

    fn total(&self) -> u64 {
        (self.config.questions as u64).saturating_mul(self.config.samples as u64)
    }

    /// Asks for what is missing, with a bounded number of requests in flight.
    fn ask(&self, answers: &mut Answers<Place>, known: &mut Known, observer: &mut dyn Observer) -> Result<()> {
        let samples = self.config.samples as u64;
        let mut places =
            (0..self.config.questions as u64).flat_map(|question| (0..samples).map(move |sample| (question, sample)));
        let mut missing = self.total() - answers.len() as u64;
        let workers = Workers::start(&self.endpoint, self.requests.min(missing.try_into().unwrap_or(usize::MAX)));
        let began = (Instant::now(), known.tokens);
        // What got no answer since the last answer: it counts as unanswered only if the endpoint answers something else.
        let mut unanswered: Vec<Row> = Vec::new();
        let mut failure = None;
        let mut in_flight = 0;
        loop {
            while failure.is_none()
                && in_flight < self.requests
                && let Some(place) = places.find(|place| !answers.has(place))
            {
                missing -= 1;
                workers.jobs.send((place, self.request(place))).expect("invariant: the workers wait for jobs");
                in_flight += 1;
            }
            if in_flight == 0 {
                break;
            }
            let ((question, sample), outcome) = match workers.answers.recv_timeout(GLANCE) {
                Ok(answer) => answer,
                Err(RecvTimeoutError::Timeout) => {
                    self.go_on(observer.waiting(), answers)?;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => unreachable!("invariant: a worker ends when it is told to"),
            };
            in_flight -= 1;
            match outcome {
                Ok(reply) => {
                    for row in unanswered.drain(..).filter(|_| failure.is_none()) {
                        append(answers, known, &row)?;
                    }
                    let answer = Some(self.grade(question, &reply)?);
                    append(answers, known, &Row { question, sample, answer, reason: None })?;
                }
                Err(error @ minke_endpoint::Error::Unanswered { .. }) => {
                    unanswered.push(Row { question, sample, answer: None, reason: Some(error.to_string()) });
                    let is_last = in_flight == 0 && missing == 0;
                    let nothing_came = is_last && known.answered == 0;
                    if nothing_came || unanswered.len() >= self.requests.max(UNANSWERED_IN_A_ROW) {
                        failure.get_or_insert(error);
                    }
                    continue;
                }
                Err(error) => {
                    // What is in flight may still be answered, and is kept; what waits for another attempt is not.
                    workers.stop.store(true, Ordering::SeqCst);
                    failure.get_or_insert(error);
                    continue;
                }
            }
            let metrics = running(known);
            let mut timings = Metrics::new();
            let seconds = began.0.elapsed().as_secs_f64().max(1e-9);
            timings.set(metric::TOKENS_PER_SECOND, (known.tokens - began.1) as f64 / seconds);
            let (stage, step) = (&self.config.name, answers.len() as u64);
            let view = StepView { stage, step, total: self.total(), metrics: &metrics, timings: &timings };
            if step < self.total() {
                self.go_on(observer.step(&view), answers)?;
            }
        }
        match failure {
            Some(source) => {
                answers.sync()?;
                Err(Error::Endpoint { stage: self.config.name.clone(), kept: known.answered, source })
            }
            None => unanswered.iter().try_for_each(|row| append(answers, known, row)),
        }
    }

    fn go_on(&self, flow: ControlFlow<()>, answers: &Answers<Place>) -> Result<()> {
        match flow {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                Err(Error::Interrupted { stage: self.config.name.clone(), step: answers.len() as u64 })
            }
        }
    }

    /// The problem of a question, and the number of its task: those of a stage whose model answers here.
    fn problem(&self, question: u64) -> (usize, TrainingProblem) {
        let (cursor, number) = self.numbers(question);
        self.problems.draw(cursor, number)
    }

    fn numbers(&self, question: u64) -> (u64, u64) {
        let per_step = self.config.questions_per_step as u64;
        (question / per_step, question % per_step)
    }

    /// What is sent for an answer. Its seed is a function of the run's; whether it is obeyed is the endpoint's affair.
    fn request(&self, (question, sample): Place) -> Map<String, Value> {
        let (cursor, number) = self.numbers(question);
        let index = [hash_name(&self.config.name), cursor, number, sample];
        // Some endpoints read no more than 31 bits.
        let seed = draw(self.seed, Domain::Rollout, &index).bits() & 0x7fff_ffff;
        let messages =
            serde_json::to_value(self.problem(question).1.messages()).expect("invariant: messages are plain JSON");
        let mut request = Map::new();
        if let Some(teacher) = &self.config.teacher {
            request.extend(teacher.body.clone());
        }
        request.insert("messages".into(), messages);
        request.insert("max_tokens".into(), self.config.max_tokens.into());
        // As it is written in the run: 0.6 and not 0.60000002.
        let temperature: f64 =
            self.config.temperature.to_string().parse().unwrap_or(f64::from(self.config.temperature));
        request.insert("temperature".into(), temperature.into());
        request.insert("seed".into(), seed.into());
        request
    }

    fn grade(&self, question: u64, reply: &Reply) -> Result<Answer> {
        let (task, problem) = self.problem(question);
        let completion = completion(reply);
        let judged = judge(&self.problems.task(task).task, &problem, "", &completion)?;
        let unreadable = !can_be_read(&completion, self.config.max_tokens);
        Ok(Answer {
            verdict: judged.verdict,
            format: judged.thought.format_ok,
            finish: reply.finish_reason.clone(),
            tokens: reply.completion_tokens,
            unreadable,
            completion,
        })
    }

    /// Writes `data.jsonl` and `metrics.jsonl`: a function of the answers.
    fn write_results(&self, answers: &mut Answers<Place>, observer: &mut dyn Observer) -> Result<u64> {
        let mut data = Log::open(&self.folder.join("data.jsonl"), 0)?;
        let mut lines = Log::open(&self.folder.join("metrics.jsonl"), 0)?;
        let (per_step, questions) = (self.config.questions_per_step as u64, self.config.questions as u64);
        let steps = questions.div_ceil(per_step);
        let mut missed = 0;
        for step in 0..steps {
            let mut sums = Sums::default();
            for question in step * per_step..questions.min((step + 1) * per_step) {
                let (task, problem) = self.problem(question);
                let mut seen = HashSet::new();
                for row in answers.range::<Row>((question, 0)..(question + 1, 0))? {
                    let Some(answer) = row.answer else {
                        sums.unanswered += 1;
                        missed += 1;
                        if missed <= NAMED {
                            let reason = row.reason.unwrap_or_default();
                            let which = format!("question {question}, sample {}", row.sample);
                            observer.message(&format!("stage {}: {which}: no answer: {reason}", self.config.name));
                        }
                        continue;
                    };
                    sums.add(&answer);
                    if seen.len() < self.config.keep
                        && answer.is_worth_keeping(self.config.thought)
                        && seen.insert(answer.completion.clone())
                    {
                        let task = &self.problems.task(task).name;
                        data.append(&Example::new(task, &problem, answer.completion))?;
                        sums.kept += 1;
                    }
                }
            }
            lines.append(&sums.metrics(step))?;
        }
        if missed > 0 {
            let total = self.total();
            observer.message(&format!("stage {}: {missed} of {total} requests got no answer", self.config.name));
        }
        data.sync()?;
        lines.sync()?;
        Ok(steps)
    }
}

/// Sums over the answers to the questions of a step.
#[derive(Default)]
struct Sums {
    answered: u64,
    right: u64,
    kept: u64,
    tokens: u64,
    unanswered: u64,
}

impl Sums {
    fn add(&mut self, answer: &Answer) {
        self.answered += 1;
        self.right += u64::from(answer.verdict == Verdict::Right);
        self.tokens = self.tokens.saturating_add(answer.tokens.unwrap_or(0));
    }

    /// The line of the step.
    fn metrics(&self, step: u64) -> Metrics {
        let answered = self.answered.max(1) as f64;
        let mut metrics = Metrics::new();
        metrics
            .set(metric::STEP, step)
            .set(metric::ACCURACY, self.right as f64 / answered)
            .set(metric::KEPT, self.kept)
            .set(metric::KEPT_RATIO, self.kept as f64 / answered)
            .set(metric::MEAN_LENGTH, self.tokens as f64 / answered)
            .set(metric::NUM_TOKENS, self.tokens)
            .set(metric::UNANSWERED, self.unanswered);
        metrics
    }
}

/// What a person sees while answers come.
fn running(known: &Known) -> Metrics {
    let answered = known.answered.max(1) as f64;
    let mut metrics = Metrics::new();
    metrics
        .set(metric::ACCURACY, known.right as f64 / answered)
        .set(metric::MEAN_LENGTH, known.tokens as f64 / answered);
    metrics
}

fn append(answers: &mut Answers<Place>, known: &mut Known, row: &Row) -> Result<()> {
    answers.append((row.question, row.sample), row)?;
    known.add(row);
    if (answers.len() as u64).is_multiple_of(LINES_PER_SYNC) {
        answers.sync()?;
    }
    Ok(())
}

/// Thought and answer as R1 writes them. An endpoint that tells a thought apart gives it without its tags; one whose template
/// opened the thought gives a text without the first.
fn completion(reply: &Reply) -> String {
    let content = reply.content.trim();
    match &reply.reasoning {
        Some(thought) => format!("{THINK_OPEN}\n{}\n{THINK_CLOSE}\n\n{content}", thought.trim()),
        None if content.contains(THINK_CLOSE) && !content.contains(THINK_OPEN) => format!("{THINK_OPEN}\n{content}"),
        None => content.to_owned(),
    }
}

/// Whether a text has no loop, no control token written out, and no more words than tokens were asked for: a word has at least one. The
/// tokens of the endpoint are not known here, so loops are looked for in words.
fn can_be_read(text: &str, max_tokens: usize) -> bool {
    let mut numbers = HashMap::new();
    let word = |word| {
        let next = numbers.len() as u32;
        *numbers.entry(word).or_insert(next)
    };
    // Looking for loops takes the square of the number of words.
    let words: Vec<u32> = text.split_whitespace().take(max_tokens.saturating_add(1)).map(word).collect();
    words.len() <= max_tokens && !text.contains(CONTROL) && !RepetitionRule::TRAINING.matches(&words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_are_joined_as_r1_writes_them() {
        let of = |reasoning: Option<&str>, content: &str| {
            completion(&Reply { reasoning: reasoning.map(Into::into), content: content.into(), ..Reply::default() })
        };
        let whole = "<think>\n3+4\n</think>\n\n7";
        assert_eq!(of(Some("\n3+4 "), "\n\n7\n"), whole);
        assert_eq!(of(None, whole), whole);
        assert_eq!(of(None, "3+4\n</think>\n\n7"), whole);
        assert_eq!(of(None, "7"), "7");
        for text in [of(Some("3+4"), "7"), of(None, "3+4\n</think>\n\n7")] {
            assert!(minke_text::split("", &text).format_ok);
        }
        assert!(!minke_text::split("", "7").format_ok);
    }

    #[test]
    fn only_right_whole_readable_answers_are_kept() {
        let good = Answer {
            completion: String::new(),
            verdict: Verdict::Right,
            format: true,
            finish: Some("stop".into()),
            tokens: None,
            unreadable: false,
        };
        assert!(good.is_worth_keeping(true) && Answer { format: false, ..good.clone() }.is_worth_keeping(false));
        let bad = [
            Answer { verdict: Verdict::Wrong, ..good.clone() },
            Answer { verdict: Verdict::GoldUnusable, ..good.clone() },
            Answer { format: false, ..good.clone() },
            Answer { finish: Some("length".into()), ..good.clone() },
            Answer { finish: None, ..good.clone() },
            Answer { unreadable: true, ..good.clone() },
        ];
        assert!(bad.iter().all(|answer| !answer.is_worth_keeping(true)));
    }

    #[test]
    fn loops_control_tokens_and_too_many_words_are_not_for_reading() {
        assert!(can_be_read(&"let us see now ".repeat(2), 8));
        assert!(!can_be_read(&"let us see now ".repeat(2), 7));
        assert!(!can_be_read(&"let us see now ".repeat(3), 99));
        assert!(can_be_read("1 + 1 + 1", 99));
        assert!(!can_be_read("7 <｜end▁of▁sentence｜>", 99));
        // A body of spaces and letters costs no more than its length.
        assert!(!can_be_read(&"a b c d e f g h i j k l m ".repeat(100_000), 1000));
    }
}
