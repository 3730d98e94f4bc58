//! One thread that owns an engine and works on many requests at once.
//!
//! Requests come in through a bounded channel; each has a channel of its own for its events. The thread steps while
//! there is work and sleeps otherwise. Between two steps it takes in what was submitted, and ends what was cancelled or
//! whose receiver is gone. A thought that must be closed goes on as a new sequence behind the closing tag, whose prefix
//! is in the cache.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, TrySendError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use minke_engine::{Engine, EngineConfig, SamplingParams, SequenceId, Stats, Token};
use minke_tensor::{Dtype, PAGE_TOKENS};

use crate::decoder::Decoder;
use crate::{
    CACHE_DTYPE, CHUNK_TOKENS, ChatModel, Error, Event, FinishReason, Reply, Request, Result, ThoughtLimit, Usage,
};

/// Name of the thread.
pub const ENGINE_THREAD: &str = "engine";

/// Commands that may wait between two steps.
const COMMANDS: usize = 64;
const TAKEN: &str = "invariant: a sequence that has ended is there to be taken";

/// How many requests are worked on, and how many may wait.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerConfig {
    /// Most requests that are worked on at once.
    pub max_running: usize,
    /// Most requests that wait for their turn; more are refused.
    pub max_waiting: usize,
}

impl Default for WorkerConfig {
    /// 8 at once, 64 waiting.
    fn default() -> Self {
        Self { max_running: 8, max_waiting: 64 }
    }
}

impl WorkerConfig {
    /// Sets [`max_running`](Self::max_running).
    #[must_use]
    pub fn with_max_running(self, max_running: usize) -> Self {
        Self { max_running, ..self }
    }

    /// Sets [`max_waiting`](Self::max_waiting).
    #[must_use]
    pub fn with_max_waiting(self, max_waiting: usize) -> Self {
        Self { max_waiting, ..self }
    }
}

/// A model and the thread that answers with it. Dropped, it ends what it works on as cancelled, and waits for the end of the
/// step that is under way.
pub struct Worker {
    model: Arc<ChatModel>,
    /// Longest sequence, in tokens.
    limit: usize,
    /// None only while it is dropped.
    commands: Option<SyncSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

enum Command {
    Submit(Box<Submission>),
    /// Something to be done between two steps.
    Call(Box<dyn FnOnce(&mut Engine) + Send>),
}

impl Worker {
    /// Starts the thread, with a cache for the context that fits into memory beside the model.
    ///
    /// # Errors
    /// If a size is out of range, or the thread cannot be started.
    pub fn start(model: Arc<ChatModel>, config: WorkerConfig) -> Result<Self> {
        let sizes = EngineConfig::default()
            .with_pages(model.context.div_ceil(PAGE_TOKENS))
            .with_max_sequences(config.max_running)
            .with_chunk_tokens(CHUNK_TOKENS)
            .with_cache_dtype(CACHE_DTYPE);
        let engine = Engine::new(&model.device, model.model.config(), sizes)?;
        let limit = engine.limit();
        let (commands, receiver) = mpsc::sync_channel(COMMANDS);
        let mut own =
            EngineThread { model: model.clone(), engine, config, waiting: VecDeque::new(), running: BTreeMap::new() };
        let thread = std::thread::Builder::new()
            .name(ENGINE_THREAD.into())
            .spawn(move || own.run(&receiver))
            .map_err(Error::Thread)?;
        Ok(Self { model, limit, commands: Some(commands), thread: Some(thread) })
    }

    /// The model.
    pub fn model(&self) -> &ChatModel {
        &self.model
    }

    /// The longest sequence, in tokens: the model's context, or what the cache holds.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Hands a request in. One that the engine refuses fails alone: with the first event.
    ///
    /// # Errors
    /// If too many commands wait already, or the thread has ended.
    pub fn submit(&self, request: Request) -> Result<Events> {
        let (sender, receiver) = mpsc::channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let submission =
            Submission { request, events: sender, cancelled: cancelled.clone(), submitted: Instant::now() };
        match self.commands().try_send(Command::Submit(Box::new(submission))) {
            Ok(()) => Ok(Events { receiver, cancelled }),
            Err(TrySendError::Full(_)) => Err(Error::Busy { waiting: COMMANDS }),
            Err(TrySendError::Disconnected(_)) => Err(Error::Stopped),
        }
    }

