//! Edge cases: bad requests are refused with the reason, every sequence ends, every page comes back.
#![allow(clippy::unwrap_used)]

mod common;

use common::{FORMS, KINDS, alone, assert_same, cases, config, device, params, random, run, spacious};
use minke_engine::{Engine, EngineConfig, Error, Finish, Replicas, SamplingParams};
use minke_model::{MlaForm, Transformer};
use minke_spec::draw::{Domain, draw};
use minke_tensor::{Device, Dtype, Isa};

fn engine(device: &Device, sizes: EngineConfig) -> Engine {
    Engine::new(device, &config("tiny-v3"), sizes).unwrap()
}

#[test]
fn bad_requests_are_refused() {
    let device = device(1, Isa::detect());
    let good = spacious(MlaForm::Absorbed);
    for (field, sizes) in [
        ("pages", good.clone().with_pages(0)),
        ("pages", good.clone().with_pages(usize::MAX)),
        ("max_sequences", good.clone().with_max_sequences(0)),
        ("chunk_tokens", good.clone().with_chunk_tokens(0)),
    ] {
        let error = Engine::new(&device, &config("tiny-v3"), sizes).err().unwrap().to_string();
        assert!(error.starts_with(&format!("{field} = ")), "{error}");
    }
    let mut engine = engine(&device, good.with_pages(3));
    let fine = params(1.0, 0, 5);
    let mut refuse =
        |prompt: &[u32], params: &SamplingParams, n| engine.submit(prompt, params, n).unwrap_err().to_string();
    assert!(refuse(&[], &fine, 1).contains("empty"));
    assert!(refuse(&[1], &fine, 0).starts_with("n = 0"));
    assert!(refuse(&[1; 96], &fine, 1).contains("96 tokens and the engine holds sequences of 96"));
    assert!(refuse(&[1; 1000], &fine, 1).contains("context of the model 256, cache 96"));
    assert!(refuse(&[1, 2, 199], &fine, 1).starts_with("token 199 at position 2"));
    assert!(refuse(&[1], &fine.clone().with_top_p(f32::NAN), 1).starts_with("top_p = NaN"));
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
        params: params(1.0, 3, max_tokens).with_stop_ids(stop_ids),
    };
    let free = alone(&device, &model, spacious(MlaForm::Expanded), &case(1000, vec![]));
    // The context of the model.
    assert_eq!((free.token_ids.len(), free.finish), (253, Finish::Length));
    let short = alone(&device, &model, spacious(MlaForm::Expanded), &case(7, vec![]));
    assert_eq!((&short.token_ids[..], short.finish), (&free.token_ids[..7], Finish::Length));
    let stop = free.token_ids[20];
    let at = free.token_ids.iter().position(|&id| id == stop).unwrap();
    let stopped = alone(&device, &model, spacious(MlaForm::Expanded), &case(1000, vec![198, stop]));
    let first = stopped.token_ids.iter().position(|&id| id == stop || id == 198).unwrap();
    assert_eq!(stopped.finish, Finish::Stop(stopped.token_ids[first]));
    assert!(first <= at && stopped.token_ids == free.token_ids[..=first]);
    let mut small = engine(&device, spacious(MlaForm::Expanded).with_pages(2));
    let cut = run(&mut small, &model, &[case(1000, vec![])]).remove(0);
    assert_eq!((&cut.token_ids[..], cut.finish), (&free.token_ids[..61], Finish::Length));
}

