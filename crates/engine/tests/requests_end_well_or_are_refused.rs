//! What happens at the edges? Bad requests are refused with the reason, every sequence ends, every page comes back.
#![allow(clippy::unwrap_used)]

mod common;

use common::{FORMS, KINDS, alone, assert_same, cases, config, device, params, random, run, spacious};
use minke_engine::{Engine, EngineConfig, Error, Finish, SamplingParams};
use minke_model::{MlaForm, Transformer};
use minke_spec::draw::{Domain, draw};
use minke_tensor::{Device, Isa};

fn engine(device: &Device, sizes: EngineConfig) -> Engine {
    Engine::new(device, &config("tiny-v3"), sizes).unwrap()
}

#[test]
fn bad_requests_are_refused() {
    let device = device(1, Isa::detect());
    let good = spacious(MlaForm::Absorbed);
    for (field, sizes) in [
        ("pages", EngineConfig { pages: 0, ..good.clone() }),
        ("pages", EngineConfig { pages: usize::MAX, ..good.clone() }),
        ("max_sequences", EngineConfig { max_sequences: 0, ..good.clone() }),
        ("chunk_tokens", EngineConfig { chunk_tokens: 0, ..good.clone() }),
    ] {
        let error = Engine::new(&device, &config("tiny-v3"), sizes).err().unwrap().to_string();
        assert!(error.starts_with(&format!("{field} = ")), "{error}");
    }
    let mut engine = engine(&device, EngineConfig { pages: 3, ..good });
    let fine = params(1.0, 0, 5);
    let mut refuse =
        |prompt: &[u32], params: &SamplingParams, n| engine.submit(prompt, params, n).unwrap_err().to_string();
    assert!(refuse(&[], &fine, 1).contains("empty"));
    assert!(refuse(&[1], &fine, 0).starts_with("n = 0"));
    assert!(refuse(&[1; 96], &fine, 1).contains("96 tokens and the engine holds sequences of 96"));
    assert!(refuse(&[1; 1000], &fine, 1).contains("context of the model 256, cache 96"));
    assert!(refuse(&[1, 2, 199], &fine, 1).starts_with("token 199 at position 2"));
    assert!(refuse(&[1], &SamplingParams { top_p: f32::NAN, ..fine.clone() }, 1).starts_with("top_p = NaN"));
    assert!(engine.is_idle());
    engine.submit(&[1; 95], &fine, 1).unwrap();
    let other = random(&device, &config("tiny-qwen2"));
    assert!(matches!(engine.step(&other), Err(Error::AnotherModel)));
}

#[test]
fn sequences_end_at_stop_ids_at_their_length_and_at_the_end_of_the_cache() {
    let device = device(1, Isa::detect());
    let model = random(&device, &config("tiny-v3"));
    let case = |max_tokens, stop_ids| common::Case {
        prompt: vec![5, 6, 7],
        params: SamplingParams { stop_ids, ..params(1.0, 3, max_tokens) },
    };
    let free = alone(&device, &model, MlaForm::Expanded, &case(1000, vec![]));
    // The context of the model.
    assert_eq!((free.token_ids.len(), free.finish), (253, Finish::Length));
    let short = alone(&device, &model, MlaForm::Expanded, &case(7, vec![]));
    assert_eq!((&short.token_ids[..], short.finish), (&free.token_ids[..7], Finish::Length));
    let stop = free.token_ids[20];
    let at = free.token_ids.iter().position(|&id| id == stop).unwrap();
    let stopped = alone(&device, &model, MlaForm::Expanded, &case(1000, vec![198, stop]));
    let first = stopped.token_ids.iter().position(|&id| id == stop || id == 198).unwrap();
    assert_eq!(stopped.finish, Finish::Stop(stopped.token_ids[first]));
    assert!(first <= at && stopped.token_ids == free.token_ids[..=first]);
    let mut small = engine(&device, EngineConfig { pages: 2, ..spacious(MlaForm::Expanded) });
    let cut = run(&mut small, &model, &[case(1000, vec![])]).remove(0);
    assert_eq!((&cut.token_ids[..], cut.finish), (&free.token_ids[..61], Finish::Length));
}

