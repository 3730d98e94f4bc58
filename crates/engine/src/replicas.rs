//! Several engines that share a model and a queue. A small model has an engine per thread, each with sequences of its own.
//!
//! Where weights are small, threads that share one step wait for each other more than they compute, and hand each
//! other's caches back and forth. A replica never waits, and its few sequences stay in the cache of its core. Which
//! replica had a sequence cannot be seen in the result.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use minke_model::Transformer;
use minke_spec::ModelConfig;
use minke_spec::cost::parameter_counts;
use minke_tensor::{Device, PAGE_TOKENS};

use crate::{Completion, Engine, EngineConfig, Error, Result, SamplingParams, SequenceId};

/// Parameters up to which a thread has an engine of its own: every one of them reads all weights in every step.
const MOST_PARAMETERS: usize = 8 << 20;

/// Sequences that such an engine continues at once. These rows fill the tiles of matrix products, and more of them would
/// read their keys and values from memory instead of the caches near a core.
const MOST_AT_ONCE: usize = 16;

/// A group that waits for a replica.
struct Request {
    token_ids: Vec<u32>,
    params: SamplingParams,
    n: usize,
}

/// Engines that continue a queue of prompts together with one model.
pub struct Replicas {
    engines: Vec<Engine>,
    /// Sequences that an engine is given before it has ended one.
    at_once: usize,
    waiting: Vec<Request>,
    /// Sequences that wait, and most that may.
    queued: usize,
    most_queued: usize,
}

impl Replicas {
    /// An engine per thread of the device for a small model and one for all of them otherwise. `sizes` are those
    /// of all together; each has pages for one sequence at least, and those of a small model continue at most 16 sequences
    /// at once, whatever `max_sequences` allows. The rest waits in the queue.
    ///
    /// # Errors
    /// If a size is out of range.
    pub fn new(device: &Device, config: &ModelConfig, sizes: &EngineConfig) -> Result<Self> {
        sizes.validate()?;
        let small = parameter_counts(config).total <= MOST_PARAMETERS;
        let count = if small { device.threads().min(sizes.max_sequences) } else { 1 };
        let device = if count == 1 { device.clone() } else { device.serial() };
        let longest = config.max_position_embeddings.div_ceil(PAGE_TOKENS).min(sizes.pages);
        let most = if small { MOST_AT_ONCE } else { sizes.max_sequences };
        let each = EngineConfig {
            pages: sizes.pages.div_ceil(count).max(longest),
            max_sequences: sizes.max_sequences.div_ceil(count).min(most),
            // What waits, waits in the queue that the engines share.
            max_waiting: usize::MAX,
            ..sizes.clone()
        };
        let engines = (0..count).map(|_| Engine::new(&device, config, each.clone())).collect::<Result<_>>()?;
        let most_queued = sizes.max_sequences.saturating_add(sizes.max_waiting);
        Ok(Self { engines, at_once: each.max_sequences, waiting: Vec::new(), queued: 0, most_queued })
    }

    /// Takes in a group of `n` sequences that continue one prompt, as [`Engine::submit`] does.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub fn submit(&mut self, token_ids: &[u32], params: &SamplingParams, n: usize) -> Result<()> {
        self.engines[0].check(token_ids, params, n)?;
        let (unfinished, limit) = (self.queued, self.most_queued);
        if unfinished.saturating_add(n) > limit {
            return Err(Error::QueueFull { unfinished, n, limit });
        }
        self.queued += n;
        self.waiting.push(Request { token_ids: token_ids.to_vec(), params: params.clone(), n });
        Ok(())
    }

    /// Continues everything that was submitted to its end and returns the results in order of submission. `on_finished`
    /// is called with the number of sequences that have ended.
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub fn run(&mut self, model: &Transformer, mut on_finished: impl FnMut(usize) + Send) -> Result<Vec<Completion>> {
        let mut completions = Vec::new();
        self.run_each(model, |index, completion| {
            completions.push((index, completion));
            on_finished(completions.len());
            Ok::<_, Error>(())
        })?;
        completions.sort_by_key(|(index, _)| *index);
        Ok(completions.into_iter().map(|(_, completion)| completion).collect())
    }

    /// Continues everything that was submitted to its end, and gives out every sequence as soon as it has ended: which one,
    /// counted in order of submission, and what became of it. The order in which they come depends on their lengths.
    ///
    /// # Errors
    /// As [`Engine::step`], or the first error of `on_completion`: then what has not ended is cancelled.
    pub fn run_each<E: From<Error> + Send>(
        &mut self,
        model: &Transformer,
        on_completion: impl FnMut(usize, Completion) -> std::result::Result<(), E> + Send,
    ) -> std::result::Result<(), E> {
        let requests = std::mem::take(&mut self.waiting);
        self.queued = 0;
        let starts: Vec<usize> = requests
            .iter()
            .scan(0, |next, request| {
                let start = *next;
                *next += request.n;
                Some(start)
            })
            .collect();
        let (next, at_once) = (AtomicUsize::new(0), self.at_once);
        let (receiver, is_over) = (Mutex::new(on_completion), AtomicBool::new(false));
        let advance = |engine: &mut Engine, open: &mut Vec<(usize, SequenceId)>| -> std::result::Result<(), E> {
            while !is_over.load(Ordering::Relaxed) {
                while engine.unfinished() < at_once {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(Request { token_ids, params, n }) = requests.get(index) else { break };
                    open.extend((starts[index]..).zip(engine.submit(token_ids, params, *n)?));
                }
                if engine.is_idle() {
                    break;
                }
                engine.step(model)?;
                let mut ended = Vec::new();
                open.retain(|(index, id)| {
                    let completion = engine.take(*id);
                    ended.extend(completion.map(|completion| (*index, completion)));
                    ended.last().is_none_or(|(last, _)| last != index)
                });
                for (index, completion) in ended {
                    (receiver.lock().unwrap_or_else(PoisonError::into_inner))(index, completion)?;
                }
            }
            Ok(())
        };
        // Whoever fails ends the others, and nobody leaves anything behind in an engine.
        let drive = |engine: &mut Engine| {
            let mut open = Vec::new();
            let driven = advance(engine, &mut open);
            is_over.fetch_or(driven.is_err(), Ordering::Relaxed);
            for (_, id) in open {
                engine.cancel(id);
                engine.take(id);
            }
            driven
        };
        let driven: Vec<std::result::Result<(), E>> = std::thread::scope(|scope| {
            let drive = &drive;
            let (first, others) = self.engines.split_at_mut(1);
            let others: Vec<_> = others.iter_mut().map(|engine| scope.spawn(move || drive(engine))).collect();
            let first = drive(&mut first[0]);
            let join = |handle: std::thread::ScopedJoinHandle<'_, _>| {
                handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            std::iter::once(first).chain(others.into_iter().map(join)).collect()
        });
        driven.into_iter().collect()
    }
}
