//! Drafts by multi-token prediction change nothing but time: every token, log-probability, entropy, alternative, reason to
//! end and count is to the bit that of an engine without drafts.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Case, alone, assert_same, cases, config, device, folder, params, random, run, spacious};
use minke_engine::{Completion, Constraint, Engine, EngineConfig, Finish, SamplingParams, Speculation};
use minke_model::{Batch, MlaForm, Transformer};
use minke_spec::draw::{Domain, draw};
use minke_tensor::{Device, Dtype, Isa, Pass};
use proptest::prelude::*;

const KINDS: [(MlaForm, Dtype); 3] =
    [(MlaForm::Expanded, Dtype::F32), (MlaForm::Absorbed, Dtype::F32), (MlaForm::Absorbed, Dtype::Bf16)];

/// A random model whose drafts are often right: blocks add little to the embedding of a token, and the module is given
/// that of the next one.
fn predictable(device: &Device) -> Transformer {
    let mut model = random(device, &config("tiny-v3-mtp"));
    let width = model.config().hidden_size;
    for param in model.params_mut() {
        if param.name().ends_with("eh_proj.weight") {
            let identity = |(i, value): (usize, &mut f32)| *value = f32::from(i / (2 * width) == i % (2 * width));
            param.update(device, |values| values.iter_mut().enumerate().for_each(identity));
        } else if ["o_proj.weight", "down_proj.weight"].iter().any(|end| param.name().ends_with(end)) {
            param.update(device, |values| values.iter_mut().for_each(|value| *value *= 0.02));
        }
    }
    model
}

/// Models whose drafts are mostly wrong, often right, and those of transformers' golden.
fn models(device: &Device) -> [(&'static str, Transformer); 3] {
    let golden = minke_weights::load(device, &folder("tiny-v3-mtp")).unwrap();
    [("random", random(device, &config("tiny-v3-mtp"))), ("predictable", predictable(device)), ("tiny-v3-mtp", golden)]
}

/// How often a constraint was asked what follows a token that it forbids. The engine survives a panic of one.
static ASKED_WRONGLY: AtomicUsize = AtomicUsize::new(0);

/// Allows one in `key % 3 + 1` of all tokens behind each token.
fn constraint(key: u64) -> Constraint {
    let allowed = move |before: Option<&u32>, token_id: u32| {
        (u64::from(token_id) * 7 + key + u64::from(before.copied().unwrap_or(0))).is_multiple_of(key % 3 + 1)
    };
    Constraint::new(move |ids, mask| {
        let wrongly = (0..ids.len()).any(|i| !allowed(ids[..i].last(), ids[i]));
        ASKED_WRONGLY.fetch_add(usize::from(wrongly), Ordering::Relaxed);
        (0..mask.vocab_size() as u32).filter(|&id| !allowed(ids.last(), id)).for_each(|id| mask.forbid(id));
    })
}

/// Cases with everything that a request can ask for.
fn varied(count: usize, vocab_size: usize) -> Vec<Case> {
    let mut cases = cases(count, vocab_size);
    for (key, case) in cases.iter_mut().enumerate() {
        let mut stream = draw(80, Domain::Data, &[key as u64]);
        let mut params = std::mem::take(&mut case.params);
        let bias = (0..stream.below(4)).map(|_| (stream.below(vocab_size as u64) as u32, stream.normal() as f32 * 3.0));
        params = params.with_logit_bias(bias.collect::<Vec<_>>()).with_top_log_probs(stream.below(4) as usize);
        if stream.chance(0.4) {
            params = params.with_repetition_penalty(1.3).with_presence_penalty(0.5).with_frequency_penalty(-0.2);
        }
        if stream.chance(0.3) {
            params = params.with_log_prob_temperature(1.0).with_min_p(0.02);
        }
        case.params = if stream.chance(0.4) { params.with_constraint(constraint(key as u64)) } else { params };
    }
    cases
}

fn assert_equal(got: &Completion, want: &Completion, what: &str) {
    assert_same(got, want, what);
    assert_eq!(got.top_log_probs, want.top_log_probs, "{what}");
    let of = |completion: &Completion| (completion.counts.prompt, completion.counts.generated);
    assert_eq!(of(got), of(want), "{what}");
}

#[test]
fn alone_in_batches_with_few_pages_in_chunks_and_with_threads() {
    for (form, dtype) in KINDS {
        let one = device(1, Isa::detect());
        for (name, model) in models(&one) {
            let plain = spacious(form).with_cache_dtype(dtype);
            let cases = varied(36, model.config().vocab_size);
            let want: Vec<Completion> = cases.iter().map(|case| alone(&one, &model, plain.clone(), case)).collect();
            let drafting = plain.with_speculation(Speculation::Always);
            for (i, (case, want)) in cases.iter().zip(&want).enumerate() {
                let got = alone(&one, &model, drafting.clone(), case);
                assert_equal(&got, want, &format!("of case {i} alone, {name}, {form:?}, {dtype:?}"));
                assert_eq!(got.counts, want.counts);
            }
            let few_pages = drafting.clone().with_pages(9).with_prefix_cache(true);
            let measured = drafting.clone().with_speculation(Speculation::WhereItPays).with_prefix_cache(true);
            for (threads, sizes) in [
                (1, drafting.clone()),
                (2, drafting.clone().with_max_sequences(16)),
                (1, drafting.clone().with_chunk_tokens(31).with_max_sequences(3)),
                (1, few_pages.clone()),
                (2, few_pages.with_chunk_tokens(1)),
                (1, measured),
            ] {
                let device = device(threads, Isa::detect());
                let mut engine = Engine::new(&device, model.config(), sizes.clone()).unwrap();
                for round in 0..2 {
                    let got = run(&mut engine, &model, &cases);
                    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                        assert_equal(got, want, &format!("of case {i} in round {round}, {sizes:?}, {name}"));
                    }
                }
                let stats = engine.stats();
                assert_eq!((stats.preemptions > 0, stats.pages_free), (sizes.pages == 9, sizes.pages), "{stats:?}");
                if sizes.speculation == Speculation::Always {
                    let enough = if name == "predictable" { stats.drafted / 4 } else { 10 };
                    assert!(stats.accepted > enough && stats.accepted < stats.drafted, "{name}, {stats:?}");
                }
            }
        }
    }
    assert_eq!(ASKED_WRONGLY.load(Ordering::Relaxed), 0);
}

