//! How does a conversation go? A person types, a command is obeyed or the model answers, until the person leaves.

mod commands;
mod conversation;
mod files;
mod input;
pub mod meter;
mod session;
mod settings;
mod worker;

use std::path::Path;

use anyhow::{Context, Result};
use minke_chat::SamplingOptions;
use minke_engine::Finish;

use self::commands::Command;
use self::conversation::{Conversation, Turn};
use self::input::{Input, Typed};
use self::session::Session;
pub use self::worker::THREAD;
use crate::args::Think;
use crate::assistant::Assistant;
use crate::environment;
use crate::error::{Exit, line};
use crate::interrupt::Interrupt;
use crate::printer::{Printer, fitting, print_dim};
use crate::verdict::{check, remark};

/// How a conversation starts.
pub struct Start {
    /// What was said about sampling.
    pub sampling: SamplingOptions,
    /// What happens to thoughts.
    pub think: Think,
    /// Whether stdout understands dim text.
    pub dim: bool,
    /// Name of the conversation to go on with.
    pub session: Option<String>,
}

/// A conversation with what belongs to it.
struct Repl {
    assistant: Assistant,
    model: String,
    /// Longest conversation, in tokens.
    limit: usize,
    interrupt: Interrupt,
    sampling: SamplingOptions,
    think: Think,
    dim: bool,
    conversation: Conversation,
    /// Files that go in front of the next question.
    attached: String,
    /// Under which name the conversation is kept after every turn.
    session: Option<String>,
}

/// Talks until the person leaves.
///
/// # Errors
/// If the terminal cannot be used, or a session that was asked for cannot be read.
pub fn run(assistant: Assistant, path: &Path, interrupt: Interrupt, start: Start) -> Result<()> {
    let Start { sampling, think, dim, session } = start;
    let limit = assistant.engine().limit();
    let mut repl = Repl {
        assistant,
        model: path.display().to_string(),
        limit,
        interrupt,
        sampling,
        think,
        dim,
        conversation: Conversation::default(),
        attached: String::new(),
        session,
    };
    let mut input = Input::new(environment::history())?;
    eprintln!("{}; /help says what can be typed, Ctrl-D leaves", repl.model);
    if let Some(name) = repl.session.clone()
        && session::path(&name)?.exists()
    {
        repl.load(&name)?;
    }
    loop {
        let outcome = match input.read()? {
            Typed::End | Typed::Command(Command::Quit) => break,
            Typed::Nothing => continue,
            Typed::Unknown(error) => Err(error),
            Typed::Command(command) => repl.obey(command),
            Typed::Message(text) => repl.ask_with_files(&text),
        };
        outcome.and_then(|()| repl.keep_text()).unwrap_or_else(|error| eprintln!("{}", line(&error)));
    }
    match repl.session.clone() {
        Some(name) => repl.save(&name),
        None => Ok(()),
    }
}

impl Repl {
    /// Answers a question and adds both to the conversation; if it cannot be answered, nothing changes.
    fn ask(&mut self, question: String) -> Result<()> {
        let messages = self.conversation.asking(&question);
        let tokens = self.assistant.token_ids(&messages, true)?.len();
        if tokens >= self.limit {
            let limit = self.limit;
            let advice = "shorten the message, take turns back with /undo, or start with /new";
            return Err(Exit::DoesNotFit.because(format!(
                "nothing was asked: conversation and message have {tokens} tokens, the context holds {limit}; {advice}"
            )));
        }
        self.interrupt.take();
        let mut printer = Printer::new(self.think, self.dim);
        let mut answer = worker::ask(&self.assistant, messages, &self.sampling, &self.interrupt, &mut printer)?;
        // Nobody counted yet if it was interrupted at once.
        answer.prompt_tokens = tokens;
        printer.finish()?;
        // The next answer to the same question shall be another one.
        self.sampling.seed = self.sampling.seed.wrapping_add(1);
        let checked = check(&question, &answer.content).filter(|_| !answer.content.trim().is_empty());
        self.conversation.turns.push(Turn::new(question, answer.clone()));
        eprintln!("{}", meter::turn(&answer, self.used()?, self.limit));
        checked.iter().for_each(|verdict| eprintln!("{}", remark(*verdict, &answer.content)));
        let advice = match answer.finish {
            Finish::Cancelled => Some("what there is of the turn is kept; /regen answers again, /undo takes it back"),
            Finish::Length if answer.prompt_tokens + answer.completion_tokens >= self.limit => {
                Some("the context is full; /regen with a /set budget, take turns back with /undo, or start with /new")
            }
            Finish::Stop(_) if answer.content.trim().is_empty() => {
                Some("the model ended without an answer; /regen tries the next seed")
            }
            _ => None,
        };
        advice.iter().for_each(|advice| eprintln!("{advice}"));
        Ok(())
    }