    /// What the engine counted since it was started; waits for the end of the step that is under way.
    ///
    /// # Errors
    /// If the thread has ended.
    pub fn stats(&self) -> Result<Stats> {
        self.call(|engine| engine.stats())
    }

    /// Works with the prefix cache between two steps. Requests wait for its end.
    ///
    /// # Errors
    /// If the thread has ended.
    pub fn with_prefix_cache<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut PrefixCache<'_>) -> T + Send + 'static,
    ) -> Result<T> {
        self.call(|engine| work(&mut PrefixCache { engine }))
    }

    fn call<T: Send + 'static>(&self, work: impl FnOnce(&mut Engine) -> T + Send + 'static) -> Result<T> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let call = Command::Call(Box::new(move |engine| {
            // Nothing is lost if the caller is gone.
            let _ = sender.send(work(engine));
        }));
        self.commands().send(call).map_err(|_| Error::Stopped)?;
        receiver.recv().map_err(|_| Error::Stopped)
    }

    fn commands(&self) -> &SyncSender<Command> {
        self.commands.as_ref().expect("invariant: only a worker that is dropped has none")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.commands = None;
        // A panic of the thread was reported by it; its requests have failed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The prefix cache of a worker's engine.
pub struct PrefixCache<'a> {
    engine: &'a mut Engine,
}

impl PrefixCache<'_> {
    /// Bytes of one page of 32 tokens over all layers.
    pub fn page_bytes(&self) -> usize {
        self.engine.page_bytes()
    }

    /// What the numbers of the pages are.
    pub fn dtype(&self) -> Dtype {
        self.engine.cache_dtype()
    }

    /// As [`Engine::export_prefix`].
    pub fn export(&self, token_ids: &[u32]) -> impl ExactSizeIterator<Item = Vec<u8>> {
        self.engine.export_prefix(token_ids)
    }

    /// As [`Engine::import_prefix`].
    ///
    /// # Errors
    /// As [`Engine::import_prefix`].
    pub fn import<E: From<minke_engine::Error>>(
        &mut self,
        token_ids: &[u32],
        pages: impl IntoIterator<Item = std::result::Result<Vec<u8>, E>>,
    ) -> std::result::Result<usize, E> {
        self.engine.import_prefix(token_ids, pages)
    }
}

/// The events of one request, in order; the last one has a reason to finish, or is an error. Dropped, it cancels the request.
pub struct Events {
    receiver: Receiver<Result<Event>>,
    cancelled: Arc<AtomicBool>,
}

impl Events {
    /// Asks for the request to end between two steps; its last event follows.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// Why the request failed; [`Error::Stopped`] if the thread ended, and behind the last event.
    pub fn recv(&self) -> Result<Event> {
        self.receiver.recv().unwrap_or(Err(Error::Stopped))
    }

    /// Waits for the last event: the whole reply.
    ///
    /// # Errors
    /// As [`Events::recv`].
    pub fn reply(self) -> Result<Reply> {
        let mut reply = Reply::default();
        loop {
            let event = self.recv()?;
            reply.add(&event);
            if event.finish.is_some() {
                return Ok(reply);
            }
        }
    }

