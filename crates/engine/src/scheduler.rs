//! The scheduler: each step computes all running sequences, as far as pages and prompt tokens reach.
//!
//! Running sequences with one token to compute (decode) always take part; prompts share `chunk_tokens` of a step, and half
//! of that beside sequences that decode, whose next token waits for the end of the step. If a sequence needs a page and
//! none is left, the youngest one that holds any gives its pages up and waits to be computed again. A prompt whose next
//! page is being computed by another one waits for that page. A tenant with fewer running sequences than another takes
//! a place, or pages, of it. Nothing here changes the tokens of a sequence, only their time.

use std::collections::{BTreeMap, BTreeSet};

use minke_tensor::PAGE_TOKENS;

use crate::config::EngineConfig;
use crate::fairness::{Demand, Service};
use crate::pages::PageAllocator;
use crate::sequence::{Sequence, SequenceId};

/// Sequences that have not ended, and their pages.
pub(crate) struct Scheduler {
    pub sequences: BTreeMap<SequenceId, Sequence>,
    pub running: BTreeSet<SequenceId>,
    pub waiting: BTreeSet<SequenceId>,
    pub pages: PageAllocator,
    pub preemptions: u64,
    pub prefix_hits: u64,
    service: Service,
    max_sequences: usize,
    chunk_tokens: usize,
    next: u64,
}

/// What a step computes.
#[derive(Default)]
pub(crate) struct Plan {
    /// Pages to be copied before anything is written, in this order.
    pub copies: Vec<(u32, u32)>,
    pub work: Vec<Work>,
}

/// The tokens `first..first + rows` of one sequence.
pub(crate) struct Work {
    pub id: SequenceId,
    pub first: usize,
    pub rows: usize,
    /// A draft of the token behind them: one more row.
    pub draft: Option<u32>,
    /// Which sequences sample from the last row: this one and the members of its group that wait for it; none if more
    /// rows follow in another step.
    pub samplers: Vec<SequenceId>,
}

impl Scheduler {
    pub(crate) fn new(config: &EngineConfig) -> Self {
        Self {
            sequences: BTreeMap::new(),
            running: BTreeSet::new(),
            waiting: BTreeSet::new(),
            pages: PageAllocator::new(config.pages, config.form, config.prefix_cache),
            preemptions: 0,
            prefix_hits: 0,
            service: Service::default(),
            max_sequences: config.max_sequences,
            chunk_tokens: config.chunk_tokens,
            next: 0,
        }
    }

    /// Takes in a group: the first computes the prompt, the others start from its pages.
    pub(crate) fn add(&mut self, members: Vec<Sequence>) -> Vec<SequenceId> {
        let first = self.next;
        self.next += members.len() as u64;
        let active: BTreeSet<u64> = self.sequences.values().map(|sequence| sequence.share).collect();
        for member in &members {
            if !active.contains(&member.share) {
                self.service.join(member.share, &active);
            }
        }
        let ids: Vec<SequenceId> = (first..self.next).map(SequenceId).collect();
        self.sequences.extend(ids.iter().copied().zip(members));
        if let Some((&leader, followers)) = ids.split_first() {
            self.sequence(leader).followers = followers.to_vec();
            self.waiting.insert(leader);
        }
        ids
    }

    /// What the next step computes. Without sequences, nothing.
    pub(crate) fn schedule(&mut self) -> Plan {
        let mut plan = Plan::default();
        // The oldest first: only younger sequences are preempted, and those have not got their turn yet.
        let mut ready = BTreeSet::new();
        for id in self.running.iter().copied().collect::<Vec<_>>() {
            if self.running.contains(&id) && self.make_room(id, true, &mut plan) {
                ready.insert(id);
            }
        }
        self.admit(&mut ready, &mut plan);
        // What is oldest can have all pages.
        if ready.is_empty()
            && let Some(&id) = self.waiting.first()
            && self.make_room(id, true, &mut plan)
        {
            self.waiting.remove(&id);
            self.running.insert(id);
            ready.insert(id);
        }
        self.plan(&ready, &mut plan);
        plan
    }