    /// Obeys a command.
    fn obey(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Help => eprintln!("{}", commands::help()),
            Command::Quit => {}
            Command::New => {
                if let Some(name) = self.session.take() {
                    self.save(&name)?;
                }
                self.conversation = Conversation { system: self.conversation.system.take(), turns: Vec::new() };
                self.attached.clear();
            }
            Command::Regen => {
                let turn = self.take_turn()?;
                self.ask_instead(turn.question.clone(), turn)?;
            }
            Command::Undo => {
                let turn = self.take_turn()?;
                eprintln!("taken back: {}", fitting(&turn.question.replace('\n', " "), 60));
            }
            Command::Edit => {
                let turn = self.take_turn()?;
                match files::edit(&turn.question) {
                    Ok(question) => self.ask_instead(question, turn)?,
                    Err(error) => {
                        self.conversation.turns.push(turn);
                        return Err(error);
                    }
                }
            }
            Command::Read(path) => {
                let text = files::read(&path, self.limit)?;
                let tokens = self.assistant.loaded().tokenizer.encode(&text).len();
                eprintln!("{}: {tokens} tokens; they go in front of the next question", path.display());
                self.attached.push_str(&text);
            }
            Command::System(None) => eprintln!("{}", self.conversation.system.as_deref().unwrap_or("none")),
            Command::System(Some(text)) => self.conversation.system = Some(text).filter(|text| text != "none"),
            Command::Think(think) => self.think = think,
            Command::LastThought => {
                let thought = self.conversation.turns.last().and_then(|turn| turn.reasoning.as_deref());
                print_dim(thought.context("there is no thought yet")?, self.dim)?;
            }
            Command::Settings => {
                eprintln!("{}", settings::list(&self.sampling, &self.assistant.params(&self.sampling), self.limit));
            }
            Command::Set(name, value) => settings::set(&mut self.sampling, &name, &value)?,
            Command::Context => {
                let tokens = |text: &str| self.assistant.loaded().tokenizer.encode(text).len();
                eprintln!("{}", meter::context(&self.conversation, &tokens, self.used()?, self.limit));
            }
            Command::Stats => {
                let engine = self.assistant.engine();
                eprintln!("{}", meter::stats(&engine.stats(), engine.page_bytes()));
            }
            Command::Save(name) => self.save(&name)?,
            Command::Load(name) => self.load(&name)?,
            Command::List => session::names().iter().for_each(|name| eprintln!("{name}")),
            Command::Export(path) => files::write_new(&path, &self.conversation.markdown())?,
        }
        Ok(())
    }

    /// Asks with the files that wait in front of the question.
    fn ask_with_files(&mut self, question: &str) -> Result<()> {
        self.ask(format!("{}{question}", self.attached))?;
        self.attached.clear();
        Ok(())
    }

    fn take_turn(&mut self) -> Result<Turn> {
        self.conversation.turns.pop().context("there is no question yet")
    }

    /// Asks in place of a turn, which comes back if that fails.
    fn ask_instead(&mut self, question: String, turn: Turn) -> Result<()> {
        self.ask(question).inspect_err(|_| self.conversation.turns.push(turn))
    }

    /// Returns the tokens of the conversation so far.
    fn used(&self) -> Result<usize> {
        Ok(self.assistant.token_ids(&self.conversation.messages(), false)?.len())
    }

    /// Keeps the text of a session that was asked for by name; its cache follows at the end.
    fn keep_text(&self) -> Result<()> {
        match &self.session {
            Some(name) => self.text().write(&session::path(name)?),
            None => Ok(()),
        }
    }

    fn text(&self) -> Session {
        Session {
            model: self.model.clone(),
            conversation: self.conversation.clone(),
            sampling: self.sampling.clone(),
            think: self.think,
        }
    }

    /// Keeps text, settings and cache.
    fn save(&self, name: &str) -> Result<()> {
        let path = session::path(name)?;
        self.text().write(&path)?;
        let token_ids = self.assistant.token_ids(&self.conversation.messages(), false)?;
        let identity = &self.assistant.loaded().identity;
        let tokens = session::write_cache(&path.with_extension("kv"), identity, &self.assistant.engine(), &token_ids)?;
        eprintln!("{name}: {} and the cache of {tokens} tokens are kept", turns(&self.conversation));
        Ok(())
    }

    /// Goes on with what was kept. A cache that cannot be used costs time only.
    fn load(&mut self, name: &str) -> Result<()> {
        let path = session::path(name)?;
        let Session { model, conversation, sampling, think } = Session::read(&path)?;
        if model != self.model {
            eprintln!("{name}: was held with {model}");
        }
        let cache = path.with_extension("kv");
        let identity = &self.assistant.loaded().identity;
        let tokens = session::read_cache(&cache, identity, &mut self.assistant.engine()).unwrap_or_else(|error| {
            eprintln!("{}: {}; ignored, the text is read again", cache.display(), line(&error));
            0
        });
        eprintln!("{name}: {}, {tokens} tokens from its cache", turns(&conversation));
        (self.conversation, self.sampling, self.think) = (conversation, sampling, think);
        Ok(())
    }
}

fn turns(conversation: &Conversation) -> String {
    let count = conversation.turns.len();
    format!("{count} turn{}", if count == 1 { "" } else { "s" })
}
