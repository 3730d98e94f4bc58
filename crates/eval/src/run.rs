//! The evaluation of a model at a task: its answers to held-out problems, graded, with the uncertainty of the score.
//!
//! Several samples of every problem are drawn at the published temperature; what is reported is the mean over samples
//! (pass@1), the chance that one of k is right (pass@k), the majority's answer (cons@k), and greedy decoding beside
//! them. Counts by problem are kept, so that two models can be compared problem by problem.

use minke_engine::{Completion, Finish, Replicas, SamplingParams};
use minke_model::Transformer;
use minke_spec::draw::{Domain, draw, hash_name};
use minke_text::{ChatTemplate, Message, THINK_CLOSE, THINK_OPEN, Thought, Tokenizer, split};
use serde::{Deserialize, Serialize};

use crate::metrics::{Interval, majority, pass_at_k};
use crate::{Error, Problem, Result, Task, Verdict};

/// Answers kept of each kind, right and wrong, for reading.
const TRANSCRIPTS: usize = 6;

/// How a model is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// Answers to every problem, k.
    pub samples: usize,
    /// Temperature of the answers.
    pub temperature: f32,
    /// Share of the probability that the most likely tokens must reach; 1 for all.
    pub top_p: f32,
    /// Longest answer in tokens, thought included.
    pub max_tokens: usize,
    /// Whether the prompt opens the thought.
    pub force_thought: bool,
    /// Whether every problem is answered greedily as well.
    pub greedy: bool,
    /// Seed of the answers.
    pub seed: u64,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self { samples: 16, temperature: 1.0, top_p: 1.0, max_tokens: 256, force_thought: false, greedy: true, seed: 0 }
    }
}

/// What the answers to one problem came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The problem.
    pub id: u64,
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
    /// Length in tokens.
    pub tokens: usize,
}

/// How good a model is at a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// Name of the task.
    pub task: String,
    /// How the model was asked.
    pub config: EvalConfig,
    /// Problems that were scored.
    pub problems: usize,
    /// Problems dropped because they cannot be graded.
    pub unusable: usize,
    /// Share of right answers, with its interval over problems.
    pub pass_at_1: Interval,
    /// Chance that one of k answers is right, for k = 1, 2, 4, ...
    pub pass_at_k: Vec<(usize, f64)>,
    /// Share of problems whose most frequent answer is right.
    pub cons_at_k: Interval,
    /// Share of right greedy answers.
    pub greedy: Option<Interval>,
    /// Mean length of an answer in tokens, thought included.
    pub mean_tokens: f64,
    /// Mean length in tokens of thoughts before right answers.
    pub thought_tokens_right: Option<f64>,
    /// Mean length in tokens of thoughts before wrong answers.
    pub thought_tokens_wrong: Option<f64>,
    /// Mean number of attempts of an answer.
    pub attempts: f64,
    /// Share of answers with exactly one thought and then an answer.
    pub format_rate: f64,
    /// Share of answers that the cap cut off.
    pub truncated: f64,
    /// Of the thoughts that end by claiming success, the share before wrong answers.
    pub false_claims: Option<f64>,
    /// Right answers by problem, in the order of the problems.
    pub counts: Vec<Count>,
    /// A few answers to read, right ones first.
    pub transcripts: Vec<Transcript>,
}

impl TaskReport {
    /// How much better this model is than another at the very same problems, with the interval of the paired
    /// difference: how hard a problem is cancels. Nothing if the problems are others.
    pub fn gain_over(&self, before: &Self) -> Option<Interval> {
        let ids = |report: &Self| report.counts.iter().map(|count| count.id).collect::<Vec<_>>();
        let scores = |report: &Self| -> Vec<f64> { report.counts.iter().map(Count::score).collect() };
        if self.task != before.task || ids(self) != ids(before) {
            return None;
        }
        Interval::of_paired_difference(&scores(before), &scores(self))
    }
}

impl Count {
    /// The share of right answers.
    fn score(&self) -> f64 {
        share(self.right, self.samples)
    }
}

/// One answer, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Right or wrong.
    pub verdict: Verdict,
    /// The answer, taken apart.
    pub thought: Thought,
    /// Attempts that the thought shows.
    pub attempts: usize,
    /// Whether the thought ends by claiming success.
    pub claims_success: bool,
}

/// The rendered prompt of a question; a forced thought is opened if the template does not.
///
/// # Errors
/// If the template refuses the question.
pub fn prompt(template: &ChatTemplate, question: &str, force_thought: bool) -> Result<String> {
    let mut prompt = template.render(&[Message::user(question)], true)?;
    if force_thought && !prompt.trim_end().ends_with(THINK_OPEN) {
        prompt.push_str(THINK_OPEN);
        prompt.push('\n');
    }
    Ok(prompt)
}

