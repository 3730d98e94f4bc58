//! What all connections share: the model, the settings, the counters.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use minke_chat::{ChatModel, Prompt, Request, Worker};
use minke_engine::{Constraint, SamplingParams, Tenant};
use minke_text::{
    Grammar, GrammarError, GrammarSource, GrammarVocabulary, Message, RenderOptions, Rendered, Role, Tool,
    ToolCallParser, ToolChoice,
};
use tokio::sync::{Semaphore, watch};

use crate::config::{ServerConfig, read_keys};
use crate::error::{ApiError, Kind};
use crate::generation::{Conversation, Generation, GenerationRequest, Input, Script};
use crate::kept::KeptResponses;
use crate::metrics::Metrics;
use crate::request_log::{self, Lines};
use crate::stream::{KEEPALIVE, Streaming};

/// What all connections share.
pub(crate) struct App {
    pub config: ServerConfig,
    keys: RwLock<Arc<[String]>>,
    warn: fn(&str),
    /// What takes a line about each request, if anything does.
    pub log: OnceLock<Lines>,
    pub metrics: Metrics,
    pub kept: KeptResponses,
    served: OnceLock<Served>,
    /// What describes the server, made when it is asked for first.
    pub document: OnceLock<Bytes>,
    pub streaming: Streaming,
    /// What answers in place of the engine, in tests.
    pub script: Option<Script>,
    /// Whether the server ends: it takes no connection, and those that are there end with what they work on.
    closing: watch::Sender<bool>,
    /// Whether streams end as well.
    stop: watch::Sender<bool>,
    /// Makes ids and seeds that nobody can guess.
    random: RandomState,
    counter: AtomicU64,
    /// Work on prompts that goes on at once: the processor is the engine's.
    preparing: Semaphore,
}

/// Prompts that are rendered, cut into tokens or searched at once.
const PREPARED_AT_ONCE: usize = 2;

/// A model that is loaded, and the thread that answers with it.
pub(crate) struct Served {
    pub name: String,
    pub worker: Worker,
    /// Made when the first grammar is asked for.
    vocabulary: OnceLock<Result<GrammarVocabulary, GrammarError>>,
    /// Seconds since 1970.
    pub since: u64,
}

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Caller {
    pub tenant: Tenant,
}

impl App {
    pub(crate) fn new(config: ServerConfig, keys: Vec<String>, warn: fn(&str)) -> Self {
        let stop = watch::Sender::new(false);
        let stall = Duration::from_secs(config.limits().stall_seconds);
        Self {
            config,
            keys: RwLock::new(keys.into()),
            warn,
            log: OnceLock::new(),
            metrics: Metrics::default(),
            kept: KeptResponses::default(),
            served: OnceLock::new(),
            document: OnceLock::new(),
            streaming: Streaming { stop: stop.subscribe(), stall, keepalive: KEEPALIVE },
            script: None,
            closing: watch::Sender::new(false),
            stop,
            random: RandomState::new(),
            counter: AtomicU64::new(0),
            preparing: Semaphore::new(PREPARED_AT_ONCE),
        }
    }

    /// Begins to serve a model; `name` is what its file is called.
    pub(crate) fn serve(&self, worker: Worker, name: &str) {
        let name = self.config.model_name.clone().unwrap_or_else(|| name.to_owned());
        // A second model would be an error of the program; the first stays.
        let _ = self.served.set(Served { name, worker, vocabulary: OnceLock::new(), since: now() });
    }

    /// Puts other weights in the place of the model's.
    ///
    /// # Errors
    /// If they are of another model, or none is served.
    pub(crate) fn replace(&self, model: ChatModel) -> minke_chat::Result<()> {
        self.served.get().ok_or(minke_chat::Error::Stopped)?.worker.replace_model(Arc::new(model))
    }

    /// The model.
    ///
    /// # Errors
    /// While it is loaded.
    pub(crate) fn served(&self) -> Result<&Served, ApiError> {
        self.served.get().ok_or_else(|| ApiError::new(Kind::Unavailable, "the model is being loaded; try again soon"))
    }

