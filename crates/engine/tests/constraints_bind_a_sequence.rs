//! Constraints, bias, penalties and reported alternatives of a sequence, alone and in batches, against plain loops over
//! logits of a forward without a cache.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Mutex};

use common::{Case, KINDS, alone, assert_same, cases, config, device, params, random, run, spacious};
use minke_engine::{Completion, Constraint, Engine, Error, Finish, Mask, Replicas};
use minke_model::{Batch, MlaForm, Transformer};
use minke_spec::draw::{Domain, draw};
use minke_tensor::{Device, Indices, Isa, Pass};
use proptest::prelude::*;

/// Whether a constraint with this key allows a token after these ids: one in `key % 5 + 1` of all, others each time.
fn allowed(key: u64, ids: &[u32], token_id: u32) -> bool {
    let last = u64::from(ids.last().copied().unwrap_or(0));
    (u64::from(token_id) * 7 + key * 13 + ids.len() as u64 * 3 + last).is_multiple_of(key % 5 + 1)
}

fn constraint(key: u64) -> Constraint {
    Constraint::new(move |ids, mask| {
        for token_id in 0..mask.vocab_size() as u32 {
            assert!(mask.allows(token_id), "a mask begins full");
            if !allowed(key, ids, token_id) {
                mask.forbid(token_id);
            }
        }
    })
}

/// Cases of which most have a constraint, a bias, penalties and alternatives.
fn constrained(count: usize, vocab_size: usize) -> Vec<Case> {
    let mut cases = cases(count, vocab_size);
    for (key, case) in cases.iter_mut().enumerate() {
        let mut stream = draw(79, Domain::Data, &[key as u64]);
        let params = std::mem::take(&mut case.params);
        let bias = (0..stream.below(4)).map(|_| (stream.below(vocab_size as u64) as u32, stream.normal() as f32 * 3.0));
        let mut params = params.with_logit_bias(bias.collect::<Vec<_>>());
        if stream.chance(0.5) {
            params = params.with_repetition_penalty(1.3).with_presence_penalty(0.5).with_frequency_penalty(-0.2);
        }
        params = params.with_top_log_probs(stream.below(4) as usize);
        case.params = if key % 3 > 0 { params.with_constraint(constraint(key as u64)) } else { params };
    }
    cases
}

fn assert_obeyed(cases: &[Case], completions: &[Completion]) {
    for (key, (case, completion)) in cases.iter().zip(completions).enumerate() {
        assert!(!completion.token_ids.is_empty());
        for (i, &token_id) in completion.token_ids.iter().enumerate().filter(|_| case.params.constraint.is_some()) {
            assert!(allowed(key as u64, &completion.token_ids[..i], token_id), "token {i} of case {key}");
        }
    }
}

