//! What a model reads while it learns: demonstrations of tasks and kept samples, as documents in R1's chat form. All of
//! them are made of a [`TrainingProblem`], which is never held out.

use std::path::{Path, PathBuf};

use minke_eval::{Demonstration, Style, Task, TrainingProblem};
use minke_spec::draw::{Domain, Stream, draw, hash_name};
use minke_text::{ASSISTANT, Message, Role, THINK_CLOSE, THINK_OPEN};
use serde::{Deserialize, Serialize};

use crate::conversations::{self, Limit};
pub use crate::document::Document;
use crate::stage::Context;
pub use crate::task::NamedTask;
use crate::{Error, Result};

/// A question with a completion that was kept: a line of `data.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// Name of the task.
    pub task: String,
    /// The problem's id.
    pub id: u64,
    /// What was asked.
    pub question: String,
    /// What was answered, thought and tags included, without the end of the sentence.
    pub completion: String,
}

impl Example {
    /// A completion of a problem of a task, which is named as the run names it.
    pub fn new(task: &str, problem: &TrainingProblem, completion: String) -> Self {
        Self { task: task.to_owned(), id: problem.id, question: problem.question.clone(), completion }
    }
}

/// The completion that a demonstration shows, in R1's output format.
///
/// # Paper
/// - facts sheet 1.11 (thought, closing tag, blank line, answer)
pub fn completion(demonstration: &Demonstration) -> String {
    match &demonstration.thought {
        Some(thought) => format!("{THINK_OPEN}\n{thought}\n{THINK_CLOSE}\n\n{}", demonstration.answer),
        None => demonstration.answer.clone(),
    }
}

/// How often each style of demonstration is drawn, relative to the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StyleWeights {
    /// Right answers without a thought.
    pub bare: f64,
    /// Random searches, half of which give up.
    pub noisy: f64,
    /// Readable searches that end in a right answer.
    pub clean: f64,
    /// Facts on their own.
    pub fact: f64,
}

impl StyleWeights {
    /// The corpus of a base model: facts, bare answers and noisy searches, but no clean ones.
    pub const BASE: Self = Self { bare: 0.35, noisy: 0.45, clean: 0.0, fact: 0.2 };

    fn table(&self) -> [(Style, f64); 4] {
        let Self { bare, noisy, clean, fact } = *self;
        [(Style::Bare, bare), (Style::Noisy, noisy), (Style::Clean, clean), (Style::Fact, fact)]
    }
}

/// The share of one task in a corpus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskShare {
    /// Name of the task.
    pub task: String,
    /// How often it is drawn, relative to the others.
    #[serde(default = "one")]
    pub weight: f64,
    /// How it is written.
    #[serde(default = "base_styles")]
    pub styles: StyleWeights,
}

impl TaskShare {
    /// Whether something can be drawn by these weights.
    pub(crate) fn is_fine(&self) -> bool {
        let StyleWeights { bare, noisy, clean, fact } = self.styles;
        let sum = bare + noisy + clean + fact;
        let all = [self.weight, bare, noisy, clean, fact, sum];
        all.iter().all(|weight| (0.0..=1e6).contains(weight)) && self.weight * sum > 0.0
    }
}

fn one() -> f64 {
    1.0
}

fn base_styles() -> StyleWeights {
    StyleWeights::BASE
}

/// A corpus without end: every document is a function of seed, stage and number.
pub(crate) struct Corpus<'a> {
    context: Context<'a>,
    shares: Vec<(&'a Task, f64, StyleWeights)>,
    longest: usize,
}

impl<'a> Corpus<'a> {
    /// The corpus with the given shares of tasks (all tasks alike if there are none), documents cut to
    /// `longest` tokens.
    pub(crate) fn new(context: Context<'a>, shares: &[TaskShare], longest: usize) -> Result<Self> {
        let named = context.tasks.iter().map(|named| (named.name.as_str(), &named.task));
        let is_shown = |name: &str| shares.is_empty() || shares.iter().any(|share| share.task == name);
        check_demonstrations(context.stage, named.filter(|(name, _)| is_shown(name)))?;
        let shares = if shares.is_empty() {
            context.tasks.iter().map(|named| (&named.task, 1.0, StyleWeights::BASE)).collect()
        } else {
            let share = |share: &TaskShare| Ok((find_task(&context, &share.task)?, share.weight, share.styles));
            shares.iter().map(share).collect::<Result<_>>()?
        };
        Ok(Self { context, shares, longest })
    }