#[test]
fn events_tell_every_token_once() {
    let device = device(1, Isa::detect());
    let model = random(&device, &config("tiny-v3"));
    let mut engine = engine(&device, EngineConfig { pages: 10, ..spacious(MlaForm::Expanded) });
    let ids = engine.submit(&[9; 40], &params(1.0, 1, 30), 7).unwrap();
    let mut told = vec![Vec::new(); 7];
    while !engine.is_idle() {
        for token in engine.step(&model).unwrap() {
            let which = ids.iter().position(|&id| id == token.sequence).unwrap();
            told[which].push(token.token_id);
            assert_eq!(token.finish.is_some(), told[which].len() == 30);
            assert_eq!(engine.take(token.sequence).is_some(), told[which].len() == 30);
        }
    }
    assert!(told.iter().all(|tokens| tokens.len() == 30) && engine.stats().preemptions > 0);
    assert!(ids.iter().all(|&id| engine.take(id).is_none()), "taken once");
    assert!(engine.step(&model).unwrap().is_empty());
}

/// Returns the model with NaN as the embedding of one token.
fn poisoned(device: &Device, model: &Transformer, token: usize) -> Transformer {
    let mut poisoned = model.clone();
    let width = model.config().hidden_size;
    poisoned.params_mut()[0].update(device, |rows| rows[token * width..][..width].fill(f32::NAN));
    poisoned
}

#[test]
fn a_sequence_without_finite_logits_ends_and_leaves_no_trace() {
    let device = device(1, Isa::detect());
    for (name, form) in KINDS {
        let model = random(&device, &config(name));
        let poisoned = poisoned(&device, &model, 7);
        let mut all = cases(12, model.config().vocab_size);
        for (i, case) in all.iter_mut().enumerate() {
            case.prompt.iter_mut().for_each(|id| *id += u32::from(*id == 7));
            case.params.stop_ids = vec![7];
            if i % 4 == 0 {
                case.prompt[0] = 7;
            }
        }
        let want: Vec<_> = all.iter().map(|case| alone(&device, &model, form, case)).collect();
        let sizes = EngineConfig { pages: 24, prefix_cache: true, ..spacious(form) };
        let mut engine = Engine::new(&device, model.config(), sizes).unwrap();
        for (i, got) in run(&mut engine, &poisoned, &all).iter().enumerate() {
            if i % 4 == 0 {
                assert_eq!((got.finish, got.token_ids.len()), (Finish::NotFinite, 0), "{name}, {form:?}");
            } else {
                assert_same(got, &want[i], &format!("beside a sequence that is not finite: {name}, {form:?}"));
            }
        }
        // With good weights again, pages that hold NaN are as good as any.
        engine.publish();
        for (got, want) in run(&mut engine, &model, &all).iter().zip(&want) {
            assert_same(got, want, &format!("in pages that held NaN: {name}, {form:?}"));
        }
    }
}

#[test]
fn after_any_mixture_of_submit_cancel_and_step_all_pages_are_free() {
    let device = device(1, Isa::detect());
    let model = random(&device, &config("tiny-v3"));
    for round in 0..40u64 {
        let mut stream = draw(round, Domain::Data, &[]);
        let sizes = EngineConfig {
            pages: stream.between(9, 30) as usize,
            max_sequences: stream.between(1, 12) as usize,
            chunk_tokens: stream.between(1, 80) as usize,
            form: *stream.choose(&FORMS),
            prefix_cache: stream.chance(0.5),
        };
        let pages = sizes.pages;
        let mut engine = engine(&device, sizes);
        let (mut ids, mut ended) = (vec![], 0);
        for _ in 0..60 {
            match stream.below(4) {
                0 => {
                    let prompt: Vec<u32> = vec![stream.below(2) as u32; stream.between(1, 100) as usize];
                    let params = params(1.0, stream.bits(), stream.between(1, 40) as usize);
                    ids.extend(engine.submit(&prompt, &params, stream.between(1, 5) as usize).unwrap());
                }
                1 if !ids.is_empty() => engine.cancel(*stream.choose(&ids)),
                _ => drop(engine.step(&model).unwrap()),
            }
            ended += ids.iter().filter(|&&id| stream.chance(0.3) && engine.take(id).is_some()).count();
        }
        let rest = engine.run(&model).unwrap();
        assert_eq!((rest.len() + ended, engine.stats().pages_free), (ids.len(), pages), "round {round}");
    }
}

#[test]
#[should_panic(expected = "weights change between runs")]
fn weights_do_not_change_under_a_sequence() {
    let device = device(1, Isa::detect());
    let mut engine = engine(&device, spacious(MlaForm::Expanded));
    engine.submit(&[1], &params(1.0, 0, 5), 1).unwrap();
    engine.publish();
}