#[test]
fn a_draft_that_is_right_saves_a_step() {
    let device = device(1, Isa::detect());
    let model = predictable(&device);
    let sizes = spacious(MlaForm::Absorbed).with_speculation(Speculation::Always);
    let mut engine = Engine::new(&device, model.config(), sizes).unwrap();
    engine.submit(&[1, 2, 3], &params(0.0, 1, 100), 1).unwrap();
    let mut two = 0;
    while !engine.is_idle() {
        two += usize::from(engine.step(&model).unwrap().len() == 2);
    }
    let stats = engine.stats();
    assert_eq!((stats.generated, stats.steps + stats.accepted, two as u64), (100, 100, stats.accepted));
    assert!(stats.accepted > 20, "{stats:?}");
}

/// A draft is what the module predicts in one forward over the whole sequence, as in training. Few tokens may be said, so that
/// many drafts are right, and which ones depends on every state.
#[test]
fn drafts_are_those_of_one_forward_over_the_sequence() {
    const TOKENS: usize = 100;
    const SAID: [u32; 3] = [7, 9, 11];
    let device = device(1, Isa::detect());
    for (name, model) in models(&device) {
        let sizes = spacious(MlaForm::Expanded).with_cache_dtype(Dtype::F32).with_speculation(Speculation::Always);
        let mut engine = Engine::new(&device, model.config(), sizes).unwrap();
        let prompt: Vec<u32> = (0..40).map(|i| i * i % 50).collect();
        let biased = params(0.0, 1, TOKENS).with_logit_bias(SAID.map(|id| (id, 100.0)));
        let id = engine.submit(&prompt, &biased, 1).unwrap()[0];
        while !engine.is_idle() {
            engine.step(&model).unwrap();
        }
        let tokens = [&prompt[..], &engine.take(id).unwrap().token_ids].concat();
        let pass = Pass::inference(&device);
        let module = model.forward(pass, &Batch::packed(&device, &[&tokens]), None, true).unwrap().mtp.unwrap();
        let logits = model.logits(pass, &module.hidden).unwrap().read();
        // Row i predicts token i + 2.
        let draft = |position: usize| {
            let row = &logits[(position - 2) * model.config().vocab_size..][..model.config().vocab_size];
            SAID.into_iter().reduce(|best, id| if row[id as usize] > row[best as usize] { id } else { best }).unwrap()
        };
        let (mut known, mut accepted) = (prompt.len() + 1, 0);
        // The last token has no room for a draft behind it.
        while known + 1 < tokens.len() {
            let is_right = draft(known) == tokens[known];
            accepted += u64::from(is_right);
            known += 1 + usize::from(is_right);
        }
        assert_eq!(engine.stats().accepted, accepted, "{name}");
        assert!((1..TOKENS as u64 / 2).contains(&accepted), "{name}: {accepted}");
    }
}