#[test]
fn events_tell_every_token_once() {
    let device = device(1, Isa::detect());
    let model = random(&device, &config("tiny-v3"));
    let mut engine = engine(&device, spacious(MlaForm::Expanded).with_pages(10));
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

/// The model with NaN as the embedding of one token.
fn poisoned(device: &Device, model: &Transformer, token: usize) -> Transformer {
    let mut poisoned = model.clone();
    let width = model.config().hidden_size;
    poisoned.params_mut()[0].update(device, |rows| rows[token * width..][..width].fill(f32::NAN));
    poisoned
}

#[test]
fn a_sequence_without_finite_logits_ends_and_leaves_no_trace() {
    let device = device(1, Isa::detect());
    for (name, form, dtype) in KINDS {
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
        let sizes = spacious(form).with_cache_dtype(dtype);
        let want: Vec<_> = all.iter().map(|case| alone(&device, &model, sizes.clone(), case)).collect();
        let sizes = sizes.with_pages(24).with_prefix_cache(true);
        let mut engine = Engine::new(&device, model.config(), sizes).unwrap();
        for (i, got) in run(&mut engine, &poisoned, &all).iter().enumerate() {
            if i % 4 == 0 {
                assert_eq!((got.finish, got.token_ids.len()), (Finish::NotFinite, 0), "{name}, {form:?}, {dtype:?}");
            } else {
                assert_same(
                    got,
                    &want[i],
                    &format!("beside a sequence that is not finite: {name}, {form:?}, {dtype:?}"),
                );
            }
        }
        // With good weights again, pages that hold NaN are as good as any.
        for (got, want) in run(&mut engine, &model, &all).iter().zip(&want) {
            assert_same(got, want, &format!("in pages that held NaN: {name}, {form:?}, {dtype:?}"));
        }
    }
}

#[test]
fn after_any_mixture_of_submit_cancel_and_step_all_pages_are_free() {
    let device = device(1, Isa::detect());
    let model = random(&device, &config("tiny-v3"));
    for round in 0..40u64 {
        let mut stream = draw(round, Domain::Data, &[]);
        let sizes = EngineConfig::default()
            .with_pages(stream.between(9, 30) as usize)
            .with_max_sequences(stream.between(1, 12) as usize)
            .with_chunk_tokens(stream.between(1, 80) as usize)
            .with_form(*stream.choose(&FORMS))
            .with_cache_dtype(*stream.choose(&[Dtype::F32, Dtype::Bf16]))
            .with_prefix_cache(stream.chance(0.5));
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
fn weights_do_not_change_under_a_sequence() {
    let device = device(1, Isa::detect());
    let model = random(&device, &config("tiny-v3"));
    let mut trained = model.clone();
    assert_eq!(model.id(), trained.id());
    trained.params_mut();
    assert_ne!(model.id(), trained.id());
    let mut balanced = model.clone();
    balanced.balance_experts(&device, &[], 0.0);
    assert_ne!(model.id(), balanced.id());

    let mut engine = engine(&device, spacious(MlaForm::Expanded));
    let begun = engine.submit(&[1; 40], &params(1.0, 0, 5), 1).unwrap()[0];
    engine.step(&model).unwrap();
    // A clone is the same model.
    engine.step(&model.clone()).unwrap();
    assert!(matches!(engine.step(&trained), Err(Error::WeightsChanged)));
    engine.step(&model).unwrap();
    engine.cancel(begun);
    // What waits has nothing from the old weights yet.
    engine.submit(&[1; 40], &params(1.0, 0, 5), 1).unwrap();
    engine.step(&trained).unwrap();
    assert!(matches!(engine.step(&model), Err(Error::WeightsChanged)));
    assert_eq!(engine.run(&trained).unwrap().len(), 2);
}

#[test]
fn a_full_queue_refuses_groups_and_takes_them_when_others_have_ended() {
    let device = device(1, Isa::detect());
    let model = random(&device, &config("tiny-v3"));
    let sizes = spacious(MlaForm::Expanded).with_max_sequences(2).with_max_waiting(3);
    let mut engine = engine(&device, sizes.clone());
    let params = params(1.0, 0, 3);
    assert!(matches!(engine.submit(&[1], &params, 6), Err(Error::QueueFull { unfinished: 0, n: 6, limit: 5 })));
    assert!(engine.is_idle());
    engine.submit(&[1], &params, 4).unwrap();
    assert!(matches!(engine.submit(&[1], &params, 2), Err(Error::QueueFull { unfinished: 4, n: 2, limit: 5 })));
    let last = engine.submit(&[1], &params, 1).unwrap()[0];
    assert!(engine.submit(&[1], &params, 1).is_err());
    engine.cancel(last);
    engine.submit(&[1], &params, 1).unwrap();
    assert_eq!(engine.run(&model).unwrap().len(), 6);
    engine.submit(&[1], &params, 5).unwrap();

    let mut replicas = Replicas::new(&device, &config("tiny-v3"), &sizes).unwrap();
    for _ in 0..2 {
        replicas.submit(&[1], &params, 5).unwrap();
        assert!(matches!(replicas.submit(&[1], &params, 1), Err(Error::QueueFull { unfinished: 5, n: 1, limit: 5 })));
        assert_eq!(replicas.run(&model, |_| ()).unwrap().len(), 5);
    }
}

#[test]
fn counts_tell_what_was_found_computed_and_generated() {
    let device = device(1, Isa::detect());
    let model = random(&device, &config("tiny-v3"));
    let sizes = spacious(MlaForm::Expanded).with_chunk_tokens(40).with_prefix_cache(true);
    let mut engine = engine(&device, sizes);
    let prompt: Vec<u32> = (0..100).collect();
    let id = engine.submit(&prompt, &params(1.0, 0, 5), 1).unwrap()[0];
    let of = |engine: &Engine, id| {
        let counts = engine.counts(id).unwrap();
        (counts.prompt, counts.cached, counts.prefilled, counts.generated)
    };
    assert_eq!(of(&engine, id), (100, 0, 0, 0));
    let mut seen = vec![];
    while !engine.is_idle() {
        engine.step(&model).unwrap();
        seen.push(of(&engine, id));
    }
    assert_eq!(seen[..3], [(100, 0, 40, 0), (100, 0, 80, 0), (100, 0, 100, 1)]);
    assert_eq!(seen[6], (100, 0, 100, 5));
    let completion = engine.take(id).unwrap();
    assert_eq!((completion.counts.prefilled, completion.counts.generated), (100, 5));
    assert_eq!(engine.counts(id), None);

    // The same beginning again, beside a neighbour whose work is not counted here: three pages are found. The second
    // member of the group finds everything.
    engine.submit(&[7; 70], &params(1.0, 0, 9), 1).unwrap();
    let ids = engine.submit(&[&prompt[..], &[9, 9]].concat(), &params(1.0, 1, 5), 2).unwrap();
    let all = engine.run(&model).unwrap();
    let counts = |id| all.iter().find(|completion| completion.id == id).unwrap().counts;
    assert_eq!((counts(ids[0]).prompt, counts(ids[0]).cached, counts(ids[0]).prefilled), (102, 96, 6));
    assert_eq!((counts(ids[1]).prompt, counts(ids[1]).cached, counts(ids[1]).prefilled), (102, 102, 0));
}