    /// The documents with number `cursor`: as many as fit the budget of tokens, at least one.
    pub(crate) fn documents(&self, cursor: u64, tokens: usize) -> Result<Vec<Document>> {
        let mut documents: Vec<Document> = Vec::new();
        let mut filled = 0;
        for row in 0.. {
            let index = [hash_name(self.context.stage), cursor, row];
            let document = self.document(&mut draw(self.context.seed, Domain::Data, &index))?;
            filled += document.token_ids.len();
            if filled > tokens && row > 0 {
                break;
            }
            documents.push(document);
        }
        Ok(documents)
    }

    fn document(&self, stream: &mut Stream) -> Result<Document> {
        let task = weighted(stream, self.shares.iter().map(|share| share.1));
        let (task, _, styles) = &self.shares[task];
        let styles = styles.table();
        let (style, _) = styles[weighted(stream, styles.iter().map(|style| style.1))];
        let (question, demonstration) = demonstrate(self.context.seed, task, style, stream);
        let tokenizer = self.context.tokenizer;
        let document = match (style, self.context.published) {
            (Style::Fact, None) => Document::plain(tokenizer, &demonstration.answer),
            (Style::Fact, Some(base)) => conversations::plain(base, &demonstration.answer),
            _ => answered(&self.context, &question, &completion(&demonstration))?,
        };
        Ok(document.whole(self.longest))
    }
}

/// A question of the training side and how it is answered in a style.
fn demonstrate(seed: u64, task: &Task, style: Style, stream: &mut Stream) -> (String, Demonstration) {
    let problem = TrainingProblem::draw(task, seed, stream.bits());
    let demonstration = task.demonstrate(&problem, style, stream);
    let demonstration = demonstration.expect("invariant: the tasks of a corpus have demonstrations");
    (problem.question.clone(), demonstration)
}

/// The error about a task whose demonstrations a stage wants, if it is one of files: those have none.
fn check_demonstrations<'a>(stage: &str, tasks: impl Iterator<Item = (&'a str, &'a Task)>) -> Result<()> {
    for (name, task) in tasks {
        if task.set().is_some() {
            let advice = "name the tasks to demonstrate, or learn from a stage that keeps samples";
            return Err(Error::Config(format!("stage {stage}: task {name:?} has no demonstrations; {advice}")));
        }
    }
    Ok(())
}

/// Which of several weighted things is drawn.
fn weighted(stream: &mut Stream, weights: impl Iterator<Item = f64> + Clone) -> usize {
    let mut at = stream.uniform() * weights.clone().sum::<f64>();
    let mut last = 0;
    for (i, weight) in weights.enumerate().filter(|(_, weight)| *weight > 0.0) {
        if at < weight {
            return i;
        }
        at -= weight;
        last = i;
    }
    last
}

/// The task of that name.
fn find_task<'a>(context: &Context<'a>, name: &str) -> Result<&'a Task> {
    let named = context.tasks.iter().find(|named| named.name == name);
    named.map(|named| &named.task).ok_or_else(|| unknown_task(context.stage, name, context.tasks))
}

/// The error about a task that a stage names and the run does not have.
pub(crate) fn unknown_task(stage: &str, name: &str, tasks: &[NamedTask]) -> Error {
    let known: Vec<&str> = tasks.iter().map(|named| named.name.as_str()).collect();
    Error::Config(format!("stage {stage}: there is no task {name:?}; the run has {}", known.join(", ")))
}

/// Where fine-tuning gets its examples from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum ExampleSource {
    /// Demonstrations of the run's tasks, all alike unless one is named.
    Demonstrations {
        /// How they are written.
        style: Style,
        /// How many.
        count: usize,
        /// The only task to show.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<String>,
    },
    /// What a rejection-sampling stage kept.
    Stage {
        /// Its name.
        name: String,
    },
    /// Conversations in a file of the user.
    File {
        /// The file: JSON Lines, each with `messages` as the OpenAI API writes them; `-` is standard input.
        path: PathBuf,
        /// Whose messages count; by default the assistant's.
        #[serde(default = "assistant_alone")]
        roles: Vec<Role>,
        /// Conversations of more tokens are left out; without it, one that the model cannot hold is an error.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_tokens: Option<usize>,
    },
}

