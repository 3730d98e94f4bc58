//! Responses that outlive their connection: those that were stored, for conversations that go on with them, and those in the
//! background, whose streams can be read again from any event.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::response::Response;
use minke_engine::Tenant;
use minke_text::Message;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::{ApiError, Kind};
use crate::generation::{Generation, Update};
use crate::stream::{Pieces, StreamFormat, Streaming, stream_headers};

/// Most responses that are kept, and most bytes of their events; the oldest gives way.
const MOST: usize = 256;
const MOST_BYTES: usize = 64 << 20;

/// A stream of a response that can be kept.
pub(crate) trait KeptFormat: StreamFormat {
    /// The name of the response.
    fn id(&self) -> &str;
    /// The response as it is now.
    fn object(&self) -> Value;
    /// What the model said so far, as a message of a conversation that goes on.
    fn message(&self) -> Message;
    /// The response ends without an event.
    fn cancel(&mut self);
}

/// All responses that are kept.
#[derive(Default)]
pub(crate) struct KeptResponses(Mutex<All>);

#[derive(Default)]
struct All {
    by_id: HashMap<String, Arc<Kept>>,
    /// The oldest first.
    order: VecDeque<String>,
}

/// A response that is kept.
pub(crate) struct Kept {
    tenant: Tenant,
    state: Mutex<State>,
    /// Number of events so far, and whether the last one is among them.
    written: watch::Sender<(usize, bool)>,
    cancelled: watch::Sender<bool>,
}

struct State {
    /// The conversation before it.
    conversation: Vec<Message>,
    events: Vec<String>,
    progress: Progress,
}

enum Progress {
    /// Events are still being written.
    Running(Box<dyn KeptFormat>),
    Ended {
        object: Value,
        message: Message,
    },
}

impl KeptResponses {
    fn add(&self, id: &str, kept: Arc<Kept>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes: usize = all.by_id.values().map(|kept| kept.bytes()).sum();
        while (all.order.len() >= MOST || bytes > MOST_BYTES)
            && let Some(oldest) = all.order.pop_front()
        {
            bytes -= all.by_id.remove(&oldest).map_or(0, |kept| kept.bytes().min(bytes));
        }
        all.order.push_back(id.to_owned());
        all.by_id.insert(id.to_owned(), kept);
    }

    /// Keeps a response that has ended.
    pub(crate) fn keep(&self, response: &dyn KeptFormat, tenant: Tenant, conversation: Vec<Message>) {
        let progress = Progress::Ended { object: response.object(), message: response.message() };
        let state = Mutex::new(State { conversation, events: Vec::new(), progress });
        let (written, cancelled) = (watch::Sender::new((0, true)), watch::Sender::new(false));
        self.add(response.id(), Arc::new(Kept { tenant, state, written, cancelled }));
    }

    /// Keeps a response while it is generated in the background.
    pub(crate) fn begin(
        &self,
        streaming: &Streaming,
        tenant: Tenant,
        conversation: Vec<Message>,
        generation: Generation,
        format: Box<dyn KeptFormat>,
    ) -> Arc<Kept> {
        let id = format.id().to_owned();
        let progress = Progress::Running(format);
        let state = Mutex::new(State { conversation, events: Vec::new(), progress });
        let (written, cancelled) = (watch::Sender::new((0, false)), watch::Sender::new(false));
        let kept = Arc::new(Kept { tenant, state, written, cancelled });
        self.add(&id, kept.clone());
        tokio::spawn(kept.clone().write(streaming.clone(), generation));
        kept
    }

    /// A response of this tenant's.
    pub(crate) fn find(&self, id: &str, tenant: Tenant) -> Option<Arc<Kept>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.by_id.get(id).filter(|kept| kept.tenant.share == tenant.share).cloned()
    }

    /// The conversation that ends with a response.
    pub(crate) fn conversation(&self, id: &str, tenant: Tenant) -> Option<Vec<Message>> {
        let kept = self.find(id, tenant)?;
        let state = kept.state.lock().unwrap_or_else(PoisonError::into_inner);
        let last = match &state.progress {
            Progress::Running(stream) => stream.message(),
            Progress::Ended { message, .. } => message.clone(),
        };
        // Instructions are those of the request that goes on.
        let before = state.conversation.iter().skip_while(|message| message.role == minke_text::Role::System);
        Some(before.cloned().chain([last]).collect())
    }

    /// Forgets a response.
    pub(crate) fn remove(&self, id: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.by_id.remove(id);
        all.order.retain(|other| other != id);
    }
}

