//! The loop of a conversation: a person types, a command is obeyed or the model answers, until the person leaves.

mod commands;
mod conversation;
mod files;
mod input;
pub mod meter;
mod session;
mod settings;

use std::path::Path;

use anyhow::{Context, Result};
use minke_chat::{FinishReason, PrefixCache, Request, SamplingOptions, Worker};
use minke_text::RenderOptions;

use self::commands::Command;
use self::conversation::{Conversation, Turn};
use self::input::{Input, Typed};
use self::session::Session;
use crate::args::Think;
use crate::ask::ask;
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
    worker: Worker,
    model: String,
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
pub fn run(worker: Worker, path: &Path, interrupt: Interrupt, start: Start) -> Result<()> {
    let Start { sampling, think, dim, session } = start;
    let mut repl = Repl {
        worker,
        model: path.display().to_string(),
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
        let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
        let prompt = self.worker.model().prompt(&messages, &options)?;
        let (tokens, limit) = (prompt.token_ids.len(), self.worker.limit());
        if tokens >= limit {
            let advice = "shorten the message, take turns back with /undo, or start with /new";
            return Err(Exit::DoesNotFit.because(format!(
                "nothing was asked: conversation and message have {tokens} tokens, the context holds {limit}; {advice}"
            )));
        }
        self.interrupt.take();
        let mut printer = Printer::new(self.think, self.dim);
        let request = Request::new(prompt).with_options(self.sampling.clone());
        let reply = ask(&self.worker, request, &|| self.interrupt.take(), Some(&mut printer))?;
        printer.finish()?;
        // The next answer to the same question shall be another one.
        self.sampling.seed = self.sampling.seed.wrapping_add(1);
        let checked = check(&question, &reply.content).filter(|_| !reply.content.trim().is_empty());
        self.conversation.turns.push(Turn::new(question, reply.clone()));
        eprintln!("{}", meter::turn(&reply, self.used()?, limit));
        checked.iter().for_each(|verdict| eprintln!("{}", remark(*verdict, &reply.content)));
        let advice = match reply.finish {
            FinishReason::Cancelled => {
                Some("what there is of the turn is kept; /regen answers again, /undo takes it back")
            }
            FinishReason::Length if reply.usage.prompt_tokens + reply.usage.completion_tokens >= limit => {
                Some("the context is full; /regen with a /set budget, take turns back with /undo, or start with /new")
            }
            FinishReason::Stop if reply.content.trim().is_empty() => {
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
                let text = files::read(&path, self.worker.limit())?;
                let tokens = self.worker.model().tokenizer.encode(&text).len();
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
                let params = self.worker.model().params(&self.sampling);
                eprintln!("{}", settings::list(&self.sampling, &params, self.worker.limit()));
            }
            Command::Set(name, value) => settings::set(&mut self.sampling, &name, &value)?,
            Command::Context => {
                let tokens = |text: &str| self.worker.model().tokenizer.encode(text).len();
                eprintln!("{}", meter::context(&self.conversation, &tokens, self.used()?, self.worker.limit()));
            }
            Command::Stats => {
                let page_bytes = self.worker.with_prefix_cache(|cache| cache.page_bytes())?;
                eprintln!("{}", meter::stats(&self.worker.stats()?, page_bytes));
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

    /// The tokens of the conversation so far.
    fn used(&self) -> Result<usize> {
        Ok(self.token_ids()?.len())
    }

    fn token_ids(&self) -> Result<Vec<u32>> {
        let (messages, options) = (self.conversation.messages(), RenderOptions::default());
        Ok(self.worker.model().prompt(&messages, &options)?.token_ids)
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
        let (token_ids, identity) = (self.token_ids()?, self.worker.model().identity);
        let cache_path = path.with_extension("kv");
        let write = move |cache: &mut PrefixCache<'_>| session::write_cache(&cache_path, &identity, cache, &token_ids);
        let tokens = self.worker.with_prefix_cache(write)??;
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
        let (cache_path, identity) = (path.with_extension("kv"), self.worker.model().identity);
        let shown = cache_path.display().to_string();
        let read = move |cache: &mut PrefixCache<'_>| session::read_cache(&cache_path, &identity, cache);
        let tokens = self.worker.with_prefix_cache(read)?.unwrap_or_else(|error| {
            eprintln!("{shown}: {}; ignored, the text is read again", line(&error));
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