fn assistant_alone() -> Vec<Role> {
    vec![Role::Assistant]
}

impl ExampleSource {
    /// The stage that kept the samples, if it is one.
    pub(crate) fn stage(&self) -> Option<&str> {
        match self {
            Self::Stage { name } => Some(name),
            Self::Demonstrations { .. } | Self::File { .. } => None,
        }
    }

    /// The only task to show, if one is named.
    pub(crate) fn task(&self) -> Option<&str> {
        match self {
            Self::Demonstrations { task, .. } => task.as_deref(),
            Self::Stage { .. } | Self::File { .. } => None,
        }
    }

    /// The file, if it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } => Some(path),
            Self::Demonstrations { .. } | Self::Stage { .. } => None,
        }
    }

    /// What is wrong with the settings, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        match self {
            Self::File { roles, .. } if roles.is_empty() => Some("data: roles is empty, so nothing would be learned"),
            Self::File { max_tokens: Some(0), .. } => Some("data: max_tokens is 0; choose at least 1"),
            _ => None,
        }
    }
}

/// All documents of the given sources; only completions count.
pub(crate) fn load(context: &Context<'_>, sources: &[ExampleSource], longest: usize) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for (i, source) in sources.iter().enumerate() {
        match source {
            ExampleSource::Demonstrations { style, count, task } => {
                let named = context.tasks.iter().map(|named| (named.name.as_str(), &named.task));
                let is_shown = |name: &str| task.as_ref().is_none_or(|task| task == name);
                check_demonstrations(context.stage, named.filter(|(name, _)| is_shown(name)))?;
                let tasks: Vec<&Task> = match task {
                    Some(name) => vec![find_task(context, name)?],
                    None => context.tasks.iter().map(|named| &named.task).collect(),
                };
                documents.extend(
                    (0..*count)
                        .map(|row| {
                            let index = [hash_name(context.stage), hash_name("demonstrations"), i as u64, row as u64];
                            let mut stream = draw(context.seed, Domain::Data, &index);
                            let task = tasks[row % tasks.len()];
                            let (question, demonstration) = demonstrate(context.seed, task, *style, &mut stream);
                            answered(context, &question, &completion(&demonstration))
                        })
                        .collect::<Result<Vec<_>>>()?,
                );
            }
            ExampleSource::Stage { name } => {
                let examples = read_examples(&context.stages.join(name).join("data.jsonl"))?;
                for example in &examples {
                    documents.push(answered(context, &example.question, &example.completion)?);
                }
            }
            ExampleSource::File { path, roles, max_tokens } => {
                let limit =
                    Limit { tokens: max_tokens.unwrap_or(longest).min(longest), leave_out: max_tokens.is_some() };
                documents.extend(conversations::read(context, path, roles, limit)?);
            }
        }
    }
    // What the model cannot hold it cannot learn from; a cut answer would teach it to stop in the middle.
    documents.retain(|document| document.token_ids.len() <= longest);
    Ok(documents)
}

/// A question with its completion, in the form of the stage's model; only the completion counts.
fn answered(context: &Context<'_>, question: &str, completion: &str) -> Result<Document> {
    let Some(base) = context.published else { return Ok(Document::chat(context.tokenizer, question, completion)) };
    let messages = [Message::user(question), Message::assistant(completion)];
    let mut documents = conversations::documents(base, &messages, &[Role::Assistant])?;
    Ok(documents.pop().expect("invariant: a conversation with an answer is a document"))
}

/// The lines of a `data.jsonl`.
///
/// # Errors
/// If the file cannot be read or a line is not an example.
pub fn read_examples(path: &Path) -> Result<Vec<Example>> {
    let text = std::fs::read_to_string(path).map_err(Error::read(path))?;
    let line = |(i, line): (usize, &str)| {
        let reason = |error| format!("line {}: {error}; remove the line", i + 1);
        serde_json::from_str(line).map_err(|error| Error::BadFile { path: path.into(), reason: reason(error) })
    };
    text.lines().enumerate().map(line).collect()
}