    /// Starts sequences that wait, as far as places and pages reach.
    fn admit(&mut self, ready: &mut BTreeSet<SequenceId>, plan: &mut Plan) {
        let mut tried = BTreeSet::new();
        loop {
            // By turns: the tenant with the fewest places, and of its sequences the oldest.
            let places = self.places();
            let taken = |id: &SequenceId| places.get(&self.sequences[id].share).copied().unwrap_or(0);
            let candidates = self.waiting.iter().filter(|id| !tried.contains(*id));
            let Some(&id) = candidates.min_by_key(|id| (taken(id), **id)) else { return };
            tried.insert(id);
            let (rival, full) = (self.rival(id), self.running.len() >= self.max_sequences);
            // Those that come later have no fewer places.
            if full && rival.is_none() {
                return;
            }
            if self.is_being_computed(id) {
                continue;
            }
            if full && let Some(rival) = rival {
                // It keeps its pages while nobody needs them.
                self.stop(rival, ready);
            }
            if !self.make_room(id, false, plan) && !self.take_room(id, ready, plan) {
                return;
            }
            self.waiting.remove(&id);
            self.running.insert(id);
            ready.insert(id);
        }
    }

    /// The places among running sequences that each tenant has.
    fn places(&self) -> BTreeMap<u64, usize> {
        let mut places = BTreeMap::new();
        self.running.iter().for_each(|id| *places.entry(self.sequences[id].share).or_default() += 1);
        places
    }

    /// The youngest running sequence of the tenant with the most places, if that tenant has more places than the one of
    /// `id` even without it.
    fn rival(&self, id: SequenceId) -> Option<SequenceId> {
        let places = self.places();
        let taken = |id: &SequenceId| places.get(&self.sequences[id].share).copied().unwrap_or(0);
        let rival = self.running.iter().max_by_key(|id| (taken(id), **id)).copied()?;
        (taken(&rival) > taken(&id) + 1).then_some(rival)
    }

    /// Takes pages for a sequence that waits from a tenant with more places: from what waits, then from what runs.
    fn take_room(&mut self, id: SequenceId, ready: &mut BTreeSet<SequenceId>, plan: &mut Plan) -> bool {
        let Some(share) = self.rival(id).map(|rival| self.sequences[&rival].share) else { return false };
        while !self.reserve(id, plan) {
            let idle = |other: &&SequenceId| {
                let sequence = &self.sequences[*other];
                sequence.share == share && !sequence.pages.is_empty()
            };
            let Some(victim) = self.waiting.iter().rev().find(idle).copied().or_else(|| self.rival(id)) else {
                return false;
            };
            self.stop(victim, ready);
            self.preempt(victim);
        }
        true
    }

    /// Takes the place of a sequence away; it waits.
    fn stop(&mut self, id: SequenceId, ready: &mut BTreeSet<SequenceId>) {
        if self.running.remove(&id) {
            self.waiting.insert(id);
            ready.remove(&id);
        }
    }

    /// Whether the first page that a sequence would compute is about to be computed by one that runs.
    fn is_being_computed(&self, id: SequenceId) -> bool {
        let sequence = &self.sequences[&id];
        if !sequence.pages.is_empty() {
            return false;
        }
        let first = sequence.first_unknown_page(&self.pages);
        first.is_some() && self.running.iter().any(|id| self.sequences[id].next_page() == first)
    }

    /// Adds the drafts of sequences that decode to a plan. Nobody gives up a page for one.
    pub(crate) fn add_drafts(&mut self, plan: &mut Plan) {
        for work in &mut plan.work {
            let sequence = self.sequences.get_mut(&work.id).expect("invariant: planned sequences exist");
            let position = work.first + work.rows;
            if sequence.draft.is_none() || position != sequence.token_ids.len() || !sequence.has_room_for_two() {
                continue;
            }
            if sequence.pages.len() * PAGE_TOKENS == position {
                let Some(page) = self.pages.allocate() else { continue };
                sequence.pages.push(page);
            }
            work.draft = sequence.draft;
        }
    }

