//! `minke run`: one question with its answer on stdout, a question per line of stdin, or a conversation.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use minke_chat::{FinishReason, Reply, Request, SamplingOptions, Worker, WorkerConfig};
use minke_eval::Verdict;
use minke_text::{Message, RenderOptions};
use serde::Serialize;

use super::{chat_model, print_json};
use crate::args::{Run, Think};
use crate::ask::{ask, finish_reason};
use crate::error::{Exit, exit_code, line as error_line};
use crate::interrupt::Interrupt;
use crate::printer::Printer;
use crate::repl::{self, meter};
use crate::verdict::{check, remark};
use crate::{environment, locate};

/// The model that ships with the repository.
const DEFAULT_MODEL: &str = "models/first-light";

/// Runs `minke run`.
pub fn run(args: Run) -> Result<()> {
    let sampling = args.sampling()?;
    let (model, question) = model_and_question(args.model.as_deref(), &args.question)?;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let talks = terminal && question.is_none() && !args.output.json;
    if args.session.is_some() && !talks {
        return Err(Exit::Usage.because("--session: is for conversations; leave the question out, at a terminal"));
    }
    let device = args.compute.device()?;
    let no_quotes = model.is_none() && !args.question.is_empty();
    let path = model.map_or_else(default_model, Ok)?;
    if let Some(question) = question.as_ref().filter(|_| no_quotes) {
        eprintln!("minke: asking {}: {question}", path.display());
    }
    let interrupt = Interrupt::install()?;
    let (base, adapter) = args.adapter.beside(path.clone())?;
    let model = chat_model(&base, adapter.as_deref(), &device, 1)?;
    let worker = Worker::start(Arc::new(model), WorkerConfig::default())?;
    let dim = std::io::stdout().is_terminal() && environment::may_colour();
    if talks {
        return repl::run(
            worker,
            &path,
            interrupt,
            repl::Start { sampling, think: args.think, dim, session: args.session },
        );
    }
    let dialogue = Dialogue { worker, interrupt, sampling, think: args.think, json: args.output.json, dim };
    match question {
        Some(question) => dialogue.ask_alone(&question),
        None => dialogue.ask_lines(),
    }
}

/// Tells the model from the words of a question, quoted or not.
fn model_and_question(first: Option<&str>, rest: &[String]) -> Result<(Option<PathBuf>, Option<String>)> {
    let Some(first) = first else { return Ok((None, None)) };
    let (model, question) = match rest {
        _ if locate::is_meant_as_model(first) => (Some(first), rest.join(" ")),
        [] => (None, first.to_owned()),
        // A quoted question behind it, or a single word: both can be a model that is not there and its question.
        [only] if only.contains(char::is_whitespace) => (Some(first), only.clone()),
        [only] => {
            let advice = format!("for a question of two words write quotes: minke run \"{first} {only}\"");
            return Err(Exit::BadFile.because(format!("{first}: no such model, file or folder; {advice}")));
        }
        _ => (None, format!("{first} {}", rest.join(" "))),
    };
    if question.trim().is_empty() && (model.is_none() || !rest.is_empty()) {
        return Err(Exit::Usage.because("the question is empty; write one, or none"));
    }
    let model = model.map(|model| locate::model(Path::new(model))).transpose()?;
    Ok((model, Some(question).filter(|question| !question.is_empty())))
}

/// The folder of the model that ships with the repository: from here, from the binary upwards, or where the
/// binary was built.
pub fn default_model() -> Result<PathBuf> {
    let binary = std::env::current_exe().unwrap_or_default();
    let above = binary.ancestors().skip(1).map(|folder| folder.join(DEFAULT_MODEL));
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(DEFAULT_MODEL);
    let mut places = std::iter::once(PathBuf::from(DEFAULT_MODEL)).chain(above).chain([built]);
    places.find(|place| place.join(minke_weights::CONFIG_FILE).exists()).ok_or_else(|| {
        let advice = "start in the repository, or give the folder of a model: minke run MODEL";
        Exit::BadFile.because(format!("{DEFAULT_MODEL}: no model is there; {advice}"))
    })
}

/// A model and how it is spoken with.
struct Dialogue {
    worker: Worker,
    interrupt: Interrupt,
    sampling: SamplingOptions,
    think: Think,
    json: bool,
    dim: bool,
}

/// An answer as a machine reads it.
#[derive(Serialize)]
struct AnswerLine<'a> {
    prompt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<&'a str>,
    answer: &'a str,
    finish_reason: &'static str,
    /// Whether the answer solves the countdown problem that the prompt poses.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
    seed: u64,
    prompt_tokens: usize,
    completion_tokens: usize,
    seconds: f64,
}