/// Wherever a sequence ends, by a stop id or its length, it has the tokens up to there and no more.
#[test]
fn ends_at_every_position() {
    let device = device(1, Isa::detect());
    let model = predictable(&device);
    let plain = spacious(MlaForm::Absorbed);
    for temperature in [0.0, 1.0] {
        let case = |params: SamplingParams| Case { prompt: (0..30).collect(), params };
        let whole = alone(&device, &model, plain.clone(), &case(params(temperature, 5, 40)));
        for position in 0..40 {
            for ends in [
                params(temperature, 5, position + 1),
                params(temperature, 5, 40).with_stop_ids(vec![whole.token_ids[position]]),
            ] {
                let want = alone(&device, &model, plain.clone(), &case(ends.clone()));
                let sizes = plain.clone().with_speculation(Speculation::Always);
                let got = alone(&device, &model, sizes, &case(ends));
                assert_equal(&got, &want, &format!("that ends at {position}"));
                assert_eq!(got.token_ids, whole.token_ids[..got.token_ids.len()]);
            }
        }
        // The context ends it: 3 pages.
        let endless = case(params(temperature, 5, usize::MAX));
        let [want, got] = [Speculation::Off, Speculation::Always].map(|speculation| {
            let sizes = plain.clone().with_pages(3).with_speculation(speculation);
            alone(&device, &model, sizes, &endless)
        });
        assert_equal(&got, &want, "that fills the cache");
        assert_eq!((got.finish, got.token_ids.len()), (Finish::Length, 66));
    }
}

#[test]
fn members_of_groups() {
    let device = device(1, Isa::detect());
    for (name, model) in models(&device) {
        for (prompt, pages, max_sequences) in [(31, 500, 64), (32, 500, 4), (33, 12, 64), (70, 8, 3)] {
            let prompt: Vec<u32> = (0..prompt).map(|i| i * 7 % 199).collect();
            let all = |speculation: Speculation| {
                let sizes = spacious(MlaForm::Absorbed).with_pages(pages).with_max_sequences(max_sequences);
                let sizes = sizes.with_prefix_cache(pages < 500).with_speculation(speculation);
                let mut engine = Engine::new(&device, model.config(), sizes).unwrap();
                let ids = engine.submit(&prompt, &params(1.0, 9, 45).with_top_p(0.95), 7).unwrap();
                engine.cancel(ids[3]);
                engine.step(&model).unwrap();
                engine.cancel(ids[0]);
                let all = engine.run(&model).unwrap();
                assert_eq!(engine.stats().pages_free, pages);
                all.into_iter().filter(|completion| ![ids[0], ids[3]].contains(&completion.id)).collect::<Vec<_>>()
            };
            let (got, want) = (all(Speculation::Always), all(Speculation::Off));
            assert_eq!(got.len(), 5);
            got.iter().zip(&want).for_each(|(got, want)| assert_equal(got, want, &format!("of a group, {name}")));
        }
    }
}