    /// Notes that the planned tokens are in the cache.
    pub(crate) fn computed(&mut self, work: &Work) {
        self.count_computed(work.id, work.rows);
    }

    /// After the sample of a work's last row: whether it has a draft, and the sequence goes on with that token. Then the
    /// draft's row is that of a token, and is noted as computed.
    pub(crate) fn keep_draft(&mut self, work: &Work) -> bool {
        let last = self.sequences.get(&work.id).and_then(|sequence| sequence.token_ids.last());
        let keep = work.draft.is_some() && work.draft.as_ref() == last;
        if keep {
            self.count_computed(work.id, 1);
        }
        keep
    }

    fn count_computed(&mut self, id: SequenceId, rows: usize) {
        let sequence = self.sequences.get_mut(&id).expect("invariant: planned sequences exist");
        sequence.computed += rows;
        sequence.count_prefilled();
        sequence.remember_full_pages(&mut self.pages);
        self.service.count(sequence.share, rows);
    }

    /// Lets the members of a group that waited for the prompt start from its pages. Before the leader's first token.
    pub(crate) fn start_followers(&mut self, leader: SequenceId) {
        let leader = self.sequence(leader);
        let followers = std::mem::take(&mut leader.followers);
        let (pages, computed) = (leader.pages.clone(), leader.computed);
        let (remembered, prefix) = (leader.remembered, leader.prefix);
        for id in followers {
            pages.iter().for_each(|&page| self.pages.share(page));
            let follower = self.sequence(id);
            follower.pages.clone_from(&pages);
            (follower.computed, follower.remembered, follower.prefix) = (computed, remembered, prefix);
            follower.count_cached();
            self.waiting.insert(id);
        }
    }

    /// Takes a sequence out and gives its pages back. If it was to compute the prompt of a group, the next member does.
    pub(crate) fn remove(&mut self, id: SequenceId) -> Option<Sequence> {
        let mut sequence = self.sequences.remove(&id)?;
        let was_running = self.running.remove(&id);
        let was_waiting = self.waiting.remove(&id);
        if let Some((&heir, rest)) = sequence.followers.split_first() {
            let next = self.sequence(heir);
            next.followers = rest.to_vec();
            next.pages = std::mem::take(&mut sequence.pages);
            (next.computed, next.remembered, next.prefix) = (sequence.computed, sequence.remembered, sequence.prefix);
            next.count_cached();
            if was_running {
                self.running.insert(heir)
            } else {
                self.waiting.insert(heir)
            };
        } else if !was_running && !was_waiting {
            self.sequences.values_mut().for_each(|leader| leader.followers.retain(|&follower| follower != id));
        }
        sequence.drop_pages(&mut self.pages);
        Some(sequence)
    }

    /// A sequence that exists.
    pub(crate) fn sequence(&mut self, id: SequenceId) -> &mut Sequence {
        self.sequences.get_mut(&id).expect("invariant: ids in sets and plans are those of sequences")
    }

