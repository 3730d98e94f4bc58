use super::*;
use crate::Isa;
use crate::ops::pointwise::{scale, sigmoid};
use crate::ops::rows::gather_rows;
use crate::ops::testing::*;
use serde_json::Value;

const ROUTINGS: [(usize, usize, usize, usize); 6] =
    [(16, 4, 2, 4), (256, 8, 4, 8), (8, 1, 1, 2), (6, 6, 3, 3), (5, 1, 1, 5), (12, 3, 1, 0)];

fn routing((experts, groups, kept_groups, per_token): (usize, usize, usize, usize)) -> Routing {
    Routing { experts, groups, kept_groups, per_token, group_score: GroupScore::TwoBest }
}

fn selected(device: &Device, scores: &[f32], bias: &[f32], routing: &Routing) -> Vec<u32> {
    let mut indices = vec![u32::MAX; scores.len() / routing.experts * routing.per_token];
    select(device, view(scores), Some(view(bias)), routing, view_mut(&mut indices));
    indices
}

/// (offsets, token_of, slot_of).
fn planned(indices: &[u32], per_token: usize, experts: usize) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let on = |device: &Device| {
        let bad = |len| vec![u32::MAX; len];
        let (mut offsets, mut token_of, mut slot_of) = (bad(experts + 1), bad(indices.len()), bad(indices.len()));
        let to = (view_mut(&mut offsets), view_mut(&mut token_of), view_mut(&mut slot_of));
        plan(device, view(indices), per_token, to.0, to.1, to.2);
        (offsets, token_of, slot_of)
    };
    let found = on(&Device::reference());
    assert_eq!(on(&path(1, Isa::detect())), found);
    found
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn published_routing_is_reproduced() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../../../../testdata/vectors/gate_routing.json")).unwrap();
    let tiny = &vectors["tiny"];
    let zero = vec![0.0; 16];
    // In the tiny case the bias changes the kept groups from {0, 1} to {1, 2}.
    let cases = [
        (&vectors["config"], &vectors["logits"], floats(&vectors["bias"]), &vectors["expected"]),
        (&tiny["config"], &tiny["logits"], zero, &tiny["bias_zero"]),
        (&tiny["config"], &tiny["logits"], floats(&tiny["bias"]), &tiny["with_bias"]),
    ];
    for (config, logits, bias, expected) in cases {
        let number = |name: &str| config[name].as_u64().unwrap() as usize;
        let routing = Routing {
            experts: number("n_routed_experts"),
            groups: number("n_group"),
            kept_groups: number("topk_group"),
            per_token: number("num_experts_per_tok"),
            group_score: GroupScore::TwoBest,
        };
        let bias: Vec<f32> = bias.iter().map(|&b| b as f32).collect();
        let factor = config["routed_scaling_factor"].as_f64().unwrap() as f32;
        let logits: Vec<f32> = logits.as_array().unwrap().iter().flat_map(floats).map(|l| l as f32).collect();
        let k = routing.per_token;
        let run = |device: &Device| {
            let mut scores = unwritten(logits.len());
            sigmoid(device, view(&logits), view_mut(&mut scores));
            let indices = selected(device, &scores, &bias, &routing);
            let (mut picked, mut weights) = (unwritten(indices.len()), unwritten(indices.len()));
            pick_columns(device, view(&scores), routing.experts, view(&indices), k, view_mut(&mut picked));
            normalize_rows(device, view(&picked), k, 1e-20, view_mut(&mut weights));
            scale(device, view(&weights), factor, view_mut(&mut picked));
            vec![indices.iter().map(|&e| e as f32).collect(), picked, scores]
        };
        on_every_path(run, |out, path| {
            let expected = expected.as_array().unwrap();
            assert_eq!(out[0].len(), expected.len() * k);
            for (t, expected) in expected.iter().enumerate() {
                assert_eq!(wide(&out[0][t * k..][..k]), floats(&expected["experts_by_biased_score"]), "{path} {t}");
                let weights = &out[1][t * k..][..k];
                close(weights, &floats(&expected["weights"]), 1e-6, path);
                assert!((weights.iter().sum::<f32>() - 2.5).abs() < 1e-6);
                let scores = &out[2][t * routing.experts..][..routing.experts];
                let groups = reference::group_scores(scores, &bias, &routing);
                close(&groups, &floats(&expected["group_scores"]), 1e-6, path);
            }
        });
    }
}