impl Dialogue {
    /// Answers one question.
    ///
    /// # Errors
    /// If there is no answer at its end.
    fn ask_alone(&self, question: &str) -> Result<()> {
        let reply = self.ask(question)?;
        match (&reply.finish, reply.content.trim().is_empty()) {
            (FinishReason::Cancelled, _) => Err(Exit::Interrupted.because("interrupted; the answer is not complete")),
            (FinishReason::Length, true) => Err(Exit::Failed.because(format!(
                "no answer: the thought took all {} tokens; give more with --max-tokens, or try another --seed",
                reply.usage.completion_tokens
            ))),
            (FinishReason::NotFinite, _) => Err(Exit::Failed.because(
                "the model computed values that are not numbers; its weights are damaged or need another precision",
            )),
            _ => Ok(()),
        }
    }

    /// Answers every line of stdin as a question of its own. A line without an answer is named, and the others are answered.
    ///
    /// # Errors
    /// If one has none, or answers cannot be printed.
    fn ask_lines(&self) -> Result<()> {
        let (mut asked, mut failed) = (0, Vec::new());
        let mut input = std::io::stdin().lock();
        for number in 1.. {
            let mut line = Vec::new();
            if input.read_until(b'\n', &mut line).context("cannot read questions from standard input")? == 0 {
                break;
            }
            let question = question_of(&line, number == 1);
            if question.as_ref().is_ok_and(|question| question.is_empty()) {
                continue;
            }
            asked += 1;
            match question.and_then(|question| self.ask_alone(&question)) {
                Ok(()) => {}
                Err(error) if ends_all(&error) => return Err(error),
                Err(error) => {
                    eprintln!("minke: line {number}: {}", error_line(&error));
                    failed.push(number.to_string());
                }
            }
        }
        let advice = "write one as an argument: minke run \"make 24 from 3 8 1\"";
        match failed.len() {
            _ if asked == 0 => Err(Exit::Usage.because(format!("standard input has no question; {advice}"))),
            0 => Ok(()),
            count => {
                let lines = failed.join(", ");
                Err(Exit::Failed.because(format!("{count} of {asked} questions have no answer: line {lines}")))
            }
        }
    }

    /// Answers a question, and prints on stderr what that took and whether it is right.
    fn ask(&self, question: &str) -> Result<Reply> {
        let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
        let prompt = self.worker.model().prompt(&[Message::user(question)], &options)?;
        let request = Request::new(prompt).with_options(self.sampling.clone());
        let mut printer = Printer::new(self.think, self.dim);
        let printed = (!self.json).then_some(&mut printer);
        let reply = ask(&self.worker, request, &|| self.interrupt.is_raised(), printed)?;
        let checked = check(question, &reply.content);
        if self.json {
            print_json(&AnswerLine {
                prompt: question,
                reasoning: reply.reasoning.as_deref().filter(|_| self.think != Think::Hide),
                answer: &reply.content,
                finish_reason: finish_reason(&reply.finish),
                verdict: checked.map(|(verdict, _)| verdict),
                seed: self.sampling.seed,
                prompt_tokens: reply.usage.prompt_tokens,
                completion_tokens: reply.usage.completion_tokens,
                seconds: reply.usage.seconds,
            })?;
        } else {
            printer.finish()?;
            eprintln!("{}", meter::line(&reply));
            let answered = checked.filter(|_| !reply.content.trim().is_empty());
            answered.iter().for_each(|verdict| eprintln!("{}", remark(*verdict, &reply.content)));
        }
        Ok(reply)
    }
}

/// The question on a line of a file or a pipe.
///
/// # Errors
/// If it is not UTF-8.
fn question_of(line: &[u8], is_first: bool) -> Result<String> {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    if is_first && (line.starts_with(b"\xff\xfe") || line.starts_with(b"\xfe\xff")) {
        let advice = "convert it: iconv -f UTF-16 -t UTF-8";
        return Err(Exit::BadFile.because(format!("standard input is UTF-16; {advice}")));
    }
    let line = line.strip_prefix(MARK).filter(|_| is_first).unwrap_or(line);
    let text = std::str::from_utf8(line);
    let text = text.map_err(|error| Exit::Failed.because(format!("byte {} is not UTF-8", error.valid_up_to() + 1)))?;
    Ok(text.trim().to_owned())
}

/// Whether an error is not of one question alone.
fn ends_all(error: &anyhow::Error) -> bool {
    let prints = error.chain().any(|cause| cause.is::<std::io::Error>());
    prints || matches!(exit_code(error), Exit::Interrupted | Exit::BadFile)
}