impl Kept {
    /// Bytes of its events.
    fn bytes(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).events.iter().map(String::len).sum()
    }

    /// As it is now.
    pub(crate) fn object(&self) -> Value {
        match &self.state.lock().unwrap_or_else(PoisonError::into_inner).progress {
            Progress::Running(stream) => stream.object(),
            Progress::Ended { object, .. } => object.clone(),
        }
    }

    /// Ends it, and waits for that.
    pub(crate) async fn cancel(&self) {
        self.cancelled.send_replace(true);
        let mut written = self.written.subscribe();
        // The sender lives as long as this borrow.
        let _ = written.wait_for(|(_, ended)| *ended).await;
    }

    /// Writes the events of a generation until its end, whoever reads them.
    async fn write(self: Arc<Self>, streaming: Streaming, mut generation: Generation) {
        let mut cancelled = self.cancelled.subscribe();
        self.with(|stream| Some(stream.start()), false);
        loop {
            let over = tokio::select! {
                update = generation.next() => match update {
                    Some(Update { end: Some(Err(error)), .. }) => self.with(|stream| Some(stream.error(&error)), true),
                    Some(update) => self.with(|stream| Some(stream.update(update)), false),
                    None => self.with(|stream| Some(stream.finish()), true),
                },
                () = streaming.stopped() => {
                    let error = ApiError::new(Kind::Unavailable, "the server stops");
                    self.with(|stream| Some(stream.error(&error)), true)
                }
                _ = cancelled.wait_for(|cancelled| *cancelled) => self.with(|stream| {
                    stream.cancel();
                    // OpenAI ends such a stream without an event of its own.
                    None
                }, true),
            };
            if over {
                return;
            }
        }
    }

    /// Adds what a step of the stream writes; at its end only the object stays. Returns whether this was the end.
    fn with(&self, write: impl FnOnce(&mut dyn KeptFormat) -> Option<String>, ends: bool) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Progress::Running(stream) = &mut state.progress else { return true };
        let text = write(stream.as_mut()).unwrap_or_default();
        let ended = ends.then(|| Progress::Ended { object: stream.object(), message: stream.message() });
        // An event ends with an empty line.
        state.events.extend(text.split_inclusive("\n\n").map(str::to_owned));
        if let Some(ended) = ended {
            state.progress = ended;
        }
        self.written.send_replace((state.events.len(), ends));
        ends
    }

    /// The stream from an event on, which goes on as events come.
    pub(crate) fn follow(self: &Arc<Self>, streaming: &Streaming, first: u64) -> Response {
        let (sender, receiver) = mpsc::channel::<Bytes>(1);
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        tokio::spawn(self.clone().tell(streaming.clone(), first, sender));
        let mut response = Response::new(Body::new(Pieces(receiver)));
        stream_headers(&mut response, "text/event-stream");
        response
    }

    async fn tell(self: Arc<Self>, streaming: Streaming, mut next: usize, sender: mpsc::Sender<Bytes>) {
        let mut silent_since = Instant::now();
        let mut written = self.written.subscribe();
        loop {
            let (count, ended) = *written.borrow_and_update();
            let text = if next < count {
                let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let text = state.events[next..count].concat();
                next = count;
                text
            } else if ended {
                return;
            } else {
                tokio::select! {
                    changed = written.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        continue;
                    }
                    // The events are numbered, so that nothing can be put between them.
                    () = sleep_until(silent_since + streaming.keepalive) => ": the answer is being prepared\n\n".into(),
                    () = sender.closed() => return,
                }
            };
            if !matches!(timeout(streaming.stall, sender.send(Bytes::from(text))).await, Ok(Ok(()))) {
                return;
            }
            silent_since = Instant::now();
        }
    }
}
