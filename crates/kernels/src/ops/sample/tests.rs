use std::collections::BTreeSet;
use std::ops::Range;

use minke_spec::draw::{Domain, draw};

use super::cpu::{filter, rank};
use super::*;
use crate::Isa;
use crate::ops::log_prob::{RowOutputs, log_prob_rows};
use crate::ops::testing::{cpu, devices, path, view, view_mut};

/// Everything that one call writes.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    token_ids: Vec<u32>,
    log_prob: Vec<f32>,
    entropy: Vec<f32>,
    alternative_ids: Vec<u32>,
    alternative_log_probs: Vec<f32>,
}

fn run(device: &Device, logits: &[f32], sampling: &SampleRows<'_>) -> Found {
    let rows = sampling.rows.len();
    let width = sampling.rows.iter().map(|row| row.alternatives).max().unwrap_or(0);
    let (token_ids, log_prob, entropy) = (vec![7; rows], vec![7.0; rows], vec![7.0; rows]);
    let (alternative_ids, alternative_log_probs) = (vec![0; rows * width], vec![0.0; rows * width]);
    let mut found = Found { token_ids, log_prob, entropy, alternative_ids, alternative_log_probs };
    let sampled = SampleOutputs {
        token_ids: view_mut(&mut found.token_ids),
        log_prob: view_mut(&mut found.log_prob),
        entropy: view_mut(&mut found.entropy),
        alternative_ids: view_mut(&mut found.alternative_ids),
        alternative_log_probs: view_mut(&mut found.alternative_log_probs),
    };
    sample(device, view(logits), sampling, sampled);
    found
}

fn plain() -> SampleRow {
    row(1.0, 0, 1.0, 0.0)
}

fn row(temperature: f32, top_k: usize, top_p: f32, min_p: f32) -> SampleRow {
    SampleRow {
        temperature,
        log_prob_temperature: temperature,
        top_k,
        top_p,
        min_p,
        uniform: 0.0,
        edits: 0..0,
        mask: None,
        alternatives: 0,
    }
}

/// The draw for one position of a sequence.
fn uniform(position: usize) -> f64 {
    draw(11, Domain::Token, &[position as u64]).uniform()
}

fn one(logits: &[f32], row: &SampleRow, uniform: f64) -> u32 {
    let row = SampleRow { uniform, ..row.clone() };
    run(&path(1, Isa::detect()), logits, &SampleRows { rows: &[row], edits: &[], masks: &[] }).token_ids[0]
}

fn mask(vocab_size: usize, allowed: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let mut words = vec![0; vocab_size.div_ceil(32)];
    allowed.into_iter().for_each(|id| words[id as usize / 32] |= 1 << (id % 32));
    words
}

fn edit(token_id: u32, bias: f32, repetition: f32, subtract: f32) -> Edit {
    Edit { token_id, bias, repetition, subtract }
}

