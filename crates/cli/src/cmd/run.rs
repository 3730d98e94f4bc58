//! How does a person talk to a model? One question with its answer on stdout, questions line by line, or a conversation.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use minke_engine::Finish;
use minke_eval::Verdict;
use minke_eval::tasks::{Countdown, Gold};
use minke_text::Message;
use serde::Serialize;

use super::print_json;
use crate::args::{Run, Sampling, Think};
use crate::assistant::{Answer, Assistant};
use crate::error::{Exit, line};
use crate::interrupt::Interrupt;
use crate::printer::Printer;

/// The model that ships with the repository.
const DEFAULT_MODEL: &str = "models/first-light";

/// Runs `minke run`.
pub fn run(args: Run) -> Result<()> {
    let path = args.model.clone().map_or_else(default_model, Ok)?;
    let interrupt = Interrupt::install()?;
    let assistant = Assistant::load(&path, args.threads)?;
    let Run { sampling, think, json, dim, .. } = args;
    let mut dialogue = Dialogue { assistant, interrupt, sampling, think, json, dim };
    let terminal = std::io::stdin().is_terminal();
    match args.prompt {
        Some(question) => dialogue.ask_alone(&question),
        None if terminal && !json && std::io::stdout().is_terminal() => dialogue.converse(&path),
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
    places.find(|place| place.join(minke_model::weights::CONFIG_FILE).exists()).ok_or_else(|| {
        let advice = "start in the repository, or give the folder of a model: minke run MODEL";
        Exit::BadFile.because(format!("{DEFAULT_MODEL}: no model is there; {advice}"))
    })
}

/// A model and how it is spoken with.
struct Dialogue {
    assistant: Assistant,
    interrupt: Interrupt,
    sampling: Sampling,
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
    fn ask_alone(&mut self, question: &str) -> Result<()> {
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
    fn ask_lines(&mut self) -> Result<()> {
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
    fn ask(&mut self, conversation: &[Message], question: &str) -> Result<Answer> {
        let mut printer = Printer::new(self.think, self.dim);
        let json = self.json;
        let mut say = |event: &_| if json { Ok(()) } else { printer.say(event) };
        let answer = self.assistant.answer(conversation, &self.sampling, &self.interrupt, &mut say)?;
        let checked = check(question, &answer.content);
        if json {
            print_json(&AnswerLine {
                prompt: question,
                reasoning: answer.reasoning.as_deref().filter(|_| self.think == Think::Show),
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
            let speed = answer.completion_tokens as f64 / answer.seconds.max(1e-9);
            let (prompt, completion) = (answer.prompt_tokens, answer.completion_tokens);
            let end = match answer.finish {
                Finish::Stop(_) => "",
                Finish::Length => "; cut off at its longest",
                Finish::Cancelled => "; interrupted",
                Finish::NotFinite => "; values that are not numbers",
            };
            eprintln!("{prompt} + {completion} tokens, {:.2} s, {speed:.0} tokens/s{end}", answer.seconds);
            let answered = checked.filter(|_| !answer.content.trim().is_empty());
            answered.iter().for_each(|(verdict, target)| eprintln!("{}", remark(*verdict, *target, &answer.content)));
        }
        Ok(answer)
    }

    /// Talks until the person leaves.
    fn converse(&mut self, path: &Path) -> Result<()> {
        let mut editor =
            rustyline::DefaultEditor::new().context("cannot use this terminal; give the question as an argument")?;
        eprintln!("{}; /help says what can be typed, Ctrl-D leaves", path.display());
        let mut conversation: Vec<Message> = Vec::new();
        loop {
            let typed = match editor.readline("> ") {
                Ok(typed) => typed,
                Err(rustyline::error::ReadlineError::Interrupted) => continue,
                Err(rustyline::error::ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(error).context("cannot read from this terminal"),
            };
            let typed = typed.trim();
            if typed.is_empty() {
                continue;
            }
            // What is not remembered cannot be recalled with the arrow keys; that is no reason to stop.
            let _ = editor.add_history_entry(typed);
            if let Some(command) = typed.strip_prefix('/') {
                match self.obey(command, &mut conversation) {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    Err(error) => eprintln!("{}", line(&error)),
                }
                continue;
            }
            conversation.push(Message::user(typed));
            self.interrupt.take();
            match self.ask(&conversation, typed) {
                Ok(answer) => {
                    conversation.push(Message::assistant(answer.content));
                    // The next answer to the same question shall be another one.
                    self.sampling.seed = self.sampling.seed.wrapping_add(1);
                }
                Err(error) => {
                    conversation.pop();
                    eprintln!("{}; /new starts a new conversation", line(&error));
                }
            }
        }
    }

    /// Obeys a command, and returns whether it ends the conversation.
    fn obey(&mut self, command: &str, conversation: &mut Vec<Message>) -> Result<bool> {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words[..] {
            ["help"] => eprintln!("{HELP}"),
            ["new"] => conversation.clear(),
            ["quit"] => return Ok(true),
            ["think", "show"] => self.think = Think::Show,
            ["think", "hide"] => self.think = Think::Hide,
            ["set", name, value] => self.set(name, value)?,
            _ => return Err(Exit::Usage.because(format!("/{command}: no such command; /help lists them"))),
        }
        Ok(false)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let mut sampling = self.sampling.clone();
        let understood = match name {
            "temperature" => value.parse().map(|value| sampling.temperature = Some(value)).is_ok(),
            "top_p" => value.parse().map(|value| sampling.top_p = Some(value)).is_ok(),
            "max_tokens" => value.parse().map(|value| sampling.max_tokens = Some(value)).is_ok(),
            "seed" => value.parse().map(|value| sampling.seed = value).is_ok(),
            _ => return Err(Exit::Usage.because(format!("{name}: set temperature, top_p, max_tokens or seed"))),
        };
        if !understood {
            return Err(Exit::Usage.because(format!("{value}: is not a value for {name}")));
        }
        sampling.check()?;
        self.sampling = sampling;
        Ok(())
    }
}

const HELP: &str = "\
/new                  start a new conversation
/set NAME VALUE       temperature, top_p, max_tokens or seed
/think show|hide      whether the thought is printed
/quit                 leave, as Ctrl-D does
Ctrl-C ends an answer early; arrow keys recall what was typed";

fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop(_) => "stop",
        Finish::Length => "length",
        Finish::Cancelled => "interrupted",
        Finish::NotFinite => "not_finite",
    }
}

/// Returns what the grader of countdown says about an answer, and the target; nothing if the question is no such problem.
fn check(question: &str, answer: &str) -> Option<(Verdict, u32)> {
    let problem = Countdown::parse(question)?;
    let Gold::Countdown(gold) = &problem.gold else { return None };
    // It doubts a problem only if no whole steps lead to its target, as large as they may be.
    let grader = Countdown { largest_intermediate: 9_999, ..Countdown::default() };
    Some((grader.grade(&problem, answer), gold.target))
}

fn remark(verdict: Verdict, target: u32, answer: &str) -> String {
    match verdict {
        Verdict::Right => format!("checked: {} = {target}", answer.trim()),
        Verdict::Wrong => format!("checked: wrong, that is not {target} from these numbers"),
        Verdict::GoldUnusable => format!("checked: wrong, but nothing else was found to make {target} either"),
    }
}