#[test]
fn selection_agrees_with_sorting_even_with_ties_and_without_numbers() {
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0];
    for case in ROUTINGS {
        for (tokens, group_score) in
            [0, 1, 300].into_iter().flat_map(|n| [(n, GroupScore::TwoBest), (n, GroupScore::Best)])
        {
            let routing = Routing { group_score, ..routing(case) };
            let experts = routing.experts;
            let mut scores = random(1, tokens * experts);
            // Rounded scores tie often; every third token has odd values; two tokens have nothing else.
            for (i, s) in scores.iter_mut().enumerate() {
                *s = match i / experts % 12 {
                    0..4 => (*s * 2.0).round() / 2.0,
                    4..8 if i % 3 == 0 => odd[i % 5],
                    8 => f32::NAN,
                    9 => f32::NEG_INFINITY,
                    _ => *s,
                };
            }
            let bias: Vec<f32> = random(2, experts).iter().map(|b| (b * 2.0).round() / 4.0).collect();
            let want: Vec<u32> =
                scores.chunks(experts).flat_map(|scores| reference::select(scores, &bias, &routing)).collect();
            for device in devices([1, 2, 3]) {
                assert_eq!(selected(&device, &scores, &bias, &routing), want, "{case:?} {device:?}");
            }
        }
    }
}

#[test]
fn a_discarded_group_is_never_chosen_even_if_the_kept_are_negative() {
    // Group 1 has the larger sum of two, all of it negative, against one good expert in group 0.
    let routing = routing((6, 2, 1, 3));
    let scores = [0.9, -5.0, -5.0, -0.1, -0.2, -0.3];
    let got = selected(&path(1, Isa::detect()), &scores, &[0.0; 6], &routing);
    assert_eq!(got, [3, 4, 5]);
}

#[test]
fn slots_are_sorted_by_expert_then_token() {
    for (tokens, per_token, experts) in [(0, 2, 3), (1, 1, 1), (7, 3, 5), (100, 8, 64), (5, 0, 4)] {
        let indices = random_ids(3, tokens * per_token, experts);
        let (offsets, token_of, slot_of) = planned(&indices, per_token, experts);
        for (slot, pair) in token_of.iter().enumerate() {
            let of_token = &slot_of[*pair as usize * per_token..][..per_token];
            assert!(of_token.contains(&(slot as u32)));
            let expert = |slot: usize| offsets.iter().filter(|&&first| first as usize <= slot).count();
            // Sorted by expert, tokens of an expert in order.
            assert!(slot == 0 || expert(slot - 1) < expert(slot) || token_of[slot - 1] <= *pair);
        }
        assert_eq!((offsets[0], offsets[experts] as usize), (0, indices.len()));
        for e in 0..experts {
            let count = indices.iter().filter(|&&i| i as usize == e).count() as u32;
            assert_eq!(offsets[e + 1] - offsets[e], count);
        }
    }
}

#[test]
fn experts_outputs_come_back_on_every_path() {
    for (tokens, per_token, experts, width) in [(0, 2, 3, 4), (1, 1, 1, 1), (5, 3, 4, 17), (90, 4, 16, 140)] {
        let indices = random_ids(4, tokens * per_token, experts);
        let (_, token_of, slot_of) = planned(&indices, per_token, experts);
        let slots = indices.len();
        let (x, ys, dxs) = (random(5, tokens * width), random(6, slots * width), random(7, slots * width));
        let (weights, dy) = (random(8, slots), random(9, tokens * width));
        let run = |device: &Device| {
            let (mut xs, mut dx) = (unwritten(slots * width), unwritten(tokens * width));
            gather_rows(device, view(&x), width, view(&token_of), view_mut(&mut xs));
            gather_backward(device, view(&dxs), view(&slot_of), per_token, width, view_mut(&mut dx));
            let (mut y, mut dys, mut dweights) = (dx.clone(), unwritten(slots * width), unwritten(slots));
            combine(device, view(&ys), view(&weights), view(&slot_of), width, view_mut(&mut y));
            combine_backward(
                device,
                view(&ys),
                view(&weights),
                view(&slot_of),
                view(&dy),
                width,
                view_mut(&mut dys),
                view_mut(&mut dweights),
            );
            vec![xs, dx, y, dys, dweights]
        };
        on_every_path(run, |out, path| {
            let (ys, weights, dy) = (wide(&ys), wide(&weights), wide(&dy));
            let (dys, dweights) = reference::combine_backward(&ys, &weights, &slot_of, per_token, &dy, width);
            let xs: Vec<f64> = token_of.iter().flat_map(|&t| wide(&x[t as usize * width..][..width])).collect();
            close(&out[0], &xs, 0.0, path);
            close(&out[1], &reference::gather_backward(&wide(&dxs), &slot_of, per_token, width), 1e-6, path);
            close(&out[2], &reference::combine(&ys, &weights, &slot_of, per_token, width), 1e-6, path);
            close(&out[3], &dys, 1e-7, path);
            close(&out[4], &dweights, 3e-6, path);
        });
    }
}

#[test]
fn a_token_has_the_same_bits_alone_and_in_any_batch() {
    for isa in Isa::available() {
        let (device, per_token, experts, width, tokens) = (path(2, isa), 4, 16, 90, 120);
        let indices = random_ids(10, tokens * per_token, experts);
        let (_, _, slot_of) = planned(&indices, per_token, experts);
        let (ys, weights) = (random(11, indices.len() * width), random(12, indices.len()));
        let mut whole = unwritten(tokens * width);
        combine(&device, view(&ys), view(&weights), view(&slot_of), width, view_mut(&mut whole));
        for t in [0, 1, 57, 119] {
            let at = t * per_token..(t + 1) * per_token;
            let (_, _, alone) = planned(&indices[at.clone()], per_token, experts);
            let mut own = unwritten(per_token * width);
            for (&to, &from) in alone.iter().zip(&slot_of[at.clone()]) {
                own[to as usize * width..][..width].copy_from_slice(&ys[from as usize * width..][..width]);
            }
            let mut y = unwritten(width);
            combine(&device, view(&own), view(&weights[at]), view(&alone), width, view_mut(&mut y));
            assert_eq!(bits(&y), bits(&whole[t * width..][..width]), "{}", isa.name());
        }
    }
}