    /// Checks that the model that a request names is the one that is served. No name means that one.
    ///
    /// # Errors
    /// If it is another.
    pub(crate) fn check_model(&self, name: Option<&str>) -> Result<&Served, ApiError> {
        let served = self.served()?;
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(served) };
        let aliases = self.config.model_aliases.iter();
        if name == served.name || aliases.clone().any(|alias| alias == name || alias == "*") {
            return Ok(served);
        }
        let message = format!("there is no model {name:?} here; this server has {:?}", served.name);
        Err(ApiError { param: Some("model".into()), ..ApiError::new(Kind::NotFound, message) })
    }

    /// The keys that open this server; none where everybody may come in.
    pub(crate) fn keys(&self) -> Arc<[String]> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file of keys again; those of before stay if it is broken.
    pub(crate) fn read_keys_again(&self) {
        let Some(path) = &self.config.key_file else { return };
        match read_keys(path) {
            Ok(keys) => *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.into(),
            Err(error) => (self.warn)(&format!("the keys stay as they were: {error}")),
        }
    }

    /// Begins the end of the server; what is under way goes on.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Whether the end has begun.
    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Waits until the end begins.
    pub(crate) async fn closing(&self) {
        // An error says that the server is gone.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Asks all streams to end.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// A number that nobody can guess and that does not come again.
    pub(crate) fn random(&self) -> u64 {
        self.random.hash_one(self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// A name that nobody can guess: `chatcmpl-1b4f...`.
    pub(crate) fn id(&self, prefix: &str) -> String {
        format!("{prefix}{:016x}{:08x}", self.random(), self.random() as u32)
    }

    /// Begins the answers to requests: those to the first one, then those to the next.
    ///
    /// # Errors
    /// If one cannot be obeyed, or too many wait; then none is begun.
    pub(crate) async fn generate(
        self: &Arc<Self>,
        requests: Vec<GenerationRequest>,
        caller: Caller,
    ) -> Result<Generation, ApiError> {
        let most = self.config.max_n;
        if let Some(n) = requests.iter().map(|request| request.n).find(|n| !(1..=most).contains(n)) {
            return Err(ApiError::field("n", format!("n = {n}: it must be 1 to {most}")));
        }
        let reports = requests.iter().any(|request| request.top_log_probs.is_some());
        let counts: Vec<(usize, Option<u64>)> = requests.iter().map(|request| (request.n, request.seed)).collect();
        let app = self.clone();
        let prepare_all = move || {
            let served = app.served()?;
            requests.into_iter().map(|request| prepare(served, request, caller)).collect::<Result<Vec<_>, _>>()
        };
        let prepared = self.blocking(prepare_all).await?;
        let worker = &self.served()?.worker;
        let (mut generation, sinks) = Generation::new(counts.iter().map(|(n, _)| n).sum(), reports);
        generation.prompt_tokens = prepared.iter().map(|prepared| prepared.request.prompt.token_ids.len()).sum();
        let (mut sinks, record) = (sinks.into_iter(), request_log::current());
        for (Prepared { request, grammar, notes }, (n, seed)) in prepared.into_iter().zip(counts) {
            let seed = seed.unwrap_or_else(|| self.random());
            for (i, mut sink) in sinks.by_ref().take(n).enumerate() {
                let mut one = request.clone();
                one.options.seed = SamplingParams::seed_of_sample(seed, i);
                if let Some(grammar) = &grammar {
                    let own = grammar.fresh();
                    one = one.with_answer(Constraint::new(move |ids, mask| own.mask(ids, mask.words_mut())));
                }
                let (metrics, record) = (self.metrics.request(), record.clone());
                if let Some(script) = &self.script {
                    script.answer(&worker.model(), &one, sink);
                    continue;
                }
                let ticket = worker.submit_to(one, move |event| {
                    metrics.take(&event);
                    record.iter().for_each(|record| record.take(&event));
                    sink.take(event);
                });
                generation.hold(ticket?);
            }
            generation.notes.extend(notes);
        }
        Ok(generation)
    }
}

impl App {
    /// How many tokens the prompt of a request has.
    ///
    /// # Errors
    /// If it cannot be rendered.
    pub(crate) async fn count_tokens(self: &Arc<Self>, request: GenerationRequest) -> Result<usize, ApiError> {
        let app = self.clone();
        let count = move || match request.input {
            Input::Tokens(token_ids) => Ok(token_ids.len()),
            Input::Conversation(conversation) => {
                Ok(prompt(&app.served()?.worker.model(), conversation)?.token_ids.len())
            }
        };
        self.blocking(count).await
    }

    /// Does work whose time grows with a prompt, on a thread of its own.
    ///
    /// # Errors
    /// Those of the work; an error of the program if it panics.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let broken = "the request could not be prepared: this is an error of the program";
        let _place = self.preparing.acquire().await.map_err(|_| ApiError::internal(broken))?;
        tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::internal(broken))?
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// What the engine's thread is to do for a request.
struct Prepared {
    request: Request,
    /// What binds the answer.
    grammar: Option<Grammar>,
    notes: Vec<String>,
}

impl Served {
    /// Compiles a grammar.
    fn grammar(&self, source: &GrammarSource) -> Result<Grammar, GrammarError> {
        let model = self.worker.model();
        let make = || GrammarVocabulary::new(&model.tokenizer, model.model.config().vocab_size, &model.end_ids());
        Grammar::compile(self.vocabulary.get_or_init(make).as_ref().map_err(Clone::clone)?, source)
    }
}

/// Renders, tokenizes and compiles. Takes time that grows with prompt and grammar.
fn prepare(served: &Served, request: GenerationRequest, caller: Caller) -> Result<Prepared, ApiError> {
    let model = served.worker.model();
    let GenerationRequest { input, options, stop, top_log_probs, format, .. } = request;
    options.validate().map_err(ApiError::from)?;
    let vocab_size = model.tokenizer.vocab_size();
    if let Some((id, _)) = options.logit_bias.last_key_value().filter(|(id, _)| **id as usize >= vocab_size) {
        return Err(ApiError::field(
            "logit_bias",
            format!("logit_bias names token {id} of a vocabulary of {vocab_size}"),
        ));
    }
    if top_log_probs.is_some_and(|count| count > MOST_LOG_PROBS) {
        return Err(ApiError::field("top_logprobs", format!("top_logprobs must be 0 to {MOST_LOG_PROBS}")));
    }
    if stop.len() > MOST_STOPS || stop.iter().any(|stop| stop.len() > MOST_STOP_BYTES) {
        let message = format!("stop takes at most {MOST_STOPS} texts of at most {MOST_STOP_BYTES} bytes");
        return Err(ApiError::field("stop", message));
    }
    let (mut parser, mut calls, mut notes) = (None, None, Vec::new());
    let prompt = match input {
        Input::Tokens(token_ids) => Prompt::continued(token_ids),
        Input::Conversation(conversation) => {
            if !conversation.tools.is_empty() && conversation.tool_choice != ToolChoice::None {
                let (tools, choice) = (&conversation.tools, &conversation.tool_choice);
                let written = model.template.tool_format(&model.tokenizer);
                parser = Some(ToolCallParser::new(written, tools));
                calls = written
                    .grammar(tools, choice, conversation.parallel_tool_calls)
                    .map_err(|error| ApiError::field("tools", error.to_string()))?;
            }
            prompt(&model, conversation)?
        }
    };
    if let Some(calls) = &calls {
        let note = |(name, error): &(String, GrammarError)| format!("parameters of tool {name} ({error})");
        notes.extend(calls.unconstrained.iter().map(note));
    }
    let source = match (calls.map(|calls| calls.source), format) {
        (Some(calls), Some(format)) => Some(GrammarSource::Choice(vec![calls, format])),
        (calls, format) => calls.or(format),
    };
    if options.ignore_eos && source.is_some() {
        let message = "ignore_eos lets an answer go on for ever, and response_format, or tools that bind it, end it: leave one out";
        return Err(ApiError::field("ignore_eos", message));
    }
    let refused = |error: GrammarError| ApiError::field("response_format", error.to_string());
    let grammar = source.map(|source| served.grammar(&source)).transpose().map_err(refused)?;
    let limit = served.worker.limit();
    if prompt.token_ids.len() >= limit {
        return Err(ApiError::context_length(prompt.token_ids.len(), limit));
    }
    if prompt.token_ids.is_empty() {
        return Err(ApiError::field("prompt", "the prompt is empty"));
    }
    let mut request = Request::new(prompt).with_options(options).with_stop(stop).with_tenant(caller.tenant);
    if let Some(count) = top_log_probs {
        request = request.with_top_log_probs(count);
    }
    if let Some(parser) = parser {
        request = request.with_tools(parser);
    }
    Ok(Prepared { request, grammar, notes })
}

/// Most alternatives that are reported for a token, as in OpenAI's API.
const MOST_LOG_PROBS: usize = 20;
/// Most stop strings, and most bytes of each.
const MOST_STOPS: usize = 64;
const MOST_STOP_BYTES: usize = 1024;

/// The prompt of a conversation. An assistant's message at its end is gone on with.
pub(crate) fn prompt(model: &ChatModel, mut conversation: Conversation) -> Result<Prompt, ApiError> {
    let begun = conversation
        .messages
        .pop_if(|last| last.role == Role::Assistant && last.tool_calls.is_empty())
        .and_then(|last| last.content)
        .filter(|content| !content.is_empty());
    if conversation.messages.is_empty() {
        return Err(ApiError::field("messages", "there is no message to answer"));
    }
    let offered = !conversation.tools.is_empty() && conversation.tool_choice != ToolChoice::None;
    let tools = offered.then(|| Tool::to_json(&conversation.tools));
    let options = RenderOptions { add_generation_prompt: true, tools, thinking: conversation.thinking };
    let rendered = rendered(model, &conversation.messages, &options)?;
    let mut prompt = Prompt::rendered(&rendered, &model.tokenizer);
    if conversation.thinking == Some(false) {
        prompt = prompt.without_thought(&model.tokenizer);
    }
    if let Some(begun) = begun {
        prompt.token_ids.extend(model.tokenizer.encode_plain(&begun));
    }
    Ok(prompt)
}

/// The prompt of messages as the model's template writes it, with all instructions in their places.
///
/// # Errors
/// If the template cannot render them.
pub(crate) fn rendered(model: &ChatModel, messages: &[Message], options: &RenderOptions) -> Result<Rendered, ApiError> {
    let render = |messages: &[Message]| model.template.render_for(messages, options, &model.tokenizer);
    let mut rendered = render(messages);
    // Templates that want turns to alternate, or instructions at the front alone, raise errors; others keep the last instruction
    // and drop those before, or move one from the middle to the front, where it changes a beginning that was cached.
    if rendered.as_ref().map_or(true, |rendered| !keeps_instructions(rendered.text(), messages)) {
        let plain = in_turns(messages);
        if plain != messages {
            rendered = render(&plain).or(rendered);
        }
    }
    rendered.map_err(|error| minke_chat::Error::from(error).into())
}

/// Whether a rendered prompt has all instructions, each behind what was said before it. One at the front alone is left to the
/// template.
fn keeps_instructions(rendered: &str, messages: &[Message]) -> bool {
    if messages.iter().skip(1).all(|message| message.role != Role::System) {
        return true;
    }
    let said = messages.iter().filter(|message| [Role::System, Role::User].contains(&message.role));
    let mut rest = rendered;
    said.filter_map(|message| message.content.as_deref()).all(|content| {
        let content = content.trim();
        let found = rest.find(content);
        found.inspect(|at| rest = &rest[at + content.len()..]).is_some()
    })
}

/// The same conversation with one instruction at its front and turns that alternate: later instructions become the person's
/// words.
fn in_turns(messages: &[Message]) -> Vec<Message> {
    let mut plain: Vec<Message> = Vec::new();
    for message in messages {
        let mut message = message.clone();
        if message.role == Role::System && plain.iter().any(|before| before.role != Role::System) {
            message.role = Role::User;
        }
        match plain.last_mut() {
            Some(last) if last.role == message.role && message.role != Role::Tool && message.tool_calls.is_empty() => {
                let (text, more) = (last.content.get_or_insert_default(), message.content.unwrap_or_default());
                if !text.is_empty() && !more.is_empty() {
                    text.push_str("\n\n");
                }
                text.push_str(&more);
            }
            _ => plain.push(message),
        }
    }
    plain
}
