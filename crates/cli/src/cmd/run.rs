//! How does a person talk to a model? One question with its answer on stdout, questions line by line, or a conversation.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use minke_chat::SamplingOptions;
use minke_engine::Finish;
use minke_eval::Verdict;
use minke_text::Message;
use serde::Serialize;

use super::print_json;
use crate::answer::{Answer, finish_reason};
use crate::args::{Run, Think};
use crate::assistant::Assistant;
use crate::error::Exit;
use crate::interrupt::Interrupt;
use crate::printer::Printer;
use crate::repl::{self, meter};
use crate::verdict::{check, remark};

/// The model that ships with the repository.
const DEFAULT_MODEL: &str = "models/first-light";

/// Runs `minke run`.
pub fn run(args: Run) -> Result<()> {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let talks = terminal && args.prompt.is_none() && !args.json;
    if args.session.is_some() && !talks {
        return Err(Exit::Usage.because("--session: is for conversations; leave the question out, at a terminal"));
    }
    let path = args.model.clone().map_or_else(default_model, Ok)?;
    let interrupt = Interrupt::install()?;
    let assistant = Assistant::load(&path, args.threads)?;
    if talks {
        return repl::run(assistant, &path, interrupt, args);
    }
    let Run { sampling, think, json, dim, prompt, .. } = args;
    let dialogue = Dialogue { assistant, interrupt, sampling, think, json, dim };
    match prompt {
        Some(question) => dialogue.ask_alone(&question),
        None => dialogue.ask_lines(),
    }
}

/// Returns the folder of the model that ships with the repository: from here, from the binary upwards, or where the
/// binary was built.
fn default_model() -> Result<PathBuf> {
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
    assistant: Assistant,
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
    /// Answers one question; without an answer it fails.
    fn ask_alone(&self, question: &str) -> Result<()> {
        let answer = self.ask(&[Message::user(question)], question)?;
        match (answer.finish, answer.content.trim().is_empty()) {
            (Finish::Cancelled, _) => Err(Exit::Interrupted.because("interrupted; the answer is not complete")),
            (Finish::Length, true) => Err(Exit::Failed.because(format!(
                "no answer: the thought took all {} tokens; give more with --max-tokens, or try another --seed",
                answer.completion_tokens
            ))),
            (Finish::NotFinite, _) => Err(Exit::Failed.because(
                "the model computed values that are not numbers; its weights are damaged or need another precision",
            )),
            _ => Ok(()),
        }
    }

    /// Answers every line of stdin as a question of its own.
    fn ask_lines(&self) -> Result<()> {
        let mut asked = false;
        for question in std::io::stdin().lock().lines() {
            let question = question.context("cannot read questions from standard input")?;
            let question = question.trim();
            if question.is_empty() {
                continue;
            }
            asked = true;
            let answer = self.ask(&[Message::user(question)], question)?;
            if answer.finish == Finish::Cancelled {
                return Err(Exit::Interrupted.because("interrupted; the last answer is not complete"));
            }
        }
        let advice = "write one as an argument: minke run \"make 24 from 3 8 1\"";
        if asked { Ok(()) } else { Err(Exit::Usage.because(format!("standard input has no question; {advice}"))) }
    }

    /// Answers the last message of a conversation, and says on stderr what that took and whether it is right.
    fn ask(&self, conversation: &[Message], question: &str) -> Result<Answer> {
        let mut printer = Printer::new(self.think, self.dim);
        let json = self.json;
        let mut hear = |progress| if json { Ok(()) } else { printer.hear(&progress) };
        let answer = self.assistant.answer(conversation, &self.sampling, &self.interrupt, &mut hear)?;
        let checked = check(question, &answer.content);
        if json {
            print_json(&AnswerLine {
                prompt: question,
                reasoning: answer.reasoning.as_deref().filter(|_| self.think != Think::Hide),
                answer: &answer.content,
                finish_reason: finish_reason(answer.finish),
                verdict: checked.map(|(verdict, _)| verdict),
                seed: self.sampling.seed,
                prompt_tokens: answer.prompt_tokens,
                completion_tokens: answer.completion_tokens,
                seconds: answer.seconds,
            })?;
        } else {
            printer.finish()?;
            eprintln!("{}", meter::line(&answer));
            let answered = checked.filter(|_| !answer.content.trim().is_empty());
            answered.iter().for_each(|verdict| eprintln!("{}", remark(*verdict, &answer.content)));
        }
        Ok(answer)
    }
}
