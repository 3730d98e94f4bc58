//! A sequence depends on its prompt, its parameters and the weights alone: not on its neighbours, the size of prefill
//! chunks, prefix hits, preemption, the number of threads, or being one of a group.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, KINDS, alone, assert_same, cases, config, device, params, random, run, spacious};
use minke_engine::{Completion, Engine, EngineConfig, Replicas, SamplingParams, Stats};
use minke_model::{MlaForm, Transformer};
use minke_tensor::{Device, Dtype, Isa};

/// A model, and what cases become alone.
struct Fixture {
    isa: Isa,
    device: Device,
    model: Transformer,
    /// Room for everything.
    spacious: EngineConfig,
    cases: Vec<Case>,
    want: Vec<Completion>,
    name: String,
}

impl Fixture {
    fn new(name: &str, (form, dtype): (MlaForm, Dtype), isa: Isa, count: usize) -> Self {
        let spacious = spacious(form).with_cache_dtype(dtype);
        let device = device(1, isa);
        let model = random(&device, &config(name));
        let cases = cases(count, model.config().vocab_size);
        let want = cases.iter().map(|case| alone(&device, &model, spacious.clone(), case)).collect();
        let name = format!("{name}, {form:?}, {dtype:?}, {}", isa.name());
        Self { isa, device, model, spacious, cases, want, name }
    }

    fn each(count: usize, check: impl Fn(&Self)) {
        for isa in Isa::available() {
            KINDS.iter().for_each(|&(name, form, dtype)| check(&Self::new(name, (form, dtype), isa, count)));
        }
    }

    /// Checks that the cases together become what they are alone.
    fn check(&self, device: &Device, sizes: EngineConfig, what: &str) -> Stats {
        let mut engine = Engine::new(device, self.model.config(), sizes.clone()).unwrap();
        let got = run(&mut engine, &self.model, &self.cases);
        assert_eq!(got.len(), self.cases.len());
        for (i, (got, want)) in got.iter().zip(&self.want).enumerate() {
            assert_same(got, want, &format!("of case {i}: {what}, {sizes:?}, {}", self.name));
        }
        let stats = engine.stats();
        assert_eq!((stats.pages_free, stats.running, stats.waiting), (sizes.pages, 0, 0));
        stats
    }
}

#[test]
fn batches_of_any_size() {
    Fixture::each(130, |fixture| {
        for size in [2, 3, 7, 16, 33, 130] {
            for start in (0..130).step_by(size).take(2) {
                let cases = start..130.min(start + size);
                let mut engine =
                    Engine::new(&fixture.device, fixture.model.config(), fixture.spacious.clone()).unwrap();
                let got = run(&mut engine, &fixture.model, &fixture.cases[cases.clone()]);
                for (got, want) in got.iter().zip(&fixture.want[cases]) {
                    assert_same(got, want, &format!("in a batch of {size}, {}", fixture.name));
                }
            }
        }
    });
}

#[test]
fn chunks_slots_prefix_hits_and_preemption() {
    Fixture::each(24, |fixture| {
        for chunk_tokens in [1, 31, 256] {
            for prefix_cache in [false, true] {
                let sizes = fixture.spacious.clone().with_chunk_tokens(chunk_tokens).with_prefix_cache(prefix_cache);
                let stats = fixture.check(&fixture.device, sizes.clone(), "chunks");
                assert_eq!((stats.preemptions, stats.prefix_hits > 0), (0, prefix_cache));
                // Few pages: sequences lose theirs and are computed again. Few slots: sequences wait for one.
                let few = sizes.clone().with_pages(9);
                let stats = fixture.check(&fixture.device, few, "few pages");
                assert!(stats.preemptions > 0, "{stats:?}");
                let stats = fixture.check(&fixture.device, sizes.with_max_sequences(5), "few slots");
                assert_eq!(stats.prefix_hits > 0, prefix_cache);
            }
        }
    });
}

#[test]
fn a_second_time_with_a_warm_cache() {
    Fixture::each(12, |fixture| {
        let sizes = fixture.spacious.clone().with_prefix_cache(true);
        let mut engine = Engine::new(&fixture.device, fixture.model.config(), sizes).unwrap();
        let mut hits = vec![];
        let mut model = fixture.model.clone();
        for round in 0..3 {
            let before = engine.stats().prefix_hits;
            let got = run(&mut engine, &model, &fixture.cases);
            for (got, want) in got.iter().zip(&fixture.want) {
                assert_same(got, want, &format!("in round {round}, {}", fixture.name));
            }
            hits.push(engine.stats().prefix_hits - before);
            if round == 1 {
                model.params_mut();
            }
        }
        // The first round finds only what others of the same round began with, and so does one with new weights.
        assert!(hits[1] > 2 * hits[0] && hits[2] == hits[0], "{hits:?}");
    });
}

