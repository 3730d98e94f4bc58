//! The engine continues many sequences at once, step by step: schedule, compute, sample.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use minke_model::{Batch, Chunk, KvCache, ModelId, Transformer};
use minke_spec::ModelConfig;
use minke_tensor::{Device, Dtype, Indices, PAGE_TOKENS, Pass, Tensor};

use crate::config::{EngineConfig, Speculation};
use crate::sampler::{Outcome, Sampler};
use crate::scheduler::{Plan, Scheduler, Work};
use crate::sequence::Sequence;
use crate::speculative::{Drafts, Measured, ModuleRows, Pacer};
use crate::{Completion, Counts, Error, Finish, Result, SamplingParams, SequenceId, Tenant, Token};

/// Counts since the engine was made, and its state. Those of one sequence are [`Counts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Steps that computed something.
    pub steps: u64,
    /// Tokens sampled.
    pub generated: u64,
    /// Tokens computed as parts of prompts, or again after preemption.
    pub prefilled: u64,
    /// Tokens that were found in the prefix cache instead of being computed.
    pub prefix_hits: u64,
    /// Times a sequence gave its pages up.
    pub preemptions: u64,
    /// Drafts that were computed: see [`Speculation`].
    pub drafted: u64,
    /// Drafts that were sampled: tokens that needed no step of their own.
    pub accepted: u64,
    /// Pages of the cache.
    pub pages: usize,
    /// Pages that no sequence owns.
    pub pages_free: usize,
    /// Sequences that take part in steps.
    pub running: usize,
    /// Sequences that have not ended and do not run.
    pub waiting: usize,
}

/// Generates tokens for many sequences at once with any model of one configuration.
///
/// [`Transformer::id`] tells whether a step is given the weights of the step before: with other weights the prefix
/// cache is cleared, and a sequence that was begun with the old ones is an error.
///
/// # Examples
/// ```
/// use minke_engine::{Engine, EngineConfig, SamplingParams};
/// use minke_model::Transformer;
/// use minke_spec::{ModelConfig, Placement};
/// use minke_tensor::Device;
/// # let text = include_str!("../../../testdata/tiny-v3/config.json");
/// let config = ModelConfig::from_json(text)?.config;
/// let device = Device::open("cpu", 1)?;
/// let model = Transformer::random(&device, &config, &Placement::single(), 0)?;
/// let mut engine = Engine::new(&device, &config, EngineConfig::default().exact())?;
/// engine.submit(&[3, 1, 4], &SamplingParams::default().with_seed(7).with_max_tokens(5), 2)?;
/// let completions = engine.run(&model)?;
/// assert_eq!(completions.len(), 2);
/// assert_eq!((completions[0].token_ids.len(), completions[0].counts.prompt), (5, 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Engine {
    device: Device,
    config: ModelConfig,
    /// The weights that the contents of the cache come from; none before the first step.
    model: Option<ModelId>,
    /// Most sequences that may be unfinished.
    most_unfinished: usize,
    /// Longest sequence, in tokens: the model's context or what the cache holds.
    limit: usize,
    cache: KvCache,
    scheduler: Scheduler,
    sampler: Sampler,
    pacer: Pacer,
    /// What failed behind the tokens of the last step.
    failed: Option<Error>,
    finished: BTreeMap<SequenceId, Completion>,
    steps: u64,
    generated: u64,
    prefilled: u64,
    drafted: u64,
    accepted: u64,
}

impl Engine {
    /// An engine for models of the given configuration, with an empty cache.
    ///
    /// # Errors
    /// If a size is out of range.
    pub fn new(device: &Device, config: &ModelConfig, engine: EngineConfig) -> Result<Self> {
        engine.validate()?;
        let mut cache = KvCache::new(device, config, engine.pages, engine.form, engine.cache_dtype);
        let mut speculation = engine.speculation;
        if config.num_nextn_predict_layers == 0 {
            speculation = Speculation::Off;
        }
        if speculation != Speculation::Off {
            cache = cache.with_mtp(device, config);
        }
        Ok(Self {
            device: device.clone(),
            config: config.clone(),
            model: None,
            most_unfinished: engine.max_sequences.saturating_add(engine.max_waiting),
            limit: config.max_position_embeddings.min(engine.pages * PAGE_TOKENS),
            cache,
            scheduler: Scheduler::new(&engine),
            sampler: Sampler::default(),
            pacer: Pacer::new(speculation),
            failed: None,
            finished: BTreeMap::new(),
            steps: 0,
            generated: 0,
            prefilled: 0,
            drafted: 0,
            accepted: 0,
        })
    }