    /// Plans a token of each sequence that decodes, and what the prompts get of a step.
    fn plan(&self, ready: &BTreeSet<SequenceId>, plan: &mut Plan) {
        let lacking = |id: &SequenceId| self.sequences[id].uncomputed();
        let demands: Vec<Demand> = ready
            .iter()
            .filter(|id| lacking(id) > 1)
            .map(|id| Demand { id: *id, share: self.sequences[id].share, tokens: lacking(id) })
            .collect();
        let decoding = ready.len() - demands.len();
        let beside = self.chunk_tokens.div_ceil(2).max(decoding).min(self.chunk_tokens);
        let budget = if decoding == 0 { self.chunk_tokens } else { beside };
        let mut given = demands.iter().zip(self.service.share_out(budget, &demands)).peekable();
        for id in ready {
            let rows = given.next_if(|(demand, _)| demand.id == *id).map_or(1, |(_, rows)| rows);
            if rows == 0 {
                continue;
            }
            let sequence = &self.sequences[id];
            let mut samplers = Vec::new();
            if rows == sequence.uncomputed() {
                samplers.push(*id);
                samplers.extend_from_slice(&sequence.followers);
            }
            plan.work.push(Work { id: *id, first: sequence.computed, rows, draft: None, samplers });
        }
    }

    /// Makes sure that all tokens of a sequence have a page, and that no page with another owner is written; returns
    /// whether that worked. With `may_preempt`, younger sequences give their pages up for it, or in the end itself.
    fn make_room(&mut self, id: SequenceId, may_preempt: bool, plan: &mut Plan) -> bool {
        while !self.reserve(id, plan) {
            let youngest = self.sequences.iter().rfind(|(_, sequence)| !sequence.pages.is_empty()).map(|(&id, _)| id);
            match youngest.filter(|&youngest| may_preempt && youngest >= id) {
                Some(youngest) => self.preempt(youngest),
                None => return false,
            }
            if youngest == Some(id) {
                return false;
            }
        }
        true
    }

    /// Takes the pages that a sequence lacks, or none if there are too few.
    fn reserve(&mut self, id: SequenceId, plan: &mut Plan) -> bool {
        let sequence = self.sequences.get_mut(&id).expect("invariant: ids in sets are those of sequences");
        let fresh = sequence.pages.is_empty();
        if fresh {
            sequence.take_known_pages(&mut self.pages);
        }
        let lacking = sequence.token_ids.len().div_ceil(PAGE_TOKENS).saturating_sub(sequence.pages.len());
        // The next token may go to a page that other members of the group read too: then it is copied.
        let written = sequence.computed / PAGE_TOKENS;
        let shared = sequence.pages.get(written).copied().filter(|&page| self.pages.is_shared(page));
        if self.pages.available() < lacking + usize::from(shared.is_some()) {
            if fresh {
                sequence.drop_pages(&mut self.pages);
            }
            return false;
        }
        if fresh {
            self.prefix_hits += sequence.computed as u64;
            sequence.count_cached();
        }
        let pages = &mut self.pages;
        let mut allocate = || pages.allocate().expect("invariant: available pages were counted above");
        sequence.pages.extend((0..lacking).map(|_| allocate()));
        if let Some(shared) = shared {
            let copy = allocate();
            plan.copies.push((shared, copy));
            sequence.pages[written] = copy;
            pages.release(shared);
        }
        true
    }