#[test]
fn replicas_of_the_engine() {
    Fixture::each(40, |fixture| {
        for (threads, max_sequences) in [(1, 256), (3, 7), (3, 2)] {
            let device = device(threads, fixture.isa);
            let sizes = fixture.spacious.clone().with_max_sequences(max_sequences);
            let mut replicas = Replicas::new(&device, fixture.model.config(), &sizes).unwrap();
            for round in 0..2 {
                for case in &fixture.cases {
                    replicas.submit(&case.prompt, &case.params, 1).unwrap();
                }
                let mut heard = vec![];
                let got = replicas.run(&fixture.model, |finished| heard.push(finished)).unwrap();
                assert!(heard.is_sorted() && heard.last() == Some(&40) && got.len() == 40, "{heard:?}");
                for (got, want) in got.iter().zip(&fixture.want) {
                    assert_same(got, want, &format!("in round {round} of {threads} replicas, {}", fixture.name));
                }
            }
        }
        let mut replicas = Replicas::new(&fixture.device, fixture.model.config(), &fixture.spacious).unwrap();
        assert!(replicas.submit(&[], &params(1.0, 1, 5), 1).is_err());
        assert!(replicas.run(&fixture.model, |_| ()).unwrap().is_empty());
    });
}

#[test]
fn one_thread_or_two() {
    for isa in Isa::available() {
        for (name, form, dtype) in KINDS {
            let sizes = spacious(form).with_cache_dtype(dtype);
            // Wide enough that every operation finds its work worth a second thread.
            let mut config = config(name);
            (config.hidden_size, config.vocab_size, config.intermediate_size) = (200, 1009, 300);
            config.initializer_range = 0.1;
            let (one, two) = (device(1, isa), device(2, isa));
            let model = random(&one, &config);
            let cases = cases(40, config.vocab_size);
            let of = |device: &Device| {
                let mut engine = Engine::new(device, &config, sizes.clone()).unwrap();
                run(&mut engine, &model, &cases)
            };
            for (got, want) in of(&two).iter().zip(&of(&one)) {
                assert_same(got, want, &format!("with two threads: {name}, {form:?}, {dtype:?}, {}", isa.name()));
            }
        }
    }
}

#[test]
fn members_of_a_group_are_sequences_of_their_own() {
    Fixture::each(1, |fixture| {
        for (prompt, prefix_cache) in [(31, true), (32, false), (33, true), (70, false)] {
            let prompt: Vec<u32> = fixture.cases[0].prompt.iter().copied().cycle().take(prompt).collect();
            let params = params(1.0, 9, 45).with_top_p(0.95);
            let want: Vec<Completion> = (0..9)
                .map(|i| {
                    let seed = SamplingParams::seed_of_sample(9, i);
                    let case = Case { prompt: prompt.clone(), params: params.clone().with_seed(seed) };
                    alone(&fixture.device, &fixture.model, fixture.spacious.clone(), &case)
                })
                .collect();
            assert!(want.iter().skip(1).all(|other| other.token_ids != want[0].token_ids));
            // With neighbours, few slots, few pages, and members that are cancelled before and after the prompt.
            for (pages, max_sequences, chunk_tokens) in [(500, 64, 256), (500, 4, 31), (12, 64, 31), (7, 3, 1)] {
                let sizes = fixture.spacious.clone().with_pages(pages).with_max_sequences(max_sequences);
                let sizes = sizes.with_chunk_tokens(chunk_tokens).with_prefix_cache(prefix_cache);
                let mut engine = Engine::new(&fixture.device, fixture.model.config(), sizes).unwrap();
                engine.submit(&fixture.cases[0].prompt[..20], &fixture.cases[0].params, 2).unwrap();
                let ids = engine.submit(&prompt, &params, 9).unwrap();
                engine.cancel(ids[3]);
                engine.step(&fixture.model).unwrap();
                engine.cancel(ids[0]);
                (0..15).for_each(|_| drop(engine.step(&fixture.model).unwrap()));
                engine.cancel(ids[5]);
                let prefilled = engine.stats();
                let all = engine.run(&fixture.model).unwrap();
                assert!(all.is_sorted_by_key(|completion| completion.id));
                for (i, want) in want.iter().enumerate().filter(|(i, _)| ![0, 3, 5].contains(i)) {
                    let got = all.iter().find(|completion| completion.id == ids[i]).unwrap();
                    assert_same(got, want, &format!("of sample {i}, {prefilled:?}, {}", fixture.name));
                }
                if pages == 500 {
                    let once = 20 + prompt.len() as u64;
                    assert_eq!(engine.stats().prefilled, once, "a prompt is computed once");
                }
                assert_eq!(engine.stats().pages_free, pages);
            }
        }
    });
}