#[test]
fn constrained_sequences_are_the_same_alone_and_in_any_batch_and_say_only_what_they_may() {
    for (name, form, dtype) in KINDS {
        let one = device(1, Isa::detect());
        let model = random(&one, &config(name));
        let cases = constrained(40, model.config().vocab_size);
        let roomy = spacious(form).with_cache_dtype(dtype);
        let want: Vec<Completion> = cases.iter().map(|case| alone(&one, &model, roomy.clone(), case)).collect();
        assert_obeyed(&cases, &want);
        let few_pages = roomy.clone().with_pages(9).with_prefix_cache(true);
        for (threads, sizes) in [(1, roomy.clone()), (3, roomy.clone().with_max_sequences(7)), (1, few_pages)] {
            let device = device(threads, Isa::detect());
            let mut engine = Engine::new(&device, model.config(), sizes.clone()).unwrap();
            let got = run(&mut engine, &model, &cases);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                assert_same(got, want, &format!("of constrained case {i}, {sizes:?}, {name}"));
                assert_eq!(got.top_log_probs, want.top_log_probs);
            }
            assert_eq!(engine.stats().preemptions > 0, sizes.pages == 9);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_choice_of_neighbours_and_sizes_changes_nothing(
        picks in prop::collection::vec(0..12usize, 1..12),
        pages in 9..40usize,
        chunk_tokens in 1..80usize,
        max_sequences in 1..8usize,
        prefix_cache: bool,
    ) {
        let device = device(1, Isa::detect());
        let model = random(&device, &config("tiny-qwen2"));
        let cases = constrained(12, model.config().vocab_size);
        let picked: Vec<Case> = picks.iter().map(|&i| cases[i].clone()).collect();
        let sizes = spacious(MlaForm::Expanded).with_pages(pages).with_max_sequences(max_sequences);
        let sizes = sizes.with_chunk_tokens(chunk_tokens).with_prefix_cache(prefix_cache);
        let mut engine = Engine::new(&device, model.config(), sizes).unwrap();
        let got = run(&mut engine, &model, &picked);
        for (i, got) in picks.iter().zip(&got) {
            assert_same(got, &alone(&device, &model, spacious(MlaForm::Expanded), &cases[*i]), &format!("of case {i}"));
        }
        prop_assert_eq!(engine.stats().pages_free, pages);
    }
}

/// Logits after these tokens, by a forward over all of them.
fn logits(device: &Device, model: &Transformer, tokens: &[u32]) -> minke_tensor::Tensor {
    let pass = Pass::inference(device);
    let hidden = model.forward(pass, &Batch::packed(device, &[tokens]), None, false).unwrap().hidden;
    let last = hidden.gather_rows(pass, &Indices::from_slice(device, &[tokens.len() as u32 - 1])).unwrap();
    model.logits(pass, &last).unwrap()
}

#[test]
fn forced_ids_are_said_with_the_log_probability_of_the_model() {
    let device = device(1, Isa::detect());
    let model = random(&device, &config("tiny-v3"));
    let forced = [7, 150, 7, 3, 198, 0];
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&calls);
    let force = Constraint::new(move |ids, mask| {
        seen.lock().unwrap().push(ids.to_vec());
        mask.force(forced[ids.len()]);
    });
    for temperature in [0.0, 0.7] {
        calls.lock().unwrap().clear();
        let params = params(temperature, 4, 6).with_constraint(force.clone()).with_top_p(0.5).with_top_k(2);
        let case =
            Case { prompt: vec![9; 40], params: params.with_logit_bias([(150, f32::NEG_INFINITY), (150, -9.0)]) };
        let got = alone(&device, &model, spacious(MlaForm::Expanded), &case);
        assert_eq!((&got.token_ids[..], got.finish), (&forced[..], Finish::Length));
        // Once for each token, with the ids generated before it.
        assert_eq!(*calls.lock().unwrap(), (0..6).map(|i| forced[..i].to_vec()).collect::<Vec<_>>());
        let inverse = case.params.inverse_temperature();
        for (i, &token_id) in forced.iter().enumerate() {
            let logits = logits(&device, &model, &[&case.prompt[..], &forced[..i]].concat());
            let target = Indices::from_slice(&device, &[token_id]);
            let model_says = logits.log_prob_rows(Pass::inference(&device), &target, inverse).unwrap();
            assert_eq!(got.log_probs[i].to_bits(), model_says.log_prob.item().to_bits());
            assert_eq!(got.entropies[i].to_bits(), model_says.entropy.item().to_bits());
        }
    }
}

#[test]
fn a_constraint_that_allows_nothing_ends_its_sequence_by_name_and_spares_others() {
    let device = device(1, Isa::detect());
    let model = random(&device, &config("tiny-v3"));
    let mut cases = cases(9, model.config().vocab_size);
    let want: Vec<Completion> =
        cases.iter().map(|case| alone(&device, &model, spacious(MlaForm::Expanded), case)).collect();
    type Function = fn(&[u32], &mut Mask<'_>);
    let ends: [Function; 3] = [
        |ids, mask| {
            if ids.len() == 2 {
                mask.forbid_all()
            }
        },
        |_, mask| mask.force(5000),
        |ids, mask| {
            if ids.len() == 1 {
                mask.words_mut().fill(0)
            }
        },
    ];
    for (i, end) in ends.into_iter().enumerate() {
        cases[i * 3].params = params(1.0, 5, 30).with_constraint(Constraint::new(end));
    }
    let everything = (0..model.config().vocab_size as u32).map(|id| (id, f32::NEG_INFINITY));
    cases[1].params = params(0.0, 5, 30).with_logit_bias(everything);
    let sizes = spacious(MlaForm::Expanded);
    let mut engine = Engine::new(&device, model.config(), sizes.clone()).unwrap();
    let mut replicas = Replicas::new(&device, model.config(), &sizes).unwrap();
    cases.iter().for_each(|case| replicas.submit(&case.prompt, &case.params, 1).unwrap());
    for got in [run(&mut engine, &model, &cases), replicas.run(&model, |_| ()).unwrap()] {
        for (i, got) in got.iter().enumerate() {
            match [Some(2), Some(0), None, Some(0), None, None, Some(1), None, None][i] {
                Some(tokens) => assert_eq!((got.token_ids.len(), got.finish), (tokens, Finish::NothingAllowed), "{i}"),
                None => assert_same(got, &want[i], &format!("beside sequences that may say nothing: case {i}")),
            }
        }
    }
    assert_eq!(engine.stats().pages_free, sizes.pages);
}

#[test]
fn biased_and_penalized_tokens_are_those_of_plain_loops() {
    let device = device(1, Isa::detect());
    for name in ["tiny-v3", "tiny-llama"] {
        let model = random(&device, &config(name));
        let prompt: Vec<u32> = (0..30).map(|i| i * i % 90).collect();
        let plain = alone(
            &device,
            &model,
            spacious(MlaForm::Expanded),
            &Case { prompt: prompt.clone(), params: params(0.0, 0, 40) },
        );
        let bias = [(plain.token_ids[0], f32::NEG_INFINITY), (plain.token_ids[1], -1.0), (11, 2.0)];
        let mut different = 0;
        for (repetition, presence, frequency) in
            [(1.0, 0.0, 0.0), (1.5, 0.0, 0.0), (1.0, 1.5, 0.0), (1.0, 0.0, 0.7), (0.8, -0.5, 1.0)]
        {
            let params = params(0.0, 0, 40).with_logit_bias(bias).with_repetition_penalty(repetition);
            let params = params.with_presence_penalty(presence).with_frequency_penalty(frequency);
            let got = alone(&device, &model, spacious(MlaForm::Expanded), &Case { prompt: prompt.clone(), params });
            let mut tokens = prompt.clone();
            for (i, &token_id) in got.token_ids.iter().enumerate() {
                let mut scores = logits(&device, &model, &tokens).read();
                bias.iter().for_each(|&(id, bias)| scores[id as usize] += bias);
                let repeated: std::collections::BTreeSet<u32> = tokens.iter().copied().collect();
                for id in repeated {
                    let score = &mut scores[id as usize];
                    *score = if *score < 0.0 { *score * repetition } else { *score / repetition };
                    let count = tokens[prompt.len()..].iter().filter(|&&token| token == id).count();
                    *score -= count as f32 * frequency + if count > 0 { presence } else { 0.0 };
                }
                let best = (0..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best });
                assert_eq!(token_id, best as u32, "token {i}: {name}, {repetition}, {presence}, {frequency}");
                tokens.push(token_id);
            }
            assert!(!got.token_ids.contains(&plain.token_ids[0]));
            different += usize::from(got.token_ids != plain.token_ids);
        }
        assert_eq!(different, 5);
    }
}