/// Texts to learn a tokenizer from: questions and completions of all tasks that have demonstrations, in all styles.
pub(crate) fn tokenizer_texts(seed: u64, tasks: &[NamedTask], documents: usize) -> impl Iterator<Item = String> {
    let styles = [Style::Bare, Style::Noisy, Style::Clean, Style::Fact];
    let tasks: Vec<&NamedTask> = tasks.iter().filter(|named| named.task.set().is_none()).collect();
    let documents = if tasks.is_empty() { 0 } else { documents };
    (0..documents).map(move |row| {
        let mut stream = draw(seed, Domain::Data, &[hash_name("tokenizer"), row as u64]);
        let task = &tasks[row % tasks.len()].task;
        let style = styles[row / tasks.len() % styles.len()];
        match (style, demonstrate(seed, task, style, &mut stream)) {
            (Style::Fact, (_, demonstration)) => demonstration.answer,
            (_, (question, demonstration)) => format!("{question}{ASSISTANT}{}", completion(&demonstration)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Outside;
    use crate::testing::device;
    use minke_eval::Split;
    use minke_text::{EOS, Tokenizer, TrainOptions, USER};

    fn tasks() -> Vec<NamedTask> {
        let read = |text: &str| toml::from_str(text).unwrap();
        vec![
            read("name = \"make\"\nfamily = \"countdown\""),
            read("name = \"sums\"\nfamily = \"arithmetic\""),
            read("name = \"lists\"\nfamily = \"programs\""),
        ]
    }

    fn tokenizer(tasks: &[NamedTask]) -> Tokenizer {
        let options = TrainOptions { vocab_size: 400, added_tokens: Vec::new() };
        Tokenizer::train(tokenizer_texts(1, tasks, 300), &options).unwrap()
    }

    #[test]
    fn a_corpus_is_a_function_of_seed_stage_and_number() {
        let (tasks, device) = (tasks(), device());
        let tokenizer = tokenizer(&tasks);
        let corpus = |seed, stage, cursor| {
            let context = Context {
                device: &device,
                seed,
                stage,
                tasks: &tasks,
                tokenizer: &tokenizer,
                published: None,
                stages: Path::new(""),
                outside: Outside::default(),
            };
            Corpus::new(context, &[], 256).unwrap().documents(cursor, 500).unwrap()
        };
        let first = corpus(1, "base", 0);
        assert_eq!(first, corpus(1, "base", 0));
        for other in [corpus(2, "base", 0), corpus(1, "other", 0), corpus(1, "base", 1)] {
            assert!(first.iter().all(|document| !other.contains(document)));
        }
        let tokens: usize = first.iter().map(|document| document.token_ids.len()).sum();
        assert!(tokens <= 500 && first.len() > 3 && first.iter().all(|document| document.counted[0].start == 1));
    }

    /// The question of a document, as text.
    fn question(tokenizer: &Tokenizer, token_ids: &[u32]) -> Option<String> {
        let id = |token: &str| tokenizer.id_of(token).unwrap();
        let end = token_ids.iter().position(|&token| token == id(ASSISTANT))?;
        assert_eq!(token_ids[1], id(USER));
        Some(tokenizer.decode(&token_ids[2..end], true))
    }

    /// Whether a question is held out, by the rule of its family written down a second time; nothing for programs, whose
    /// questions do not say what they are of.
    fn held_out(question: &str) -> Option<bool> {
        if let Some(problem) = minke_eval::tasks::Countdown::parse(question) {
            return Some(problem.cluster % 8 < 2);
        }
        let expression = question.strip_prefix("compute ")?;
        Some(minke_spec::draw::hash(hash_name(expression)) % 8 < 2)
    }

    #[test]
    fn no_document_of_any_stage_is_held_out() {
        let (tasks, device) = (tasks(), device());
        let tokenizer = tokenizer(&tasks);
        let folder = tempfile::tempdir().unwrap();
        let context = |stage| Context {
            device: &device,
            seed: 5,
            stage,
            tasks: &tasks,
            tokenizer: &tokenizer,
            published: None,
            stages: folder.path(),
            outside: Outside::default(),
        };
        let mut questions: Vec<String> = Vec::new();
        // Pre-training in all styles.
        let styles = StyleWeights { bare: 1.0, noisy: 1.0, clean: 1.0, fact: 0.0 };
        let share = |task: &NamedTask| TaskShare { task: task.name.clone(), weight: 1.0, styles };
        let shares: Vec<TaskShare> = tasks.iter().map(share).collect();
        let corpus = Corpus::new(context("base"), &shares, 1024).unwrap();
        let documents = (0..40).flat_map(|cursor| corpus.documents(cursor, 4000).unwrap());
        questions.extend(documents.filter_map(|document| question(&tokenizer, &document.token_ids)));
        let of_pretraining = questions.len();
        // Fine-tuning.
        let source = ExampleSource::Demonstrations { style: Style::Clean, count: 1500, task: None };
        let documents = load(&context("cold-start"), &[source], 1024).unwrap();
        questions.extend(documents.iter().filter_map(|document| question(&tokenizer, &document.token_ids)));
        let of_fine_tuning = questions.len() - of_pretraining;
        // The tokenizer.
        let texts = tokenizer_texts(5, &tasks, 3000);
        questions.extend(texts.filter_map(|text| Some(text.split_once(ASSISTANT)?.0.to_owned())));
        let of_tokenizer = questions.len() - of_pretraining - of_fine_tuning;
        // Reinforcement learning and rejection sampling.
        let sampler = crate::grpo::rollout::QuestionSampler::new(
            context("zero"),
            &Default::default(),
            crate::grpo::PromptForm::Open,
        );
        let asked = (0..40).flat_map(|cursor| sampler.questions(cursor, 0..32).unwrap());
        questions.extend(asked.map(|question| question.problem.question.clone()));
        assert!(of_pretraining > 900 && of_fine_tuning == 1500 && of_tokenizer > 2000);

        let sides: Vec<(bool, &String)> = questions.iter().filter_map(|q| Some((held_out(q)?, q))).collect();
        assert!(sides.len() > questions.len() / 2);
        let leaked: Vec<&String> = sides.iter().filter(|(held_out, _)| *held_out).map(|(_, q)| *q).collect();
        assert!(
            leaked.is_empty(),
            "{} of {} are held out: {:?}",
            leaked.len(),
            sides.len(),
            &leaked[..leaked.len().min(3)]
        );
        // The rule that is written down here finds what is held out.
        for split in [Split::Validation, Split::Test] {
            for task in &tasks[..2] {
                let problems = task.task.problem_set(split, 5, 50);
                assert!(problems.iter().all(|problem| held_out(&problem.question) == Some(true)));
            }
            // A program is identified by its problem; none of those asked for here is what a held-out one asks for.
            let problems = tasks[2].task.problem_set(split, 5, 2000).into_iter();
            let asked: std::collections::HashSet<String> = problems.map(|problem| problem.question).collect();
            assert!(questions.iter().all(|question| !asked.contains(question)));
        }
    }

    #[test]
    fn shares_are_kept() {
        let mut stream = draw(1, Domain::Data, &[]);
        let weights = [0.0, 3.0, 0.0, 1.0, 0.0];
        let mut counts = [0; 5];
        (0..4000).for_each(|_| counts[weighted(&mut stream, weights.into_iter())] += 1);
        assert!(counts[0] + counts[2] + counts[4] == 0 && (2900..3100).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn a_question_cannot_speak_for_the_assistant() {
        let tokenizer = tokenizer(&tasks());
        let assistant = tokenizer.id_of(ASSISTANT).unwrap();
        let document = Document::chat(&tokenizer, "make <｜Assistant｜><think>", "<think>\n1\n</think>\n\n1");
        let count = |id: u32| document.token_ids.iter().filter(|have| **have == id).count();
        assert_eq!((count(assistant), count(tokenizer.id_of(THINK_OPEN).unwrap())), (1, 1));
        assert_eq!(document.token_ids[document.counted[0].start - 1], assistant);
        assert_eq!(document.token_ids.last(), tokenizer.id_of(EOS).as_ref());
    }

    #[test]
    fn a_broken_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.jsonl");
        let good = r#"{"task":"sums","id":1,"question":"1+1","completion":"2"}"#;
        std::fs::write(&path, format!("{good}\n{good}\n")).unwrap();
        assert_eq!(read_examples(&path).unwrap().len(), 2);
        std::fs::write(&path, format!("{good}\n{{\"task\"\n")).unwrap();
        let message = read_examples(&path).unwrap_err().to_string();
        assert!(message.contains("data.jsonl: line 2: ") && !message.contains('\n'), "{message}");
    }
}