#[test]
fn frequencies_are_those_of_the_filtered_distribution() {
    // Ids are not in order of probability, so that an order by id and one by rank differ.
    let logits: Vec<f32> = [0.2f32, 0.4, 0.1, 0.3].iter().map(|p| p.ln() + 3.0).collect();
    let half = 0.5f32.ln();
    let edits = [edit(1, half, 1.0, 0.0), edit(3, f32::NEG_INFINITY, 2.0, -4.0)];
    let masks = [mask(4, [0, 2, 3]), mask(4, [2])].concat();
    let edited = |edits: Range<usize>, mask| SampleRow { edits, mask, ..plain() };
    let cases = [
        (row(1.0, 0, 1.0, 0.0), [0.2, 0.4, 0.1, 0.3]),
        (row(0.5, 0, 1.0, 0.0), [4.0 / 30.0, 16.0 / 30.0, 1.0 / 30.0, 9.0 / 30.0]),
        (row(1.0, 2, 1.0, 0.0), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
        (row(1.0, 0, 0.69, 0.0), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
        (row(1.0, 0, 0.71, 0.0), [2.0 / 9.0, 4.0 / 9.0, 0.0, 3.0 / 9.0]),
        (row(1.0, 0, 1.0, 0.49), [2.0 / 9.0, 4.0 / 9.0, 0.0, 3.0 / 9.0]),
        // `top_p` looks at what `top_k` left: 7 of 9 parts suffice for 0.75, of 10 they would not.
        (row(1.0, 3, 0.75, 0.0), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
        // `top_p` looks at probabilities after the temperature.
        (row(0.5, 0, 0.5, 0.0), [0.0, 1.0, 0.0, 0.0]),
        // `min_p` removes what the other two would keep.
        (row(1.0, 3, 0.99, 0.7), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
        (row(0.0, 0, 1.0, 0.0), [0.0, 1.0, 0.0, 0.0]),
        // Edits and masks come first, then filters.
        (edited(0..1, None), [0.25, 0.25, 0.125, 0.375]),
        (edited(0..2, None), [0.4, 0.4, 0.2, 0.0]),
        (edited(0..0, Some(0)), [2.0 / 6.0, 0.0, 1.0 / 6.0, 3.0 / 6.0]),
        (edited(0..0, Some(1)), [0.0, 0.0, 1.0, 0.0]),
        (edited(1..2, Some(0)), [2.0 / 3.0, 0.0, 1.0 / 3.0, 0.0]),
        (SampleRow { top_k: 2, ..edited(0..0, Some(0)) }, [0.4, 0.0, 0.0, 0.6]),
        (SampleRow { top_p: 0.8, ..edited(0..0, Some(0)) }, [0.4, 0.0, 0.0, 0.6]),
        (SampleRow { min_p: 0.4, ..edited(0..0, Some(0)) }, [0.4, 0.0, 0.0, 0.6]),
        (SampleRow { temperature: 0.0, ..edited(0..0, Some(0)) }, [0.0, 0.0, 0.0, 1.0]),
        (SampleRow { temperature: 0.0, ..edited(1..2, Some(0)) }, [1.0, 0.0, 0.0, 0.0]),
    ];
    let (device, draws) = (path(1, Isa::detect()), 40_000);
    let repeated = logits.repeat(draws);
    for (row, want) in cases {
        let rows: Vec<SampleRow> = (0..draws).map(|i| SampleRow { uniform: uniform(i), ..row.clone() }).collect();
        let found = run(&device, &repeated, &SampleRows { rows: &rows, edits: &edits, masks: &masks });
        for (id, want) in want.into_iter().enumerate() {
            let count = found.token_ids.iter().filter(|&&token| token == id as u32).count();
            let (n, got) = (draws as f64, count as f64 / draws as f64);
            let bound = 4.5 * (want * (1.0 - want) / n).sqrt();
            assert!((got - want).abs() <= bound, "{row:?}: token {id} has {got}, not {want}");
        }
    }
}

#[test]
fn filters_that_remove_nothing_change_nothing_and_ties_go_to_the_lower_id() {
    let mut stream = draw(5, Domain::Data, &[]);
    let logits: Vec<f32> = (0..997).map(|_| stream.normal() as f32 * 4.0).collect();
    for position in 0..200 {
        let plain = one(&logits, &row(0.9, 0, 1.0, 0.0), uniform(position));
        assert_eq!(plain, one(&logits, &row(0.9, 997, 1.0, 1e-30), uniform(position)));
    }
    let flat = [1.0f32, 2.0, 2.0, 0.0, 2.0];
    assert_eq!(one(&flat, &row(0.0, 0, 1.0, 0.0), 0.9), 1);
    for (top_k, top_p) in [(2, 1.0), (0, 0.55)] {
        let seen: BTreeSet<u32> = (0..500).map(|i| one(&flat, &row(1.0, top_k, top_p, 0.0), uniform(i))).collect();
        assert_eq!(seen, [1, 2].into());
    }
    for (top_k, top_p) in [(1, 1.0), (0, 1e-6)] {
        assert_eq!(one(&flat, &row(1.0, top_k, top_p, 0.0), 0.7), 1);
    }
}

#[test]
fn the_nucleus_is_that_of_a_plain_sort() {
    for case in 0..50u64 {
        let mut stream = draw(case, Domain::Data, &[]);
        // Some distributions are nearly flat, some have most of their tokens far below the largest.
        let (count, spread) = [(2000, 0.3), (300, 30.0), (300, 3.0)][case as usize % 3];
        let logits: Vec<f32> = (0..count).map(|_| (stream.normal() * spread) as f32).collect();
        let top_p = stream.uniform().max(0.01) as f32;
        let row = row(1.0, 0, top_p, 0.0);
        let weights: Vec<f64> = logits.iter().map(|&z| f64::from(z).exp()).collect();
        let top = weights.iter().copied().fold(0.0, f64::max);
        let scaled: Vec<f32> = weights.iter().map(|w| (w / top) as f32).collect();
        let none = SampleRows { rows: &[], edits: &[], masks: &[] };
        let want = reference::distribution(&logits, &row, &none).unwrap();
        let want: Vec<u32> = (0..count).filter(|&id| want[id as usize] > 0.0).collect();
        assert_eq!(filter(Isa::detect(), &logits, &scaled, &row), want, "case {case}, {top_p}");
    }
}

/// Random rows with everything that a row can have.
fn random(case: u64, rows: usize, vocab_size: usize) -> (Vec<f32>, Vec<SampleRow>, Vec<Edit>, Vec<u32>) {
    let mut stream = draw(case, Domain::Data, &[rows as u64, vocab_size as u64]);
    let logits: Vec<f32> = (0..rows * vocab_size).map(|_| stream.normal() as f32 * 3.0).collect();
    let (mut edits, mut masks) = (Vec::new(), Vec::new());
    let rows = (0..rows).map(|_| {
        let first = edits.len();
        if stream.chance(0.5) {
            for id in 0..vocab_size as u32 {
                if stream.chance(0.3) {
                    let bias = *stream.choose(&[0.0, 1.5, -2.0, f32::NEG_INFINITY]);
                    edits.push(edit(id, bias, *stream.choose(&[1.0, 1.3, 0.8]), *stream.choose(&[0.0, 0.7, -0.4])));
                }
            }
        }
        let mask = stream.chance(0.5).then(|| {
            masks.extend(mask(vocab_size, (0..vocab_size as u32).filter(|_| stream.chance(0.5)).collect::<Vec<_>>()));
            masks.len() / vocab_size.div_ceil(32) - 1
        });
        SampleRow {
            temperature: *stream.choose(&[0.0, 0.6, 1.0, 1.7]),
            log_prob_temperature: *stream.choose(&[0.0, 0.6, 1.0, 1.7]),
            top_k: *stream.choose(&[0, 0, 1, 5, vocab_size + 3]),
            top_p: *stream.choose(&[1.0, 0.9, 0.4]),
            min_p: *stream.choose(&[0.0, 0.0, 0.1]),
            uniform: stream.uniform(),
            edits: first..edits.len(),
            mask,
            alternatives: *stream.choose(&[0, 1, 4, vocab_size]),
        }
    });
    let rows = rows.collect();
    (logits, rows, edits, masks)
}

#[test]
fn every_path_samples_as_the_reference_does_and_a_row_as_it_does_alone() {
    let (mut compared, mut empty) = (0, 0);
    for device in devices([3]) {
        for (case, (rows, vocab_size)) in
            [(0, 5), (40, 1), (60, 2), (60, 31), (60, 33), (40, 200)].into_iter().enumerate()
        {
            let (logits, rows, edits, masks) = random(case as u64, rows, vocab_size);
            let sampling = SampleRows { rows: &rows, edits: &edits, masks: &masks };
            let found = run(&device.serial(), &logits, &sampling);
            assert_eq!(format!("{found:?}"), format!("{:?}", run(&device, &logits, &sampling)));
            let width = found.alternative_ids.len().checked_div(rows.len()).unwrap_or(0);
            for (i, row) in rows.iter().enumerate() {
                let logits = &logits[i * vocab_size..][..vocab_size];
                let alone = run(&device.serial(), logits, &SampleRows { rows: std::slice::from_ref(row), ..sampling });
                assert_eq!(
                    (alone.token_ids[0], alone.log_prob[0].to_bits(), alone.entropy[0].to_bits()),
                    (found.token_ids[i], found.log_prob[i].to_bits(), found.entropy[i].to_bits()),
                );
                let (ids, log_probs) = (&found.alternative_ids[i * width..], &found.alternative_log_probs[i * width..]);
                assert_eq!(alone.alternative_ids, ids[..row.alternatives]);
                let token = found.token_ids[i];
                let probabilities = match reference::distribution(logits, row, &sampling) {
                    Ok(probabilities) => probabilities,
                    Err(instead) => {
                        assert_eq!((token, instead), (NOTHING_ALLOWED, NOTHING_ALLOWED));
                        empty += 1;
                        continue;
                    }
                };
                // The draw falls into the token's share, but for rounding.
                let before: f64 = probabilities[..token as usize].iter().sum();
                let share = probabilities[token as usize];
                assert!(share > 0.0, "{row:?}: token {token} is filtered");
                assert!(before - 1e-5 <= row.uniform || row.temperature == 0.0, "{row:?}: {before}");
                assert!(row.uniform <= before + share + 1e-5, "{row:?}: {before} + {share}");
                let ((same, log_prob, entropy), alternatives) = reference::sample(logits, row, &sampling);
                if same == token {
                    compared += 1;
                    let near = |got: f32, want: f64| (f64::from(got) - want).abs() < 1e-5 * (1.0 + want.abs());
                    assert!(near(found.log_prob[i], log_prob) && near(found.entropy[i], entropy), "{row:?}");
                    for (j, (id, want)) in alternatives.into_iter().enumerate() {
                        assert!(ids[j] == id && near(log_probs[j], want), "{row:?}");
                    }
                }
            }
        }
    }
    assert!(compared > 220 * Isa::available().len() && empty > 0, "{compared}, {empty}");
}

#[test]
fn log_probs_are_to_the_bit_those_of_the_model_whatever_changes_the_draw() {
    for device in devices([2]) {
        let (logits, rows, edits, masks) = random(9, 80, 77);
        let found = run(&device, &logits, &SampleRows { rows: &rows, edits: &edits, masks: &masks });
        let width = found.alternative_ids.len() / rows.len();
        let mut compared = 0;
        for (i, row) in rows.iter().enumerate().filter(|(i, _)| found.token_ids[*i] < 77) {
            let alternatives = &found.alternative_ids[i * width..][..row.alternatives];
            let targets: Vec<u32> = [found.token_ids[i]].into_iter().chain(alternatives.iter().copied()).collect();
            let count = targets.len();
            let [mut log_prob, mut log_sum, mut entropy] = [vec![0.0; count], vec![0.0; count], vec![0.0; count]];
            let outputs = RowOutputs {
                log_prob: view_mut(&mut log_prob),
                log_sum: view_mut(&mut log_sum),
                entropy: view_mut(&mut entropy),
            };
            let inverse = SampleRow::inverse_temperature(row.log_prob_temperature);
            let repeated = logits[i * 77..][..77].repeat(count);
            log_prob_rows(&device, view(&repeated), view(&targets), inverse, outputs);
            assert_eq!((found.log_prob[i], found.entropy[i]), (log_prob[0], entropy[0]));
            assert_eq!(found.alternative_log_probs[i * width..][..row.alternatives], log_prob[1..]);
            assert!(log_prob[1..].is_sorted_by(|a, b| a >= b));
            compared += row.alternatives;
        }
        assert!(compared > 500, "{compared}");
    }
}

#[test]
fn extreme_logits_give_a_token_and_those_that_are_not_finite_none() {
    let extreme = [f32::MAX, f32::MIN, 0.0, f32::MIN_POSITIVE];
    let device = path(1, Isa::detect());
    for temperature in [0.0, 1e-3, 1.0, 100.0] {
        let row = row(temperature, 0, 0.9, 0.1);
        // The entropy of such a row is not finite: no token, but the choice itself is sound.
        let rows = [row.clone()];
        let sampling = SampleRows { rows: &rows, edits: &[], masks: &[] };
        assert_eq!(super::cpu::choose(&cpu(1, Isa::detect()), &extreme, &row, &sampling), 0);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(one(&[0.0, bad, 1.0], &SampleRow { top_k: 2, ..row.clone() }, 0.5), NOT_FINITE);
        }
        // A bias that leaves the range of f32 is no token, even where it would win.
        let edits = [edit(1, f32::MAX, 1e-30, 0.0)];
        let sampling = SampleRows { rows: &[SampleRow { edits: 0..1, ..row.clone() }], edits: &edits, masks: &[] };
        assert_eq!(run(&device, &[0.0, 1.0, 2.0], &sampling).token_ids, [NOT_FINITE]);
    }
}

#[test]
fn a_row_that_may_say_nothing_gives_nothing_and_spares_its_neighbours() {
    let (masks, forbid) = (vec![0, 0], |id| edit(id, f32::NEG_INFINITY, 1.0, 0.0));
    let edits: Vec<Edit> = (0..40).map(forbid).collect();
    for temperature in [0.0, 1.0] {
        let rows = [
            row(temperature, 0, 1.0, 0.0),
            SampleRow { mask: Some(0), ..row(temperature, 3, 0.9, 0.1) },
            SampleRow { edits: 0..40, alternatives: 2, ..row(temperature, 0, 1.0, 0.0) },
            SampleRow { edits: 0..39, ..row(temperature, 0, 1.0, 0.0) },
        ];
        let logits: Vec<f32> = (0..160).map(|i| (i % 7) as f32).collect();
        for device in devices([2]) {
            let found = run(&device, &logits, &SampleRows { rows: &rows, edits: &edits, masks: &masks });
            assert_eq!(found.token_ids[1..], [NOTHING_ALLOWED, NOTHING_ALLOWED, 39]);
            assert!(found.token_ids[0] < 40 && found.log_prob[1].is_nan() && found.log_prob[3].is_finite());
        }
    }
}

#[test]
fn ranks_fall_with_the_logit_and_rise_with_the_id() {
    let least = [f32::MIN, f32::NEG_INFINITY];
    let falling =
        [f32::MAX, 1.5, 1.0, f32::MIN_POSITIVE, 0.0, -0.0, -f32::MIN_POSITIVE, -1.0, -1.5, least[0], least[1]];
    let ranks: Vec<u64> = (0..falling.len() as u32).map(|id| rank(&falling, id)).collect();
    assert!(ranks.is_sorted());
    assert_eq!(ranks[4] >> 32, ranks[5] >> 32);
    assert_ne!(ranks[5] >> 32, ranks[6] >> 32);
}

#[test]
fn weights_are_relative_to_the_largest_and_extremes_have_one() {
    for isa in Isa::available() {
        for (n, t) in [(1, 1.0f32), (7, 0.6), (515, 1.3)] {
            let mut stream = draw(4, Domain::Data, &[n as u64]);
            let logits: Vec<f32> = (0..n).map(|_| stream.normal() as f32 * 9.0).collect();
            let mut weights = vec![f32::NAN; n];
            super::cpu::weigh(isa, &logits, 1.0 / t, &mut weights);
            let largest = logits.iter().copied().fold(f32::MIN, f32::max);
            for (got, z) in weights.into_iter().zip(logits) {
                let want = (f64::from(z - largest) / f64::from(t)).exp();
                assert!((f64::from(got) - want).abs() < 5e-6 * want + 1e-37, "{got} not {want}");
            }
        }
        let mut weights = [f32::NAN; 5];
        super::cpu::weigh(isa, &[f32::MIN, f32::MAX, 0.0, f32::MAX, f32::NEG_INFINITY], 1000.0, &mut weights);
        assert_eq!(weights, [0.0, 1.0, 0.0, 1.0, 0.0]);
    }
}