    /// The next event, or nothing if none comes within this time.
    ///
    /// # Errors
    /// As [`Events::recv`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<Event>> {
        match self.receiver.recv_timeout(timeout) {
            Ok(event) => event.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Error::Stopped),
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// A request that was submitted.
struct Submission {
    request: Request,
    events: Sender<Result<Event>>,
    cancelled: Arc<AtomicBool>,
    submitted: Instant,
}

/// A request that is worked on.
struct Running {
    events: Sender<Result<Event>>,
    cancelled: Arc<AtomicBool>,
    submitted: Instant,
    /// Prompt of the current sequence.
    token_ids: Vec<u32>,
    params: SamplingParams,
    /// Most tokens of all its sequences.
    max_tokens: usize,
    decoder: Decoder,
    usage: Usage,
    first_token: Option<Instant>,
}

/// What the thread owns.
struct EngineThread {
    model: Arc<ChatModel>,
    engine: Engine,
    config: WorkerConfig,
    waiting: VecDeque<Submission>,
    running: BTreeMap<SequenceId, Running>,
}

impl EngineThread {
    /// Works until the worker is dropped.
    fn run(&mut self, commands: &Receiver<Command>) {
        loop {
            let command = match self.running.is_empty() && self.waiting.is_empty() {
                true => commands.recv().map_err(|_| TryRecvError::Disconnected),
                false => commands.try_recv(),
            };
            match command {
                Ok(Command::Submit(submission)) => self.enqueue(*submission),
                Ok(Command::Call(work)) => work(&mut self.engine),
                Err(TryRecvError::Empty) => self.step(),
                Err(TryRecvError::Disconnected) => return self.cancel_all(),
            }
        }
    }

    fn enqueue(&mut self, submission: Submission) {
        let (running, waiting) = (self.running.len(), self.waiting.len());
        if running + waiting >= self.config.max_running.saturating_add(self.config.max_waiting) {
            fail(&submission.events, Error::Busy { waiting });
        } else {
            self.waiting.push_back(submission);
        }
    }

    /// Ends what was cancelled, starts what waits, computes one step, and sends each request its events.
    fn step(&mut self) {
        self.waiting.retain(|submission| {
            let cancelled = submission.cancelled.load(Ordering::Relaxed);
            if cancelled {
                send(&submission.events, Event { finish: Some(FinishReason::Cancelled), ..Event::default() });
            }
            !cancelled
        });
        let cancelled =
            |(id, running): (&SequenceId, &Running)| running.cancelled.load(Ordering::Relaxed).then_some(*id);
        let cancelled: Vec<SequenceId> = self.running.iter().filter_map(cancelled).collect();
        cancelled.into_iter().for_each(|id| self.end(id, None, FinishReason::Cancelled));
        while self.running.len() < self.config.max_running
            && let Some(submission) = self.waiting.pop_front()
        {
            self.start(submission);
        }
        if self.running.is_empty() {
            return;
        }
        match self.engine.step(&self.model.model) {
            Ok(tokens) => {
                let ids: Vec<SequenceId> = self.running.keys().copied().collect();
                ids.into_iter().for_each(|id| self.advance(id, tokens.iter().find(|token| token.sequence == id)));
            }
            Err(error) => {
                let error = Arc::new(error);
                for (id, running) in std::mem::take(&mut self.running) {
                    self.engine.cancel(id);
                    self.engine.take(id);
                    fail(&running.events, Error::Step(error.clone()));
                }
            }
        }
    }

    fn start(&mut self, submission: Submission) {
        let Submission { request, events, cancelled, submitted } = submission;
        let params = self.model.params(&request.options);
        let decoder = Decoder::new(&request);
        let token_ids = request.prompt.token_ids;
        match self.engine.submit(&token_ids, &params, 1) {
            Ok(ids) => {
                let usage = Usage { prompt_tokens: token_ids.len(), ..Usage::default() };
                let max_tokens = params.max_tokens;
                let running = Running {
                    events,
                    cancelled,
                    submitted,
                    token_ids,
                    params,
                    max_tokens,
                    decoder,
                    usage,
                    first_token: None,
                };
                self.running.insert(ids[0], running);
            }
            Err(error) => fail(&events, error.into()),
        }
    }

