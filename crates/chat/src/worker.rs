//! One thread that owns an engine and works on many requests at once.
//!
//! The thread steps while there is work and sleeps otherwise. Between two steps it takes in what was submitted, and ends
//! what was cancelled or whose receiver is gone. Who runs and who waits is the engine's matter. Other weights take the place of the
//! model's when no request is under way: those that are, end with the weights that they began with, and those that come wait for it. What panics in the work for
//! one request ends that request.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use minke_engine::{Completion, Engine, EngineConfig, SequenceId, Speculation, Stats, Token};
use minke_tensor::{Dtype, PAGE_TOKENS};

use crate::decoder::Decoder;
use crate::machine::memory;
use crate::prefix_store::{DiskCache, PageKey, PrefixStore};
use crate::thought::constraint;
use crate::{CACHE_DTYPE, CHUNK_TOKENS, ChatModel, Error, Event, FinishReason, Reply, Request, Result, Usage};

/// Name of the thread.
pub const ENGINE_THREAD: &str = "engine";

/// How many requests are worked on, and how many may wait.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerConfig {
    /// Most requests that are worked on at once.
    pub max_running: usize,
    /// Most requests that wait for their turn; more are refused.
    pub max_waiting: usize,
    /// Most prompt tokens of a step: a request that comes while a step is computed waits for its end.
    pub chunk_tokens: usize,
    /// Whether answers are drafted for, of a model with multi-token prediction; they are the same in any case.
    pub speculation: Speculation,
    /// Where the beginnings of prompts are kept when the process ends; none for nowhere.
    pub disk_cache: Option<DiskCache>,
    /// Whether answers are rollouts for a trainer: their log-probabilities are the trainer's to the bit ([`EngineConfig::exact`]),
    /// and the cache has room for all requests that are worked on at once, as far as half of the memory reaches.
    pub rollouts: bool,
}