/// Judges a completion of a prompt, for rewards and evaluations alike.
///
/// # Paper
/// - R1 2.2.2 (accuracy by rule, format)
pub fn judge(task: &Task, problem: &Problem, prompt: &str, completion: &str) -> Judged {
    let thought = split(prompt, completion);
    let reasoning = thought.reasoning.as_deref().unwrap_or("");
    Judged {
        verdict: task.grade(problem, &thought.content),
        attempts: task.attempts(reasoning),
        claims_success: task.claims_success(reasoning),
        thought,
    }
}

/// A model with everything that is needed to grade it.
pub struct Evaluator<'a> {
    /// Decode many sequences at once.
    pub engines: &'a mut Replicas,
    /// The weights.
    pub model: &'a Transformer,
    /// Text to ids and back.
    pub tokenizer: &'a Tokenizer,
    /// Question to prompt.
    pub template: &'a ChatTemplate,
}

impl Evaluator<'_> {
    /// How good the model is at these problems of a task, reported under a name. `progress` gets the number of answers so
    /// far, and of all.
    ///
    /// # Paper
    /// - R1 3 (pass@1 as the mean over k samples, cons@k)
    /// - Test: crates/eval/tests/evaluation_counts_what_a_model_says.rs
    /// - Vector: testdata/vectors/metrics.json
    ///
    /// # Errors
    /// If there are fewer than two usable problems or no samples, a sampling parameter is out of range, or the forward fails.
    pub fn evaluate(
        &mut self,
        name: &str,
        task: &Task,
        problems: &[Problem],
        config: &EvalConfig,
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<TaskReport> {
        let refuse = |reason: String| Err(Error::Task { task: task.name(), reason });
        if config.samples == 0 {
            return refuse("0 samples leave nothing to score; draw at least 1".into());
        }
        let prompts: Vec<String> = problems
            .iter()
            .map(|problem| prompt(self.template, &problem.question, config.force_thought))
            .collect::<Result<_>>()?;
        let greedy = usize::from(config.greedy) * problems.len();
        let total = problems.len() * config.samples + greedy;
        let sampled = self.answer(problems, &prompts, config, &mut |done| progress(done, total))?;
        let mut tally = Tally::default();
        for ((problem, prompt), completions) in problems.iter().zip(&prompts).zip(sampled.chunks(config.samples)) {
            tally.add(task, problem, prompt, completions, self.tokenizer);
        }
        let mut greedy = None;
        if config.greedy {
            let once = EvalConfig { samples: 1, temperature: 0.0, ..config.clone() };
            let answers = self.answer(problems, &prompts, &once, &mut |done| progress(sampled.len() + done, total))?;
            let mut of_greedy = Tally::default();
            for ((problem, prompt), answer) in problems.iter().zip(&prompts).zip(answers.chunks(1)) {
                of_greedy.add(task, problem, prompt, answer, self.tokenizer);
            }
            greedy = Interval::over_problems(&of_greedy.scores());
        }
        let (problems, unusable) = (tally.counts.len(), tally.unusable);
        match tally.report(name, config, greedy) {
            Some(report) => Ok(report),
            None => refuse(format!("{problems} problems ({unusable} unusable) give no interval; evaluate at least 2")),
        }
    }

    /// The completions of all prompts, `samples` of each, in order.
    fn answer(
        &mut self,
        problems: &[Problem],
        prompts: &[String],
        config: &EvalConfig,
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Vec<Completion>> {
        let stop_ids = self.tokenizer.end_ids(&self.model.config().eos_token_ids);
        for (problem, prompt) in problems.iter().zip(prompts) {
            let params = SamplingParams::default()
                .with_temperature(config.temperature)
                .with_top_p(config.top_p)
                .with_seed(draw(config.seed, Domain::Rollout, &[hash_name("evaluation"), problem.id]).bits())
                .with_max_tokens(config.max_tokens)
                .with_stop_ids(stop_ids.clone());
            self.engines.submit(&self.tokenizer.encode_prompt(prompt), &params, config.samples)?;
        }
        Ok(self.engines.run(self.model, progress)?)
    }
}

/// Sums over answers.
#[derive(Default)]
struct Tally {
    counts: Vec<Count>,
    majority: Vec<f64>,
    unusable: usize,
    answers: usize,
    tokens: usize,
    attempts: usize,
    formatted: usize,
    truncated: usize,
    claims: usize,
    false_claims: usize,
    /// Number and tokens of thoughts before wrong and before right answers.
    thoughts: [(usize, usize); 2],
    transcripts: [Vec<Transcript>; 2],
}

impl Tally {
    /// Counts the answers to one problem.
    fn add(&mut self, task: &Task, problem: &Problem, prompt: &str, completions: &[Completion], tokenizer: &Tokenizer) {
        let texts: Vec<String> = completions.iter().map(|c| tokenizer.decode(&c.token_ids, true)).collect();
        let judged: Vec<Judged> = texts.iter().map(|text| judge(task, problem, prompt, text)).collect();
        if judged.iter().any(|answer| answer.verdict == Verdict::GoldUnusable) {
            self.unusable += 1;
            return;
        }
        for (completion, answer) in completions.iter().zip(&judged) {
            let right = answer.verdict == Verdict::Right;
            if answer.thought.reasoning.is_some() {
                let (number, tokens) = &mut self.thoughts[usize::from(right)];
                *number += 1;
                *tokens += thought_tokens(tokenizer, &completion.token_ids);
            }
            self.answers += 1;
            self.tokens += completion.token_ids.len();
            self.attempts += answer.attempts;
            self.formatted += usize::from(answer.thought.format_ok);
            self.truncated += usize::from(!matches!(completion.finish, Finish::Stop(_)));
            self.claims += usize::from(answer.claims_success);
            self.false_claims += usize::from(answer.claims_success && !right);
        }
        // The first answer to every problem, so that the kept ones are of many problems and not selected.
        if let (Some(completion), Some(text), Some(answer)) = (completions.first(), texts.first(), judged.first()) {
            let kept = &mut self.transcripts[usize::from(answer.verdict == Verdict::Right)];
            if kept.len() < TRANSCRIPTS {
                let (question, tokens) = (problem.question.clone(), completion.token_ids.len());
                kept.push(Transcript { question, text: text.clone(), verdict: answer.verdict, tokens });
            }
        }
        let keys: Vec<_> = judged.iter().map(|answer| task.answer_key(problem, &answer.thought.content)).collect();
        let consensus = majority(&keys).is_some_and(|winner| judged[winner].verdict == Verdict::Right);
        self.majority.push(f64::from(u8::from(consensus)));
        let right = judged.iter().filter(|answer| answer.verdict == Verdict::Right).count();
        self.counts.push(Count { id: problem.id, right, samples: completions.len() });
    }

    /// The share of right answers of every problem.
    fn scores(&self) -> Vec<f64> {
        self.counts.iter().map(Count::score).collect()
    }

    /// The report, if there are problems enough for an interval.
    fn report(self, name: &str, config: &EvalConfig, greedy: Option<Interval>) -> Option<TaskReport> {
        let mean = |(number, tokens): (usize, usize)| (number > 0).then(|| share(tokens, number));
        let pass = |k: usize| {
            let chances = self.counts.iter().map(|count| pass_at_k(count.samples, count.right, k));
            (k, chances.sum::<f64>() / self.counts.len().max(1) as f64)
        };
        let powers = std::iter::successors(Some(1), |k| Some(2 * k)).take_while(|&k| k <= config.samples);
        let pass_at_1 = Interval::over_problems(&self.scores())?;
        let cons_at_k = Interval::over_problems(&self.majority)?;
        let [wrong, right] = self.transcripts;
        Some(TaskReport {
            task: name.to_string(),
            config: config.clone(),
            problems: self.counts.len(),
            unusable: self.unusable,
            pass_at_1,
            pass_at_k: powers.map(pass).collect(),
            cons_at_k,
            greedy,
            mean_tokens: share(self.tokens, self.answers),
            thought_tokens_right: mean(self.thoughts[1]),
            thought_tokens_wrong: mean(self.thoughts[0]),
            attempts: share(self.attempts, self.answers),
            format_rate: share(self.formatted, self.answers),
            truncated: share(self.truncated, self.answers),
            false_claims: (self.claims > 0).then(|| share(self.false_claims, self.claims)),
            counts: self.counts,
            transcripts: right.into_iter().chain(wrong).collect(),
        })
    }
}

fn share(part: usize, of: usize) -> f64 {
    part as f64 / of.max(1) as f64
}

/// How many tokens of a completion belong to its thought, without the tags.
fn thought_tokens(tokenizer: &Tokenizer, token_ids: &[u32]) -> usize {
    let position = |token: &str| {
        let id = tokenizer.id_of(token)?;
        token_ids.iter().position(|&other| other == id)
    };
    let end = position(THINK_CLOSE).unwrap_or(token_ids.len());
    let start = position(THINK_OPEN).map_or(0, |open| open + 1);
    end.saturating_sub(start)
}