#[test]
fn picking_and_normalizing_agree_with_the_reference() {
    for (tokens, experts, per_token) in [(0, 4, 2), (1, 1, 1), (9, 16, 4), (700, 64, 6)] {
        let mut scores = random(13, tokens * experts);
        scores.iter_mut().for_each(|s| *s = s.abs() + 0.1);
        let indices: Vec<u32> = (0..tokens * per_token).map(|i| (i * 7 % experts) as u32).collect();
        let dy = random(14, tokens * per_token);
        // Beyond e^88, what f32 holds.
        let logits: Vec<f32> = random(15, tokens * experts).iter().map(|x| 40.0 * x + 100.0).collect();
        let run = |device: &Device| {
            let n = indices.len();
            let (mut picked, mut weights, mut dpicked) = (unwritten(n), unwritten(n), unwritten(n));
            let mut dscores = unwritten(tokens * experts);
            pick_columns(device, view(&scores), experts, view(&indices), per_token, view_mut(&mut picked));
            normalize_rows(device, view(&picked), per_token, 1e-20, view_mut(&mut weights));
            normalize_rows_backward(device, view(&picked), per_token, 1e-20, view(&dy), view_mut(&mut dpicked));
            pick_columns_backward(device, view(&dpicked), view(&indices), per_token, experts, view_mut(&mut dscores));
            let (mut softmax, mut dlogits) = (unwritten(tokens * experts), unwritten(tokens * experts));
            softmax_rows(device, view(&logits), experts, view_mut(&mut softmax));
            softmax_rows_backward(device, view(&softmax), experts, view(&scores), view_mut(&mut dlogits));
            vec![picked, weights, dpicked, dscores, softmax, dlogits]
        };
        on_every_path(run, |out, path| {
            let picked = reference::pick_columns(&wide(&scores), experts, &indices, per_token);
            let dpicked = reference::normalize_rows_backward(&picked, per_token, 1e-20, &wide(&dy));
            close(&out[0], &picked, 0.0, path);
            close(&out[1], &reference::normalize_rows(&picked, per_token, 1e-20), 3e-7, path);
            close(&out[2], &dpicked, 2e-6, path);
            close(&out[3], &reference::pick_columns_backward(&dpicked, &indices, per_token, experts), 2e-6, path);
            let softmax = reference::softmax_rows(&wide(&logits), experts);
            close(&out[4], &softmax, 1e-6, path);
            close(&out[5], &reference::softmax_rows_backward(&softmax, experts, &wide(&scores)), 2e-6, path);
        });
    }
}

#[test]
fn the_reference_backwards_are_derivatives() {
    let (tokens, per_token, experts, width) = (3, 2, 4, 3);
    let indices = [1, 3, 0, 1, 2, 3];
    let (_, token_of, slot_of) = planned(&indices, per_token, experts);
    let (ys, weights, dy) = (wide(&random(15, 18)), wide(&random(16, 6)), wide(&random(17, 9)));
    let (dys, dweights) = reference::combine_backward(&ys, &weights, &slot_of, per_token, &dy, width);
    is_derivative(&dys, &ys, &dy, |ys| reference::combine(ys, &weights, &slot_of, per_token, width));
    is_derivative(&dweights, &weights, &dy, |w| reference::combine(&ys, w, &slot_of, per_token, width));
    let (x, dxs) = (wide(&random(18, tokens * width)), wide(&random(19, 18)));
    let dx = reference::gather_backward(&dxs, &slot_of, per_token, width);
    is_derivative(&dx, &x, &dxs, |x| crate::ops::rows::reference::gather_rows(x, width, &token_of));
    let (scores, dy) = (wide(&random(20, tokens * experts)), wide(&random(21, 6)));
    let dscores = reference::pick_columns_backward(&dy, &indices, per_token, experts);
    is_derivative(&dscores, &scores, &dy, |s| reference::pick_columns(s, experts, &indices, per_token));
    let x: Vec<f64> = wide(&random(22, 6)).iter().map(|v| v.abs() + 0.2).collect();
    let dx = reference::normalize_rows_backward(&x, 3, 0.1, &dy);
    is_derivative(&dx, &x, &dy, |x| reference::normalize_rows(x, 3, 0.1));
    let dx = reference::softmax_rows_backward(&reference::softmax_rows(&x, 3), 3, &dy);
    is_derivative(&dx, &x, &dy, |x| reference::softmax_rows(x, 3));
}