impl Default for WorkerConfig {
    /// 8 at once, 64 waiting, prompts in chunks of [`CHUNK_TOKENS`], drafts where they pay.
    fn default() -> Self {
        Self {
            max_running: 8,
            max_waiting: 64,
            chunk_tokens: CHUNK_TOKENS,
            speculation: Speculation::WhereItPays,
            disk_cache: None,
            rollouts: false,
        }
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

    /// Sets [`chunk_tokens`](Self::chunk_tokens).
    #[must_use]
    pub fn with_chunk_tokens(self, chunk_tokens: usize) -> Self {
        Self { chunk_tokens, ..self }
    }

    /// Sets [`speculation`](Self::speculation).
    #[must_use]
    pub fn with_speculation(self, speculation: Speculation) -> Self {
        Self { speculation, ..self }
    }

    /// Sets [`rollouts`](Self::rollouts).
    #[must_use]
    pub fn for_rollouts(self) -> Self {
        Self { rollouts: true, ..self }
    }

    /// Sets [`disk_cache`](Self::disk_cache).
    #[must_use]
    pub fn with_disk_cache(self, disk_cache: DiskCache) -> Self {
        Self { disk_cache: Some(disk_cache), ..self }
    }
}

/// A model and the thread that answers with it. Dropped, it ends what it works on as cancelled, and waits for the end of the
/// step that is under way.
pub struct Worker {
    /// Shared with the thread, which puts another in its place.
    model: Arc<RwLock<Arc<ChatModel>>>,
    /// Longest sequence, in tokens.
    limit: usize,
    /// Requests that have not ended, and most that may be.
    unfinished: Arc<AtomicUsize>,
    most_unfinished: usize,
    /// What the engine counted until the last step.
    stats: Arc<Mutex<Stats>>,
    /// None only while it is dropped.
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

enum Command {
    Submit(Box<Submission>),
    /// A request whose beginning was looked for on disk.
    Loaded(Box<Loaded>),
    /// Other weights, which take the place of the model's.
    Replace(Arc<ChatModel>),
    /// Something to be done between two steps.
    Call(Box<dyn FnOnce(&mut Engine) + Send>),
    /// The worker is dropped.
    Stop,
}

/// What was read of a request's beginning.
struct Loaded {
    submission: Submission,
    /// Pages of it that the engine had.
    skipped: usize,
    pages: Vec<Vec<u8>>,
}

/// Pages that are to be written to disk.
struct Save {
    prefixes: u64,
    token_ids: Vec<u32>,
    keys: Vec<PageKey>,
    next: usize,
}

/// What the engine's thread needs to keep pages on disk: two threads that read and write, so that steps do not wait for files.
struct Disk {
    store: Arc<PrefixStore>,
    reader: Sender<(Submission, Vec<PageKey>, usize)>,
    writer: SyncSender<(PageKey, Vec<u8>)>,
    writing: JoinHandle<()>,
    saves: VecDeque<Save>,
}

/// Bytes of pages that wait to be written.
const WRITE_QUEUE: usize = 64 << 20;
/// Pages that are copied for the disk between two steps.
const SAVED_AT_ONCE: usize = 8;
/// Time for saves when the worker is dropped.
const LAST_SAVES: Duration = Duration::from_secs(2);
/// Fewest pages that are worth a file each.
const LEAST_PAGES: usize = 2;

impl Disk {
    fn start(store: PrefixStore, page_bytes: usize, commands: Sender<Command>) -> std::io::Result<Self> {
        let store = Arc::new(store);
        let (reader, to_read) = mpsc::channel::<(Submission, Vec<PageKey>, usize)>();
        let (writer, to_write) = mpsc::sync_channel::<(PageKey, Vec<u8>)>((WRITE_QUEUE / page_bytes.max(1)).max(1));
        let reads = store.clone();
        std::thread::Builder::new().name("disk cache, reading".into()).spawn(move || {
            for (submission, keys, skipped) in to_read {
                let pages = keys[skipped..].iter().map_while(|key| reads.read(key)).collect();
                let loaded = Loaded { submission, skipped, pages };
                if commands.send(Command::Loaded(Box::new(loaded))).is_err() {
                    return;
                }
            }
        })?;
        let writes = store.clone();
        let writing = std::thread::Builder::new().name("disk cache, writing".into()).spawn(move || {
            for (key, page) in to_write {
                // A disk that is full costs time later, and nothing else.
                let _ = writes.write(&key, &page);
            }
        })?;
        Ok(Self { store, reader, writer, writing, saves: VecDeque::new() })
    }

    /// Copies some pages that are to be written, and returns whether it got further.
    fn save_some(&mut self, engine: &Engine) -> bool {
        let Some(save) = self.saves.front_mut() else { return false };
        let known = engine.known_prefix(save.prefixes, &save.token_ids) / PAGE_TOKENS;
        let mut moved = false;
        for _ in 0..SAVED_AT_ONCE {
            while save.next < known && self.store.has(&save.keys[save.next]) {
                save.next += 1;
                moved = true;
            }
            if save.next >= known {
                self.saves.pop_front();
                return true;
            }
            let end = (save.next + 1) * PAGE_TOKENS;
            let page = engine.export_prefix(save.prefixes, &save.token_ids[..end], save.next).next();
            let Some(page) = page else { break };
            if self.writer.try_send((save.keys[save.next], page)).is_err() {
                return moved;
            }
            save.next += 1;
            moved = true;
        }
        moved
    }
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
            .with_chunk_tokens(config.chunk_tokens)
            .with_cache_dtype(CACHE_DTYPE)
            .with_speculation(config.speculation);
        let sizes = if config.rollouts { for_rollouts(&model, sizes)? } else { sizes };
        let engine = Engine::new(&model.device, model.model.config(), sizes.clone())?;
        let limit = engine.limit();
        let stats = Arc::new(Mutex::new(engine.stats()));
        let (commands, receiver) = mpsc::channel();
        let disk = match &config.disk_cache {
            Some(cache) => {
                let store = PrefixStore::open(cache, model.identity, engine.cache_dtype(), engine.page_bytes())
                    .map_err(|source| Error::DiskCache { path: cache.folder.clone(), source })?;
                Some(Disk::start(store, engine.page_bytes(), commands.clone()).map_err(Error::Thread)?)
            }
            None => None,
        };
        let shared = Arc::new(RwLock::new(model.clone()));
        let mut own = EngineThread {
            model,
            shared: shared.clone(),
            next: None,
            held: VecDeque::new(),
            engine,
            sizes,
            running: BTreeMap::new(),
            disk,
            stats: stats.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(ENGINE_THREAD.into())
            .spawn(move || own.run(&receiver))
            .map_err(Error::Thread)?;
        Ok(Self {
            model: shared,
            limit,
            unfinished: Arc::default(),
            most_unfinished: config.max_running.saturating_add(config.max_waiting),
            stats,
            commands: Some(commands),
            thread: Some(thread),
        })
    }