    /// Takes in a group: `n` sequences that continue one prompt, and returns their names in order. The prompt is
    /// computed once and its pages are shared; sample i is the sequence that would be submitted alone with
    /// [`SamplingParams::seed_of_sample`]`(seed, i)`.
    ///
    /// # Errors
    /// If the prompt is empty, leaves no room for an answer or has an unknown token, if a sampling parameter is out of
    /// range, if `n` is zero, or if more than `max_sequences + max_waiting` sequences would be unfinished.
    pub fn submit(&mut self, token_ids: &[u32], params: &SamplingParams, n: usize) -> Result<Vec<SequenceId>> {
        self.submit_for(Tenant::default(), token_ids, params, n)
    }

    /// As [`Engine::submit`], for a tenant.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub fn submit_for(
        &mut self,
        tenant: Tenant,
        token_ids: &[u32],
        params: &SamplingParams,
        n: usize,
    ) -> Result<Vec<SequenceId>> {
        self.check(token_ids, params, n)?;
        let (unfinished, limit) = (self.unfinished(), self.most_unfinished);
        if unfinished.saturating_add(n) > limit {
            return Err(Error::QueueFull { unfinished, n, limit });
        }
        let root = self.scheduler.pages.root(tenant.prefixes);
        let member = |index: usize| {
            let seed = SamplingParams::seed_of_sample(params.seed, index);
            Sequence::new(token_ids, params.clone().with_seed(seed), self.limit, tenant.share, root)
        };
        Ok(self.scheduler.add((0..n).map(member).collect()))
    }

    /// Checks a group as [`Engine::submit`] does, whatever waits already.
    pub(crate) fn check(&self, token_ids: &[u32], params: &SamplingParams, n: usize) -> Result<()> {
        params.validate()?;
        if n == 0 {
            return Err(Error::Setting { field: "n", value: "0".into(), range: "at least 1" });
        }
        let vocab_size = self.config.vocab_size;
        if let Some((&id, _)) = params.logit_bias.last_key_value().filter(|(id, _)| **id as usize >= vocab_size) {
            return Err(Error::Setting {
                field: "logit_bias",
                value: format!("token {id}"),
                range: "of the vocabulary",
            });
        }
        if token_ids.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if token_ids.len() >= self.limit {
            return Err(Error::PromptTooLong {
                tokens: token_ids.len(),
                limit: self.limit,
                context: self.config.max_position_embeddings,
                cache: self.cache.pages() * PAGE_TOKENS,
            });
        }
        if let Some(position) = token_ids.iter().position(|&id| id as usize >= vocab_size) {
            return Err(Error::UnknownToken { token_id: token_ids[position], position, vocab_size });
        }
        Ok(())
    }

    /// The number of sequences that have not ended.
    pub(crate) fn unfinished(&self) -> usize {
        self.scheduler.sequences.len()
    }

    /// Computes one step and returns its new tokens: one of each sequence whose known tokens are computed, and a second one
    /// behind it where a draft was right ([`Speculation`]).
    ///
    /// # Errors
    /// If the model has another configuration, if its weights are not those that unfinished sequences were begun with,
    /// or if its forward fails, or the making of drafts failed in the step before; the step can then be taken again.
    pub fn step(&mut self, model: &Transformer) -> Result<Vec<Token>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.model.as_ref() != Some(model.id()) {
            self.change_model(model)?;
        }
        let start = Instant::now();
        let mut plan = self.scheduler.schedule();
        let sequences = plan.work.iter().filter(|work| !work.samplers.is_empty()).count();
        let drafts = self.pacer.drafts(sequences);
        if drafts == Drafts::Used {
            self.scheduler.add_drafts(&mut plan);
        }
        let Some((hidden, samples)) = self.compute(model, &mut plan, drafts)? else { return Ok(Vec::new()) };
        let tokens = self.commit(&plan, samples);
        let without_module = start.elapsed();
        if drafts != Drafts::None {
            self.failed = self.draft(model, &plan, &hidden).err();
        }
        let time = if drafts == Drafts::Used { start.elapsed() } else { without_module };
        self.measure(&plan, sequences, time);
        Ok(tokens)
    }

    /// Tells the pacer what a step took.
    fn measure(&mut self, plan: &Plan, sequences: usize, time: Duration) {
        let drafts = plan.work.iter().filter(|work| work.draft.is_some()).count();
        let decodes = plan.work.iter().all(|work| work.rows == 1);
        self.pacer.measure(&Measured { sequences, drafts, decodes, time });
    }

    /// Whether every sequence has ended.
    pub fn is_idle(&self) -> bool {
        self.scheduler.sequences.is_empty()
    }

    /// Ends a sequence between two steps; its completion has what it generated so far. Nothing happens if it has ended.
    pub fn cancel(&mut self, id: SequenceId) {
        self.end(id, Finish::Cancelled);
    }

    /// The result of a sequence that has ended, once.
    pub fn take(&mut self, id: SequenceId) -> Option<Completion> {
        self.finished.remove(&id)
    }

    /// Steps until every sequence has ended, and returns all results that were not taken, in order of submission.
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub fn run(&mut self, model: &Transformer) -> Result<Vec<Completion>> {
        while !self.is_idle() {
            self.step(model)?;
        }
        Ok(std::mem::take(&mut self.finished).into_values().collect())
    }

    /// Goes over to other weights and clears the prefix cache, whose pages come from the old ones.
    fn change_model(&mut self, model: &Transformer) -> Result<()> {
        if model.config() != &self.config {
            return Err(Error::AnotherModel);
        }
        if self.model.is_some() {
            if self.scheduler.sequences.values().any(Sequence::is_begun) {
                return Err(Error::WeightsChanged);
            }
            self.scheduler.pages.forget_all();
        }
        self.model = Some(model.id().clone());
        Ok(())
    }

    /// What a sequence took so far, in tokens; none after its completion was taken.
    pub fn counts(&self, id: SequenceId) -> Option<Counts> {
        let running = self.scheduler.sequences.get(&id).map(Sequence::counts);
        running.or_else(|| self.finished.get(&id).map(|completion| completion.counts))
    }

    /// The contents of the full pages that the prefix cache has of these tokens for tenants of the number `prefixes`
    /// ([`Tenant::prefixes`]), the first one first, until one is missing: what [`Engine::import_prefix`] takes in another
    /// engine of the same form, model, build and type of cache. The first `skipped` pages are left out.
    pub fn export_prefix(
        &self,
        prefixes: u64,
        token_ids: &[u32],
        skipped: usize,
    ) -> impl ExactSizeIterator<Item = Vec<u8>> {
        let pages = self.known_pages(prefixes, token_ids);
        pages.into_iter().skip(skipped).map(|page| self.cache.export_page(page))
    }

    /// How many of these tokens the prefix cache has for tenants of a number, in whole pages.
    pub fn known_prefix(&self, prefixes: u64, token_ids: &[u32]) -> usize {
        self.known_pages(prefixes, token_ids).len() * PAGE_TOKENS
    }

    fn known_pages(&self, prefixes: u64, token_ids: &[u32]) -> Vec<u32> {
        let allocator = &self.scheduler.pages;
        let known = |root| allocator.known_pages(root, token_ids).map(|(page, _)| page).collect();
        allocator.known_root(prefixes).map_or_else(Vec::new, known)
    }

    /// Adds pages of [`Engine::export_prefix`] to the prefix cache of a number, as far as they and the free pages reach, and
    /// returns how many of the tokens the cache then has. Sequences that begin with them start from these pages. The first
    /// `skipped` pages of the tokens are not among `pages`; nothing is added if the cache lacks one of them.
    ///
    /// # Errors
    /// What `pages` gives as an error, and a page of another size than [`Engine::page_bytes`]; those before it stay.
    pub fn import_prefix<E: From<Error>>(
        &mut self,
        prefixes: u64,
        token_ids: &[u32],
        skipped: usize,
        pages: impl IntoIterator<Item = std::result::Result<Vec<u8>, E>>,
    ) -> std::result::Result<usize, E> {
        let mut owned = Vec::new();
        let result = self.fill_pages(prefixes, token_ids, skipped, pages, &mut owned);
        let known = owned.len() * PAGE_TOKENS;
        // The last page first, so that the cache gives up the end of a prefix before its beginning.
        owned.into_iter().rev().for_each(|page| self.scheduler.pages.release(page));
        result.map(|()| known)
    }

    /// Does the work of [`Engine::import_prefix`]; the pages stay owned, so that none pushes another out.
    fn fill_pages<E: From<Error>>(
        &mut self,
        prefixes: u64,
        token_ids: &[u32],
        skipped: usize,
        pages: impl IntoIterator<Item = std::result::Result<Vec<u8>, E>>,
        owned: &mut Vec<u32>,
    ) -> std::result::Result<(), E> {
        let (allocator, page_bytes) = (&mut self.scheduler.pages, self.cache.page_bytes());
        let mut prefix = allocator.root(prefixes);
        let chunks = token_ids.as_chunks().0;
        for tokens in chunks.iter().take(skipped) {
            let Some((page, longer)) = allocator.find(prefix, tokens) else { return Ok(()) };
            owned.push(page);
            prefix = longer;
        }
        for (tokens, bytes) in chunks.iter().skip(skipped).zip(pages) {
            let bytes = bytes?;
            if bytes.len() != page_bytes {
                return Err(Error::PageSize { bytes: bytes.len(), page_bytes }.into());
            }
            let (page, longer) = match allocator.find(prefix, tokens) {
                Some(known) => known,
                None => {
                    let Some(page) = allocator.allocate() else { return Ok(()) };
                    self.cache.import_page(page, &bytes);
                    (page, allocator.remember(prefix, tokens, page))
                }
            };
            owned.push(page);
            prefix = longer;
        }
        Ok(())
    }

    /// The bytes of one page of 32 tokens over the main model's layers.
    pub fn page_bytes(&self) -> usize {
        self.cache.page_bytes()
    }

    /// How the cache keeps keys, values and latents.
    pub fn cache_dtype(&self) -> Dtype {
        self.cache.dtype()
    }

    /// The longest sequence, in tokens: the model's context, or what the cache holds.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Counts and state.
    pub fn stats(&self) -> Stats {
        Stats {
            steps: self.steps,
            generated: self.generated,
            prefilled: self.prefilled,
            prefix_hits: self.scheduler.prefix_hits,
            preemptions: self.scheduler.preemptions,
            drafted: self.drafted,
            accepted: self.accepted,
            pages: self.scheduler.pages.count(),
            pages_free: self.scheduler.pages.available(),
            running: self.scheduler.running.len(),
            waiting: self.scheduler.sequences.len() - self.scheduler.running.len(),
        }
    }

    /// Runs the model over the planned tokens and samples where a sequence's last one is among them: the states of all rows if
    /// there are to be drafts, else of those that are sampled from, and one result for every sampler and every draft of the plan,
    /// in order. Drafts that cannot be sampled leave the plan.
    fn compute(
        &mut self,
        model: &Transformer,
        plan: &mut Plan,
        drafts: Drafts,
    ) -> Result<Option<(Tensor, Vec<Outcome>)>> {
        if plan.work.is_empty() {
            return Ok(None);
        }
        plan.copies.iter().for_each(|&(from, to)| self.cache.copy_page(&self.device, from, to));
        let (sequences, vocab_size) = (&self.scheduler.sequences, self.config.vocab_size);
        // Rows whose states are asked for, of each work and before it.
        let (mut asked, mut rows) = (Vec::with_capacity(plan.work.len()), 0);
        self.sampler.clear();
        for work in &mut plan.work {
            let first = rows;
            rows += if drafts == Drafts::None { usize::from(!work.samplers.is_empty()) } else { work.rows };
            work.samplers.iter().for_each(|id| self.sampler.add(&sequences[id], rows - 1, vocab_size));
            let sequence = &sequences[&work.id];
            work.draft = work.draft.filter(|&draft| self.sampler.add_behind(sequence, rows, draft, vocab_size));
            rows += usize::from(work.draft.is_some());
            asked.push(rows - first);
        }
        let token_ids = |work: &Work| {
            let known = &sequences[&work.id].token_ids[work.first..work.first + work.rows];
            known.iter().copied().chain(work.draft).collect::<Vec<u32>>()
        };
        let token_ids: Vec<Vec<u32>> = plan.work.iter().map(token_ids).collect();
        let chunks = plan.work.iter().zip(&token_ids).zip(asked).map(|((work, token_ids), asked)| Chunk {
            token_ids,
            asked,
            first_position: work.first,
            pages: &sequences[&work.id].pages[..(work.first + token_ids.len()).div_ceil(PAGE_TOKENS)],
        });
        let batch = Batch::paged(&self.device, &chunks.collect::<Vec<_>>())?;
        let pass = Pass::inference(&self.device);
        let output = model.forward(pass, &batch, Some(&mut self.cache), false)?;
        let samples = self.sampler.sample(&self.device, model, &output.hidden)?;
        Ok(Some((output.hidden, samples)))
    }

    /// Notes what was computed, gives every sampler its token, and ends those that are done.
    fn commit(&mut self, plan: &Plan, samples: Vec<Outcome>) -> Vec<Token> {
        let mut tokens = Vec::with_capacity(samples.len());
        let mut samples = samples.into_iter();
        self.steps += u64::from(!plan.work.is_empty());
        for work in &plan.work {
            if work.first < self.scheduler.sequence(work.id).prompt || work.rows > 1 {
                self.prefilled += work.rows as u64;
            }
            self.scheduler.computed(work);
            if !work.samplers.is_empty() {
                self.scheduler.start_followers(work.id);
            }
            work.samplers.iter().zip(samples.by_ref()).for_each(|(&id, sampled)| self.give(id, sampled, &mut tokens));
            if work.draft.is_some() {
                let behind = samples.next().expect("invariant: a draft has a row");
                let accepted = self.scheduler.keep_draft(work);
                if accepted {
                    self.give(work.id, behind, &mut tokens);
                }
                self.drafted += 1;
                self.accepted += u64::from(accepted);
                self.pacer.count(1, usize::from(accepted));
            }
        }
        tokens
    }

    /// Gives a sequence its token, and ends it if it is the last one, or there is none.
    fn give(&mut self, id: SequenceId, sampled: Outcome, tokens: &mut Vec<Token>) {
        let sampled = match sampled {
            Ok(sampled) => sampled,
            Err(finish) => return self.end(id, finish),
        };
        self.generated += 1;
        let (token_id, log_prob) = (sampled.token_id, sampled.log_prob);
        let top_log_probs = sampled.top_log_probs.clone();
        let finish = self.scheduler.sequence(id).push(sampled);
        tokens.push(Token { sequence: id, token_id, log_prob, top_log_probs, finish });
        if let Some(finish) = finish {
            self.end(id, finish);
        }
    }

    /// Drafts the next token of every sequence that was given one and goes on, from the states of the rows that it kept.
    fn draft(&mut self, model: &Transformer, plan: &Plan, hidden: &Tensor) -> Result<()> {
        let (mut rows, mut ends, mut drafted) = (Vec::new(), Vec::new(), Vec::new());
        let mut next_row = 0;
        for work in &plan.work {
            let row = next_row;
            next_row += work.rows + usize::from(work.draft.is_some());
            let sequence = self.scheduler.sequences.get_mut(&work.id);
            let Some(sequence) = sequence.filter(|s| !work.samplers.is_empty() && s.has_room_for_two()) else {
                continue;
            };
            let of = sequence.module_rows(work.first..sequence.computed);
            rows.extend(of.positions.clone().map(|position| (row + position.saturating_sub(work.first)) as u32));
            ends.push(rows.len() - 1);
            drafted.push((work.id, of));
        }
        if drafted.is_empty() {
            return Ok(());
        }
        let sequences = &self.scheduler.sequences;
        let chunk = |(id, of): &(SequenceId, ModuleRows)| {
            let (sequence, first, end) = (&sequences[id], of.positions.start, of.positions.end);
            Chunk {
                token_ids: &sequence.token_ids[first + 1..=end],
                first_position: first - of.window,
                pages: &sequence.pages[of.window / PAGE_TOKENS..end.div_ceil(PAGE_TOKENS)],
                asked: end - first,
            }
        };
        let batch = Batch::paged(&self.device, &drafted.iter().map(chunk).collect::<Vec<_>>())?;
        let (pass, rows) = (Pass::inference(&self.device), Indices::from_slice(&self.device, &rows));
        let states = model.forward_mtp(pass, hidden, &rows, &batch, &mut self.cache)?;
        self.sampler.clear();
        drafted.iter().zip(&ends).for_each(|((id, _), &end)| self.sampler.add_draft(&sequences[id], end));
        let drafts = self.sampler.sample(&self.device, model, &states)?;
        for ((id, _), draft) in drafted.iter().zip(drafts) {
            let sequence = self.scheduler.sequence(*id);
            // Nothing follows a token that ends the sequence.
            let draft = draft.ok().map(|sampled| sampled.token_id);
            sequence.draft = draft.filter(|token_id| !sequence.params.stop_ids.contains(token_id));
        }
        Ok(())
    }

    fn end(&mut self, id: SequenceId, finish: Finish) {
        if let Some(sequence) = self.scheduler.remove(id) {
            self.finished.insert(id, sequence.complete(id, finish));
        }
    }
}