#[test]
fn alternatives_are_the_most_likely_tokens_under_the_softmax_of_the_token() {
    let device = device(1, Isa::detect());
    let model = random(&device, &config("tiny-v3"));
    let vocab_size = model.config().vocab_size;
    for (temperature, asked) in [(0.0, 3), (0.6, 20), (1.0, 10_000)] {
        let params = params(temperature, 8, 12).with_top_log_probs(asked).with_logit_bias([(3, 5.0)]);
        let mut engine = Engine::new(&device, model.config(), spacious(MlaForm::Expanded)).unwrap();
        let id = engine.submit(&[4; 20], &params, 1).unwrap()[0];
        // A neighbour without alternatives gets none.
        let other = engine.submit(&[5; 20], &common::params(1.0, 2, 12), 1).unwrap()[0];
        let mut told = vec![];
        while !engine.is_idle() {
            for token in engine.step(&model).unwrap() {
                if token.sequence == id {
                    told.push(token);
                } else {
                    assert!(token.top_log_probs.is_empty());
                }
            }
        }
        let (got, other) = (engine.take(id).unwrap(), engine.take(other).unwrap());
        assert!(other.top_log_probs.is_empty());
        assert_eq!((got.top_log_probs.len(), told.len()), (12, 12));
        for (i, (alternatives, token)) in got.top_log_probs.iter().zip(&told).enumerate() {
            assert_eq!((alternatives, token.log_prob.to_bits()), (&token.top_log_probs, got.log_probs[i].to_bits()));
            assert_eq!(alternatives.len(), asked.min(vocab_size));
            assert!(alternatives.is_sorted_by(|a, b| a.log_prob >= b.log_prob));
            // Where the token is among them, with the very bits.
            for alternative in alternatives.iter().filter(|alternative| alternative.token_id == token.token_id) {
                assert_eq!(alternative.log_prob.to_bits(), token.log_prob.to_bits());
            }
            if asked >= vocab_size {
                let sum: f64 = alternatives.iter().map(|a| f64::from(a.log_prob).exp()).sum();
                assert!((sum - 1.0).abs() < 1e-5, "{sum}");
            }
        }
    }
}

#[test]
fn bias_and_penalties_out_of_range_are_refused_by_name() {
    let device = device(1, Isa::detect());
    let mut engine = Engine::new(&device, &config("tiny-v3"), spacious(MlaForm::Expanded)).unwrap();
    let fine = || params(1.0, 0, 5);
    for (field, bad) in [
        ("repetition_penalty", fine().with_repetition_penalty(0.0)),
        ("repetition_penalty", fine().with_repetition_penalty(f32::NAN)),
        ("presence_penalty", fine().with_presence_penalty(2.5)),
        ("frequency_penalty", fine().with_frequency_penalty(f32::NAN)),
        ("logit_bias", fine().with_logit_bias([(1, f32::NAN)])),
        ("logit_bias", fine().with_logit_bias([(1, f32::INFINITY)])),
        ("logit_bias", fine().with_logit_bias([(199, 1.0)])),
    ] {
        match engine.submit(&[1], &bad, 1) {
            Err(Error::Setting { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    engine.submit(&[1], &fine().with_logit_bias([(1, f32::NEG_INFINITY), (198, 1.0)]), 1).unwrap();
}