/// Pages of an engine with drafts are those of one without: what only drafts need is not in them.
#[test]
fn pages_move_between_engines_with_drafts_and_without() {
    let device = device(1, Isa::detect());
    let model = predictable(&device);
    let case = Case { prompt: (0..100).collect(), params: params(1.0, 3, 40) };
    let plain = spacious(MlaForm::Absorbed).with_prefix_cache(true);
    let want = alone(&device, &model, plain.clone(), &case);
    let both = [Speculation::Always, Speculation::Off];
    for (from, to) in both.into_iter().zip(both.into_iter().rev()) {
        let [mut from, mut to] = [from, to].map(|speculation| {
            Engine::new(&device, model.config(), plain.clone().with_speculation(speculation)).unwrap()
        });
        run(&mut from, &model, std::slice::from_ref(&case));
        let pages: Vec<Vec<u8>> = from.export_prefix(0, &case.prompt, 0).collect();
        assert_eq!((pages.len(), pages[0].len()), (3, to.page_bytes()));
        let pages = pages.into_iter().map(Ok::<_, minke_engine::Error>);
        assert_eq!(to.import_prefix(0, &case.prompt, 0, pages).unwrap(), 96);
        let got = run(&mut to, &model, std::slice::from_ref(&case)).remove(0);
        assert_equal(&got, &want, "that began with imported pages");
        assert_eq!(got.counts.cached, 96);
    }
}

#[test]
fn a_model_without_multi_token_prediction_has_no_drafts() {
    let device = device(1, Isa::detect());
    let model = random(&device, &config("tiny-v3"));
    let sizes = spacious(MlaForm::Absorbed).with_speculation(Speculation::Always);
    let mut engine = Engine::new(&device, model.config(), sizes).unwrap();
    assert_eq!(run(&mut engine, &model, &cases(5, model.config().vocab_size)).len(), 5);
    assert_eq!(engine.stats().drafted, 0);
}

#[derive(Clone, Debug)]
enum Action {
    /// Which case, and how many members.
    Submit(usize, usize),
    Cancel(usize),
    Steps(usize),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever is submitted and cancelled when: what ends by itself is what it is alone without drafts, and what was
    /// cancelled is the beginning of that.
    #[test]
    fn whatever_happens_between_steps(
        actions in prop::collection::vec(
            prop_oneof![
                3 => (0..24usize, 1..4usize).prop_map(|(which, n)| Action::Submit(which, n)),
                1 => any::<usize>().prop_map(Action::Cancel),
                4 => (1..20usize).prop_map(Action::Steps),
            ],
            1..25,
        ),
        pages in 6..30usize,
        max_sequences in 1..17usize,
        chunk_tokens in prop_oneof![Just(1usize), Just(31), Just(256)],
        prefix_cache: bool,
        measured: bool,
    ) {
        let device = device(1, Isa::detect());
        let model = predictable(&device);
        let cases = varied(24, model.config().vocab_size);
        let speculation = if measured { Speculation::WhereItPays } else { Speculation::Always };
        let sizes = EngineConfig::default().with_pages(pages).with_max_sequences(max_sequences);
        let sizes = sizes.with_chunk_tokens(chunk_tokens).with_prefix_cache(prefix_cache).with_speculation(speculation);
        let mut engine = Engine::new(&device, model.config(), sizes).unwrap();
        let mut submitted = Vec::new();
        for action in actions {
            match action {
                Action::Submit(which, n) => {
                    let ids = engine.submit(&cases[which].prompt, &cases[which].params, n).unwrap();
                    submitted.extend(ids.into_iter().enumerate().map(|(member, id)| (id, which, member)));
                }
                Action::Cancel(which) if !submitted.is_empty() => engine.cancel(submitted[which % submitted.len()].0),
                Action::Cancel(_) => {}
                Action::Steps(steps) => (0..steps).for_each(|_| drop(engine.step(&model).unwrap())),
            }
        }
        engine.run(&model).unwrap().into_iter().try_for_each(|got| {
            let &(_, which, member) = submitted.iter().find(|(id, ..)| *id == got.id).unwrap();
            let Case { prompt, params } = cases[which].clone();
            let seed = SamplingParams::seed_of_sample(params.seed, member);
            let case = Case { prompt, params: params.with_seed(seed) };
            let want = alone(&device, &model, EngineConfig::default(), &case);
            if got.finish == Finish::Cancelled {
                prop_assert_eq!(&got.token_ids, &want.token_ids[..got.token_ids.len()]);
            } else {
                assert_equal(&got, &want, &format!("of case {which}, member {member}"));
            }
            Ok(())
        })?;
        prop_assert_eq!(engine.stats().pages_free, pages);
    }
}