    /// Takes a sequence's pages away; it waits until it can be computed again.
    fn preempt(&mut self, id: SequenceId) {
        self.preemptions += 1;
        let sequence = self.sequences.get_mut(&id).expect("invariant: only holders of pages are preempted");
        sequence.drop_pages(&mut self.pages);
        if self.running.remove(&id) {
            self.waiting.insert(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::SamplingParams;
    use crate::sequence::Sampled;

    /// A scheduler with a cache that holds which token was written where, instead of keys and values.
    struct Machine {
        scheduler: Scheduler,
        written: Vec<[Option<u32>; PAGE_TOKENS]>,
        limit: usize,
        /// Whether sequences are drafted for, and how many drafts were kept.
        drafting: bool,
        kept: usize,
        ended: usize,
    }

    impl Machine {
        fn new(config: &EngineConfig) -> Self {
            Self {
                scheduler: Scheduler::new(config),
                written: vec![[None; PAGE_TOKENS]; config.pages],
                limit: config.pages * PAGE_TOKENS,
                drafting: false,
                kept: 0,
                ended: 0,
            }
        }

        fn add(&mut self, tenant: u64, prompt: &[u32], max_tokens: usize, n: usize) {
            let params = SamplingParams::default().with_max_tokens(max_tokens);
            let root = self.scheduler.pages.root(tenant);
            let member = || Sequence::new(prompt, params.clone(), self.limit, tenant, root);
            self.scheduler.add((0..n).map(|_| member()).collect());
        }

        /// Takes a step as the engine does, and checks what a step must not do.
        fn step(&mut self, config: &EngineConfig) {
            let mut plan = self.scheduler.schedule();
            let preemptions = self.scheduler.preemptions;
            self.scheduler.add_drafts(&mut plan);
            assert_eq!(self.scheduler.preemptions, preemptions, "nobody gives up pages for a draft");
            assert_eq!(plan.work.is_empty(), self.scheduler.sequences.is_empty(), "a step with sequences moves on");
            for &(from, to) in &plan.copies {
                self.written[to as usize] = self.written[from as usize];
            }
            let owners = self.owners();
            assert!(self.scheduler.running.len() <= config.max_sequences);
            let prefill: usize = plan.work.iter().map(|w| w.rows).filter(|&rows| rows > 1).sum();
            assert!(prefill <= config.chunk_tokens);
            for work in &plan.work {
                let sequence = &self.scheduler.sequences[&work.id];
                assert_eq!((work.first, self.scheduler.running.contains(&work.id)), (sequence.computed, true));
                let behind = &sequence.token_ids[work.first + work.rows..];
                assert!(work.draft.is_none() || (work.samplers == [work.id] && behind.is_empty()));
                assert!(work.draft.is_none() || sequence.token_ids.len() + 2 <= sequence.limit);
                let tokens = &sequence.token_ids[work.first..work.first + work.rows];
                for (position, &token_id) in (work.first..).zip(tokens.iter().chain(&work.draft)) {
                    let page = sequence.pages[position / PAGE_TOKENS];
                    assert_eq!((owners[&page], self.scheduler.pages.is_known(page)), (1, false), "page {page}");
                    self.written[page as usize][position % PAGE_TOKENS] = Some(token_id);
                }
            }
            for work in &plan.work {
                self.scheduler.computed(work);
                if !work.samplers.is_empty() {
                    self.scheduler.start_followers(work.id);
                }
                work.samplers.iter().enumerate().for_each(|(i, &id)| self.give(id, i as u32 % 2));
                if self.scheduler.keep_draft(work) {
                    self.kept += 1;
                    self.give(work.id, 0);
                }
            }
        }

        /// Gives a sequence a token, and a draft of the next that is right every second time.
        fn give(&mut self, id: SequenceId, token_id: u32) {
            let sequence = self.scheduler.sequence(id);
            let finish = sequence.push(Sampled { token_id, log_prob: 0.0, entropy: 0.0, top_log_probs: vec![] });
            sequence.draft = Some(sequence.token_ids.len() as u32 / 2 % 2).filter(|_| self.drafting);
            if finish.is_some() {
                self.scheduler.remove(id);
                self.ended += 1;
            }
        }

        fn owners(&self) -> HashMap<u32, u32> {
            let mut owners = HashMap::new();
            let lists = self.scheduler.sequences.values().flat_map(|sequence| &sequence.pages);
            lists.for_each(|&page| *owners.entry(page).or_insert(0) += 1);
            owners
        }

        /// Checks that every computed token of a sequence is in its pages.
        fn check(&self) {
            self.scheduler.pages.check(&self.owners());
            let Scheduler { sequences, running, waiting, .. } = &self.scheduler;
            assert!(running.is_disjoint(waiting));
            let following: usize = sequences.values().map(|sequence| sequence.followers.len()).sum();
            assert_eq!(sequences.len(), running.len() + waiting.len() + following);
            for sequence in sequences.values() {
                for (position, &token) in sequence.token_ids[..sequence.computed].iter().enumerate() {
                    let page = sequence.pages[position / PAGE_TOKENS];
                    assert_eq!(self.written[page as usize][position % PAGE_TOKENS], Some(token), "position {position}");
                }
                let counts = sequence.counts();
                let read = counts.cached + counts.prefilled;
                assert!(read >= sequence.computed.min(counts.prompt) && read <= counts.prompt, "{counts:?}");
                assert!(counts.generated == 0 || read == counts.prompt, "{counts:?}");
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Action {
        /// Tenant; letters of the prompt, 16 tokens each; tokens of it to leave out; tokens to generate; members.
        Add(u64, Vec<u32>, usize, usize, usize),
        Cancel(usize),
        Steps(usize),
    }

    fn action() -> impl Strategy<Value = Action> {
        let letters = prop::collection::vec(0..2u32, 1..7);
        prop_oneof![
            3 => (0..3u64, letters, 0..16usize, 1..80usize, 1..6usize)
                .prop_map(|(tenant, letters, cut, max, n)| Action::Add(tenant, letters, cut, max, n)),
            2 => any::<usize>().prop_map(Action::Cancel),
            4 => (1..30usize).prop_map(Action::Steps),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_tokens_stand_where_they_belong_and_all_pages_come_back(
            actions in prop::collection::vec(action(), 1..40),
            pages in 4..24usize,
            max_sequences in 1..9usize,
            chunk_tokens in prop_oneof![Just(1usize), Just(31), Just(256)],
            prefix_cache: bool,
            drafting: bool,
        ) {
            let config = EngineConfig { pages, max_sequences, chunk_tokens, prefix_cache, ..EngineConfig::default() };
            let mut machine = Machine { drafting, ..Machine::new(&config) };
            let mut submitted = 0;
            for action in actions {
                match action {
                    Action::Add(tenant, letters, cut, max_tokens, n) => {
                        let mut prompt: Vec<u32> = letters.iter().flat_map(|&letter| [letter; 16]).collect();
                        prompt.truncate(prompt.len() - cut.min(15));
                        machine.add(tenant, &prompt, max_tokens, n);
                        submitted += n;
                    }
                    Action::Cancel(which) => {
                        let ids: Vec<SequenceId> = machine.scheduler.sequences.keys().copied().collect();
                        if let Some(&id) = ids.get(which % ids.len().max(1)) {
                            machine.scheduler.remove(id);
                            machine.ended += 1;
                        }
                    }
                    Action::Steps(count) => (0..count).for_each(|_| {
                        machine.step(&config);
                        machine.check();
                    }),
                }
                machine.check();
            }
            // Everything ends, within as many steps as one sequence after the other would take, computed anew for each
            // preemption.
            let mut steps = 0;
            while !machine.scheduler.sequences.is_empty() {
                machine.step(&config);
                machine.check();
                steps += 1;
                prop_assert!(steps < 200_000);
            }
            prop_assert_eq!(machine.ended, submitted);
            prop_assert_eq!(machine.scheduler.pages.available(), pages);
        }
    }

    #[test]
    fn a_group_computes_its_prompt_once() {
        let config = EngineConfig { pages: 64, chunk_tokens: 64, prefix_cache: false, ..EngineConfig::default() };
        let mut machine = Machine::new(&config);
        machine.add(0, &[1; 100], 20, 8);
        let plans: Vec<Plan> = (0..2)
            .map(|_| {
                let plan = machine.scheduler.schedule();
                plan.work.iter().for_each(|work| machine.scheduler.computed(work));
                plan
            })
            .collect();
        assert_eq!(plans[0].work[0].rows + plans[1].work[0].rows, 100);
        assert_eq!((plans[0].work[0].samplers.len(), plans[1].work[0].samplers.len()), (0, 8));
        machine.scheduler.start_followers(plans[1].work[0].id);
        // Three full pages and a partial one, once for all.
        assert_eq!(machine.owners().len(), 4);
        let ids: Vec<SequenceId> = machine.scheduler.sequences.keys().copied().collect();
        for id in ids {
            machine.scheduler.sequence(id).push(Sampled {
                token_id: 3,
                log_prob: 0.0,
                entropy: 0.0,
                top_log_probs: vec![],
            });
        }
        // Each writes its first token: the partial page is copied for all but the last owner.
        let plan = machine.scheduler.schedule();
        assert_eq!((plan.work.len(), plan.copies.len(), machine.owners().len()), (8, 7, 3 + 8));
    }

    #[test]
    fn a_draft_that_is_right_saves_a_step() {
        let config = sizes(4, 1, 64);
        let mut machine = Machine { drafting: true, ..Machine::new(&config) };
        machine.add(0, &[1; 28], 100, 1);
        let mut steps = 0;
        while machine.ended == 0 {
            machine.step(&config);
            machine.check();
            steps += 1;
        }
        assert!(machine.kept > 20 && steps + machine.kept == 100, "{} of {steps}", machine.kept);
    }

    fn sizes(pages: usize, max_sequences: usize, chunk_tokens: usize) -> EngineConfig {
        EngineConfig { pages, max_sequences, chunk_tokens, ..EngineConfig::default() }
    }

    /// Steps until the sequence of this number has its first token, at most so many; how many it took.
    fn steps_to_first_token(machine: &mut Machine, config: &EngineConfig, number: u64) -> usize {
        (1..1000)
            .find(|_| {
                machine.step(config);
                machine.check();
                machine.scheduler.sequences.get(&SequenceId(number)).is_none_or(|s| s.token_ids.len() > s.prompt)
            })
            .unwrap()
    }

    #[test]
    fn a_prompt_that_another_one_is_computing_is_computed_once() {
        let config = sizes(64, 16, 64);
        let mut machine = Machine::new(&config);
        let shared: Vec<u32> = (0..500).map(|i| i % 7).collect();
        (0..8).for_each(|i| machine.add(0, &[shared.clone(), vec![100 + i; 20]].concat(), 4, 1));
        let steps = steps_to_first_token(&mut machine, &config, 7);
        // 480 of 500 tokens lie in full pages; the rest of each one follows, 40 tokens.
        let computed: u64 = 500 + 8 * 40;
        assert!(steps as u64 <= computed / 32, "{steps} steps");
        assert_eq!(machine.scheduler.prefix_hits, 7 * 480);
        // Another tenant has nothing of it.
        machine.add(1, &shared, 4, 1);
        assert!(steps_to_first_token(&mut machine, &config, 8) >= 500usize.div_ceil(64));
        assert_eq!(machine.scheduler.prefix_hits, 7 * 480);
    }

    #[test]
    fn a_short_prompt_joins_a_long_one() {
        let config = sizes(300, 16, 64);
        let mut machine = Machine::new(&config);
        machine.add(0, &(0..8000).collect::<Vec<u32>>(), 4, 1);
        machine.step(&config);
        machine.add(0, &[7; 50], 4, 1);
        assert_eq!(steps_to_first_token(&mut machine, &config, 1), 1);
    }

    #[test]
    fn a_tenant_with_many_requests_does_not_keep_another_waiting() {
        for (pages, places) in [(400, 8), (40, 32), (40, 8)] {
            let config = sizes(pages, places, 64);
            let mut machine = Machine::new(&config);
            (0..32).for_each(|i| machine.add(1, &[i; 100], 500, 1));
            (0..60).for_each(|_| machine.step(&config));
            machine.add(2, &[9; 60], 500, 1);
            assert!(steps_to_first_token(&mut machine, &config, 32) <= 2, "{pages} pages, {places} places");
            // Both go on, and all end.
            while !machine.scheduler.sequences.is_empty() {
                machine.step(&config);
                machine.check();
            }
            assert_eq!(machine.ended, 33);
        }
    }
}