    /// The model as it is now.
    pub fn model(&self) -> Arc<ChatModel> {
        self.model.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other weights in the place of the model's: once the requests that are under way have ended, with the weights that they
    /// began with. Those that come from now on wait for it.
    ///
    /// # Errors
    /// If they are of another model, or the thread has ended.
    pub fn replace_model(&self, model: Arc<ChatModel>) -> Result<()> {
        let have = self.model();
        let same_text =
            model.tokenizer.vocab_size() == have.tokenizer.vocab_size() && model.end_ids() == have.end_ids();
        if model.model.config() != have.model.config() || !same_text {
            return Err(Error::AnotherModel);
        }
        self.commands().send(Command::Replace(model)).map_err(|_| Error::Stopped)
    }

    /// The longest sequence, in tokens: the model's context, or what the cache holds.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Hands a request in. One that the engine refuses fails alone: with the first event.
    ///
    /// # Errors
    /// If too many requests wait already, or the thread has ended.
    pub fn submit(&self, request: Request) -> Result<Events> {
        let (sender, receiver) = mpsc::channel();
        // If the receiver is gone, the request was cancelled and ends before the next step.
        let ticket = self.submit_to(request, move |event| drop(sender.send(event)))?;
        Ok(Events { receiver, ticket })
    }

    /// Hands a request in whose events are given to `sink` on the engine's thread, which waits for it: it must be quick. The
    /// last event has a reason to finish, or is an error.
    ///
    /// # Errors
    /// As [`Worker::submit`].
    pub fn submit_to(&self, request: Request, sink: impl FnMut(Result<Event>) + Send + 'static) -> Result<Ticket> {
        let limit = self.most_unfinished;
        let place = Place::take(&self.unfinished, limit).ok_or(Error::Busy { unfinished: limit })?;
        let cancelled = Arc::new(AtomicBool::new(false));
        let channel = Channel { sink: Box::new(sink), cancelled: cancelled.clone(), _place: place };
        let submission = Submission { request, channel, submitted: Instant::now() };
        self.commands().send(Command::Submit(Box::new(submission))).map_err(|_| Error::Stopped)?;
        Ok(Ticket { cancelled })
    }

    /// What the engine counted until the end of the last step, without waiting for the next.
    pub fn last_stats(&self) -> Stats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn commands(&self) -> &Sender<Command> {
        self.commands.as_ref().expect("invariant: only a worker that is dropped has none")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(commands) = self.commands.take() {
            // The thread may have ended; then there is nobody to tell.
            let _ = commands.send(Command::Stop);
        }
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
    pub fn export(&self, prefixes: u64, token_ids: &[u32]) -> impl ExactSizeIterator<Item = Vec<u8>> {
        self.engine.export_prefix(prefixes, token_ids, 0)
    }

    /// As [`Engine::import_prefix`].
    ///
    /// # Errors
    /// As [`Engine::import_prefix`].
    pub fn import<E: From<minke_engine::Error>>(
        &mut self,
        prefixes: u64,
        token_ids: &[u32],
        pages: impl IntoIterator<Item = std::result::Result<Vec<u8>, E>>,
    ) -> std::result::Result<usize, E> {
        self.engine.import_prefix(prefixes, token_ids, 0, pages)
    }
}

/// A request that was handed in. Dropped, it cancels the request.
pub struct Ticket {
    cancelled: Arc<AtomicBool>,
}

impl Ticket {
    /// Asks for the request to end between two steps; its last event follows.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// The events of one request, in order; the last one has a reason to finish, or is an error. Dropped, it cancels the request.
pub struct Events {
    receiver: Receiver<Result<Event>>,
    ticket: Ticket,
}

impl Events {
    /// Asks for the request to end between two steps; its last event follows.
    pub fn cancel(&self) {
        self.ticket.cancel();
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

/// One of the requests that may be unfinished at a time.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(unfinished: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let more = |count: usize| (count < limit).then_some(count + 1);
        unfinished.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Self(unfinished.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The way back to who handed a request in.
struct Channel {
    sink: Box<dyn FnMut(Result<Event>) + Send>,
    cancelled: Arc<AtomicBool>,
    _place: Place,
}

impl Channel {
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn send(&mut self, event: Event) {
        (self.sink)(Ok(event));
    }

    fn fail(mut self, error: Error) {
        (self.sink)(Err(error));
    }
}

/// A request that was submitted.
struct Submission {
    request: Request,
    channel: Channel,
    submitted: Instant,
}

/// A request that the engine works on, or that waits in it.
struct Running {
    channel: Channel,
    submitted: Instant,
    /// Prompt and answer so far, where they are to be kept on disk.
    token_ids: Vec<u32>,
    prefixes: u64,
    decoder: Decoder,
    usage: Usage,
    first_token: Option<Instant>,
}

/// The sizes of an engine whose answers are rollouts.
fn for_rollouts(model: &ChatModel, sizes: EngineConfig) -> Result<EngineConfig> {
    let sizes = sizes.exact();
    let of_one_page =
        Engine::new(&model.device, model.model.config(), sizes.clone().with_pages(1))?.page_bytes() as u64;
    let room = memory().map_or(u64::MAX, |memory| memory.available) / 2 / of_one_page.max(1);
    let wanted = sizes.pages.saturating_mul(sizes.max_sequences);
    Ok(sizes.with_pages(wanted.min(usize::try_from(room).unwrap_or(usize::MAX)).max(1)))
}

/// What the thread owns.
struct EngineThread {
    model: Arc<ChatModel>,
    /// The model, for those who look at the worker.
    shared: Arc<RwLock<Arc<ChatModel>>>,
    /// The model that takes its place when nothing runs.
    next: Option<Arc<ChatModel>>,
    /// Requests that wait for that.
    held: VecDeque<Submission>,
    engine: Engine,
    sizes: EngineConfig,
    running: BTreeMap<SequenceId, Running>,
    disk: Option<Disk>,
    stats: Arc<Mutex<Stats>>,
}

impl EngineThread {
    /// Works until the worker is dropped.
    fn run(&mut self, commands: &Receiver<Command>) {
        loop {
            let saves = self.disk.as_ref().is_some_and(|disk| !disk.saves.is_empty());
            if self.running.is_empty() {
                self.take_next_model();
            }
            let command = match (self.running.is_empty(), saves) {
                (true, false) => commands.recv().map_err(|_| TryRecvError::Disconnected),
                _ => commands.try_recv(),
            };
            match command {
                Ok(Command::Submit(submission)) => self.look_up(*submission),
                Ok(Command::Loaded(loaded)) => self.take_loaded(*loaded),
                Ok(Command::Replace(model)) => self.next = Some(model),
                Ok(Command::Call(work)) => work(&mut self.engine),
                Err(TryRecvError::Empty) => {
                    if !self.running.is_empty() {
                        self.step();
                    }
                    let moved = self.disk.as_mut().is_some_and(|disk| disk.save_some(&self.engine));
                    if self.running.is_empty() && !moved {
                        // The disk is slower than the copies for it.
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return self.cancel_all(),
            }
            *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.engine.stats();
        }
    }

    /// Ends what was cancelled, computes one step, and sends each request its events.
    fn step(&mut self) {
        let cancelled = |(id, running): (&SequenceId, &Running)| running.channel.is_cancelled().then_some(*id);
        let cancelled: Vec<SequenceId> = self.running.iter().filter_map(cancelled).collect();
        cancelled.into_iter().for_each(|id| self.end(id, None, FinishReason::Cancelled));
        if self.running.is_empty() {
            return;
        }
        match catch_unwind(AssertUnwindSafe(|| self.engine.step(&self.model.model))) {
            Ok(Ok(tokens)) => {
                let mut news = BTreeMap::<SequenceId, Vec<Token>>::new();
                tokens.into_iter().for_each(|token| news.entry(token.sequence).or_default().push(token));
                for id in self.running.keys().copied().collect::<Vec<_>>() {
                    let tokens = news.remove(&id).unwrap_or_default();
                    if catch_unwind(AssertUnwindSafe(|| self.advance_all(id, &tokens))).is_err() {
                        self.give_up(id);
                    }
                }
            }
            Ok(Err(error)) => {
                let error = Arc::new(error);
                for (id, running) in std::mem::take(&mut self.running) {
                    self.engine.cancel(id);
                    self.engine.take(id);
                    running.channel.fail(Error::Step(error.clone()));
                }
            }
            Err(_) => {
                // What the engine holds may be half done: a new one takes its place.
                let running = std::mem::take(&mut self.running);
                running.into_values().for_each(|running| running.channel.fail(Error::Panicked));
                self.engine = Engine::new(&self.model.device, self.model.model.config(), self.sizes.clone())
                    .expect("invariant: the same sizes were accepted before");
            }
        }
    }

    /// Fails a request in whose work something panicked.
    fn give_up(&mut self, id: SequenceId) {
        self.engine.cancel(id);
        self.engine.take(id);
        if let Some(running) = self.running.remove(&id) {
            running.channel.fail(Error::Panicked);
        }
    }

    /// Goes over to the next model, if there is one, and starts what waited for it.
    fn take_next_model(&mut self) {
        let Some(next) = self.next.take() else { return };
        // What is on disk is of the model before, and is found under its identity alone.
        self.disk = None;
        *self.shared.write().unwrap_or_else(PoisonError::into_inner) = next.clone();
        self.model = next;
        for submission in std::mem::take(&mut self.held) {
            self.start(submission);
        }
    }

    /// Starts a request, or has its beginning read from disk first, if more of it is there than in memory.
    fn look_up(&mut self, submission: Submission) {
        let Some(disk) = &self.disk else { return self.start(submission) };
        let (prompt, prefixes) = (&submission.request.prompt.token_ids, submission.request.tenant.prefixes);
        // The last token is computed in any case.
        let whole = &prompt[..prompt.len().saturating_sub(1)];
        let known = self.engine.known_prefix(prefixes, whole) / PAGE_TOKENS;
        let mut keys = disk.store.keys(prefixes, whole);
        keys.truncate(known + disk.store.count(&keys[known.min(keys.len())..]));
        if keys.len() < known + LEAST_PAGES {
            return self.start(submission);
        }
        if let Err(mpsc::SendError((submission, ..))) = disk.reader.send((submission, keys, known)) {
            self.start(submission);
        }
    }

    fn take_loaded(&mut self, loaded: Loaded) {
        let Loaded { submission, skipped, pages } = loaded;
        let (prompt, prefixes) = (&submission.request.prompt.token_ids, submission.request.tenant.prefixes);
        // What does not fit any more is computed.
        let pages = pages.into_iter().map(Ok::<_, minke_engine::Error>);
        let _ = self.engine.import_prefix(prefixes, prompt, skipped, pages);
        self.start(submission);
    }

    /// Has the pages of a sequence that ends written to disk.
    fn keep(&mut self, prefixes: u64, token_ids: Vec<u32>) {
        let Some(disk) = &mut self.disk else { return };
        let keys = disk.store.keys(prefixes, &token_ids);
        if keys.len() >= LEAST_PAGES {
            disk.saves.push_back(Save { prefixes, token_ids, keys, next: 0 });
        }
    }

    fn start(&mut self, submission: Submission) {
        if self.next.is_some() {
            return self.held.push_back(submission);
        }
        let Submission { request, channel, submitted } = submission;
        let token_ids = &request.prompt.token_ids;
        let mut params = self.model.params(&request.options);
        if let Some(count) = request.top_log_probs {
            params = params.with_top_log_probs(count).with_log_prob_temperature(1.0);
        }
        if let Some(constraint) = constraint(&request, &self.model) {
            params = params.with_constraint(constraint);
        }
        match self.engine.submit_for(request.tenant, token_ids, &params, 1) {
            Ok(ids) => {
                let usage = Usage { prompt_tokens: token_ids.len(), ..Usage::default() };
                let decoder = Decoder::new(&request, &self.model.tokenizer);
                let prefixes = request.tenant.prefixes;
                let token_ids = if self.disk.is_some() { request.prompt.token_ids } else { Vec::new() };
                let running = Running { channel, submitted, token_ids, prefixes, decoder, usage, first_token: None };
                self.running.insert(ids[0], running);
            }
            Err(error) => channel.fail(error.into()),
        }
    }

    /// Sends a request what the last step brought it: its tokens one by one, and with the last one how it ended; or more of
    /// its prompt. What is behind a stop string is dropped.
    fn advance_all(&mut self, id: SequenceId, tokens: &[Token]) {
        let completion = self.engine.take(id);
        let Some((last, before)) = tokens.split_last() else { return self.advance(id, None, completion) };
        for token in before {
            self.advance(id, Some(token), None);
            if !self.running.contains_key(&id) {
                return;
            }
        }
        self.advance(id, Some(last), completion);
    }

    /// Sends a request a token, or more of its prompt, and how it ended.
    fn advance(&mut self, id: SequenceId, token: Option<&Token>, completion: Option<Completion>) {
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
        if let Some(token) = token {
            decoder.push(token.token_id, stops, tokenizer);
            if self.disk.is_some() {
                running.token_ids.push(token.token_id);
            }
        }
        running.count();
        if let Some(stop) = running.decoder.stop_string() {
            let finish = FinishReason::StopString(stop.to_owned());
            return self.end(id, token.cloned(), finish);
        }
        if let Some(completion) = completion {
            return self.finish(id, token.cloned(), completion.finish.into());
        }
        if token.is_some() || running.usage.prefilled_tokens > before {
            let (pieces, thought_closed) = running.decoder.take();
            let (usage, token) = (running.usage, token.cloned());
            let policy_version = self.model.policy_version;
            running.channel.send(Event { usage, policy_version, token, pieces, thought_closed, finish: None });
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
        let (usage, (pieces, thought_closed)) = (running.usage, running.decoder.finish());
        let policy_version = self.model.policy_version;
        running.channel.send(Event { usage, policy_version, token, pieces, thought_closed, finish: Some(finish) });
        self.keep(running.prefixes, running.token_ids);
    }

    fn cancel_all(&mut self) {
        let ids: Vec<SequenceId> = self.running.keys().copied().collect();
        ids.into_iter().for_each(|id| self.end(id, None, FinishReason::Cancelled));
        let Some(mut disk) = self.disk.take() else { return };
        let begun = Instant::now();
        while !disk.saves.is_empty() && begun.elapsed() < LAST_SAVES {
            if !disk.save_some(&self.engine) {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        drop((disk.writer, disk.reader));
        // What panicked there was reported there.
        let _ = disk.writing.join();
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