    /// Sends a request what the last step brought it: a token, or more of its prompt.
    fn advance(&mut self, id: SequenceId, token: Option<&Token>) {
        let completion = self.engine.take(id);
        let counts = completion.as_ref().map(|completion| completion.counts).or_else(|| self.engine.counts(id));
        let running = self.running.get_mut(&id).expect("invariant: asked for those that run");
        let (Running { decoder, usage, .. }, tokenizer) = (&mut *running, &self.model.tokenizer);
        let before = usage.prefilled_tokens;
        if usage.completion_tokens == 0
            && let Some(counts) = counts
        {
            usage.cached_tokens = counts.cached;
            usage.prefilled_tokens = counts.cached + counts.prefilled;
        }
        let stops =
            completion.as_ref().is_some_and(|completion| matches!(completion.finish, minke_engine::Finish::Stop(_)));
        let limit = token.and_then(|token| decoder.push(token.token_id, stops, tokenizer));
        running.count();
        if let Some(stop) = running.decoder.stop_string() {
            let finish = FinishReason::StopString(stop.to_owned());
            return self.end(id, token.cloned(), finish);
        }
        if let Some(completion) = completion {
            return self.finish(id, token.cloned(), completion.finish.into());
        }
        if let Some(limit) = limit {
            return self.close_thought(id, token.cloned(), limit);
        }
        if token.is_some() || running.usage.prefilled_tokens > before {
            let pieces = running.decoder.take();
            send(&running.events, Event { usage: running.usage, token: token.cloned(), pieces, ..Event::default() });
        }
    }

    /// Goes on behind the closing tag: what was generated and the tag become the prompt of a new sequence.
    fn close_thought(&mut self, id: SequenceId, token: Option<Token>, limit: ThoughtLimit) {
        self.engine.cancel(id);
        let generated = self.engine.take(id).expect(TAKEN).token_ids;
        let mut running = self.running.remove(&id).expect("invariant: asked for one that runs");
        let closing = running.decoder.close_thought(&self.model.tokenizer);
        running.token_ids.extend(generated.into_iter().chain(closing));
        running.count();
        let pieces = running.decoder.take();
        let mut event = Event { usage: running.usage, pieces, token, thought_closed: Some(limit), finish: None };
        running.params.max_tokens = running.max_tokens.saturating_sub(running.usage.completion_tokens);
        if running.params.max_tokens == 0 || running.token_ids.len() >= self.engine.limit() {
            event.pieces.extend(running.decoder.finish());
            event.finish = Some(FinishReason::Length);
            return send(&running.events, event);
        }
        send(&running.events, event);
        match self.engine.submit(&running.token_ids, &running.params, 1) {
            Ok(ids) => {
                self.running.insert(ids[0], running);
            }
            Err(error) => fail(&running.events, error.into()),
        }
    }

    /// Ends a sequence early.
    fn end(&mut self, id: SequenceId, token: Option<Token>, finish: FinishReason) {
        self.engine.cancel(id);
        self.engine.take(id);
        self.finish(id, token, finish);
    }

    /// Sends the last event of a request whose sequence has ended.
    fn finish(&mut self, id: SequenceId, token: Option<Token>, finish: FinishReason) {
        let mut running = self.running.remove(&id).expect("invariant: asked for one that runs");
        running.count();
        let (usage, pieces) = (running.usage, running.decoder.finish());
        send(&running.events, Event { usage, token, pieces, finish: Some(finish), ..Event::default() });
    }

    fn cancel_all(&mut self) {
        let ids: Vec<SequenceId> = self.running.keys().copied().collect();
        ids.into_iter().for_each(|id| self.end(id, None, FinishReason::Cancelled));
        for submission in self.waiting.drain(..) {
            send(&submission.events, Event { finish: Some(FinishReason::Cancelled), ..Event::default() });
        }
    }
}

impl Running {
    /// Brings counts and times up to date.
    fn count(&mut self) {
        let now = Instant::now();
        let (usage, decoder) = (&mut self.usage, &self.decoder);
        usage.seconds = (now - self.submitted).as_secs_f64();
        if usage.completion_tokens == 0 {
            usage.prompt_seconds = usage.seconds;
        }
        if decoder.completion_tokens > 0 {
            let begin = *self.first_token.get_or_insert(now);
            if decoder.reasoning_tokens > usage.reasoning_tokens {
                usage.reasoning_seconds = (now - begin).as_secs_f64();
            }
        }
        usage.completion_tokens = decoder.completion_tokens;
        usage.reasoning_tokens = decoder.reasoning_tokens;
    }
}

/// Sends an event. If its receiver is gone, the request was cancelled and ends before the next step.
fn send(events: &Sender<Result<Event>>, event: Event) {
    let _ = events.send(Ok(event));
}

fn fail(events: &Sender<Result<Event>>, error: Error) {
    let _ = events.send(Err(error));
}
